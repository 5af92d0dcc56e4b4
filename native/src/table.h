// The table of one instruction set's kernels; each kernels_*.cpp includes this once, compiled with its own flags.
#pragma once
#include "attention.h"
#include "products.h"
#include "rows.h"

namespace FV_ISA {

static const foveal::Kernels kTable = {
    FV_ISA_NAME, round_rows, product, attend, attend_scratch, norm, add, multiply, mean, gate, activate, group_attend,
};

}  // namespace FV_ISA
