// Attacks the bundle reader. The only outcomes allowed are a valid bundle, whose golden vectors can be run or are
// refused, and an Error with a message.
//
//     fuzz_bundle FILE... [--cases N] [--seed S]
//
// damages each good FILE in N ways, a function of S alone, mostly with a right hash, so that the checks behind the hash
// are reached. Build it with -fsanitize=address,undefined. With -DTRM_LIBFUZZER -fsanitize=fuzzer the same file is a
// libFuzzer target instead; its first byte says whether the hash is made right.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "bundle_edit.h"
#include "core/bundle.h"
#include "core/status.h"
#include "trm_edge/trm_edge.h"

// Small files must not make the reader ask for much memory, whatever sizes they state.
extern "C" const char* __asan_default_options() { return "max_allocation_size_mb=64"; }

namespace {

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "fuzz_bundle: %s\n", why);
    std::abort();
}

// Runs the golden vectors of a bundle that was accepted, where its model is small.
void verify(const trm::Spec& spec, const uint8_t* data, size_t size) {
    if (spec.max_rows() > 64 || spec.max_candidates > 64 || spec.num_puzzles > 64 || spec.vocab_size > 64) return;
    trm_verification found = TRM_VERIFICATION_INIT;
    const trm_status status = trm_verify_memory(data, size, nullptr, &found);
    const bool refused = status == TRM_INVALID_BUNDLE || status == TRM_UNSUPPORTED;
    if (status != TRM_OK && !refused) die(trm_last_message());
    if (found.failed > found.steps || (refused && found.steps != 0)) die("a verification that contradicts itself");
}

// Whether the reader accepts the bytes. Aborts where the outcome is none that it promises.
bool accepts(const uint8_t* data, size_t size) {
    try {
        const trm::Bundle bundle = trm::read_bundle(data, size);
        for (const trm::TensorShape& shape : trm::tensor_shapes(bundle.spec)) {
            size_t elements = 1;
            for (const int64_t n : shape.dims) elements *= static_cast<size_t>(n);
            const auto found = bundle.weights.find(shape.name);
            if (found == bundle.weights.end() || found->second.size() != elements)
                die("a weight is not as the spec says");
        }
        verify(bundle.spec, data, size);
        return true;
    } catch (const trm::Error& error) {
        const bool known =
            error.status() == trm::Status::kInvalidBundle || error.status() == trm::Status::kUnsupportedVersion;
        if (!known || error.what()[0] == '\0') die("an error without its status or message");
        return false;
    }
}

}  // namespace

#ifdef TRM_LIBFUZZER

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 9) {
        accepts(data, size);
        return 0;
    }
    Bytes file(data + 1, data + size);
    uint64_t length = 0;
    if (size >= 9) std::memcpy(&length, file.data(), 8);
    if (data[0] % 2 == 1 && length <= file.size() - 8) file = join_bundle(sealed(split_bundle(file)));
    accepts(file.data(), file.size());
    return 0;
}

#else

namespace {

class Mutator {
  public:
    explicit Mutator(uint64_t seed) : random_(seed) {}

    Bytes damage(const Bytes& good) {
        BundleParts parts = split_bundle(good);
        for (size_t times = 1 + below(3); times > 0; --times) change(parts);
        Bytes file = join_bundle(below(8) == 0 ? parts : sealed(parts));
        if (below(8) == 0) change_file(file);
        return file;
    }

  private:
    // Uniform in [0, n), n > 0. Not std::uniform_int_distribution, whose results differ between libraries.
    size_t below(size_t n) { return static_cast<size_t>(random_() % n); }

    void change(BundleParts& parts) {
        switch (below(9)) {
            case 0:
                return replace_number(parts.header);
            case 1:
                return replace_string(parts.header);
            case 2:
                return swap_strings(parts.header);
            case 3:
                return insert_token(parts.header);
            case 4:
                return copy_piece(parts.header);
            case 5:
                return erase_piece(parts.header);
            case 6:
                return flip_bits(reinterpret_cast<uint8_t*>(parts.header.data()), parts.header.size());
            case 7:
                return change_values(parts.content);
            default:
                return resize(parts.content);
        }
    }

    void change_file(Bytes& file) {
        const size_t kind = below(3);
        if (kind == 0) file.resize(below(file.size() + 1));
        if (kind == 1) flip_bits(file.data(), file.size());
        if (kind == 2 && file.size() >= 8) {
            const uint64_t length = random_() >> below(64);
            std::memcpy(file.data(), &length, 8);
        }
    }

    struct Span {
        size_t at, size;
    };

    // A random maximal run of characters for which `is(c)` holds.
    template <class Test>
    Span run_of(const std::string& text, Test is) {
        size_t first = below(text.size() + 1);
        while (first < text.size() && !is(text[first])) ++first;
        while (first > 0 && first < text.size() && is(text[first - 1])) --first;
        size_t last = first;
        while (last < text.size() && is(text[last])) ++last;
        return {first, last - first};
    }

