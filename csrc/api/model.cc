// Loading a model, asking about it, creating a session.
#include <cstdlib>
#include <new>
#include <string>

#include "api/handles.h"
#include "api/message.h"
#include "core/bundle.h"
#include "core/status.h"
#include "cpu/dispatch.h"

namespace trm::api {
namespace {

const Kernels& kernels_for_this_machine() {
    std::string error;
    const Kernels* kernels = select_kernels(std::getenv("TRM_EDGE_ISA"), &error);
    if (kernels == nullptr) throw Error(Status::kUnsupported, error);
    return *kernels;
}

std::string supported_names() {
    std::string names;
    size_t count = 0;
    const Kernels* const* kernels = all_kernels(&count);
    for (size_t i = 0; i < count; ++i) {
        if (supported(*kernels[i])) names += (names.empty() ? "" : ",") + std::string(kernels[i]->isa);
    }
    return names;
}

trm_status publish(Bundle bundle, trm_model** out) {
    *out = new trm_model{std::make_shared<const Model>(std::move(bundle), kernels_for_this_machine())};
    return TRM_OK;
}

}  // namespace
}  // namespace trm::api

using trm::api::fail;
using trm::api::guarded;

extern "C" {

trm_status trm_model_load_file(const char* path, trm_model** out) {
    if (path == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "path and out: expected non-null pointers");
    *out = nullptr;
    return guarded([&] { return trm::api::publish(trm::read_bundle_file(path), out); });
}

trm_status trm_model_load_memory(const void* data, size_t size, trm_model** out) {
    if (data == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "data and out: expected non-null pointers");
    *out = nullptr;
    return guarded([&] { return trm::api::publish(trm::read_bundle(static_cast<const uint8_t*>(data), size), out); });
}

void trm_model_free(trm_model* model) { delete model; }

trm_status trm_model_info(const trm_model* model, trm_info* out) {
    if (model == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "model and out: expected non-null pointers");
    const trm::Spec& spec = model->model->spec;
    *out = trm_info{};
    out->answer = static_cast<trm_answer>(spec.answer);
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

const char* trm_model_metadata(const trm_model* model, const char* key) {
    if (model == nullptr || key == nullptr) return nullptr;
    const auto found = model->model->metadata.find(key);
    return found == model->model->metadata.end() ? nullptr : found->second.c_str();
}

const char* trm_model_isa(const trm_model* model) { return model == nullptr ? "" : model->model->kernels.isa; }

const char* trm_supported_isas(void) {
    try {
        static const std::string names = trm::api::supported_names();
        return names.c_str();
    } catch (...) {
        return "";
    }
}

trm_status trm_session_create(const trm_model* model, trm_session** out) {
    if (model == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "model and out: expected non-null pointers");
    *out = nullptr;
    return guarded([&] {
        *out = new trm_session(model->model);
        return TRM_OK;
    });
}

void trm_session_free(trm_session* session) { delete session; }

}  // extern "C"
