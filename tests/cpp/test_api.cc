// The C ABI: statuses, messages, what is written and what is not, stepping, sharing.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <thread>

#include "core/bundle.h"
#include "core/model.h"
#include "core/session.h"
#include "core/status.h"
#include "cpu/dispatch.h"
#include "golden_case.h"

namespace {

struct Free {
    void operator()(trm_model* model) const { trm_model_free(model); }
    void operator()(trm_session* session) const { trm_session_free(session); }
};
using Model = std::unique_ptr<trm_model, Free>;
using Session = std::unique_ptr<trm_session, Free>;

std::string path_of(const char* name) { return std::string(TRM_GOLDEN_BUNDLES "/") + name + ".trm"; }

Model load(const char* name) {
    trm_model* model = nullptr;
    REQUIRE_MESSAGE(trm_model_load_file(path_of(name).c_str(), nullptr, &model) == TRM_OK, trm_last_message());
    return Model(model);
}

Session open(const Model& model) {
    trm_session* session = nullptr;
    REQUIRE(trm_session_create(model.get(), nullptr, &session) == TRM_OK);
    return Session(session);
}

// A model, a session, the inputs of its first golden case, and buffers for `steps` steps.
struct Fixture {
    explicit Fixture(const char* name, int max_steps = 8)
        : golden(path_of(name)), model(load(name)), session(open(model)), in(golden.inputs(0)) {
        REQUIRE(trm_model_info(model.get(), &info) == TRM_OK);
        const size_t rows = static_cast<size_t>(info.answer_rows);
        const size_t width = static_cast<size_t>(info.vocab_size + info.max_candidates);
        answer = rows * static_cast<size_t>(info.dof ? info.dof : 1);
        y.assign(answer, -77);
        halt.assign(static_cast<size_t>(max_steps), -77);
        trajectory.assign(answer * static_cast<size_t>(max_steps), -77);
        logits.assign(rows * width * static_cast<size_t>(max_steps), -77);
        out.y = y.data();
        out.y_bytes = y.size() * sizeof(float);
        out.halt_logits = halt.data();
        out.halt_logits_bytes = halt.size() * sizeof(float);
        out.trajectory = trajectory.data();
        out.trajectory_bytes = trajectory.size() * sizeof(float);
        if (width) {
            out.logits = logits.data();
            out.logits_bytes = logits.size() * sizeof(float);
        }
    }

    trm_status refine(int steps, float halt_at = TRM_NEVER_HALT) {
        return trm_refine(session.get(), &in, steps, halt_at, &out);
    }
    bool untouched() const {
        for (const float value : y) {
            if (value != -77) return false;
        }
        for (const float value : trajectory) {
            if (value != -77) return false;
        }
        return out.steps_run == 0;
    }

    GoldenFile golden;
    Model model;
    Session session;
    trm_inputs in;
    trm_outputs out = TRM_OUTPUTS_INIT;
    trm_info info = TRM_INFO_INIT;
    size_t answer = 0;
    std::vector<float> y, halt, trajectory, logits;
};

bool message_has(const char* text) { return std::string(trm_last_message()).find(text) != std::string::npos; }

const char* const kBundles[] = {"actions_attention", "actions_mlp_t", "slots_attention", "tokens_attention",
                                "tokens_mlp_t"};

}  // namespace

