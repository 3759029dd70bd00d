// The bundle reader: good files are read, and every kind of damage has its status and a message that names the place.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>

#include "bundle_edit.h"
#include "core/bundle.h"
#include "core/json_header.h"
#include "core/status.h"

// Where tests/golden/bundles lies; the build says so, else the tests run from the top of the repository.
#ifndef TRM_GOLDEN_BUNDLES
#define TRM_GOLDEN_BUNDLES "tests/golden/bundles"
#endif

namespace {

using trm::Status;

const char* const kNames[] = {"actions_attention", "actions_mlp_t", "slots_attention", "tokens_attention",
                              "tokens_mlp_t"};

std::string path_of(const std::string& name) { return std::string(TRM_GOLDEN_BUNDLES) + "/" + name + ".trm"; }

Bytes load(const std::string& name) {
    Bytes file = read_bytes(path_of(name));
    REQUIRE(file.size() > 8);
    return file;
}

struct Outcome {
    Status status;
    std::string message;
};

Outcome outcome(const Bytes& file) {
    try {
        trm::read_bundle(file.data(), file.size());
        return {Status::kOk, ""};
    } catch (const trm::Error& error) {
        return {error.status(), error.what()};
    }
}

Outcome file_outcome(const std::string& path) {
    try {
        trm::read_bundle_file(path.c_str());
        return {Status::kOk, ""};
    } catch (const trm::Error& error) {
        return {error.status(), error.what()};
    }
}

bool says(const Outcome& outcome, const std::string& text) { return outcome.message.find(text) != std::string::npos; }

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, from);
    return text.replace(at, from.size(), to);
}

// The outcome of a good bundle whose header says `to` in place of `from`, sealed again.
Outcome edited(const std::string& name, const std::string& from, const std::string& to) {
    BundleParts parts = split_bundle(load(name));
    parts.header = replaced(parts.header, from, to);
    return outcome(join_bundle(sealed(parts)));
}

// The outcome of a good bundle whose `tensors` begin with `value`, sealed again.
template <size_t N>
Outcome poked(const std::string& name, const char* const (&tensors)[N], float value) {
    BundleParts parts = split_bundle(load(name));
    const trm::Header header = trm::parse_header(parts.header);
    for (const char* tensor : tensors) {
        std::memcpy(parts.content.data() + header.tensors.at(tensor).offsets[0], &value, sizeof value);
    }
    return outcome(join_bundle(sealed(parts)));
}

Outcome poked(const std::string& name, const std::string& tensor, float value) {
    const char* const tensors[] = {tensor.c_str()};
    return poked(name, tensors, value);
}

}  // namespace

#define CHECK_REFUSED(result, expected_status, text)      \
    do {                                                  \
        const Outcome actual_ = (result);                 \
        CAPTURE(actual_.message);                         \
        CHECK(actual_.status == Status::expected_status); \
        CHECK(says(actual_, text));                       \
    } while (0)

TEST_CASE("bundle: every kind and mixer is read") {
    for (const char* name : kNames) {
        CAPTURE(name);
        const trm::Bundle bundle = trm::read_bundle_file(path_of(name).c_str());
        CHECK(bundle.spec.hidden_size == 24);
        CHECK(bundle.spec.rope_theta == 10000.0);
        CHECK(bundle.spec.norm_eps == 1e-5);
        CHECK(bundle.metadata.at("provenance.source") == "tests/python/models.py");
        CHECK(bundle.sha256.size() == 64);
        const std::vector<trm::TensorShape> shapes = trm::tensor_shapes(bundle.spec);
        CHECK(bundle.weights.size() == shapes.size());
        for (const trm::TensorShape& shape : shapes) {
            int64_t elements = 1;
            for (const int64_t n : shape.dims) elements *= n;
            CHECK(bundle.weights.at(shape.name).size() == static_cast<size_t>(elements));
        }
        CHECK(bundle.weights.at("halt_head.bias").front() == -5.0f);
    }
}

