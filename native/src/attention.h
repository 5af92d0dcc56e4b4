// Attention of a few rows to a cache that grows with the text, over fp32 or int8 keys and values.
//
// The unit of work is a head of keys with all queries that read it, of all rows of a slot: keys are read, and widened, once. Softmax goes
// block by block (arXiv 2205.14135) of 64 keys; a block begins at a multiple of 64 whatever the row and whatever the window, and a row sees
// only what it sees, so that its result does not depend on the other rows of the call.
#pragma once
#include "functions.h"
#include "integer_scores.h"
#include "kernels.h"

namespace FV_ISA {

using foveal::AttendCall;
using foveal::Attention;
using foveal::Group;
using foveal::kKeyBlock;

// Of one query while blocks go by: the largest score so far, and the sum of shares against it.
struct Softmax {
    float largest, sum;
};

// Keys of a block that a row sees.
struct Range {
    int low, high;
};

// A thread's memory for one unit. Queries are fp32 or, for dot products of integers, digits (integer_scores.h), in as much room.
struct Scratch {
    float *query;    // [queries][dim], scaled
    float *found;    // [queries][2][dim], of even and of odd keys
    float *keys;     // [kKeyBlock][dim], widened; or [kKeyBlock * dim] bytes, transposed
    float *values;   // [kKeyBlock][dim], widened
    float *shares;   // [queries][kKeyBlock]; scores at first
    Softmax *state;  // [queries]
    Range *ranges;   // [queries] what each sees of the block
};

FV_INLINE int64_t scratch_floats(const Attention &a, int rows) {
    const int64_t dim = a.padded_dim(), queries = (int64_t)rows * a.queries_per_key();
    return queries * (3 * dim + kKeyBlock + 4) + 2 * kKeyBlock * dim;
}

FV_INLINE Scratch scratch_of(const AttendCall &call, int64_t queries) {
    const int64_t dim = call.attention->padded_dim();
    Scratch s;
    s.query = call.scratch;
    s.found = s.query + queries * dim;
    s.keys = s.found + 2 * queries * dim;
    s.values = s.keys + kKeyBlock * dim;
    s.shares = s.values + kKeyBlock * dim;
    s.state = (Softmax *)(s.shares + queries * kKeyBlock);
    s.ranges = (Range *)(s.state + queries);
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
        memset(s.found + 2 * (int64_t)j * dim, 0, 2 * dim * sizeof(float));
        s.state[j] = {-__builtin_inff(), 0.0f};
    }
}

// ---- keys and values of a block

FV_INLINE Floats load_numbers(const float *from, int lanes) { return load_lanes(from, lanes); }
FV_INLINE Floats load_numbers(const int8_t *from, int lanes) {
    if (lanes == kLanes) return load_bytes(from);
    int8_t bytes[kLanes] = {0};
    memcpy(bytes, from, lanes);
    return load_bytes(bytes);
}

// `count` rows [width] of a cache as fp32 [count][dim], the scale left out.
template <class Number>
FV_INLINE void widen(const Number *from, int count, int width, int dim, float *to) {
    if (width == dim) {
        for (int i = 0; i < count * dim; i += kLanes) store(to + i, load_numbers(from + i, kLanes));
        return;
    }
    for (int i = 0; i < count; i++)
        for (int d = 0; d < dim; d += kLanes)
            store(to + i * dim + d, load_numbers(from + (int64_t)i * width + d, width - d < kLanes ? width - d : kLanes));
}

// The rows themselves if they are fp32 and need no filling up.
FV_INLINE const float *widened(const Attention &a, const char *from, int count, float *to) {
    if (a.dtype == FV_F32 && a.padded_dim() == a.width) return (const float *)from;
    if (a.dtype == FV_F32)
        widen((const float *)from, count, a.width, a.padded_dim(), to);
    else
        widen((const int8_t *)from, count, a.width, a.padded_dim(), to);
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

// Scores of one query against sixteen keys, `stride` apart; DIM columns if that is known.
template <int DIM>
FV_INLINE Floats score_sixteen(const float *query, const float *keys, int dim, int stride) {
    Floats sums[kLanes];
    const int columns = DIM ? DIM : dim;
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) sums[i] = load(query) * load(keys + i * stride);
    for (int d = kLanes; d < columns; d += kLanes) {
        const Floats part = load(query + d);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) sums[i] = fma(part, load(keys + i * stride + d), sums[i]);
    }
    return sums_of(sums);
}

