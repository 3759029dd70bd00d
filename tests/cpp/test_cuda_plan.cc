// The schedule of the fused CUDA kernel on the host: every CTA does its share of every phase, lane by lane, with the
// indices of cuda/plan.h. The answer is compared with the plain definition of the network, and what CTAs read and write
// between two grid barriers is checked for races. Phases are as in cuda/phases.cuh, in double and without what no index
// depends on: the warps of a CTA take turns, and softmax needs no running maximum.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/plan.h"

namespace {

using namespace trm::cuda;

constexpr double TOLERANCE = 1e-9;  // relative to the largest value; typical is 1e-14
constexpr double EPS = 1e-5, THETA = 100.0;

using Doubles = std::vector<double>;

struct Block {
    Doubles qkv, out, gate_up, down;
};

// A run of the recursion: `cycles` times l_cycles evaluations for z and one for y.
struct Problem {
    Plan plan;
    int rows, l_cycles, cycles;
    int answer_end, position_shift;  // rows from answer_end on stand position_shift further
    std::vector<Block> blocks;
    Doubles e, y, z;

    double angle(int row, int j) const {
        return (row < answer_end ? row : row + position_shift) * std::pow(THETA, -2.0 * j / plan.head_size());
    }
};

Problem problem_of(const Plan& plan, int rows, int l_cycles = 1, int cycles = 1) {
    std::mt19937 rng(static_cast<unsigned>(plan.hidden + rows));
    const auto matrix = [&](int n, int k, double scale) {
        std::normal_distribution<double> gaussian(0.0, scale);
        Doubles values(n * k);
        for (double& x : values) x = gaussian(rng);
        return values;
    };
    const int D = plan.hidden, I = plan.inner;
    const double by_d = 1.0 / std::sqrt(D), by_i = 1.0 / std::sqrt(I);
    Problem p{plan, rows, l_cycles, cycles, (rows + 1) / 2, 3, {}, {}, {}, {}};
    for (int i = 0; i < plan.layers; ++i)
        p.blocks.push_back({matrix(3 * D, D, by_d), matrix(D, D, by_d), matrix(2 * I, D, by_d), matrix(D, I, by_i)});
    for (Doubles* of : {&p.e, &p.y, &p.z}) *of = matrix(rows, D, 1.0);
    return p;
}

// ---- The reference: reference.py again -----------------------------------------------------------------------------

// in[rows, k] w[n, k]^T
Doubles product(const Doubles& in, const Doubles& w, int k) {
    Doubles out;
    for (auto row = in.begin(); row != in.end(); row += k)
        for (auto column = w.begin(); column != w.end(); column += k)
            out.push_back(std::inner_product(row, row + k, column, 0.0));
    return out;
}

Doubles sum_of(Doubles a, const Doubles& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
}

double inverse_rms(const double* row, int n) {
    return 1.0 / std::sqrt(std::inner_product(row, row + n, row, 0.0) / n + EPS);
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

void rotate(const Problem& p, double* head, int row) {
    const int half = p.plan.head_size() / 2;
    for (int j = 0; j < half; ++j) {
        const double cos = std::cos(p.angle(row, j)), sin = std::sin(p.angle(row, j));
        const double first = head[j], second = head[j + half];
        head[j] = first * cos - second * sin;
        head[j + half] = second * cos + first * sin;
    }
}

Doubles attention(const Problem& p, const Block& block, const Doubles& h) {
    const int D = p.plan.hidden, size = p.plan.head_size();
    Doubles qkv = product(h, block.qkv, D), mixed(h.size());
    for (int head = 0; head < p.plan.heads; ++head) {
        const auto at = [&](int row, int part) { return &qkv[row * 3 * D + part * D + head * size]; };
        for (int row = 0; row < p.rows; ++row)
            for (int part = 0; part < 2; ++part) rotate(p, at(row, part), row);
        for (int row = 0; row < p.rows; ++row) {
            Doubles weights;
            for (int key = 0; key < p.rows; ++key)
                weights.push_back(
                    std::exp(std::inner_product(at(row, 0), at(row, 0) + size, at(key, 1), 0.0) / std::sqrt(size)));
            const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
            for (int key = 0; key < p.rows; ++key)
                for (int i = 0; i < size; ++i) mixed[row * D + head * size + i] += weights[key] / sum * at(key, 2)[i];
        }
    }
    return product(mixed, block.out, D);
}

Doubles swiglu(const Problem& p, const Block& block, const Doubles& h) {
    const int I = p.plan.inner;
    const Doubles both = product(h, block.gate_up, p.plan.hidden);
    Doubles inner;
    for (auto row = both.begin(); row != both.end(); row += 2 * I)
        for (int i = 0; i < I; ++i) inner.push_back(silu(row[i]) * row[I + i]);
    return product(inner, block.down, I);
}

Doubles net(const Problem& p, Doubles h) {
    for (const Block& block : p.blocks) {
        for (const auto sublayer : {attention, swiglu}) {
            h = sum_of(h, sublayer(p, block, h));
            for (int row = 0; row < p.rows; ++row) {
                double* const values = &h[row * p.plan.hidden];
                const double by = inverse_rms(values, p.plan.hidden);
                std::for_each(values, values + p.plan.hidden, [&](double& x) { x *= by; });
            }
        }
    }
    return h;
}

Doubles reference(const Problem& p) {  // y, then z
    Doubles y = p.y, z = p.z;
    for (int i = 0; i < p.cycles; ++i) {
        for (int l = 0; l < p.l_cycles; ++l) z = net(p, sum_of(z, sum_of(y, p.e)));
        y = net(p, sum_of(y, z));
    }
    y.insert(y.end(), z.begin(), z.end());
    return y;
}

// ---- Device memory that knows who reads and writes -----------------------------------------------------------------

struct Log {
    int number = 0;
    std::string phase, problem;  // the first problem there was

    void report(const std::string& what) { problem = problem.empty() ? phase + ": " + what : problem; }
};

// In a phase an element is either read or written, and written once: nobody there waits for anybody.
class Array {
  public:
    Array(Log& log, const char* name, int size) : log_(log), name_(name), elements_(size) {}

    double read(int cta, int at) { return touch(cta, at, false); }
    void write(int cta, int at, double value) { touch(cta, at, true) = value; }
    void must_be_written(int at) const {
        const Element& x = elements_.at(at);
        if (x.phase != log_.number || !x.written)
            log_.report("nobody writes " + name_ + "[" + std::to_string(at) + "]");
    }
    double& value(int at) { return elements_.at(at).value; }  // before or after the kernel

  private:
    struct Element {
        double value = std::numeric_limits<double>::quiet_NaN();  // to be seen in the answer
        int phase = -1, cta = -1;                                 // who touched it last
        bool written = false;
    };

    double& touch(int cta, int at, bool write) {
        Element& x = elements_.at(at);
        if (x.phase == log_.number && (write || x.written))
            log_.report("CTA " + std::to_string(cta) + (write ? " writes " : " reads ") + name_ + "[" +
                        std::to_string(at) + "], which CTA " + std::to_string(x.cta) +
                        (x.written ? " writes" : " reads"));
        x.phase = log_.number, x.cta = cta, x.written = write;
        return x.value;
    }

    Log& log_;
    std::string name_;
    std::vector<Element> elements_;
};

// ---- Fragments -----------------------------------------------------------------------------------------------------

using Eight = std::array<double, 8>;                        // 16 bytes of bf16
using Fragment = std::array<Eight, 32>;                     // [lanes]: a chunk of k of eight rows, or columns
using RowPair = std::array<Fragment, 2>;                    // rows 0..7 and 8..15 of a tile
using Operand = std::vector<RowPair>;                       // [k / kChunk]
using Matrix = std::vector<Fragment>;                       // [tiles][k / kChunk]
using Accumulator = std::array<std::array<double, 4>, 32>;  // [lanes]

template <typename At>
Eight eight(At&& at) {
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
}

template <typename Body>
void each_lane(Body&& body) {
    for (int number = 0; number < 32; ++number) body(number, Lane(number));
}

// c += a b of mma.m16n8k16. Which lane holds what is written as in the PTX manual; `word` is the first of two of each
// fragment.
void mma(Accumulator& c, const RowPair& a, const Fragment& b, int word) {
    double rows[16][16], columns[8][16];
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const int group = lane / 4, k = lane % 4 * 2 + i / 2 * 8 + i % 2;
            const int from = 2 * word + i;
            rows[group][k] = a[0][lane][from];
            rows[group + 8][k] = a[1][lane][from];
            columns[group][k] = b[lane][from];
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const double *row = rows[lane / 4 + i / 2 * 8], *column = columns[lane % 4 * 2 + i % 2];
            c[lane][i] += std::inner_product(row, row + 16, column, 0.0);
        }
    }
}

