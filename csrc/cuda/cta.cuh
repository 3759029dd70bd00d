// What a kernel of the fused ways gets, and what one of its CTAs knows; the pieces that all phases are made of.
//
// What one CTA writes and another reads goes through L2, as the first-level caches of multiprocessors do not see each
// other's stores.
#ifndef TRM_EDGE_CUDA_CTA_CUH
#define TRM_EDGE_CUDA_CTA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/handoff.cuh"
#include "cuda/plan.h"

namespace trm::cuda {

// A product's weights in fragments, [tile][k / kChunk][32 lanes] of 16 bytes.
struct Matrix {
    const uint4* packed;
    int resident;  // offset [16 bytes] of this CTA's tiles in shared memory, or -1: read from L2
};

struct Layer {
    Matrix qkv, out, gate_up, down;
};

// Everything a kernel gets. Arrays of rows are [row_stride, D] float32 unless said otherwise.
struct Params {
    Plan plan;
    Layer layer[kMaxLayers];
    int rows, answer_end, position_shift;  // rows from answer_end on stand position_shift further
    int l_cycles, h_cycles, steps;
    bool begin, refresh;
    float norm_eps, query_scale;
    const float2* rope;  // [positions, head / 2] cos and sin; null: no rotary positions

    const float *given_e, *given_y, *given_z;  // [rows, D], as a call brings them
    float* out;                                // [steps, rows, D]: y after each step
    float halt;                                // stop after the first step with this confidence; negative: never
    const float *halt_weight, *halt_bias;      // [D], [1]
    int* ran;                                  // becomes the number of steps that there were
    float *e, *y, *z, *ye, *ze;                // y + e and z + e, as y and z change
    float *state, *middle;                     // [kCopies, row_stride, D], before their norm
    uint16_t* qkv;                             // [kCopies] q and k [row_stride, D], v [row_stride / 16, D, 16]
    uint16_t* inner;                           // [kCopies, row_stride, I]
    float* norms;        // [rows] inverse rms of the last rows normalised, for kernels of their own
    unsigned* arrivals;  // counters of the grid barriers
    int operand_offset, partial_offset, inverse_offset, own_offset;  // in shared memory [16 bytes]; weights come first
};

// What a sublayer starts from: rows that another one hands over, before their norm, or (`given`) rows that were there
// before the run, after theirs; plus other rows.
struct Source {
    const float* rows;
    bool given;
    const float* added;  // or null
};

// Where sublayer `number` finds the rows that it is handed, its wide phase leaves values, and its narrow phase rows.
struct Places {
    float* from;
    uint16_t* wide;
    float* to;
};

TRM_HD float* rows_before(const Params& p, int number) {
    return (number % 2 ? p.middle : p.state) + copy_of(number) * p.plan.rows_size();
}

TRM_HD Places places_of(const Params& p, int number) {
    uint16_t* const wide =
        number % 2 ? p.inner + copy_of(number) * p.plan.inner_size() : p.qkv + copy_of(number) * 3 * p.plan.rows_size();
    return {rows_before(p, number), wide, rows_before(p, number + 1)};
}

// Where an evaluation leaves the normalised rows that it started from; null: nowhere.
struct Keep {
    float* rows;
    float* with_e;
    float* out;
};

enum Sublayer { kAttention, kSwiglu };

// A sublayer of a run: its number, and where in the recursion it is.
struct Moment {
    int number, step, h, l, s;
};

TRM_HD Sublayer sublayer_of(const Moment& m) { return m.s % 2 ? kSwiglu : kAttention; }

TRM_HD void advance(const Params& p, Moment& m) {
    ++m.number;
    if (++m.s < 2 * p.plan.layers) return;
    m.s = 0;
    if (++m.l <= p.l_cycles) return;
    m.l = 0;
    if (++m.h < p.h_cycles) return;
    m.h = 0;
    ++m.step;
}

TRM_HD bool begins_step(const Moment& m) { return m.number > 0 && m.s == 0 && m.l == 0 && m.h == 0; }

TRM_HD int sublayers(const Params& p) { return p.steps * p.h_cycles * (p.l_cycles + 1) * 2 * p.plan.layers; }

// What a sublayer starts from. `z` gets the first l_cycles evaluations of a cycle, `y` the last.
TRM_HD Source source_of(const Params& p, const Moment& m) {
    const bool given = m.number == 0;
    const float* added = m.s > 0 ? nullptr : m.l == p.l_cycles ? p.y : m.l == 0 ? p.ze : p.ye;
    return {given ? p.y : rows_before(p, m.number), given, added};
}

// What the first sublayer of an evaluation keeps: the result of the evaluation before.
TRM_HD Keep keep_of(const Params& p, const Moment& m) {
    if (m.s > 0 || m.number == 0) return {};
    const bool y = m.l == 0;
    float* out = y && m.h == 0 ? p.out + static_cast<int64_t>(m.step - 1) * p.rows * p.plan.hidden : nullptr;
    return {y ? p.y : p.z, y ? p.ye : p.ze, out};
}

// A CTA's share of every phase; in shared memory, as registers are short.
struct Own {
    Range qkv, inner, hidden;  // tiles of columns
    int group, groups;         // tiles of rows group, group + groups, ... in narrow phases
    bool halted;               // after the step before
};

// ---- What operands are rounded to; a word holds two neighbours, the first one low ----

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
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
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
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
};

