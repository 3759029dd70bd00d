// In place of csrc/cuda/ptx.cuh, for a processor.
#ifndef TRM_EDGE_CUDA_PTX_CUH
#define TRM_EDGE_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace trm::cuda {

template <class T>
T* dynamic_shared() {
    return static_cast<T*>(emulated::shared_memory());
}

// ---- Products of a warp ----

// c += a b, where pair(word) are the two numbers of a word. A lane brings a, then b, of m16n8k16: of a rows `group` and
// `group + 8` in turn, columns 2 quad and 2 quad + 1, then those 8 further; of b the same of column `group`.
template <typename Pair>
void emulated_mma(const char* what, float (&c)[4], const uint32_t (&own)[6], Pair&& pair) {
    const emulated::Brought* all = emulated::meet_warp(what, own, sizeof own);
    const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, quad = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const int half = i / 2, column = 2 * quad + i % 2;
        double sum = 0;
        for (int from = 0; from < 4; ++from) {
            const uint32_t* a = reinterpret_cast<const uint32_t*>(all[4 * group + from].bytes);
            const uint32_t* b = reinterpret_cast<const uint32_t*>(all[4 * column + from].bytes) + 4;
            for (int part = 0; part < 2; ++part) {
                const float2 of_a = pair(a[2 * part + half]), of_b = pair(b[part]);
                sum += static_cast<double>(of_a.x) * static_cast<double>(of_b.x) +
                       static_cast<double>(of_a.y) * static_cast<double>(of_b.y);
            }
        }
        c[i] = static_cast<float>(static_cast<double>(c[i]) + sum);
    }
}

inline void mma_bf16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    emulated_mma("mma.bf16", c, {a0, a1, a2, a3, b0, b1},
                 [](uint32_t word) { return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(word)); });
}

inline void mma_fp16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    emulated_mma("mma.fp16", c, {a0, a1, a2, a3, b0, b1},
                 [](uint32_t word) { return __half22float2(reinterpret_cast<const __half2&>(word)); });
}

// ---- Memory ----

template <typename T>
T emulated_load(const void* from) {
    T value;
    emulated::load(&value, from, sizeof value);
    return value;
}

inline uint4 read_now(const void* from) { return emulated_load<uint4>(from); }
inline uint2 read_now_8(const void* from) { return emulated_load<uint2>(from); }
inline uint32_t read_now_4(const void* from) { return emulated_load<uint32_t>(from); }

// Changes nothing, but the address has to be one.
inline void prefetch(const void* from) { static_cast<void>(*static_cast<const volatile char*>(from)); }

template <typename T>
void write_now(void* to, T v) {
    emulated::store(to, &v, sizeof v);
}

inline void count_up(unsigned* counter) {
    emulated::release();
    ++*counter;
}

inline unsigned count_of(const unsigned* counter) {
    emulated::pause();
    return *counter;
}

}  // namespace trm::cuda

#endif