void mma_chunk(Accumulator& c, const RowPair& a, const Fragment& b) {
    for (int word : {0, 2}) mma(c, a, b, word);
}

template <typename Load>
Fragment fragment(Load&& load) {
    Fragment of;
    each_lane([&](int n, Lane lane) { of[n] = load(lane); });
    return of;
}

// A tile of rows as operand, where load(row, column) gives eight neighbours.
template <typename Load>
Operand operand(int columns, Load&& load) {
    Operand a;
    for (int first = 0; first < columns; first += kChunk)
        a.push_back({fragment([&](Lane lane) { return load(lane.group, first + 8 * lane.quad); }),
                     fragment([&](Lane lane) { return load(lane.group + 8, first + 8 * lane.quad); })});
    return a;
}

Accumulator multiply(const Operand& a, const Matrix& weights, int tile) {
    Accumulator sums{};
    for (size_t i = 0; i < a.size(); ++i) mma_chunk(sums, a[i], weights[tile * a.size() + i]);
    return sums;
}

template <typename RowOf>
Matrix pack(const Doubles& w, int columns, int tiles, RowOf&& row_of) {
    Matrix packed;
    for (int tile = 0; tile < tiles; ++tile)
        for (int first = 0; first < columns; first += kChunk)
            packed.push_back(fragment([&](Lane lane) {
                const int from = row_of(tile, lane.group) * columns + first;
                return eight([&](int i) { return w[from + lane.k(i)]; });
            }));
    return packed;
}

