// Golden vectors against this machine. The rule is that of trm_edge/golden.py.
#include <algorithm>
#include <cmath>
#include <limits>

#include "api/handles.h"
#include "api/message.h"
#include "core/golden.h"

namespace trm::api {
namespace {

constexpr double kTolerance = 1e-5, kFp32Margin = 4, kQuantizedMargin = 1.5;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

[[noreturn]] void fail_case(size_t number, const std::string& why) {
    throw Error(Status::kInvalidBundle, "golden case " + std::to_string(number) + ": " + why);
}

// max|value - truth| / max|truth| over the finite truth; infinite where finiteness differs. A NaN stays one.
template <typename Truth>
double relative_error(const float* value, const Truth* truth, size_t count) {
    double gap = 0, scale = 0;
    for (size_t i = 0; i < count; ++i) {
        const double is = static_cast<double>(value[i]), should = static_cast<double>(truth[i]);
        if (!std::isfinite(should)) {
            if (is != should) return kInfinity;
            continue;
        }
        const double difference = std::fabs(is - should);
        if (!(difference <= gap)) gap = difference;
        scale = std::max(scale, std::fabs(should));
    }
    if (scale > 0) return gap / scale;
    return gap == 0 ? 0 : kInfinity;
}

template <typename T>
double largest(const T* values, size_t count) {
    double most = 0;
    for (size_t i = 0; i < count; ++i) {
        const double value = std::fabs(static_cast<double>(values[i]));
        if (std::isfinite(value)) most = std::max(most, value);
    }
    return most;
}

// Choices other than the oracle's, where its two best logits are farther apart than the tolerance can bring together.
bool chooses_otherwise(const int32_t* chosen, const int32_t* truth, const double* logits, size_t rows, size_t width,
                       double tolerance) {
    const double scale = largest(logits, rows * width);
    for (size_t row = 0; row < rows; ++row, logits += width) {
        if (chosen[row] == truth[row]) continue;
        double best = -kInfinity, second = -kInfinity;
        for (size_t i = 0; i < width; ++i) {
            second = std::max(second, std::min(best, logits[i]));
            best = std::max(best, logits[i]);
        }
        if (width < 2 || !(best - second <= 2 * tolerance * scale)) return true;
    }
    return false;
}

// One case, checked against the spec, with room for what this machine makes of it.
class Case {
  public:
    Case(const Spec& spec, const GoldenCase& golden, size_t number) : golden_(golden), number_(number) {
        for (const auto& [name, array] : golden.in) add_input(name, array);
        const GoldenArray& error = output("fp32_error", "F64");
        steps_ = error.shape.size() == 1 ? error.count : 0;
        if (steps_ < 1 || steps_ > TRM_MAX_STEPS)
            fail_case(number_, "fp32_error: expected the errors of 1..1024 steps");
        actions_ = spec.answer == Answer::kActions;
        rows_ = static_cast<size_t>(spec.answer_rows);
        if (spec.answer == Answer::kSlots) rows_ = static_cast<size_t>(std::max<int64_t>(inputs_.slots.shape[0], 0));
        width_ = actions_ ? static_cast<size_t>(spec.dof)
                          : static_cast<size_t>(spec.answer == Answer::kTokens ? spec.vocab_size
                                                                               : inputs_.candidates.shape[0]);
        check_errors("fp32_error");
        halt_ = shaped("halt_logits", "F64", {steps_}).data<double>();
        if (actions_) {
            truth_ = shaped("y", "F64", {steps_, rows_, width_}).data<double>();
            projected_ = shaped("projected", "F32", {steps_, rows_, width_}).data<float>();
        } else {
            truth_ = shaped("logits", "F64", {steps_, rows_, width_}).data<double>();
            choices_ = shaped("y", "I32", {steps_, rows_}).data<int32_t>();
        }
    }

    // Whether the error of what the bundle was calibrated to is recorded, and the largest over the steps.
    bool records_quantized() const { return golden_.out.count("quantized_error") != 0; }
    double quantized_error() const {
        check_errors("quantized_error");
        return largest(output("quantized_error", "F64").data<double>(), steps_);
    }