// Scores of all queries against `count` keys, and numbers without a meaning up to a multiple of sixteen.
FV_INLINE void score_floats(const float *query, int queries, const float *keys, int dim, int count, float *scores, float *spare) {
    for (int first = 0; first < count; first += kLanes) {
        const float *from = keys + (int64_t)first * dim;
        if (count - first < kLanes && keys != spare) {  // behind the last key the cache may end
            memcpy(spare, from, (int64_t)(count - first) * dim * sizeof(float));
            from = spare;
        }
        for (int j = 0; j < queries; j++) {
            const float *q = query + (int64_t)j * dim;
            const Floats found = dim == 64 ? score_sixteen<64>(q, from, 64, 64) : score_sixteen<0>(q, from, dim, dim);
            store(scores + j * kKeyBlock + first, found);
        }
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

// ---- values

// Adds one row of values, weighted by the shares of Q queries, to V vectors of each one's sums.
template <int V, int Q, class Number>
FV_INLINE void add_values(const float *shares, const Number *row, Floats (&sums)[Q][V]) {
    Floats numbers[V];
    for (int v = 0; v < V; v++) numbers[v] = load_numbers(row + v * kLanes, kLanes);
    for (int q = 0; q < Q; q++) {
        Floats share = splat(shares[q * kKeyBlock]);
        keep_in_register(share);
        for (int v = 0; v < V; v++) sums[q][v] = fma(share, numbers[v], sums[q][v]);
    }
}

// Adds values [low, high), weighted by their shares, to the sums of Q queries, V vectors from column d on; even and odd ones apart, which
// are two chains. Shares are kKeyBlock apart from query to query, sums 2 dim.
template <int V, int Q, class Number>
FV_INLINE void gather_columns(const float *shares, const Number *values, int64_t stride, int low, int high, float *found, int64_t dim) {
    Floats even[Q][V], odd[Q][V];
    for (int q = 0; q < Q; q++)
        for (int v = 0; v < V; v++) {
            even[q][v] = load(found + 2 * q * dim + v * kLanes);
            odd[q][v] = load(found + (2 * q + 1) * dim + v * kLanes);
        }
    const Number *row = values + low * stride, *end = values + high * stride;
    shares += low;
    if (low % 2 && row < end) {
        add_values<V, Q>(shares++, row, odd);
        row += stride;
    }
    for (; row + stride < end; row += 2 * stride, shares += 2) {
        add_values<V, Q>(shares, row, even);
        add_values<V, Q>(shares + 1, row + stride, odd);
    }
    if (row < end) add_values<V, Q>(shares, row, even);
    for (int q = 0; q < Q; q++)
        for (int v = 0; v < V; v++) {
            store(found + 2 * q * dim + v * kLanes, even[q][v]);
            store(found + (2 * q + 1) * dim + v * kLanes, odd[q][v]);
        }
}

template <int Q, class Number>
FV_INLINE void gather(const float *shares, const Number *values, int stride, int low, int high, float *found, int dim) {
    int d = 0;
    if constexpr (kPieces == 1) {
        for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
            gather_columns<4, Q>(shares, values + d, stride, low, high, found + d, dim);
        for (; d + 2 * kLanes <= dim; d += 2 * kLanes)
            gather_columns<2, Q>(shares, values + d, stride, low, high, found + d, dim);
    }
    for (; d < dim; d += kLanes) gather_columns<1, Q>(shares, values + d, stride, low, high, found + d, dim);
}

FV_INLINE void shrink(float *found, int count, float factor) {
    if (factor == 1.0f) return;
    for (int i = 0; i < count; i += kLanes) store(found + i, load(found + i) * splat(factor));
}

// ---- all of it

// What the row at `index` sees of a block of `count` keys from `block` on.
FV_INLINE Range seen(const Attention &a, int64_t index, int64_t block, int count) {
    const int64_t low = a.window && index - a.window + 1 > block ? index - a.window + 1 - block : 0;
    const int64_t high = index + 1 - block < count ? index + 1 - block : count;
    return {(int)(low < high ? low : high > 0 ? high : 0), (int)(high > 0 ? high : 0)};
}

FV_INLINE int64_t first_block(const AttendCall &call, const Group &group) {
    if (!call.attention->window) return 0;
    int64_t least = call.row_index[group.first];
    for (int r = 1; r < group.count; r++)
        least = call.row_index[group.first + r] < least ? call.row_index[group.first + r] : least;
    const int64_t first = least - call.attention->window + 1;
    return first > 0 ? first / kKeyBlock * kKeyBlock : 0;
}

// Asks for rows of a cache that are needed soon: streams of a few kilobytes are over before the hardware has seen them.
FV_INLINE void ask_for(const char *rows, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(rows + i);
}

FV_INLINE void score_block(const Attention &a, const char *keys, int queries, int count, Scratch s) {
#ifdef FV_INTEGER_SCORES
    if (a.dtype == FV_I8) {
        transpose_keys((const int8_t *)keys, count, a.width, a.padded_dim(), (uint8_t *)s.keys);
        return score_integers(s.query, queries, (const uint8_t *)s.keys, a.padded_dim(), count, s.shares);
    }
#endif
    score_floats(s.query, queries, widened(a, keys, count, s.keys), a.padded_dim(), count, s.shares, s.keys);
}

FV_INLINE void gather_block(const Attention &a, const char *values, int queries, int count, const Range *ranges, Scratch s) {
    const int dim = a.padded_dim();
    if (queries == 1 && a.dtype == FV_I8 && a.width == dim)
        return gather<1>(s.shares, (const int8_t *)values, dim, ranges[0].low, ranges[0].high, s.found, dim);
    const float *wide = widened(a, values, count, s.values);
    for (int j = 0; j < queries;) {
        const float *shares = s.shares + j * kKeyBlock;
        float *found = s.found + 2 * (int64_t)j * dim;
        const Range own = ranges[j];
        if (j + 1 < queries && ranges[j + 1].low == own.low) {  // two at a time read the values once
            const int next = ranges[j + 1].high, both = own.high < next ? own.high : next;
            gather<2>(shares, wide, dim, own.low, both, found, dim);
            if (own.high > both) gather<1>(shares, wide, dim, both, own.high, found, dim);
            if (next > both) gather<1>(shares + kKeyBlock, wide, dim, both, next, found + 2 * dim, dim);
            j += 2;
        } else {
            gather<1>(shares, wide, dim, own.low, own.high, found, dim);
            j++;
        }
    }
}

static int64_t attend_scratch(const Attention &a, int rows) { return scratch_floats(a, rows); }

static void attend(const AttendCall &call, const Group &group, int head) {
    const Attention &a = *call.attention;
    const int dim = a.padded_dim(), each = a.queries_per_key(), queries = group.count * each;
    const int64_t row_bytes = a.width * (a.dtype == FV_I8 ? 1 : 4);
    const Scratch s = scratch_of(call, queries);
    write_rows(call, group, head, s.query);
    take_queries(call, group, head, s);
#ifdef FV_INTEGER_SCORES
    if (a.dtype == FV_I8)
        for (int j = 0; j < queries; j++) to_digits(s.query + (int64_t)j * dim, dim);
#endif
    for (int64_t block = first_block(call, group); block < group.longest; block += kKeyBlock) {
        const int count = group.longest - block < kKeyBlock ? (int)(group.longest - block) : kKeyBlock;
        const char *keys = cache_row(a, *call.keys, group.slot, head, block);
        const char *values = cache_row(a, *call.values, group.slot, head, block);
        const int64_t left = group.longest - block - count, next = left < kKeyBlock ? left : kKeyBlock;
        ask_for(values, count * row_bytes);
        ask_for(keys + count * row_bytes, next * row_bytes);
        score_block(a, keys, queries, count, s);
        for (int j = 0; j < queries; j++) {
            const Range range = s.ranges[j] = seen(a, call.row_index[group.first + j / each], block, count);
            if (range.low < range.high)
                shrink(s.found + 2 * (int64_t)j * dim, 2 * dim, share(s.shares + j * kKeyBlock, range.low, range.high, s.state + j));
        }
        gather_block(a, values, queries, count, s.ranges, s);
    }
    for (int j = 0; j < queries; j++) {
        const float *even = s.found + 2 * (int64_t)j * dim, *odd = even + dim;
        float *to = call.out.row(group.first + j / each) + (head * each + j % each) * a.head_dim;
        const Floats factor = splat((a.dtype == FV_I8 ? a.value_scale : 1.0f) / s.state[j].sum);
        for (int i = 0; i < a.head_dim; i += kLanes)
            store_lanes(to + i, (load(even + i) + load(odd + i)) * factor, a.head_dim - i < kLanes ? a.head_dim - i : kLanes);
    }
}

}  // namespace FV_ISA
