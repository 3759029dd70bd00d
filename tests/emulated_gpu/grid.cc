#include "grid.h"

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "late_stores.h"
#include "switch.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulated {
namespace {

// AddressSanitizer has to know which stack is in use; elsewhere these do nothing.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 256 * 1024;
void leave_stack(void** fake, const void* to, size_t bytes) { __sanitizer_start_switch_fiber(fake, to, bytes); }
void arrive(void* fake, const void** from, size_t* bytes) { __sanitizer_finish_switch_fiber(fake, from, bytes); }
void forget_frames(const char* stack) { ASAN_UNPOISON_MEMORY_REGION(stack, kStackBytes); }
#else
constexpr size_t kStackBytes = 64 * 1024;
void leave_stack(void**, const void*, size_t) {}
void arrive(void*, const void**, size_t*) {}
void forget_frames(const char*) {}
#endif
constexpr long kMostTurns = 1L << 20;  // without anything written: threads wait for what never comes
constexpr long kQuietTurns = 1L << 7;  // likewise: some of what is slow to become visible does now
constexpr unsigned kSlow = 2;          // one store of so many is slow
constexpr unsigned kSleepers = 128;    // one warp of so many that leave a meeting of the block sleeps for a while

struct Warp;

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};

struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    void* at = nullptr;          // on its stack
    void* fake_stack = nullptr;  // AddressSanitizer's
    Position position;
    Warp* warp = nullptr;
    unsigned lane = 0;
    std::vector<Copy> copies;
};

constexpr unsigned kAllLanes = ~0u;

struct Block {
    std::vector<Warp> warps;
    unsigned threads = 0, alive = 0;
    unsigned waiting = 0;  // at a meeting of the block
    int yes[2] = {0, 0};   // of meetings in turn: a thread may be one ahead of others that still look
    unsigned meetings = 0;
    std::vector<uint4> shared;
    LateStores late;
};

struct Warp {
    Block* block = nullptr;
    std::unique_ptr<Fiber> lanes[kWarpSize];
    unsigned ready = 0, waiting = 0;  // lanes that can go on; that are at a meeting of the warp
    const char* meeting = nullptr;
    Brought brought[2][kWarpSize];  // of meetings in turn, as above
    unsigned meetings = 0;
    bool listed = false;  // among those that have something to run
    long asleep_until = 0;
};

class Grid {
  public:
    Grid(const Launch& launch, const std::function<void()>& kernel) : launch_(launch), kernel_(kernel) {}

    void run() {
        const unsigned count = launch_.blocks.x * launch_.blocks.y * launch_.blocks.z;
        const unsigned at_once = launch_.together ? count : 1;
        for (unsigned first = 0; first < count; first += at_once) {
            blocks_.clear();
            for (unsigned i = first; i < first + at_once; ++i) blocks_.push_back(make_block(i));
            finish_blocks();
        }
    }

    // ---- Called by fibers ----

    void give_way() { switch_to_scheduler(); }

    void wake(Warp& warp, unsigned lanes) {
        warp.ready |= lanes;
        if (warp.listed) return;
        warp.listed = true;
        runnable_.push_back(&warp);
    }

    void fail(const char* why, const char* first = "", const char* joined = "", const char* second = "") {
        for (const char* part : {why, first, joined, second}) failure_ += part;
        switch_to_scheduler();  // and never return: nothing on this stack is destroyed
    }

    static std::minstd_rand& order() {
        static std::minstd_rand drawn(static_cast<unsigned>(setting("TRM_EMULATED_SEED", 1)));
        return drawn;
    }

    void may_sleep(Warp& warp) {
        if (order()() % kSleepers == 0) warp.asleep_until = now_ + static_cast<long>(order()()) % longest_sleep_;
    }

    void has_read(const void* from) { read_.add(from); }

    bool is_slow() const { return order()() % kSlow == 0; }

    Fiber* running = nullptr;
    long turns = 0;

