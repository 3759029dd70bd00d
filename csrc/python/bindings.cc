// Python bindings: buffers in (arrays.h), buffers out. Everything else is behind the C ABI or in trm_edge/*.py.

#include <pybind11/stl.h>

#include <optional>
#include <string_view>

#include "checked.h"
#include "dlpack.h"
#include "session.h"
#include "trm_edge/trm_edge.h"

namespace py = pybind11;
using trm::python::checked;
using trm::python::Model;
using trm::python::Session;

namespace {

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
        .def("limits", &Model::limits)
        .def("metadata", [](const Model& m, const char* key) { return trm_model_metadata(m.handle.get(), key); });
    py::class_<Session>(m, "Session")
        .def(py::init<const Model&, int32_t, bool, int64_t>())
        .def("refine", &Session::refine)
        .def("begin", &Session::begin)
        .def("end", &Session::end)
        .def("step", &Session::step)
        .def("refine_async", &Session::refine_async)
        .def("wait", &Session::wait)
        .def("stream", &Session::stream)
        .def("order", &Session::order);
}
