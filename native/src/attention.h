// Attention of a few rows to a cache that grows with the text, over fp32 or int8 keys and values.
//
// The unit of work is a head of keys with all queries that read it, of all rows of a slot: keys are read, and widened, once. Softmax goes
// block by block (arXiv 2205.14135) of 64 keys; a block begins at a multiple of 64 whatever the row and whatever the window, and a row sees
// only what it sees, so that its result does not depend on the other rows of the call.
#pragma once
#include "functions.h"
#include "kernels.h"

namespace FV_ISA {

using foveal::AttendCall;
using foveal::Attention;
using foveal::Group;
using foveal::kKeyBlock;

// Of one query while blocks go by: the largest score so far, the sum of shares against it, and the weighted sum of values.
struct Softmax {
    float largest, sum;
};

struct Scratch {
    float *query;    // [queries][dim], scaled
    float *found;    // [queries][dim]
    float *keys;     // [kKeyBlock][dim] where keys are int8
    float *values;   // likewise
    float *shares;   // [kKeyBlock]
    Softmax *state;  // [queries]
};

FV_INLINE int64_t scratch_floats(const Attention &a, int rows) {
    const int64_t dim = a.padded_dim(), queries = (int64_t)rows * a.queries_per_key();
    return 2 * queries * dim + 2 * kKeyBlock * dim + kKeyBlock + 2 * queries;
}

FV_INLINE Scratch scratch_of(const AttendCall &call, int queries) {
    const int64_t dim = call.attention->padded_dim();
    Scratch s;
    s.query = call.scratch;
    s.found = s.query + queries * dim;
    s.keys = s.found + queries * dim;
    s.values = s.keys + kKeyBlock * dim;
    s.shares = s.values + kKeyBlock * dim;
    s.state = (Softmax *)(s.shares + kKeyBlock);
    return s;
}

// Rotates the first `rotated` dimensions of a head by angles cos [rotated / 2], sin [rotated / 2]; pairs of neighbours are parted.
FV_INLINE void rotate(const Attention &a, const float *angles, const float *x, float *y) {
    const int half = a.rotated / 2;
    for (int i = 0; i < half; i++) {
        const int first = a.pairs == FV_NEIGHBOURS ? 2 * i : i, second = a.pairs == FV_NEIGHBOURS ? 2 * i + 1 : i + half;
        const float u = x[first], v = x[second], cosine = angles[i], sine = angles[half + i];
        y[i] = u * cosine - v * sine;
        y[half + i] = v * cosine + u * sine;
    }
    for (int i = a.rotated; i < a.head_dim; i++) y[i] = x[i];
}

FV_INLINE char *cache_row(const Attention &a, const fv_cache &cache, int64_t slot, int head, int64_t row) {
    const int64_t bytes = a.dtype == FV_I8 ? 1 : 4;
    return (char *)cache.data + slot * cache.slot_bytes + head * cache.head_bytes + row * a.width * bytes;
}

// One row of one head into its cache, columns beyond head_dim as zeros.
FV_INLINE void write_cache_row(const Attention &a, const float *x, float scale, char *to) {
    if (a.dtype == FV_F32) {
        memcpy(to, x, a.head_dim * sizeof(float));
        memset(to + a.head_dim * sizeof(float), 0, (a.width - a.head_dim) * sizeof(float));
        return;
    }
    for (int i = 0; i < a.width; i += kLanes) {
        const int lanes = a.width - i < kLanes ? a.width - i : kLanes, given = a.head_dim - i < lanes ? a.head_dim - i : lanes;
        Floats y = given == kLanes ? load(x + i) : load_part(x + i, given);
        int8_t bytes[kLanes];
        store_bytes(bytes, nearest(clamp(y / splat(scale), splat(-128.0f), splat(127.0f))));
        memcpy(to + i, bytes, lanes);
    }
}

FV_INLINE void write_rows(const AttendCall &call, const Group &group, int head, float *turned) {
    const Attention &a = *call.attention;
    for (int r = group.first; r < group.first + group.count; r++) {
        const float *key = call.qkv.row(r) + (a.heads + head) * a.head_dim;
        const float *value = call.qkv.row(r) + (a.heads + a.kv_heads + head) * a.head_dim;
        if (a.rotated) {
            rotate(a, call.angles.row(r), key, turned);
            key = turned;
        }
        write_cache_row(a, key, a.key_scale, cache_row(a, *call.keys, group.slot, head, call.row_index[r]));
        write_cache_row(a, value, a.value_scale, cache_row(a, *call.values, group.slot, head, call.row_index[r]));
    }
}

// The queries of a head of keys, [rows][queries_per_key][dim], scaled so that the scores need no factor.
FV_INLINE void take_queries(const AttendCall &call, const Group &group, int head, Scratch s) {
    const Attention &a = *call.attention;
    const int dim = a.padded_dim(), each = a.queries_per_key();
    const Floats factor = splat(a.dtype == FV_I8 ? a.scale * a.key_scale : a.scale);
    for (int j = 0; j < group.count * each; j++) {
        const int r = group.first + j / each;
        const float *query = call.qkv.row(r) + (head * each + j % each) * a.head_dim;
        float *to = s.query + (int64_t)j * dim;
        if (a.rotated)
            rotate(a, call.angles.row(r), query, to);
        else
            memcpy(to, query, a.head_dim * sizeof(float));
        memset(to + a.head_dim, 0, (dim - a.head_dim) * sizeof(float));
        for (int i = 0; i < dim; i += kLanes) store(to + i, load(to + i) * factor);
        memset(s.found + (int64_t)j * dim, 0, dim * sizeof(float));
        s.state[j] = {-__builtin_inff(), 0.0f};
    }
}

// `count` rows of a cache as fp32 [count][dim], the scale left out.
FV_INLINE const float *widened(const Attention &a, const char *from, int count, float *to) {
    const int dim = a.padded_dim();
    if (a.dtype == FV_F32 && dim == a.width) return (const float *)from;
    for (int i = 0; i < count; i++) {
        for (int d = 0; d < dim; d += kLanes) {
            const int lanes = a.width - d < kLanes ? a.width - d : kLanes;
            if (a.dtype == FV_F32) {
                store(to + i * dim + d, load_part((const float *)from + i * a.width + d, lanes));
            } else if (lanes == kLanes) {
                store(to + i * dim + d, load_bytes((const int8_t *)from + i * a.width + d));
            } else {
                int8_t bytes[kLanes] = {0};
                memcpy(bytes, from + i * a.width + d, lanes);
                store(to + i * dim + d, load_bytes(bytes));
            }
        }
    }
    return to;
}

#if defined(__AVX512F__)
// Sixteen sums of sixteen lanes each, by halving; lane i of the result is the sum of x[i].
FV_INLINE Floats sums_of(const Floats (&x)[kLanes]) {
    __m512 eight[8], fours[4], twos[2];
    // Each step puts two vectors' halves (of 256, then of 128, 64, 32 bits) side by side and adds them.
    for (int i = 0; i < 8; i++) {
        const __m512 a = (__m512)x[i].p[0], b = (__m512)x[i + 8].p[0];
        eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int i = 0; i < 4; i++) {
        const __m512 a = eight[i], b = eight[i + 4];
        fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    // fours[i]: 128-bit parts hold x[i], x[i + 8], x[i + 4], x[i + 12].
    for (int i = 0; i < 2; i++) {
        const __m512 a = fours[i], b = fours[i + 2];
        twos[i] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    }
    const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88), _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
    // Part p of `all` holds, of x[base + ...]: 0, 2, 1, 3 with base 0, 8, 4, 12.
    const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    Floats y;
    y.p[0] = (FloatPiece)_mm512_permutexvar_ps(order, all);
    return y;
}
#else
FV_INLINE Floats sums_of(const Floats (&x)[kLanes]) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; i++) lanes[i] = sum_of(x[i]);
    return load(lanes);
}
#endif

