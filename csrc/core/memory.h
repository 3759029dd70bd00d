// Aligned memory: a buffer that owns 64-byte aligned floats, and an arena that hands out parts of one block.
#ifndef TRM_EDGE_CORE_MEMORY_H
#define TRM_EDGE_CORE_MEMORY_H

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace trm {

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register

// Values of so many rows.
inline size_t area(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

struct FreeDeleter {
    void operator()(void* p) const { std::free(p); }
};

template <typename T>
using Buffer = std::unique_ptr<T[], FreeDeleter>;

// Zeroed, so that every page is touched before the first use. Large ones ask for huge pages, where the system grants
// them on request: reading tens of megabytes of weights per evaluation, page walks show in the time.
// Throws std::bad_alloc.
template <typename T>
Buffer<T> make_buffer(size_t count) {
    constexpr size_t kHugePage = size_t{2} << 20;
    const size_t wanted = count * sizeof(T) + 1;  // never 0
    const size_t alignment = wanted >= kHugePage ? kHugePage : kAlignment;
    const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
    void* p = std::aligned_alloc(alignment, bytes);
    if (p == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (alignment == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);  // a hint: refusal changes nothing
#endif
    std::memset(p, 0, bytes);
    return Buffer<T>(static_cast<T*>(p));
}

// Sums up sizes first (`base` null), then hands out addresses in the same order.
class Arena {
  public:
    explicit Arena(std::byte* base = nullptr) : base_(base) {}

    template <typename T>
    T* take(size_t count) {
        T* p = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        return p;
    }

    size_t used() const { return used_; }

  private:
    std::byte* base_;
    size_t used_ = 0;
};

}  // namespace trm

#endif
