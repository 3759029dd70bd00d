// float16 for a processor.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_CUDA_FP16_H
#define TRM_EDGE_TESTS_EMULATED_GPU_CUDA_FP16_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "vector_types.h"

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

// To the nearest, ties to even; beyond 65504 is infinite.
inline __half __float2half_rn(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double magnitude = std::fabs(static_cast<double>(value));
    if (value != value) return {0x7fff};
    if (magnitude >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};
    int exponent = -14;  // of the smallest normal number, and of those below it
    if (magnitude > 0) exponent = std::max(exponent, std::ilogb(magnitude));
    const double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // of 2^(exponent - 10); 2048 carries
    const int bits = ((exponent + 14) << 10) + static_cast<int>(steps);         // below 1024: subnormal
    return {static_cast<uint16_t>(sign | bits)};
}
inline float __half2float(__half value) {
    static const std::vector<float> known = [] {
        std::vector<float> values(1 << 16);
        for (int bits = 0; bits < 1 << 16; ++bits) {
            const int exponent = bits >> 10 & 31, fraction = bits & 1023;
            double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
            if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
            values[static_cast<size_t>(bits)] = static_cast<float>(bits & 0x8000 ? -magnitude : magnitude);
        }
        return values;
    }();
    return known[value.bits];
}
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
// a b + c, rounded once.
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    const auto of = [](__half u, __half v, __half w) {
        return __float2half_rn(std::fma(__half2float(u), __half2float(v), __half2float(w)));
    };
    return {of(a.x, b.x, c.x), of(a.y, b.y, c.y)};
}

#endif
