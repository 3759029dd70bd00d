// The kernels of every instruction set against a plain double-precision reference, over odd shapes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/team.h"
#include "cpu/dispatch.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

namespace {

using trm::BlockWeights;
using trm::Kernels;
using trm::NetShape;
using trm::Precision;
using trm::Word;

constexpr double TOLERANCE = 1e-5;  // relative to the largest output; typical is 3e-7
constexpr float THETA = 10000.0f;
constexpr float GUARD = 1.25e9f;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// A 64-byte aligned buffer between two guard regions, which show stray writes and, under AddressSanitizer, stray reads.
// Its content starts as NaN, so that reading what nobody wrote shows in the result.
class Guarded {
  public:
    explicit Guarded(size_t floats) : floats_(floats), room_(floats + 3 * PAD, GUARD) {
        void* at = room_.data() + PAD;
        size_t space = (floats + 2 * PAD) * sizeof(float);
        data_ = static_cast<float*>(std::align(64, floats * sizeof(float), at, space));
        std::fill(data_, data_ + floats, std::numeric_limits<float>::quiet_NaN());
        ASAN_POISON_MEMORY_REGION(room_.data(), bytes(room_.data(), data_));
        ASAN_POISON_MEMORY_REGION(data_ + floats, bytes(data_ + floats, room_.data() + room_.size()));
    }
    ~Guarded() { ASAN_UNPOISON_MEMORY_REGION(room_.data(), bytes(room_.data(), room_.data() + room_.size())); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    float* data() { return data_; }
    Word* words() { return reinterpret_cast<Word*>(data_); }
    bool intact() const {
        ASAN_UNPOISON_MEMORY_REGION(room_.data(), bytes(room_.data(), room_.data() + room_.size()));
        const auto is_guard = [](float v) { return v == GUARD; };
        return std::all_of(room_.data(), static_cast<const float*>(data_), is_guard) &&
               std::all_of(static_cast<const float*>(data_) + floats_, room_.data() + room_.size(), is_guard);
    }

  private:
    static constexpr size_t PAD = 64;
    static size_t bytes(const float* from, const float* to) { return (to - from) * sizeof(float); }

    size_t floats_;
    Floats room_;
    float* data_;
};

Floats normal(std::mt19937& rng, size_t n, double scale) {
    std::normal_distribution<float> gaussian(0.0f, static_cast<float>(scale));
    Floats v(n);
    for (float& x : v) x = gaussian(rng);
    return v;
}

// -------------------------------------------------------------------------------------------------- the reference

// out[rows, n] = in[rows, k] w[n, k]^T
Doubles linear_reference(const Doubles& in, int rows, int k, const float* w, int n) {
    Doubles out(static_cast<size_t>(rows) * n);
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < n; ++c)
            for (int i = 0; i < k; ++i) out[size_t(r) * n + c] += in[size_t(r) * k + i] * w[size_t(c) * k + i];
    return out;
}

// Rows of n values as a product of that precision sees them.
void round_rows(Precision precision, double* values, size_t count, int n) {
    for (size_t row = 0; row < count; row += n) {
        double most = 0;
        for (int i = 0; i < n; ++i) most = std::max(most, std::fabs(values[row + i]));
        for (int i = 0; i < n; ++i) {
            double& v = values[row + i];
            if (precision == Precision::kInt8 && most > 0) v = std::nearbyint(v / (most / 127)) * (most / 127);
            if (precision == Precision::kBf16 && v != 0) {
                const int exponent = std::ilogb(v) - 7;  // 8 significant bits
                v = std::scalbn(std::nearbyint(std::scalbn(v, -exponent)), exponent);
            }
        }
    }
}

// The same with both operands rounded.
Doubles linear_reference(Precision precision, Doubles in, int rows, int k, const float* w, int n) {
    Doubles weights(w, w + static_cast<size_t>(n) * k), out(static_cast<size_t>(rows) * n);
    round_rows(precision, in.data(), in.size(), k);
    round_rows(precision, weights.data(), weights.size(), k);
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < n; ++c)
            for (int i = 0; i < k; ++i) out[size_t(r) * n + c] += in[size_t(r) * k + i] * weights[size_t(c) * k + i];
    return out;
}

// rms(x + branch) along rows of length n.
void residual_norm(Doubles& x, const Doubles& branch, int n, double eps) {
    for (size_t row = 0; row < x.size(); row += n) {
        double squares = 0;
        for (int i = 0; i < n; ++i) {
            x[row + i] += branch[row + i];
            squares += x[row + i] * x[row + i];
        }
        const double scale = 1 / std::sqrt(squares / n + eps);
        for (int i = 0; i < n; ++i) x[row + i] *= scale;
    }
}

