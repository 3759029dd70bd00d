// How the persistent CUDA kernel hands values over without barriers (copy_of in cuda/plan.h), on the host: CTAs take
// turns at random, and what they store becomes visible at random times, in any order but that of a release. No reader
// may ever take a value of another sublayer for the one it waits for, and none may wait for ever.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "cuda/plan.h"

namespace {

using namespace trm::cuda;

constexpr int MISSING = -1, CTAS = 5, SUBLAYERS = 24, RUNS = 500;

// As the kernel does it, unless a test breaks it.
struct Protocol {
    int copies = kCopies, read_before = kReadBefore;
    bool clear = true, release = true;

    int copy(int sublayer) const { return copies == kCopies ? copy_of(sublayer) : sublayer / 2 % copies; }
};

// A word for every CTA that writes it, in each of the places: of x (what a sublayer starts from) and of w (what its
// wide phase leaves). A value is the number of the sublayer that it is for.
class Memory {
  public:
    explicit Memory(const Protocol& protocol) : protocol_(protocol), words_(4 * protocol.copies * CTAS, MISSING) {}

    int at(bool wide, int sublayer, int owner) const {
        return ((wide * 2 + sublayer % 2) * protocol_.copies + protocol_.copy(sublayer)) * CTAS + owner;
    }
    int& operator[](int at) { return words_.at(at); }

  private:
    const Protocol& protocol_;
    std::vector<int> words_;
};

struct Store {
    int at, value, cta;
    bool staged;  // since the CTA staged the rows of its present sublayer
    bool slow;    // becomes visible when it is released, or nothing else happens
};

// One CTA, which goes on by a step whenever it is its turn: through the phases of one sublayer after another.
struct Cta {
    int number, sublayer = 0, step = 0;

    bool narrow() const { return number % 2 == 0; }  // the others have no part in narrow phases
    bool done() const { return sublayer == SUBLAYERS; }
};

class Device {
  public:
    Device(const Protocol& protocol, unsigned seed) : protocol_(protocol), memory_(protocol), rng_(seed) {
        for (int i = 0; i < CTAS; ++i) ctas_.push_back({i});
        for (const Cta& cta : ctas_)
            if (cta.narrow()) memory_[memory_.at(false, 0, cta.number)] = 0;
    }

    // What went wrong first; empty: nothing.
    std::string run() {
        const auto left = [&] {
            return std::any_of(ctas_.begin(), ctas_.end(), [](const Cta& c) { return !c.done(); });
        };
        const int favourite = pick(CTAS);  // goes faster than the others
        for (int idle = 0; left() && problem_.empty();) {
            const bool stuck = idle > 200;
            if (stuck && stores_.empty()) return "all wait";
            if ((stuck || pick(3) == 0) && !stores_.empty()) {
                const Store& store = stores_[pick(static_cast<int>(stores_.size()))];
                if (stuck || !store.slow) make_visible(store), idle = 0;
                continue;
            }
            Cta& cta = ctas_[pick(2) ? favourite : pick(CTAS)];
            idle = !cta.done() && advance(cta) ? 0 : idle + 1;
        }
        return problem_;
    }

  private:
    int pick(int count) { return std::uniform_int_distribution<>(0, count - 1)(rng_); }

    // The first store to the same word by the same CTA goes first.
    void make_visible(Store like) {
        const auto same = [&](const Store& s) { return s.at == like.at && s.cta == like.cta; };
        const auto first = std::find_if(stores_.begin(), stores_.end(), same);
        memory_[first->at] = first->value;
        stores_.erase(first);
    }

    void store(const Cta& cta, int at, int value) {
        stores_.push_back({at, value, cta.number, cta.step > 0, pick(4) == 0});
    }

    // What the CTA stored before it had staged the rows of this sublayer.
    void release(const Cta& cta) {
        for (const Store& store : std::vector<Store>(stores_))
            if (store.cta == cta.number && !store.staged) make_visible(store);
    }

    // Whether all words that this phase reads are there.
    bool all_there(const Cta& cta, bool wide) {
        bool there = true;
        for (const Cta& owner : ctas_) {
            if (!wide && !owner.narrow()) continue;
            const int value = memory_[memory_.at(wide, cta.sublayer, owner.number)];
            if (value == MISSING) there = false;
            if (value != MISSING && value != cta.sublayer) problem_ = "a value of another sublayer was read";
        }
        return there;
    }

    // A step of a CTA; false: it has to wait.
    bool advance(Cta& cta) {
        const int n = cta.sublayer;
        switch (cta.step) {
            case 0:  // wide
                if (!all_there(cta, false)) return false;
                for (Store& store : stores_)
                    if (store.cta == cta.number) store.staged = false;
                break;
            case 1:
                store(cta, memory_.at(true, n, cta.number), n);
                break;
            case 2:
                if (protocol_.release) release(cta);
                ++arrivals_[n % 2];
                break;
            case 3:
                if (n >= protocol_.read_before) {
                    if (arrivals_[(n - 1) % 2] < CTAS * ((n - 1) / 2 + 1)) return false;  // as GridBarriers counts
                    if (protocol_.clear) clear(cta, n - protocol_.read_before);
                }
                break;
            case 4:  // keep rows
                if (!all_there(cta, false)) problem_ = "a row to be kept was not there";
                break;
            default:
                if (cta.narrow()) {
                    if (!all_there(cta, true)) return false;
                    store(cta, memory_.at(false, n + 1, cta.number), n + 1);
                }
                ++cta.sublayer;
                cta.step = -1;
        }
        ++cta.step;
        return true;
    }

    // Words are cleared by other CTAs than those that write them.
    void clear(const Cta& cta, int sublayer) {
        for (bool wide : {false, true}) store(cta, memory_.at(wide, sublayer, (cta.number + 1) % CTAS), MISSING);
    }

    const Protocol& protocol_;
    Memory memory_;
    std::vector<Cta> ctas_;
    std::vector<Store> stores_;  // not visible yet
    int arrivals_[2] = {};
    std::string problem_;
    std::mt19937 rng_;
};

std::string first_problem(const Protocol& protocol) {
    for (unsigned seed = 0; seed < RUNS; ++seed)
        if (const std::string problem = Device(protocol, seed).run(); !problem.empty()) return problem;
    return "";
}

}  // namespace

TEST_CASE("handoff: every value is read by those that it is for") { CHECK(first_problem({}) == ""); }

// Not seen: that CTAs have to wait for each other before they clear. In this memory all see what one has released; on a
// device only those who wait for it are bound to.
TEST_CASE("handoff: the emulation sees what is wrong") {
    Protocol fewer_copies, too_early, no_clear, no_release;
    fewer_copies.copies = 2;
    too_early.read_before = 1;
    no_clear.clear = false;
    no_release.release = false;
    for (const Protocol& wrong : {fewer_copies, too_early, no_clear, no_release}) CHECK(first_problem(wrong) != "");
}
