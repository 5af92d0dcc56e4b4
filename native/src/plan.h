// How a program is run: its steps in phases, and where every value stands.
//
// There are steps of two kinds. A *row step* (a norm, a sum) is cheap: every thread computes it for itself, into memory of its own, which
// costs less than waiting for another thread to have done it. A *split step* (a product, an attention) is divided among the threads and
// writes to memory that all share. A phase is some row steps and the split step behind them; between two phases everybody's part is done.
//
// A value that a row step made and a later phase reads is published: one thread copies it to shared memory. Shared memory of a buffer is
// double, so that a value can be written while the one before it is still being read.
#ifndef FOVEAL_NATIVE_PLAN_H
#define FOVEAL_NATIVE_PLAN_H

#include <string>
#include <vector>

#include "kernels.h"

namespace foveal {

constexpr int kNoPlace = -1;

// Where rows stand: at an offset in a thread's own memory or in the shared memory, both in floats. Rows are `stride` apart.
struct Place {
    enum Space { kNone, kOwn, kShared } space = kNone;
    int64_t offset = 0;
    int64_t stride = 0;
};

enum Count { kCallRows, kLogitRows };

struct RowStep {
    int kind = 0;  // fv_kind, or one of those below
    fv_step step{};
    Place in[4], out[2];
    int width = 0;  // of what is made
    int parts = 1;  // of a row
    int input = kNoPlace;  // kLoad, FV_EMBED: which of the program's inputs
    Count count = kCallRows;
};

// Row steps that no program has: an input's rows are loaded; rows are moved from shared memory, or cleared, before a part is copied in.
constexpr int kLoad = 0, kMove = -1, kClear = -2;

struct Publication {
    Place from, to;
    int width;
    Count count;
};

struct Phase {
    std::vector<RowStep> row_steps;
    std::vector<Publication> publications;
    int kind = 0;  // FV_PRODUCT, FV_ATTEND, or 0: nothing is split
    fv_step step{};
    Place in, added, angles, out;
    Count count = kCallRows;
    Product product{};
    Attention attention{};
    int most_chunks = 1;
};

struct Plan {
    std::vector<Phase> phases;
    std::vector<fv_input> inputs;
    std::vector<int> widths;
    int n_caches = 0;
    int most_rows = 0;
    Place output;
    int output_width = 0;
    int output_parts = 1;
    Count output_count = kCallRows;
    int64_t own_floats = 0;     // of each thread: buffers, then
    int64_t rounded_floats = 0;  // a product's rounded input
    int64_t scratch_floats = 0;  // an attention's scratch
    int64_t shared_floats = 0;
    bool takes = false;   // whether it has an FV_TAKE
};

// Throws std::invalid_argument with what is wrong.
Plan plan_of(const fv_program &program, const Kernels &kernels, int threads);

int64_t panel_bytes(int format, int k, int block);

}  // namespace foveal
#endif
