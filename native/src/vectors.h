// Sixteen lanes of fp32 or int32, as one, two or four of the machine's vectors: the kernels are written once, over these.
//
// Included by each kernels_*.cpp with the compiler flags of its instruction set; everything is inside the namespace FV_ISA and inlined,
// so that no function compiled for one instruction set can be linked into another one's code.
#pragma once
#ifndef FV_ISA
#error "vectors.h belongs to one instruction set: define FV_ISA"
#endif

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FV_INLINE static inline __attribute__((always_inline))

namespace FV_ISA {

#if defined(__AVX512F__)
constexpr int kPieceBytes = 64;
#elif defined(__AVX2__)
constexpr int kPieceBytes = 32;
#else
constexpr int kPieceBytes = 16;
#endif
constexpr int kLanes = 16;
constexpr int kPieces = 4 * kLanes / kPieceBytes;
constexpr int kPieceLanes = kPieceBytes / 4;

typedef float FloatPiece __attribute__((vector_size(kPieceBytes)));
typedef int32_t IntPiece __attribute__((vector_size(kPieceBytes)));

struct Floats {
    FloatPiece p[kPieces];
};
struct Ints {
    IntPiece p[kPieces];
};

#define FV_EACH _Pragma("GCC unroll 4") for (int i = 0; i < kPieces; i++)

FV_INLINE Floats splat(float x) {
    Floats y;
    FV_EACH y.p[i] = x - FloatPiece{};
    return y;
}
FV_INLINE Ints splat_int(int32_t x) {
    Ints y;
    FV_EACH y.p[i] = x - IntPiece{};
    return y;
}
// Keeps the compiler from reading a broadcast number anew for every use.
FV_INLINE void keep_in_register(Floats &x) {
#if defined(__AVX512F__)
    asm("" : "+v"(x.p[0]));
#else
    (void)x;
#endif
}
FV_INLINE Floats load(const float *from) {
    Floats y;
    memcpy(&y, from, sizeof y);
    return y;
}
FV_INLINE void store(float *to, Floats x) { memcpy(to, &x, sizeof x); }

// The first n < 16 lanes from memory, the rest `rest`.
FV_INLINE Floats load_part(const float *from, int n, float rest = 0.0f) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; i++) lanes[i] = i < n ? from[i] : rest;
    return load(lanes);
}
FV_INLINE void store_part(float *to, Floats x, int n) {
    float lanes[kLanes];
    store(lanes, x);
    for (int i = 0; i < n; i++) to[i] = lanes[i];
}

FV_INLINE Floats load_lanes(const float *from, int lanes) { return lanes == kLanes ? load(from) : load_part(from, lanes); }
FV_INLINE void store_lanes(float *to, Floats x, int lanes) {
    if (lanes == kLanes)
        store(to, x);
    else
        store_part(to, x, lanes);
}

FV_INLINE Floats operator+(Floats a, Floats b) {
    FV_EACH a.p[i] += b.p[i];
    return a;
}
FV_INLINE Floats operator-(Floats a, Floats b) {
    FV_EACH a.p[i] -= b.p[i];
    return a;
}
FV_INLINE Floats operator*(Floats a, Floats b) {
    FV_EACH a.p[i] *= b.p[i];
    return a;
}
FV_INLINE Floats operator/(Floats a, Floats b) {
    FV_EACH a.p[i] /= b.p[i];
    return a;
}
FV_INLINE Ints operator+(Ints a, Ints b) {
    FV_EACH a.p[i] += b.p[i];
    return a;
}
FV_INLINE Ints operator-(Ints a, Ints b) {
    FV_EACH a.p[i] -= b.p[i];
    return a;
}

// a * b + c; the compiler is told not to fuse by itself, so that an expression is rounded in the same places wherever it is inlined.
FV_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    c.p[0] = (FloatPiece)_mm512_fmadd_ps((__m512)a.p[0], (__m512)b.p[0], (__m512)c.p[0]);
#elif defined(__FMA__)
    FV_EACH c.p[i] = (FloatPiece)_mm256_fmadd_ps((__m256)a.p[i], (__m256)b.p[i], (__m256)c.p[i]);
#elif defined(__aarch64__)
    FV_EACH c.p[i] = (FloatPiece)vfmaq_f32((float32x4_t)c.p[i], (float32x4_t)a.p[i], (float32x4_t)b.p[i]);
#else
    FV_EACH c.p[i] = a.p[i] * b.p[i] + c.p[i];
#endif
    return c;
}

