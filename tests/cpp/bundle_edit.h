// Takes bundles apart and puts them together again with a right hash, so that damage reaches the checks behind it.
#ifndef TRM_EDGE_TESTS_BUNDLE_EDIT_H
#define TRM_EDGE_TESTS_BUNDLE_EDIT_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/sha256.h"

using Bytes = std::vector<uint8_t>;

inline Bytes read_bytes(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(stream), {});
}

// A file in two parts; the header's length follows from them.
struct BundleParts {
    std::string header;
    Bytes content;
};

inline BundleParts split_bundle(const Bytes& file) {
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const auto content = file.begin() + 8 + static_cast<std::ptrdiff_t>(length);
    return {std::string(file.begin() + 8, content), Bytes(content, file.end())};
}

inline Bytes join_bundle(const BundleParts& parts) {
    const uint64_t length = parts.header.size();
    Bytes file(8 + parts.header.size() + parts.content.size());
    std::memcpy(file.data(), &length, 8);
    std::copy(parts.header.begin(), parts.header.end(), file.begin() + 8);
    std::copy(parts.content.begin(), parts.content.end(),
              file.end() - static_cast<std::ptrdiff_t>(parts.content.size()));
    return file;
}

// Writes the hash that the parts should have, where the header still has a place for it.
inline BundleParts sealed(BundleParts parts) {
    const std::string key = "\"sha256\":\"";
    const size_t found = parts.header.find(key);
    if (found == std::string::npos || found + key.size() + 64 > parts.header.size()) return parts;
    const size_t at = found + key.size();
    parts.header.replace(at, 64, 64, '0');
    trm::Sha256 hash;
    hash.update(parts.header.data(), parts.header.size());
    hash.update(parts.content.data(), parts.content.size());
    parts.header.replace(at, 64, hash.finish());
    return parts;
}

#endif  // TRM_EDGE_TESTS_BUNDLE_EDIT_H
