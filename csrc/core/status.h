// Outcomes and the one exception of core/. The numbers are frozen and the same in trm_edge/errors.py and the C header.
#ifndef TRM_EDGE_CORE_STATUS_H
#define TRM_EDGE_CORE_STATUS_H

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace trm {

// 0: ok; positive: an answer was written, with a reason; negative: the call was wrong, nothing was written.
enum class Status : int32_t {
    kOk = 0,
    kHalted = 1,         // confidence reached `halt` before the last step
    kNonfinite = 2,      // NaN or Inf in an input or inside the recursion; the answer is the (projected) draft
    kOutsideLimits = 3,  // `last_action` is farther outside the bounds than one velocity step; they are approached
    kInvalidArgument = -1,
    kInvalidBundle = -2,
    kUnsupportedVersion = -3,
    kIoError = -4,
    kOutOfMemory = -5,
    kUnsupported = -6,
    kBusy = -7,
    kNotBegun = -8,
    kInternal = -9,
    kDeviceError = -10,  // a GPU or its driver failed
};

// Thrown inside core/ only; api/ turns it into a status and a message, so that nothing crosses the C ABI.
class Error : public std::runtime_error {
  public:
    Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    Status status() const { return status_; }

  private:
    Status status_;
};

// Text from a file as it may stand in a message: short, on one line, without control characters.
inline std::string shown(std::string_view text) {
    constexpr size_t kLongest = 80;
    size_t size = text.size();
    if (size > kLongest) {
        size = kLongest;
        while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;  // keep UTF-8 whole
    }
    std::string result(text.substr(0, size));
    for (char& c : result) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    }
    return size < text.size() ? result + "..." : result;
}

}  // namespace trm

#endif  // TRM_EDGE_CORE_STATUS_H
