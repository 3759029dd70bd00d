// Threads that work on one evaluation together. They spin between evaluations, so that waking them costs no system
// call.
#ifndef TRM_EDGE_CORE_TEAM_H
#define TRM_EDGE_CORE_TEAM_H

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "core/kernels.h"

namespace trm {

// wait_at(): all threads of a team wait until the last of them has come.
struct Barrier {
    alignas(64) std::atomic<int> waiting{0};
    alignas(64) std::atomic<uint32_t> phase{0};  // wraps around
};

// The caller of run() and `threads - 1` workers. One caller at a time.
class Team {
  public:
    static constexpr int64_t kNeverPark = -1;

    // Workers that found nothing to do for `park_after_us` microseconds sleep, and waking them is a system call.
    // `pin` binds worker i to the i-th processor after the first that the creating thread may use.
    // Throws std::system_error where the system grants no more threads.
    Team(int threads, int64_t park_after_us, bool pin);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int threads() const { return threads_; }
    Barrier* barrier() { return threads_ > 1 ? &barrier_ : nullptr; }

    // Calls work(context, thread) in every thread and returns when all are done.
    void run(void (*work)(void* context, int thread), void* context);

  private:
    void worker(int thread);
    bool spin_for(uint32_t seen) const;
    void park(uint32_t seen);
    void start_round();
    void stop();

    const int threads_;
    const int64_t park_after_us_;
    const pid_t process_;
    Barrier barrier_, done_;
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    bool stopping_ = false;
    alignas(64) std::atomic<uint32_t> round_{0};
    alignas(64) std::atomic<int> parked_{0};
    std::unique_ptr<std::vector<std::thread>> workers_ = std::make_unique<std::vector<std::thread>>();
};

}  // namespace trm

#endif