struct Layer {
    Matrix qkv, out, gate_up, down;

    Layer(const Plan& plan, const Block& block) {
        const auto plain = [](int tile, int column) { return tile * kColumnTile + column; };
        qkv =
            pack(block.qkv, plan.hidden, plan.qkv_tiles(), [&](int t, int column) { return plan.qkv_row(t, column); });
        out = pack(block.out, plan.hidden, plan.hidden_tiles(), plain);
        gate_up = pack(block.gate_up, plan.hidden, 2 * plan.inner_pairs(),
                       [&](int tile, int column) { return tile % 2 * plan.inner + plain(tile / 2, column); });
        down = pack(block.down, plan.inner, plan.hidden_tiles(), plain);
    }
};

// ---- The kernel ----------------------------------------------------------------------------------------------------

// Who does what; as the plan has it, unless a test breaks it.
struct Shares {
    int groups;
    struct Cta {
        Range qkv, inner, hidden;
        int group, first_kept;
        Doubles inverse;  // 1 / rms of the rows that it staged last
    };
    std::vector<Cta> ctas;

    explicit Shares(const Plan& plan) : groups(plan.groups()) {
        for (int i = 0; i < plan.ctas; ++i)
            ctas.push_back({plan.qkv_share(i), plan.inner_share(i), plan.hidden_share(i), plan.group_of(i),
                            first_kept_row(i, plan.ctas), Doubles(plan.row_stride())});
    }
};

struct Source {
    Array* rows;
    bool normalised;
    Array* added;  // or null
};

struct Keep {
    Array *rows, *with_e;  // or null
};

class Kernel {
  public:
    Kernel(const Problem& problem, Shares who) : p(problem), plan(problem.plan), shares(std::move(who)) {
        for (const Block& block : p.blocks) layers.emplace_back(plan, block);
        for (int i = 0; i < p.rows * plan.hidden; ++i) {
            e.value(i) = p.e[i], y.value(i) = p.y[i], z.value(i) = p.z[i];
            ye.value(i) = p.y[i] + p.e[i], ze.value(i) = p.z[i] + p.e[i];
        }
    }

    Doubles run() {
        for (int i = 0; i < p.cycles; ++i) {
            for (int l = 0; l <= p.l_cycles; ++l) {
                const bool first = i == 0 && l == 0, after_y = l == 0;
                const Source from{first ? &y : &state, first, l == p.l_cycles ? &y : after_y ? &ze : &ye};
                evaluate(from, first ? Keep{} : after_y ? Keep{&y, &ye} : Keep{&z, &ze});
            }
        }
        const Source last{&state, false, nullptr};
        each_cta("finish", [&](int cta) {
            for (int row = 0; row < p.rows; row += kRowTile) stage(cta, last, row, 1);
            keep_rows(cta, last, {&y, &ye});
        });
        must_be_written({&y, &ye}, plan.hidden);
        Doubles answer;
        for (Array* rows : {&y, &z})
            for (int i = 0; i < p.rows * plan.hidden; ++i) answer.push_back(rows->value(i));
        return answer;
    }

