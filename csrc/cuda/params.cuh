// What a kernel of the fused ways gets, and the order in which it runs the recursion: sublayer after sublayer.
#ifndef TRM_EDGE_CUDA_PARAMS_CUH
#define TRM_EDGE_CUDA_PARAMS_CUH

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/plan.h"

namespace trm::cuda {

// A product's weights in fragments, [tile][k / kChunk][32 lanes] of eight.
struct Matrix {
    const void* packed;
    const float* scales;  // [tile][kColumnTile], of 8-bit weights
    int resident;         // offset [16 bytes] of this CTA's tiles in shared memory, or -1: read from L2
};

struct Layer {
    Matrix qkv, out, gate_up, down;
};

// Everything a kernel gets. Arrays of rows are [row_stride, D] float32 unless said otherwise.
struct Params {
    Plan plan;
    Layer layer[kMaxLayers];
    bool from_dram;                        // what of the weights is not in shared memory does not stay in L2 either
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

}  // namespace trm::cuda

#endif