// Scores of one query against keys [0, count), rounded up to sixteen; those beyond read the last key again.
FV_INLINE void score(const float *query, const float *keys, int dim, int count, float *scores) {
    for (int first = 0; first < count; first += kLanes) {
        Floats sums[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) {
            const int key = first + i < count ? first + i : count - 1;
            sums[i] = load(query) * load(keys + key * dim);
        }
        for (int d = kLanes; d < dim; d += kLanes) {
            const Floats part = load(query + d);
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; i++) {
                const int key = first + i < count ? first + i : count - 1;
                sums[i] = fma(part, load(keys + key * dim + d), sums[i]);
            }
        }
        store(scores + first, sums_of(sums));
    }
}

// Turns scores [low, high) of a block into shares against the largest score so far; what was summed before shrinks by the factor that
// is returned. Scores outside are not seen.
FV_INLINE float share(float *scores, int low, int high, Softmax *state) {
    for (int i = 0; i < low; i++) scores[i] = -__builtin_inff();
    for (int i = high; i < foveal::rounded_up(high, kLanes); i++) scores[i] = -__builtin_inff();
    Floats largest = splat(state->largest);
    for (int i = 0; i < high; i += kLanes) largest = larger(largest, load(scores + i));
    const float now = largest_of(largest);
    Floats sum = splat(0.0f);
    for (int i = 0; i < high; i += kLanes) {
        Floats shares = exponential_of_difference(load(scores + i) - splat(now));
        store(scores + i, shares);
        sum = sum + shares;
    }
    float lanes[kLanes];
    store(lanes, exponential_of_difference(splat(state->largest - now)));
    const float factor = state->sum == 0.0f ? 0.0f : lanes[0];
    state->sum = state->sum * factor + sum_of(sum);
    state->largest = now;
    return factor;
}

