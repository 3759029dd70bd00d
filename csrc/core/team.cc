#include "core/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>

namespace trm {
namespace {

constexpr int kSpinsBeforeYield = 1 << 16;  // about a millisecond; reached only where processors are oversubscribed

void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
}

void pin_to_nth_allowed(std::thread& thread, int n, const cpu_set_t& allowed) {
    int count = CPU_COUNT(&allowed);
    if (count == 0) return;
    n %= count;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed) || n-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);  // a wish: refusal changes no answer
        return;
    }
}

// Signals are the caller's: a worker must not run their handlers, but those of its own faults and of a profiler.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&all, own);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_;
};

// Parked workers sleep here. One place for all teams: parking is rare and its cost is a system call anyway. It is never
// destroyed: workers may sleep on when a process ends, and to destroy a condition is to wait for its sleepers.
std::mutex& parking = *new std::mutex;
std::condition_variable& unpark = *new std::condition_variable;

// The condition that a child of fork inherits counts sleepers that the child does not have, and waits for them when it
// is notified. So the child gets a new one; the old one is not destroyed, which would wait for them too.
void renew_after_fork() {
    static const int registered = pthread_atfork([] { parking.lock(); }, [] { parking.unlock(); },
                                                 [] {
                                                     new (&parking) std::mutex;
                                                     new (&unpark) std::condition_variable;
                                                 });
    (void)registered;
}

}  // namespace

void wait_at(Barrier& barrier, int threads) {
    const uint32_t phase = barrier.phase.load(std::memory_order_acquire);
    if (barrier.waiting.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
        barrier.waiting.store(0, std::memory_order_relaxed);
        barrier.phase.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; barrier.phase.load(std::memory_order_acquire) == phase;) {
        relax();
        if (spins < kSpinsBeforeYield) {
            ++spins;  // no further: a thread that is stopped for long would let it overflow
        } else {
            sched_yield();
        }
    }
}

Team::Team(int threads, int64_t park_after_us, bool pin)
    : threads_(threads), park_after_us_(park_after_us), process_(getpid()) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    renew_after_fork();
    if (pin) sched_getaffinity(0, sizeof allowed, &allowed);
    const SignalsBlocked inherited_by_workers;
    try {
        for (int thread = 1; thread < threads; ++thread) {
            workers_->emplace_back([this, thread] { worker(thread); });
            if (pin) pin_to_nth_allowed(workers_->back(), thread, allowed);
        }
    } catch (...) {
        stop();
        throw;
    }
    run([](void*, int) {}, nullptr);  // every worker has started, and made the system calls that this takes
}

Team::~Team() {
    if (getpid() == process_) {
        stop();
    } else {
        // A child of fork has no workers, and what their handles name may be unmapped by now, or belong to a thread of
        // its own: they can be neither joined nor detached, nor destroyed as they are. So they are never freed.
        workers_.release();
    }
}

void Team::stop() {
    stopping_ = true;
    start_round();
    for (std::thread& worker : *workers_) worker.join();
}

void Team::run(void (*work)(void*, int), void* context) {
    if (threads_ == 1) return work(context, 0);
    work_ = work;
    context_ = context;
    start_round();
    work(context, 0);
    wait_at(done_, threads_);
}

void Team::start_round() {
    round_.fetch_add(
        1);  // sequentially consistent with `parked_`: either the worker sees the round, or we see it parked
    if (parked_.load() == 0) return;
    const std::lock_guard<std::mutex> lock(parking);
    unpark.notify_all();
}

void Team::worker(int thread) {
    for (uint32_t seen = 0;; ++seen) {
        if (!spin_for(seen)) park(seen);
        if (stopping_) return;
        work_(context_, thread);
        wait_at(done_, threads_);
    }
}

// Spin until the round after `seen` starts; false where the time to park has come.
bool Team::spin_for(uint32_t seen) const {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point since = park_after_us_ == kNeverPark ? Clock::time_point() : Clock::now();
    for (unsigned spins = 1; round_.load(std::memory_order_acquire) == seen; ++spins) {
        relax();
        if (park_after_us_ != kNeverPark && spins % 64 == 0 &&
            Clock::now() - since >= std::chrono::microseconds(park_after_us_)) {
            return false;
        }
    }
    return true;
}

void Team::park(uint32_t seen) {
    std::unique_lock<std::mutex> lock(parking);
    parked_.fetch_add(1);
    unpark.wait(lock, [&] { return round_.load() != seen; });
    parked_.fetch_sub(1);
}

}  // namespace trm