  private:
    std::unique_ptr<Block> make_block(unsigned number) {
        const dim3 size = launch_.threads, grid = launch_.blocks;
        const unsigned threads = size.x * size.y * size.z;
        if (threads % kWarpSize != 0) throw Failure("expected whole warps, got " + std::to_string(threads));
        auto block = std::make_unique<Block>();
        block->warps = std::vector<Warp>(threads / kWarpSize);
        block->threads = block->alive = threads;
        block->shared.resize((launch_.shared_bytes + sizeof(uint4) - 1) / sizeof(uint4), {~0u, ~0u, ~0u, ~0u});
        const dim3 at(number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y));
        for (unsigned i = 0; i < threads; ++i) {
            const dim3 thread(i % size.x, i / size.x % size.y, i / (size.x * size.y));
            Warp& warp = block->warps[i / kWarpSize];
            std::unique_ptr<Fiber> fiber = new_fiber();
            fiber->position = {thread, at, size, grid};
            fiber->warp = &warp;
            fiber->lane = i % kWarpSize;
            const size_t apart = fiber->lane * 128;  // so that lanes do not push each other out of a cache's sets
            fiber->at = new_stack(fiber->stack.get(), kStackBytes - apart, &Grid::enter);
            warp.lanes[i % kWarpSize] = std::move(fiber);
            warp.block = block.get();
        }
        for (Warp& warp : block->warps) wake(warp, kAllLanes);
        return block;
    }

    // Fibers that have ended, for others.
    static std::vector<std::unique_ptr<Fiber>>& spare() {
        static std::vector<std::unique_ptr<Fiber>> kept;
        return kept;
    }

    static std::unique_ptr<Fiber> new_fiber() {
        if (spare().empty()) return std::make_unique<Fiber>();
        std::unique_ptr<Fiber> fiber = std::move(spare().back());
        spare().pop_back();
        forget_frames(fiber->stack.get());
        return fiber;
    }

    [[noreturn]] static void enter();

    // Run all threads of blocks_ to their end.
    void finish_blocks() {
        turns = 0;
        while (!runnable_.empty()) {
            size_t drawn = order()() % runnable_.size();
            for (int i = 0; i < 8 && runnable_[drawn]->asleep_until > now_; ++i) drawn = order()() % runnable_.size();
            ++now_;
            Warp& warp = *runnable_[drawn];
            runnable_[drawn] = runnable_.back();
            runnable_.pop_back();
            warp.listed = false;
            const unsigned ready = std::exchange(warp.ready, 0);
            for (unsigned lane = 0; lane < kWarpSize; ++lane) {
                if ((ready >> lane & 1) == 0) continue;
                switch_to(warp.lanes[lane].get());
                if (!failure_.empty()) throw Failure(failure_);
            }
            if (warp.block->late.settle(order())) turns = 0;
            if (++turns % kQuietTurns == 0) hurry();
            if (turns > kMostTurns) throw Failure("threads wait for what nobody writes");
        }
        for (const auto& block : blocks_) block->late.release_all();
        for (const auto& block : blocks_) {
            if (block->alive > 0) throw Failure(why_stuck(*block));
            for (Warp& warp : block->warps)
                for (auto& fiber : warp.lanes) spare().push_back(std::move(fiber));
        }
    }

    // What threads wait for becomes visible, as they read it again and again.
    void hurry() {
        for (const auto& block : blocks_)
            if (block->late.hurry(read_)) turns = 0;
        read_.clear();
    }

    static std::string why_stuck(const Block& block) {
        for (const Warp& warp : block.warps)
            if (warp.waiting != 0) return std::string("some lanes of a warp never come to ") + warp.meeting;
        return "of " + std::to_string(block.threads) + " threads " + std::to_string(block.waiting) +
               " are at __syncthreads, and the others never come";
    }

    void switch_to(Fiber* fiber) {
        running = fiber;
        void* own = nullptr;
        leave_stack(&own, fiber->stack.get(), kStackBytes);
        trm_emulated_switch(&scheduler_, fiber->at);
        arrive(own, nullptr, nullptr);
    }

    void switch_to_scheduler() {
        Fiber* fiber = running;
        leave_stack(&fiber->fake_stack, scheduler_stack_, scheduler_stack_bytes_);
        trm_emulated_switch(&fiber->at, scheduler_);
        arrive(fiber->fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
    }

    Launch launch_;
    const std::function<void()>& kernel_;
    std::vector<std::unique_ptr<Block>> blocks_;
    std::vector<Warp*> runnable_;
    long now_ = 0;  // turns since the grid began
    const long longest_sleep_ = setting("TRM_EMULATED_LONGEST_SLEEP", 512);
    Granules read_;  // since hurry() was called last
    std::string failure_;
    void* scheduler_ = nullptr;              // on the stack that run() was called on
    const void* scheduler_stack_ = nullptr;  // AddressSanitizer's
    size_t scheduler_stack_bytes_ = 0;
};

