// 64-bit ARM with dot products of 8-bit numbers.
#include "kernels.h"
#ifdef __ARM_FEATURE_DOTPROD
#define FV_ISA foveal_neon
#define FV_ISA_NAME "neon"
#include "table.h"

const foveal::Kernels *foveal::kernels_neon() { return &FV_ISA::kTable; }
#else
const foveal::Kernels *foveal::kernels_neon() { return nullptr; }
#endif
