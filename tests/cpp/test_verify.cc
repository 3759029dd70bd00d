// trm_verify_file: what it passes, what it finds, and what it refuses.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "bundle_edit.h"
#include "core/json_header.h"
#include "trm_edge/trm_edge.h"

namespace {

std::string path_of(const char* name) { return std::string(TRM_GOLDEN_BUNDLES "/") + name + ".trm"; }

bool message_has(const char* text) { return std::string(trm_last_message()).find(text) != std::string::npos; }

trm_verification verified(const Bytes& file, trm_status expected = TRM_OK, const trm_load_options* options = nullptr) {
    trm_verification found = TRM_VERIFICATION_INIT;
    const trm_status status = trm_verify_memory(file.data(), file.size(), options, &found);
    CHECK_MESSAGE(status == expected, trm_last_message());
    return found;
}

// The file with the values of one tensor changed, and the hash of the result.
template <typename T>
Bytes with_tensor(const Bytes& file, const std::string& tensor, const std::function<void(T*, size_t)>& change) {
    BundleParts parts = split_bundle(file);
    const trm::Header header = trm::parse_header(parts.header);
    const auto& offsets = header.tensors.at(tensor).offsets;
    std::vector<T> values((offsets[1] - offsets[0]) / sizeof(T));
    uint8_t* place = parts.content.data() + offsets[0];
    std::memcpy(values.data(), place, values.size() * sizeof(T));
    change(values.data(), values.size());
    std::memcpy(place, values.data(), values.size() * sizeof(T));
    return join_bundle(sealed(parts));
}

Bytes file_of(const char* name) { return read_bytes(path_of(name)); }

Bytes renamed(const char* name, const std::string& from, const std::string& to) {
    BundleParts parts = split_bundle(read_bytes(path_of(name)));
    const size_t at = parts.header.find(from);
    REQUIRE(at != std::string::npos);
    REQUIRE(from.size() == to.size());
    parts.header.replace(at, from.size(), to);
    return join_bundle(sealed(parts));
}

}  // namespace

TEST_CASE("verify: every kind of head passes, and says how far off its worst step is") {
    for (const char* name :
         {"actions_attention", "actions_mlp_t", "slots_attention", "tokens_attention", "tokens_mlp_t"}) {
        CAPTURE(name);
        trm_verification found = TRM_VERIFICATION_INIT;
        CHECK_MESSAGE(trm_verify_file(path_of(name).c_str(), nullptr, &found) == TRM_OK, trm_last_message());
        CHECK(found.cases >= 2);
        CHECK(found.steps >= 2 * found.cases);
        CHECK(found.failed == 0);
        CHECK(found.worst > 0);
        CHECK(found.worst <= 1);
        CHECK(found.worst_step >= 1);
        CHECK(found.worst_case < found.cases);
    }
}

TEST_CASE("verify: a step that is off is found") {
    const auto shift = [](double* values, size_t) { values[0] += 1e-2; };
    const auto spoil = [](double* values, size_t count) { values[count - 1] = NAN; };
    for (const auto& [name, tensor] :
         {std::pair{"actions_attention", "golden.1.out.y"}, std::pair{"actions_mlp_t", "golden.0.out.halt_logits"},
          std::pair{"tokens_attention", "golden.1.out.logits"}}) {
        CAPTURE(tensor);
        const trm_verification found = verified(with_tensor<double>(file_of(name), tensor, shift));
        CHECK(found.failed == 1);
        CHECK(found.worst > 1);
        CHECK(found.worst_case == (tensor[7] - '0'));
        CHECK(found.worst_step == 1);
        const trm_verification spoilt = verified(with_tensor<double>(file_of(name), tensor, spoil));
        CHECK(spoilt.failed == 1);
        CHECK(std::isinf(spoilt.worst));
        CHECK(spoilt.worst_step > 1);
    }
    const auto move = [](float* values, size_t count) { values[count - 1] += 1e-2f; };
    const trm_verification moved =
        verified(with_tensor<float>(file_of("actions_attention"), "golden.0.out.projected", move));
    CHECK(moved.failed == 1);
    CHECK(moved.worst_step * 2 == moved.steps);  // the last one, of two cases
}