    Log log;
    std::vector<Layer> layers;

  private:
    template <typename Body>
    void each_cta(const char* phase, Body&& body) {
        ++log.number, log.phase = phase;
        for (int cta = 0; cta < plan.ctas; ++cta) body(cta);
    }

    using Place = int (Plan::*)(int row, int column) const;
    void must_be_written(std::initializer_list<Array*> arrays, int width, Place at = &Plan::row_at) const {
        for (Array* array : arrays)
            for (int i = 0; array && i < p.rows * width; ++i) array->must_be_written((plan.*at)(i / width, i % width));
    }

    void evaluate(Source from, Keep keep) {
        for (const Layer& layer : layers) {
            each_cta("attention, wide", [&](int cta) { wide(cta, layer, from, true); });
            must_be_written({&q, &k}, plan.hidden);
            must_be_written({&v}, plan.hidden, &Plan::value_at);
            each_cta("attention, narrow", [&](int cta) {
                if (keep.rows) keep_rows(cta, from, keep);
                narrow(cta, layer.out, from, middle, true);
            });
            must_be_written({&middle, keep.rows, keep.with_e}, plan.hidden);
            keep = {};
            from = {&middle, false, nullptr};
            each_cta("SwiGLU, wide", [&](int cta) { wide(cta, layer, from, false); });
            must_be_written({&inner}, plan.inner, &Plan::inner_at);
            each_cta("SwiGLU, narrow", [&](int cta) { narrow(cta, layer.down, from, state, false); });
            must_be_written({&state}, plan.hidden);
            from = {&state, false, nullptr};
        }
    }

    int there(int row) const { return at_most(row, p.rows - 1); }  // read in place of a row that may be past the last

    // `tiles` tiles of normalised rows as operands.
    std::vector<Operand> stage(int cta, const Source& from, int first, int tiles) {
        Doubles rows;
        for (int row = first; row < first + tiles * kRowTile; ++row) {
            Doubles x;
            for (int i = 0; i < plan.hidden; ++i) x.push_back(from.rows->read(cta, plan.row_at(there(row), i)));
            const double by = from.normalised ? 1.0 : inverse_rms(x.data(), plan.hidden);
            shares.ctas[cta].inverse[row] = by;
            for (int i = 0; i < plan.hidden; ++i)
                rows.push_back(x[i] * by + (from.added ? from.added->read(cta, plan.row_at(there(row), i)) : 0.0));
        }
        std::vector<Operand> staged;
        for (int m = 0; m < tiles; ++m)
            staged.push_back(operand(plan.hidden, [&](int row, int column) {
                return eight([&](int i) { return rows[(m * kRowTile + row) * plan.hidden + column + i]; });
            }));
        return staged;
    }

    void wide(int cta, const Layer& layer, const Source& from, bool attention) {
        const Shares::Cta& own = shares.ctas[cta];
        for (int first = 0; first < p.rows; first += kBlockRows) {
            int row = first;
            for (const Operand& a : stage(cta, from, first, p.rows - first > kRowTile ? kPassRows : 1)) {
                if (attention)
                    for (int tile = own.qkv.begin; tile < own.qkv.end; ++tile)
                        store_qkv(cta, tile, row, multiply(a, layer.qkv, tile));
                else
                    for (int tile = own.inner.begin; tile < own.inner.end; tile += 2) {
                        const Accumulator gate = multiply(a, layer.gate_up, tile),
                                          up = multiply(a, layer.gate_up, tile + 1);
                        each_sum(row, tile / 2 * kColumnTile, [&](int at, int column, int n, int i) {
                            inner.write(cta, plan.inner_at(at, column), silu(gate[n][i]) * up[n][i]);
                        });
                    }
                row += kRowTile;
            }
        }
    }

