#include "cpu/dispatch.h"

#include <cstring>

namespace trm {

extern const Kernels kernels_scalar;
#ifdef TRM_HAVE_AVX2
extern const Kernels kernels_avx2;
#endif
#ifdef TRM_HAVE_AVX512
extern const Kernels kernels_avx512;
#endif
#ifdef TRM_HAVE_NEON
extern const Kernels kernels_neon;
#endif

namespace {

const Kernels* const compiled_in[] = {
#ifdef TRM_HAVE_AVX512
    &kernels_avx512,
#endif
#ifdef TRM_HAVE_AVX2
    &kernels_avx2,
#endif
#ifdef TRM_HAVE_NEON
    &kernels_neon,
#endif
    &kernels_scalar,
};

std::string names(bool only_supported) {
    std::string list;
    for (const Kernels* kernels : compiled_in) {
        if (only_supported && !supported(*kernels)) continue;
        list += list.empty() ? "" : ", ";
        list += kernels->isa;
    }
    return list;
}

}  // namespace

const Kernels* const* all_kernels(size_t* count) {
    *count = sizeof(compiled_in) / sizeof(compiled_in[0]);
    return compiled_in;
}

bool supported(const Kernels& kernels) {
    // The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
#ifdef TRM_HAVE_AVX512
    if (&kernels == &kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef TRM_HAVE_AVX2
    if (&kernels == &kernels_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)kernels;
    return true;  // scalar is the architecture's baseline, and so is NEON on 64-bit Arm
}

const Kernels* select_kernels(const char* wanted, std::string* error) {
    const bool any = wanted == nullptr || *wanted == '\0';
    for (const Kernels* kernels : compiled_in)
        if (supported(*kernels) && (any || std::strcmp(kernels->isa, wanted) == 0)) return kernels;
    *error = "TRM_EDGE_ISA=" + std::string(wanted) + " is not available: this build holds " + names(false) +
             "; this processor supports " + names(true) + ". Unset TRM_EDGE_ISA to use the best one";
    return nullptr;
}

}  // namespace trm
