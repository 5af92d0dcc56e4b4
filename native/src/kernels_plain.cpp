// Whatever the compiler makes of it, on any machine.
#define FV_ISA foveal_plain
#define FV_ISA_NAME "plain"
#include "table.h"

const foveal::Kernels *foveal::kernels_plain() { return &FV_ISA::kTable; }
