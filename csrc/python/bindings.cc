// Python bindings: buffers in (arrays.h), buffers out. Everything else is behind the C ABI or in trm_edge/*.py.

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "arrays.h"
#include "checked.h"
#include "dlpack.h"
#include "trm_edge/trm_edge.h"

namespace py = pybind11;
using trm::python::Arrays;
using trm::python::checked;

namespace {

uintptr_t address(const void* at) { return reinterpret_cast<uintptr_t>(at); }

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

using Floats = py::array_t<float, py::array::c_style>;
using Row = std::optional<Floats>;

// Project actions [T, dof] in place; lower, upper, velocity and last_action are [dof] or None.
trm_status project_limits(Floats& actions, const Row& lower, const Row& upper, const Row& velocity, const Row& last) {
    if (actions.ndim() != 2) throw py::value_error("actions: expected shape [T, dof]");
    const py::ssize_t T = actions.shape(0), dof = actions.shape(1);
    const auto data = [dof](const Row& row) -> const float* {
        if (row && (row->ndim() != 1 || row->size() != dof)) throw py::value_error("limits: expected shape [dof]");
        return row ? row->data() : nullptr;
    };
    const float* at[] = {data(lower), data(upper), data(velocity), data(last)};
    float* projected = actions.mutable_data();
    return checked([&] { return trm_project_limits(projected, T, dof, at[0], at[1], at[2], at[3]); });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = trm_version();
    m.def("supported_isas", &trm_supported_isas);
    m.def("cuda_missing", &trm_cuda_missing);
    m.def("status_name", &trm_status_name);
    const py::arg exact = py::arg().noconvert();  // the caller would not see its converted copy projected
    m.def("project_limits", &project_limits, exact, exact, exact, exact, exact);
    m.def("take_dlpack", &trm::python::take_dlpack);
    m.def("give_dlpack", &trm::python::give_dlpack);
    m.def("register_loop", [](int32_t precision, int64_t iterations) {
        double operations = 0, seconds = 0;
        checked([&] { return trm_register_loop(precision, iterations, &operations, &seconds); });
        return py::make_tuple(operations, seconds);
    });
    py::class_<Model>(m, "Model")
        .def(py::init<const char*, std::string_view, int32_t, int32_t>())
        .def_property_readonly("precision", [](const Model& model) { return trm_model_precision(model.handle.get()); })
        .def_property_readonly("isa", [](const Model& model) { return trm_model_isa(model.handle.get()); })
        .def("metadata", [](const Model& m, const char* key) { return trm_model_metadata(m.handle.get(), key); });
    py::class_<Session>(m, "Session")
        .def(py::init<const Model&, int32_t, bool, int64_t>())
        .def("refine", &Session::refine)
        .def("begin", &Session::begin)
        .def("step", &Session::step)
        .def("refine_async", &Session::refine_async)
        .def("wait", &Session::wait)
        .def("stream", &Session::stream)
        .def("order", &Session::order);
}
