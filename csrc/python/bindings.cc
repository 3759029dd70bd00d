// Python bindings: buffers in, buffers out. Everything else is behind the C ABI or in trm_edge/*.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "trm_edge/trm_edge.h"

namespace py = pybind11;

namespace {

// Raise the exception of trm_edge.errors that stands for a negative status; else return it.
trm_status checked(trm_status status) {
    if (status >= 0) return status;
    const py::object error =
        py::module_::import("trm_edge.errors").attr("error_from_status")(status, py::bytes(trm_last_message()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    throw py::error_already_set();
}

// Call into the C ABI without the GIL.
template <typename Call>
trm_status unlocked(Call&& call) {
    const py::gil_scoped_release released;
    return call();
}

trm_dtype dtype_of(const py::array& array) {
    const py::dtype dtype = array.dtype();
    if (dtype.is(py::dtype::of<float>())) return TRM_F32;
    if (dtype.is(py::dtype::of<int32_t>())) return TRM_I32;
    return dtype.is(py::dtype::of<bool>()) ? TRM_BOOL : TRM_ABSENT;
}

// The arrays of one call, kept alive until it is over. A dense array of a known dtype is passed on as it is; anything
// else goes through trm_edge.inputs.as_array, which converts it or says what is wrong.
class Arrays {
  public:
    trm_tensor operator()(const char* name, const py::object& value, trm_dtype expected) {
        if (value.is_none()) return trm_tensor{nullptr, TRM_ABSENT, 0, {0, 0}};
        py::array array = dense(name, value, expected);
        trm_tensor tensor{array.data(), dtype_of(array), static_cast<int32_t>(array.ndim()), {0, 0}};
        for (int i = 0; i < std::min<int>(tensor.ndim, 2); ++i) tensor.shape[i] = array.shape(i);
        kept_[count_++] = std::move(array);
        return tensor;
    }

  private:
    static py::array dense(const char* name, const py::object& value, trm_dtype expected) {
        if (py::isinstance<py::array>(value)) {
            py::array array = py::reinterpret_borrow<py::array>(value);
            constexpr int kReady = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
            if ((array.flags() & kReady) == kReady && dtype_of(array) != TRM_ABSENT) return array;
        }
        static const char* const kNames[] = {"", "float32", "int32", "bool"};
        return py::module_::import("trm_edge.inputs").attr("as_array")(name, value, py::dtype(kNames[expected]));
    }

    py::array kept_[8];
    int count_ = 0;
};

struct Model {
    std::shared_ptr<trm_model> handle;
};

Model load(const char* path, std::string_view bytes) {
    trm_model* model = nullptr;
    checked(unlocked([&] {
        return path ? trm_model_load_file(path, &model) : trm_model_load_memory(bytes.data(), bytes.size(), &model);
    }));
    return Model{{model, trm_model_free}};
}

class Session {
  public:
    explicit Session(const Model& model) {
        trm_session* session = nullptr;
        checked(trm_model_info(model.handle.get(), &info_));
        checked(unlocked([&] { return trm_session_create(model.handle.get(), &session); }));
        session_.reset(session, trm_session_free);
    }

    // `arguments` holds every input by name, None where absent. Returns (status, y, steps_run, confidence, duration_us,
    // halt_logits, trajectory or None, logits or None).
    py::tuple refine(const py::dict& arguments, int32_t steps, float halt, bool trajectory) {
        Arrays arrays;
        const trm_inputs in = inputs(arrays, arguments);
        return run(sizes_of(in), std::clamp(steps, 0, TRM_MAX_STEPS), trajectory,
                   [&](trm_outputs* out) { return trm_refine(session_.get(), &in, steps, halt, out); });
    }

    void begin(const py::dict& arguments) {
        Arrays arrays;
        const trm_inputs in = inputs(arrays, arguments);
        checked(unlocked([&] { return trm_begin(session_.get(), &in); }));
        begun_ = sizes_of(in);
    }

    py::tuple step(const py::object& x, const py::object& features, const py::object& last_action) {
        Arrays arrays;
        const trm_tensor fresh[3] = {arrays("x", x, x_dtype()), arrays("features", features, TRM_F32),
                                     arrays("last_action", last_action, TRM_F32)};
        return run(begun_, 1, true,
                   [&](trm_outputs* out) { return trm_step(session_.get(), &fresh[0], &fresh[1], &fresh[2], out); });
    }

  private:
    using Shape = std::vector<py::ssize_t>;
    using Sizes = std::pair<py::ssize_t, py::ssize_t>;  // answer rows, candidates

    trm_dtype x_dtype() const { return info_.answer == TRM_TOKENS ? TRM_I32 : TRM_F32; }
    trm_dtype y_dtype() const { return info_.answer == TRM_ACTIONS ? TRM_F32 : TRM_I32; }

    trm_inputs inputs(Arrays& arrays, const py::dict& arguments) const {
        const auto array = [&](const char* name, trm_dtype dtype) { return arrays(name, arguments[name], dtype); };
        return {sizeof(trm_inputs),         array("x", x_dtype()),         array("y0", y_dtype()),
                array("features", TRM_F32), array("slots", TRM_F32),       array("candidates", TRM_F32),
                array("mask", TRM_BOOL),    array("last_action", TRM_F32), arguments["puzzle_id"].cast<int32_t>()};
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
        const py::dtype dtype = actions ? py::dtype::of<float>() : py::dtype::of<int32_t>();
        Shape shape{sizes.first};
        if (actions) shape.push_back(info_.dof);
        py::array y(dtype, shape), halt_logits(py::dtype::of<float>(), Shape{steps}), steps_y, steps_logits;
        trm_outputs out = TRM_OUTPUTS_INIT;
        const auto give = [](py::array& array, auto*& data, size_t& bytes) {
            data = static_cast<std::remove_reference_t<decltype(data)>>(array.mutable_data());
            bytes = static_cast<size_t>(array.nbytes());
        };
        give(y, out.y, out.y_bytes);
        give(halt_logits, out.halt_logits, out.halt_logits_bytes);
        if (trajectory) {
            shape.insert(shape.begin(), steps);
            steps_y = py::array(dtype, shape);
            give(steps_y, out.trajectory, out.trajectory_bytes);
        }
        if (trajectory && !actions) {
            steps_logits = py::array(py::dtype::of<float>(), Shape{steps, sizes.first, width});
            give(steps_logits, out.logits, out.logits_bytes);
        }
        const trm_status status = checked(unlocked([&] { return call(&out); }));
        return py::make_tuple(status, y, out.steps_run, out.confidence, out.duration_us, halt_logits,
                              trajectory ? py::object(steps_y) : py::none(),
                              trajectory && !actions ? py::object(steps_logits) : py::none());
    }

    trm_info info_{};
    std::shared_ptr<trm_session> session_;
    Sizes begun_{0, 0};
};

// Project a float32 array [T, dof] in place; limits are float32 [dof] or None.
trm_status project_limits(py::array_t<float, py::array::c_style> actions, const py::object& lower,
                          const py::object& upper, const py::object& velocity, const py::object& last_action) {
    const auto data = [](const py::object& limit) {
        return limit.is_none() ? nullptr : py::cast<py::array_t<float, py::array::c_style>>(limit).data();
    };
    return checked(trm_project_limits(actions.mutable_data(), actions.shape(0), actions.shape(1), data(lower),
                                      data(upper), data(velocity), data(last_action)));
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = trm_version();
    m.def("supported_isas", &trm_supported_isas);
    m.def("status_name", &trm_status_name);
    m.def("project_limits", &project_limits);
    py::class_<Model>(m, "Model")
        .def_static("load_file", [](const std::string& path) { return load(path.c_str(), {}); })
        .def_static("load_memory", [](std::string_view bytes) { return load(nullptr, bytes); })
        .def_property_readonly("isa", [](const Model& model) { return trm_model_isa(model.handle.get()); })
        .def("metadata",
             [](const Model& model, const char* key) { return trm_model_metadata(model.handle.get(), key); });
    py::class_<Session>(m, "Session")
        .def(py::init<const Model&>())
        .def("refine", &Session::refine)
        .def("begin", &Session::begin)
        .def("step", &Session::step);
}