    void store_qkv(int cta, int tile, int first_row, const Accumulator& sums) {
        each_lane([&](int n, Lane lane) {
            const int part = plan.qkv_part(tile), to = plan.stored_column(tile, lane.column(0));
            for (int i : {0, 2}) {
                const int row = first_row + lane.row(i);
                const double first = sums[n][i], second = sums[n][i + 1];
                if (part == 2) {
                    for (int column : {0, 1})
                        v.write(cta, plan.value_at(row, to + column), row < p.rows ? sums[n][i + column] : 0.0);
                }
                if (row >= p.rows || part == 2) continue;
                const double angle = p.angle(row, plan.rotary_index(tile, lane.column(0), plan.head_size()));
                const double scale = part == 0 ? 1.0 / std::sqrt(plan.head_size()) : 1.0;
                const double cos = std::cos(angle) * scale, sin = std::sin(angle) * scale;
                Array& array = part == 0 ? q : k;
                array.write(cta, plan.row_at(row, to), first * cos - second * sin);
                array.write(cta, plan.row_at(row, to) + 1, second * cos + first * sin);
            }
        });
    }

    // What a tile's accumulators stand for, of the rows that there are.
    template <typename Body>
    void each_sum(int first_row, int first_column, Body&& body) const {
        each_lane([&](int n, Lane lane) {
            for (int i = 0; i < 4; ++i)
                if (first_row + lane.row(i) < p.rows)
                    body(first_row + lane.row(i), first_column + lane.column(i), n, i);
        });
    }

    void keep_rows(int cta, const Source& from, const Keep& keep) {
        const Shares::Cta& own = shares.ctas[cta];
        for (int row = own.first_kept; row < p.rows; row += plan.ctas) {
            for (int at = plan.row_at(row, 0); at < plan.row_at(row, plan.hidden); ++at) {
                const double x = from.rows->read(cta, at) * own.inverse[row];
                keep.rows->write(cta, at, x);
                keep.with_e->write(cta, at, x + e.read(cta, at));
            }
        }
    }

    void narrow(int cta, const Matrix& weights, const Source& from, Array& to, bool attention) {
        const Shares::Cta& own = shares.ctas[cta];
        if (own.hidden.size() <= 0) return;
        for (int first = own.group * kRowTile; first < p.rows; first += shares.groups * kRowTile) {
            const Operand a = attention ? attend(cta, first) : operand(plan.inner, [&](int row, int column) {
                return load(inner, cta, plan.inner_at(there(first + row), column));
            });
            for (int tile = own.hidden.begin; tile < own.hidden.end; ++tile) {
                const Accumulator sums = multiply(a, weights, tile);
                each_sum(first, tile * kColumnTile, [&](int row, int column, int n, int i) {
                    const int at = plan.row_at(row, column);
                    const double h = from.rows->read(cta, at) * own.inverse[row];
                    to.write(cta, at, h + (from.added ? from.added->read(cta, at) : 0.0) + sums[n][i]);
                });
            }
        }
    }

    // Attention of all heads for a tile of rows, as the operand of the output projection.
    Operand attend(int cta, int first_row) {
        Operand all;
        for (int head = 0; head < plan.heads; ++head) {
            const int first_column = head * plan.head_size();
            const Operand query = operand(plan.head_size(), [&](int row, int column) {
                return load(q, cta, plan.row_at(there(first_row + row), first_column + column));
            });
            std::vector<Accumulator> out(4 * query.size());  // of the dimensions that spread(j) says
            std::array<std::array<double, 32>, 2> sum{};     // of the keys that a lane holds
            for (int first_key = 0; first_key < p.rows; first_key += kKeyTile) {
                const int tiles = p.rows - first_key > kKeyTile / 2 ? 4 : 2;
                const RowPair weight = weights_of(cta, query, first_column, first_key, tiles);
                each_lane([&](int n, Lane) {
                    for (int half : {0, 1})
                        for (double x : weight[half][n]) sum[half][n] += x;
                });
                for (int i = 0; i < int(out.size()); ++i)
                    mma_chunk(out[i], weight, fragment([&](Lane lane) {
                                  const int row = first_key + 2 * tiles * lane.quad;
                                  const int column = first_column + i / 4 * kChunk + lane.spread(i % 4);
                                  return load(v, cta, plan.value_at(row, column), 2 * tiles);
                              }));
            }
            for (int chunk = 0; chunk < int(query.size()); ++chunk) {
                all.emplace_back();
                each_lane([&](int n, Lane) {
                    for (int half : {0, 1}) {
                        const double* quad = &sum[half][n / 4 * 4];
                        const double total = quad[0] + quad[1] + quad[2] + quad[3];
                        all.back()[half][n] =
                            eight([&](int x) { return out[4 * chunk + x / 2][n][2 * half + x % 2] / total; });
                    }
                });
            }
        }
        return all;
    }

