#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "core/memory.h"
#include "cuda/barrier.cuh"
#include "cuda/check.h"
#include "cuda/element.cuh"
#include "cuda/fused.h"
#include "cuda/graph.h"
#include "cuda/instances.h"
#include "cuda/int8_weights.h"
#include "cuda/launch.h"
#include "cuda/phases.cuh"
#include "cuda/rope.h"

namespace trm::cuda {
namespace {

const Kernels* kernels_for(const Spec& spec, Precision precision) {
    const int hidden = spec.hidden_size, head = hidden / spec.num_heads;
    switch (precision) {
        case Precision::kBf16:
            return bf16_kernels(hidden, head);
        case Precision::kFp16:
            return fp16_kernels(hidden, head);
        case Precision::kW8a16:
            return w8a16_kernels(hidden, head);
        default:
            return nullptr;
    }
}

// ---- Weights in fragments ----

// [tiles][columns / kChunk][32 lanes][8], where row_of(tile, column) is the row of w [.., columns] to take, and bits(w)
// what a weight is stored as.
template <typename T, typename RowOf, typename Bits>
void pack(const T* w, int columns, int tiles, RowOf&& row_of, Bits&& bits, std::vector<std::byte>* out) {
    for (int tile = 0; tile < tiles; ++tile) {
        for (int first = 0; first < columns; first += kChunk) {
            for (int number = 0; number < 32; ++number) {
                const Lane lane(number);
                const T* from = w + static_cast<size_t>(row_of(tile, lane.group)) * static_cast<size_t>(columns);
                for (int i = 0; i < 8; ++i) {
                    const auto stored = bits(from[first + lane.k(i)]);
                    const auto* bytes = reinterpret_cast<const std::byte*>(&stored);
                    out->insert(out->end(), bytes, bytes + sizeof stored);
                }
            }
        }
    }
}

constexpr int kUint4 = 16;

struct FusedWeights : Weights {
    FusedWeights(const Spec& s, const NetShape& net, const Tensors& weights, const DeviceProperties& properties);

    Spec spec;
    DeviceProperties device;
    Params params{};  // all but what a session and a run add
    const Kernels& kernels;
    int shared_bytes = 0, phase_shared_bytes = 0;
    DeviceBuffer<std::byte> packed;
    DeviceBuffer<float> scales;
    DeviceBuffer<float2> rope;