TEST_CASE("bundle: tensor_shapes has the order of the file") {
    for (const char* name : kNames) {
        CAPTURE(name);
        const trm::Header header = trm::parse_header(split_bundle(load(name)).header);
        std::map<uint64_t, std::string> by_offset;  // the exporter writes weights in the order of trm_edge/spec.py
        for (const auto& [tensor, entry] : header.tensors) {
            if (tensor.rfind("golden.", 0) != 0) by_offset[entry.offsets[0]] = tensor;
        }
        std::vector<std::string> in_file, in_spec;
        for (const auto& [offset, tensor] : by_offset) in_file.push_back(tensor);
        for (const trm::TensorShape& shape : trm::tensor_shapes(trm::parse_spec(header.metadata))) {
            in_spec.push_back(shape.name);
        }
        CHECK(in_file == in_spec);
    }
}

TEST_CASE("bundle: the spec's choices are read") {
    const trm::Spec actions = trm::read_bundle_file(path_of("actions_attention").c_str()).spec;
    CHECK(actions.answer == trm::Answer::kActions);
    CHECK(actions.mixer == trm::Mixer::kAttention);
    CHECK(actions.positions == trm::Positions::kRope);
    CHECK(actions.draft == trm::Draft::kOptional);
    CHECK(actions.feature_size == 2);
    CHECK(actions.max_rows() == 2 + 5 + 6);
    const trm::Spec tokens = trm::read_bundle_file(path_of("tokens_mlp_t").c_str()).spec;
    CHECK(tokens.answer == trm::Answer::kTokens);
    CHECK(tokens.mixer == trm::Mixer::kMlpT);
    CHECK(tokens.positions == trm::Positions::kNone);
    CHECK(tokens.draft == trm::Draft::kRequired);
    CHECK(tokens.puzzle_size == 50);
    CHECK(trm::read_bundle_file(path_of("slots_attention").c_str()).spec.answer == trm::Answer::kSlots);
}

TEST_CASE("bundle: other spellings of the same header are read") {
    CHECK(edited("tokens_mlp_t", "\"format\":", "\"f\\u006frmat\" : ").status == Status::kOk);
    CHECK(edited("tokens_mlp_t", "\"dtype\":\"F32\"", "\n\t\"dtype\" : \"F32\"\r ").status == Status::kOk);
    CHECK(edited("tokens_mlp_t", "tests/python", "\\ud83e\\udd16 \xF0\x9F\xA4\x96 \\\"sha256\\\":\\\"").status ==
          Status::kOk);
    const BundleParts parts = split_bundle(load("tokens_mlp_t"));
    CHECK(outcome(join_bundle(sealed({parts.header + std::string(9, ' '), parts.content}))).status == Status::kOk);
}

TEST_CASE("bundle: truncated at any byte, or longer") {
    const Bytes file = load("tokens_mlp_t");
    for (size_t size = 0; size < file.size(); size += size < 64 ? 1 : 37) {
        CAPTURE(size);
        CHECK_REFUSED(outcome(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size))), kInvalidBundle,
                      "");
    }
    CHECK_REFUSED(outcome({}), kInvalidBundle, "truncated: expected at least 8 bytes, got 0");
    CHECK_REFUSED(outcome(Bytes(file.begin(), file.begin() + 20)), kInvalidBundle, "truncated: the header needs");
    BundleParts parts = split_bundle(file);
    parts.content.push_back(0);
    CHECK_REFUSED(outcome(join_bundle(parts)), kInvalidBundle, "damaged: SHA-256 is");
    CHECK_REFUSED(outcome(join_bundle(sealed(parts))), kInvalidBundle, "1 trailing bytes after the last tensor");
    parts.content.resize(parts.content.size() - 2);
    CHECK_REFUSED(outcome(join_bundle(sealed(parts))), kInvalidBundle, "truncated: tensor ");
}

