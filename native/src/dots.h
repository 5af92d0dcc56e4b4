// Sums of four products of unsigned weights with signed activations, in sixteen lanes: what every instruction set does its own way.
//
// `Bytes` and `Nibbles` are 64 bytes of packed weights, made ready. `dot(sums, weights, q)` adds to lane c the products of column c's
// weights with q[0 .. kRows). What is added is exact if the zero, kZero times the sum of q, is taken off; kZero is 128 or 8, or 0 where
// weights were made signed.
#pragma once
#include "vectors.h"

namespace FV_ISA {

FV_INLINE int32_t four(const int8_t *q) {
    int32_t word;
    memcpy(&word, q, sizeof word);
    return word;
}

#if defined(__AVX512VNNI__) && defined(__AVX512F__)

FV_INLINE Ints dot_words(Ints sums, __m512i weights, int32_t word) {
    sums.p[0] = (IntPiece)_mm512_dpbusd_epi32((__m512i)sums.p[0], weights, _mm512_set1_epi32(word));
    return sums;
}

struct Bytes {
    static constexpr int kRows = 4, kZero = 128;
    __m512i all;
    FV_INLINE Bytes of(const uint8_t *from) { return {_mm512_loadu_si512(from)}; }
    FV_INLINE Ints dot(Ints sums, Bytes w, const int8_t *q) { return dot_words(sums, w.all, four(q)); }
};

struct Nibbles {
    static constexpr int kRows = 8, kZero = 8;
    __m512i low, high;
    FV_INLINE Nibbles of(const uint8_t *from) {
        const __m512i mask = _mm512_set1_epi8(15), all = _mm512_loadu_si512(from);
        return {_mm512_and_si512(all, mask), _mm512_and_si512(_mm512_srli_epi16(all, 4), mask)};
    }
    FV_INLINE Ints dot(Ints sums, Nibbles w, const int8_t *q) {
        return dot_words(dot_words(sums, w.low, four(q)), w.high, four(q + 4));
    }
};

#elif defined(__AVX2__)

struct Halves {
    __m256i p[2];
};
FV_INLINE Halves load_halves(const uint8_t *from) {
    return {{_mm256_loadu_si256((const __m256i *)from), _mm256_loadu_si256((const __m256i *)(from + 32))}};
}

#if defined(__AVXVNNI__)
FV_INLINE Ints dot_halves(Ints sums, Halves weights, int32_t word) {
    const __m256i q = _mm256_set1_epi32(word);
    FV_EACH sums.p[i] = (IntPiece)_mm256_dpbusd_avx_epi32((__m256i)sums.p[i], weights.p[i], q);
    return sums;
}
struct Bytes {
    static constexpr int kRows = 4, kZero = 128;
    Halves all;
    FV_INLINE Bytes of(const uint8_t *from) { return {load_halves(from)}; }
    FV_INLINE Ints dot(Ints sums, Bytes w, const int8_t *q) { return dot_halves(sums, w.all, four(q)); }
};
#else
// Weights below 16: pairs fit 16 bits without saturating.
FV_INLINE Ints dot_halves(Ints sums, Halves weights, int32_t word) {
    const __m256i q = _mm256_set1_epi32(word), ones = _mm256_set1_epi16(1);
    FV_EACH {
        __m256i pairs = _mm256_maddubs_epi16(weights.p[i], q);
        sums.p[i] = (IntPiece)_mm256_add_epi32((__m256i)sums.p[i], _mm256_madd_epi16(pairs, ones));
    }
    return sums;
}
// vpmaddubsw would saturate with 8-bit weights; even and odd bytes are multiplied as 16-bit numbers.
struct Bytes {
    static constexpr int kRows = 4, kZero = 128;
    Halves even, odd;
    FV_INLINE Bytes of(const uint8_t *from) {
        Halves all = load_halves(from), even, odd;
        FV_EACH {
            even.p[i] = _mm256_and_si256(all.p[i], _mm256_set1_epi16(255));
            odd.p[i] = _mm256_srli_epi16(all.p[i], 8);
        }
        return {even, odd};
    }
    FV_INLINE Ints dot(Ints sums, Bytes w, const int8_t *q) {
        const __m256i both = _mm256_set1_epi32(four(q));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), odd = _mm256_srai_epi16(both, 8);
        FV_EACH {
            __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(w.even.p[i], even), _mm256_madd_epi16(w.odd.p[i], odd));
            sums.p[i] = (IntPiece)_mm256_add_epi32((__m256i)sums.p[i], sum);
        }
        return sums;
    }
};
#endif

