// Proves that refine, begin and step allocate nothing and make no system call, from the first call on.
//
// Allocation: malloc and its kin are interposed and counted. System calls: a child process installs a seccomp filter
// that kills it at any call but exit_group, runs the engine, and says by its exit that it came back. That the
// filter bites is checked first, with a child that makes a harmless call. Reading the clock goes through the vDSO.
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "golden_case.h"

namespace {

volatile bool counting = false;
volatile long allocations = 0;

void count() {
    if (counting) allocations = allocations + 1;
}

}  // namespace

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) {
    count();
    return __libc_malloc(size);
}
void* calloc(size_t n, size_t size) {
    count();
    return __libc_calloc(n, size);
}
void* realloc(void* p, size_t size) {
    count();
    return __libc_realloc(p, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
    count();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}
void free(void* p) {
    if (p) count();
    __libc_free(p);
}
}

namespace {

// In every thread of the process. Yielding is allowed: threads that share a processor do it after a millisecond.
bool forbid_system_calls() {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_yield, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

// Run `body(prepare())` in a child that may make no system call once it is prepared; returns its wait status.
template <typename Prepare, typename Body>
int in_silent_child(Prepare&& prepare, Body&& body) {
    const pid_t child = fork();
    if (child == 0) {
        auto* const prepared = prepare();
        if (!forbid_system_calls()) _exit(3);
        _exit(body(prepared));
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

bool exited_with(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }

int fail(const char* what) {
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, trm_last_message());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return fail("usage: realtime_test BUNDLE");
    const GoldenFile golden(argv[1]);
    const trm_inputs in = golden.inputs(0);
    static char buffer[4][1 << 16];
    trm_outputs out = TRM_OUTPUTS_INIT;
    out.y = buffer[0];
    out.halt_logits = reinterpret_cast<float*>(buffer[1]);
    out.trajectory = buffer[2];
    out.logits = reinterpret_cast<float*>(buffer[3]);
    out.y_bytes = out.halt_logits_bytes = out.trajectory_bytes = out.logits_bytes = sizeof buffer[0];

    const auto calls = [&](trm_session* session) {
        if (session == nullptr) return 1;
        for (int i = 0; i < 3; ++i) {
            if (trm_refine(session, &in, 4, TRM_NEVER_HALT, &out) < 0) return 1;
        }
        if (trm_refine(session, &in, 4, 0.5f, &out) < 0) return 1;
        if (trm_begin(session, &in) < 0) return 1;
        return trm_step(session, nullptr, nullptr, nullptr, &out) < 0 ? 1 : 0;
    };

    counting = true;
    free(malloc(1));
    counting = false;
    if (allocations != 2) return fail("the interposed malloc and free do not count");
    const auto no_session = [] { return static_cast<trm_session*>(nullptr); };
    const int caught = in_silent_child(no_session, [](trm_session*) { return syscall(SYS_getppid) < 0 ? 1 : 0; });
    if (!WIFSIGNALED(caught)) {
        if (exited_with(caught, 3)) return fail("seccomp is not available here");
        return fail("the filter lets a system call through");
    }

    for (const int32_t precision : {TRM_PRECISION_FP32, TRM_PRECISION_BF16, TRM_PRECISION_INT8}) {
        trm_load_options load = TRM_LOAD_OPTIONS_INIT;
        load.precision = precision;
        trm_model* model = nullptr;
        if (trm_model_load_file(argv[1], &load, &model) != TRM_OK) return fail("load");
        for (const int32_t threads : {1, 2}) {
            // A session a check, so that each sees a first call.
            const auto new_session = [&] {
                trm_session_options options = TRM_SESSION_OPTIONS_INIT;
                options.threads = threads;
                trm_session* session = nullptr;
                trm_session_create(model, &options, &session);
                return session;
            };
            trm_session* session = new_session();
            allocations = 0;
            counting = true;
            const int result = calls(session);
            counting = false;
            trm_session_free(session);
            if (result != 0) return fail("refine");
            if (allocations != 0) return fail("the engine allocated");
            if (!exited_with(in_silent_child(new_session, calls), 0)) return fail("the engine made a system call");
            std::printf("%s, %d thread(s): no allocation and no system call in 4 refine, 1 begin, 1 step\n",
                        trm_model_precision(model), threads);
        }
        trm_model_free(model);
    }
    return 0;
}
