// The checked reader of `.trm` bundles. The layout is described, and written, in trm_edge/bundle.py; both readers
// accept and refuse the same files.
#ifndef TRM_EDGE_CORE_BUNDLE_H
#define TRM_EDGE_CORE_BUNDLE_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/quantization.h"
#include "core/spec.h"

namespace trm {

struct GoldenCase;

constexpr int kFormatVersion = 1;

// A bundle that passed every check.
struct Bundle {
    Spec spec;
    std::map<std::string, std::string> metadata;
    std::string sha256;                                 // 64 hexadecimal characters
    std::map<std::string, std::vector<float>> weights;  // exactly the names and sizes of tensor_shapes(spec)
    Quantization quantization;
};

// Reads a bundle from memory, of which nothing is kept. Nothing in it is trusted, and what is allocated is bounded by
// `size`. Throws Error with INVALID_BUNDLE or UNSUPPORTED_VERSION and a message that names the tensor or field.
// Golden vectors are checked for their layout and, where `golden` is not null, copied there.
Bundle read_bundle(const uint8_t* data, size_t size, std::vector<GoldenCase>* golden = nullptr);

// Reads a bundle from a regular file; messages begin with `path`. The file is read, not mapped: a mapping whose file
// shrinks is a SIGBUS. Also throws Error with IO_ERROR or OUT_OF_MEMORY.
Bundle read_bundle_file(const char* path, std::vector<GoldenCase>* golden = nullptr);

}  // namespace trm

#endif  // TRM_EDGE_CORE_BUNDLE_H