TEST_CASE("bundle: no single bit may flip") {
    Bytes file = load("tokens_mlp_t");
    const size_t header_end = 8 + split_bundle(file).header.size();
    for (size_t bit = 0; bit < 8 * file.size(); bit += bit < 8 * header_end ? 1 : 401) {
        file[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
        const Outcome refused = outcome(file);
        if (refused.status == Status::kOk || refused.message.empty()) FAIL_CHECK("bit " << bit << " went unnoticed");
        file[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    CHECK(outcome(file).status == Status::kOk);
}

TEST_CASE("bundle: header lengths that lie") {
    Bytes file = load("tokens_mlp_t");
    for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{16} << 20, (uint64_t{16} << 20) + 1,
                                  std::numeric_limits<uint64_t>::max(), std::numeric_limits<uint64_t>::max() - 7}) {
        std::memcpy(file.data(), &length, 8);
        CHECK_REFUSED(outcome(file), kInvalidBundle, "header");
    }
}

TEST_CASE("bundle: another format or version") {
    CHECK_REFUSED(edited("tokens_mlp_t", "trm_edge.bundle", "trm_edge.bungle"), kInvalidBundle, "'trm_edge.bungle'");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"format\"", "\"format.\""), kInvalidBundle, "got nothing");
    const Outcome newer = edited("tokens_mlp_t", "\"format_version\":\"1\"", "\"format_version\":\"2\"");
    CHECK_REFUSED(newer, kUnsupportedVersion, "format version '2'");
    CHECK_REFUSED(newer, kUnsupportedVersion, "which reads 1; install the release that wrote it");
    CHECK_REFUSED(edited("tokens_mlp_t", "__metadata__", "metadata"), kInvalidBundle, "");
    CHECK_REFUSED(edited("tokens_mlp_t", "provenance.", "provenience."), kInvalidBundle, "unknown key 'provenience.");
    CHECK_REFUSED(edited("tokens_mlp_t", "golden.cases", "provenance.a"), kInvalidBundle, "lacks golden.cases");
}

TEST_CASE("bundle: a hash that is not plain, or not there") {
    CHECK_REFUSED(edited("tokens_mlp_t", "\"sha256\":", "\"provenance.sha\":"), kInvalidBundle, "lacks sha256");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"sha256\":", "\"sha256\" :"), kInvalidBundle, "not 64 plain characters");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"sha256\":", "\"sh\\u0061256\":"), kInvalidBundle,
                  "not 64 plain characters");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"provenance.source\":", "\"provenance.\\\"sha256\":"), kInvalidBundle,
                  "not 64 plain characters");
}

TEST_CASE("bundle: JSON that only looks like a header") {
    const std::string name = "tokens_mlp_t";
    const std::string dtype = "\"y_init\":{\"dtype\":\"F32\"";
    CHECK_REFUSED(edited(name, "{", " {"), kInvalidBundle, "expected a JSON object");
    CHECK_REFUSED(edited(name, "{\"__m", "[\"__m"), kInvalidBundle, "expected a JSON object");
    CHECK_REFUSED(edited(name, "}}", "}},"), kInvalidBundle, "spaces after the object");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[24.0]"), kInvalidBundle, "damaged header");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[24e0]"), kInvalidBundle, "damaged header");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[-24]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[-0]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[024]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[NaN]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[24,]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[[24]]"), kInvalidBundle, "expected a size");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":24"), kInvalidBundle, "expected '['");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[9999999999999999]"), kInvalidBundle, "too large");
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":[1,1,1,1,1,1,1,1,24]"), kInvalidBundle, "too long");
    CHECK_REFUSED(edited(name, "\"dtype\":\"F32\"", "\"dtype\":null"), kInvalidBundle, "expected a string");
    CHECK_REFUSED(edited(name, "\"dtype\":\"F32\"", "\"dtype\":\"F32\",\"x\":\"y\""), kInvalidBundle,
                  "key x is unknown");
    CHECK_REFUSED(edited(name, dtype, dtype + ",\"dtype\":\"F32\""), kInvalidBundle, "y_init: key dtype is unknown or");
    CHECK_REFUSED(edited(name, dtype + ",", "\"y_init\":{"), kInvalidBundle, "tensor y_init: expected exactly dtype");
    CHECK_REFUSED(edited(name, "\"z_init\"", "\"y_init\""), kInvalidBundle, "a key stands twice");
    CHECK_REFUSED(edited(name, "\"z_init\"", "\"y_\\u0069nit\""), kInvalidBundle, "a key stands twice");
    CHECK_REFUSED(edited(name, "\"y_init\"", "\"__metadata__\""), kInvalidBundle, "a key stands twice");
    CHECK_REFUSED(edited(name, "\"spec.dof\"", "\"spec.draft\""), kInvalidBundle, "a key stands twice");
    CHECK_REFUSED(edited(name, "\"spec.dof\":\"0\"", "\"spec.dof\":0"), kInvalidBundle, "spec.dof is not a string");
    const std::string deep(100000, '[');
    CHECK_REFUSED(edited(name, "\"shape\":[24]", "\"shape\":" + deep), kInvalidBundle, "expected a size");
}

