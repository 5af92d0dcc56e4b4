// exp, erf and the activations, sixteen lanes at a time. Polynomials were fitted by least squares on Chebyshev nodes; a NaN stays one.
#pragma once
#include "vectors.h"
#include "api.h"

namespace FV_ISA {

template <int N>
FV_INLINE Floats polynomial(Floats x, const float (&coefficients)[N]) {  // the constant first
    Floats y = splat(coefficients[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; i--) y = fma(y, x, splat(coefficients[i]));
    return y;
}

// 2^power times `fraction` is exp(x), of x within +-88.
struct Exponential {
    Ints power;
    Floats fraction;
};

FV_INLINE Exponential split_exponential(Floats x) {
    static constexpr float kTerms[] = {1.0f, 1.0f, 0.5f, 0.16666415f, 0.041666218f, 0.0083751289f, 0.0013948581f};
    const Ints power = nearest(x * splat(1.44269504f));
    const Floats whole = to_floats(power);
    // ln 2 in two parts, the first of which has room for all powers.
    Floats rest = fma(whole, splat(-0.693145752f), x);
    rest = fma(whole, splat(-1.42860677e-6f), rest);
    return {power, polynomial(rest, kTerms)};
}

FV_INLINE Floats power_of_two(Ints power) {
    FV_EACH power.p[i] = (power.p[i] + 127) << 23;
    return floats_of(power);
}

// Zero below -87, where results would be subnormal, and infinite above 88.7.
FV_INLINE Floats exponential(Floats x) {
    const Exponential found = split_exponential(clamp(x, splat(-88.0f), splat(88.7f)));
    Ints half = found.power;  // 2^128 itself is no float
    FV_EACH half.p[i] >>= 1;
    Floats y = found.fraction * power_of_two(half) * power_of_two(found.power - half);
    y = where_less(x, splat(-87.0f), splat(0.0f), y);
    y = where_less(splat(88.7f), x, splat(__builtin_inff()), y);
    FV_EACH y.p[i] = x.p[i] == x.p[i] ? y.p[i] : x.p[i];
    return y;
}

// Of differences to a maximum, none of which is above zero: 0 for -infinity.
FV_INLINE Floats exponential_of_difference(Floats x) {
    const Exponential found = split_exponential(larger(x, splat(-87.5f)));  // a NaN in x stays
    return where_less(x, splat(-87.0f), splat(0.0f), found.fraction * power_of_two(found.power));
}

// Within 1.5e-7 of erf.
FV_INLINE Floats error_function(Floats x) {
    static constexpr float kNear[] = {1.1283791f, -0.37612626f, 0.11283597f, -0.026854329f, 0.0051893122f, -0.00080188550f, 7.8824975e-5f};
    static constexpr float kFar[] = {-0.0003420217f, -1.1270887f, -0.63814294f, -0.10311107f, 0.021841515f, -0.0029488958f, 0.00018654639f};
    Floats size = magnitude(x);
    Floats near = polynomial(x * x, kNear) * x;
    // log(erfc) of 1 .. 4, beyond which erf is 1 in fp32.
    Floats far = splat(1.0f) - exponential_of_difference(polynomial(clamp(size, splat(1.0f), splat(4.0f)), kFar));
    return where_less(size, splat(1.0f), near, with_sign_of(far, x));
}

FV_INLINE Floats activated(Floats x, int activation) {
    switch (activation) {
        case FV_RELU:
            return where_less(x, splat(0.0f), splat(0.0f), x);
        case FV_GELU:
            return x * splat(0.5f) * (splat(1.0f) + error_function(x * splat(0.70710678f)));
        case FV_GELU_TANH: {
            // 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u))
            Floats u = x * fma(x * x, splat(0.044715f * 0.79788456f), splat(0.79788456f));
            return x / (splat(1.0f) + exponential(u * splat(-2.0f)));
        }
        case FV_SILU:
            return x / (splat(1.0f) + exponential(splat(0.0f) - x));
        default:
            return x;
    }
}

}  // namespace FV_ISA
