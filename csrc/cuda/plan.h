// Who computes what in the fused kernel: sizes, the share of every CTA in every phase, and where each value is stored.
//
// The kernel, the code that packs weights for it and the emulation of its schedule on the host (tests/cpp) all take
// their indices from here, so this file knows nothing of CUDA but two keywords.
//
// A block of the network is two sublayers of two phases each; what a phase reads, all or many CTAs wrote in the one
// before it:
//
//   attention  wide    queries, keys and values of all rows                   reads state      writes q, k, v
//              narrow  attention, its output projection and the residual      reads q, k, v    writes middle
//   SwiGLU     wide    the inner values                                       reads middle     writes inner
//              narrow  their projection and the residual                      reads inner      writes state
//
// `state` and `middle` hold rows before their RMSNorm; whoever reads a whole row normalises it on the way. CTAs share a
// phase by tiles of kColumnTile output columns, narrow ones by tiles of kRowTile rows too. The warps of a CTA share a
// product along k, by chunks of kChunk.
#ifndef TRM_EDGE_CUDA_PLAN_H
#define TRM_EDGE_CUDA_PLAN_H

#include "core/host_device.h"

namespace trm::cuda {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kColumnTile = 8;  // mma.m16n8k16
constexpr int kRowTile = 16;
constexpr int kChunk = 32;  // eight operands, 16 bytes, for each of the four lanes that share a row
constexpr int kKeyTile = 32;
constexpr int kPassRows = 2;     // row tiles, and
constexpr int kPassColumns = 4;  // column tiles, that a CTA sums up at a time
constexpr int kBlockRows = kPassRows * kRowTile;
constexpr int kMaxLayers = 8;
constexpr int kCopies = 3;      // of what is handed over from phase to phase; see copy_of
constexpr int kReadBefore = 2;  // sublayers until what one handed over is known to have been read
constexpr int kMaxRows = 4096;  // every CTA keeps a norm a row in shared memory

TRM_HD constexpr int div_up(int n, int by) { return (n + by - 1) / by; }
TRM_HD int round_up(int n, int to) { return div_up(n, to) * to; }
TRM_HD int at_most(int n, int most) { return n < most ? n : most; }
// Of a staged row in shared memory [16 bytes]: such that the rows of a fragment are 64 bytes apart in banks.
TRM_HD constexpr int operand_stride(int hidden) { return hidden / 8 + 4; }

struct Range {
    int begin, end;
    TRM_HD int size() const { return end - begin; }
};

// The part-th of `parts` nearly equal shares of 0..count. In 32 bits, which a device divides faster: count * parts has
// to stay below 2^31, and a GPU with a thousand multiprocessors would still have room for models far beyond these.
TRM_HD Range share(int count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

// The sizes that decide everything here.
struct Plan {
    int hidden;    // D
    int heads;     // H
    int inner;     // I
    int layers;    // blocks of the network
    int max_rows;  // L at most
    int ctas;      // one a multiprocessor

    TRM_HD int head_size() const { return hidden / heads; }
    TRM_HD int row_stride() const { return round_up(max_rows, kKeyTile); }  // rows of every buffer
    TRM_HD int rows_size() const { return row_stride() * hidden; }          // values of a buffer of rows
    TRM_HD int inner_size() const { return row_stride() * inner; }

    // ---- Shares. Wide phases: tiles of columns. ----
    TRM_HD int hidden_tiles() const { return hidden / kColumnTile; }
    TRM_HD int qkv_tiles() const { return 3 * hidden_tiles(); }
    TRM_HD int inner_pairs() const { return inner / kColumnTile; }  // tile 2 p is gate, 2 p + 1 up of the same columns
    TRM_HD Range qkv_share(int cta) const { return share(qkv_tiles(), cta, ctas); }
    TRM_HD Range inner_share(int cta) const {
        const Range pairs = share(inner_pairs(), cta, ctas);
        return {2 * pairs.begin, 2 * pairs.end};
    }

    // Narrow phases: where there are more CTAs than tiles of columns, groups of CTAs share the tiles of rows:
    // group g takes row tiles g, g + groups, ...
    TRM_HD int groups() const {
        const int most = div_up(max_rows, kRowTile), fit = ctas / hidden_tiles();
        return fit < 1 ? 1 : at_most(fit, most);
    }
    TRM_HD int group_of(int cta) const { return cta / (ctas / groups()); }  // groups() or more: idle
    TRM_HD Range hidden_share(int cta) const {
        const int size = ctas / groups();
        return group_of(cta) < groups() ? share(hidden_tiles(), cta % size, size) : Range{0, 0};
    }

    // ---- Where the columns of a QKV tile come from, and go to. ----
    // Queries and keys: rotary partners j and j + head/2 are neighbours, so that one thread holds both. They stay in
    // that order, as products of queries and keys do not mind.
    TRM_HD int qkv_part(int tile) const { return (tile >= hidden_tiles()) + (tile >= 2 * hidden_tiles()); }  // q, k, v
    TRM_HD int stored_column(int tile, int column) const {
        return (tile - qkv_part(tile) * hidden_tiles()) * kColumnTile + column;
    }
    // j of a column, of heads of that size.
    TRM_HD int rotary_index(int tile, int column, int head_size) const {
        return stored_column(tile, column) % head_size / 2;
    }
    // Row of the weight matrix [3D, D] behind a column of a tile.
    TRM_HD int qkv_row(int tile, int column) const {
        const int stored = stored_column(tile, column), part = qkv_part(tile), size = head_size();
        if (part == 2) return 2 * hidden + stored;
        return part * hidden + stored / size * size + rotary_index(tile, column, size) + column % 2 * (size / 2);
    }
    TRM_HD int row_at(int row, int column) const { return row * hidden + column; }  // q, k, state, middle
    TRM_HD int value_at(int row, int column) const {                                // v, transposed by row tiles
        return (row / kRowTile * hidden + column) * kRowTile + row % kRowTile;
    }
    TRM_HD int inner_at(int row, int column) const { return row * inner + column; }
};

// ---- Fragments of mma.m16n8k16: lane 4 * group + quad ----
// Of a chunk of k, a lane takes the eight neighbours 8 * quad + 0..7 of its row: one 16-byte load instead of four small
// ones, for both operands alike, and the sum over k does not mind the order.
struct Lane {
    int group, quad;
    TRM_HD explicit Lane(int lane) : group(lane / 4), quad(lane % 4) {}
    TRM_HD int k(int i) const { return 8 * quad + i; }
    // Accumulators 0, 1 are row `group`, 2, 3 row `group + 8`, of columns 2 * quad and 2 * quad + 1.
    TRM_HD int row(int i) const { return group + i / 2 * 8; }
    TRM_HD int column(int i) const { return 2 * quad + i % 2; }
    // Which key or dimension, of the 8 * tiles that they are together, column `group` of tile j stands for: such that
    // what a lane accumulates over the tiles j are neighbours, 2 * tiles * quad + 0, 1, ..., the operand of the next
    // product.
    TRM_HD int spread(int j, int tiles = 4) const { return group / 2 * 2 * tiles + 2 * j + group % 2; }
};

// ---- Handing over without barriers (handoff.cuh) ----
// Sublayers of a run are numbered through, 0, 1, ...; even ones are attention. What a sublayer starts from, and what
// its wide phase computes, lies in one of kCopies places, taken in turn by the sublayers of its kind.
//
// Between its phases of sublayer n a CTA says that it has read what n starts from (all of it, so that all narrow phases
// of n - 1 are over), waits until all CTAs have said so of n - 1, and then clears its part of the places of n - 2,
// which nobody reads any more. The clearing is over for all CTAs once they have waited between the phases of n + 2. The
// places are taken again by n + 4, whose first value is written in the narrow phase of n + 3.
TRM_HD int copy_of(int sublayer) { return sublayer / 2 % kCopies; }

// The first row of the state that this CTA keeps for later, and the distance to its next one is `ctas`. The last CTAs
// begin, as they are the ones with nothing to do in a narrow phase.
TRM_HD int first_kept_row(int cta, int ctas) { return ctas - 1 - cta; }

}  // namespace trm::cuda

#endif