TEST_CASE("bundle: text that is not") {
    const std::string name = "tokens_mlp_t", text = "tests/python";
    for (const char* bad : {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xE0\x80\x80", "\xF4\x90\x80\x80", "\xF0\x80\x80\x80",
                            "\x80", "\xE2\x82"}) {
        CHECK_REFUSED(edited(name, text, bad), kInvalidBundle, "not UTF-8");
    }
    for (const char* bad : {"\\ud83e", "\\ud83ex", "\\ud83e\\u0041", "\\udd16", "\\udd16\\ud83e"}) {
        CHECK_REFUSED(edited(name, text, bad), kInvalidBundle, "a lone surrogate");
    }
    for (const char* bad : {"\\x", "\\'", "\\u00g0", "\\u 041", "\\u+041", "\n", "\x01", "\t"}) {
        CHECK_REFUSED(edited(name, text, bad), kInvalidBundle, "damaged header");
    }
    CHECK_REFUSED(edited(name, text, std::string(1, '\0')), kInvalidBundle, "control character");
}

TEST_CASE("bundle: escapes are decoded to UTF-8") {
    const std::string header = split_bundle(load("tokens_mlp_t")).header;
    const std::string text = "\\u0041\\u00e9\\u20AC\\ud83e\\udd16\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000.";
    const trm::Header read = trm::parse_header(replaced(header, "tests/python/models.py", text));
    const std::string expected = "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA4\x96\"\\/\b\f\n\r\t";
    CHECK(read.metadata.at("provenance.source") == expected + std::string(1, '\0') + ".");
}

TEST_CASE("bundle: messages stay short, printable and UTF-8") {
    std::string name = "a\\n\\u007f";
    for (int i = 0; i < 10000; ++i) name += "\xE2\x82\xAC";
    const Outcome refused = edited("tokens_mlp_t", "provenance.source", name);
    CHECK_REFUSED(refused, kInvalidBundle, "unknown key 'a??\xE2\x82\xAC");
    CHECK_REFUSED(refused, kInvalidBundle, "\xE2\x82\xAC...'");
    CHECK(refused.message.size() < 200);
}

