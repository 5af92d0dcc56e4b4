// Which instruction set's kernels this process uses.
#ifndef FOVEAL_NATIVE_ISA_H
#define FOVEAL_NATIVE_ISA_H

#include "kernels.h"

namespace foveal {

// The best that the machine has, or the one that FOVEAL_NATIVE_ISA names, chosen at the first call; NULL if that is not there.
const Kernels *chosen_kernels();

}  // namespace foveal
#endif
