#include "cpu/dispatch.h"

#include <cstring>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace trm {

extern const Kernels kernels_scalar;
#ifdef TRM_HAVE_AVX2
extern const Kernels kernels_avx2;
#endif
#ifdef TRM_HAVE_AVXVNNI
extern const Kernels kernels_avxvnni;
#endif
#ifdef TRM_HAVE_AVX512
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx512vnni;
#endif
#ifdef TRM_HAVE_AVX512BF16
extern const Kernels kernels_avx512bf16;
#endif
#ifdef TRM_HAVE_NEON
extern const Kernels kernels_neon;
extern const Kernels kernels_neondot;
#endif

namespace {

const Kernels* const compiled_in[] = {
#ifdef TRM_HAVE_AVX512BF16
    &kernels_avx512bf16,
#endif
#ifdef TRM_HAVE_AVX512
    &kernels_avx512vnni, &kernels_avx512,
#endif
#ifdef TRM_HAVE_AVXVNNI
    &kernels_avxvnni,
#endif
#ifdef TRM_HAVE_AVX2
    &kernels_avx2,
#endif
#ifdef TRM_HAVE_NEON
    &kernels_neondot,    &kernels_neon,
#endif
    &kernels_scalar,
};

#if defined(__x86_64__)
// CPUID leaf 7, sub-leaf 1, EAX bit 4; older compilers know no name for it. The registers are AVX's.
bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1u) != 0;
}
#endif

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
#if defined(__x86_64__)
    // The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    const std::string_view isa = kernels.isa;
    if (isa == "avx2") return avx2;
    if (isa == "avxvnni") return avx2 && has_avx_vnni();
    if (isa == "avx512") return avx512;
    if (isa == "avx512vnni") return vnni;
    if (isa == "avx512bf16") return vnni && __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
    if (std::string_view(kernels.isa) == "neondot") return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
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
