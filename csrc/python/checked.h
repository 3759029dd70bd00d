// Calls into the C ABI, as Python sees them.
#ifndef TRM_EDGE_PYTHON_CHECKED_H
#define TRM_EDGE_PYTHON_CHECKED_H

#include <pybind11/pybind11.h>

#include "trm_edge/trm_edge.h"

namespace trm::python {

namespace py = pybind11;

// Call into the C ABI without the GIL. Raises the exception of trm_edge.errors that stands for a negative status.
template <typename Call>
trm_status checked(Call&& call) {
    auto released = PyEval_SaveThread();
    const trm_status status = call();  // does not throw
    PyEval_RestoreThread(released);
    if (status >= 0) return status;
    const py::object error =
        py::module_::import("trm_edge.errors").attr("error_from_status")(status, py::bytes(trm_last_message()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    throw py::error_already_set();
}

}  // namespace trm::python

#endif
