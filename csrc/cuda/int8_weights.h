// Weights of eight bits with a scale a row; the definition is in trm_edge/quantization.py.
#ifndef TRM_EDGE_CUDA_INT8_WEIGHTS_H
#define TRM_EDGE_CUDA_INT8_WEIGHTS_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace trm::cuda {

struct Int8Weights {
    std::vector<int8_t> values;  // [rows, columns]
    std::vector<float> scales;   // [rows]
};

inline Int8Weights int8_weights(const std::vector<float>& w, size_t columns) {
    Int8Weights made{std::vector<int8_t>(w.size()), std::vector<float>(w.size() / columns)};
    for (size_t row = 0; row < made.scales.size(); ++row) {
        const float* from = w.data() + row * columns;
        double most = 0;
        for (size_t i = 0; i < columns; ++i) most = std::max(most, std::fabs(static_cast<double>(from[i])));
        const float scale = made.scales[row] = static_cast<float>(most / 127);
        for (size_t i = 0; i < columns && scale > 0; ++i) {
            const double q = std::nearbyint(static_cast<double>(from[i]) / static_cast<double>(scale));
            made.values[row * columns + i] = static_cast<int8_t>(std::clamp(q, -127.0, 127.0));
        }
    }
    return made;
}

}  // namespace trm::cuda

#endif