  private:
    void place(int working_bytes);
};

// Whether the weights that are not in shared memory, which every evaluation reads again, come from DRAM each time: half
// of L2 is for them.
bool from_dram(const Params& params, int fragment, const DeviceProperties& device) {
    const Plan& plan = params.plan;
    size_t weights = 0;
    const auto add = [&](const Matrix& matrix, int rows, int columns) {
        if (matrix.resident < 0) weights += area(rows, columns);
    };
    for (int i = 0; i < plan.layers; ++i) {
        const Layer& layer = params.layer[i];
        add(layer.qkv, 3 * plan.hidden, plan.hidden);
        add(layer.out, plan.hidden, plan.hidden);
        add(layer.gate_up, 2 * plan.inner, plan.hidden);
        add(layer.down, plan.hidden, plan.inner);
    }
    return weights * static_cast<size_t>(fragment) / 8 > static_cast<size_t>(device.l2_cache) / 2;
}

Plan plan_of(const Spec& spec, const DeviceProperties& device) {
    Plan plan{spec.hidden_size, spec.num_heads,  spec.inner_size,
              spec.num_layers,  spec.max_rows(), device.multiprocessors};
    const int most =
        std::max({plan.qkv_tiles(), plan.inner_pairs(), plan.hidden_tiles() * div_up(plan.max_rows, kRowTile)});
    plan.ctas = std::min(device.multiprocessors, most);
    return plan;
}

// Of all matrices.
size_t weights_of(const Spec& spec) {
    return area(spec.num_layers * spec.hidden_size, 4 * spec.hidden_size + 3 * spec.inner_size);
}
size_t rows_of(const Spec& spec) { return area(spec.num_layers, 5 * spec.hidden_size + 2 * spec.inner_size); }

FusedWeights::FusedWeights(const Spec& s, const NetShape& net, const Tensors& weights,
                           const DeviceProperties& properties)
    : spec(s),
      device(properties),
      kernels(*kernels_for(s, net.precision[0].of[0])),
      packed(weights_of(s) * static_cast<size_t>(kernels.fragment) / 8),
      scales(net.precision[0].of[0] == Precision::kW8a16 ? rows_of(s) : 0) {
    const Plan plan = plan_of(spec, device);
    params.plan = plan;
    const Precision precision = net.precision[0].of[0];
    std::vector<std::byte> host;
    std::vector<float> host_scales;
    host.reserve(weights_of(spec) * static_cast<size_t>(kernels.fragment) / 8);
    for (int i = 0; i < plan.layers; ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        const auto add = [&](const char* tensor, int columns, int tiles, auto&& row_of) {
            const std::vector<float>& w = weights.at(name + tensor);
            const Matrix matrix{packed.get() + host.size(), scales.get() + host_scales.size(), -1};
            if (precision != Precision::kW8a16) {
                pack(w.data(), columns, tiles, row_of, precision == Precision::kFp16 ? Fp16::bits : Bf16::bits, &host);
                return matrix;
            }
            const Int8Weights rounded = int8_weights(w, static_cast<size_t>(columns));
            pack(rounded.values.data(), columns, tiles, row_of, W8a16::byte, &host);
            for (int tile = 0; tile < tiles; ++tile)
                for (int column = 0; column < kColumnTile; ++column)
                    host_scales.push_back(rounded.scales[static_cast<size_t>(row_of(tile, column))]);
            return matrix;
        };
        const auto plain = [](int tile, int column) { return tile * kColumnTile + column; };
        Layer& layer = params.layer[i];
        layer.qkv = add("attention.qkv.weight", plan.hidden, plan.qkv_tiles(),
                        [&](int tile, int column) { return plan.qkv_row(tile, column); });
        layer.out = add("attention.out.weight", plan.hidden, plan.hidden_tiles(), plain);
        layer.gate_up = add("mlp.gate_up.weight", plan.hidden, 2 * plan.inner_pairs(),
                            [&](int tile, int column) { return tile % 2 * plan.inner + plain(tile / 2, column); });
        layer.down = add("mlp.down.weight", plan.inner, plan.hidden_tiles(), plain);
    }
    packed.write(host);
    scales.write(host_scales);
    if (net.rope) {
        rope = DeviceBuffer<float2>(rope_table(spec));
        params.rope = rope.get();
    }
    params.norm_eps = net.norm_eps;
    params.query_scale = 1.0f / std::sqrt(static_cast<float>(plan.head_size()));
    params.l_cycles = spec.l_cycles;
    params.h_cycles = spec.h_cycles;

    const int operand = std::max(kBlockRows * operand_stride(plan.hidden), kWarps * kNarrowSlots * 32);
    const int partial = kWarps * kWideSlots * 32;
    const int inverse = div_up(2 * plan.row_stride() * static_cast<int>(sizeof(float)), kUint4);
    params.operand_offset = 0;
    params.partial_offset = operand;
    params.inverse_offset = operand + partial;
    params.own_offset = operand + partial + inverse;
    const int own = div_up(static_cast<int>(sizeof(Own)), kUint4);
    phase_shared_bytes = (operand + partial + inverse + own) * kUint4;
    place(phase_shared_bytes);
    // The most there is, and not what this model needs: other models use the same kernels.
    for (const void* kernel :
         {reinterpret_cast<const void*>(kernels.persistent), reinterpret_cast<const void*>(kernels.start),
          reinterpret_cast<const void*>(kernels.wide), reinterpret_cast<const void*>(kernels.narrow),
          reinterpret_cast<const void*>(kernels.finish)})
        TRM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, device.shared_memory));
}

