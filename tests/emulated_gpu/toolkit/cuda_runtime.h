// CUDA C++ for a processor: as much of it as the kernels in csrc/cuda use.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_CUDA_RUNTIME_H
#define TRM_EDGE_TESTS_EMULATED_GPU_CUDA_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "../grid.h"
#include "cuda_runtime_api.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // blocks that have such memory run one after another; see grid.h

#define threadIdx (::emulated::position().thread)
#define blockIdx (::emulated::position().block)
#define blockDim (::emulated::position().block_size)
#define gridDim (::emulated::position().grid_size)

// ---- Vectors and numbers ----

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::isfinite;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
// A product that no sum is contracted with.
inline float __fmul_rn(float a, float b) {
    volatile float product = a * b;
    return product;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
// Four of the eight bytes of x (0 to 3) and y (4 to 7), by the lowest three bits of a half-byte of `which` each.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned picked = 0;
    for (int i = 0; i < 4; ++i) picked |= static_cast<unsigned>(bytes >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
    return picked;
}
inline int __dp4a(int a, int b, int sum) {
    int8_t of_a[4], of_b[4];
    std::memcpy(of_a, &a, 4);
    std::memcpy(of_b, &b, 4);
    for (int i = 0; i < 4; ++i) sum += of_a[i] * of_b[i];
    return sum;
}

// ---- Memory ----

template <typename T>
T __ldg(const T* from) {
    return *from;
}
template <typename T>
T __ldcg(const T* from) {
    return *from;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) { return std::exchange(*at, *at + value); }
inline void __threadfence() {}  // atomics come at once, and no store before or behind them comes late but by write_now
inline unsigned atomicOr(unsigned* at, unsigned value) { return std::exchange(*at, *at | value); }

// ---- Threads that meet ----

inline void __syncthreads() { emulated::meet_block(); }
inline int __syncthreads_or(int yes) { return emulated::meet_block(yes != 0) > 0; }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    const emulated::Brought* all = emulated::meet_warp("__shfl_xor_sync", &value, sizeof value);
    return all[(threadIdx.x % emulated::kWarpSize) ^ static_cast<unsigned>(mask)].template as<T>();
}
inline bool __any_sync(unsigned, bool yes) {
    const emulated::Brought* all = emulated::meet_warp("__any_sync", &yes, sizeof yes);
    for (int lane = 0; lane < emulated::kWarpSize; ++lane)
        if (all[lane].as<bool>()) return true;
    return false;
}

// ---- Launches ----

namespace emulated {

template <typename... Parameters, size_t... i>
std::function<void()> bound(void (*kernel)(Parameters...), void** arguments, std::index_sequence<i...>) {
    const std::tuple<Parameters...> values(*static_cast<Parameters*>(arguments[i])...);
    return [kernel, values] { std::apply(kernel, values); };
}
// A kernel with copies of its arguments.
template <typename... Parameters>
std::function<void()> bound(void (*kernel)(Parameters...), void** arguments) {
    return bound(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

}  // namespace emulated

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
    return emulated::launch(reinterpret_cast<const void*>(kernel), {blocks, threads, shared_bytes, false},
                            emulated::bound(kernel, arguments), stream);
}
template <typename... Parameters>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, void** arguments,
                                        size_t shared_bytes, cudaStream_t stream) {
    return emulated::launch(reinterpret_cast<const void*>(kernel), {blocks, threads, shared_bytes, true},
                            emulated::bound(kernel, arguments), stream);
}
template <typename... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Parameters...), int, size_t) {
    *blocks = emulated::setting("TRM_EMULATED_CTAS_EACH", 1);
    return cudaSuccess;
}

#endif
