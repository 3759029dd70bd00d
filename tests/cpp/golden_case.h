// Golden cases of a bundle, read with the engine's own header parser: recorded inputs as a trm_inputs, and the float64
// oracle's outputs.
#ifndef TRM_EDGE_TESTS_GOLDEN_CASE_H
#define TRM_EDGE_TESTS_GOLDEN_CASE_H

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/json_header.h"
#include "trm_edge/trm_edge.h"

struct GoldenTensor {
    std::string dtype;
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;

    std::vector<double> doubles() const {
        std::vector<double> values(bytes.size() / sizeof(double));
        std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
        return values;
    }
};

class GoldenFile {
  public:
    explicit GoldenFile(const std::string& path) {
        std::ifstream stream(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(stream), {});
        if (bytes.size() < 8) throw std::runtime_error("cannot read " + path);
        uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        const trm::Header header = trm::parse_header({reinterpret_cast<const char*>(bytes.data()) + 8, length});
        for (const auto& [name, entry] : header.tensors) {
            GoldenTensor& tensor = tensors_[name];
            tensor.dtype = entry.dtype;
            tensor.shape.assign(entry.shape.begin(), entry.shape.end());
            const auto data = bytes.begin() + static_cast<std::ptrdiff_t>(8 + length);
            tensor.bytes.assign(data + static_cast<std::ptrdiff_t>(entry.offsets[0]),
                                data + static_cast<std::ptrdiff_t>(entry.offsets[1]));
        }
        cases = std::stoi(header.metadata.at("golden.cases"));
    }

    // Inputs of a case; they point into this object.
    trm_inputs inputs(int number) const {
        trm_inputs in = TRM_INPUTS_INIT;
        in.x = input(number, "x");
        in.y0 = input(number, "y0");
        in.features = input(number, "features");
        in.slots = input(number, "slots");
        in.candidates = input(number, "candidates");
        in.mask = input(number, "mask");
        if (const GoldenTensor* id = find(number, "in.puzzle_id")) std::memcpy(&in.puzzle_id, id->bytes.data(), 4);
        return in;
    }

    const GoldenTensor* find(int number, const std::string& name) const {
        const auto found = tensors_.find("golden." + std::to_string(number) + "." + name);
        return found == tensors_.end() ? nullptr : &found->second;
    }

    std::vector<double> output(int number, const std::string& name) const {
        const GoldenTensor* tensor = find(number, "out." + name);
        if (tensor == nullptr) throw std::runtime_error("no golden output " + name);
        return tensor->doubles();
    }

    std::vector<uint8_t> bytes;
    int cases = 0;

  private:
    trm_tensor input(int number, const std::string& name) const {
        const GoldenTensor* tensor = find(number, "in." + name);
        if (tensor == nullptr) return trm_tensor{nullptr, TRM_ABSENT, 0, {0, 0}};
        const trm_dtype dtype = tensor->dtype == "F32" ? TRM_F32 : tensor->dtype == "I32" ? TRM_I32 : TRM_BOOL;
        trm_tensor result{tensor->bytes.data(), dtype, static_cast<int32_t>(tensor->shape.size()), {0, 0}};
        for (size_t i = 0; i < tensor->shape.size() && i < 2; ++i) result.shape[i] = tensor->shape[i];
        return result;
    }

    std::map<std::string, GoldenTensor> tensors_;
};

#endif
