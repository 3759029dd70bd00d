#include "core/bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/bundle_parts.h"
#include "core/golden.h"
#include "core/sha256.h"

namespace trm {
namespace {

static_assert(sizeof(float) == 4 && sizeof(size_t) == 8, "the reader copies little-endian float32 on 64-bit machines");
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bundles are little-endian, and so must be the machine that reads them"
#endif

constexpr uint64_t kMaxHeader = 16 << 20;           // bytes
constexpr uint64_t kMaxTensor = uint64_t{1} << 48;  // elements of one tensor; keeps sums and products far from 2^64
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::string_view kHashKey = "\"sha256\":\"";

std::string str(uint64_t value) { return std::to_string(value); }

std::string quoted(const Metadata& metadata, const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? "nothing" : "'" + shown(found->second) + "'";
}

// ---- The file's parts ----------------------------------------------------------------------------------------------

struct Parts {
    std::string_view header;  // JSON and its padding
    const uint8_t* content;   // the tensors' bytes
    uint64_t content_size;
};

// The length of the header, from the first 8 bytes of a file of `size` bytes.
uint64_t check_start(const uint8_t* data, size_t size) {
    if (size < 8) fail("truncated: expected at least 8 bytes, got " + str(size));
    if (std::memcmp(data, "PK\3\4", 4) == 0) {
        fail(
            "not a bundle but a zip file, as a checkpoint (.pt) or recorded data (.npz): "
            "export a checkpoint to .trm first (trm-edge export)");
    }
    uint64_t length = 0;
    std::memcpy(&length, data, 8);
    if (length > kMaxHeader) {
        fail("not a .trm bundle: its first 8 bytes, the length of a header, say " + str(length) + ", more than " +
             str(kMaxHeader));
    }
    if (length > size - 8) {
        fail("truncated: the header needs " + str(length) + " bytes, " + str(size - 8) + " are there");
    }
    return length;
}

Parts split(const uint8_t* data, size_t size) {
    const uint64_t length = check_start(data, size);
    return {{reinterpret_cast<const char*>(data) + 8, length}, data + 8 + length, size - 8 - length};
}

void check_metadata(const Metadata& metadata) {
    const auto format = metadata.find("format");
    if (format == metadata.end() || format->second != "trm_edge.bundle") {
        fail("not a trm_edge bundle: expected format 'trm_edge.bundle', got " + quoted(metadata, "format"));
    }
    const auto version = metadata.find("format_version");
    if (version == metadata.end() || version->second != std::to_string(kFormatVersion)) {
        throw Error(Status::kUnsupportedVersion,
                    "format version " + quoted(metadata, "format_version") +
                        " cannot be read by this release, which "
                        "reads " +
                        std::to_string(kFormatVersion) +
                        "; install the release that wrote it, or export the checkpoint again");
    }
    for (const char* key : {"sha256", "golden.cases"}) {
        if (metadata.count(key) == 0) fail(std::string("metadata lacks ") + key);
    }
    const std::set<std::string_view> known = {"format", "format_version", "sha256", "golden.cases"};
    for (const auto& [key, text] : metadata) {
        if (known.count(key) == 0 && !starts_with(key, "spec.") && !starts_with(key, "provenance.") &&
            !starts_with(key, kQuantization)) {
            fail("metadata has an unknown key '" + shown(key) + "'");
        }
        if ((key + text).find('\0') != std::string::npos) {  // where C would read half of it
            fail("metadata '" + shown(key) + "': expected text without a null character");
        }
    }
}

// The hash is that of everything from the header on, its own 64 characters read as '0'.
void check_hash(const Parts& parts, size_t at, const std::string& stated) {
    const std::string_view header = parts.header;
    const size_t key = header.find(kHashKey);
    const bool plain = key != std::string_view::npos && key + kHashKey.size() == at &&
                       header.find(kHashKey, key + 1) == std::string_view::npos && stated.size() == 64 &&
                       header.substr(at, 65) == stated + '"';
    if (!plain) fail("damaged header: the sha256 entry is not 64 plain characters");
    Sha256 hash;
    hash.update(header.data(), at);
    hash.update(std::string(64, '0').data(), 64);
    hash.update(header.data() + at + 64, header.size() - at - 64);
    hash.update(parts.content, parts.content_size);
    const std::string digest = hash.finish();
    if (digest != stated) {
        fail("damaged: SHA-256 is " + digest + ", the file states " + shown(stated) + "; copy it again");
    }
}

// ---- Tensors -------------------------------------------------------------------------------------------------------

uint64_t item_size(std::string_view name, const std::string& dtype) {
    if (dtype == "F64") return 8;
    if (dtype == "F32" || dtype == "I32") return 4;
    if (dtype == "BOOL") return 1;
    fail_tensor(name, "expected dtype F64, F32, I32, BOOL, got '" + shown(dtype) + "'");
}

uint64_t byte_size(std::string_view name, const TensorEntry& entry) {
    const uint64_t item = item_size(name, entry.dtype);
    uint64_t elements = 1, bound = 1;  // `bound` reads 0 as 1, so that a 0 hides no overflow
    for (const uint64_t n : entry.shape) {
        if (n >= kMaxTensor || std::max<uint64_t>(n, 1) > kMaxTensor / bound) fail_tensor(name, "shape is too large");
        elements *= n;
        bound *= std::max<uint64_t>(n, 1);
    }
    return elements * item;
}

// The tensors in the order of their offsets; an empty one comes before the one that begins where it does.
std::vector<Tensor> by_offset(const std::map<std::string, TensorEntry>& entries) {
    std::vector<Tensor> tensors;
    for (const auto& [name, entry] : entries) {
        if (entry.shape.size() > 4 || entry.offsets.size() != 2) {
            fail_tensor(name, "expected at most 4 dimensions and 2 offsets");
        }
        tensors.push_back({name, &entry, nullptr, 0});
    }
    std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
        return std::tie(a.entry->offsets, a.name) < std::tie(b.entry->offsets, b.name);
    });
    return tensors;
}

