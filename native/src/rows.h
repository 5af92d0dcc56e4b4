// What is done row by row, element by element: norms, sums, means, gates.
#pragma once
#include "functions.h"
#include "kernels.h"

namespace FV_ISA {

using foveal::kMostHeadDim;
using foveal::Rows;

// Calls `step(i, lanes)` for every sixteen of `width` columns, the last time with fewer lanes.
template <class Step>
FV_INLINE void over_columns(int width, Step step) {
    int i = 0;
    for (; i + kLanes <= width; i += kLanes) step(i, kLanes);
    if (i < width) step(i, width - i);
}
static float root(float x) {
    float y;
#if defined(__SSE2__)
    _mm_store_ss(&y, _mm_sqrt_ss(_mm_set_ss(x)));
#else
    y = __builtin_sqrtf(x);
#endif
    return y;
}

// Two passes, so that the variance does not lose what the mean is larger by; the row stays in the first cache.
FV_INLINE void norm_row(int kind, float eps, const float *gamma, const float *beta, int width, const float *x, float *y) {
    Floats sum = splat(0.0f);
    float mean = 0.0f;
    if (kind == FV_LAYER) {
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) { sum = sum + load_lanes(x + i, lanes); });
        mean = sum_of(sum) / (float)width;
    }
    Floats squares = splat(0.0f);
    over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
        Floats away = load_lanes(x + i, lanes) - splat(mean);
        if (lanes < kLanes) {  // lanes that are not there are no further from zero than zero
            float part[kLanes];
            store(part, away);
            away = load_part(part, lanes);
        }
        squares = fma(away, away, squares);
    });
    const float square = sum_of(squares) / (float)width;
    float size = kind == FV_RMS ? root(square) : root(square + eps);
    if (kind == FV_RMS && size < eps) size = eps;
    const Floats factor = splat(1.0f / size), middle = splat(mean);
    over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
        Floats scaled = (load_lanes(x + i, lanes) - middle) * factor;
        Floats found = beta ? fma(scaled, load_lanes(gamma + i, lanes), load_lanes(beta + i, lanes)) : scaled * load_lanes(gamma + i, lanes);
        store_lanes(y + i, found, lanes);
    });
}

static void add(Rows a, Rows b, Rows c, Rows out, int width, int rows) {
    for (int r = 0; r < rows; r++) {
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
            Floats sum = load_lanes(a.row(r) + i, lanes) + load_lanes(b.row(r) + i, lanes);
            if (c.data) sum = sum + load_lanes(c.row(r) + i, lanes);
            store_lanes(out.row(r) + i, sum, lanes);
        });
    }
}

// The parts of all rows lie one behind the other: rows are as wide as their strides.
static void norm(
    int kind, float eps, const float *gamma, const float *beta, int width, Rows x, Rows added, Rows normed, Rows sum, int rows
) {
    if (added.data) add(x, added, {nullptr, 0}, sum, width, rows);
    for (int r = 0; r < rows; r++) norm_row(kind, eps, gamma, beta, width, added.data ? sum.row(r) : x.row(r), normed.row(r));
}

static void multiply(Rows a, Rows b, Rows out, int width, int rows) {
    for (int r = 0; r < rows; r++)
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
            store_lanes(out.row(r) + i, load_lanes(a.row(r) + i, lanes) * load_lanes(b.row(r) + i, lanes), lanes);
        });
}

static void mean(Rows x, int parts, Rows out, int width, int rows) {
    for (int r = 0; r < rows; r++)
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
            Floats sum = load_lanes(x.row(r) + i, lanes);
            for (int p = 1; p < parts; p++) sum = sum + load_lanes(x.row(r) + p * width + i, lanes);
            store_lanes(out.row(r) + i, sum / splat((float)parts), lanes);
        });
}

static void gate(int activation, Rows x, Rows out, int width, int rows) {
    for (int r = 0; r < rows; r++)
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
            Floats gate = activated(load_lanes(x.row(r) + i, lanes), activation);
            store_lanes(out.row(r) + i, gate * load_lanes(x.row(r) + width + i, lanes), lanes);
        });
}

static void activate(int activation, Rows x, Rows out, int width, int rows) {
    for (int r = 0; r < rows; r++)
        over_columns(width, [&](int i, int lanes) __attribute__((always_inline)) {
            store_lanes(out.row(r) + i, activated(load_lanes(x.row(r) + i, lanes), activation), lanes);
        });
}

// A query [heads dim] against `parts` keys and values [2][heads dim] of its own row.
static void group_attend(Rows query, Rows pairs, Rows out, int heads, int dim, int parts, float scale, int rows) {
    const int width = heads * dim;
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < heads; h++) {
            const float *q = query.row(r) + h * dim, *keys = pairs.row(r) + h * dim, *values = keys + width;
            float largest = -__builtin_inff(), sum = 0.0f;
            Floats found[kMostHeadDim / kLanes];
            for (Floats &part : found) part = splat(0.0f);
            for (int p = 0; p < parts; p++) {
                Floats products = splat(0.0f);
                over_columns(dim, [&](int i, int lanes) __attribute__((always_inline)) {
                    products = fma(load_lanes(q + i, lanes), load_lanes(keys + 2 * p * width + i, lanes), products);
                });
                const float score = sum_of(products) * scale, now = score > largest || score != score ? score : largest;
                float factors[kLanes] = {largest - now, score - now};
                store(factors, exponential_of_difference(load(factors)));
                const float kept = p == 0 ? 0.0f : factors[0], share = factors[1];
                sum = sum * kept + share;
                over_columns(dim, [&](int i, int lanes) __attribute__((always_inline)) {
                    const Floats value = load_lanes(values + 2 * p * width + i, lanes);
                    found[i / kLanes] = fma(value, splat(share), found[i / kLanes] * splat(kept));
                });
                largest = now;
            }
            over_columns(dim, [&](int i, int lanes) __attribute__((always_inline)) {
                store_lanes(out.row(r) + h * dim + i, found[i / kLanes] / splat(sum), lanes);
            });
        }
    }
}

}  // namespace FV_ISA
