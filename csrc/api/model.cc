// Loading a model, asking about it, creating a session.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <new>
#include <string>

#include "api/handles.h"
#include "api/message.h"
#include "core/bundle.h"
#include "core/status.h"
#include "cpu/dispatch.h"
#ifdef TRM_HAVE_CUDA
#include "cuda/device.h"
#endif

namespace trm::api {
namespace {

constexpr int64_t kLongestSpinUs = 1'000'000'000;  // far from where clock arithmetic overflows

const Kernels& kernels_for_this_machine() {
    std::string error;
    const Kernels* kernels = select_kernels(std::getenv("TRM_EDGE_ISA"), &error);
    if (kernels == nullptr) throw Error(Status::kUnsupported, error);
    return *kernels;
}

std::string supported_names() {
    std::string names;
    size_t count = 0;
    const InstructionSet* sets = instruction_sets(&count);
    for (size_t i = 0; i < count; ++i) {
        if (sets[i].supported()) names += (names.empty() ? "" : ",") + std::string(sets[i].kernels->isa);
    }
    return names;
}

[[noreturn]] void fail_argument(const std::string& message) { throw Error(Status::kInvalidArgument, message); }

// Why there is no CUDA, or "".
std::string cuda_missing() {
#ifdef TRM_HAVE_CUDA
    return cuda::why_no_gpu();
#else
    return "this build has no CUDA (" TRM_WHY_NO_CUDA
           "); install nvcc and build again with -DTRM_EDGE_CUDA=ON "
           "(pip: -C cmake.define.TRM_EDGE_CUDA=ON)";
#endif
}

// The options of a caller, or the defaults; where the struct is of another size, nothing else of it is read.
trm_load_options load_options(const trm_load_options* options) {
    if (options == nullptr) return TRM_LOAD_OPTIONS_INIT;
    if (options->struct_size != sizeof(trm_load_options))
        fail_argument("options: expected a trm_load_options started with TRM_LOAD_OPTIONS_INIT");
    return *options;
}

MakeDevice device_of(const trm_load_options& options) {
    if (options.backend == TRM_BACKEND_CPU) return nullptr;
    if (options.backend != TRM_BACKEND_CUDA)
        fail_argument("backend: expected a trm_backend, got " + std::to_string(options.backend));
    const std::string missing = cuda_missing();
    if (!missing.empty()) throw Error(Status::kUnsupported, "backend cuda: " + missing);
#ifdef TRM_HAVE_CUDA
    return cuda::make_device;
#else
    return nullptr;
#endif
}

// TRM_PRECISION_FP32, BF16 and INT8, which the kernels of a processor have.
constexpr Precision kOfKernels[] = {Precision::kFp32, Precision::kBf16, Precision::kInt8};

static_assert(static_cast<int>(PrecisionChoice::kAuto) == TRM_PRECISION_AUTO &&
              static_cast<int>(PrecisionChoice::kFp32) == TRM_PRECISION_FP32 &&
              static_cast<int>(PrecisionChoice::kBf16) == TRM_PRECISION_BF16 &&
              static_cast<int>(PrecisionChoice::kInt8) == TRM_PRECISION_INT8 &&
              static_cast<int>(PrecisionChoice::kFp16) == TRM_PRECISION_FP16 &&
              static_cast<int>(PrecisionChoice::kW8a16) == TRM_PRECISION_W8A16);
static_assert(static_cast<int>(trm::Answer::kActions) == TRM_ACTIONS &&
              static_cast<int>(trm::Answer::kSlots) == TRM_SLOTS &&
              static_cast<int>(trm::Answer::kTokens) == TRM_TOKENS);

PrecisionChoice precision_of(const trm_load_options& options) {
    if (options.precision < TRM_PRECISION_AUTO || options.precision > TRM_PRECISION_W8A16)
        fail_argument("precision: expected a trm_precision, got " + std::to_string(options.precision));
    return static_cast<PrecisionChoice>(options.precision);
}

SessionOptions session_options(const trm_session_options* options) {
    if (options == nullptr) return {};
    if (options->struct_size != sizeof(trm_session_options))
        fail_argument("options: expected a trm_session_options started with TRM_SESSION_OPTIONS_INIT");
    if (options->threads < 1 || options->threads > TRM_MAX_THREADS)
        fail_argument("threads: expected 1.." + std::to_string(TRM_MAX_THREADS) + ", got " +
                      std::to_string(options->threads));
    if (options->park_after_us < TRM_NEVER_PARK || options->park_after_us > kLongestSpinUs)
        fail_argument("park_after_us: expected TRM_NEVER_PARK or 0.." + std::to_string(kLongestSpinUs) + ", got " +
                      std::to_string(options->park_after_us));
    return {options->threads, options->park_after_us, options->pin != 0};
}

trm_status publish(const trm_load_options* options, trm_model** out, const std::function<Bundle()>& read) {
    *out = nullptr;
    return guarded([&] {
        *out = new trm_model{load_model(options, read)};
        return TRM_OK;
    });
}

}  // namespace

std::shared_ptr<const Model> load_model(const trm_load_options* given, const std::function<Bundle()>& read) {
    const trm_load_options options = load_options(given);
    const PrecisionChoice precision = precision_of(options);
    const MakeDevice device = device_of(options);
    return std::make_shared<const Model>(read(), kernels_for_this_machine(), precision, device);
}

}  // namespace trm::api

