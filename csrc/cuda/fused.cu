#include <cuda_pipeline.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cuda/barrier.cuh"
#include "cuda/check.h"
#include "cuda/fused.h"
#include "cuda/graph.h"
#include "cuda/phases.cuh"
#include "cuda/rope.h"

namespace trm::cuda {
namespace {

extern __shared__ uint4 shared_memory[];

// Products need tensor cores for bfloat16, which are also those that take float16 in these shapes; for what is older,
// kernels are empty, and why_not_fused keeps them away.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define TRM_HAS_BF16_MMA 1
#else
#define TRM_HAS_BF16_MMA 0
#endif

// ---- The persistent kernel ----

template <class C>
__device__ void fetch_weights(const C& c, const Matrix& m, Range tiles, int chunks) {
    if (m.resident < 0) return;
    const uint4* from = m.packed + static_cast<size_t>(tiles.begin) * chunks * 32;
    for (int i = c.thread; i < tiles.size() * chunks * 32; i += kThreads)
        __pipeline_memcpy_async(c.shared + m.resident + i, from + i, sizeof(uint4));
}

// Between the wide phase of a sublayer and the narrow one, while values are on their way, three warps of a CTA do what
// nobody waits for: tell the others that this CTA has read what the sublayer starts from; clear places that all CTAs
// have read for good; and keep rows for later evaluations.
template <class C>
__device__ __forceinline__ void keep_house(const C& c, const GridBarriers& barriers, const Moment& m) {
    if (c.warp == kWarps - 1 && c.lane_number() == 0) barriers.arrive(m.number + 1);
    if (c.warp == kWarps - 2 && m.number >= kReadBefore) {
        barriers.wait(m.number);
        clear_places(c, m.number - kReadBefore, c.number * 32 + c.lane_number(), c.plan.ctas * 32);
    }
    if (c.warp == kWarps - 3) keep_rows(c, source_of(c.p, m), keep_of(c.p, m), c.lane_number(), 32);
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1) persistent(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    const Cta<Element, kHidden, kHeadChunks, true> c(p, shared_memory);
    for (int i = 0; i < p.plan.layers; ++i) {
        const int wide = p.plan.hidden / kChunk, deep = p.plan.inner / kChunk;
        fetch_weights(c, p.layer[i].qkv, c.own().qkv, wide);
        fetch_weights(c, p.layer[i].out, c.own().hidden, wide);
        fetch_weights(c, p.layer[i].gate_up, c.own().inner, wide);
        fetch_weights(c, p.layer[i].down, c.own().hidden, deep);
    }
    __pipeline_commit();
    start_phase(c);
    __pipeline_wait_prior(0);
    const GridBarriers barriers(p.arrivals, p.plan.ctas);
    __syncthreads();
    if (c.thread == 0) barriers.arrive(0);
    barriers.wait(0);
    // One loop over all sublayers: several copies of the code would not stay in the instruction cache.
#pragma unroll 1
    for (Moment m{}; m.step < p.steps; advance(p, m)) {
        if (p.plan.layers == 1 && m.s == 0 && m.number > 0) barriers.wait(m.number);  // rows kept two sublayers ago
        wide_phase(c, m);
        keep_house(c, barriers, m);
        narrow_phase<kHeadChunks>(c, m);
    }
    finish_phase(c);
    if (c.thread == 0) barriers.leave();
#endif
}

// ---- The same phases as kernels of their own ----

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads) start_kernel(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    start_phase(Cta<Element, kHidden, kHeadChunks, false>(p, shared_memory));
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1)
    wide_kernel(const __grid_constant__ Params p, const __grid_constant__ Moment m) {
#if TRM_HAS_BF16_MMA
    wide_phase(Cta<Element, kHidden, kHeadChunks, false>(p, shared_memory), m);
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1)
    narrow_kernel(const __grid_constant__ Params p, const __grid_constant__ Moment m) {
#if TRM_HAS_BF16_MMA
    const Cta<Element, kHidden, kHeadChunks, false> c(p, shared_memory);
    float* inverse = c.inverse(sublayer_of(m));
    for (int row = c.thread; row < p.rows; row += kThreads) inverse[row] = p.norms[row];  // of the wide phase
    __syncthreads();
    keep_rows(c, source_of(p, m), keep_of(p, m), c.thread, kThreads);
    narrow_phase<kHeadChunks>(c, m);
#endif
}

template <class Element, int kHidden, int kHeadChunks>
__global__ void __launch_bounds__(kThreads, 1) finish_kernel(const __grid_constant__ Params p) {
#if TRM_HAS_BF16_MMA
    finish_phase(Cta<Element, kHidden, kHeadChunks, false>(p, shared_memory));
#endif
}

// ---- Choice of the instance ----

struct Kernels {
    Precision precision;
    int hidden, head;  // the sizes that these are for
    uint16_t (*bits)(float);
    void (*persistent)(Params);
    void (*start)(Params);
    void (*wide)(Params, Moment);
    void (*narrow)(Params, Moment);
    void (*finish)(Params);
};

template <class Element, int kHidden, int kHeadChunks>
constexpr Kernels kKernels = {Element::kPrecision,
                              kHidden,
                              kHeadChunks * kChunk,
                              Element::bits,
                              persistent<Element, kHidden, kHeadChunks>,
                              start_kernel<Element, kHidden, kHeadChunks>,
                              wide_kernel<Element, kHidden, kHeadChunks>,
                              narrow_kernel<Element, kHidden, kHeadChunks>,
                              finish_kernel<Element, kHidden, kHeadChunks>};

// What there are kernels for.
const Kernels* const kInstances[] = {
    &kKernels<Bf16, 64, 1>,  &kKernels<Bf16, 128, 1>, &kKernels<Bf16, 256, 1>, &kKernels<Bf16, 256, 2>,
    &kKernels<Bf16, 512, 2>, &kKernels<Fp16, 64, 1>,  &kKernels<Fp16, 128, 1>, &kKernels<Fp16, 256, 1>,
    &kKernels<Fp16, 256, 2>, &kKernels<Fp16, 512, 2>,
};

const Kernels* kernels_for(const Spec& spec, Precision precision) {
    const int head = spec.hidden_size / spec.num_heads;
    for (const Kernels* kernels : kInstances)
        if (kernels->precision == precision && kernels->hidden == spec.hidden_size && kernels->head == head)
            return kernels;
    return nullptr;
}

// ---- Weights in fragments ----

// [tiles][columns / kChunk][32 lanes][8], where row_of(tile, column) is the row of w [.., columns] to take.
template <typename RowOf>
void pack(const Kernels& kernels, const float* w, int columns, int tiles, RowOf&& row_of, uint16_t* out) {
    for (int tile = 0; tile < tiles; ++tile) {
        for (int first = 0; first < columns; first += kChunk) {
            for (int number = 0; number < 32; ++number) {
                const Lane lane(number);
                const float* from = w + static_cast<size_t>(row_of(tile, lane.group)) * static_cast<size_t>(columns);
                for (int i = 0; i < 8; ++i) *out++ = kernels.bits(from[first + lane.k(i)]);
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
    DeviceBuffer<uint16_t> packed;
    DeviceBuffer<float2> rope;

  private:
    void place(int working_bytes);
};

Plan plan_of(const Spec& spec, const DeviceProperties& device) {
    Plan plan{spec.hidden_size, spec.num_heads,  spec.inner_size,
              spec.num_layers,  spec.max_rows(), device.multiprocessors};
    const int most =
        std::max({plan.qkv_tiles(), plan.inner_pairs(), plan.hidden_tiles() * div_up(plan.max_rows, kRowTile)});
    plan.ctas = std::min(device.multiprocessors, most);
    return plan;
}

size_t words_of(const Plan& plan) {  // of all matrices of a layer, two bytes each
    const size_t D = static_cast<size_t>(plan.hidden), I = static_cast<size_t>(plan.inner);
    return 4 * D * D + 3 * D * I;
}

FusedWeights::FusedWeights(const Spec& s, const NetShape& net, const Tensors& weights,
                           const DeviceProperties& properties)
    : spec(s),
      device(properties),
      kernels(*kernels_for(s, net.precision[0].of[0])),
      packed(words_of(plan_of(s, properties)) * static_cast<size_t>(s.num_layers)),
      rope(net.rope ? static_cast<size_t>(s.max_rows() * (s.hidden_size / s.num_heads / 2)) : 0) {
    const Plan plan = plan_of(spec, device);
    params.plan = plan;
    std::vector<uint16_t> host(words_of(plan) * static_cast<size_t>(plan.layers));
    size_t used = 0;
    for (int i = 0; i < plan.layers; ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        const auto add = [&](const char* tensor, int columns, int tiles, auto&& row_of) {
            pack(kernels, weights.at(name + tensor).data(), columns, tiles, row_of, host.data() + used);
            const Matrix matrix{reinterpret_cast<const uint4*>(packed.get() + used), -1};
            used += static_cast<size_t>(tiles) * kColumnTile * static_cast<size_t>(columns);
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
    TRM_CUDA(cudaMemcpy(packed.get(), host.data(), used * sizeof(uint16_t), cudaMemcpyHostToDevice));
    if (net.rope) {
        const std::vector<float2> table = rope_table(spec);
        TRM_CUDA(cudaMemcpy(rope.get(), table.data(), table.size() * sizeof(float2), cudaMemcpyHostToDevice));
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
    const int wide = plan.hidden / kChunk * 32, deep = plan.inner / kChunk * 32;
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
    FusedRunner(std::shared_ptr<const FusedWeights> weights, bool persistent)
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
        if (!persistent_) forget_residence();
        const Kernels& k = weights_->kernels;
        allow_shared(reinterpret_cast<const void*>(k.persistent), weights_->shared_bytes);
        for (const void* kernel : {reinterpret_cast<const void*>(k.start), reinterpret_cast<const void*>(k.wide),
                                   reinterpret_cast<const void*>(k.narrow), reinterpret_cast<const void*>(k.finish)})
            allow_shared(kernel, weights_->phase_shared_bytes);
        if (persistent_) check_fit();
    }

    void enqueue(const Run& run, cudaStream_t stream) override {
        Params p = params_;
        p.rows = weights_->spec.registers + run.answer_rows + run.context_rows;
        p.answer_end = weights_->spec.registers + run.answer_rows;
        p.position_shift = weights_->spec.answer_rows - run.answer_rows;
        p.steps = run.steps;
        p.begin = run.begin;
        p.refresh = run.refresh;
        p.host_e = run.e;
        p.host_y = run.y;
        p.host_z = run.z;
        p.host_out = run.out;
        if (persistent_) {
            void* arguments[] = {&p};
            TRM_CUDA(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(weights_->kernels.persistent),
                                                 p.plan.ctas, kThreads, arguments,
                                                 static_cast<size_t>(weights_->shared_bytes), stream));
            return;
        }
        graphs_.launch({p.rows, p.answer_end, p.steps, p.begin, p.refresh}, stream, [&] { enqueue_phases(p, stream); });
    }

  private:
    const Plan& plan() const { return weights_->params.plan; }

    static void allow_shared(const void* kernel, int bytes) {
        TRM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }

    void forget_residence() {
        for (Layer& layer : params_.layer)
            layer.qkv.resident = layer.out.resident = layer.gate_up.resident = layer.down.resident = -1;
    }

    // A cooperative launch wants all CTAs on the device at once.
    void check_fit() const {
        int blocks = 0;
        TRM_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, weights_->kernels.persistent, kThreads,
                                                               static_cast<size_t>(weights_->shared_bytes)));
        if (blocks * weights_->device.multiprocessors >= plan().ctas) return;
        throw Error(Status::kUnsupported, "cuda: the persistent kernel does not fit this device all at once");
    }

    void enqueue_phases(const Params& p, cudaStream_t stream) const {
        const Kernels& k = weights_->kernels;
        const dim3 grid(static_cast<unsigned>(p.plan.ctas));
        const size_t bytes = static_cast<size_t>(weights_->phase_shared_bytes);
        k.start<<<grid, kThreads, bytes, stream>>>(p);
        for (Moment m{}; m.step < p.steps; advance(p, m)) {
            k.wide<<<grid, kThreads, bytes, stream>>>(p, m);
            k.narrow<<<grid, kThreads, bytes, stream>>>(p, m);
        }
        k.finish<<<grid, kThreads, bytes, stream>>>(p);
        TRM_CUDA(cudaGetLastError());
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
    bool sixteen_bits = first == Precision::kBf16 || first == Precision::kFp16;
    for (int i = 0; i < shape.num_layers; ++i)
        for (const Precision precision : shape.precision[i].of) sixteen_bits = sixteen_bits && precision == first;
    if (!sixteen_bits) return "it multiplies all matrices in bf16, or all in fp16";
    if (kernels_for(spec, first) == nullptr)
        return "there are kernels for hidden_size 64, 128, 256 and 512 with heads of 32, and 256 and 512 with heads of "
               "64";
    if (spec.inner_size % kChunk != 0) return "inner_size has to be a multiple of " + number(kChunk);
    if (spec.max_rows() > kMaxRows) return "it takes up to " + number(kMaxRows) + " rows";
    if (spec.num_layers > kMaxLayers) return "it holds up to " + number(kMaxLayers) + " layers";
    return "";
}

std::shared_ptr<const Weights> fused_weights(const Spec& spec, const NetShape& shape, const Tensors& weights,
                                             const DeviceProperties& device) {
    return std::make_shared<const FusedWeights>(spec, shape, weights, device);
}

std::unique_ptr<Runner> fused_runner(std::shared_ptr<const Weights> weights, bool persistent) {
    return std::make_unique<FusedRunner>(std::static_pointer_cast<const FusedWeights>(weights), persistent);
}

}  // namespace trm::cuda
