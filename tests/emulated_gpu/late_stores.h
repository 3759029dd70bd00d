// What the threads of a block have stored and the other blocks do not see yet.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_LATE_STORES_H
#define TRM_EDGE_TESTS_EMULATED_GPU_LATE_STORES_H

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace emulated {

constexpr size_t kGranule = 16;  // bytes

inline uintptr_t granule(const void* at) { return reinterpret_cast<uintptr_t>(at) / kGranule; }

// A set of granules, and some more.
class Granules {
  public:
    void add(const void* at) { in_[granule(at) % in_.size()] = true; }
    bool has(const void* at) const { return in_[granule(at) % in_.size()]; }
    void clear() { in_.fill(false); }

  private:
    std::array<bool, 4096> in_{};
};

// Stores of one block, of up to 16 bytes that lie in one granule. They become visible to others one by one in any
// order, but for those to the same granule. The block itself sees them at once.
class LateStores {
  public:
    // `meetings`: how many times the block had met when `thread` stored this.
    void add(void* to, const void* bytes, size_t size, const void* thread, unsigned meetings, bool slow) {
        Store store{static_cast<unsigned char*>(to), {}, size, thread, meetings, slow};
        std::memcpy(store.bytes, bytes, size);
        stores_.push_back(store);
        ++of_granule(to);
    }

    // What the block finds at `from`.
    void read(void* value, const void* from, size_t size) const {
        std::memcpy(value, from, size);
        if (waiting_[slot(from)] == 0) return;
        auto* const first = static_cast<const unsigned char*>(from);
        for (const Store& store : stores_) {
            const unsigned char *begin = std::max(first, static_cast<const unsigned char*>(store.to)),
                                *end = std::min(first + size, static_cast<const unsigned char*>(store.to + store.size));
            if (begin < end)
                std::memcpy(static_cast<unsigned char*>(value) + (begin - first), store.bytes + (begin - store.to),
                            static_cast<size_t>(end - begin));
        }
    }

    // A thread releases what it has stored itself, and what others of the block had before they met it.
    void release(const void* thread, unsigned meetings) {
        make_visible([&](const Store& store) { return store.thread == thread || store.meetings < meetings; });
    }

    void release_all() {
        make_visible([](const Store&) { return true; });
    }

    // Those to `granules` become visible. Returns whether any did.
    bool hurry(const Granules& granules) {
        return make_visible([&](const Store& store) { return granules.has(store.to); });
    }

    // Some of those that are not slow become visible. Returns whether any did.
    template <typename Random>
    bool settle(Random& random) {
        bool any = false;
        for (size_t picks = stores_.empty() ? 0 : random() % (1 + stores_.size() / 4); picks > 0; --picks) {
            const Store& picked = stores_[random() % stores_.size()];
            if (picked.slow) continue;
            const auto first = std::find_if(stores_.begin(), stores_.end(), [&](const Store& store) {
                return granule(store.to) == granule(picked.to);
            });
            write(*first);
            stores_.erase(first);
            any = true;
        }
        return any;
    }

  private:
    struct Store {
        unsigned char* to;
        unsigned char bytes[kGranule];
        size_t size;
        const void* thread;
        unsigned meetings;
        bool slow;  // becomes visible when it is released, or waited for
    };

    static size_t slot(const void* at) { return granule(at) % 256; }
    unsigned& of_granule(const void* at) { return waiting_[slot(at)]; }

    void write(const Store& store) {
        std::memcpy(store.to, store.bytes, store.size);
        --of_granule(store.to);
    }

    template <typename Which>
    bool make_visible(Which&& which) {
        const auto visible =
            std::stable_partition(stores_.begin(), stores_.end(), [&](const Store& store) { return !which(store); });
        std::for_each(visible, stores_.end(), [&](const Store& store) { write(store); });
        const bool any = visible != stores_.end();
        stores_.erase(visible, stores_.end());
        return any;
    }

    std::vector<Store> stores_;  // in the order in which they were stored
    std::array<unsigned, 256> waiting_{};
};

}  // namespace emulated

#endif
