// The kernels of the fused ways: the persistent one, and the same phases as kernels of their own.
#ifndef TRM_EDGE_CUDA_KERNELS_CUH
#define TRM_EDGE_CUDA_KERNELS_CUH

#include <cuda_pipeline.h>

#include "cuda/barrier.cuh"
#include "cuda/element.cuh"
#include "cuda/instances.h"
#include "cuda/phases.cuh"

namespace trm::cuda {
namespace {

// Products need tensor cores for bfloat16, which are also those that take float16 in these shapes; for what is older,
// kernels are empty, and why_not_fused keeps them away.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define TRM_HAS_BF16_MMA 1
#else
#define TRM_HAS_BF16_MMA 0
#endif

// ---- The persistent kernel ----

template <class C>
__device__ void fetch_weights(const C& c, const Matrix& m, Range tiles, int chunks) {
    if (m.resident < 0) return;
    constexpr int kTogether = sizeof(uint4) / sizeof(typename C::Weights);
    const int size = chunks * 32 / kTogether;  // of a tile
    const uint4* from = static_cast<const uint4*>(m.packed) + static_cast<size_t>(tiles.begin) * size;
    for (int i = c.thread; i < tiles.size() * size; i += kThreads)
        __pipeline_memcpy_async(c.shared + m.resident + i, from + i, sizeof(uint4));
}

// Between the wide phase of a sublayer and the narrow one, while values are on their way, three warps of a CTA do what
// nobody waits for: tell the others that this CTA has read what the sublayer starts from; clear places that all CTAs
// have read for good; and keep rows for later evaluations.
template <class C>
__device__ __forceinline__ void keep_house(const C& c, const GridBarriers& barriers, const Moment& m) {
    if (c.warp == kWarps - 1 && c.lane_number() == 0) barriers.arrive(m.number + 1);
    if (c.warp == kWarps - 2 && m.number >= kReadBefore) {
        barriers.wait(m.number);
        clear_places(c, m.number - kReadBefore, c.number * 32 + c.lane_number(), c.plan.ctas * 32);
    }
    if (c.warp == kWarps - 3) keep_rows(c, source_of(c.p, m), keep_of(c.p, m), c.lane_number(), 32);
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1) persistent(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    const Cta<Element, kHidden, kHeadChunks, true> c(p, dynamic_shared<uint4>());
    for (int i = 0; i < p.plan.layers; ++i) {
        const int wide = p.plan.hidden / kChunk, deep = p.plan.inner / kChunk;
        fetch_weights(c, p.layer[i].qkv, c.own().qkv, wide);
        fetch_weights(c, p.layer[i].out, c.own().hidden, wide);
        fetch_weights(c, p.layer[i].gate_up, c.own().inner, wide);
        fetch_weights(c, p.layer[i].down, c.own().hidden, deep);
    }
    __pipeline_commit();
    start_phase(c);
    __pipeline_wait_prior(0);
    const GridBarriers barriers(p.arrivals, p.plan.ctas);
    __syncthreads();
    if (c.thread == 0) barriers.arrive(0);
    barriers.wait(0);
    // One loop over all sublayers: several copies of the code would not stay in the instruction cache.
    Moment m{};
#pragma unroll 1
    for (; m.step < p.steps; advance(p, m)) {
        if (p.halt >= 0 && begins_step(m) && has_halted(c, m)) break;
        if (p.plan.layers == 1 && m.s == 0 && m.number > 0) barriers.wait(m.number);  // rows kept two sublayers ago
        prefetch_narrow(c, m.s);
        wide_phase(c, m);
        keep_house(c, barriers, m);
        prefetch_wide(c, m.s + 1);
        narrow_phase<kHeadChunks>(c, m);
    }
    finish_phase(c, m);
    if (c.thread == 0) barriers.leave();
#endif
}

// ---- The same phases as kernels of their own ----

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads) start_kernel(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    start_phase(Cta<Element, kHidden, kHeadChunks, false>(p, dynamic_shared<uint4>()));
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1)
    wide_kernel(const __grid_constant__ Params p, const __grid_constant__ Moment m) {
#if TRM_HAS_BF16_MMA
    const Cta<Element, kHidden, kHeadChunks, false> c(p, dynamic_shared<uint4>());
    prefetch_narrow(c, m.s);
    wide_phase(c, m);
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1)
    narrow_kernel(const __grid_constant__ Params p, const __grid_constant__ Moment m) {
#if TRM_HAS_BF16_MMA
    const Cta<Element, kHidden, kHeadChunks, false> c(p, dynamic_shared<uint4>());
    prefetch_wide(c, m.s + 1);
    float* inverse = c.inverse(sublayer_of(m));
    for (int row = c.thread; row < p.rows; row += kThreads) inverse[row] = p.norms[row];  // of the wide phase
    __syncthreads();
    keep_rows(c, source_of(p, m), keep_of(p, m), c.thread, kThreads);
    narrow_phase<kHeadChunks>(c, m);
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1) finish_kernel(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    finish_phase(Cta<Element, kHidden, kHeadChunks, false>(p, dynamic_shared<uint4>()),
                 Moment{sublayers(p), p.steps, 0, 0, 0});
#endif
}

// ---- Choice of the instance ----

template <class Element, int kHidden, int kHeadChunks>
constexpr Kernels kKernels = {kHidden,
                              kHeadChunks * kChunk,
                              sizeof(typename Element::Weights),
                              persistent<Element, kHidden, kHeadChunks>,
                              start_kernel<Element, kHidden, kHeadChunks>,
                              wide_kernel<Element, kHidden, kHeadChunks>,
                              narrow_kernel<Element, kHidden, kHeadChunks>,
                              finish_kernel<Element, kHidden, kHeadChunks>};

// What there are kernels for.
template <class Element>
const Kernels* instance(int hidden, int head) {
    static constexpr const Kernels* kInstances[] = {&kKernels<Element, 64, 1>, &kKernels<Element, 128, 1>,
                                                    &kKernels<Element, 256, 1>, &kKernels<Element, 256, 2>,
                                                    &kKernels<Element, 512, 2>};
    for (const Kernels* kernels : kInstances)
        if (kernels->hidden == hidden && kernels->head == head) return kernels;
    return nullptr;
}

}  // namespace
}  // namespace trm::cuda

#endif