template <int V>
FV_INLINE void gather_vectors(const float *shares, const float *values, int dim, int low, int high, float factor, float *found) {
    Floats sums[V];
    for (int v = 0; v < V; v++) sums[v] = load(found + v * kLanes) * splat(factor);
    for (int i = low; i < high; i++) {
        const Floats part = splat(shares[i]);
        for (int v = 0; v < V; v++) sums[v] = fma(part, load(values + i * dim + v * kLanes), sums[v]);
    }
    for (int v = 0; v < V; v++) store(found + v * kLanes, sums[v]);
}

// found = found * factor + the values weighted by their shares
FV_INLINE void gather(const float *shares, const float *values, int dim, int low, int high, float factor, float *found) {
    int d = 0;
    for (; d + 4 * kLanes <= dim; d += 4 * kLanes) gather_vectors<4>(shares, values + d, dim, low, high, factor, found + d);
    for (; d + 2 * kLanes <= dim; d += 2 * kLanes) gather_vectors<2>(shares, values + d, dim, low, high, factor, found + d);
    for (; d < dim; d += kLanes) gather_vectors<1>(shares, values + d, dim, low, high, factor, found + d);
}

static int64_t attend_scratch(const Attention &a, int rows) { return scratch_floats(a, rows); }

static void attend(const AttendCall &call, const Group &group, int head) {
    const Attention &a = *call.attention;
    const int dim = a.padded_dim(), each = a.queries_per_key(), queries = group.count * each;
    const Scratch s = scratch_of(call, queries);
    write_rows(call, group, head, s.query);
    take_queries(call, group, head, s);
    int64_t begin = 0;
    if (a.window) {
        int64_t least = call.row_index[group.first];
        for (int r = 1; r < group.count; r++)
            least = call.row_index[group.first + r] < least ? call.row_index[group.first + r] : least;
        begin = least - a.window + 1 > 0 ? (least - a.window + 1) / kKeyBlock * kKeyBlock : 0;
    }
    for (int64_t block = begin; block < group.longest; block += kKeyBlock) {
        const int count = group.longest - block < kKeyBlock ? (int)(group.longest - block) : kKeyBlock;
        const float *keys = widened(a, cache_row(a, *call.keys, group.slot, head, block), count, s.keys);
        const float *values = widened(a, cache_row(a, *call.values, group.slot, head, block), count, s.values);
        for (int j = 0; j < queries; j++) {
            const int64_t index = call.row_index[group.first + j / each];
            const int64_t first = a.window && index - a.window + 1 > block ? index - a.window + 1 - block : 0;
            const int64_t end = index + 1 - block < count ? index + 1 - block : count;
            if (first >= end) continue;
            score(s.query + (int64_t)j * dim, keys, dim, (int)end, s.shares);
            const float factor = share(s.shares, (int)first, (int)end, s.state + j);
            gather(s.shares, values, dim, (int)first, (int)end, factor, s.found + (int64_t)j * dim);
        }
    }
    for (int j = 0; j < queries; j++) {
        const float *found = s.found + (int64_t)j * dim;
        float *to = call.out.row(group.first + j / each) + (head * each + j % each) * a.head_dim;
        const float factor = (a.dtype == FV_I8 ? a.value_scale : 1.0f) / s.state[j].sum;
        for (int i = 0; i < a.head_dim; i++) to[i] = found[i] * factor;
    }
}

}  // namespace FV_ISA
