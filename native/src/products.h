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

// As many rows go together as there are registers for.
constexpr int kTogether = kPieces == 1 ? kMostTogether : kMostTogether / 2;

// ---- rounding of inputs

// Where the rounded numbers of one row go, eight by eight.
struct Sink {
    int8_t *q;
    int64_t stride;
    FV_INLINE void put(Sink sink, int k, Ints rounded, int count) {
        int8_t bytes[kLanes];
        store_bytes(bytes, rounded);
        for (int i = 0; i < count; i += 8) memcpy(sink.q + (k + i) / 8 * sink.stride, bytes + i, 8);
    }
};

// One block of a row to 8 bits, by an inverse scale; numbers up to `end`, behind the row's own, are zeros. Returns their sum.
FV_INLINE int32_t round_block(const float *x, int first, int count, int end, Floats inverse, Sink sink) {
    Ints sum = splat_int(0);
    for (int i = first; i < end; i += kLanes) {
        const int given = count - i < kLanes ? count - i : kLanes, wanted = end - i < kLanes ? end - i : kLanes;
        const Ints rounded = nearest(load_lanes(x + i, given) * inverse);
        sum = sum + rounded;
        Sink::put(sink, i, rounded, wanted);
    }
    return sum_of(sum);
}

// Largest magnitude of a block; a NaN if there is one.
FV_INLINE float largest_magnitude(const float *x, int first, int end) {
    Floats largest = splat(0.0f), zero = splat(0.0f);
    for (int i = first; i < end; i += kLanes) {
        const Floats size = magnitude(load_lanes(x + i, end - i < kLanes ? end - i : kLanes));
        largest = larger(largest, size);
        zero = fma(size, splat(0.0f), zero);
    }
    return largest_of(largest) + sum_of(zero);
}

// What has to be taken off sums for the weights' zero. Unsigned: of infinite inputs anything may come, but no overflow.
FV_INLINE int32_t zero_of(int zero, int32_t sum) { return (int32_t)(0u - (uint32_t)zero * (uint32_t)sum); }

FV_INLINE void round_by_block(const Product &product, const float *x, int row, Rounded to, int zero) {
    const int rows = product.block_rows(), padded = product.padded_k();
    const Sink sink = {to.q + 8 * row, 8 * (int64_t)to.rows};
    for (int first = 0, at = row; first < padded; first += rows, at += to.rows) {
        const int end = padded - first < rows ? padded : first + rows, count = product.k < end ? product.k : end;
        const float largest = largest_magnitude(x, first, count);
        // Below that the inverse would be infinite; nothing is lost. A NaN is divided by.
        const float inverse = largest < 1e-36f ? 0.0f : 127.0f / largest;
        to.scale[at] = largest / 127.0f;
        to.zero[at] = zero_of(zero, round_block(x, first, count, end, splat(inverse), sink));
    }
}

// As QuantizeLinear: a true division, halves to even, saturated.
FV_INLINE void round_by_scale(const Product &product, const float *x, int row, Rounded to) {
    const Sink sink = {to.q + 8 * row, 8 * (int64_t)to.rows};
    const Floats divisor = splat(product.x_scale), low = splat(-128.0f), high = splat(127.0f);
    Ints sum = splat_int(0);
    Floats nans = splat(0.0f);
    for (int i = 0; i < product.padded_k(); i += kLanes) {
        const int given = product.k - i < kLanes ? product.k - i : kLanes, left = product.padded_k() - i;
        const Floats numbers = load_lanes(x + i, given);
        FV_EACH nans.p[i] = numbers.p[i] == numbers.p[i] ? nans.p[i] : numbers.p[i];
        const Ints rounded = nearest(clamp(numbers / divisor, low, high));
        sum = sum + rounded;
        Sink::put(sink, i, rounded, left < kLanes ? left : kLanes);
    }
    to.scale[row] = product.x_scale + sum_of(nans);
    to.zero[row] = zero_of(Bytes::kZero, sum_of(sum));
}

static void round_rows(const Product &product, Rows x, Rounded to) {
    for (int r = 0; r < to.rows; r++) {
        if (product.format == FV_INT8)
            round_by_scale(product, x.row(r), r, to);
        else
            round_by_block(product, x.row(r), r, to, product.format == FV_W8 ? Bytes::kZero : Nibbles::kZero);
    }
}

// ---- one panel