    // exp(score) of 8 * tiles keys: as the scores of `tiles` products lie, so they are the operand of the next.
    RowPair weights_of(int cta, const Operand& query, int first_column, int first_key, int tiles) {
        RowPair weight{};
        for (int j = 0; j < tiles; ++j) {
            Accumulator score{};
            for (int i = 0; i < int(query.size()); ++i)
                mma_chunk(score, query[i], fragment([&](Lane lane) {
                              const int row = first_key + lane.spread(j, tiles),
                                        column = first_column + kChunk * i + 8 * lane.quad;
                              return load(k, cta, plan.row_at(there(row), column));
                          }));
            each_lane([&](int n, Lane lane) {
                for (int i = 0; i < 4; ++i)
                    if (first_key + 2 * tiles * lane.quad + 2 * j + i % 2 < p.rows)
                        weight[i / 2][n][2 * j + i % 2] = std::exp(score[n][i]);
            });
        }
        return weight;
    }

    static Eight load(Array& array, int cta, int at, int count = 8) {
        return eight([&](int i) { return i < count ? array.read(cta, at + i) : 0.0; });
    }

    Array array(const char* name, int width) { return {log, name, plan.row_stride() * width}; }

    const Problem& p;
    const Plan& plan;
    Shares shares;
    Array e = array("e", plan.hidden), y = array("y", plan.hidden), z = array("z", plan.hidden);
    Array ye = array("ye", plan.hidden), ze = array("ze", plan.hidden);
    Array state = array("state", plan.hidden), middle = array("middle", plan.hidden);
    Array q = array("q", plan.hidden), k = array("k", plan.hidden), v = array("v", plan.hidden);
    Array inner = array("inner", plan.inner);
};

double error_of(const Doubles& values, const Doubles& expected) {
    double most = 0, error = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        most = std::max(most, std::fabs(expected[i]));
        const double difference = std::fabs(values[i] - expected[i]);
        error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    }
    return error / most;
}

void check(const Plan& sizes, const std::vector<int>& rows_of, const std::vector<int>& ctas_of, int l_cycles = 1,
           int cycles = 1) {
    for (int rows : rows_of) {
        Problem problem = problem_of(sizes, rows, l_cycles, cycles);
        const Doubles expected = reference(problem);
        for (int ctas : ctas_of) {
            problem.plan.ctas = ctas;
            CAPTURE(rows);
            CAPTURE(ctas);
            Kernel kernel(problem, Shares(problem.plan));
            CHECK(error_of(kernel.run(), expected) < TOLERANCE);
            CHECK(kernel.log.problem == "");
        }
    }
}

// hidden, heads, inner, layers, max_rows, CTAs
constexpr Plan SMALL{64, 2, 96, 2, 72, 7};

// What is reported where `break_it` has changed the shares.
template <typename Break>
std::string problem_with(Plan plan, Break&& break_it) {
    const Problem problem = problem_of(plan, 40);
    Shares shares(plan);
    break_it(shares);
    Kernel kernel(problem, shares);
    kernel.run();
    return kernel.log.problem;
}

}  // namespace

