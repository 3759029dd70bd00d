// What the recursion needs from a processor: one table of plain functions per instruction set.
//
// core/ calls through this table and never learns which instruction set is behind it; cpu/ fills one table per
// instruction set from one source (cpu/kernels.inc) and cpu/dispatch.cc picks one at model load. Nothing behind the
// table allocates, locks, throws or makes a system call: all memory is handed in by the caller, 64-byte aligned.
#ifndef TRM_EDGE_CORE_KERNELS_H
#define TRM_EDGE_CORE_KERNELS_H

#include <cstddef>
#include <cstdint>

#ifdef __FAST_MATH__
#error "With -ffast-math the engine is wrong. CMakeLists.txt takes it back for the library: build that without it too"
#endif

namespace trm {

// Packed weights are arrays of 32-bit words: a float, two bfloat16 or four bytes each.
typedef uint32_t Word;

// What a matrix of a block is multiplied in, the finest first. Sums are float32, for int8 exact int32; all else stays
// float32. kFp16 and kW8a16 (weights as in int8, inputs in bfloat16) are for devices: no kernel of a processor has
// them.
enum class Precision : uint8_t { kFp32, kFp16, kBf16, kW8a16, kInt8 };

// The matrices of a block, in the order of their use. mix_in is attention's qkv or the token mixer's gate_up, mix_out
// attention's out or the token mixer's down.
enum MatrixKind { kMixIn, kMixOut, kGateUp, kDown, kMatricesPerBlock };

struct BlockPrecision {
    Precision of[kMatricesPerBlock];
};

// The part of the spec that `net` depends on. All sizes are element counts.
struct NetShape {
    int hidden_size;                  // D, a multiple of num_heads
    int num_heads;                    // H; D / H is even
    int inner_size;                   // I, SwiGLU inner width
    int num_layers;                   // blocks in `net`
    bool token_mixing;                // true: token-mixing SwiGLU (`mlp_t`) instead of attention
    int token_inner_size;             // inner width of the token-mixing SwiGLU, else 0
    int token_rows;                   // L fixed by the token-mixing weights, else 0
    bool rope;                        // rotary positions (attention only)
    float norm_eps;                   // RMSNorm epsilon
    const BlockPrecision* precision;  // [num_layers]
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

// Where the threads of a team meet (core/team.h).
struct Barrier;
void wait_at(Barrier& barrier, int threads);

// One evaluation of `net` by one thread of a team; the others make the same call with their own number.
struct NetCall {
    const Word* packed;
    const float* rope_table;
    const int32_t* position;   // [rows], indexes the rope table
    int rows;                  // 1..max_rows
    const float* input_scale;  // [num_layers][kMatricesPerBlock]: scale of an int8 matrix's input; null: one per row
    float* h;                  // [rows, D], in place
    float* scratch;            // scratch_floats(shape, max_rows, threads)
    Barrier* barrier;          // null for one thread
    int thread, threads;
};

struct Kernels {
    const char* isa;  // "scalar", "avx2", "avx512", "neon", ...

    // A plain linear layer, out[rows, n] = in[rows, k] * w[n, k]^T. `packed` holds linear_words(n, k) words.
    // Row r of `out` starts at out + r * out_stride and is written for exactly n columns.
    size_t (*linear_words)(int n, int k);
    void (*pack_linear)(const float* w, int n, int k, Word* packed);
    void (*linear)(const Word* packed, int n, int k, const float* in, size_t in_stride, int rows, float* out,
                   size_t out_stride);

    // The network, h = net(h). `packed` holds net_words(shape) words; rope tables for `positions` positions live
    // inside rope_floats(shape, positions) floats.
    size_t (*net_words)(const NetShape& shape);
    void (*pack_net)(const NetShape& shape, const BlockWeights* blocks, Word* packed);
    size_t (*rope_floats)(const NetShape& shape, int positions);
    void (*pack_rope)(const NetShape& shape, int positions, float theta, float* table);
    size_t (*scratch_floats)(const NetShape& shape, int max_rows, int threads);
    void (*net)(const NetShape& shape, const NetCall& call);

    // The multiply-adds of a full tile, `iterations` times in registers: what no kernel of this precision can exceed.
    // Returns the number of multiplications and additions.
    double (*register_loop)(Precision precision, int64_t iterations);
};

}  // namespace trm

#endif