    void replace_number(std::string& header) {
        static const char* const kNumbers[] = {"0",
                                               "1",
                                               "2",
                                               "24",
                                               "-1",
                                               "-0",
                                               "1e3",
                                               "1.0",
                                               "00",
                                               "NaN",
                                               "65536",
                                               "1048576",
                                               "2147483648",
                                               "4294967296",
                                               "9999999999999999",
                                               "281474976710656",
                                               "18446744073709551616",
                                               "",
                                               "null",
                                               "[]",
                                               "140737488355328"};
        const Span span = run_of(header, [](char c) { return '0' <= c && c <= '9'; });
        std::string number = kNumbers[below(std::size(kNumbers))];
        if (below(3) == 0 && 0 < span.size && span.size < 10) {  // near the truth is where mistakes hide
            number =
                std::to_string(std::stoll(header.substr(span.at, span.size)) + static_cast<long long>(below(9)) - 4);
        }
        header.replace(span.at, span.size, number);
    }

    Span string_of(const std::string& header) {
        return run_of(header, [](char c) { return c != '"'; });
    }

    void replace_string(std::string& header) {
        static const char* const kStrings[] = {
            "",         "F32",         "F64",           "I32",     "BOOL",      "dtype",        "shape",
            "none",     "learned",     "rope",          "mlp_t",   "attention", "tokens",       "slots",
            "actions",  "optional",    "golden.0.in.x", "golden.", "y_init",    "__metadata__", "sha256",
            "spec.dof", "provenance.", "data_offsets",  "\\ud800", "\\u0000",   "1e400",        "\xF0\x9F"};
        const Span span = string_of(header);
        header.replace(span.at, span.size, kStrings[below(std::size(kStrings))]);
    }

    void swap_strings(std::string& header) {
        Span a = string_of(header), b = string_of(header);
        if (a.at > b.at) std::swap(a, b);
        if (a.at + a.size > b.at) return;
        const std::string first = header.substr(a.at, a.size), second = header.substr(b.at, b.size);
        header.replace(b.at, b.size, first);
        header.replace(a.at, a.size, second);
    }

    void insert_token(std::string& header) {
        static const char* const kTokens[] = {"{",
                                              "}",
                                              "[",
                                              "]",
                                              ",",
                                              ":",
                                              "\"",
                                              "\\",
                                              " ",
                                              "\n",
                                              "\t",
                                              "0",
                                              "-",
                                              ".",
                                              "e",
                                              "\"a\":\"b\",",
                                              "\"a\":{},",
                                              "\"a\":[],",
                                              "true",
                                              "\xEF\xBB\xBF",
                                              "\x01",
                                              "[[[[[[[[[[[[[[[[",
                                              "{\"a\":{\"a\":{\"a\":"};
        header.insert(below(header.size() + 1), kTokens[below(std::size(kTokens))]);
    }

    // Entries end with "},", so that copying between two of them doubles or erases whole entries half of the time.
    Span piece_of(const std::string& header) {
        const size_t from = below(header.size() + 1);
        if (below(2) == 0) return {from, below(std::min<size_t>(64, header.size() - from + 1))};
        const size_t first = header.find("},", from);
        const size_t last = first == std::string::npos ? first : header.find("},", first + 2);
        return last == std::string::npos ? Span{from, 0} : Span{first + 2, last - first};
    }

    void copy_piece(std::string& header) {
        const Span span = piece_of(header);
        header.insert(span.at, header.substr(span.at, span.size));
    }

    void erase_piece(std::string& header) {
        const Span span = piece_of(header);
        header.erase(span.at, span.size);
    }

    void flip_bits(uint8_t* data, size_t size) {
        for (size_t flips = 1 + below(4); flips > 0 && size > 0; --flips) {
            data[below(size)] ^= static_cast<uint8_t>(1 << below(8));
        }
    }

    void change_values(Bytes& content) {
        static const uint32_t kFloats[] = {0x7FC00000, 0x7F800000, 0xFF800000, 0x00000000,
                                           0x80000000, 0x00000001, 0xBF800000};
        if (content.size() < 4) return;
        const uint32_t value = kFloats[below(std::size(kFloats))];
        std::memcpy(content.data() + below(content.size() / 4) * 4, &value, 4);
    }

    void resize(Bytes& content) {
        const size_t change = below(2) == 0 ? 1 + below(16) : below(content.size() + 1);
        content.resize(below(2) == 0 ? content.size() + change : content.size() - std::min(change, content.size()));
    }

    std::mt19937_64 random_;
};

int attack(const char* path, size_t cases, uint64_t seed) {
    const Bytes good = read_bytes(path);
    if (!accepts(good.data(), good.size())) {
        std::fprintf(stderr, "%s: not a good bundle to begin with\n", path);
        return 1;
    }
    Mutator mutator(seed);
    size_t accepted = 0;
    for (size_t i = 0; i < cases; ++i) {
        const Bytes bad = mutator.damage(good);
        accepted += accepts(bad.data(), bad.size());
    }
    std::printf("%s: %zu cases, %zu of them still valid\n", path, cases, accepted);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    size_t cases = 10000;
    uint64_t seed = 1;
    std::vector<const char*> paths;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--cases" && i + 1 < argc) {
            cases = std::strtoull(argv[++i], nullptr, 10);
        } else if (word == "--seed" && i + 1 < argc) {
            seed = std::strtoull(argv[++i], nullptr, 10);
        } else {
            paths.push_back(argv[i]);
        }
    }
    if (paths.empty()) {
        std::fprintf(stderr, "usage: fuzz_bundle FILE... [--cases N] [--seed S]\n");
        return 2;
    }
    int code = 0;
    for (const char* path : paths) code |= attack(path, cases, seed);
    return code;
}

#endif  // TRM_LIBFUZZER