Grid* grid = nullptr;  // that is running: one at a time

void Grid::enter() {
    Grid& own = *grid;
    arrive(nullptr, &own.scheduler_stack_, &own.scheduler_stack_bytes_);
    own.kernel_();
    Fiber& fiber = *own.running;
    if (!fiber.copies.empty()) own.fail("a thread ends before its asynchronous copies");
    --fiber.warp->block->alive;
    leave_stack(nullptr, own.scheduler_stack_, own.scheduler_stack_bytes_);
    trm_emulated_switch(&fiber.at, own.scheduler_);
    std::abort();  // nobody switches to what has ended
}

}  // namespace

int setting(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

void run_grid(const Launch& launch, const std::function<void()>& kernel) {
    if (grid != nullptr) throw Failure("a grid is running");
    Grid own(launch, kernel);
    grid = &own;
    try {
        own.run();
    } catch (...) {
        grid = nullptr;
        throw;
    }
    grid = nullptr;
}

const Position& position() { return grid->running->position; }

void* shared_memory() { return grid->running->warp->block->shared.data(); }

int meet_block(bool yes) {
    Block& block = *grid->running->warp->block;
    int& said_yes = block.yes[block.meetings % 2];
    if (block.waiting == 0) said_yes = 0;
    said_yes += yes;
    if (++block.waiting == block.threads) {
        block.waiting = 0;
        ++block.meetings;
        for (Warp& warp : block.warps) {
            grid->wake(warp, kAllLanes);
            grid->may_sleep(warp);
        }
    }
    grid->give_way();
    return said_yes;
}

const Brought* meet_warp(const char* what, const void* bytes, size_t size) {
    const unsigned lane = grid->running->lane;
    Warp& warp = *grid->running->warp;
    Brought* brought = warp.brought[warp.meetings % 2];
    std::memcpy(brought[lane].bytes, bytes, size);
    if (warp.waiting == 0) warp.meeting = what;
    if (warp.meeting != what && std::strcmp(warp.meeting, what) != 0)
        grid->fail("lanes of a warp meet in ", warp.meeting, " and in ", what);
    warp.waiting |= 1u << lane;
    if (warp.waiting == kAllLanes) {
        warp.waiting = 0;
        ++warp.meetings;
        grid->wake(warp, kAllLanes);
    }
    grid->give_way();
    return brought;
}

void pause() {
    grid->wake(*grid->running->warp, 1u << grid->running->lane);
    grid->give_way();
}

void store(void* to, const void* bytes, size_t size) {
    Fiber& fiber = *grid->running;
    Block& block = *fiber.warp->block;
    block.late.add(to, bytes, size, &fiber, block.meetings, grid->is_slow());
}

void load(void* value, const void* from, size_t size) {
    grid->has_read(from);
    grid->running->warp->block->late.read(value, from, size);
}

void release() {
    Fiber& fiber = *grid->running;
    Block& block = *fiber.warp->block;
    block.late.release(&fiber, block.meetings);
    grid->turns = 0;
}

void copy_later(void* to, const void* from, size_t bytes) { grid->running->copies.push_back({to, from, bytes}); }

void wait_for_copies() {
    for (const Copy& copy : grid->running->copies) std::memcpy(copy.to, copy.from, copy.bytes);
    grid->running->copies.clear();
}

}  // namespace emulated
