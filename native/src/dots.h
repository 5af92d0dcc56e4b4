// Sums of four products of unsigned weights with signed inputs, in sixteen lanes: what every instruction set does its own way.
//
// `Bytes` and `Nibbles` say how eight rows of sixteen columns become two `Four`: weights of four rows, made ready. `dot(sums, four, q)`
// adds to lane c the products of column c's weights with q[0 .. 4). The weights' zero is still in the sums: kZero times the sum of q has to
// be taken off; it is 128 or 8, or 0 where weights were made signed.
#pragma once
#include "vectors.h"

namespace FV_ISA {

FV_INLINE int32_t word_at(const int8_t *q) {
    int32_t word;
    memcpy(&word, q, sizeof word);
    return word;
}

#if defined(__AVX512VNNI__) && defined(__AVX512F__)

struct Four {
    __m512i weights;
};
FV_INLINE Ints dot(Ints sums, Four four, const int8_t *q) {
    sums.p[0] = (IntPiece)_mm512_dpbusd_epi32((__m512i)sums.p[0], four.weights, _mm512_set1_epi32(word_at(q)));
    return sums;
}

struct Bytes {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 128, kZero = 128;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        to[0].weights = _mm512_loadu_si512(from);
        to[1].weights = _mm512_loadu_si512(from + 64);
    }
};

struct Nibbles {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 64, kZero = 8;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        const __m512i mask = _mm512_set1_epi8(15), all = _mm512_loadu_si512(from);
        to[0].weights = _mm512_and_si512(all, mask);
        to[1].weights = _mm512_and_si512(_mm512_srli_epi16(all, 4), mask);
    }
};

#elif defined(__AVX2__)

struct Halves {
    __m256i p[2];
};
FV_INLINE Halves load_halves(const uint8_t *from) {
    return {{_mm256_loadu_si256((const __m256i *)from), _mm256_loadu_si256((const __m256i *)(from + 32))}};
}

struct Four {
    Halves weights;
};
#if defined(__AVXVNNI__)
FV_INLINE Ints dot(Ints sums, Four four, const int8_t *q) {
    const __m256i words = _mm256_set1_epi32(word_at(q));
    FV_EACH sums.p[i] = (IntPiece)_mm256_dpbusd_avx_epi32((__m256i)sums.p[i], four.weights.p[i], words);
    return sums;
}
struct Bytes {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 128, kZero = 128;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        to[0].weights = load_halves(from);
        to[1].weights = load_halves(from + 64);
    }
};
#else
// Of weights below 16: sums of two products fit 16 bits.
FV_INLINE Ints dot(Ints sums, Four four, const int8_t *q) {
    const __m256i words = _mm256_set1_epi32(word_at(q)), ones = _mm256_set1_epi16(1);
    FV_EACH {
        const __m256i pairs = _mm256_maddubs_epi16(four.weights.p[i], words);
        sums.p[i] = (IntPiece)_mm256_add_epi32((__m256i)sums.p[i], _mm256_madd_epi16(pairs, ones));
    }
    return sums;
}
// With 8-bit weights they would saturate there: even and odd bytes are multiplied as 16-bit numbers.
struct FourBytes {
    Halves even, odd;
};
FV_INLINE Ints dot(Ints sums, FourBytes four, const int8_t *q) {
    const __m256i both = _mm256_set1_epi32(word_at(q));
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), odd = _mm256_srai_epi16(both, 8);
    FV_EACH {
        const __m256i first = _mm256_madd_epi16(four.even.p[i], even), second = _mm256_madd_epi16(four.odd.p[i], odd);
        sums.p[i] = (IntPiece)_mm256_add_epi32((__m256i)sums.p[i], _mm256_add_epi32(first, second));
    }
    return sums;
}
struct Bytes {
    typedef FourBytes Four;
    static constexpr int kStep = 128, kZero = 128;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        for (int j = 0; j < 2; j++) {
            const Halves all = load_halves(from + 64 * j);
            FV_EACH {
                to[j].even.p[i] = _mm256_and_si256(all.p[i], _mm256_set1_epi16(255));
                to[j].odd.p[i] = _mm256_srli_epi16(all.p[i], 8);
            }
        }
    }
};
#endif

struct Nibbles {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 64, kZero = 8;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        const __m256i mask = _mm256_set1_epi8(15);
        const Halves all = load_halves(from);
        FV_EACH {
            to[0].weights.p[i] = _mm256_and_si256(all.p[i], mask);
            to[1].weights.p[i] = _mm256_and_si256(_mm256_srli_epi16(all.p[i], 4), mask);
        }
    }
};

#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

struct Four {
    int8x16_t weights[4];
};
FV_INLINE Ints dot(Ints sums, Four four, const int8_t *q) {
    const int8x16_t words = vreinterpretq_s8_s32(vdupq_n_s32(word_at(q)));
    FV_EACH sums.p[i] = (IntPiece)vdotq_s32((int32x4_t)sums.p[i], four.weights[i], words);
    return sums;
}
// The instruction takes signed weights.
struct Bytes {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 128, kZero = 0;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        for (int j = 0; j < 2; j++)
            FV_EACH to[j].weights[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + 64 * j + 16 * i), vdupq_n_u8(128)));
    }
};
struct Nibbles {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 64, kZero = 8;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        FV_EACH {
            const uint8x16_t all = vld1q_u8(from + 16 * i);
            to[0].weights[i] = vreinterpretq_s8_u8(vandq_u8(all, vdupq_n_u8(15)));
            to[1].weights[i] = vreinterpretq_s8_u8(vshrq_n_u8(all, 4));
        }
    }
};

#else

struct Four {
    const uint8_t *from;
    int shift, mask;
};
FV_INLINE Ints dot(Ints sums, Four four, const int8_t *q) {
    int32_t lanes[kLanes];
    memcpy(lanes, &sums, sizeof sums);
    for (int c = 0; c < kLanes; c++)
        for (int j = 0; j < 4; j++) lanes[c] += ((four.from[4 * c + j] >> four.shift) & four.mask) * q[j];
    memcpy(&sums, lanes, sizeof sums);
    return sums;
}
struct Bytes {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 128, kZero = 128;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        to[0] = {from, 0, 255};
        to[1] = {from + 64, 0, 255};
    }
};
struct Nibbles {
    typedef FV_ISA::Four Four;
    static constexpr int kStep = 64, kZero = 8;
    FV_INLINE void load(const uint8_t *from, Four (&to)[2]) {
        to[0] = {from, 0, 15};
        to[1] = {from, 4, 15};
    }
};

#endif

}  // namespace FV_ISA
