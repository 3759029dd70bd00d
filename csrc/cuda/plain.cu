#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/memory.h"
#include "cuda/check.h"
#include "cuda/graph.h"
#include "cuda/int8_weights.h"
#include "cuda/launch.h"
#include "cuda/plain.h"
#include "cuda/ptx.cuh"
#include "cuda/rope.h"

namespace trm::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsAtOnce = 8;

dim3 blocks_for(size_t items) { return dim3(static_cast<unsigned>((items + kThreads - 1) / kThreads)); }

// ---- Kernels ----

// To bf16 or fp16; fp32 rounds nothing. Beyond float16 is NaN, as an infinite key could have a weight of 0.
__host__ __device__ float rounded(float x, Precision precision) {
    if (precision == Precision::kBf16) return __bfloat162float(__float2bfloat16_rn(x));
    if (precision != Precision::kFp16) return x;
    const float half = __half2float(__float2half_rn(x));
    return half + (half - half);
}

__device__ float sum_of_block(float value, float* shared) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0;
    for (int warp = 0; warp < kThreads / 32; ++warp) total += shared[warp];
    __syncthreads();
    return total;
}

// NaN counts as the largest.
__device__ float most_of_block(float value, float* shared) {
    const auto larger = [](float a, float b) { return a > b || a != a ? a : b; };
    for (int step = 16; step > 0; step /= 2) value = larger(value, __shfl_xor_sync(~0u, value, step));
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float most = shared[0];
    for (int warp = 1; warp < kThreads / 32; ++warp) most = larger(most, shared[warp]);
    __syncthreads();
    return most;
}

// out = a + (b + c), where c may be null.
__global__ void add(const float* a, const float* b, const float* c, float* out, size_t count) {
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < count) out[i] = a[i] + (c ? b[i] + c[i] : b[i]);
}

// out [columns, rows] = in [rows, columns] transposed.
__global__ void transpose(const float* in, int rows, int columns, float* out) {
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= static_cast<size_t>(rows) * static_cast<size_t>(columns)) return;
    const size_t row = i / static_cast<size_t>(columns), column = i % static_cast<size_t>(columns);
    out[column * static_cast<size_t>(rows) + row] = in[i];
}

// out [rows, n] = in [rows, k] w [n, k]^T, a warp per column. The input is rounded, w is already.
__global__ void linear(const float* in, const float* w, int rows, int n, int k, Precision precision, float* out) {
    const int column = static_cast<int>(blockIdx.x * (kThreads / 32) + threadIdx.x / 32);
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (column >= n) return;
    const float* weights = w + static_cast<size_t>(column) * static_cast<size_t>(k);
    for (int first = 0; first < rows; first += kRowsAtOnce) {
        const int count = min(kRowsAtOnce, rows - first);
        float sum[kRowsAtOnce] = {};
        for (int i = lane; i < k; i += 32) {
            for (int r = 0; r < count; ++r) {
                const float a = in[static_cast<size_t>(first + r) * static_cast<size_t>(k) + static_cast<size_t>(i)];
                sum[r] += rounded(a, precision) * weights[i];
            }
        }
        for (int r = 0; r < count; ++r) {
            for (int step = 16; step > 0; step /= 2) sum[r] += __shfl_xor_sync(~0u, sum[r], step);
            if (lane == 0)
                out[static_cast<size_t>(first + r) * static_cast<size_t>(n) + static_cast<size_t>(column)] = sum[r];
        }
    }
}

// Round a row to bytes, padded with zeros to whole words, and note its scale; given > 0: that scale, and clip.
__global__ void quantize(const float* in, int k, int words, float given, int8_t* out, float* scales) {
    __shared__ float shared[kThreads / 32];
    const float* row = in + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(k);
    int8_t* bytes = out + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(words) * 4;
    float most = 0;
    for (int i = static_cast<int>(threadIdx.x); i < k; i += kThreads) {
        const float magnitude = fabsf(row[i]);
        if (magnitude > most || magnitude != magnitude) most = magnitude;
    }
    most = most_of_block(most, shared);  // also where the scale is given: a NaN has to reach the answer
    const float dynamic = most / 127.0f;
    const bool finite = most <= 3.4028235e38f;
    const float scale = given > 0 ? given : dynamic, divisor = scale == 0 ? 1.0f : scale;
    for (int i = static_cast<int>(threadIdx.x); i < words * 4; i += kThreads) {
        const float q = i < k && finite ? rintf(row[i] / divisor) : 0.0f;
        bytes[i] = static_cast<int8_t>(fminf(fmaxf(q, -127.0f), 127.0f));
    }
    if (threadIdx.x == 0) scales[blockIdx.x] = finite ? scale : most - most;
}