// How far ahead of its use a panel is asked for, in bytes: hardware does not look beyond a page, and the last-level cache is far away, too
// (docs/adr/0026-native-steps.md). A quarter of the smallest first-level cache.
constexpr int kAhead = 8192;

// Sums of one panel's columns for R rows, the first of which `x` begins with. A row's chain of dependent sums is cut in several, whose
// integers add up to the same.
template <class Weights, int R>
FV_INLINE void panel_of_integers(const Product &product, Rounded x, const uint8_t *w, Floats (&sums)[R]) {
    constexpr int kGroups = R == 1 ? 2 : 1;                      // of eight k, at a time
    constexpr int kChains = kPieces == 1 ? 2 * kGroups : kGroups;  // of each row
    const int padded = product.padded_k(), rows = product.block_rows();
    const int64_t stride = 8 * (int64_t)x.rows;
    for (int r = 0; r < R; r++) sums[r] = splat(0.0f);
    for (int first = 0; first < padded; first += rows) {
        int groups = (padded - first < rows ? padded - first : rows) / 8;
        const Floats scale = load((const float *)w);
        w += 64;
        Ints chains[R][kChains];
        for (int r = 0; r < R; r++) {
            chains[r][0] = splat_int(x.zero[r]);
            for (int c = 1; c < kChains; c++) chains[r][c] = splat_int(0);
        }
        const auto add = [&](int c) __attribute__((always_inline)) {
            typename Weights::Four weights[2];
            __builtin_prefetch(w + kAhead);
            if (Weights::kStep == 128) __builtin_prefetch(w + kAhead + 64);
            Weights::load(w, weights);
            w += Weights::kStep;
            for (int r = 0; r < R; r++) {
                Ints &even = chains[r][c % kChains], &odd = chains[r][(c + 1) % kChains];
                even = dot(even, weights[0], x.q + 8 * r);
                odd = dot(odd, weights[1], x.q + 8 * r + 4);
            }
            x.q += stride;
        };
        for (; groups >= kGroups; groups -= kGroups)
            for (int g = 0; g < kGroups; g++) add(kPieces == 1 ? 2 * g : g);
        if (kGroups > 1 && groups) add(0);
        for (int r = 0; r < R; r++) {
            Ints sum = chains[r][0];
            for (int c = 1; c < kChains; c++) sum = sum + chains[r][c];
            sums[r] = fma(to_floats(sum) * scale, splat(x.scale[r]), sums[r]);
        }
        x.scale += x.rows;
        x.zero += x.rows;
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

// The panel functions of a format, for 1 to kTogether rows.
template <int FORMAT>
static PanelFunction panel_function(int rows) {
    if constexpr (kTogether > 4) {
        if (rows == 5) return panel<FORMAT, 5>;
        if (rows == 6) return panel<FORMAT, 6>;
        if (rows == 7) return panel<FORMAT, 7>;
        if (rows == 8) return panel<FORMAT, 8>;
    }
    return rows == 1 ? panel<FORMAT, 1> : rows == 2 ? panel<FORMAT, 2> : rows == 3 ? panel<FORMAT, 3> : panel<FORMAT, 4>;
}

static PanelFunction panel_function(int format, int rows) {
    switch (format) {
        case FV_FP32: return panel_function<FV_FP32>(rows);
        case FV_W4: return panel_function<FV_W4>(rows);
        default: return panel_function<FV_W8>(rows);  // int8 is read alike
    }
}

FV_INLINE Rows from_row(Rows rows, int first) {
    return {rows.data ? rows.data + first * rows.stride : nullptr, rows.stride};
}
FV_INLINE Rounded from_row(Rounded x, int first) { return {x.q + 8 * first, x.scale + first, x.zero + first, x.rows}; }

static void product(const Product &product, Rows x, Rounded rounded, int rows, int first, int last, Rows added, Rows out) {
    const int passes = (rows + kTogether - 1) / kTogether;
    for (int index = first; index < last; index++) {
        // Passes of about as many rows each; the panel is in the cache from the second one on.
        for (int pass = 0, r = 0; pass < passes; pass++) {
            const int together = (rows - r + passes - pass - 1) / (passes - pass);
            const PanelFunction function = panel_function(product.format, together);
            function(product, from_row(x, r), from_row(rounded, r), index, from_row(added, r), from_row(out, r));
            r += together;
        }
    }
}

}  // namespace FV_ISA