// Give the matrices of the persistent kernel a place in shared memory, as many as fit; the others are read from L2.
void FusedWeights::place(int working_bytes) {
    const Plan& plan = params.plan;
    int used = working_bytes / kUint4;
    const auto largest = [&](auto&& share_of) {
        int most = 0;
        for (int cta = 0; cta < plan.ctas; ++cta) most = std::max(most, share_of(cta).size());
        return most;
    };
    const int hidden = largest([&](int cta) { return plan.hidden_share(cta); });
    const int chunk = 32 * kernels.fragment / kUint4;
    const int wide = plan.hidden / kChunk * chunk, deep = plan.inner / kChunk * chunk;
    const auto give = [&](Matrix& matrix, int size) {
        if ((used + size) * kUint4 > device.shared_memory) return;
        matrix.resident = used;
        used += size;
    };
    for (int i = 0; i < plan.layers; ++i) {
        Layer& layer = params.layer[i];
        give(layer.gate_up, largest([&](int cta) { return plan.inner_share(cta); }) * wide);
        give(layer.down, hidden * deep);
        give(layer.qkv, largest([&](int cta) { return plan.qkv_share(cta); }) * wide);
        give(layer.out, hidden * wide);
    }
    shared_bytes = used * kUint4;
}

// ---- Runners ----

class FusedRunner : public Runner {
  public:
    FusedRunner(std::shared_ptr<const FusedWeights> weights, bool persistent, const HaltHead& halt_head)
        : weights_(std::move(weights)),
          persistent_(persistent),
          rows_(static_cast<size_t>(plan().rows_size()) * (5 + 2 * kCopies)),
          norms_(static_cast<size_t>(plan().row_stride())),
          halves_(static_cast<size_t>(3 * plan().rows_size() + plan().inner_size()) * kCopies),
          arrivals_(GridBarriers::kCounters) {
        const size_t one = static_cast<size_t>(plan().rows_size());
        params_ = weights_->params;
        float** const rows[] = {&params_.e, &params_.y, &params_.z, &params_.ye, &params_.ze, &params_.state};
        for (size_t i = 0; i < 6; ++i) *rows[i] = rows_.get() + i * one;
        params_.middle = params_.state + kCopies * one;
        params_.qkv = halves_.get();
        params_.inner = params_.qkv + 3 * kCopies * one;
        params_.norms = norms_.get();
        params_.arrivals = arrivals_.get();
        params_.halt_weight = halt_head.weight;
        params_.halt_bias = halt_head.bias;
        if (!persistent_) forget_residence();
        params_.from_dram = from_dram(params_, weights_->kernels.fragment, weights_->device);
    }

    void enqueue(const Run& run, cudaStream_t stream) override {
        Params p = params_;
        p.rows = weights_->spec.registers + run.answer_rows + run.context_rows;
        p.answer_end = weights_->spec.registers + run.answer_rows;
        p.position_shift = weights_->spec.answer_rows - run.answer_rows;
        p.steps = run.steps;
        p.begin = run.begin;
        p.refresh = run.refresh;
        p.given_e = run.e;
        p.given_y = run.y;
        p.given_z = run.z;
        p.out = run.out;
        p.halt = run.halt;
        p.ran = run.ran;
        if (persistent_) {
            launch<true>(weights_->kernels.persistent, grid_of(weights_->shared_bytes), stream, p);
            return;
        }
        graphs_.launch({p.rows, p.answer_end, p.steps, p.begin, p.refresh}, stream,
                       [&](cudaStream_t on) { enqueue_phases(p, on); });
    }

    bool stops_early() const override { return persistent_; }

  private:
    const Plan& plan() const { return weights_->params.plan; }