TEST_CASE("bundle: tensors that do not fit") {
    const std::string name = "tokens_mlp_t", y = "\"y_init\":{\"dtype\":\"F32\",\"shape\":[24],\"data_offsets\":";
    const BundleParts parts = split_bundle(load(name));
    const trm::TensorEntry entry = trm::parse_header(parts.header).tensors.at("y_init");
    const std::string begin = std::to_string(entry.offsets[0]), end = std::to_string(entry.offsets[1]);
    const std::string range = y + "[" + begin + "," + end + "]";
    const auto moved = [&](const std::string& offsets) { return edited(name, range, y + "[" + offsets + "]"); };
    CHECK_REFUSED(moved(std::to_string(entry.offsets[0] + 4) + "," + end), kInvalidBundle, "a gap or an overlap");
    CHECK_REFUSED(moved(std::to_string(entry.offsets[0] - 4) + "," + end), kInvalidBundle, "tensor ");
    CHECK_REFUSED(moved(begin + "," + std::to_string(entry.offsets[1] + 4)), kInvalidBundle, "tensor y_init: bytes ");
    CHECK_REFUSED(moved(begin + "," + begin), kInvalidBundle, "tensor y_init: bytes ");
    CHECK_REFUSED(moved(begin + ",0"), kInvalidBundle, "tensor ");
    CHECK_REFUSED(moved(begin), kInvalidBundle, "tensor y_init: expected at most 4 dimensions and 2 offsets");
    CHECK_REFUSED(moved(begin + "," + end + "," + end), kInvalidBundle, "tensor y_init: expected at most 4");
    CHECK_REFUSED(edited(name, "\"y_init\":{\"dtype\":\"F32\"", "\"y_init\":{\"dtype\":\"F16\""), kInvalidBundle,
                  "tensor y_init: expected dtype F64, F32, I32, BOOL, got 'F16'");
    const std::string shape = "\"y_init\":{\"dtype\":\"F32\",\"shape\":[";
    const auto reshaped = [&](const std::string& dims) { return edited(name, shape + "24]", shape + dims + "]"); };
    CHECK_REFUSED(reshaped("25"), kInvalidBundle, "tensor y_init: bytes ");
    CHECK_REFUSED(reshaped("2,12"), kInvalidBundle, "tensor y_init: expected F32 [24], got F32 [2, 12]");
    CHECK_REFUSED(reshaped("1,1,1,1,24"), kInvalidBundle, "tensor y_init: expected at most 4 dimensions");
    CHECK_REFUSED(reshaped("4294967296,4294967296"), kInvalidBundle, "tensor y_init: shape is too large");
    CHECK_REFUSED(reshaped("140737488355328,140737488355328,0"), kInvalidBundle, "tensor y_init: shape is too large");
    CHECK_REFUSED(reshaped("999999999999999"), kInvalidBundle, "tensor y_init: shape is too large");
}

TEST_CASE("bundle: tensors that the spec does not know, or asks for") {
    CHECK_REFUSED(edited("tokens_mlp_t", "\"y_init\":", "\"y_start\":"), kInvalidBundle, "tensor y_init: missing");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"y_init\":{\"dtype\":\"F32\"", "\"y_init\":{\"dtype\":\"I32\""),
                  kInvalidBundle, "tensor y_init: expected F32 [24], got I32 [24]");
    CHECK_REFUSED(edited("actions_mlp_t", "\"spec.positions\":\"learned\"", "\"spec.positions\":\"none\""),
                  kInvalidBundle, "tensor position_embedding: unknown");
    CHECK_REFUSED(edited("tokens_mlp_t", "\"spec.num_layers\":\"2\"", "\"spec.num_layers\":\"3\""), kInvalidBundle,
                  "tensor blocks.2.");
}

