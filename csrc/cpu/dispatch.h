// Which instruction sets this build holds, and which of them to use.
#ifndef TRM_EDGE_CPU_DISPATCH_H
#define TRM_EDGE_CPU_DISPATCH_H

#include <cstddef>
#include <string>

#include "core/kernels.h"

namespace trm {

struct InstructionSet {
    const Kernels* kernels;
    bool (*supported)();  // whether this processor and its operating system can run them
};

// Those that are compiled into this build, best first.
const InstructionSet* instruction_sets(size_t* count);

// The kernels to use. `wanted` (nullable) is the value of TRM_EDGE_ISA: null or "" takes the best supported ones, a
// name takes exactly those. An unknown or unsupported name gives null and a message in `error`; nothing falls back,
// because whoever forces an instruction set must not measure or test another one.
const Kernels* select_kernels(const char* wanted, std::string* error);

}  // namespace trm

#endif
