// A loaded model and a session on it, as _core offers them.
#ifndef TRM_EDGE_PYTHON_SESSION_H
#define TRM_EDGE_PYTHON_SESSION_H

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "arrays.h"
#include "checked.h"
#include "trm_edge/trm_edge.h"

namespace trm::python {

inline uintptr_t address(const void* at) { return reinterpret_cast<uintptr_t>(at); }

struct Model {
    // From a file, or from `bytes` where `path` is null.
    Model(const char* path, std::string_view bytes, int32_t precision, int32_t backend) {
        const trm_load_options options = {sizeof options, precision, backend};
        trm_model* model = nullptr;
        checked([&] {
            return path ? trm_model_load_file(path, &options, &model)
                        : trm_model_load_memory(bytes.data(), bytes.size(), &options, &model);
        });
        handle.reset(model, trm_model_free);
    }
    // (lower, upper, velocity), [dof] each.
    py::tuple limits() const {
        trm_info info = TRM_INFO_INIT;
        checked([&] { return trm_model_info(handle.get(), &info); });
        py::array_t<float> lower(info.dof), upper(info.dof), velocity(info.dof);
        float* const to[] = {lower.mutable_data(), upper.mutable_data(), velocity.mutable_data()};
        checked([&] { return trm_model_limits(handle.get(), to[0], to[1], to[2]); });
        return py::make_tuple(lower, upper, velocity);
    }
    std::shared_ptr<trm_model> handle;
};

class Session {
  public:
    Session(const Model& model, int32_t threads, bool pin, int64_t park_after_us) {
        const trm_session_options options = {sizeof options, threads, pin, park_after_us};
        trm_session* session = nullptr;
        checked([&] { return trm_model_info(model.handle.get(), &info_); });
        checked([&] { return trm_session_create(model.handle.get(), &options, &session); });
        session_.reset(session, [](trm_session* ended) {
            const py::gil_scoped_release release;  // it waits for the GPU, which may wait for Python
            trm_session_free(ended);
        });
    }

    // `given` are the tensors of trm_inputs in their order, None where absent. Returns what run() does.
    py::tuple refine(const py::tuple& given, int32_t puzzle_id, int32_t steps, float halt, bool trajectory) {
        Arrays arrays;
        const trm_inputs in = inputs(arrays, given, puzzle_id);
        return run(sizes_of(in), std::clamp(steps, 0, TRM_MAX_STEPS), trajectory,
                   [&](trm_outputs* out) { return trm_refine(session_.get(), &in, steps, halt, out); });
    }

    void begin(const py::tuple& given, int32_t puzzle_id) {
        Arrays arrays;
        const trm_inputs in = inputs(arrays, given, puzzle_id);
        checked([&] { return trm_begin(session_.get(), &in); });
        begun_ = sizes_of(in);
    }

    void end() {
        checked([this] { return trm_end(session_.get()); });
    }

    py::tuple step(const py::object& x, const py::object& features, const py::object& last_action) {
        Arrays in;
        const trm_tensor fresh[] = {in("x", x, x_dtype()), in("features", features, TRM_F32),
                                    in("last_action", last_action, TRM_F32)};
        return run(begun_, 1, true,
                   [&](trm_outputs* out) { return trm_step(session_.get(), &fresh[0], &fresh[1], &fresh[2], out); });
    }

    // Returns the address of y on the GPU; y and stream 0: the session's own.
    uintptr_t refine_async(const py::tuple& given, int32_t steps, float halt, uintptr_t y, uintptr_t stream) {
        Arrays arrays(true);
        const trm_inputs in = inputs(arrays, given, 0);
        trm_device_answer out = TRM_DEVICE_ANSWER_INIT;
        checked([&] {
            return trm_refine_async(session_.get(), &in, steps, halt, reinterpret_cast<float*>(y),
                                    reinterpret_cast<void*>(stream), &out);
        });
        begun_ = sizes_of(in);
        return address(out.y);
    }

