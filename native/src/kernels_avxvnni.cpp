// AVX2 with dot products of 8-bit numbers (AVX-VNNI).
#include "kernels.h"
#ifdef __AVXVNNI__
#define FV_ISA foveal_avxvnni
#define FV_ISA_NAME "avxvnni"
#include "table.h"

const foveal::Kernels *foveal::kernels_avxvnni() { return &FV_ISA::kTable; }
#else
const foveal::Kernels *foveal::kernels_avxvnni() { return nullptr; }
#endif
