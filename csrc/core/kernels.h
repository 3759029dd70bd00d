// What the recursion needs from a processor: one table of plain functions per instruction set.
//
// core/ calls through this table and never learns which instruction set is behind it; cpu/ fills one table per
// instruction set from one source (cpu/kernels.inc) and cpu/dispatch.cc picks one at model load. Nothing behind the
// table allocates, locks, throws or makes a system call: all memory is handed in by the caller, 64-byte aligned.
#ifndef TRM_EDGE_CORE_KERNELS_H
#define TRM_EDGE_CORE_KERNELS_H

#include <cstddef>
#include <cstdint>

namespace trm {

// The part of the spec that `net` depends on. All sizes are element counts.
struct NetShape {
    int hidden_size;       // D, a multiple of num_heads
    int num_heads;         // H; D / H is even
    int inner_size;        // I, SwiGLU inner width
    int num_layers;        // blocks in `net`
    bool token_mixing;     // true: token-mixing SwiGLU (`mlp_t`) instead of attention
    int token_inner_size;  // inner width of the token-mixing SwiGLU, else 0
    int token_rows;        // L fixed by the token-mixing weights, else 0
    bool rope;             // rotary positions (attention only)
    float norm_eps;        // RMSNorm epsilon
};

// The weights of one block, row-major [out, in] as the bundle stores them. Those of the other mixer are null.
struct BlockWeights {
    const float* qkv;            // [3D, D]: rows q heads, then k heads, then v heads
    const float* out;            // [D, D]
    const float* token_gate_up;  // [2*It, L]: It gate rows, then It up rows
    const float* token_down;     // [L, It]
    const float* gate_up;        // [2I, D]: I gate rows, then I up rows
    const float* down;           // [D, I]
};

struct Kernels {
    const char* isa;  // "scalar", "avx2", "avx512", "neon"

    // A plain linear layer, out[rows, n] = in[rows, k] * w[n, k]^T. `packed` holds linear_floats(n, k) floats.
    // Row r of `out` starts at out + r * out_stride and is written for exactly n columns.
    size_t (*linear_floats)(int n, int k);
    void (*pack_linear)(const float* w, int n, int k, float* packed);
    void (*linear)(const float* packed, int n, int k, const float* in, size_t in_stride, int rows, float* out,
                   size_t out_stride);

    // The network. `packed` holds net_floats(shape) floats; rope tables for `positions` positions live inside
    // rope_floats(shape, positions) floats.
    size_t (*net_floats)(const NetShape& shape);
    void (*pack_net)(const NetShape& shape, const BlockWeights* blocks, float* packed);
    size_t (*rope_floats)(const NetShape& shape, int positions);
    void (*pack_rope)(const NetShape& shape, int positions, float theta, float* table);

    // h = net(h), in place. h is [rows, D] with row stride D; position[r] indexes the rope table.
    // `scratch` holds scratch_floats(shape, max_rows) floats, max_rows >= rows >= 1.
    size_t (*scratch_floats)(const NetShape& shape, int max_rows);
    void (*net)(const NetShape& shape, const float* packed, const float* rope_table, const int32_t* position, int rows,
                float* h, float* scratch);
};

}  // namespace trm

#endif