// One CTA of a kernel for models with D = kHidden and heads of kHeadChunks * kChunk, which multiplies in Element. The
// plan is a copy in which these are constants, so that the compiler folds what follows from them.
template <class Element, int kHidden, int kHeadChunks, bool kIsPersistent>
struct Cta : Element {
    static constexpr bool kPersistent = kIsPersistent;
    static constexpr int kChunks = kHidden / kChunk;
    static constexpr int kHeadSize = kHeadChunks * kChunk;
    static constexpr int kOperandStride = operand_stride(kHidden);

    const Params& p;
    Plan plan;
    uint4* shared;
    int number, thread, warp;
    Lane lane;

    __device__ Cta(const Params& params, uint4* shared_memory)
        : p(params),
          plan{kHidden,         kHidden / kHeadSize, params.plan.inner, params.plan.layers, params.plan.max_rows,
               params.plan.ctas},
          shared(shared_memory),
          number(static_cast<int>(blockIdx.x)),
          thread(static_cast<int>(threadIdx.x)),
          warp(static_cast<int>(threadIdx.x) / 32),
          lane(static_cast<int>(threadIdx.x) % 32) {
        if (thread == 0)
            *reinterpret_cast<Own*>(shared + p.own_offset) = {plan.qkv_share(number),
                                                              plan.inner_share(number),
                                                              plan.hidden_share(number),
                                                              plan.group_of(number),
                                                              plan.groups(),
                                                              false};
        __syncthreads();
    }

    __device__ Own& own() const { return *reinterpret_cast<Own*>(shared + p.own_offset); }
    __device__ int lane_number() const { return thread % 32; }
    __device__ uint4* operand() const { return shared + p.operand_offset; }
    __device__ float4* partial() const { return reinterpret_cast<float4*>(shared + p.partial_offset); }
    __device__ float4* narrow_partial() const { return reinterpret_cast<float4*>(operand()); }
    // 1 / rms of the rows that the last sublayer of that kind started from.
    __device__ float* inverse(Sublayer of) const {
        return reinterpret_cast<float*>(shared + p.inverse_offset) + of * plan.row_stride();
    }
    // c += a b over one chunk of k; `low` and `high` hold rows `group` and `group + 8` of a.
    __device__ static void mma_chunk(float (&c)[4], uint4 low, uint4 high, uint4 b) {
        Element::mma(c, low.x, high.x, low.y, high.y, b.x, b.y);
        Element::mma(c, low.z, high.z, low.w, high.w, b.z, b.w);
    }
    // The weights from tile `first` on, of those that start at `own`.
    __device__ const uint4* weights(const Matrix& m, int own, int first, int chunks) const {
        const uint4* begin = m.resident < 0 ? m.packed + static_cast<size_t>(own) * chunks * 32 : shared + m.resident;
        return begin + static_cast<size_t>(first - own) * chunks * 32;
    }
};

// ---- Pieces ----

// 1 / rms; NaN where the squares are beyond float32, as rows of zeros would look like an answer.
__device__ inline float inverse_rms(float squares, float one_by_n, float eps) {
    return rsqrtf(fmaf(squares, one_by_n, eps)) + (squares - squares);
}

__device__ inline float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// Not contracted with a sum that follows: rows that are kept for later have to be the rows that were used.
__device__ inline float4 scaled(float4 a, float by) {
    return make_float4(__fmul_rn(a.x, by), __fmul_rn(a.y, by), __fmul_rn(a.z, by), __fmul_rn(a.w, by));
}

__device__ inline float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

template <int kRowTiles, int kTiles>
using Sums = float[kRowTiles][kTiles][4];

// Leave this warp's sums in shared memory, which has room for kSlots tiles of every warp, for sum_up; ends with a
// barrier.
template <int kSlots, int kRowTiles, int kTiles, class C>
__device__ __forceinline__ void share_sums(const C& c, float4* partial, const Sums<kRowTiles, kTiles>& sums) {
    float4* to = partial + c.warp * kSlots * 32 + c.lane_number();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
            const float (&s)[4] = sums[m][n];
            to[(m * kPassColumns + n) * 32] = make_float4(s[0], s[1], s[2], s[3]);
        }
    }
    __syncthreads();
}

// The sum over warps, always in the same order, of two neighbouring columns of a tile: those that a lane holds of row
// `group` (half 0) or `group + 8`.
template <int kSlots, class C>
__device__ __forceinline__ float2 sum_up(const C& c, const float4* partial, int slot, int half) {
    const float2* sums = reinterpret_cast<const float2*>(partial + slot * 32 + c.lane_number()) + half;
    float2 total = sums[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) {
        const float2 more = sums[warp * kSlots * 64];
        total = make_float2(total.x + more.x, total.y + more.y);
    }
    return total;
}

}  // namespace trm::cuda

#endif
