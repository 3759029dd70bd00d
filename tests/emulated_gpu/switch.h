// Switches between stacks. (swapcontext would ask the kernel for the signal mask each time, which takes ten times as
// long.)
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_SWITCH_H
#define TRM_EDGE_TESTS_EMULATED_GPU_SWITCH_H

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emulated {

// Leave this stack, note in *own where it is, and go on where the other one was left.
extern "C" void trm_emulated_switch(void** own, void* other);

#if defined(__x86_64__)

constexpr size_t kSavedWords = 7;  // six registers, then where to return to
asm(R"(
.text
.type trm_emulated_switch, @function
trm_emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size trm_emulated_switch, . - trm_emulated_switch
)");
constexpr size_t kReturnWord = 6, kPadding = 1;  // a function finds the stack 8 bytes off 16

#elif defined(__aarch64__)

constexpr size_t kSavedWords = 20;  // x19 to x30, d8 to d15
asm(R"(
.text
.type trm_emulated_switch, %function
trm_emulated_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size trm_emulated_switch, . - trm_emulated_switch
)");
constexpr size_t kReturnWord = 11, kPadding = 0;

#else
#error "the emulated GPU runs on x86-64 and aarch64"
#endif

// A stack that, once switched to, calls `function`, which does not return.
inline void* new_stack(char* memory, size_t bytes, void (*function)()) {
    const uintptr_t top = (reinterpret_cast<uintptr_t>(memory) + bytes) / 16 * 16;
    auto* saved = reinterpret_cast<void**>(top) - kSavedWords - kPadding;
    std::memset(saved, 0, (kSavedWords + kPadding) * sizeof(void*));
    saved[kReturnWord] = reinterpret_cast<void*>(function);
    return saved;
}

}  // namespace emulated

#endif