TEST_CASE("plan: every tile has one owner") {
    for (int hidden : {64, 128, 256, 512}) {
        for (int max_rows : {1, 16, 17, 81, 512}) {
            for (int ctas = 1; ctas <= 150; ++ctas) {
                const Plan plan{hidden, 2, 3 * hidden / 2, 1, max_rows, ctas};
                const int row_tiles = div_up(max_rows, kRowTile);
                REQUIRE(plan.groups() <= row_tiles);
                std::vector<int> qkv(plan.qkv_tiles()), inner(2 * plan.inner_pairs());
                std::vector<int> narrow(row_tiles * plan.hidden_tiles()), kept(max_rows);
                const auto own = [](std::vector<int>& owners, Range tiles) {
                    for (int tile = tiles.begin; tile < tiles.end; ++tile) ++owners.at(tile);
                };
                for (int cta = 0; cta < ctas; ++cta) {
                    own(qkv, plan.qkv_share(cta));
                    own(inner, plan.inner_share(cta));
                    const Range share_of = plan.hidden_share(cta);
                    for (int tile = plan.group_of(cta); tile < row_tiles; tile += plan.groups())
                        own(narrow,
                            {tile * plan.hidden_tiles() + share_of.begin, tile * plan.hidden_tiles() + share_of.end});
                    for (int row = first_kept_row(cta, ctas); row < max_rows; row += ctas) own(kept, {row, row + 1});
                    REQUIRE(plan.inner_share(cta).begin % 2 == 0);
                    REQUIRE(plan.qkv_share(cta).size() <= div_up(plan.qkv_tiles(), ctas));
                }
                for (const auto& owners : {qkv, inner, narrow, kept})
                    REQUIRE(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
            }
        }
    }
}

TEST_CASE("plan: all CTAs together evaluate the network, without races") {
    SUBCASE("hidden 64, two heads of 32, two layers") {
        check(SMALL, {1, 13, 16, 17, 40}, {1, 3, 7, 8, 12, 16, 17, 24, 48, 132});
    }
    SUBCASE("rows that fill the buffers") {
        check({64, 2, 96, 1, 32, 0}, {32}, {7, 20});
        check({64, 2, 96, 1, 72, 0}, {72}, {1, 24, 50});
    }
    SUBCASE("hidden 128, four heads of 32") { check({128, 4, 384, 1, 40, 0}, {13, 40}, {1, 7, 16, 48, 132}); }
    SUBCASE("hidden 256, four heads of 64, two layers") { check({256, 4, 160, 2, 40, 0}, {17, 40}, {3, 32, 132}); }
    SUBCASE("rows are kept from cycle to cycle") { check(SMALL, {17, 40}, {3, 48}, 2, 2); }
}

TEST_CASE("plan: the emulation sees what is wrong") {
    const auto unchanged = [](Shares&) {};
    CHECK(problem_with(SMALL, unchanged) == "");
    const auto overlap = [](Shares& s) { --s.ctas[1].qkv.begin; };
    CHECK(problem_with(SMALL, overlap) == "attention, wide: CTA 1 writes q[16], which CTA 0 writes");
    const auto missing = [](Shares& s) { --s.ctas[2].inner.end, --s.ctas[2].inner.end; };
    CHECK(problem_with(SMALL, missing).find("SwiGLU, wide: nobody writes inner[") == 0);
    const auto nobody = [](Shares& s) { s.ctas.back().hidden = {0, 0}; };
    CHECK(problem_with(SMALL, nobody) == "attention, narrow: nobody writes middle[48]");
    Plan grouped = SMALL;
    grouped.ctas = 16;
    const auto same_rows = [](Shares& s) { s.ctas[15].group = 0; };
    CHECK(problem_with(grouped, same_rows) == "attention, narrow: CTA 15 writes middle[56], which CTA 7 writes");
    const auto not_kept = [](Shares& s) { s.ctas[3].first_kept = 1000; };
    CHECK(problem_with(grouped, not_kept).find("attention, narrow: nobody writes z[") == 0);
}

TEST_CASE("plan: reading what is written in the same phase is a race") {
    for (bool read_first : {false, true}) {
        Log log{1, "phase", ""};
        Array array(log, "x", 4);
        if (read_first) array.read(0, 2);
        array.write(1, 2, 3.0);
        if (!read_first) array.read(0, 2);
        CHECK(log.problem == (read_first ? "phase: CTA 1 writes x[2], which CTA 0 reads"
                                         : "phase: CTA 0 reads x[2], which CTA 1 writes"));
        log = {2, "the next", ""};
        CHECK(array.read(0, 2) == 3.0);
        CHECK(log.problem == "");
    }
}

TEST_CASE("plan: weights in another order give another answer") {
    const Problem problem = problem_of(SMALL, 17);
    const Doubles expected = reference(problem);
    for (Matrix Layer::* matrix : {&Layer::qkv, &Layer::out, &Layer::gate_up, &Layer::down}) {
        Kernel kernel(problem, Shares(SMALL));
        std::swap((kernel.layers[1].*matrix)[5][9][3], (kernel.layers[1].*matrix)[5][9][4]);  // two neighbours of k
        CHECK(error_of(kernel.run(), expected) > 1e-4);
    }
}