Doubles swiglu_reference(Precision precision, const Doubles& x, int rows, int width, int inner, const float* gate_up,
                         const float* down) {
    const Doubles both = linear_reference(precision, x, rows, width, gate_up, 2 * inner);
    Doubles mid(static_cast<size_t>(rows) * inner);
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < inner; ++i) {
            const double gate = both[size_t(r) * 2 * inner + i], up = both[size_t(r) * 2 * inner + inner + i];
            mid[size_t(r) * inner + i] = gate / (1 + std::exp(-gate)) * up;
        }
    return linear_reference(precision, mid, rows, inner, down, width);
}

void rope_reference(double* head, int hd, int position) {
    for (int i = 0; i < hd / 2; ++i) {
        const double angle = position * std::pow(double(THETA), -2.0 * i / hd);
        const double first = head[i], second = head[i + hd / 2];
        head[i] = first * std::cos(angle) - second * std::sin(angle);
        head[i + hd / 2] = second * std::cos(angle) + first * std::sin(angle);
    }
}

Doubles attention_reference(Precision precision, const NetShape& s, const BlockWeights& w, const Doubles& x, int rows,
                            const std::vector<int32_t>& position) {
    const int D = s.hidden_size, hd = D / s.num_heads;
    Doubles qkv = linear_reference(precision, x, rows, D, w.qkv, 3 * D);
    Doubles mixed(static_cast<size_t>(rows) * D), weight(rows);
    const auto row = [&](int part, int r, int head) { return qkv.data() + size_t(r) * 3 * D + part * D + head * hd; };
    for (int head = 0; head < s.num_heads; ++head) {
        for (int r = 0; s.rope && r < rows; ++r)
            for (int part = 0; part < 2; ++part) rope_reference(row(part, r, head), hd, position[r]);
        for (int query = 0; query < rows; ++query) {
            double most = -1e300, sum = 0;
            for (int key = 0; key < rows; ++key) {
                weight[key] = 0;
                for (int i = 0; i < hd; ++i) weight[key] += row(0, query, head)[i] * row(1, key, head)[i];
                weight[key] /= std::sqrt(double(hd));
                most = std::max(most, weight[key]);
            }
            for (double& v : weight) sum += v = std::exp(v - most);
            for (int key = 0; key < rows; ++key)
                for (int i = 0; i < hd; ++i)
                    mixed[size_t(query) * D + head * hd + i] += weight[key] / sum * row(2, key, head)[i];
        }
    }
    return linear_reference(precision, mixed, rows, D, w.out, D);
}

Doubles transposed(const Doubles& x, int rows, int columns) {
    Doubles out(x.size());
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) out[size_t(c) * rows + r] = x[size_t(r) * columns + c];
    return out;
}

Doubles net_reference(const NetShape& s, const std::vector<BlockWeights>& blocks, const Floats& h, int rows,
                      const std::vector<int32_t>& position) {
    const int D = s.hidden_size;
    const Precision precision = s.precision[0].of[0];
    Doubles x(h.begin(), h.end());
    for (const BlockWeights& w : blocks) {
        if (s.token_mixing) {
            Doubles t = transposed(x, rows, D);
            residual_norm(t, swiglu_reference(precision, t, D, rows, s.token_inner_size, w.token_gate_up, w.token_down),
                          rows, s.norm_eps);
            x = transposed(t, D, rows);
        } else {
            residual_norm(x, attention_reference(precision, s, w, x, rows, position), D, s.norm_eps);
        }
        residual_norm(x, swiglu_reference(precision, x, rows, D, s.inner_size, w.gate_up, w.down), D, s.norm_eps);
    }
    return x;
}

double relative_error(const float* got, const Doubles& want) {
    double difference = 0, largest = 1e-30;
    for (size_t i = 0; i < want.size(); ++i) {
        if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
        difference = std::max(difference, std::fabs(got[i] - want[i]));
        largest = std::max(largest, std::fabs(want[i]));
    }
    return difference / largest;
}

// ------------------------------------------------------------------------------------------------- running a net

// A net with random weights (residual branches small, as trained ones are) and everything that running it takes.
struct Net {
    NetShape shape;
    std::vector<trm::BlockPrecision> precision;
    std::vector<Floats> storage;
    std::vector<BlockWeights> blocks;

