// The JSON header of a bundle. Not a JSON library: it accepts exactly the shape that a header has, an object of
// `"__metadata__": {string: string}` and `"<tensor>": {"dtype": string, "shape": [sizes], "data_offsets": [sizes]}`.
#ifndef TRM_EDGE_CORE_JSON_HEADER_H
#define TRM_EDGE_CORE_JSON_HEADER_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace trm {

// One tensor as the header states it. Only the syntax has been checked.
struct TensorEntry {
    std::string dtype;
    std::vector<uint64_t> shape;    // at most 8 numbers of at most 15 digits
    std::vector<uint64_t> offsets;  // likewise
};

struct Header {
    std::map<std::string, std::string> metadata;
    std::map<std::string, TensorEntry> tensors;
    size_t sha256_at = 0;  // where the value of metadata["sha256"] begins in the text, behind its quote; 0: nowhere
};

// Parses a header. Strict: UTF-8, no key twice, no lone surrogates, plain non-negative integers, padding of spaces
// behind the object and nothing before it. Throws Error with INVALID_BUNDLE and the byte where the text goes wrong.
// Memory is bounded by a small multiple of the text's size.
Header parse_header(std::string_view text);

}  // namespace trm

#endif  // TRM_EDGE_CORE_JSON_HEADER_H