    // Run the case; what is allowed in step k is the larger of its float32 tolerance and `rounding`.
    void run(trm_session* session, double rounding, trm_verification* out) {
        std::vector<float> values(steps_ * rows_ * width_), y(rows_ * (actions_ ? width_ : 1)), halts(steps_);
        std::vector<int32_t> trajectory(actions_ ? 0 : steps_ * rows_);
        trm_outputs made = TRM_OUTPUTS_INIT;
        made.y = y.data();  // of int32 where answers are choices
        made.y_bytes = y.size() * sizeof(float);
        made.halt_logits = halts.data();
        made.halt_logits_bytes = halts.size() * sizeof(float);
        if (actions_) {
            made.trajectory = values.data();
            made.trajectory_bytes = values.size() * sizeof(float);
        } else {
            made.trajectory = trajectory.data();
            made.trajectory_bytes = trajectory.size() * sizeof(int32_t);
            made.logits = values.data();
            made.logits_bytes = values.size() * sizeof(float);
        }
        const trm_status status = trm_refine(session, &inputs_, static_cast<int32_t>(steps_), TRM_NEVER_HALT, &made);
        if (status == TRM_INVALID_ARGUMENT) fail_case(number_, trm_last_message());
        if (status < 0) throw Error(static_cast<Status>(status), trm_last_message());
        const bool all = made.steps_run == static_cast<int32_t>(steps_);
        const double* fp32_error = output("fp32_error", "F64").data<double>();
        for (size_t k = 0; k < steps_; ++k) {
            const double allowed = std::max({kTolerance, kFp32Margin * fp32_error[k], rounding});
            double worst = all ? error_of(k, values.data(), halts[k], trajectory.data(), allowed) : kInfinity;
            if (all && actions_ && k + 1 == steps_) {
                const float* projected = projected_ + k * rows_ * width_;
                const double error = relative_error(y.data(), projected, rows_ * width_);
                worst = larger(worst, error / (allowed * (rounding > 0 ? shrinkage(k) : 1)));
            }
            record(static_cast<int32_t>(k) + 1, worst, out);
        }
    }