    Net(const NetShape& s, std::mt19937& rng, Precision p = Precision::kFp32)
        : shape(s), precision(static_cast<size_t>(s.num_layers), trm::BlockPrecision{{p, p, p, p}}) {
        shape.precision = precision.data();
        const int D = s.hidden_size, I = s.inner_size, L = s.token_rows, It = s.token_inner_size;
        for (int i = 0; i < s.num_layers; ++i) {
            BlockWeights w = {};
            if (s.token_mixing) {
                w.token_gate_up = matrix(rng, 2 * It, L, 1);
                w.token_down = matrix(rng, L, It, 0.3);
            } else {
                w.qkv = matrix(rng, 3 * D, D, 1);
                w.out = matrix(rng, D, D, 0.3);
            }
            w.gate_up = matrix(rng, 2 * I, D, 1);
            w.down = matrix(rng, D, I, 0.3);
            blocks.push_back(w);
        }
    }

    const float* matrix(std::mt19937& rng, int out, int in, double scale) {
        storage.push_back(normal(rng, static_cast<size_t>(out) * in, scale / std::sqrt(in)));
        return storage.back().data();  // moving a vector does not move its floats
    }

    Net(const Net&) = delete;
    Net& operator=(const Net&) = delete;

    // h = net(h); `max_rows` sizes the scratch buffer.
    void run(const Kernels& kernels, Floats& h, int rows, int max_rows, const std::vector<int32_t>& position,
             int threads = 1) const {
        const int positions = *std::max_element(position.begin(), position.end()) + 1;
        Guarded packed(kernels.net_words(shape)), table(kernels.rope_floats(shape, positions));
        Guarded scratch(kernels.scratch_floats(shape, max_rows, threads)), state(h.size());
        kernels.pack_net(shape, blocks.data(), packed.words());
        kernels.pack_rope(shape, positions, THETA, table.data());
        std::copy(h.begin(), h.end(), state.data());
        trm::Team team(threads, trm::Team::kNeverPark, false);
        struct Work {
            const Kernels& kernels;
            const NetShape& shape;
            trm::NetCall call;
        } work{kernels,
               shape,
               {packed.words(), table.data(), position.data(), rows, nullptr, state.data(), scratch.data(),
                team.barrier(), 0, threads}};
        team.run(
            [](void* context, int thread) {
                const Work& shared = *static_cast<const Work*>(context);
                trm::NetCall own = shared.call;
                own.thread = thread;
                shared.kernels.net(shared.shape, own);
            },
            &work);
        std::copy(state.data(), state.data() + h.size(), h.begin());
        CHECK(packed.intact());
        CHECK(table.intact());
        CHECK(scratch.intact());
        CHECK(state.intact());
    }
};

// Not 0, 1, 2, ...: context rows keep their positions when the answer is short.
std::vector<int32_t> gapped_positions(int rows) {
    std::vector<int32_t> position(rows);
    for (int r = 0; r < rows; ++r) position[r] = r < rows / 2 ? r : r + 5;
    return position;
}

NetShape attention_shape(int D, int H, int I, int layers, bool rope) {
    return NetShape{D, H, I, layers, false, 0, 0, rope, 1e-5f, nullptr};
}

NetShape mixing_shape(int D, int I, int layers, int It, int L) {
    return NetShape{D, D % 3 ? 1 : 3, I, layers, true, It, L, false, 1e-5f, nullptr};
}

// A value that float32 rounds to another byte or bfloat16 than float64 does moves the result.
double tolerance_of(Precision precision) {
    return precision == Precision::kInt8 ? 8e-3 : precision == Precision::kBf16 ? 3e-3 : TOLERANCE;
}

void check_net(const Kernels& kernels, const NetShape& shape, int rows, std::mt19937& rng,
               Precision precision = Precision::kFp32, int threads = 1) {
    CAPTURE(shape.hidden_size);
    CAPTURE(shape.num_heads);
    CAPTURE(shape.inner_size);
    CAPTURE(shape.token_inner_size);
    CAPTURE(shape.rope);
    CAPTURE(rows);
    CAPTURE(int(precision));
    CAPTURE(threads);
    const Net net(shape, rng, precision);
    const std::vector<int32_t> position = gapped_positions(rows);
    Floats h = normal(rng, static_cast<size_t>(rows) * shape.hidden_size, 1);
    const Doubles want = net_reference(net.shape, net.blocks, h, rows, position);
    std::feclearexcept(FE_ALL_EXCEPT);
    net.run(kernels, h, rows, rows + static_cast<int>(rng() % 4), position, threads);
    CHECK(std::fetestexcept(FE_INVALID | FE_OVERFLOW | FE_DIVBYZERO) == 0);
    CHECK(relative_error(h.data(), want) <= tolerance_of(precision));
}