// The larger; `a` where it is a NaN, `b` is lost where only that is one.
FV_INLINE Floats larger(Floats a, Floats b) {
    FV_EACH a.p[i] = b.p[i] > a.p[i] ? b.p[i] : a.p[i];
    return a;
}
// `low` also where x is a NaN.
FV_INLINE Floats clamp(Floats x, Floats low, Floats high) {
    FV_EACH {
        x.p[i] = x.p[i] > low.p[i] ? x.p[i] : low.p[i];
        x.p[i] = x.p[i] < high.p[i] ? x.p[i] : high.p[i];
    }
    return x;
}
FV_INLINE Ints bits_of(Floats x) {
    Ints y;
    memcpy(&y, &x, sizeof y);
    return y;
}
FV_INLINE Floats floats_of(Ints x) {
    Floats y;
    memcpy(&y, &x, sizeof y);
    return y;
}
FV_INLINE Floats magnitude(Floats x) {
    Ints bits = bits_of(x);
    FV_EACH bits.p[i] &= 0x7fffffff;
    return floats_of(bits);
}
FV_INLINE Floats with_sign_of(Floats x, Floats sign) {
    Ints a = bits_of(x), b = bits_of(sign);
    FV_EACH a.p[i] = (a.p[i] & 0x7fffffff) | (b.p[i] & (int32_t)0x80000000);
    return floats_of(a);
}
// yes where a < b, else no; also where either is a NaN.
FV_INLINE Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
    FV_EACH no.p[i] = a.p[i] < b.p[i] ? yes.p[i] : no.p[i];
    return no;
}

FV_INLINE Floats to_floats(Ints x) {
    Floats y;
    FV_EACH y.p[i] = __builtin_convertvector(x.p[i], FloatPiece);
    return y;
}

// The nearest integers, halves to the even one, of numbers within +-2^22.
FV_INLINE Ints nearest(Floats x) {
    Ints y;
#if defined(__AVX512F__)
    y.p[0] = (IntPiece)_mm512_cvtps_epi32((__m512)x.p[0]);
#elif defined(__AVX2__)
    FV_EACH y.p[i] = (IntPiece)_mm256_cvtps_epi32((__m256)x.p[i]);
#elif defined(__SSE2__)
    FV_EACH y.p[i] = (IntPiece)_mm_cvtps_epi32((__m128)x.p[i]);
#elif defined(__aarch64__)
    FV_EACH y.p[i] = (IntPiece)vcvtnq_s32_f32((float32x4_t)x.p[i]);
#else
    // Numbers of this size added to 1.5 * 2^23 are rounded to integers, which then stand in the low bits.
    const float magic = 12582912.0f;
    FV_EACH {
        FloatPiece shifted = x.p[i] + magic;
        memcpy(&y.p[i], &shifted, sizeof shifted);
        y.p[i] = (y.p[i] & 0x7fffff) - 0x400000;
    }
#endif
    return y;
}

// Lanes within -128 .. 127 as bytes.
FV_INLINE void store_bytes(int8_t *to, Ints x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)x.p[0]));
#else
    int32_t lanes[kLanes];
    memcpy(lanes, &x, sizeof x);
    for (int i = 0; i < kLanes; i++) to[i] = (int8_t)lanes[i];
#endif
}
FV_INLINE Floats load_bytes(const int8_t *from) {
    Ints y;
#if defined(__AVX512F__)
    y.p[0] = (IntPiece)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    FV_EACH y.p[i] = (IntPiece)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8 * i)));
#else
    int32_t lanes[kLanes];
    for (int i = 0; i < kLanes; i++) lanes[i] = from[i];
    memcpy(&y, lanes, sizeof y);
#endif
    return to_floats(y);
}

// Sum of the lanes, in pairs that lie half the lanes apart: one order for all instruction sets.
FV_INLINE float sum_of(Floats x) {
#if defined(__AVX512F__)
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((__m512)x.p[0]), 1));
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)x.p[0]), high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
    float lanes[kLanes];
    store(lanes, x);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}
FV_INLINE int32_t sum_of(Ints x) {
    uint32_t lanes[kLanes], sum = 0;  // unsigned: may wrap
    memcpy(lanes, &x, sizeof x);
    for (int i = 0; i < kLanes; i++) sum += lanes[i];
    return (int32_t)sum;
}
FV_INLINE float largest_of(Floats x) {
#if defined(__AVX512F__)
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((__m512)x.p[0]), 1));
    __m256 eight = _mm256_max_ps(_mm512_castps512_ps256((__m512)x.p[0]), high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
    float lanes[kLanes];
    store(lanes, x);
    for (int i = 1; i < kLanes; i++) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
#endif
}

}  // namespace FV_ISA
