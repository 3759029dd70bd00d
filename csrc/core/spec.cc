#include "core/spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <locale>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/status.h"

namespace trm {
namespace {

constexpr int kMaxSize = 1 << 20;                 // of any single spec field
constexpr int kMaxRows = 1 << 14;                 // of L
constexpr int kMaxLayers = 64;                    // of num_layers
constexpr int kMaxBlocks = 4096;                  // evaluations of a block in one step
constexpr double kMaxWork = int64_t{1} << 38;     // of one step, see step_work
constexpr int kMaxCycles = 256;                   // of l_cycles and of h_cycles
constexpr int64_t kMaxTensor = int64_t{1} << 34;  // elements of one tensor
constexpr int64_t kMaxCall = int64_t{1} << 29;    // floats that a session holds for its calls

using Metadata = std::map<std::string, std::string>;

struct SizeField {
    const char* name;
    int Spec::* field;
};
constexpr SizeField kSizes[] = {
    {"hidden_size", &Spec::hidden_size},
    {"inner_size", &Spec::inner_size},
    {"l_cycles", &Spec::l_cycles},
    {"h_cycles", &Spec::h_cycles},
    {"registers", &Spec::registers},
    {"answer_rows", &Spec::answer_rows},
    {"num_layers", &Spec::num_layers},
    {"num_heads", &Spec::num_heads},
    {"token_inner_size", &Spec::token_inner_size},
    {"max_context", &Spec::max_context},
    {"context_size", &Spec::context_size},
    {"dof", &Spec::dof},
    {"feature_size", &Spec::feature_size},
    {"slot_size", &Spec::slot_size},
    {"candidate_size", &Spec::candidate_size},
    {"max_candidates", &Spec::max_candidates},
    {"vocab_size", &Spec::vocab_size},
    {"num_puzzles", &Spec::num_puzzles},
    {"puzzle_size", &Spec::puzzle_size},
};
constexpr const char* kOthers[] = {"answer", "mixer", "positions", "draft", "rope_theta", "norm_eps"};

void require(bool ok, const std::string& name, const std::string& expected, const std::string& given) {
    if (!ok) {
        throw Error(Status::kInvalidBundle, "spec." + name + ": expected " + expected + ", got " + shown(given));
    }
}

void require(bool ok, const std::string& name, const std::string& expected, int64_t given) {
    if (!ok) require(false, name, expected, std::to_string(given));
}

void require_positive(const char* name, int value) { require(value > 0, name, "> 0 for this answer and mixer", value); }

void require_unused(const char* name, int value, const std::string& because) {
    require(value == 0, name, "0, as " + because, value);
}

const std::string& text_of(const Metadata& metadata, const std::string& name) {
    const auto found = metadata.find("spec." + name);
    if (found == metadata.end()) throw Error(Status::kInvalidBundle, "spec lacks field(s) " + name);
    return found->second;
}

// A plain decimal integer: one spelling a number, no signs, spaces or leading zeros.
int parse_size(const std::string& name, const std::string& text) {
    int value = -1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    const bool plain = error == std::errc() && stop == end && std::to_string(value) == text;
    require(plain && 0 <= value && value <= kMaxSize, name, "an integer in 0.." + std::to_string(kMaxSize), text);
    return value;
}

// Digits, then optionally a fraction, then optionally an exponent, as Python's repr(float) writes a positive number.
bool is_plain_float(std::string_view text) {
    const auto digits = [&] {
        const size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
        text.remove_prefix(count);
        return count > 0;
    };
    const auto skip = [&](char c) {
        const bool there = !text.empty() && text.front() == c;
        text.remove_prefix(there ? 1 : 0);
        return there;
    };
    if (!digits() || (skip('.') && !digits())) return false;
    if (skip('e')) {
        if (!skip('+')) skip('-');
        if (!digits()) return false;
    }
    return text.empty();
}

double parse_float(const std::string& name, const std::string& text) {
    double value = 0;
    std::istringstream stream(text);  // std::from_chars reads no floats before GCC 11
    stream.imbue(std::locale::classic());
    const bool ok = is_plain_float(text) && stream >> value && std::isfinite(value);
    require(ok, name, "a plain decimal number", text);
    return value;
}

// The index of the spec's text for `name` among the enum's spellings, in the enum's order.
template <class Enum, size_t N>
Enum parse_choice(const Metadata& metadata, const char* name, const char* const (&spellings)[N]) {
    const std::string& text = text_of(metadata, name);
    std::string all;
    for (size_t i = 0; i < N; ++i) {
        if (text == spellings[i]) return static_cast<Enum>(i);
        all += std::string(i ? ", " : "") + spellings[i];
    }
    require(false, name, "one of " + all, text);
    return Enum{};
}

void refuse_unknown(const Metadata& metadata) {
    std::set<std::string_view> known(std::begin(kOthers), std::end(kOthers));
    for (const SizeField& size : kSizes) known.insert(size.name);
    constexpr std::string_view kPrefix = "spec.";
    for (const auto& [key, text] : metadata) {
        const std::string_view name(key);
        if (name.substr(0, kPrefix.size()) == kPrefix && known.count(name.substr(kPrefix.size())) == 0) {
            throw Error(Status::kInvalidBundle, "spec has unknown field(s) " + shown(name.substr(kPrefix.size())));
        }
    }
}

void check_mixer(const Spec& spec) {
    if (spec.mixer == Mixer::kAttention) {
        require_positive("num_heads", spec.num_heads);
        const int step = 2 * spec.num_heads;
        require(spec.hidden_size % step == 0, "hidden_size",
                "a multiple of 2 * num_heads = " + std::to_string(step) + ", so that the head size is even",
                spec.hidden_size);
        require_unused("token_inner_size", spec.token_inner_size, "mixer is attention");
    } else {
        require_positive("token_inner_size", spec.token_inner_size);
        require_unused("num_heads", spec.num_heads, "mixer is mlp_t");
        require(spec.positions != Positions::kRope, "positions", "learned or none, as mlp_t has no heads", "rope");
        require(spec.answer != Answer::kSlots, "mixer", "attention, as mlp_t fixes the number of slots", "mlp_t");
    }
}

void check_tokens(const Spec& spec) {
    require_unused("max_context", spec.max_context, "answer is tokens");
    const int64_t width = int64_t{spec.registers} * spec.hidden_size;
    require((spec.puzzle_size > 0) == (spec.registers > 0) && spec.puzzle_size <= width, "puzzle_size",
            "at most registers * hidden_size = " + std::to_string(width) + ", and 0 only without registers",
            spec.puzzle_size);
}

void check_answer(const Spec& spec) {
    struct Own {
        Answer kind;
        const char* name;
        int value;
    };
    const Own own[] = {{Answer::kActions, "dof", spec.dof},
                       {Answer::kSlots, "slot_size", spec.slot_size},
                       {Answer::kSlots, "candidate_size", spec.candidate_size},
                       {Answer::kSlots, "max_candidates", spec.max_candidates},
                       {Answer::kTokens, "vocab_size", spec.vocab_size},
                       {Answer::kTokens, "num_puzzles", spec.num_puzzles}};
    for (const Own& field : own) {
        if (field.kind == spec.answer) {
            require_positive(field.name, field.value);
        } else {
            require_unused(field.name, field.value, "the answer is of another kind");
        }
    }
    if (spec.answer != Answer::kActions) {
        require_unused("feature_size", spec.feature_size, "answer is not actions");
        require(spec.draft == Draft::kRequired, "draft", "required unless answer is actions", "optional");
    }
    if (spec.answer == Answer::kTokens) {
        check_tokens(spec);
    } else {
        require_unused("puzzle_size", spec.puzzle_size, "answer is not tokens");
        require_positive("registers", spec.registers);
    }
    require((spec.context_size > 0) == (spec.max_context > 0), "context_size", "positive exactly where max_context is",
            spec.context_size);
}

// Floats of a call at the maxima: the rows inside `net`, and the arrays that come in and go out.
int64_t call_floats(const Spec& spec) {
    const int64_t D = spec.hidden_size;
    const int64_t row = 8 * D + spec.inner_size;
    const int64_t answer =
        D + 2 * spec.dof + spec.feature_size + spec.slot_size + std::max(spec.max_candidates, spec.vocab_size);
    return spec.max_rows() * row + int64_t{spec.max_context} * spec.context_size + spec.answer_rows * answer +
           spec.max_candidates * (2 * D + spec.candidate_size);
}

// About the products of one step's blocks: of every row with every other, and with the matrices. A narrow row costs as
// much as one of 32. A double, as the sizes of a hostile spec do not fit an integer; exact wherever it is allowed.
double step_work(const Spec& spec, double blocks) {
    const double rows = spec.max_rows();
    const double row = rows + spec.hidden_size + spec.inner_size + spec.token_inner_size;
    return blocks * rows * row * std::max(spec.hidden_size, 32);
}

void check_spec(const Spec& spec) {
    require_positive("hidden_size", spec.hidden_size);
    require_positive("inner_size", spec.inner_size);
    require_positive("l_cycles", spec.l_cycles);
    require_positive("h_cycles", spec.h_cycles);
    require_positive("answer_rows", spec.answer_rows);
    require_positive("num_layers", spec.num_layers);
    require(spec.num_layers <= kMaxLayers, "num_layers", "at most " + std::to_string(kMaxLayers), spec.num_layers);
    require(spec.l_cycles <= kMaxCycles, "l_cycles", "at most " + std::to_string(kMaxCycles), spec.l_cycles);
    require(spec.h_cycles <= kMaxCycles, "h_cycles", "at most " + std::to_string(kMaxCycles), spec.h_cycles);
    const int blocks = spec.h_cycles * (spec.l_cycles + 1) * spec.num_layers;  // at most 256 * 257 * 64
    require(blocks <= kMaxBlocks, "h_cycles * (l_cycles + 1) * num_layers", "at most " + std::to_string(kMaxBlocks),
            blocks);
    require(1 <= spec.rope_theta && spec.rope_theta <= 1e12, "rope_theta", "1 to 1e12",
            std::to_string(spec.rope_theta));
    require(1e-12 <= spec.norm_eps && spec.norm_eps <= 1, "norm_eps", "1e-12 to 1", std::to_string(spec.norm_eps));
    check_mixer(spec);
    check_answer(spec);
    require(spec.max_rows() <= kMaxRows, "registers + answer_rows + max_context", "<= " + std::to_string(kMaxRows),
            spec.max_rows());
    for (const TensorShape& tensor : tensor_shapes(spec)) {
        int64_t elements = 1;  // two dimensions of at most 3 * 2^20: no overflow
        for (const int64_t n : tensor.dims) elements *= n;
        require(elements <= kMaxTensor, tensor.name, "at most " + std::to_string(kMaxTensor) + " elements", elements);
    }
    require(call_floats(spec) <= kMaxCall, "max_context, answer_rows, max_candidates",
            "sizes of a call that fit into " + std::to_string(kMaxCall) + " floats", call_floats(spec));
    const double work = step_work(spec, blocks);
    require(work <= kMaxWork, "h_cycles * (l_cycles + 1) * num_layers * L * (L + widths) * hidden_size",
            "at most 2^38 in a step", std::to_string(work / kMaxWork) + " times that");
}

class ShapeList {
  public:
    void add(const std::string& name, std::vector<int64_t> dims) { shapes_.push_back({name, std::move(dims)}); }