void check_linear(const Kernels& kernels, int n, int k, int rows, std::mt19937& rng) {
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(rows);
    const Floats w = normal(rng, static_cast<size_t>(n) * k, 1 / std::sqrt(k));
    const size_t in_stride = k + rng() % 3, out_stride = n + rng() % 3;
    Guarded in((rows - 1) * in_stride + k), out((rows - 1) * out_stride + n), packed(kernels.linear_words(n, k));
    Doubles exact;
    for (int r = 0; r < rows; ++r) {
        const Floats row = normal(rng, k, 1);
        std::copy(row.begin(), row.end(), in.data() + r * in_stride);
        exact.insert(exact.end(), row.begin(), row.end());
    }
    kernels.pack_linear(w.data(), n, k, packed.words());
    kernels.linear(packed.words(), n, k, in.data(), in_stride, rows, out.data(), out_stride);
    CHECK(packed.intact());
    CHECK(in.intact());
    CHECK(out.intact());
    Floats got;
    bool gaps_untouched = true;
    for (int r = 0; r < rows; ++r) {
        const float* row = out.data() + r * out_stride;
        got.insert(got.end(), row, row + n);
        for (size_t c = n; r + 1 < rows && c < out_stride; ++c) gaps_untouched &= std::isnan(row[c]);
    }
    CHECK(gaps_untouched);
    CHECK(relative_error(got.data(), linear_reference(exact, rows, k, w.data(), n)) <= TOLERANCE);
}

template <class Check>
void for_each_supported(const Check& check) {
    size_t count = 0;
    const trm::InstructionSet* all = trm::instruction_sets(&count);
    for (size_t i = 0; i < count; ++i) {
        const Kernels& kernels = *all[i].kernels;
        if (!all[i].supported()) {
            MESSAGE("not supported here, not tested: " << std::string(kernels.isa));
            continue;
        }
        CAPTURE(kernels.isa);
        std::string error;
        REQUIRE(trm::select_kernels(kernels.isa, &error) == &kernels);  // prove what runs before testing it
        check(kernels);
    }
}

int pick(std::mt19937& rng, int low, int high) { return low + static_cast<int>(rng() % (high - low + 1)); }

}  // namespace

TEST_CASE("selection: best by default, exact by name, a message otherwise") {
    size_t count = 0;
    const trm::InstructionSet* all = trm::instruction_sets(&count);
    REQUIRE(count >= 1);
    CHECK(std::string(all[count - 1].kernels->isa) == "scalar");
    CHECK(all[count - 1].supported());

    std::string error;
    const Kernels* best = trm::select_kernels(nullptr, &error);
    REQUIRE(best != nullptr);
    CHECK(trm::select_kernels("", &error) == best);
    CHECK(error.empty());

    CHECK(trm::select_kernels("avx1024", &error) == nullptr);
    CHECK(error.find("avx1024") != std::string::npos);
    CHECK(error.find(best->isa) != std::string::npos);
    CHECK(error.find("scalar") != std::string::npos);
    for (size_t i = 0; i < count; ++i) {
        const Kernels* kernels = all[i].kernels;
        CHECK((trm::select_kernels(kernels->isa, &error) == kernels) == all[i].supported());
    }
}

TEST_CASE("linear: odd shapes") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(1);
        check_linear(kernels, 1, 1, 1, rng);
        check_linear(kernels, 33, 1537, 17, rng);
        check_linear(kernels, 64, 600, 97, rng);
        for (int i = 0; i < 60; ++i) check_linear(kernels, pick(rng, 1, 90), pick(rng, 1, 300), pick(rng, 1, 40), rng);
    });
}

TEST_CASE("net with attention: odd shapes") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(2);
        check_net(kernels, attention_shape(24, 3, 20, 2, true), 1, rng);
        check_net(kernels, attention_shape(24, 3, 20, 2, true), 97, rng);
        check_net(kernels, attention_shape(24, 1, 20, 2, true), 7, rng);
        check_net(kernels, attention_shape(128, 2, 384, 2, true), 33, rng);
        check_net(kernels, attention_shape(2, 1, 1, 1, true), 3, rng);
        for (int i = 0; i < 40; ++i) {
            const int heads = pick(rng, 1, 4), half_head = pick(rng, 1, 36);
            check_net(kernels,
                      attention_shape(heads * 2 * half_head, heads, pick(rng, 1, 100), pick(rng, 1, 2), rng() % 2 == 0),
                      pick(rng, 1, 40), rng);
        }
    });
}