using trm::api::fail;
using trm::api::guarded;

extern "C" {

trm_status trm_model_load_file(const char* path, const trm_load_options* options, trm_model** out) {
    if (path == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "path and out: expected non-null pointers");
    return trm::api::publish(options, out, [&] { return trm::read_bundle_file(path); });
}

trm_status trm_model_load_memory(const void* data, size_t size, const trm_load_options* options, trm_model** out) {
    if (data == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "data and out: expected non-null pointers");
    return trm::api::publish(options, out, [&] { return trm::read_bundle(static_cast<const uint8_t*>(data), size); });
}

void trm_model_free(trm_model* model) { delete model; }

trm_status trm_model_info(const trm_model* model, trm_info* out) {
    if (model == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "model and out: expected non-null pointers");
    if (out->struct_size != sizeof(trm_info))
        return fail(TRM_INVALID_ARGUMENT, "out: expected a trm_info started with TRM_INFO_INIT");
    const trm::Spec& spec = model->model->spec;
    *out = TRM_INFO_INIT;
    out->answer = static_cast<int32_t>(spec.answer);
    out->answer_rows = spec.answer_rows;
    out->dof = spec.dof;
    out->max_context = spec.max_context;
    out->fixed_context = spec.mixer == trm::Mixer::kMlpT;
    out->context_size = spec.context_size;
    out->feature_size = spec.feature_size;
    out->draft_optional = spec.draft == trm::Draft::kOptional;
    out->slot_size = spec.slot_size;
    out->candidate_size = spec.candidate_size;
    out->max_candidates = spec.max_candidates;
    out->vocab_size = spec.vocab_size;
    out->num_puzzles = spec.num_puzzles;
    return TRM_OK;
}

trm_status trm_model_limits(const trm_model* model, float* lower, float* upper, float* velocity) {
    if (model == nullptr) return fail(TRM_INVALID_ARGUMENT, "model: expected a model, got null");
    const trm::Model& loaded = *model->model;
    if (loaded.spec.answer != trm::Answer::kActions)
        return fail(TRM_INVALID_ARGUMENT, "model: expected a head that answers with actions; others have no limits");
    const trm::Limits own = loaded.limits();
    const struct {
        const float* from;
        float* to;
    } copies[] = {{own.lower, lower}, {own.upper, upper}, {own.velocity, velocity}};
    for (const auto& copy : copies) {
        if (copy.to) std::copy_n(copy.from, loaded.spec.dof, copy.to);
    }
    return TRM_OK;
}

const char* trm_model_metadata(const trm_model* model, const char* key) {
    if (model == nullptr || key == nullptr) return nullptr;
    const auto found = model->model->metadata.find(key);
    return found == model->model->metadata.end() ? nullptr : found->second.c_str();
}

const char* trm_model_isa(const trm_model* model) {
    if (model == nullptr) return "";
    return model->model->device ? model->model->device->name() : model->model->kernels.isa;
}

const char* trm_cuda_missing(void) {
    try {
        static const std::string why = trm::api::cuda_missing();
        return why.c_str();
    } catch (...) {
        return "out of memory";
    }
}

const char* trm_supported_isas(void) {
    try {
        static const std::string names = trm::api::supported_names();
        return names.c_str();
    } catch (...) {
        return "";
    }
}

const char* trm_model_precision(const trm_model* model) {
    return model == nullptr ? "" : model->model->precision_name();
}

trm_status trm_register_loop(int32_t precision, int64_t iterations, double* operations, double* seconds) {
    if (operations == nullptr || seconds == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "operations and seconds: expected non-null pointers");
    if (precision < TRM_PRECISION_FP32 || precision > TRM_PRECISION_INT8)
        return fail(TRM_INVALID_ARGUMENT, "precision: expected fp32, bf16 or int8, got %d", precision);
    if (iterations < 1) return fail(TRM_INVALID_ARGUMENT, "iterations: expected at least 1");
    return guarded([&] {
        using Clock = std::chrono::steady_clock;
        const trm::Kernels& kernels = trm::api::kernels_for_this_machine();
        const Clock::time_point start = Clock::now();
        *operations = kernels.register_loop(trm::api::kOfKernels[precision - TRM_PRECISION_FP32], iterations);
        *seconds = std::chrono::duration<double>(Clock::now() - start).count();
        return TRM_OK;
    });
}

trm_status trm_session_create(const trm_model* model, const trm_session_options* options, trm_session** out) {
    if (model == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "model and out: expected non-null pointers");
    *out = nullptr;
    return guarded([&] {
        *out = new trm_session(model->model, trm::api::session_options(options));
        return TRM_OK;
    });
}

void trm_session_free(trm_session* session) { delete session; }

}  // extern "C"