    void add_normalization(const std::string& input, int64_t size) {
        add("normalization." + input + ".mean", {size});
        add("normalization." + input + ".std", {size});
    }

    void add_answer(const Spec& spec) {
        const int64_t d = spec.hidden_size;
        if (spec.answer == Answer::kTokens) {
            add("token_embedding", {spec.vocab_size, d});
            add("answer_decoder.weight", {spec.vocab_size, d});
        } else if (spec.answer == Answer::kSlots) {
            add("slot_encoder.weight", {d, spec.slot_size});
            add_normalization("slots", spec.slot_size);
            add("key.weight", {d, spec.candidate_size});
            add("key_none", {d});
            add_normalization("candidates", spec.candidate_size);
            add("query.weight", {d, d});
        } else {
            add("time_embedding", {spec.answer_rows, d});
            if (spec.feature_size > 0) {
                add("features_encoder.weight", {d, spec.feature_size});
                add_normalization("features", spec.feature_size);
            }
            add("answer_encoder.weight", {d, spec.dof});
            add("answer_decoder.weight", {spec.dof, d});
            add_normalization("y0", spec.dof);
            for (const char* name : {"limits.lower", "limits.upper", "limits.velocity"}) add(name, {spec.dof});
        }
    }

    void add_block(const Spec& spec, const std::string& block) {
        const int64_t d = spec.hidden_size;
        if (spec.mixer == Mixer::kAttention) {
            add(block + "attention.qkv.weight", {3 * d, d});
            add(block + "attention.out.weight", {d, d});
        } else {
            add(block + "token_mixer.gate_up.weight", {int64_t{2} * spec.token_inner_size, spec.max_rows()});
            add(block + "token_mixer.down.weight", {spec.max_rows(), spec.token_inner_size});
        }
        add(block + "mlp.gate_up.weight", {int64_t{2} * spec.inner_size, d});
        add(block + "mlp.down.weight", {d, spec.inner_size});
    }