    Grid grid_of(int shared_bytes) const {
        return {static_cast<unsigned>(plan().ctas), kThreads, static_cast<size_t>(shared_bytes)};
    }

    void forget_residence() {
        for (Layer& layer : params_.layer)
            layer.qkv.resident = layer.out.resident = layer.gate_up.resident = layer.down.resident = -1;
    }

    void enqueue_phases(const Params& p, cudaStream_t stream) const {
        const Kernels& k = weights_->kernels;
        const Grid grid = grid_of(weights_->phase_shared_bytes);
        launch(k.start, grid, stream, p);
        for (Moment m{}; m.step < p.steps; advance(p, m)) {
            launch(k.wide, grid, stream, p, m);
            launch(k.narrow, grid, stream, p, m);
        }
        launch(k.finish, grid, stream, p);
    }

    std::shared_ptr<const FusedWeights> weights_;
    bool persistent_;
    DeviceBuffer<float> rows_, norms_;
    DeviceBuffer<uint16_t> halves_;
    DeviceBuffer<unsigned> arrivals_;
    Params params_{};
    GraphCache graphs_;
};

}  // namespace

std::string why_not_fused(const Spec& spec, const NetShape& shape, const DeviceProperties& device) {
    const auto number = [](int n) { return std::to_string(n); };
    if (device.major < 8)
        return "it needs compute capability 8.0, this device has " + number(device.major) + "." + number(device.minor);
    if (shape.token_mixing) return "it mixes tokens by attention, not by a SwiGLU";
    const Precision first = shape.precision[0].of[0];
    bool known = first == Precision::kBf16 || first == Precision::kFp16 || first == Precision::kW8a16;
    for (int i = 0; i < shape.num_layers; ++i)
        for (const Precision precision : shape.precision[i].of) known = known && precision == first;
    if (!known) return "it multiplies all matrices in bf16, or all in fp16 or w8a16";
    const Kernels* kernels = kernels_for(spec, first);
    if (kernels == nullptr)
        return "there are kernels for hidden_size 64, 128, 256 and 512 with heads of 32, and 256 and 512 with heads of "
               "64";
    if (spec.inner_size % kChunk != 0) return "inner_size has to be a multiple of " + number(kChunk);
    if (spec.max_rows() > kMaxRows) return "it takes up to " + number(kMaxRows) + " rows";
    if (spec.num_layers > kMaxLayers) return "it holds up to " + number(kMaxLayers) + " layers";
    cudaFuncAttributes code{};  // this device may also run what was compiled for an older one
    TRM_CUDA(cudaFuncGetAttributes(&code, reinterpret_cast<const void*>(kernels->persistent)));
    if (code.ptxVersion < 80)
        return "this build has its kernels for compute capability " + number(code.ptxVersion / 10) + "." +
               number(code.ptxVersion % 10) +
               ", where they are empty; set TRM_EDGE_CUDA_TARGETS to that of this device, " + number(device.major) +
               "." + number(device.minor) + ", and build again";
    return "";
}

std::shared_ptr<const Weights> fused_weights(const Spec& spec, const NetShape& shape, const Tensors& weights,
                                             const DeviceProperties& device) {
    return std::make_shared<const FusedWeights>(spec, shape, weights, device);
}

bool fits_at_once(const Weights& fused) {
    const FusedWeights& weights = static_cast<const FusedWeights&>(fused);
    int blocks = 0;
    TRM_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, weights.kernels.persistent, kThreads,
                                                           static_cast<size_t>(weights.shared_bytes)));
    return blocks * weights.device.multiprocessors >= weights.params.plan.ctas;
}

std::unique_ptr<Runner> fused_runner(std::shared_ptr<const Weights> weights, bool persistent,
                                     const HaltHead& halt_head) {
    return std::make_unique<FusedRunner>(std::static_pointer_cast<const FusedWeights>(weights), persistent, halt_head);
}

}  // namespace trm::cuda