void check_booleans(const Tensor& tensor) {
    if (tensor.entry->dtype != "BOOL") return;
    if (std::any_of(tensor.data, tensor.data + tensor.bytes, [](uint8_t value) { return value > 1; })) {
        fail_tensor(tensor.name, "a boolean that is neither 0 nor 1");
    }
}

// Tensors cover the content without a gap, an overlap or a rest.
std::vector<Tensor> check_layout(const std::map<std::string, TensorEntry>& entries, const Parts& parts) {
    std::vector<Tensor> tensors = by_offset(entries);
    uint64_t expected = 0;
    for (Tensor& tensor : tensors) {
        const uint64_t begin = tensor.entry->offsets[0], end = tensor.entry->offsets[1];
        const uint64_t bytes = byte_size(tensor.name, *tensor.entry);
        if (begin != expected) {
            fail_tensor(tensor.name,
                        "starts at byte " + str(begin) + ", expected " + str(expected) + ": a gap or an overlap");
        }
        if (end < begin || end - begin != bytes) {
            fail_tensor(tensor.name, "bytes " + str(begin) + " to " + str(end) + ", but its shape and dtype need " +
                                         str(bytes) + " bytes");
        }
        if (end > parts.content_size) {
            fail("truncated: tensor " + shown(tensor.name) + " ends at byte " + str(end) + ", the data has " +
                 str(parts.content_size));
        }
        tensor.data = parts.content + begin;
        tensor.bytes = bytes;
        check_booleans(tensor);
        expected = end;
    }
    if (expected != parts.content_size) {
        fail(str(parts.content_size - expected) + " trailing bytes after the last tensor");
    }
    return tensors;
}

// ---- Weights against the spec --------------------------------------------------------------------------------------

std::string list(const std::vector<int64_t>& dims) {
    std::string text = "[";
    for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + "]";
}

std::map<std::string, std::vector<float>> read_weights(const Spec& spec, const std::vector<Tensor>& tensors) {
    std::map<std::string_view, const Tensor*> given;
    for (const Tensor& tensor : tensors) {
        if (!starts_with(tensor.name, kGolden) && !starts_with(tensor.name, kInputScale)) given[tensor.name] = &tensor;
    }
    std::map<std::string, std::vector<float>> weights;
    for (const TensorShape& shape : tensor_shapes(spec)) {
        const auto found = given.find(shape.name);
        if (found == given.end()) fail_tensor(shape.name, "missing; the spec asks for it");
        const Tensor& tensor = *found->second;
        const std::vector<int64_t> dims(tensor.entry->shape.begin(), tensor.entry->shape.end());
        if (tensor.entry->dtype != "F32" || dims != shape.dims) {
            fail_tensor(shape.name,
                        "expected F32 " + list(shape.dims) + ", got " + tensor.entry->dtype + " " + list(dims));
        }
        std::vector<float>& values = weights[shape.name];
        values.resize(tensor.bytes / sizeof(float));
        std::memcpy(values.data(), tensor.data, tensor.bytes);
        given.erase(found);
    }
    if (!given.empty()) fail_tensor(given.begin()->first, "unknown; the spec has no place for it");
    return weights;
}

template <class Test>
bool all(const std::vector<float>& values, Test test) {
    return std::all_of(values.begin(), values.end(), test);
}

