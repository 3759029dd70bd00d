#include "core/model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/status.h"

namespace trm {
namespace {

// Takes tensors out of a bundle by name, so that packed ones are not kept twice.
class Weights {
  public:
    explicit Weights(std::map<std::string, std::vector<float>>& tensors) : tensors_(tensors) {}

    std::vector<float> take(const std::string& name) { return std::move(tensors_.at(name)); }
    const float* data(const std::string& name) const { return tensors_.at(name).data(); }

    Linear linear(const Kernels& kernels, const std::string& name, int n, int k) {
        Linear layer{n, k, make_buffer<Word>(kernels.linear_words(n, k))};
        kernels.pack_linear(take(name).data(), n, k, layer.packed.get());
        return layer;
    }

    Encoder encoder(const Kernels& kernels, const std::string& name, const std::string& input, int n, int k) {
        return {linear(kernels, name, n, k), take("normalization." + input + ".mean"),
                take("normalization." + input + ".std")};
    }

  private:
    std::map<std::string, std::vector<float>>& tensors_;
};

constexpr float kFp16End = 65520;         // from here on a value rounds to infinity
constexpr int kMaxInt8Columns = 1 << 17;  // products of bytes, and their sums of this length, fit into 32 bits

Quantization uniform(const Spec& spec, Precision precision) {
    Quantization quantization;
    quantization.precision.assign(static_cast<size_t>(spec.num_layers),
                                  BlockPrecision{{precision, precision, precision, precision}});
    return quantization;
}

bool means_calibrated(const Quantization& calibrated, PrecisionChoice choice) {
    return !calibrated.precision.empty() && (choice == PrecisionChoice::kAuto || choice == PrecisionChoice::kInt8);
}

Quantization chosen(const Spec& spec, const Quantization& calibrated, PrecisionChoice choice) {
    if (means_calibrated(calibrated, choice)) return calibrated;
    switch (choice) {
        case PrecisionChoice::kInt8:
            return uniform(spec, Precision::kInt8);
        case PrecisionChoice::kBf16:
            return uniform(spec, Precision::kBf16);
        case PrecisionChoice::kFp16:
            return uniform(spec, Precision::kFp16);
        case PrecisionChoice::kW8a16:
            return uniform(spec, Precision::kW8a16);
        case PrecisionChoice::kAuto:
        case PrecisionChoice::kFp32:
            break;
    }
    return uniform(spec, Precision::kFp32);
}

Precision lowest(const Quantization& quantization) {
    Precision precision = Precision::kFp32;
    for (const BlockPrecision& block : quantization.precision) {
        for (const Precision of : block.of) precision = std::max(precision, of);
    }
    return precision;
}

void check_int8_sizes(const Spec& spec) {
    const int longest = std::max({spec.hidden_size, spec.inner_size, spec.token_inner_size, spec.max_rows()});
    if (longest <= kMaxInt8Columns) return;
    throw Error(Status::kUnsupported, "precision: int8 takes matrices of at most " + std::to_string(kMaxInt8Columns) +
                                          " columns, this model has " + std::to_string(longest) +
                                          "; load it as bf16 or fp32");
}

void check_fp16_weights(const Tensors& weights) {
    for (const auto& [name, values] : weights) {
        if (name.rfind("blocks.", 0) != 0) continue;
        float most = 0;
        for (const float value : values) most = std::max(most, std::fabs(value));
        if (most < kFp16End) continue;
        char number[32];
        std::snprintf(number, sizeof number, "%g", static_cast<double>(most));
        throw Error(Status::kUnsupported,
                    "precision fp16: " + name + " holds " + number + ", beyond float16; use bf16");
    }
}

NetShape net_shape(const Spec& spec, const Quantization& quantization) {
    NetShape shape{};
    shape.hidden_size = spec.hidden_size;
    shape.num_heads = spec.num_heads;
    shape.inner_size = spec.inner_size;
    shape.num_layers = spec.num_layers;
    shape.token_mixing = spec.mixer == Mixer::kMlpT;
    shape.token_inner_size = spec.token_inner_size;
    shape.token_rows = shape.token_mixing ? spec.max_rows() : 0;
    shape.rope = spec.positions == Positions::kRope;
    shape.norm_eps = static_cast<float>(spec.norm_eps);
    shape.precision = quantization.precision.data();
    return shape;
}

Buffer<Word> pack_net(const Kernels& kernels, const NetShape& shape, const Weights& weights) {
    std::vector<BlockWeights> blocks(static_cast<size_t>(shape.num_layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        BlockWeights& block = blocks[i];
        block = BlockWeights{};
        if (shape.token_mixing) {
            block.token_gate_up = weights.data(name + "token_mixer.gate_up.weight");
            block.token_down = weights.data(name + "token_mixer.down.weight");
        } else {
            block.qkv = weights.data(name + "attention.qkv.weight");
            block.out = weights.data(name + "attention.out.weight");
        }
        block.gate_up = weights.data(name + "mlp.gate_up.weight");
        block.down = weights.data(name + "mlp.down.weight");
    }
    Buffer<Word> packed = make_buffer<Word>(kernels.net_words(shape));
    kernels.pack_net(shape, blocks.data(), packed.get());
    return packed;
}

}  // namespace

Model::Model(Bundle bundle, const Kernels& table, PrecisionChoice choice, MakeDevice make_device)
    : spec(bundle.spec),
      metadata(std::move(bundle.metadata)),
      kernels(table),
      quantization(chosen(spec, bundle.quantization, choice)),
      as_calibrated(means_calibrated(bundle.quantization, choice)),
      shape(net_shape(spec, quantization)) {
    precision = lowest(quantization);
    if (precision == Precision::kInt8) check_int8_sizes(spec);
    if ((precision == Precision::kFp16 || precision == Precision::kW8a16) && !make_device)
        throw Error(Status::kUnsupported, std::string("precision: ") + precision_name() +
                                              " is for backend cuda; this one has fp32, bf16 and int8");
    if (precision == Precision::kFp16) check_fp16_weights(bundle.weights);
    const int D = spec.hidden_size;
    if (make_device) device = make_device(spec, shape, quantization, bundle.weights);
    Weights weights(bundle.weights);
    if (!device) net = pack_net(kernels, shape, weights);
    if (!device && shape.rope) {
        rope = make_buffer<float>(kernels.rope_floats(shape, spec.max_rows()));
        kernels.pack_rope(shape, spec.max_rows(), static_cast<float>(spec.rope_theta), rope.get());
    }
    y_init = weights.take("y_init");
    z_init = weights.take("z_init");
    halt_weight = weights.take("halt_head.weight");
    halt_bias = weights.take("halt_head.bias").front();
    if (spec.positions == Positions::kLearned) position_embedding = weights.take("position_embedding");
    if (spec.max_context) {
        context = weights.encoder(kernels, "context_encoder.weight", "x", D, spec.context_size);
    }
    switch (spec.answer) {
        case Answer::kActions:
            registers = weights.take("registers");
            time_embedding = weights.take("time_embedding");
            if (spec.feature_size) {
                features = weights.encoder(kernels, "features_encoder.weight", "features", D, spec.feature_size);
            }
            draft = weights.encoder(kernels, "answer_encoder.weight", "y0", D, spec.dof);
            decoder = weights.linear(kernels, "answer_decoder.weight", spec.dof, D);
            lower = weights.take("limits.lower");
            upper = weights.take("limits.upper");
            velocity = weights.take("limits.velocity");
            break;
        case Answer::kSlots:
            registers = weights.take("registers");
            slots = weights.encoder(kernels, "slot_encoder.weight", "slots", D, spec.slot_size);
            key = weights.encoder(kernels, "key.weight", "candidates", D, spec.candidate_size);
            key_none = weights.take("key_none");
            query = weights.linear(kernels, "query.weight", D, D);
            break;
        case Answer::kTokens:
            if (spec.registers) registers = weights.take("puzzle_embedding");
            token_embedding = weights.take("token_embedding");
            decoder = weights.linear(kernels, "answer_decoder.weight", spec.vocab_size, D);
            break;
    }
}

const char* Model::precision_name() const {
    static const char* const names[] = {"fp32", "fp16", "bf16", "w8a16", "int8"};
    return names[static_cast<size_t>(precision)];
}

const float* Model::input_scale(int step) const {
    if (quantization.steps == 0) return nullptr;
    const size_t scales = quantization.precision.size() * kMatricesPerBlock;
    return quantization.input_scale.data() + static_cast<size_t>(std::min(step, quantization.steps - 1)) * scales;
}

}  // namespace trm