// linear() on bytes: exact sums, out = sum * (scale of the row * scale of the column).
__global__ void linear_int8(const int8_t* in, const float* in_scale, const int8_t* w, const float* w_scale, int rows,
                            int n, int words, float* out) {
    const int column = static_cast<int>(blockIdx.x * (kThreads / 32) + threadIdx.x / 32);
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (column >= n) return;
    const int* weights = reinterpret_cast<const int*>(w) + static_cast<size_t>(column) * static_cast<size_t>(words);
    for (int row = 0; row < rows; ++row) {
        const int* a = reinterpret_cast<const int*>(in) + static_cast<size_t>(row) * static_cast<size_t>(words);
        int sum = 0;
        for (int i = lane; i < words; i += 32) sum = __dp4a(a[i], weights[i], sum);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == 0)
            out[static_cast<size_t>(row) * static_cast<size_t>(n) + static_cast<size_t>(column)] =
                static_cast<float>(sum) * (in_scale[row] * w_scale[column]);
    }
}

// Attention keeps a query and a weight a key in shared memory; what every device has of it, less the kernel's own.
size_t attention_bytes(int head, int rows) { return static_cast<size_t>(head + rows) * sizeof(float); }
constexpr size_t kSharedBytes = 47 * 1024;

// Attention of one row (blockIdx.x) and head (blockIdx.y) of qkv [rows, 3 D].
struct AttentionCall {
    const float* qkv;
    const float2* rope;  // [positions, head / 2] or null
    int rows, hidden, head, answer_end, position_shift;
    Precision precision;  // of the operands of both products
    float* out;           // [rows, D]
};

__device__ float rotated(const AttentionCall& c, const float* head, int row, int i) {
    if (!c.rope) return head[i];
    const int half = c.head / 2, position = row < c.answer_end ? row : row + c.position_shift;
    const float2 turn = c.rope[position * half + i % half];
    return i < half ? head[i] * turn.x - head[i + half] * turn.y : head[i] * turn.x + head[i - half] * turn.y;
}

__global__ void attention(AttentionCall c) {
    float* const query = dynamic_shared<float>();  // attention_bytes
    __shared__ float shared[kThreads / 32];
    float* weight = query + c.head;
    const int row = static_cast<int>(blockIdx.x), first = static_cast<int>(blockIdx.y) * c.head;
    const auto part = [&](int of_row, int which) {
        return c.qkv + static_cast<size_t>(of_row) * static_cast<size_t>(3 * c.hidden) + which * c.hidden + first;
    };
    const auto operand = [&](float x) { return rounded(x, c.precision); };
    for (int i = static_cast<int>(threadIdx.x); i < c.head; i += kThreads)
        query[i] = operand(rotated(c, part(row, 0), row, i) / sqrtf(static_cast<float>(c.head)));
    __syncthreads();
    float most = -INFINITY;
    for (int key = static_cast<int>(threadIdx.x); key < c.rows; key += kThreads) {
        float score = 0;
        for (int i = 0; i < c.head; ++i) score += query[i] * operand(rotated(c, part(key, 1), key, i));
        weight[key] = score;
        most = fmaxf(most, score);
    }
    most = most_of_block(most, shared);
    float sum = 0;
    for (int key = static_cast<int>(threadIdx.x); key < c.rows; key += kThreads) {
        weight[key] = operand(expf(weight[key] - most));
        sum += weight[key];
    }
    sum = sum_of_block(sum, shared);
    for (int i = static_cast<int>(threadIdx.x); i < c.head; i += kThreads) {
        float mixed = 0;
        for (int key = 0; key < c.rows; ++key) mixed += weight[key] * operand(part(key, 2)[i]);
        c.out[static_cast<size_t>(row) * static_cast<size_t>(c.hidden) + static_cast<size_t>(first + i)] = mixed / sum;
    }
}