  private:
    // Of a NaN and a number the NaN.
    static double larger(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

    void record(int32_t step, double worst, trm_verification* out) const {
        ++out->steps;
        if (!(worst <= 1)) ++out->failed;
        if (std::isnan(worst)) worst = kInfinity;
        if (worst < out->worst || (worst == out->worst && out->worst_step > 0)) return;
        out->worst = worst;
        out->worst_case = static_cast<int32_t>(number_);
        out->worst_step = step;
    }

    // The error of step k over what is allowed.
    double error_of(size_t k, const float* values, float halt, const int32_t* chosen, double allowed) const {
        const size_t count = rows_ * width_, at = k * count;
        const double gap = std::fabs(static_cast<double>(halt) - halt_[k]) / std::max(std::fabs(halt_[k]), 1.0);
        const double error = larger(relative_error(values + at, truth_ + at, count), gap);
        if (!actions_ &&
            chooses_otherwise(chosen + k * rows_, choices_ + k * rows_, truth_ + at, rows_, width_, allowed))
            return kInfinity;
        return error / allowed;
    }

    // How much smaller a step's answer is inside the limits; what an error is relative to shrinks with it.
    double shrinkage(size_t k) const {
        const size_t count = rows_ * width_;
        const double before = largest(truth_ + k * count, count), after = largest(projected_ + k * count, count);
        return after > 0 ? std::max(1.0, before / after) : 1.0;
    }

    void add_input(const std::string& name, const GoldenArray& array) {
        if (name == "puzzle_id") {
            if (array.count != 1 || array.dtype != "I32") fail_case(number_, "puzzle_id: expected one integer");
            inputs_.puzzle_id = *array.data<int32_t>();
            return;
        }
        const std::map<std::string, trm_tensor*> known = {{"x", &inputs_.x},
                                                          {"y0", &inputs_.y0},
                                                          {"features", &inputs_.features},
                                                          {"slots", &inputs_.slots},
                                                          {"candidates", &inputs_.candidates},
                                                          {"mask", &inputs_.mask}};
        const std::map<std::string, trm_dtype> dtypes = {{"F32", TRM_F32}, {"I32", TRM_I32}, {"BOOL", TRM_BOOL}};
        const auto place = known.find(name);
        if (place == known.end()) fail_case(number_, "unknown input " + shown(name));
        const auto dtype = dtypes.find(array.dtype);
        const size_t ndim = array.shape.size();
        if (dtype == dtypes.end() || ndim < 1 || ndim > 2)
            fail_case(number_, name + ": expected F32, I32 or BOOL of one or two dimensions");
        trm_tensor& tensor = *place->second;
        tensor = {array.data<char>(), dtype->second, static_cast<int32_t>(ndim), {0, 0}};
        for (size_t i = 0; i < ndim; ++i) tensor.shape[i] = static_cast<int64_t>(array.shape[i]);
    }

    const GoldenArray& output(const char* name, const char* dtype) const {
        const auto found = golden_.out.find(name);
        if (found == golden_.out.end() || found->second.dtype != dtype)
            fail_case(number_, std::string(name) + ": expected an array of " + dtype);
        return found->second;
    }

    const GoldenArray& shaped(const char* name, const char* dtype, const std::vector<uint64_t>& shape) const {
        const GoldenArray& array = output(name, dtype);
        if (array.shape != shape) fail_case(number_, std::string(name) + ": does not fit the spec and the inputs");
        return array;
    }

    void check_errors(const char* name) const {
        const double* errors = shaped(name, "F64", {steps_}).data<double>();
        for (size_t k = 0; k < steps_; ++k) {
            if (!(errors[k] >= 0 && errors[k] < kInfinity))
                fail_case(number_, std::string(name) + ": expected finite errors, as they set the tolerance");
        }
    }

    const GoldenCase& golden_;
    size_t number_;
    trm_inputs inputs_ = TRM_INPUTS_INIT;
    bool actions_ = false;
    size_t steps_ = 0, rows_ = 0, width_ = 0;
    const double* truth_ = nullptr;  // of answers for actions, else of logits
    const double* halt_ = nullptr;
    const float* projected_ = nullptr;
    const int32_t* choices_ = nullptr;
};

// By how much the model may err for its rounding, by case; 0 in float32.
std::vector<double> roundings(const Model& model, const std::vector<Case>& cases) {
    const bool recorded = model.as_calibrated && std::all_of(cases.begin(), cases.end(),
                                                             [](const Case& one) { return one.records_quantized(); });
    if (!recorded && model.precision != Precision::kFp32)
        throw Error(Status::kUnsupported, std::string("verify: the bundle does not record how far ") +
                                              model.precision_name() +
                                              " may be off; calibrate it, or check it with trm-edge verify");
    std::vector<double> allowed;
    for (const Case& one : cases) allowed.push_back(recorded ? kQuantizedMargin * one.quantized_error() : 0);
    return allowed;
}

using Read = std::function<Bundle(std::vector<GoldenCase>*)>;

trm_status verify(const trm_load_options* options, trm_verification* out, const Read& read) {
    if (out->struct_size != sizeof(trm_verification))
        return fail(TRM_INVALID_ARGUMENT, "out: expected a trm_verification started with TRM_VERIFICATION_INIT");
    *out = TRM_VERIFICATION_INIT;
    return guarded([&] {
        std::vector<GoldenCase> golden;
        const trm_model model{load_model(options, [&] { return read(&golden); })};
        std::vector<Case> cases;
        for (size_t i = 0; i < golden.size(); ++i) cases.emplace_back(model.model->spec, golden[i], i);
        const std::vector<double> allowed = roundings(*model.model, cases);
        trm_verification found = TRM_VERIFICATION_INIT;
        found.cases = static_cast<int32_t>(cases.size());
        trm_session session(model.model, {});
        for (size_t i = 0; i < cases.size(); ++i) cases[i].run(&session, allowed[i], &found);
        *out = found;
        return TRM_OK;
    });
}

}  // namespace
}  // namespace trm::api

using trm::api::fail;

extern "C" {

trm_status trm_verify_file(const char* path, const trm_load_options* options, trm_verification* out) {
    if (path == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "path and out: expected non-null pointers");
    return trm::api::verify(options, out, [&](auto* golden) { return trm::read_bundle_file(path, golden); });
}

trm_status trm_verify_memory(const void* data, size_t size, const trm_load_options* options, trm_verification* out) {
    if (data == nullptr || out == nullptr)
        return fail(TRM_INVALID_ARGUMENT, "data and out: expected non-null pointers");
    const auto* bytes = static_cast<const uint8_t*>(data);
    return trm::api::verify(options, out, [&](auto* golden) { return trm::read_bundle(bytes, size, golden); });
}

}  // extern "C"
