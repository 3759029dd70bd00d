// DLPack capsules, in and out. The structs are those of the specification, in the versions before 1, which all
// producers still make where nothing newer is asked for: https://dmlc.github.io/dlpack
#ifndef TRM_EDGE_PYTHON_DLPACK_H
#define TRM_EDGE_PYTHON_DLPACK_H

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace trm::python {

namespace py = pybind11;

struct DlTensor {
    void* data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

struct DlManagedTensor {
    DlTensor tensor;
    void* manager;
    void (*deleter)(DlManagedTensor*);
};

constexpr const char* kFresh = "dltensor";

// Take the array out of a fresh capsule: (address, shape, strides in elements or None, code of the dtype, bits, lanes,
// type of the device, its number, owner). The array lives as long as the owner. Anything else is None.
inline py::object take_dlpack(const py::object& capsule) {
    if (!PyCapsule_IsValid(capsule.ptr(), kFresh)) return py::none();
    auto* const managed = static_cast<DlManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kFresh));
    const py::capsule owner(managed, [](void* held) {
        auto* const tensor = static_cast<DlManagedTensor*>(held);
        if (tensor->deleter) tensor->deleter(tensor);
    });
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    const DlTensor& t = managed->tensor;
    const auto sizes = [&](const int64_t* from) {
        return py::tuple(py::cast(std::vector<int64_t>(from, from + t.ndim)));
    };
    return py::make_tuple(reinterpret_cast<uintptr_t>(t.data) + t.byte_offset, sizes(t.shape),
                          t.strides ? py::object(sizes(t.strides)) : py::none(), t.dtype.code, t.dtype.bits,
                          t.dtype.lanes, t.device.type, t.device.id, owner);
}

// A dense array that is handed on, and what keeps it.
struct Given {
    DlManagedTensor managed;
    std::vector<int64_t> shape;
    PyObject* owner;

    // By whoever took it, on any thread, and after the interpreter has gone too.
    static void release(DlManagedTensor* managed) {
        auto* const given = static_cast<Given*>(managed->manager);
        if (Py_IsInitialized()) {
            const py::gil_scoped_acquire held;
            Py_DECREF(given->owner);
        }
        delete given;
    }

    // Of a capsule that nobody took. An error that is being raised stays.
    static void discard(PyObject* capsule) {
        if (!PyCapsule_IsValid(capsule, kFresh)) return;
        const py::error_scope raised;
        release(static_cast<DlManagedTensor*>(PyCapsule_GetPointer(capsule, kFresh)));
    }
};

inline py::object give_dlpack(uintptr_t address, std::vector<int64_t> shape, int code, int bits, int device_type,
                              int device_id, const py::object& owner) {
    auto given = std::make_unique<Given>();
    given->shape = std::move(shape);
    given->owner = py::object(owner).release().ptr();
    DlTensor& t = given->managed.tensor;
    t = {reinterpret_cast<void*>(address),
         {device_type, device_id},
         static_cast<int32_t>(given->shape.size()),
         {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1},
         given->shape.data(),
         nullptr,
         0};
    given->managed.manager = given.get();
    given->managed.deleter = Given::release;
    return py::reinterpret_steal<py::object>(PyCapsule_New(&given.release()->managed, kFresh, Given::discard));
}

}  // namespace trm::python

#endif