TEST_CASE("bundle: a spec that is not valid") {
    const auto changed = [](const char* bundle, const std::string& field, const std::string& from,
                            const std::string& to) {
        return edited(bundle, "\"spec." + field + "\":\"" + from + "\"", "\"spec." + field + "\":\"" + to + "\"");
    };
    for (const char* bad : {"", "+24", "024", " 24", "24 ", "24.0", "2_4", "1e1", "0x18", "-24", "0", "1048577",
                            "99999999999999999999", "\xD9\xA3"}) {
        CHECK_REFUSED(changed("tokens_attention", "hidden_size", "24", bad), kInvalidBundle,
                      "spec.hidden_size: expected");
    }
    for (const char* bad : {"", "1e-5x", "+1e-5", "-1e-5", ".5", "1.", "1e", "inf", "nan", "1_0", "0x1p-3", " 0.1",
                            "0.0", "1.5", "1e400", "1e-400", "5e-324"}) {
        CHECK_REFUSED(changed("tokens_attention", "norm_eps", "1e-05", bad), kInvalidBundle, "spec.norm_eps: expected");
    }
    for (const char* good : {"1e-6", "0.00001", "9.5367431640625e-07", "1e-12", "1.0"}) {
        CHECK(changed("tokens_attention", "norm_eps", "1e-05", good).status == Status::kOk);
    }
    CHECK(changed("tokens_attention", "rope_theta", "10000.0", "1e+12").status == Status::kOk);
    CHECK_REFUSED(changed("tokens_attention", "rope_theta", "10000.0", "0"), kInvalidBundle, "spec.rope_theta");
    CHECK_REFUSED(changed("tokens_attention", "answer", "tokens", "token"), kInvalidBundle,
                  "spec.answer: expected one of actions, slots, tokens, got token");
    CHECK_REFUSED(changed("tokens_attention", "num_heads", "3", "5"), kInvalidBundle,
                  "a multiple of 2 * num_heads = 10");
    CHECK_REFUSED(changed("tokens_attention", "num_layers", "2", "65"), kInvalidBundle,
                  "spec.num_layers: expected at most");
    CHECK_REFUSED(changed("tokens_attention", "draft", "required", "optional"), kInvalidBundle, "spec.draft: expected");
    CHECK_REFUSED(changed("tokens_attention", "puzzle_size", "50", "73"), kInvalidBundle,
                  "registers * hidden_size = 72");
    CHECK_REFUSED(changed("tokens_attention", "registers", "3", "0"), kInvalidBundle, "spec.puzzle_size");
    CHECK_REFUSED(changed("tokens_attention", "dof", "0", "1"), kInvalidBundle, "spec.dof: expected 0");
    CHECK_REFUSED(changed("tokens_attention", "max_context", "0", "1"), kInvalidBundle, "spec.max_context: expected 0");
    CHECK_REFUSED(changed("tokens_attention", "answer_rows", "9", "16382"), kInvalidBundle, "<= 16384, got 16385");
    CHECK_REFUSED(changed("tokens_attention", "hidden_size", "24", "1048572"), kInvalidBundle, "at most 17179869184");
    CHECK_REFUSED(changed("tokens_mlp_t", "positions", "none", "rope"), kInvalidBundle, "as mlp_t has no heads");
    CHECK_REFUSED(changed("tokens_mlp_t", "num_heads", "0", "3"), kInvalidBundle, "spec.num_heads: expected 0");
    CHECK_REFUSED(changed("slots_attention", "context_size", "6", "0"), kInvalidBundle, "spec.context_size");
    CHECK_REFUSED(edited("tokens_attention", "\"spec.dof\"", "\"spec.dofs\""), kInvalidBundle, "unknown field(s) dofs");
    CHECK_REFUSED(edited("tokens_attention", "\"spec.dof\"", "\"provenance.d\""), kInvalidBundle, "lacks field(s) dof");
}

TEST_CASE("bundle: a small file cannot ask for a huge session") {
    const trm::Header header = trm::parse_header(split_bundle(load("slots_attention")).header);
    std::map<std::string, std::string> metadata = header.metadata;
    metadata["spec.max_candidates"] = "1048576";  // in no tensor's shape
    CHECK(trm::parse_spec(metadata).max_candidates == 1 << 20);
    metadata["spec.answer_rows"] = "1000";
    CHECK_THROWS_WITH_AS(trm::parse_spec(metadata), doctest::Contains("sizes of a call that fit into 536870912 floats"),
                         trm::Error);
}

