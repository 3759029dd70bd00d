// What the parts of the bundle reader share: tensors as they lie in the file, and the errors that name them.
#ifndef TRM_EDGE_CORE_BUNDLE_PARTS_H
#define TRM_EDGE_CORE_BUNDLE_PARTS_H

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/json_header.h"
#include "core/status.h"

namespace trm {

using Metadata = std::map<std::string, std::string>;

// Prefixes of the golden vectors' tensors, of the calibration's metadata and of its tensors.
constexpr std::string_view kGolden = "golden.";
constexpr std::string_view kQuantization = "quantization.";
constexpr std::string_view kInputScale = "quantization.input_scale.";

// A tensor whose bytes are known to lie inside the content.
struct Tensor {
    std::string_view name;
    const TensorEntry* entry;
    const uint8_t* data;
    uint64_t bytes;
};

[[noreturn]] inline void fail(const std::string& message) { throw Error(Status::kInvalidBundle, message); }

[[noreturn]] inline void fail_tensor(std::string_view name, const std::string& why) {
    fail("tensor " + shown(name) + ": " + why);
}

inline bool starts_with(std::string_view text, std::string_view prefix) {
    return text.substr(0, prefix.size()) == prefix;
}

// A plain decimal number of at most five digits, else -1.
inline int plain_number(std::string_view text) {
    constexpr size_t kMaxDigits = 5;
    const bool plain = !text.empty() && text.size() <= kMaxDigits && (text == "0" || text[0] != '0') &&
                       text.find_first_not_of("0123456789") == std::string_view::npos;
    return plain ? std::stoi(std::string(text)) : -1;
}

}  // namespace trm

#endif  // TRM_EDGE_CORE_BUNDLE_PARTS_H
