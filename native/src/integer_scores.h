// Scores against int8 keys by dot products of integers, with queries of 24 bits: as exact as fp32, in a fraction of the instructions.
//
// A query is scaled to integers below 2^23 and written in three digits of 8 bits, so that its product with a key is 2^16 h + 2^8 m + l, each
// an exact sum of 8-bit products. Keys are transposed four columns at a time, so that sixteen keys stand in the sixteen lanes.
#pragma once
#include "dots.h"
#include "kernels.h"

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define FV_INTEGER_SCORES

namespace FV_ISA {

using foveal::kKeyBlock;
using foveal::kMostHeadDim;

constexpr int kDigits = 3;

// Instead of a query [dim] of fp32, in its place: [3][dim] digits, and behind them what undoes the scaling and the keys' zero.
struct DigitsEnd {
    float factor;
    int32_t zero[kDigits];
};

FV_INLINE void to_digits(float *query, int dim) {
    constexpr float kMost = 127.0f * 65536.0f;
    Floats largest = splat(0.0f), nans = splat(0.0f);
    for (int i = 0; i < dim; i += kLanes) {
        largest = larger(largest, magnitude(load(query + i)));
        nans = fma(load(query + i), splat(0.0f), nans);
    }
    const float most = largest_of(largest) + sum_of(nans);
    const float inverse = most < 1e-30f ? 0.0f : kMost / most;
    Ints sums[kDigits] = {splat_int(0), splat_int(0), splat_int(0)};
    // A column group's digits may overwrite numbers that are still to be read: they go to a copy first.
    int8_t digits[kDigits][kMostHeadDim];
    for (int i = 0; i < dim; i += kLanes) {
        Ints rest = nearest(load(query + i) * splat(inverse));
        for (int digit = 0; digit < kDigits; digit++) {  // the lowest first, -128 .. 127
            Ints low = rest;
            FV_EACH low.p[i] = (IntPiece)((low.p[i] << 24) >> 24);
            rest = rest - low;
            FV_EACH rest.p[i] >>= 8;
            sums[digit] = sums[digit] + low;
            store_bytes(digits[digit] + i, low);
        }
    }
    DigitsEnd end;
    end.factor = most < 1e-30f ? 0.0f : most / kMost;
    for (int digit = 0; digit < kDigits; digit++) {
        memcpy((int8_t *)query + digit * dim, digits[digit], dim);
        end.zero[digit] = (int32_t)(0u - 128u * (uint32_t)sum_of(sums[digit]));
    }
    memcpy((int8_t *)query + kDigits * dim, &end, sizeof end);
}

// Sixteen rows of sixteen 32-bit words, transposed.
FV_INLINE void transpose(const __m512i (&rows)[16], __m512i (&columns)[16]) {
    __m512i pairs[16], fours[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // fours[i + w]: of rows i .. i + 3, words w, 4 + w, 8 + w, 12 + w
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (int w = 0; w < 4; w++) {
        const __m512i a = _mm512_shuffle_i32x4(fours[w], fours[4 + w], 0x88), b = _mm512_shuffle_i32x4(fours[8 + w], fours[12 + w], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(fours[w], fours[4 + w], 0xdd), d = _mm512_shuffle_i32x4(fours[8 + w], fours[12 + w], 0xdd);
        columns[w] = _mm512_shuffle_i32x4(a, b, 0x88);
        columns[8 + w] = _mm512_shuffle_i32x4(a, b, 0xdd);
        columns[4 + w] = _mm512_shuffle_i32x4(c, d, 0x88);
        columns[12 + w] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

// Sixteen keys, `bytes` of up to 64 columns each, to [columns / 4][16 keys][4], made unsigned by adding 128. Those from `count` on are the
// last one again.
FV_INLINE void transpose_sixteen(const int8_t *keys, int width, int count, int bytes, int words, uint8_t *to) {
    const __m512i middle = _mm512_set1_epi8((char)128);
    __m512i rows[16], columns[16];
    if (count >= 16 && bytes == 64) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) rows[i] = _mm512_xor_si512(_mm512_loadu_si512(keys + (int64_t)i * width), middle);
    } else {
        const __mmask64 mask = bytes == 64 ? ~0ull : (1ull << bytes) - 1;
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const int key = i < count ? i : count - 1;
            rows[i] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, keys + (int64_t)key * width), middle);
        }
    }
    transpose(rows, columns);
#pragma GCC unroll 4
    for (int w = 0; w < 16; w += 4)
        if (w < words)
            for (int i = w; i < w + 4; i++) _mm512_storeu_si512(to + 64 * i, columns[i]);
}

// Keys [count][width] to bytes [count / 16][dim / 4][16 keys][4]; columns beyond the width meet zeros of queries.
FV_INLINE void transpose_keys(const int8_t *keys, int count, int width, int dim, uint8_t *to) {
    for (int first = 0; first < count; first += kLanes)
        for (int column = 0; column < width; column += 64)
            transpose_sixteen(
                keys + (int64_t)first * width + column, width, count - first, width - column < 64 ? width - column : 64,
                (dim - column < 64 ? dim - column : 64) / 4, to + (int64_t)first * dim + (int64_t)column * 16);
}

template <int Q>
FV_INLINE void score_digits(const float *query, const uint8_t *keys, int dim, float *scores) {
    const int8_t *digits = (const int8_t *)query;
    const int64_t stride = 4 * (int64_t)dim;
    Ints sums[Q][kDigits];
    DigitsEnd end[Q];
    for (int q = 0; q < Q; q++) {
        memcpy(&end[q], digits + q * stride + kDigits * dim, sizeof end[q]);
        for (int digit = 0; digit < kDigits; digit++) sums[q][digit] = splat_int(end[q].zero[digit]);
    }
    for (int column = 0; column < dim; column += 4) {
        const Four four = {_mm512_loadu_si512(keys + (int64_t)column * 16)};
        for (int q = 0; q < Q; q++)
            for (int digit = 0; digit < kDigits; digit++)
                sums[q][digit] = dot(sums[q][digit], four, digits + q * stride + digit * dim + column);
    }
    for (int q = 0; q < Q; q++) {
        Floats score = fma(to_floats(sums[q][1]), splat(256.0f), to_floats(sums[q][0]));
        score = fma(to_floats(sums[q][2]), splat(65536.0f), score);
        store(scores + q * kKeyBlock, score * splat(end[q].factor));
    }
}

// As score_floats: all queries against `count` keys.
FV_INLINE void score_integers(const float *query, int queries, const uint8_t *keys, int dim, int count, float *scores) {
    for (int first = 0; first < count; first += kLanes, keys += 16 * (int64_t)dim) {
        int j = 0;
        for (; j + 4 <= queries; j += 4) score_digits<4>(query + (int64_t)j * dim, keys, dim, scores + j * kKeyBlock + first);
        for (; j < queries; j++) score_digits<1>(query + (int64_t)j * dim, keys, dim, scores + j * kKeyBlock + first);
    }
}

}  // namespace FV_ISA
#endif