// inner [rows, n] = silu(gate) * up of gate_up [rows, 2 n]
__global__ void swiglu(const float* gate_up, int rows, int n, float* inner) {
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= static_cast<size_t>(rows) * static_cast<size_t>(n)) return;
    const size_t row = i / static_cast<size_t>(n), column = i % static_cast<size_t>(n);
    const float* gate = gate_up + row * 2 * static_cast<size_t>(n) + column;
    inner[i] = *gate / (1.0f + expf(-*gate)) * gate[n];
}

// h = rms_norm(h + delta) of one row of n. Squares beyond float32 give NaN.
__global__ void add_norm(float* h, const float* delta, int n, float eps) {
    __shared__ float shared[kThreads / 32];
    const size_t first = static_cast<size_t>(blockIdx.x) * static_cast<size_t>(n);
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
        const float x = h[first + static_cast<size_t>(i)] + delta[first + static_cast<size_t>(i)];
        h[first + static_cast<size_t>(i)] = x;
        squares += x * x;
    }
    squares = sum_of_block(squares, shared);
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(n) + eps) + (squares - squares);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) h[first + static_cast<size_t>(i)] *= inverse;
}

// ---- Weights ----

// One matrix [n, k]: floats (rounded, but in fp32), or bytes and a scale a row.
struct PlainMatrix {
    int n = 0, k = 0, words = 0;
    Precision precision = Precision::kFp32;
    DeviceBuffer<float> floats;  // or the scales
    DeviceBuffer<int8_t> bytes;
};

PlainMatrix upload(const std::vector<float>& w, int n, int k, Precision precision) {
    PlainMatrix m{n, k, (k + 3) / 4, precision, {}, {}};
    const size_t columns = static_cast<size_t>(k);
    std::vector<float> floats = w;
    if (precision == Precision::kInt8 || precision == Precision::kW8a16) {
        Int8Weights made = int8_weights(w, columns);
        if (precision == Precision::kInt8) {
            std::vector<int8_t> bytes(area(n, m.words * 4));
            for (size_t row = 0; row < static_cast<size_t>(n); ++row)
                std::copy_n(made.values.data() + row * columns, columns,
                            bytes.data() + row * static_cast<size_t>(m.words) * 4);
            m.bytes = DeviceBuffer<int8_t>(bytes);
            floats = std::move(made.scales);
        } else {
            for (size_t i = 0; i < floats.size(); ++i)
                floats[i] = static_cast<float>(made.values[i]) * made.scales[i / columns];
            m.precision = Precision::kBf16;  // of the inputs
        }
    } else {
        for (float& x : floats) x = rounded(x, precision);
    }
    m.floats = DeviceBuffer<float>(floats);
    return m;
}

struct PlainWeights : Weights {
    PlainWeights(const Spec& s, const NetShape& net, const Quantization& q, const Tensors& weights)
        : spec(s), shape(net), quantization(q) {
        shape.precision = quantization.precision.data();  // the copy's
        if (!shape.token_mixing && attention_bytes(spec.hidden_size / spec.num_heads, spec.max_rows()) > kSharedBytes)
            throw Error(Status::kUnsupported, "backend cuda: attention over " + std::to_string(spec.max_rows()) +
                                                  " rows does not fit a multiprocessor; run it with backend fused");
        cudaFuncAttributes attributes{};
        TRM_CUDA(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(add)));  // says so if it has no code
        const int D = spec.hidden_size, It = spec.token_inner_size, L = spec.max_rows();
        for (int i = 0; i < shape.num_layers; ++i) {
            const std::string name = "blocks." + std::to_string(i) + ".";
            const auto take = [&](const char* tensor, int n, int k, MatrixKind kind) {
                matrices.push_back(upload(weights.at(name + tensor), n, k, shape.precision[i].of[kind]));
            };
            if (shape.token_mixing) {
                take("token_mixer.gate_up.weight", 2 * It, L, kMixIn);
                take("token_mixer.down.weight", L, It, kMixOut);
            } else {
                take("attention.qkv.weight", 3 * D, D, kMixIn);
                take("attention.out.weight", D, D, kMixOut);
            }
            take("mlp.gate_up.weight", 2 * spec.inner_size, D, kGateUp);
            take("mlp.down.weight", D, spec.inner_size, kDown);
        }
        if (!shape.rope) return;
        rope = DeviceBuffer<float2>(rope_table(spec));
    }

    const PlainMatrix& matrix(int layer, MatrixKind kind) const {
        return matrices[static_cast<size_t>(layer * kMatricesPerBlock + kind)];
    }

    Spec spec;
    NetShape shape;
    Quantization quantization;
    std::vector<PlainMatrix> matrices;
    DeviceBuffer<float2> rope;
};

