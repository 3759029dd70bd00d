// SHA-256 (FIPS 180-4), streaming.
#ifndef TRM_EDGE_CORE_SHA256_H
#define TRM_EDGE_CORE_SHA256_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace trm {

class Sha256 {
  public:
    // Appends `size` bytes to the message.
    void update(const void* data, size_t size);

    // Ends the message and returns its digest as 64 lower-case hexadecimal characters. Call once, last.
    std::string finish();

  private:
    void compress(const uint8_t* block);

    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> block_{};  // the first length_ % 64 bytes wait for the rest of their block
    uint64_t length_ = 0;              // bytes so far
};

}  // namespace trm

#endif  // TRM_EDGE_CORE_SHA256_H