TEST_CASE("verify: another choice is found, but where the oracle's best two are as good as equal") {
    const auto other = [](int32_t* chosen, size_t) { chosen[0] = chosen[0] ? 0 : 1; };
    const trm_verification found = verified(with_tensor<int32_t>(file_of("tokens_attention"), "golden.0.out.y", other));
    CHECK(found.failed == 1);
    CHECK(std::isinf(found.worst));
    CHECK(found.worst_step == 1);
    const Bytes slots = with_tensor<int32_t>(file_of("slots_attention"), "golden.0.out.y", other);
    CHECK(verified(slots).failed == 1);
    const auto allow = [](double* errors, size_t count) { std::fill_n(errors, count, 1.0); };
    CHECK(verified(with_tensor<double>(slots, "golden.0.out.fp32_error", allow)).failed == 0);
}

TEST_CASE("verify: a bundle without golden vectors has none to fail") {
    BundleParts parts = split_bundle(read_bytes(path_of("tokens_attention")));
    const trm::Header header = trm::parse_header(parts.header);
    // Golden tensors come first or last in the file; leave them out by writing the header anew.
    std::string text = "{\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata)
        text += "\"" + key + "\":\"" + (key == "golden.cases" ? "0" : value) + "\",";
    text.back() = '}';
    Bytes content;
    for (const auto& [name, entry] : header.tensors) {
        if (name.rfind("golden.", 0) == 0) continue;
        text += ",\"" + name + "\":{\"dtype\":\"" + entry.dtype + "\",\"shape\":[";
        for (size_t i = 0; i < entry.shape.size(); ++i) text += (i ? "," : "") + std::to_string(entry.shape[i]);
        const auto begin = parts.content.begin() + static_cast<std::ptrdiff_t>(entry.offsets[0]);
        const auto end = parts.content.begin() + static_cast<std::ptrdiff_t>(entry.offsets[1]);
        text += "],\"data_offsets\":[" + std::to_string(content.size()) + ",";
        content.insert(content.end(), begin, end);
        text += std::to_string(content.size()) + "]}";
    }
    const trm_verification found = verified(join_bundle(sealed({text + "}", content})));
    CHECK(found.cases == 0);
    CHECK(found.steps == 0);
    CHECK(found.failed == 0);
}

TEST_CASE("verify: golden vectors that make no sense are a damaged bundle") {
    const auto negative = [](double* values, size_t) { values[0] = -1; };
    const auto nan = [](float* values, size_t) { values[0] = NAN; };
    verified(with_tensor<double>(file_of("tokens_mlp_t"), "golden.0.out.fp32_error", negative), TRM_INVALID_BUNDLE);
    CHECK(message_has("golden case 0: fp32_error: expected finite errors"));
    verified(with_tensor<float>(file_of("actions_attention"), "golden.1.in.y0", nan), TRM_INVALID_BUNDLE);
    CHECK(message_has("golden case 1: y0: expected finite values"));
    verified(renamed("actions_attention", "golden.0.in.y0", "golden.0.in.z0"), TRM_INVALID_BUNDLE);
    CHECK(message_has("golden case 0: unknown input z0"));
    verified(renamed("tokens_attention", "golden.0.out.logits", "golden.0.out.lagits"), TRM_INVALID_BUNDLE);
    CHECK(message_has("golden case 0: logits: expected an array of F64"));
    verified(Bytes{}, TRM_INVALID_ARGUMENT);  // no data at all
    verified(Bytes(7), TRM_INVALID_BUNDLE);
}

TEST_CASE("verify: a precision whose error is not recorded is refused") {
    const Bytes file = read_bytes(path_of("actions_attention"));
    trm_load_options options = TRM_LOAD_OPTIONS_INIT;
    options.precision = TRM_PRECISION_FP32;
    CHECK(verified(file, TRM_OK, &options).failed == 0);
    for (const int32_t precision : {TRM_PRECISION_INT8, TRM_PRECISION_BF16}) {
        options.precision = precision;
        CHECK(verified(file, TRM_UNSUPPORTED, &options).steps == 0);
        CHECK(message_has("calibrate it, or check it with trm-edge verify"));
    }
    options.precision = 9;
    verified(file, TRM_INVALID_ARGUMENT, &options);
    trm_verification wrong = {0, 0, 0, 0, 0, 0, 0};
    CHECK(trm_verify_memory(file.data(), file.size(), nullptr, &wrong) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("TRM_VERIFICATION_INIT"));
    CHECK(trm_verify_file(nullptr, nullptr, &wrong) == TRM_INVALID_ARGUMENT);
    CHECK(trm_verify_file("/nowhere.trm", nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    wrong = TRM_VERIFICATION_INIT;
    CHECK(trm_verify_file("/nowhere.trm", nullptr, &wrong) == TRM_IO_ERROR);
}