// ---- The recursion, a kernel an operation ----

class PlainRunner : public Runner {
  public:
    explicit PlainRunner(std::shared_ptr<const PlainWeights> weights)
        : weights_(std::move(weights)),
          e_(rows()),
          y_(rows()),
          z_(rows()),
          turned_(rows()),
          delta_(rows()),
          wide_(widest()),
          inner_(widest() / 2),
          scales_(lines()),
          bytes_(widest() + 4 * lines()) {}

    void enqueue(const Run& run, cudaStream_t stream) override {
        if (run.begin) steps_ = 0;
        const int first = std::min(steps_, kMaxSteps);  // scales differ by step
        steps_ += run.steps;
        const int scaled = weights_->quantization.steps > 1 ? std::min(first, weights_->quantization.steps) : 0;
        graphs_.launch({run.answer_rows, run.context_rows, run.steps, run.begin, run.refresh, scaled}, stream,
                       [&](cudaStream_t on) { enqueue_steps(run, scaled, on); });
    }

  private:
    struct Rows {
        int count, answer_end, position_shift;
    };

    size_t rows() const { return area(weights_->spec.max_rows(), weights_->spec.hidden_size); }
    size_t lines() const {
        return static_cast<size_t>(std::max(weights_->spec.max_rows(), weights_->spec.hidden_size));
    }
    size_t widest() const {
        const Spec& s = weights_->spec;
        return std::max(area(s.max_rows(), std::max(3 * s.hidden_size, 2 * s.inner_size)),
                        area(s.hidden_size, 2 * s.token_inner_size + s.max_rows()));
    }

    void enqueue_steps(const Run& run, int first_step, cudaStream_t stream) {
        const Spec& spec = weights_->spec;
        const Rows rows{spec.registers + run.answer_rows + run.context_rows, spec.registers + run.answer_rows,
                        spec.answer_rows - run.answer_rows};
        const size_t count = area(rows.count, spec.hidden_size), bytes = count * sizeof(float);
        const auto copy = [&](float* to, const float* from) {
            TRM_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
        };
        if (run.refresh) copy(e_.get(), run.e);
        if (run.begin) {
            copy(y_.get(), run.y);
            copy(z_.get(), run.z);
        }
        for (int step = 0; step < run.steps; ++step) {
            for (int h = 0; h < spec.h_cycles; ++h) {
                for (int l = 0; l < spec.l_cycles; ++l) {
                    launch(add, {blocks_for(count), kThreads}, stream, z_.get(), y_.get(), e_.get(), z_.get(), count);
                    net(z_.get(), rows, first_step + step, stream);  // z = net(z + (y + e))
                }
                launch(add, {blocks_for(count), kThreads}, stream, y_.get(), z_.get(), nullptr, y_.get(), count);
                net(y_.get(), rows, first_step + step, stream);  // y = net(y + z)
            }
            copy(run.out + static_cast<size_t>(step) * count, y_.get());
        }
    }

