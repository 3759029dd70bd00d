// What operands of the fused ways are rounded to; a word holds two neighbours, the first one low. `Weights` are the
// eight that a lane takes of a chunk of k.
#ifndef TRM_EDGE_CUDA_ELEMENT_CUH
#define TRM_EDGE_CUDA_ELEMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx.cuh"

namespace trm::cuda {

struct Bf16 {
    using Weights = uint4;
    static constexpr bool kScaled = false;  // whether weights have a scale a row
    __device__ static uint4 weight_operand(uint4 weights) { return weights; }
    static uint16_t bits(float value) {
        const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
        return reinterpret_cast<const uint16_t&>(rounded);
    }
    __device__ static uint32_t pack(float low, float high) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return reinterpret_cast<const uint32_t&>(pair);
    }
    __device__ static float2 unpack(uint32_t word) {
        return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(word));
    }
    __device__ static uint32_t infinite_to_nan(uint32_t word) { return word; }  // where float32 ends too
    __device__ static void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                               uint32_t b1) {
        mma_bf16(c, a0, a1, a2, a3, b0, b1);
    }
};

struct Fp16 {
    using Weights = uint4;
    static constexpr bool kScaled = false;
    __device__ static uint4 weight_operand(uint4 weights) { return weights; }
    static uint16_t bits(float value) {
        const __half rounded = __float2half_rn(value);
        return reinterpret_cast<const uint16_t&>(rounded);
    }
    __device__ static uint32_t pack(float low, float high) {
        const __half2 pair = __floats2half2_rn(low, high);
        return reinterpret_cast<const uint32_t&>(pair);
    }
    __device__ static float2 unpack(uint32_t word) { return __half22float2(reinterpret_cast<const __half2&>(word)); }
    // x + 0 x. An infinite operand makes a product that is not finite, but for a key, whose score may be -infinity.
    __device__ static uint32_t infinite_to_nan(uint32_t word) {
        const __half2 x = reinterpret_cast<const __half2&>(word);
        const __half2 made = __hfma2(x, __floats2half2_rn(0, 0), x);
        return reinterpret_cast<const uint32_t&>(made);
    }
    __device__ static void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                               uint32_t b1) {
        mma_fp16(c, a0, a1, a2, a3, b0, b1);
    }
};

// Weights of eight bits and a scale a row, all else as in Bf16, which holds such weights exactly.
struct W8a16 : Bf16 {
    using Weights = uint2;
    static constexpr bool kScaled = true;

    static uint8_t byte(int8_t weight) { return static_cast<uint8_t>(weight + 128); }
    __device__ static uint4 weight_operand(uint2 weights) {
        return make_uint4(pair<0>(weights.x), pair<2>(weights.x), pair<0>(weights.y), pair<2>(weights.y));
    }

  private:
    // The weights of bytes kFirst and kFirst + 1 of a word. 2^23 + byte is a float whose last bits are the byte; what
    // is left of it without 2^23 + 128 has no bits where a bfloat16 ends.
    template <int kFirst>
    __device__ static uint32_t pair(uint32_t word) {
        const auto number = [&](int i) {
            return __uint_as_float(__byte_perm(word, 0x4b000000, 0x7440u + static_cast<uint32_t>(i))) - 8388736.0f;
        };
        return __byte_perm(__float_as_uint(number(kFirst)), __float_as_uint(number(kFirst + 1)), 0x7632);
    }
};

}  // namespace trm::cuda

#endif
