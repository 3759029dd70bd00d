#include "cpu/dispatch.h"

#include <cstring>

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
#endif
#ifdef TRM_HAVE_AVX512VNNI
extern const Kernels kernels_avx512vnni;
#endif
#ifdef TRM_HAVE_AVX512BF16
extern const Kernels kernels_avx512bf16;
#endif
#ifdef TRM_HAVE_NEON
extern const Kernels kernels_neon;
#endif
#ifdef TRM_HAVE_NEONDOT
extern const Kernels kernels_neondot;
#endif

namespace {

#if defined(__x86_64__)
// CPUID leaf 7, sub-leaf 1, EAX bit 4; older compilers know no name for it, nor the instructions. The registers are
// AVX's.
[[maybe_unused]] bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1u) != 0;
}

// The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
[[maybe_unused]] bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
[[maybe_unused]] bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

const InstructionSet compiled_in[] = {
#ifdef TRM_HAVE_AVX512BF16
    {&kernels_avx512bf16, [] { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }},
#endif
#ifdef TRM_HAVE_AVX512VNNI
    {&kernels_avx512vnni, has_avx512_vnni},
#endif
#ifdef TRM_HAVE_AVX512
    {&kernels_avx512, has_avx512},
#endif
#ifdef TRM_HAVE_AVXVNNI
    {&kernels_avxvnni, [] { return has_avx2() && has_avx_vnni(); }},
#endif
#ifdef TRM_HAVE_AVX2
    {&kernels_avx2, has_avx2},
#endif
#ifdef TRM_HAVE_NEONDOT
    {&kernels_neondot, [] { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }},
#endif
#ifdef TRM_HAVE_NEON
    {&kernels_neon, [] { return true; }},  // the baseline of 64-bit Arm
#endif
    {&kernels_scalar, [] { return true; }},
};

std::string names(bool only_supported) {
    std::string list;
    for (const InstructionSet& set : compiled_in) {
        if (only_supported && !set.supported()) continue;
        list += list.empty() ? "" : ", ";
        list += set.kernels->isa;
    }
    return list;
}

}  // namespace

const InstructionSet* instruction_sets(size_t* count) {
    *count = sizeof(compiled_in) / sizeof(compiled_in[0]);
    return compiled_in;
}

const Kernels* select_kernels(const char* wanted, std::string* error) {
    const bool any = wanted == nullptr || *wanted == '\0';
    for (const InstructionSet& set : compiled_in)
        if (set.supported() && (any || std::strcmp(set.kernels->isa, wanted) == 0)) return set.kernels;
    *error = "TRM_EDGE_ISA=" + std::string(wanted) + " is not available: this build holds " + names(false) +
             "; this processor supports " + names(true) + ". Unset TRM_EDGE_ISA to use the best one";
    return nullptr;
}

}  // namespace trm
