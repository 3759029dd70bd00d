// Runs the threads of a kernel on a processor, in an order that is drawn anew again and again.
//
// A thread is a fiber. It goes on until it meets others (a barrier, an exchange between the lanes of a warp, a loop
// that waits for memory); then the threads of another warp go on, whichever is drawn. What needs threads to meet and
// finds that some never come is told as a failure of the launch, not as a hang.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_GRID_H
#define TRM_EDGE_TESTS_EMULATED_GPU_GRID_H

#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "vector_types.h"

namespace emulated {

constexpr int kWarpSize = 32;

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Launch {
    dim3 blocks, threads;
    size_t shared_bytes;
    bool together;  // blocks run side by side; else one after another, as nothing says that any two ever meet
};

// A number from the environment.
int setting(const char* name, int otherwise);

// Run `kernel` in every thread of a grid. Throws Failure.
void run_grid(const Launch& launch, const std::function<void()>& kernel);

// ---- Of the thread that is running ----

struct Position {
    dim3 thread, block, block_size, grid_size;
};
const Position& position();
void* shared_memory();  // of its block, as many bytes as the launch asks for; NaN at first

// Until all threads of the block are here. Returns how many of them said yes.
int meet_block(bool yes = false);

// Until all lanes of the warp are here, each with up to kMostBytes; returns what lane i brought at [i]. `what` names
// the operation: lanes that meet in different ones are a failure.
struct Brought {
    static constexpr size_t kMostBytes = 32;
    alignas(16) unsigned char bytes[kMostBytes];

    template <typename T>
    T as() const {
        static_assert(sizeof(T) <= kMostBytes, "too much to bring");
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }
};
const Brought* meet_warp(const char* what, const void* bytes, size_t size);

// ---- Memory that blocks hand to each other ----

// What a block stores the others see later, in any order but that of a place with itself, and at the latest when it is
// released: by a thread, what it has stored itself, and what others of its block had when they last met.
void store(void* to, const void* bytes, size_t size);
void load(void* value, const void* from, size_t size);
void release();

// In a loop that waits for other threads to write: let them.
void pause();

// Copies that are made at the thread's next wait_for_copies.
void copy_later(void* to, const void* from, size_t bytes);
void wait_for_copies();

}  // namespace emulated

#endif
