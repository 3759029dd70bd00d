// Golden vectors of a bundle: recorded inputs, and the float64 oracle's outputs of every step.
#ifndef TRM_EDGE_CORE_GOLDEN_H
#define TRM_EDGE_CORE_GOLDEN_H

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace trm {

struct Tensor;

// An array of a file, copied to where its elements are aligned.
struct GoldenArray {
    std::string dtype;  // F64, F32, I32 or BOOL
    std::vector<uint64_t> shape;
    std::vector<double> aligned;  // the bytes, and what fills the last eight
    uint64_t count = 0;           // elements

    template <typename T>
    const T* data() const {
        return reinterpret_cast<const T*>(aligned.data());
    }
};

struct GoldenCase {
    std::map<std::string, GoldenArray> in, out;  // by the names of trm_inputs, and of trm_edge/golden.py
};

// The `stated` cases among the tensors, which are named golden.<case>.<in|out>.<array>; each has its fp32_error. Where
// `cases` is null they are checked and not kept. Throws Error with INVALID_BUNDLE.
void read_golden(const std::vector<Tensor>& tensors, const std::string& stated, std::vector<GoldenCase>* cases);

}  // namespace trm

#endif  // TRM_EDGE_CORE_GOLDEN_H
