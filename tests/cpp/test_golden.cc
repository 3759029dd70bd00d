// The whole engine, through the C ABI, against the float64 oracle's outputs that the bundles carry.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "golden_case.h"

namespace {

struct Free {
    void operator()(trm_model* model) const { trm_model_free(model); }
    void operator()(trm_session* session) const { trm_session_free(session); }
};

// max|a - b| / max|b| over the finite b; non-finite ones must be equal.
double relative_error(const float* a, const double* b, size_t count) {
    double gap = 0, scale = 0;
    for (size_t i = 0; i < count; ++i) {
        if (!std::isfinite(b[i])) {
            if (static_cast<double>(a[i]) != b[i]) return INFINITY;
            continue;
        }
        const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
        if (!(difference <= gap)) gap = difference;  // keeps a NaN
        scale = std::fmax(scale, std::fabs(b[i]));
    }
    return scale > 0 ? gap / scale : gap;
}

void check_bundle(const std::string& name) {
    CAPTURE(name);
    const GoldenFile file(std::string(TRM_GOLDEN_BUNDLES "/") + name);
    trm_model* raw_model = nullptr;
    REQUIRE_MESSAGE(trm_model_load_memory(file.bytes.data(), file.bytes.size(), nullptr, &raw_model) == TRM_OK,
                    trm_last_message());
    const std::unique_ptr<trm_model, Free> model(raw_model);
    if (const char* wanted = std::getenv("TRM_EDGE_ISA")) REQUIRE(std::string(trm_model_isa(model.get())) == wanted);
    trm_session* raw_session = nullptr;
    REQUIRE(trm_session_create(model.get(), nullptr, &raw_session) == TRM_OK);
    const std::unique_ptr<trm_session, Free> session(raw_session);
    REQUIRE(file.cases > 0);
    for (int number = 0; number < file.cases; ++number) {
        const std::vector<double> fp32_error = file.output(number, "fp32_error");
        const std::vector<double> halt = file.output(number, "halt_logits");
        const bool actions = file.find(number, "out.logits") == nullptr;
        const std::vector<double> truth = file.output(number, actions ? "y" : "logits");
        const size_t steps = fp32_error.size(), count = truth.size() / steps;
        std::vector<float> got(truth.size()), halt_logits(steps);
        std::vector<char> y(1 << 16), trajectory(1 << 16);
        trm_outputs out = TRM_OUTPUTS_INIT;
        out.y = y.data();
        out.y_bytes = y.size();
        out.halt_logits = halt_logits.data();
        out.halt_logits_bytes = steps * sizeof(float);
        if (actions) {
            out.trajectory = got.data();
            out.trajectory_bytes = got.size() * sizeof(float);
        } else {
            out.logits = got.data();
            out.logits_bytes = got.size() * sizeof(float);
        }
        const trm_inputs in = file.inputs(number);
        const trm_status status = trm_refine(session.get(), &in, static_cast<int32_t>(steps), TRM_NEVER_HALT, &out);
        REQUIRE_MESSAGE(status == TRM_OK, trm_last_message());
        REQUIRE(out.steps_run == static_cast<int32_t>(steps));
        for (size_t k = 0; k < steps; ++k) {
            CAPTURE(k);
            const double allowed = std::fmax(1e-5, 4 * fp32_error[k]);
            CHECK(relative_error(&got[k * count], &truth[k * count], count) <= allowed);
            CHECK(relative_error(&halt_logits[k], &halt[k], 1) <= allowed);
        }
    }
}

}  // namespace

TEST_SUITE("golden") {
    TEST_CASE("actions, attention") { check_bundle("actions_attention.trm"); }
    TEST_CASE("actions, mlp_t") { check_bundle("actions_mlp_t.trm"); }
    TEST_CASE("slots, attention") { check_bundle("slots_attention.trm"); }
    TEST_CASE("tokens, attention") { check_bundle("tokens_attention.trm"); }
    TEST_CASE("tokens, mlp_t") { check_bundle("tokens_mlp_t.trm"); }
}