TEST_CASE("net with token mixing: odd shapes") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(3);
        check_net(kernels, mixing_shape(24, 20, 2, 5, 1), 1, rng);
        check_net(kernels, mixing_shape(24, 20, 2, 128, 97), 97, rng);
        check_net(kernels, mixing_shape(70, 33, 2, 300, 20), 20, rng);
        for (int i = 0; i < 30; ++i) {
            const int L = pick(rng, 1, 40);
            const int D = 2 * pick(rng, 1, 50), I = pick(rng, 1, 80), It = pick(rng, 1, 70);
            check_net(kernels, mixing_shape(D, I, pick(rng, 1, 2), It, L), L, rng);
        }
    });
}

TEST_CASE("net in bf16 and int8, and by several threads") {
    for_each_supported([](const Kernels& kernels) {
        for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8})
            for (const int threads : {1, 2, 3}) {
                std::mt19937 rng(6);
                check_net(kernels, attention_shape(64, 2, 96, 2, true), 33, rng, precision, threads);
                check_net(kernels, attention_shape(26, 1, 37, 2, false), 9, rng, precision, threads);
                check_net(kernels, attention_shape(24, 3, 20, 2, true), 13, rng, precision, threads);
                check_net(kernels, attention_shape(130, 5, 67, 1, true), 1, rng, precision, threads);
                check_net(kernels, mixing_shape(70, 33, 2, 45, 18), 18, rng, precision, threads);
                check_net(kernels, mixing_shape(24, 21, 2, 6, 1), 1, rng, precision, threads);
                if (threads > 1) continue;
                for (int i = 0; i < 10; ++i) {
                    const int heads = pick(rng, 1, 4), D = heads * 2 * pick(rng, 1, 36), L = pick(rng, 1, 40);
                    check_net(kernels, attention_shape(D, heads, pick(rng, 1, 100), pick(rng, 1, 2), rng() % 2 == 0), L,
                              rng, precision);
                    check_net(kernels, mixing_shape(2 * pick(rng, 1, 50), pick(rng, 1, 80), 1, pick(rng, 1, 70), L), L,
                              rng, precision);
                }
            }
    });
}

// Inputs of +-1 have scale 1/127 and are their own norm; gates above 90 leave silu(g) = g. So nothing rounds but the
// results, and a sum that is off by one shows.
TEST_CASE("int8: sums of byte products are exact on every instruction set") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(7);
        constexpr int D = 32, I = 8, ROWS = 11;
        NetShape shape = attention_shape(D, 1, I, 1, false);
        shape.norm_eps = 0;
        Net net(shape, rng, Precision::kInt8);
        Floats& out = net.storage[1];
        Floats& gate_up = net.storage[2];
        Floats& down = net.storage[3];
        std::fill(out.begin(), out.end(), 0.0f);  // attention adds nothing
        const auto byte = [&] { return static_cast<float>(pick(rng, -127, 127)); };
        for (float& w : gate_up) w = byte();
        for (float& w : down) w = byte() * 1e-3f;
        for (int unit = 0; unit < 2 * I; ++unit) gate_up[unit * D] = unit % 2 ? 127.0f : -127.0f;
        for (int column = 0; column < D; ++column) down[column * I] = 0.127f;
        Floats h(ROWS * D);
        for (int row = 0; row < ROWS; ++row)
            for (int i = 0; i < D; ++i) {
                const bool extreme = row < 4;  // all products of one sign, where saturating instructions would fail
                const bool positive = extreme ? (gate_up[(row % 2) * D + i] > 0) == (row < 2) : rng() % 2 == 0;
                h[row * D + i] = positive ? 1.0f : -1.0f;
            }
        for (int unit = 0; unit < I; ++unit)  // the largest gate that -127..127 can make, so that it passes 90
            for (int i = 0; i < D; ++i) gate_up[unit * D + i] *= 4;
        const Doubles want = net_reference(net.shape, net.blocks, h, ROWS, gapped_positions(ROWS));
        net.run(kernels, h, ROWS, ROWS, gapped_positions(ROWS));
        CHECK(relative_error(h.data(), want) <= 1e-6);
    });
}