struct Nibbles {
    static constexpr int kRows = 8, kZero = 8;
    Halves low, high;
    FV_INLINE Nibbles of(const uint8_t *from) {
        const __m256i mask = _mm256_set1_epi8(15);
        Halves all = load_halves(from), low, high;
        FV_EACH {
            low.p[i] = _mm256_and_si256(all.p[i], mask);
            high.p[i] = _mm256_and_si256(_mm256_srli_epi16(all.p[i], 4), mask);
        }
        return {low, high};
    }
    FV_INLINE Ints dot(Ints sums, Nibbles w, const int8_t *q) {
        return dot_halves(dot_halves(sums, w.low, four(q)), w.high, four(q + 4));
    }
};

#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

// vdotq takes signed weights.
struct Bytes {
    static constexpr int kRows = 4, kZero = 0;
    int8x16_t all[4];
    FV_INLINE Bytes of(const uint8_t *from) {
        Bytes w;
        FV_EACH w.all[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + 16 * i), vdupq_n_u8(128)));
        return w;
    }
    FV_INLINE Ints dot(Ints sums, Bytes w, const int8_t *q) {
        const int8x16_t words = vreinterpretq_s8_s32(vdupq_n_s32(four(q)));
        FV_EACH sums.p[i] = (IntPiece)vdotq_s32((int32x4_t)sums.p[i], w.all[i], words);
        return sums;
    }
};
struct Nibbles {
    static constexpr int kRows = 8, kZero = 8;
    int8x16_t low[4], high[4];
    FV_INLINE Nibbles of(const uint8_t *from) {
        Nibbles w;
        FV_EACH {
            uint8x16_t all = vld1q_u8(from + 16 * i);
            w.low[i] = vreinterpretq_s8_u8(vandq_u8(all, vdupq_n_u8(15)));
            w.high[i] = vreinterpretq_s8_u8(vshrq_n_u8(all, 4));
        }
        return w;
    }
    FV_INLINE Ints dot(Ints sums, Nibbles w, const int8_t *q) {
        const int8x16_t low = vreinterpretq_s8_s32(vdupq_n_s32(four(q))), high = vreinterpretq_s8_s32(vdupq_n_s32(four(q + 4)));
        FV_EACH {
            int32x4_t sum = vdotq_s32((int32x4_t)sums.p[i], w.low[i], low);
            sums.p[i] = (IntPiece)vdotq_s32(sum, w.high[i], high);
        }
        return sums;
    }
};

#else

FV_INLINE Ints dot_plain(Ints sums, const uint8_t *weights, int shift, int mask, const int8_t *q) {
    int32_t lanes[kLanes];
    memcpy(lanes, &sums, sizeof sums);
    for (int c = 0; c < kLanes; c++)
        for (int j = 0; j < 4; j++) lanes[c] += ((weights[4 * c + j] >> shift) & mask) * q[j];
    memcpy(&sums, lanes, sizeof sums);
    return sums;
}
struct Bytes {
    static constexpr int kRows = 4, kZero = 128;
    const uint8_t *from;
    FV_INLINE Bytes of(const uint8_t *from) { return {from}; }
    FV_INLINE Ints dot(Ints sums, Bytes w, const int8_t *q) { return dot_plain(sums, w.from, 0, 255, q); }
};
struct Nibbles {
    static constexpr int kRows = 8, kZero = 8;
    const uint8_t *from;
    FV_INLINE Nibbles of(const uint8_t *from) { return {from}; }
    FV_INLINE Ints dot(Ints sums, Nibbles w, const int8_t *q) {
        return dot_plain(dot_plain(sums, w.from, 0, 15, q), w.from, 4, 15, q + 4);
    }
};

#endif

}  // namespace FV_ISA
