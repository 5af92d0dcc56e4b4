// AVX2 and FMA.
#include "kernels.h"
#ifdef __AVX2__
#define FV_ISA foveal_avx2
#define FV_ISA_NAME "avx2"
#include "table.h"

const foveal::Kernels *foveal::kernels_avx2() { return &FV_ISA::kTable; }
#else
const foveal::Kernels *foveal::kernels_avx2() { return nullptr; }
#endif
