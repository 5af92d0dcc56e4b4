// AVX-512 with its dot products of 8-bit numbers (VNNI).
#include "kernels.h"
#ifdef __AVX512VNNI__
#define FV_ISA foveal_avx512
#define FV_ISA_NAME "avx512"
#include "table.h"

const foveal::Kernels *foveal::kernels_avx512() { return &FV_ISA::kTable; }
#else
const foveal::Kernels *foveal::kernels_avx512() { return nullptr; }
#endif
