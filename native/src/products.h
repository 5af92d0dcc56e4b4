// Products of a few rows with packed weights (layouts.md): a panel of 16 columns is read once for up to eight rows.
#pragma once
#include "dots.h"
#include "functions.h"
#include "kernels.h"

namespace FV_ISA {

using foveal::kMostTogether;
using foveal::kPanel;
using foveal::Product;
using foveal::Rounded;
using foveal::Rows;

// ---- rounding of inputs

// One block of a row, its numbers from x to 8 bits with an inverse scale; those up to `end` behind them are zeros. Returns their sum.
FV_INLINE int32_t round_block(const float *x, int count, int end, Floats inverse, int8_t *q) {
    Ints sum = splat_int(0);
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        Ints rounded = nearest(load(x + i) * inverse);
        sum = sum + rounded;
        store_bytes(q + i, rounded);
    }
    if (i < end) {
        int8_t tail[kLanes];
        Ints rounded = nearest(load_part(x + i, count - i) * inverse);
        sum = sum + rounded;
        store_bytes(tail, rounded);
        memcpy(q + i, tail, end - i < kLanes ? end - i : kLanes);
        for (i += kLanes; i < end; i++) q[i] = 0;
    }
    return sum_of(sum);
}

// Largest magnitude of a block; a NaN if there is one.
FV_INLINE float largest_magnitude(const float *x, int count) {
    Floats largest = splat(0.0f), zero = splat(0.0f);
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        Floats size = magnitude(load(x + i));
        largest = larger(largest, size);
        zero = fma(size, splat(0.0f), zero);
    }
    if (i < count) {
        Floats size = magnitude(load_part(x + i, count - i));
        largest = larger(largest, size);
        zero = fma(size, splat(0.0f), zero);
    }
    return largest_of(largest) + sum_of(zero);
}

// What has to be taken off sums for the weights' zero. Unsigned: of infinite inputs anything may come, but no overflow.
FV_INLINE int32_t zero_of(int zero, int32_t sum) { return (int32_t)(0u - (uint32_t)zero * (uint32_t)sum); }

FV_INLINE void round_by_block(const Product &product, const float *x, int8_t *q, float *scales, int32_t *zeros, int zero) {
    const int rows = product.block_rows(), padded = product.padded_k(), blocks = product.blocks();
    for (int b = 0; b < blocks; b++) {
        const int first = b * rows, end = (padded - first < rows ? padded - first : rows);
        const int count = product.k - first < end ? product.k - first : end;
        const float largest = largest_magnitude(x + first, count);
        // Below that the inverse would be infinite; nothing is lost. A NaN is divided by.
        const float inverse = largest < 1e-36f ? 0.0f : 127.0f / largest;
        scales[b] = largest / 127.0f;
        zeros[b] = zero_of(zero, round_block(x + first, count, end, splat(inverse), q + first));
    }
}

// As QuantizeLinear: a true division, halves to even, saturated.
FV_INLINE void round_by_scale(const Product &product, const float *x, int8_t *q, float *scale, int32_t *zero) {
    Ints sum = splat_int(0);
    Floats nans = splat(0.0f);
    const Floats divisor = splat(product.x_scale), low = splat(-128.0f), high = splat(127.0f);
    for (int i = 0; i < product.padded_k(); i += kLanes) {
        const int count = product.k - i, room = product.padded_k() - i;
        Floats given = count >= kLanes ? load(x + i) : load_part(x + i, count);
        Floats y = clamp(given / divisor, low, high);
        FV_EACH nans.p[i] = given.p[i] == given.p[i] ? nans.p[i] : given.p[i];
        Ints rounded = nearest(y);
        if (room < kLanes) {
            int8_t tail[kLanes];
            store_bytes(tail, rounded);
            memcpy(q + i, tail, room);
        } else {
            store_bytes(q + i, rounded);
        }
        sum = sum + rounded;
    }
    *scale = product.x_scale + sum_of(nans);
    *zero = zero_of(Bytes::kZero, sum_of(sum));
}

static void round_rows(const Product &product, Rows x, int rows, Rounded to) {
    for (int r = 0; r < rows; r++) {
        int8_t *q = to.q + r * to.stride;
        float *scales = to.scale + r * to.blocks;
        int32_t *zeros = to.zero + r * to.blocks;
        if (product.format == FV_INT8)
            round_by_scale(product, x.row(r), q, scales, zeros);
        else
            round_by_block(product, x.row(r), q, scales, zeros, product.format == FV_W8 ? Bytes::kZero : Nibbles::kZero);
    }
}

// ---- one panel

// How far ahead of its use a panel is asked for, in bytes: hardware does not look beyond a page.
constexpr int kAhead = 2048;

