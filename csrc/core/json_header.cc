#include "core/json_header.h"

#include <utility>

#include "core/status.h"

namespace trm {
namespace {

constexpr size_t kMaxNumbers = 8;  // of one array; a shape has at most 4, offsets are 2
constexpr size_t kMaxDigits = 15;  // every 15-digit number fits into 64 bits

// Length of the well-formed UTF-8 sequence at the start of `s` (RFC 3629), 0 if there is none.
size_t utf8_length(std::string_view s) {
    const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
    const auto tail = [&](size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
        return low <= byte(i) && byte(i) <= high;
    };
    const unsigned lead = byte(0);
    if (lead < 0x80) return 1;
    if (0xC2 <= lead && lead <= 0xDF) return tail(1) ? 2 : 0;
    if (0xE0 <= lead && lead <= 0xEF) {  // E0: no overlong forms, ED: no surrogates
        return tail(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && tail(2) ? 3 : 0;
    }
    if (0xF0 <= lead && lead <= 0xF4) {  // F0: no overlong forms, F4: nothing above U+10FFFF
        return tail(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && tail(2) && tail(3) ? 4 : 0;
    }
    return 0;
}

void append_utf8(std::string& out, uint32_t code) {
    const auto put = [&](uint32_t value) { out += static_cast<char>(value); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    } else {
        put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F));
        put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    }
}

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Header parse() {
        check_utf8();
        Header header;
        if (peek() != '{') fail("expected a JSON object");
        object([&](std::string name) {
            if (name == "__metadata__") {
                if (has_metadata_) fail("a key stands twice");
                has_metadata_ = true;
                metadata(header);
            } else if (const auto [at, added] = header.tensors.try_emplace(std::move(name)); added) {
                tensor(at->first, at->second);
            } else {
                fail("a key stands twice");
            }
        });
        while (at_ < text_.size()) {
            if (text_[at_] != ' ') fail("expected nothing but spaces after the object");
            ++at_;
        }
        return header;
    }

  private:
    [[noreturn]] void fail(const std::string& why) const {
        throw Error(Status::kInvalidBundle, "damaged header: " + why + ", at byte " + std::to_string(at_));
    }

    void check_utf8() {
        while (at_ < text_.size()) {
            const size_t length = utf8_length(text_.substr(at_));
            if (length == 0) fail("not UTF-8");
            at_ += length;
        }
        at_ = 0;
    }

    // The next byte, or 0 at the end: no rule of the grammar accepts a 0.
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at_;
    }

    bool accept(char c) {
        skip_space();
        if (peek() != c) return false;
        ++at_;
        return true;
    }

    void expect(char c) {
        if (!accept(c)) fail(std::string("expected '") + c + "'");
    }

    // Reads `{ key : <member(key) reads the value> , ... }`.
    template <class Member>
    void object(Member member) {
        expect('{');
        if (accept('}')) return;
        do {
            skip_space();
            std::string key = string();
            expect(':');
            skip_space();
            member(std::move(key));
        } while (accept(','));
        expect('}');
    }

    void metadata(Header& header) {
        object([&](std::string key) {
            const size_t value_at = at_ + 1;
            if (key == "sha256") header.sha256_at = value_at;
            if (peek() != '"') fail("metadata " + shown(key) + " is not a string");
            std::string value = string();
            if (!header.metadata.emplace(std::move(key), std::move(value)).second) fail("a key stands twice");
        });
    }

    void tensor(const std::string& name, TensorEntry& entry) {
        bool dtype = false, shape = false, offsets = false;
        object([&](const std::string& key) {
            if (key == "dtype" && !dtype) {
                dtype = true;
                entry.dtype = string();
            } else if (key == "shape" && !shape) {
                shape = true;
                entry.shape = sizes();
            } else if (key == "data_offsets" && !offsets) {
                offsets = true;
                entry.offsets = sizes();
            } else {
                fail("tensor " + shown(name) + ": key " + shown(key) + " is unknown or stands twice");
            }
        });
        if (!(dtype && shape && offsets)) {
            fail("tensor " + shown(name) + ": expected exactly dtype, shape and data_offsets");
        }
    }

    std::vector<uint64_t> sizes() {
        std::vector<uint64_t> numbers;
        expect('[');
        if (accept(']')) return numbers;
        do {
            if (numbers.size() == kMaxNumbers) fail("a list of sizes is too long");
            skip_space();
            numbers.push_back(size());
        } while (accept(','));
        expect(']');
        return numbers;
    }

    // A non-negative integer without sign, leading zeros, fraction or exponent.
    uint64_t size() {
        const size_t first = at_;
        uint64_t value = 0;
        while ('0' <= peek() && peek() <= '9') {
            if (at_ - first == kMaxDigits) fail("a size is too large");
            value = 10 * value + static_cast<uint64_t>(peek() - '0');
            ++at_;
        }
        if (at_ == first || (text_[first] == '0' && at_ - first > 1)) fail("expected a size, a plain integer");
        return value;
    }

    std::string string() {
        if (peek() != '"') fail("expected a string");
        ++at_;
        std::string value;
        while (peek() != '"') {
            if (static_cast<unsigned char>(peek()) < 0x20) fail("a string with a control character, or without an end");
            if (peek() == '\\') {
                escape(value);
            } else {
                value += text_[at_++];
            }
        }
        ++at_;
        return value;
    }

    void escape(std::string& value) {
        constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
        ++at_;
        const char letter = peek();
        if (letter == 'u') {
            append_utf8(value, code_point());
        } else if (const size_t i = kLetters.find(letter); i != std::string_view::npos) {
            value += kMeanings[i];
            ++at_;
        } else {
            fail("a string with an unknown escape");
        }
    }

    // Reads the rest of `\uXXXX`, or of a surrogate pair `\uXXXX\uXXXX`.
    uint32_t code_point() {
        const uint32_t first = hex4();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (first > 0xDBFF || text_.substr(at_, 2) != "\\u") fail("a lone surrogate");
        ++at_;
        const uint32_t second = hex4();
        if (second < 0xDC00 || second > 0xDFFF) fail("a lone surrogate");
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }

    uint32_t hex4() {
        ++at_;  // the 'u'
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = peek();
            if ('0' <= c && c <= '9') {
                value = value << 4 | static_cast<uint32_t>(c - '0');
            } else if (('a' <= c && c <= 'f') || ('A' <= c && c <= 'F')) {
                value = value << 4 | static_cast<uint32_t>((c | 0x20) - 'a' + 10);
            } else {
                fail("\\u needs four hexadecimal digits");
            }
        }
        return value;
    }

    std::string_view text_;
    size_t at_ = 0;
    bool has_metadata_ = false;
};

}  // namespace

Header parse_header(std::string_view text) { return Parser(text).parse(); }

}  // namespace trm
