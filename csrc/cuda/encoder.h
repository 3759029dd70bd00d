// From the arrays of a call to the rows [registers ; answer ; context] of e, y and z, as core/encode.cc has it.
#ifndef TRM_EDGE_CUDA_ENCODER_H
#define TRM_EDGE_CUDA_ENCODER_H

#include "core/call.h"
#include "cuda/tensors.h"

namespace trm::cuda {

constexpr int kMaxMaps = 16;

// Rows of D values, each the sum of what is there of: a linear map of a normalised input row, a base row, a position.
struct RowMap {
    float* out = nullptr;  // [rows, D]
    int rows = 0;

    const float* in = nullptr;  // [.., k]
    int k = 0;
    const float* w = nullptr;                     // [D, k]
    const float *mean = nullptr, *std = nullptr;  // [k], of (in - mean) / std; null: as it is
    const float* base = nullptr;                  // [D] or [.., D]
    int base_stride = 0;                          // 0 or D
    const float* position = nullptr;              // [rows, D]
    const int32_t* pick = nullptr;                // which row of `in`, or without `in` of `base`; null: its own
    int choices = 0;                              // rows to pick from
    const float* none = nullptr;                  // [D], in place of the map where nothing is picked
};

struct RowMaps {
    RowMap of[kMaxMaps];
    int count = 0;
    int hidden = 0;
    unsigned* nonfinite = nullptr;  // becomes 1 where an input holds a NaN or Inf; null: nobody asks

    void add(const RowMap& map) {
        if (map.rows > 0) of[count++] = map;
    }
};

// All maps in one kernel.
void map_rows(const RowMaps& maps, cudaStream_t stream);

// Rows of a session on the device: [max_rows, D], and the keys of candidates [M, D].
struct EncodedRows {
    float *e, *y, *z, *keys;
};

// The maps of a call whose arrays the device reads where they are. All of them, or those of fresh context or features.
RowMaps encoding(const Spec& spec, const DeviceTensors& tensors, const Call& call, const EncodedRows& to);
RowMaps fresh_encoding(const Spec& spec, const DeviceTensors& tensors, const Call& call, const EncodedRows& to);

}  // namespace trm::cuda

#endif