// Sums of one panel's columns for R rows. A single row's chain of dependent sums is cut in several, whose integers add up to the same.
template <class Weights, int R>
FV_INLINE void panel_of_integers(const Product &product, Rounded x, const uint8_t *w, Floats (&sums)[R]) {
    constexpr int kChains = R == 1 ? 4 : R == 2 ? 2 : 1;
    const int padded = product.padded_k(), rows = product.block_rows();
    for (int r = 0; r < R; r++) sums[r] = splat(0.0f);
    const int8_t *q = x.q;
    for (int first = 0, b = 0; first < padded; first += rows, b++) {
        const int groups = (padded - first < rows ? padded - first : rows) / Weights::kRows;
        const Floats scale = load((const float *)w);
        w += 64;
        Ints acc[R][kChains];
        for (int r = 0; r < R; r++) {
            acc[r][0] = splat_int(x.zero[r * x.blocks + b]);
            for (int c = 1; c < kChains; c++) acc[r][c] = splat_int(0);
        }
        int g = 0;
        for (; g + kChains <= groups; g += kChains) {
#pragma GCC unroll 4
            for (int c = 0; c < kChains; c++) {
                __builtin_prefetch(w + kAhead);
                const Weights weights = Weights::of(w);
                w += 64;
                for (int r = 0; r < R; r++) acc[r][c] = Weights::dot(acc[r][c], weights, q + r * x.stride);
                q += Weights::kRows;
            }
        }
        for (; g < groups; g++) {
            const Weights weights = Weights::of(w);
            w += 64;
            for (int r = 0; r < R; r++) acc[r][0] = Weights::dot(acc[r][0], weights, q + r * x.stride);
            q += Weights::kRows;
        }
        for (int r = 0; r < R; r++) {
            Ints sum = acc[r][0];
            for (int c = 1; c < kChains; c++) sum = sum + acc[r][c];
            sums[r] = fma(to_floats(sum) * scale, splat(x.scale[r * x.blocks + b]), sums[r]);
        }
    }
}

// Two chains, of the even and the odd k, whatever R is: sums of floats depend on their order.
template <int R>
FV_INLINE void panel_of_floats(const Product &product, Rows x, const float *w, Floats (&sums)[R]) {
    Floats odd[R];
    for (int r = 0; r < R; r++) sums[r] = odd[r] = splat(0.0f);
    int k = 0;
    for (; k + 2 <= product.k; k += 2, w += 2 * kPanel) {
        __builtin_prefetch((const char *)w + kAhead);
        __builtin_prefetch((const char *)w + kAhead + 64);
        const Floats first = load(w), second = load(w + kPanel);
        for (int r = 0; r < R; r++) {
            sums[r] = fma(first, splat(x.row(r)[k]), sums[r]);
            odd[r] = fma(second, splat(x.row(r)[k + 1]), odd[r]);
        }
    }
    if (k < product.k)
        for (int r = 0; r < R; r++) sums[r] = fma(load(w), splat(x.row(r)[k]), sums[r]);
    for (int r = 0; r < R; r++) sums[r] = sums[r] + odd[r];
}

// Bias, activation and residual of one panel's sums.
static __attribute__((noinline)) void finish(const Product &product, const Floats *sums, int rows, int column, Rows added, Rows out) {
    const int lanes = product.n - column < kLanes ? product.n - column : kLanes;
    const Floats bias = product.bias ? load_lanes(product.bias + column, lanes) : splat(0.0f);
    for (int r = 0; r < rows; r++) {
        Floats y = activated(sums[r] + bias, product.activation);
        if (added.data) y = y + load_lanes(added.row(r) + column, lanes);
        store_lanes(out.row(r) + column, y, lanes);
    }
}

template <int FORMAT, int R>
static void panel(const Product &product, Rows x, Rounded rounded, int index, Rows added, Rows out) {
    const uint8_t *weights = product.weights + index * product.panel_bytes;
    Floats sums[R];
    if constexpr (FORMAT == FV_FP32)
        panel_of_floats<R>(product, x, (const float *)weights, sums);
    else if constexpr (FORMAT == FV_W4)
        panel_of_integers<Nibbles, R>(product, rounded, weights, sums);
    else
        panel_of_integers<Bytes, R>(product, rounded, weights, sums);
    finish(product, sums, R, index * kPanel, added, out);
}

typedef void (*PanelFunction)(const Product &, Rows, Rounded, int, Rows, Rows);

#define FV_PANELS(format)                                                                                       \
    {                                                                                                           \
        panel<format, 1>, panel<format, 2>, panel<format, 3>, panel<format, 4>, panel<format, 5>, panel<format, 6>, \
            panel<format, 7>, panel<format, 8>                                                                  \
    }
// int8 and w8 are read alike.
static const PanelFunction kPanelFunctions[4][kMostTogether] = {
    FV_PANELS(FV_FP32), FV_PANELS(FV_W8), FV_PANELS(FV_W8), FV_PANELS(FV_W4)};

FV_INLINE Rows from_row(Rows rows, int first) {
    return {rows.data ? rows.data + first * rows.stride : nullptr, rows.stride};
}
FV_INLINE Rounded from_row(Rounded x, int first) {
    return {x.q + first * x.stride, x.scale + first * x.blocks, x.zero + first * x.blocks, x.stride, x.blocks};
}

static void product(const Product &product, Rows x, Rounded rounded, int rows, int first, int last, Rows added, Rows out) {
    const int passes = (rows + kMostTogether - 1) / kMostTogether;
    for (int index = first; index < last; index++) {
        // Passes of about as many rows each; the panel is in the cache from the second one on.
        for (int pass = 0, r = 0; pass < passes; pass++) {
            const int together = (rows - r + passes - pass - 1) / (passes - pass);
            const PanelFunction function = kPanelFunctions[product.format][together - 1];
            function(product, from_row(x, r), from_row(rounded, r), index, from_row(added, r), from_row(out, r));
            r += together;
        }
    }
}

}  // namespace FV_ISA
