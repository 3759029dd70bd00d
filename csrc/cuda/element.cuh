// What operands of the fused ways are rounded to; a word holds two neighbours, the first one low.
#ifndef TRM_EDGE_CUDA_ELEMENT_CUH
#define TRM_EDGE_CUDA_ELEMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx.cuh"

namespace trm::cuda {

struct Bf16 {
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

}  // namespace trm::cuda

#endif
