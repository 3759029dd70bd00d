// The table of rotary positions (arXiv 2104.09864).
#ifndef TRM_EDGE_CUDA_ROPE_H
#define TRM_EDGE_CUDA_ROPE_H

#include <vector_types.h>

#include <cmath>
#include <vector>

#include "core/spec.h"

namespace trm::cuda {

// Cos and sin of angle [position][j], for the rotary partners j and j + head/2 of a head.
inline std::vector<float2> rope_table(const Spec& spec) {
    const int half = spec.hidden_size / spec.num_heads / 2;
    std::vector<float2> table;
    for (int position = 0; position < spec.max_rows(); ++position) {
        for (int j = 0; j < half; ++j) {
            const double angle = position * std::pow(spec.rope_theta, -static_cast<double>(j) / half);
            table.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
        }
    }
    return table;
}

}  // namespace trm::cuda

#endif