TEST_CASE("net: squares that overflow give NaN, not a row of zeros") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(5);
        for (const NetShape& shape : {attention_shape(24, 3, 20, 2, true), mixing_shape(24, 20, 2, 12, 9)}) {
            const Net net(shape, rng);
            Floats h = normal(rng, 9 * 24, 1);
            for (float& value : h) value *= 1e19f;  // finite, but their squares are not
            net.run(kernels, h, 9, 9, gapped_positions(9));
            for (const float value : h) CHECK(std::isnan(value));
        }
    });
}

TEST_CASE("net: one NaN in the input reaches the output") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(4);
        for (const NetShape& shape : {attention_shape(24, 3, 20, 2, true), mixing_shape(24, 20, 2, 12, 9)}) {
            const Net net(shape, rng);
            const Floats clean = normal(rng, 9 * 24, 1);
            for (size_t at : {size_t(0), size_t(101), clean.size() - 1}) {
                Floats h = clean;
                h[at] = std::numeric_limits<float>::quiet_NaN();
                net.run(kernels, h, 9, 9, gapped_positions(9));
                const size_t row = at / 24 * 24;
                bool reached = true;  // at least the whole row
                for (size_t i = row; i < row + 24; ++i) reached &= std::isnan(h[i]);
                CHECK(reached);
            }
        }
    });
}

TEST_CASE("net: gates and scores far outside exp's range stay finite and right") {
    for_each_supported([](const Kernels& kernels) {
        std::mt19937 rng(5);
        Net net(attention_shape(24, 3, 20, 1, true), rng);
        for (float scale : {1e2f, 1e4f}) {
            for (Floats& matrix : net.storage)
                if (&matrix != &net.storage.back())  // all but `down`
                    for (float& v : matrix) v *= scale;
            Floats h = normal(rng, 9 * 24, 1);
            const Doubles want = net_reference(net.shape, net.blocks, h, 9, gapped_positions(9));
            net.run(kernels, h, 9, 9, gapped_positions(9));
            // Scores of 1e5 and more carry float32 rounding errors of 1e-2: a softmax that is almost a maximum.
            CHECK(relative_error(h.data(), want) <= 1e-2);
        }
    });
}

constexpr double WITH_ATTENTION = 2;  // what attention itself may round, which the reference does not

// Rows that are multiples of one another, so that no rounding changes which key has the largest score.
TEST_CASE("net: scores of any size have the right weights in every precision") {
    for_each_supported([](const Kernels& kernels) {
        for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
            CAPTURE(int(precision));
            std::mt19937 rng(8);
            const Net net(attention_shape(24, 3, 20, 1, false), rng, precision);
            const Floats row = normal(rng, 24, 1);
            for (const float scale : {1.0f, 1e3f, 1e5f, 1e8f, 1e12f, 1e16f}) {
                CAPTURE(scale);
                Floats h;
                for (const float times : {1.0f, 4.0f, 2.0f, 2.0f, 8.0f, 0.0f, 1.0f})
                    for (const float v : row) h.push_back(v * times * scale);
                const Doubles want = net_reference(net.shape, net.blocks, h, 7, gapped_positions(7));
                net.run(kernels, h, 7, 7, gapped_positions(7));
                CHECK(relative_error(h.data(), want) <= WITH_ATTENTION * tolerance_of(precision));
            }
        }
    });
}

TEST_CASE("net: scores below the range of float32 weigh nothing") {
    for_each_supported([](const Kernels& kernels) {
        for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
            CAPTURE(int(precision));
            std::mt19937 rng(9);
            constexpr int D = 24, ROWS = 5;
            Net net(attention_shape(D, 1, 20, 1, false), rng, precision);
            Floats& qkv = net.storage[0];
            for (int i = 0; i < D * D; ++i) {  // scores are -1e40 times the product of two rows, or 0
                qkv[i] *= 1e20f;
                qkv[D * D + i] = -qkv[i];
            }
            Floats h;
            const Floats row = normal(rng, D, 1);
            for (const float times : {1.0f, 2.0f, 0.0f, 1.0f, 4.0f})
                for (const float v : row) h.push_back(v * times);
            const Doubles want = net_reference(net.shape, net.blocks, h, ROWS, gapped_positions(ROWS));
            net.run(kernels, h, ROWS, ROWS, gapped_positions(ROWS));
            CHECK(relative_error(h.data(), want) <= WITH_ATTENTION * tolerance_of(precision));
        }
    });
}