    std::vector<TensorShape> take() { return std::move(shapes_); }

  private:
    std::vector<TensorShape> shapes_;
};

}  // namespace

Spec parse_spec(const Metadata& metadata) {
    Spec spec;
    refuse_unknown(metadata);
    for (const SizeField& size : kSizes) spec.*size.field = parse_size(size.name, text_of(metadata, size.name));
    spec.rope_theta = parse_float("rope_theta", text_of(metadata, "rope_theta"));
    spec.norm_eps = parse_float("norm_eps", text_of(metadata, "norm_eps"));
    spec.answer = parse_choice<Answer>(metadata, "answer", {"actions", "slots", "tokens"});
    spec.mixer = parse_choice<Mixer>(metadata, "mixer", {"attention", "mlp_t"});
    spec.positions = parse_choice<Positions>(metadata, "positions", {"rope", "learned", "none"});
    spec.draft = parse_choice<Draft>(metadata, "draft", {"required", "optional"});
    check_spec(spec);
    return spec;
}

std::vector<TensorShape> tensor_shapes(const Spec& spec) {
    const int64_t d = spec.hidden_size;
    ShapeList list;
    list.add("y_init", {d});
    list.add("z_init", {d});
    if (spec.answer != Answer::kTokens) {
        list.add("registers", {spec.registers, d});
    } else if (spec.registers > 0) {
        list.add("puzzle_embedding", {spec.num_puzzles, spec.puzzle_size});
    }
    if (spec.positions == Positions::kLearned) list.add("position_embedding", {spec.max_rows(), d});
    if (spec.max_context > 0) {
        list.add("context_encoder.weight", {d, spec.context_size});
        list.add_normalization("x", spec.context_size);
    }
    list.add_answer(spec);
    for (int i = 0; i < spec.num_layers; ++i) list.add_block(spec, "blocks." + std::to_string(i) + ".");
    list.add("halt_head.weight", {1, d});
    list.add("halt_head.bias", {1});
    return list.take();
}

}  // namespace trm