TEST_CASE("bundle: values that no model has") {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const std::string name = "actions_attention";
    CHECK(poked(name, "y_init", 1e30f).status == Status::kOk);
    CHECK_REFUSED(poked(name, "y_init", nan), kInvalidBundle, "tensor y_init: expected finite values");
    CHECK_REFUSED(poked(name, "normalization.y0.std", inf), kInvalidBundle, "normalization.y0.std: expected finite");
    CHECK_REFUSED(poked(name, "normalization.y0.std", 0), kInvalidBundle,
                  "normalization.y0.std: expected every value > 0");
    CHECK_REFUSED(poked(name, "normalization.x.std", -1), kInvalidBundle,
                  "normalization.x.std: expected every value > 0");
    CHECK(poked(name, "normalization.x.mean", -1).status == Status::kOk);
    CHECK_REFUSED(poked(name, "limits.velocity", 0), kInvalidBundle,
                  "tensor limits.velocity: expected every value > 0");
    CHECK_REFUSED(poked(name, "limits.velocity", nan), kInvalidBundle, "tensor limits.velocity: expected no NaN");
    CHECK_REFUSED(poked(name, "limits.lower", 99), kInvalidBundle, "tensor limits.lower: expected lower <= upper");
    CHECK_REFUSED(poked(name, "limits.lower", inf), kInvalidBundle, "tensor limits.lower: ");
    CHECK_REFUSED(poked(name, "limits.upper", -inf), kInvalidBundle, "tensor limits.");
    const char* const both[] = {"limits.lower", "limits.upper"};
    CHECK_REFUSED(poked(name, both, inf), kInvalidBundle, "tensor limits.lower: inf leaves no room to move");
    CHECK_REFUSED(poked(name, both, -inf), kInvalidBundle, "tensor limits.upper: -inf leaves no room to move");
    CHECK(poked(name, "limits.lower", -inf).status == Status::kOk);
    CHECK(poked(name, "limits.upper", inf).status == Status::kOk);
    CHECK(poked(name, "limits.velocity", inf).status == Status::kOk);
}

TEST_CASE("bundle: golden cases that do not add up") {
    const std::string name = "slots_attention", cases = "\"golden.cases\":\"";
    for (const char* bad : {"1", "3", "02", "", "-1", "2.0", "100000", "two"}) {
        CHECK_REFUSED(edited(name, cases + "2\"", cases + bad + "\""), kInvalidBundle, "golden");
    }
    for (const char* bad : {"golden.01.in.x", "golden.2.in.x", "golden.1.of.x", "golden.1.in.", "golden.1.in",
                            "golden.1", "golden.", "golden..in.x", "golden.99999999999999999999.in.x"}) {
        CHECK_REFUSED(edited(name, "golden.1.in.x", bad), kInvalidBundle, std::string("tensor ") + bad);
    }
    CHECK_REFUSED(edited(name, "golden.1.out.fp32_error", "golden.1.out.fp32"), kInvalidBundle, "do not say the same");
    BundleParts parts = split_bundle(load(name));
    parts.content[trm::parse_header(parts.header).tensors.at("golden.0.in.mask").offsets[0]] = 2;
    CHECK_REFUSED(outcome(join_bundle(sealed(parts))), kInvalidBundle, "golden.0.in.mask: a boolean that is neither");
}

TEST_CASE("bundle: files that cannot be read") {
    CHECK_REFUSED(file_outcome("no/such/file.trm"), kIoError, "no/such/file.trm: cannot be read: No such file");
    CHECK_REFUSED(file_outcome(TRM_GOLDEN_BUNDLES), kIoError, "Is a directory");
    CHECK_REFUSED(file_outcome("/dev/null"), kIoError, "not a regular file");
#ifdef __linux__  // a file that has more bytes than it says
    CHECK_REFUSED(file_outcome("/proc/version"), kIoError, "its size changed while it was read");
#endif
    char folder[] = "/tmp/trm_edge_XXXXXX";
    REQUIRE(mkdtemp(folder) != nullptr);
    const std::string pipe = std::string(folder) + "/pipe", empty = std::string(folder) + "/empty";
    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    CHECK_REFUSED(file_outcome(pipe), kIoError, "not a regular file");  // and does not wait for a writer
    std::ofstream(empty).close();
    CHECK_REFUSED(file_outcome(empty), kInvalidBundle, "empty: truncated");
    std::remove(pipe.c_str());
    std::remove(empty.c_str());
    ::rmdir(folder);
}