void check_values(const std::string& name, const std::vector<float>& values) {
    const bool is_std = starts_with(name, "normalization.") && name.substr(name.size() - 4) == ".std";
    if (starts_with(name, "limits.")) {
        if (!all(values, [](float v) { return !std::isnan(v); })) {
            fail_tensor(name, "expected no NaN; use inf for 'no limit'");
        }
    } else if (!all(values, [](float v) { return std::isfinite(v); })) {
        fail_tensor(name, "expected finite values, found NaN or Inf");
    }
    if ((is_std || name == "limits.velocity") && !all(values, [](float v) { return v > 0; })) {
        const float least = *std::min_element(values.begin(), values.end());
        fail_tensor(name, "expected every value > 0, found " + std::to_string(least));
    }
}

// Weights are finite, every std is positive, and limits leave room to move.
void check_statistics(const std::map<std::string, std::vector<float>>& weights) {
    for (const auto& [name, values] : weights) check_values(name, values);
    const auto lower = weights.find("limits.lower"), upper = weights.find("limits.upper");
    if (lower == weights.end()) return;
    if (!std::equal(lower->second.begin(), lower->second.end(), upper->second.begin(), std::less_equal<float>())) {
        fail_tensor("limits.lower", "expected lower <= upper in every dimension");
    }
    if (!all(lower->second, [](float v) { return v < kInfinity; })) {
        fail_tensor("limits.lower", "inf leaves no room to move");
    }
    if (!all(upper->second, [](float v) { return v > -kInfinity; })) {
        fail_tensor("limits.upper", "-inf leaves no room to move");
    }
}

// ---- Files ---------------------------------------------------------------------------------------------------------

class File {
  public:
    // Non-blocking, so that a pipe without a writer is refused instead of waited for; regular files do not care.
    explicit File(const char* path) : handle_(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        if (handle_ < 0) fail_io(errno);
    }
    ~File() { ::close(handle_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    size_t size() const {
        struct stat info{};
        if (::fstat(handle_, &info) != 0) fail_io(errno);
        if (S_ISDIR(info.st_mode)) fail_io(EISDIR);
        if (!S_ISREG(info.st_mode)) throw Error(Status::kIoError, "cannot be read: not a regular file");
        return static_cast<size_t>(info.st_size);
    }

    // Reads up to `size` bytes; fewer only at the end of the file.
    size_t read(uint8_t* to, size_t size) const {
        size_t done = 0;
        while (done < size) {
            const ssize_t count = ::read(handle_, to + done, size - done);
            if (count == 0) break;
            if (count > 0) {
                done += static_cast<size_t>(count);
            } else if (errno != EINTR) {
                fail_io(errno);
            }
        }
        return done;
    }

  private:
    [[noreturn]] static void fail_io(int error) {
        throw Error(Status::kIoError, std::string("cannot be read: ") + std::strerror(error));
    }

    int handle_;
};

std::vector<uint8_t> read_whole(const char* path) {
    const File file(path);
    const size_t size = file.size();
    const auto require_read = [](bool ok) {
        if (!ok) throw Error(Status::kIoError, "its size changed while it was read; try again when its writer is done");
    };
    uint8_t start[8];
    const size_t begun = file.read(start, sizeof start);
    require_read(begun == std::min(size, sizeof start));
    check_start(start, size);             // another kind of file is not read, however large
    std::vector<uint8_t> data(size + 1);  // one byte more than expected tells a file that grows
    std::copy_n(start, begun, data.begin());
    require_read(begun + file.read(data.data() + begun, data.size() - begun) == size);
    data.pop_back();
    return data;
}

}  // namespace

Bundle read_bundle(const uint8_t* data, size_t size, std::vector<GoldenCase>* golden) {
    const Parts parts = split(data, size);
    Header header = parse_header(parts.header);
    check_metadata(header.metadata);
    check_hash(parts, header.sha256_at, header.metadata["sha256"]);
    const std::vector<Tensor> tensors = check_layout(header.tensors, parts);
    Bundle bundle;
    bundle.spec = parse_spec(header.metadata);
    read_golden(tensors, header.metadata["golden.cases"], golden);
    bundle.weights = read_weights(bundle.spec, tensors);
    check_statistics(bundle.weights);
    bundle.quantization = read_quantization(bundle.spec, header.metadata, tensors);
    bundle.sha256 = header.metadata["sha256"];
    bundle.metadata = std::move(header.metadata);
    return bundle;
}

Bundle read_bundle_file(const char* path, std::vector<GoldenCase>* golden) {
    try {
        const std::vector<uint8_t> data = read_whole(path);
        return read_bundle(data.data(), data.size(), golden);
    } catch (const Error& error) {
        throw Error(error.status(), std::string(path) + ": " + error.what());
    } catch (const std::bad_alloc&) {
        throw Error(Status::kOutOfMemory, std::string(path) + ": does not fit into memory");
    } catch (const std::length_error&) {
        throw Error(Status::kOutOfMemory, std::string(path) + ": does not fit into memory");
    }
}

}  // namespace trm