TEST_CASE("loading says what is wrong") {
    trm_model* model = nullptr;
    CHECK(trm_model_load_file("/nonexistent.trm", nullptr, &model) == TRM_IO_ERROR);
    CHECK(message_has("/nonexistent.trm"));
    CHECK(trm_model_load_file(nullptr, nullptr, &model) == TRM_INVALID_ARGUMENT);
    CHECK(trm_model_load_file("x", nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_model_load_memory("short", 5, nullptr, &model) == TRM_INVALID_BUNDLE);
    CHECK(model == nullptr);
    setenv("TRM_EDGE_ISA", "sse9", 1);
    const trm_status status = trm_model_load_file(path_of("slots_attention").c_str(), nullptr, &model);
    unsetenv("TRM_EDGE_ISA");
    CHECK(status == TRM_UNSUPPORTED);
    CHECK(message_has("sse9"));
    CHECK(message_has("scalar"));
}

TEST_CASE("a model answers questions") {
    const Model model = load("slots_attention");
    trm_info info = TRM_INFO_INIT;
    REQUIRE(trm_model_info(model.get(), &info) == TRM_OK);
    CHECK(info.answer == TRM_SLOTS);
    CHECK(info.max_candidates == 6);
    CHECK(info.struct_size == sizeof info);
    info.struct_size -= 4;  // a caller's of another version has fewer fields
    info.dof = -77;
    CHECK(trm_model_info(model.get(), &info) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("TRM_INFO_INIT"));
    CHECK(info.dof == -77);
    CHECK(trm_model_info(model.get(), nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_model_metadata(model.get(), "spec.answer")) == "slots");
    CHECK(trm_model_metadata(model.get(), "nothing") == nullptr);
    CHECK(std::string(trm_supported_isas()).find(trm_model_isa(model.get())) != std::string::npos);
    CHECK(std::string(trm_status_name(TRM_BUSY)) == "TRM_BUSY");
    CHECK(std::string(trm_status_name(999)) == "TRM_?");
    CHECK(std::string(trm_version()).size() >= 5);
}

TEST_CASE("the limits of actions can be asked for, and put a draft inside them without the head") {
    Fixture f("actions_attention");
    const size_t dof = static_cast<size_t>(f.info.dof);
    std::vector<float> lower(dof, -77), upper(dof, -77), velocity(dof, -77), last(dof, 0.25f);
    REQUIRE(trm_model_limits(f.model.get(), lower.data(), upper.data(), velocity.data()) == TRM_OK);
    CHECK(trm_model_limits(f.model.get(), nullptr, nullptr, nullptr) == TRM_OK);
    std::vector<float> draft(f.answer, 9.0f), projected = draft;
    f.in.y0.data = draft.data();
    f.in.last_action = trm_tensor_f32_1d(last.data(), f.info.dof);
    const trm_status status = f.refine(0);
    CHECK(trm_project_limits(projected.data(), f.info.answer_rows, f.info.dof, lower.data(), upper.data(),
                             velocity.data(), last.data()) == status);
    CHECK(projected == f.y);
    CHECK(projected[0] < 9.0f);

    CHECK(trm_model_limits(nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_model_limits(load("slots_attention").get(), lower.data(), nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("answers with actions"));
}

// What the C ABI has checked may change before it is copied, where another thread writes it.
TEST_CASE("a session checks the copies that limits are projected from") {
    Fixture f("actions_attention");
    trm::Session session(
        std::make_shared<trm::Model>(trm::read_bundle_file(path_of("actions_attention").c_str()),
                                     *trm::select_kernels("scalar", nullptr), trm::PrecisionChoice::kFp32),
        {});
    std::vector<float> draft(f.answer, 0.1f), last(static_cast<size_t>(f.info.dof), 0.1f), bad = last;
    bad.back() = NAN;
    trm::Call call;
    call.answer_rows = f.info.answer_rows;
    call.y0 = draft.data();
    call.features = static_cast<const float*>(f.in.features.data);
    call.last_action = bad.data();
    const auto begun = [&] {
        const char* name = session.begin(call);
        return std::string(name ? name : "");
    };
    CHECK(begun() == "last_action");
    CHECK(!session.begun());
    call.last_action = last.data();
    CHECK(begun() == "");
    CHECK(!session.keep_last_action(bad.data()));
    REQUIRE(session.step());
    std::vector<float> y(f.answer);
    session.write_answer(y.data(), false);
    CHECK(trm::all_finite(y.data(), y.size()));
    draft.back() = INFINITY;
    CHECK(begun() == "y0");
}

TEST_CASE("refine is begin and steps, bit for bit") {
    for (const char* name : kBundles) {
        CAPTURE(name);
        Fixture whole(name), parts(name);
        REQUIRE(whole.refine(4) >= 0);
        REQUIRE(trm_begin(parts.session.get(), &parts.in) == TRM_OK);
        for (size_t k = 0; k < 4; ++k) {
            REQUIRE(trm_step(parts.session.get(), nullptr, nullptr, nullptr, &parts.out) >= 0);
            CHECK(parts.out.steps_run == static_cast<int32_t>(k + 1));
            CHECK(std::memcmp(parts.trajectory.data(), &whole.trajectory[k * whole.answer], whole.answer * 4) == 0);
            CHECK(parts.halt[0] == whole.halt[k]);
        }
        CHECK(std::memcmp(parts.y.data(), whole.y.data(), whole.answer * 4) == 0);
        REQUIRE(whole.refine(4) >= 0);  // and again the same
        CHECK(std::memcmp(parts.y.data(), whole.y.data(), whole.answer * 4) == 0);
    }
}

TEST_CASE("a step needs a begin, and refine ends a recursion") {
    Fixture f("actions_attention");
    CHECK(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_NOT_BEGUN);
    REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
    CHECK(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_OK);
    CHECK(f.refine(1) == TRM_OK);
    CHECK(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_NOT_BEGUN);
    REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
    for (int twice = 0; twice < 2; ++twice) {
        CHECK(trm_end(f.session.get()) == TRM_OK);
        CHECK(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_NOT_BEGUN);
    }
    CHECK(trm_end(nullptr) == TRM_INVALID_ARGUMENT);
}

TEST_CASE("a call that is refused ends the recursion before it") {
    Fixture f("actions_attention");
    trm_inputs wrong = f.in;
    wrong.puzzle_id = 1;
    const auto step = [&] { return trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out); };
    const auto refused = [&](auto&& call) {
        REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
        REQUIRE(step() == TRM_OK);
        CHECK(call() < 0);
        CHECK(step() == TRM_NOT_BEGUN);
    };
    refused([&] { return trm_begin(f.session.get(), &wrong); });
    refused([&] { return trm_begin(f.session.get(), nullptr); });
    refused([&] { return trm_refine(f.session.get(), &wrong, 1, TRM_NEVER_HALT, &f.out); });
    refused([&] { return f.refine(-1); });
    refused([&] { return trm_refine_async(f.session.get(), &f.in, 1, TRM_NEVER_HALT, nullptr, nullptr, nullptr); });
    refused([&] {
        trm_device_answer answer{};
        return trm_refine_async(f.session.get(), &f.in, 1, TRM_NEVER_HALT, nullptr, nullptr, &answer);
    });
}

TEST_CASE("a shape below zero is printed as it was given") {
    Fixture f("actions_attention");
    f.in.x.shape[0] = -1;
    CHECK(f.refine(1) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("x: expected shape [any, "));
    CHECK(message_has("got [-1, "));
}

TEST_CASE("wrong arguments write nothing") {
    Fixture f("actions_attention");
    const trm_inputs good = f.in;
    const auto refused = [&](const char* field) {
        const trm_status status = f.refine(2);
        f.in = good;
        return status == TRM_INVALID_ARGUMENT && message_has(field) && f.untouched();
    };
    f.in.x.shape[1] += 1;
    CHECK(refused("x: expected shape [any, 7], got"));
    f.in.x.data = static_cast<const char*>(f.in.x.data) + 1;
    CHECK(refused("x: expected data aligned to 4 bytes"));
    f.in.x.shape[0] = 1000;
    CHECK(refused("max_context"));
    f.in.x.shape[0] = -1;
    CHECK(refused("x"));
    f.in.x.dtype = TRM_I32;
    CHECK(refused("x: expected dtype float32, got int32"));
    f.in.x.dtype = 99;
    CHECK(refused("unknown dtype"));
    f.in.x.data = nullptr;
    CHECK(refused("x: data is null"));
    f.in.y0.ndim = 1;
    CHECK(refused("y0: expected shape [5, 3], got [5]"));
    f.in.y0.ndim = 3;
    CHECK(refused("3 dimensions"));
    f.in.features = trm_tensor{};
    CHECK(refused("features"));
    f.in.mask = f.in.y0;
    CHECK(refused("mask"));
    f.in.puzzle_id = 1;
    CHECK(refused("puzzle_id"));
    f.in.struct_size = 3;
    CHECK(refused("TRM_INPUTS_INIT"));
    std::vector<float> draft(f.answer, 0.0f);
    for (const float bad : {NAN, INFINITY}) {
        draft[3] = bad;
        f.in.y0.data = draft.data();
        CHECK(refused("y0: expected finite"));
        const float last[3] = {0, bad, 0};
        f.in.last_action = trm_tensor_f32_1d(last, 3);
        CHECK(refused("last_action"));
    }
    for (const int steps : {-1, 1025, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
        CHECK(f.refine(steps) == TRM_INVALID_ARGUMENT);
        CHECK(message_has("steps"));
    }
    for (const float halt : {-0.5f, 1.5f, NAN}) CHECK(f.refine(2, halt) == TRM_INVALID_ARGUMENT);
    f.out.y_bytes -= 1;
    CHECK(refused("y: expected at least"));
    f.out.y_bytes += 1;
    f.out.trajectory_bytes = 7;
    CHECK(refused("trajectory"));
    f.out.y = nullptr;
    CHECK(refused("y: expected a buffer"));
    CHECK(trm_refine(nullptr, &f.in, 1, TRM_NEVER_HALT, &f.out) == TRM_INVALID_ARGUMENT);
    CHECK(trm_refine(f.session.get(), nullptr, 1, TRM_NEVER_HALT, &f.out) == TRM_INVALID_ARGUMENT);
    CHECK(trm_refine(f.session.get(), &f.in, 1, TRM_NEVER_HALT, nullptr) == TRM_INVALID_ARGUMENT);
}

TEST_CASE("slots: a draft outside its mask, no slots, no candidates, nothing allowed") {
    Fixture f("slots_attention");
    const std::vector<int32_t> draft(4, 0);
    std::vector<uint8_t> mask(24, 1);
    f.in.y0 = trm_tensor_i32(draft.data(), 4);
    f.in.mask.data = mask.data();
    CHECK(f.refine(2) == TRM_OK);
    mask[6] = 0;  // slot 1, candidate 0
    CHECK(f.refine(2) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("slot 1: candidate 0"));
    const std::vector<int32_t> far(4, 6);
    f.in.y0.data = far.data();
    CHECK(f.refine(2) == TRM_INVALID_ARGUMENT);
    f.in.y0 = trm_tensor{};
    std::fill(mask.begin() + 12, mask.begin() + 18, uint8_t{0});
    CHECK(f.refine(2) == TRM_OK);
    std::vector<int32_t> chosen(4);
    std::memcpy(chosen.data(), f.y.data(), 16);
    CHECK(chosen[2] == -1);
    CHECK(chosen[3] >= 0);
    f.in.candidates.shape[0] = 0;
    f.in.mask.shape[1] = 0;
    CHECK(f.refine(2) == TRM_OK);
    std::memcpy(chosen.data(), f.y.data(), 16);
    CHECK(chosen == std::vector<int32_t>(4, -1));
    f.in.slots.shape[0] = 0;
    f.in.mask.shape[0] = 0;
    CHECK(f.refine(2) == TRM_OK);
    CHECK(f.out.steps_run == 0);
    CHECK(std::isnan(f.out.confidence));
}

TEST_CASE("tokens: range, length, steps") {
    Fixture f("tokens_mlp_t");
    std::vector<int32_t> tokens(9, 0);
    f.in.x = trm_tensor_i32(tokens.data(), 9);
    CHECK(f.refine(1) == TRM_OK);
    CHECK(f.refine(0) == TRM_INVALID_ARGUMENT);
    tokens[8] = 7;
    CHECK(f.refine(1) == TRM_INVALID_ARGUMENT);
    tokens[8] = -1;
    CHECK(f.refine(1) == TRM_INVALID_ARGUMENT);
    tokens[8] = 0;
    f.in.x.shape[0] = 8;
    CHECK(f.refine(1) == TRM_INVALID_ARGUMENT);
    f.in.x.shape[0] = 9;
    f.in.puzzle_id = 4;
    CHECK(f.refine(1) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("puzzle_id"));
}

TEST_CASE("values that are not finite give the projected draft, and a reason") {
    Fixture f("actions_attention");
    std::vector<float> x(static_cast<size_t>(f.in.x.shape[0] * f.in.x.shape[1]), 0.5f);
    f.in.x.data = x.data();
    std::vector<float> draft(f.answer, 9.0f), wanted = draft;
    f.in.y0.data = draft.data();
    REQUIRE(f.refine(0) == TRM_OK);  // no steps: the projected draft
    wanted = f.y;
    CHECK(wanted[0] <= 1.5f);
    CHECK(f.out.steps_run == 0);
    x[3] = NAN;
    CHECK(f.refine(3) == TRM_NONFINITE);
    CHECK(f.y == wanted);
    CHECK(f.out.steps_run == 0);
    x[3] = 3e38f;  // finite, but overflows inside
    CHECK(f.refine(3) == TRM_NONFINITE);
    CHECK(f.y == wanted);

    x[3] = 0.5f;
    REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
    REQUIRE(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_OK);
    const std::vector<float> after_one = f.trajectory;
    std::vector<float> bad = x;
    bad[0] = INFINITY;
    trm_tensor fresh = f.in.x;
    fresh.data = bad.data();
    CHECK(trm_step(f.session.get(), &fresh, nullptr, nullptr, &f.out) == TRM_NONFINITE);  // the recursion stands
    CHECK(f.y == wanted);
    REQUIRE(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_OK);
    CHECK(f.out.steps_run == 2);
    const std::vector<float> second = f.trajectory;
    REQUIRE(f.refine(2) == TRM_OK);
    CHECK(std::memcmp(second.data(), &f.trajectory[f.answer], f.answer * 4) == 0);

    REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
    bad[0] = 3e38f;  // this one gets in: nothing comes of the recursion any more
    CHECK(trm_step(f.session.get(), &fresh, nullptr, nullptr, &f.out) == TRM_NONFINITE);
    CHECK(trm_step(f.session.get(), &f.in.x, nullptr, nullptr, &f.out) == TRM_NONFINITE);
    CHECK(f.y == wanted);
    REQUIRE(trm_begin(f.session.get(), &f.in) == TRM_OK);
    CHECK(trm_step(f.session.get(), nullptr, nullptr, nullptr, &f.out) == TRM_OK);
}

TEST_CASE("halt stops after the first step that is confident enough") {
    Fixture f("tokens_attention");
    CHECK(f.refine(4, 0.0f) == TRM_HALTED);
    CHECK(f.out.steps_run == 1);
    CHECK(f.refine(1, 0.0f) == TRM_OK);
    CHECK(f.refine(4, 1.0f) == TRM_OK);
    CHECK(f.out.steps_run == 4);
}

TEST_CASE("a session serves one call at a time; a model serves many sessions") {
    Fixture f("tokens_mlp_t", 1024);
    std::atomic<bool> done{false};
    std::atomic<int> busy{0}, served{0}, other{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            std::vector<int32_t> y(9);
            trm_outputs out = TRM_OUTPUTS_INIT;
            out.y = y.data();
            out.y_bytes = 36;
            while (!done) {
                const trm_status status = trm_refine(f.session.get(), &f.in, 64, TRM_NEVER_HALT, &out);
                (status == TRM_OK ? served : status == TRM_BUSY ? busy : other)++;
            }
        });
    }
    for (int i = 0; i < 100000 && (busy < 10 || served < 10); ++i) std::this_thread::yield();
    while (busy < 1 || served < 1) std::this_thread::yield();
    done = true;
    for (std::thread& thread : threads) thread.join();
    CHECK(busy > 0);
    CHECK(served > 0);
    CHECK(other == 0);

    REQUIRE(f.refine(8) == TRM_OK);
    threads.clear();
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            trm_session* session = nullptr;
            if (trm_session_create(f.model.get(), nullptr, &session) != TRM_OK) {
                ++wrong;
                return;
            }
            std::vector<float> y(9);
            trm_outputs out = TRM_OUTPUTS_INIT;
            out.y = y.data();
            out.y_bytes = 36;
            for (int i = 0; i < 50; ++i) {
                if (trm_refine(session, &f.in, 8, TRM_NEVER_HALT, &out) != TRM_OK) ++wrong;
                if (std::memcmp(y.data(), f.y.data(), 36) != 0) ++wrong;
            }
            trm_session_free(session);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST_CASE("a session outlives the handle of its model") {
    Model model = load("slots_attention");
    const Session session = open(model);
    model.reset();
    const GoldenFile golden(path_of("slots_attention"));
    const trm_inputs in = golden.inputs(0);
    std::vector<int32_t> y(4);
    trm_outputs out = TRM_OUTPUTS_INIT;
    out.y = y.data();
    out.y_bytes = 16;
    CHECK(trm_refine(session.get(), &in, 2, TRM_NEVER_HALT, &out) == TRM_OK);
}

TEST_CASE("calls without waiting are for a GPU, and say so") {
    Fixture f("actions_attention");
    trm_device_answer answer = TRM_DEVICE_ANSWER_INIT;
    const auto begin = [&](trm_session* session, trm_device_answer* to) {
        return trm_refine_async(session, &f.in, 2, TRM_NEVER_HALT, nullptr, nullptr, to);
    };
    CHECK(begin(f.session.get(), &answer) == TRM_UNSUPPORTED);
    CHECK(std::string(trm_last_message()).find("backend cuda") != std::string::npos);
    CHECK(begin(nullptr, &answer) == TRM_INVALID_ARGUMENT);
    CHECK(begin(f.session.get(), nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("answer: ") == 0);
    trm_device_answer unknown{};
    CHECK(begin(f.session.get(), &unknown) == TRM_INVALID_ARGUMENT);
    CHECK(message_has("TRM_DEVICE_ANSWER_INIT"));
    CHECK(trm_wait(f.session.get(), &f.out) == TRM_NOT_BEGUN);
    CHECK(trm_wait(nullptr, &f.out) == TRM_INVALID_ARGUMENT);
    CHECK(trm_session_stream(f.session.get()) == nullptr);
    CHECK(trm_session_stream(nullptr) == nullptr);
    CHECK(trm_order_streams(f.session.get(), nullptr, nullptr) == TRM_UNSUPPORTED);
    CHECK(trm_order_streams(nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(f.y[0] == -77);
}

TEST_CASE("options: a wrong one is named, and nothing is made") {
    const Model made = load("actions_attention");
    trm_model* model = nullptr;
    trm_load_options load_options = TRM_LOAD_OPTIONS_INIT;
    const auto loaded = [&] {
        return trm_model_load_file(path_of("actions_attention").c_str(), &load_options, &model);
    };
    load_options.precision = 6;
    CHECK(loaded() == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("precision") != std::string::npos);
    load_options.precision = TRM_PRECISION_FP16;
    CHECK(loaded() == TRM_UNSUPPORTED);
    CHECK(message_has("precision: fp16 is for backend cuda; this one has fp32, bf16 and int8"));
    load_options.precision = TRM_PRECISION_W8A16;
    CHECK(loaded() == TRM_UNSUPPORTED);
    CHECK(message_has("precision: w8a16 is for backend cuda; this one has fp32, bf16 and int8"));
    load_options = TRM_LOAD_OPTIONS_INIT;
    load_options.backend = 2;
    CHECK(loaded() == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("backend") != std::string::npos);
    load_options.backend = TRM_BACKEND_CUDA;
    if (*trm_cuda_missing() != 0) {  // no GPU here, or a build without CUDA
        CHECK(loaded() == TRM_UNSUPPORTED);
        CHECK(std::string(trm_last_message()).find(trm_cuda_missing()) != std::string::npos);
    }
    load_options = trm_load_options{0, TRM_PRECISION_INT8, TRM_BACKEND_CPU};
    CHECK(loaded() == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("TRM_LOAD_OPTIONS_INIT") != std::string::npos);
    CHECK(model == nullptr);

    const auto refused = [&](const trm_session_options& options, const char* word) {
        trm_session* session = nullptr;
        CHECK(trm_session_create(made.get(), &options, &session) == TRM_INVALID_ARGUMENT);
        CHECK(session == nullptr);
        CHECK(std::string(trm_last_message()).find(word) != std::string::npos);
    };
    refused({sizeof(trm_session_options), 0, 0, TRM_NEVER_PARK}, "threads");
    refused({sizeof(trm_session_options), TRM_MAX_THREADS + 1, 0, TRM_NEVER_PARK}, "threads");
    refused({sizeof(trm_session_options), 1, 0, -2}, "park_after_us");
    refused({0, 1, 0, TRM_NEVER_PARK}, "TRM_SESSION_OPTIONS_INIT");
}

TEST_CASE("precisions: numbers are frozen, and the processor's have a register loop") {
    CHECK(TRM_PRECISION_AUTO == 0);
    CHECK(TRM_PRECISION_FP32 == 1);
    CHECK(TRM_PRECISION_BF16 == 2);
    CHECK(TRM_PRECISION_INT8 == 3);
    CHECK(TRM_PRECISION_FP16 == 4);
    CHECK(TRM_PRECISION_W8A16 == 5);
    double operations = 0, seconds = 0;
    for (const int32_t precision : {TRM_PRECISION_FP32, TRM_PRECISION_BF16, TRM_PRECISION_INT8}) {
        CHECK(trm_register_loop(precision, 10, &operations, &seconds) == TRM_OK);
        CHECK(operations > 0);
    }
    for (const int32_t precision : {0, int32_t{TRM_PRECISION_FP16}, int32_t{TRM_PRECISION_W8A16}, 6}) {
        CHECK(trm_register_loop(precision, 10, &operations, &seconds) == TRM_INVALID_ARGUMENT);
        CHECK(message_has("precision: expected fp32, bf16 or int8"));
    }
}

namespace {

// A device that takes every model and runs none.
class NoDevice : public trm::DeviceModel {
    std::unique_ptr<trm::DeviceSession> make_session() const override { return nullptr; }
    const char* name() const override { return "none"; }
};

std::shared_ptr<const trm::DeviceModel> make_none(const trm::Spec&, const trm::NetShape&, const trm::Quantization&,
                                                  const trm::Tensors&) {
    return std::make_shared<const NoDevice>();
}

}  // namespace

TEST_CASE("fp16 on a device takes weights up to the end of float16, and names one beyond") {
    std::string error;
    const trm::Kernels& kernels = *trm::select_kernels(nullptr, &error);
    const auto name_with = [&](float value, trm::PrecisionChoice choice) {
        trm::Bundle bundle = trm::read_bundle_file(path_of("actions_attention").c_str());
        bundle.weights.at("blocks.1.mlp.down.weight")[3] = value;
        return std::string(trm::Model(std::move(bundle), kernels, choice, make_none).precision_name());
    };
    CHECK(name_with(-65519, trm::PrecisionChoice::kFp16) == "fp16");
    CHECK(name_with(-65520, trm::PrecisionChoice::kBf16) == "bf16");
    CHECK_THROWS_WITH_AS(name_with(-65520, trm::PrecisionChoice::kFp16),
                         "precision fp16: blocks.1.mlp.down.weight holds 65520, beyond float16; use bf16", trm::Error);
}