    void net(float* h, const Rows& rows, int step, cudaStream_t stream) {
        const Spec& spec = weights_->spec;
        const int D = spec.hidden_size, L = rows.count;
        for (int layer = 0; layer < spec.num_layers; ++layer) {
            if (weights_->shape.token_mixing) {
                launch(transpose, {blocks_for(area(L, D)), kThreads}, stream, h, L, D, turned_.get());
                mlp(turned_.get(), D, layer, kMixIn, kMixOut, step, stream);
                launch(transpose, {blocks_for(area(L, D)), kThreads}, stream, turned_.get(), D, L, h);
            } else {
                product(h, L, layer, kMixIn, step, wide_.get(), stream);
                const Precision own = weights_->shape.precision[layer].of[kMixIn];
                const bool bytes = own == Precision::kInt8 || own == Precision::kW8a16;
                const Precision inside = bytes ? Precision::kBf16 : own;
                const int head = D / spec.num_heads;
                const AttentionCall call{wide_.get(),     weights_->rope.get(), L,      D,           head,
                                         rows.answer_end, rows.position_shift,  inside, inner_.get()};
                const dim3 grid(static_cast<unsigned>(L), static_cast<unsigned>(spec.num_heads));
                launch(attention, {grid, kThreads, attention_bytes(head, L)}, stream, call);
                product(inner_.get(), L, layer, kMixOut, step, delta_.get(), stream);
                normalise(h, L, D, stream);
            }
            mlp(h, L, layer, kGateUp, kDown, step, stream);
        }
    }

    // rows = rms_norm(rows + down swiglu(rows))
    void mlp(float* h, int rows, int layer, MatrixKind gate_up, MatrixKind down, int step, cudaStream_t stream) {
        const int inner = weights_->matrix(layer, down).k;
        product(h, rows, layer, gate_up, step, wide_.get(), stream);
        launch(swiglu, {blocks_for(area(rows, inner)), kThreads}, stream, wide_.get(), rows, inner, inner_.get());
        product(inner_.get(), rows, layer, down, step, delta_.get(), stream);
        normalise(h, rows, weights_->matrix(layer, down).n, stream);
    }

    void normalise(float* h, int rows, int n, cudaStream_t stream) {
        launch(add_norm, {static_cast<unsigned>(rows), kThreads}, stream, h, delta_.get(), n, weights_->shape.norm_eps);
    }

    void product(const float* in, int rows, int layer, MatrixKind kind, int step, float* out, cudaStream_t stream) {
        const PlainMatrix& m = weights_->matrix(layer, kind);
        const dim3 grid(static_cast<unsigned>((m.n + kThreads / 32 - 1) / (kThreads / 32)));
        if (m.precision != Precision::kInt8) {
            launch(linear, {grid, kThreads}, stream, in, m.floats.get(), rows, m.n, m.k, m.precision, out);
            return;
        }
        const Quantization& q = weights_->quantization;
        const size_t scales = q.precision.size() * kMatricesPerBlock;
        const size_t at = static_cast<size_t>(std::min(step, q.steps - 1)) * scales +
                          static_cast<size_t>(layer * kMatricesPerBlock + kind);
        const float given = q.steps == 0 ? 0.0f : q.input_scale[at];
        launch(quantize, {static_cast<unsigned>(rows), kThreads}, stream, in, m.k, m.words, given, bytes_.get(),
               scales_.get());
        launch(linear_int8, {grid, kThreads}, stream, bytes_.get(), scales_.get(), m.bytes.get(), m.floats.get(), rows,
               m.n, m.words, out);
    }

    std::shared_ptr<const PlainWeights> weights_;
    DeviceBuffer<float> e_, y_, z_, turned_, delta_, wide_, inner_, scales_;
    DeviceBuffer<int8_t> bytes_;
    int steps_ = 0;
    GraphCache graphs_;
};

}  // namespace

std::shared_ptr<const Weights> plain_weights(const Spec& spec, const NetShape& shape, const Quantization& quantization,
                                             const Tensors& weights) {
    return std::make_shared<const PlainWeights>(spec, shape, quantization, weights);
}

std::unique_ptr<Runner> plain_runner(std::shared_ptr<const Weights> weights) {
    return std::make_unique<PlainRunner>(std::static_pointer_cast<const PlainWeights>(weights));
}

}  // namespace trm::cuda
