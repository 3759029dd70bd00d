// The four phases of a block of the network (plan.h), and what happens before the first and after the last: device code
// of one CTA. The persistent kernel runs them one after another, and values are handed over as they come; the graph of
// phases runs each as a kernel. Products are mma.sync on bfloat16 or float16 with float32 sums (sm_80 and up).
#ifndef TRM_EDGE_CUDA_PHASES_CUH
#define TRM_EDGE_CUDA_PHASES_CUH

#include <cstdint>

#include "cuda/narrow.cuh"
#include "cuda/wide.cuh"

namespace trm::cuda {

// Let the places of a sublayer be handed over anew, as far as they are written: thread `thread` of `threads`.
template <class C>
__device__ __forceinline__ void clear_places(const C& c, int number, int thread, int threads) {
    const Plan& plan = c.plan;
    const Places at = places_of(c.p, number);
    const int rows = round_up(c.p.rows, kRowTile), halves = rows * plan.hidden / 8;
    for (int i = thread; i < 2 * halves; i += threads) clear(at.from + 4 * i);
    if (number % 2) {
        for (int i = thread; i < rows * plan.inner / 8; i += threads) clear(at.wide + 8 * i);
        return;
    }
    for (int i = thread; i < halves; i += threads)
        for (int part = 0; part < 3; ++part) clear(at.wide + part * plan.rows_size() + 8 * i);
}

// Start bringing what this CTA multiplies in the phase to come closer: into L2, before it is waited for.
template <class C>
__device__ __forceinline__ void prefetch_tiles(const C& c, const Matrix& m, Range tiles, int chunks) {
    if (m.resident >= 0) return;
    constexpr int kLine = 128, kChunkBytes = 32 * sizeof(typename C::Weights);
    const int size = chunks * kChunkBytes;  // of a tile
    const char* from = static_cast<const char*>(m.packed) + static_cast<size_t>(tiles.begin) * size;
    for (int at = kLine * c.thread; at < tiles.size() * size; at += kLine * kThreads) prefetch(from + at);
}

// For the phases of sublayer `s` of an evaluation; the one after its last is the first of the next.
template <class C>
__device__ __forceinline__ void prefetch_wide(const C& c, int s) {
    if (!c.p.from_dram) return;
    const Layer& layer = c.p.layer[s / 2 % c.plan.layers];
    if (s % 2 == kAttention) prefetch_tiles(c, layer.qkv, c.own().qkv, C::kChunks);
    if (s % 2 == kSwiglu) prefetch_tiles(c, layer.gate_up, c.own().inner, C::kChunks);
}

template <class C>
__device__ __forceinline__ void prefetch_narrow(const C& c, int s) {
    if (!c.p.from_dram) return;
    const Layer& layer = c.p.layer[s / 2];
    if (s % 2 == kAttention) prefetch_tiles(c, layer.out, c.own().hidden, C::kChunks);
    if (s % 2 == kSwiglu) prefetch_tiles(c, layer.down, c.own().hidden, c.plan.inner / kChunk);
}

// Fetch what a call brings, make the sums that the first evaluations add, and clear all places.
template <class C>
__device__ __forceinline__ void start_phase(const C& c) {
    prefetch_wide(c, 0);
    const int count = c.p.rows * c.plan.hidden / 4, first = c.number * kThreads + c.thread;
    const int stride = c.plan.ctas * kThreads;
    const auto at = [](const float* rows, int i) { return reinterpret_cast<const float4*>(rows)[i]; };
    const auto put = [](float* rows, int i, float4 value) { reinterpret_cast<float4*>(rows)[i] = value; };
    for (int i = first; i < count; i += stride) {
        const float4 e = at(c.p.refresh ? c.p.given_e : c.p.e, i);
        const float4 y = at(c.p.begin ? c.p.given_y : c.p.y, i), z = at(c.p.begin ? c.p.given_z : c.p.z, i);
        if (c.p.refresh) put(c.p.e, i, e);
        if (c.p.begin) {
            put(c.p.y, i, y);
            put(c.p.z, i, z);
        }
        put(c.p.ye, i, plus(y, e));
        put(c.p.ze, i, plus(z, e));
    }
    if constexpr (C::kPersistent)
        for (int number = 0; number < 2 * kCopies; ++number) clear_places(c, number, first, stride);
}

// Whether the step that has just been made, the one before `m`, is sure enough of its answer to be the last. Every CTA
// works it out of the same values in the same order, so that all of them agree.
template <class C>
__device__ __forceinline__ bool has_halted(const C& c, const Moment& m) {
    if (c.warp == 0) {
        const float* row = rows_before(c.p, m.number);  // of registers, the first
        float squares = 0, sum = 0;
#pragma unroll 1
        for (int first = 0; first < c.plan.hidden; first += 128) {
            const int column = first + 4 * c.lane_number();
            const bool inside = column < c.plan.hidden;
            uint4 words;
            do {
                words = inside ? read_now(row + column) : make_uint4(0, 0, 0, 0);
            } while (any_missing(largest(0, words)));
            if (!inside) continue;
            const float4 x = reinterpret_cast<const float4&>(words);
            const float4 w = __ldg(reinterpret_cast<const float4*>(c.p.halt_weight + column));
            squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
            sum += x.x * w.x + x.y * w.y + x.z * w.z + x.w * w.w;
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            squares += __shfl_xor_sync(~0u, squares, step);
            sum += __shfl_xor_sync(~0u, sum, step);
        }
        const float logit = sum * inverse_rms(squares, 1.0f / c.plan.hidden, c.p.norm_eps) + __ldg(c.p.halt_bias);
        if (c.lane_number() == 0) c.own().halted = 1.0f / (1.0f + __expf(-logit)) >= c.p.halt;
    }
    __syncthreads();
    return c.own().halted;
}

// Leave y, normalised, for the decoder and for the next run; `end` is the moment after the last one.
template <class C>
__device__ __forceinline__ void finish_phase(const C& c, const Moment& end) {
    const Source from{rows_before(c.p, end.number), false, nullptr};
#pragma unroll 1
    for (int first = 0; first < c.p.rows; first += kRowTile) stage_rows<1>(c, from, first, c.inverse(kAttention));
    float* out = c.p.out + static_cast<size_t>(end.step - 1) * c.p.rows * c.plan.hidden;
    keep_rows(c, from, Keep{c.p.y, c.p.ye, out}, c.thread, kThreads);
    if (c.number == 0 && c.thread == 0) *c.p.ran = end.step;
}

}  // namespace trm::cuda

#endif
