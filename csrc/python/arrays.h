// The arrays of a call, as Python brings them.
#ifndef TRM_EDGE_PYTHON_ARRAYS_H
#define TRM_EDGE_PYTHON_ARRAYS_H

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "trm_edge/trm_edge.h"

namespace trm::python {

namespace py = pybind11;

inline trm_dtype dtype_of(const py::array& array) {
    const py::dtype dtype = array.dtype();
    if (dtype.is(py::dtype::of<float>())) return TRM_F32;
    if (dtype.is(py::dtype::of<int32_t>())) return TRM_I32;
    return dtype.is(py::dtype::of<bool>()) ? TRM_BOOL : TRM_ABSENT;
}

// The arrays of one call, kept alive until it is over. A dense array of a known dtype is passed on as it is; anything
// else goes through trm_edge.inputs.as_array, which converts it or says what is wrong.
class Arrays {
  public:
    // `on_device`: a tuple is memory of the GPU, (address, trm_dtype, dimensions, rows, columns), from on_device.py.
    explicit Arrays(bool on_device = false) : on_device_(on_device) {}

    trm_tensor operator()(const char* name, const py::object& value, trm_dtype expected) {
        if (value.is_none()) return trm_tensor{nullptr, TRM_ABSENT, 0, {0, 0}};
        if (on_device_ && py::isinstance<py::tuple>(value)) {
            const auto [at, dtype, ndim, rows, columns] = py::cast<Elsewhere>(value);
            return trm_tensor{reinterpret_cast<const void*>(at), dtype, ndim, {rows, columns}};
        }
        py::array array = dense(name, value, expected);
        trm_tensor tensor{array.data(), dtype_of(array), static_cast<int32_t>(array.ndim()), {0, 0}};
        for (int i = 0; i < std::min<int>(tensor.ndim, 2); ++i) tensor.shape[i] = array.shape(i);
        kept_[count_++] = std::move(array);
        return tensor;
    }

  private:
    using Elsewhere = std::tuple<uintptr_t, int32_t, int32_t, int64_t, int64_t>;
    static py::array dense(const char* name, const py::object& value, trm_dtype expected) {
        if (Py_TYPE(value.ptr()) == py::detail::npy_api::get().PyArray_Type_) {  // none of a subclass, as a mask has
            py::array array = py::reinterpret_borrow<py::array>(value);
            constexpr int kReady = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
            if ((array.flags() & kReady) == kReady && dtype_of(array) != TRM_ABSENT) return array;
        }
        const py::dtype dtype(expected == TRM_F32 ? "float32" : expected == TRM_I32 ? "int32" : "bool");
        return py::module_::import("trm_edge.inputs").attr("as_array")(name, value, dtype);
    }

    py::array kept_[8];
    int count_ = 0;
    bool on_device_;
};

}  // namespace trm::python

#endif