    py::tuple wait(int32_t steps, bool trajectory) {
        return run(begun_, steps, trajectory, [&](trm_outputs* out) { return trm_wait(session_.get(), out); });
    }

    uintptr_t stream() const { return address(trm_session_stream(session_.get())); }
    void order(uintptr_t before, uintptr_t after) {
        const auto handle = [](uintptr_t stream) { return reinterpret_cast<void*>(stream); };
        checked([&] { return trm_order_streams(session_.get(), handle(before), handle(after)); });
    }

  private:
    using Shape = std::vector<py::ssize_t>;
    using Sizes = std::pair<py::ssize_t, py::ssize_t>;  // answer rows, candidates

    trm_dtype x_dtype() const { return info_.answer == TRM_TOKENS ? TRM_I32 : TRM_F32; }
    trm_dtype y_dtype() const { return info_.answer == TRM_ACTIONS ? TRM_F32 : TRM_I32; }
    trm_inputs inputs(Arrays& arrays, const py::tuple& given, int32_t puzzle_id) const {
        static const char* const kNames[] = {"x", "y0", "features", "slots", "candidates", "mask", "last_action"};
        const auto in = [&](size_t i, trm_dtype dtype) { return arrays(kNames[i], given[i], dtype); };
        return {sizeof(trm_inputs), in(0, x_dtype()), in(1, y_dtype()), in(2, TRM_F32), in(3, TRM_F32),
                in(4, TRM_F32),     in(5, TRM_BOOL),  in(6, TRM_F32),   puzzle_id};
    }

    // Sizes of the outputs; no larger than the spec's maxima, which the engine will refuse to exceed.
    Sizes sizes_of(const trm_inputs& in) const {
        if (info_.answer != TRM_SLOTS) return {info_.answer_rows, 0};
        return {std::clamp<py::ssize_t>(in.slots.shape[0], 0, info_.answer_rows),
                std::clamp<py::ssize_t>(in.candidates.shape[0], 0, info_.max_candidates)};
    }

    template <typename Call>
    py::tuple run(const Sizes& sizes, py::ssize_t steps, bool trajectory, Call&& call) const {
        const bool actions = info_.answer == TRM_ACTIONS;
        const py::ssize_t width = info_.answer == TRM_TOKENS ? info_.vocab_size : sizes.second;
        const py::dtype f32 = py::dtype::of<float>(), dtype = actions ? f32 : py::dtype::of<int32_t>();
        Shape shape{sizes.first};
        if (actions) shape.push_back(info_.dof);
        py::object steps_y = py::none(), steps_logits = py::none();
        trm_outputs out = TRM_OUTPUTS_INIT;
        const auto give = [](py::array array, auto*& data, size_t& bytes) {
            bytes = static_cast<size_t>(array.nbytes());
            data = static_cast<std::remove_reference_t<decltype(data)>>(array.mutable_data());
            return array;
        };
        const py::array y = give(py::array(dtype, shape), out.y, out.y_bytes);
        const py::array halt_logits = give(py::array(f32, Shape{steps}), out.halt_logits, out.halt_logits_bytes);
        if (trajectory) {
            shape.insert(shape.begin(), steps);
            steps_y = give(py::array(dtype, shape), out.trajectory, out.trajectory_bytes);
        }
        if (trajectory && !actions)
            steps_logits = give(py::array(f32, Shape{steps, sizes.first, width}), out.logits, out.logits_bytes);
        const trm_status status = checked([&] { return call(&out); });
        return py::make_tuple(y, out.steps_run, status, out.confidence, out.duration_us, halt_logits, steps_y,
                              steps_logits);
    }

    trm_info info_ = TRM_INFO_INIT;
    std::shared_ptr<trm_session> session_;
    Sizes begun_{0, 0};
};

}  // namespace trm::python

#endif
