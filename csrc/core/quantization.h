// The calibration of a bundle: the precision of every matrix, and the scales of the inputs of those in int8.
#ifndef TRM_EDGE_CORE_QUANTIZATION_H
#define TRM_EDGE_CORE_QUANTIZATION_H

#include <map>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "core/spec.h"

namespace trm {

struct Tensor;

// How a bundle was calibrated; empty where it was not.
struct Quantization {
    int steps = 0;                          // refinement steps with scales of their own; 0: every row has its own
    std::vector<BlockPrecision> precision;  // [num_layers]
    std::vector<float> input_scale;         // [steps][num_layers][kMatricesPerBlock], 0 where a matrix is not int8
};

// All of the section or none of it: scheme, steps, a precision for every matrix, and scales for those that need them.
// Throws Error with INVALID_BUNDLE and a message that names the tensor or field.
Quantization read_quantization(const Spec& spec, std::map<std::string, std::string> metadata,
                               const std::vector<Tensor>& tensors);

}  // namespace trm

#endif  // TRM_EDGE_CORE_QUANTIZATION_H
