// A control loop with a head between a slow policy and the actuators (Linux).
//
//     cmake --install build --prefix "$HOME/trm"                  # of a build of trm_edge
//     cmake -S examples/control_loop -B build/loop -DCMAKE_PREFIX_PATH="$HOME/trm" && cmake --build build/loop
//     build/loop/control_loop trm_edge/data/example.trm --hz 500 --seconds 5 --cpu 1
//
// The policy plans a chunk of actions for the state that it saw, and needs several ticks for it. In each of these ticks
// the loop takes what is left of its last chunk, refines that for the state of now for as long as the tick's budget
// lasts, and sends the first action. `kill -USR1` changes from "on" to "shadow" (refines, and sends the draft) to "off"
// (no refinement; the draft, inside the limits), and back to "on".
//
// Robot and policy are stand-ins, so what is sent means nothing. The rest is what a controller needs: all memory before
// the first tick, no lock between loop and policy, absolute wake-up times, an answer inside the limits in every tick.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <trm_edge/trm_edge.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kNever = -1;
constexpr int kMaxSteps = 4;  // as many as the head was trained for
const char* const kModes[] = {"on", "shadow", "off"};
volatile std::sig_atomic_t mode = 0;

void next_mode(int) { mode = (mode + 1) % 3; }

int64_t now_ns() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t{1000000000} * t.tv_sec + t.tv_nsec;
}

void sleep_until(int64_t ns) {
    const timespec t{static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
    }
}

struct Options {
    std::string head;
    double hz = 500, seconds = 5, budget = 0.5;  // the share of a tick that refinement may take
    int cpu = -1;
};

// The newest value of one writer for one reader, without a lock: each has a slot of its own, and swaps it for the
// third.
template <typename T>
class Newest {
  public:
    explicit Newest(const T& first) : slots_{first, first, first} {}
    T& draft() { return slots_[written_]; }
    void publish() { written_ = shared_.exchange(written_ | kFresh, std::memory_order_acq_rel) & ~kFresh; }
    const T& latest() {
        if (shared_.load(std::memory_order_relaxed) & kFresh)
            read_ = shared_.exchange(read_, std::memory_order_acq_rel) & ~kFresh;
        return slots_[read_];
    }

  private:
    static constexpr unsigned kFresh = 4;
    T slots_[3];
    unsigned written_ = 0, read_ = 1;
    std::atomic<unsigned> shared_{2};
};

struct State {
    int64_t tick = kNever;
    std::vector<float> joints;  // [dof]
};

struct Chunk {
    int64_t tick = kNever;       // whose state it was planned for; its row 0 is for this one
    std::vector<float> actions;  // [T, dof]
};

// Model and session, and the buffers of a call.
class Head {
  public:
    explicit Head(const std::string& path) {
        check(trm_model_load_file(path.c_str(), nullptr, &model_));
        check(trm_session_create(model_, nullptr, &session_));
        check(trm_model_info(model_, &info_));
        if (info_.answer != TRM_ACTIONS) throw std::runtime_error(path + ": expected a head that answers actions");
        const int64_t T = info_.answer_rows, dof = info_.dof, P = info_.max_context;
        context_.resize(static_cast<size_t>(P * info_.context_size));
        features_.resize(static_cast<size_t>(T * info_.feature_size));
        answer_.resize(static_cast<size_t>(T * dof));
        in_.x = trm_tensor_f32(context_.data(), P, info_.context_size);
        if (info_.feature_size > 0) in_.features = trm_tensor_f32(features_.data(), T, info_.feature_size);
        out_.y = answer_.data();
        out_.y_bytes = answer_.size() * sizeof(float);
    }
    ~Head() {
        trm_session_free(session_);
        trm_model_free(model_);
    }
    Head(const Head&) = delete;
    Head& operator=(const Head&) = delete;

    const trm_info& info() const { return info_; }
    const char* isa() const { return trm_model_isa(model_); }
    const char* precision() const { return trm_model_precision(model_); }
    const std::vector<float>& answer() const { return answer_; }
    int steps() const { return out_.steps_run; }

    // What the head sees of the robot: here only its joints, in the last row of the context.
    void see(const std::vector<float>& joints) {
        const size_t width = static_cast<size_t>(info_.context_size);
        if (context_.size() >= width)
            std::copy_n(joints.begin(), std::min(width, joints.size()), context_.end() - static_cast<ptrdiff_t>(width));
    }

    // Put the draft inside the limits: no step at all.
    trm_status project(const std::vector<float>& draft, const std::vector<float>& last) {
        give(draft, last);
        return trm_refine(session_, &in_, 0, TRM_NEVER_HALT, &out_);
    }

    // Refine until the next step would not be over by `deadline`. There is an answer after every step.
    trm_status refine(const std::vector<float>& draft, const std::vector<float>& last, int64_t deadline) {
        give(draft, last);
        trm_status status = trm_begin(session_, &in_);
        for (int k = 0; k < kMaxSteps && status >= 0; ++k) {
            const int64_t begun = now_ns();
            if (k > 0 && begun + longest_ > deadline) break;
            status = trm_step(session_, nullptr, nullptr, nullptr, &out_);
            longest_ = std::max(now_ns() - begun, longest_ - longest_ / 128);  // forgets a slow one
        }
        return status;
    }

  private:
    static void check(trm_status status) {
        if (status < 0) throw std::runtime_error(trm_last_message());
    }
    void give(const std::vector<float>& draft, const std::vector<float>& last) {
        in_.y0 = trm_tensor_f32(draft.data(), info_.answer_rows, info_.dof);
        in_.last_action = trm_tensor_f32_1d(last.data(), info_.dof);
    }

    trm_model* model_ = nullptr;
    trm_session* session_ = nullptr;
    trm_info info_ = TRM_INFO_INIT;
    trm_inputs in_ = TRM_INPUTS_INIT;
    trm_outputs out_ = TRM_OUTPUTS_INIT;
    std::vector<float> context_, features_, answer_;
    int64_t longest_ = 0;
};

// The policy's stand-in: moves every joint to where a slow wave will be, and needs three ticks to think.
void plan(const Options& options, int64_t rows, Newest<State>& seen, Newest<Chunk>& planned,
          const std::atomic<bool>& stop) {
    while (!stop.load(std::memory_order_relaxed)) {
        const State& state = seen.latest();
        Chunk& chunk = planned.draft();
        const size_t dof = state.joints.size();
        for (size_t i = 0; i < chunk.actions.size(); ++i) {
            const double when = static_cast<double>(state.tick + static_cast<int64_t>(i / dof)) / options.hz;
            const float target = 0.5F * static_cast<float>(std::sin(when + static_cast<double>(i % dof)));
            const float part = static_cast<float>(i / dof + 1) / static_cast<float>(rows);
            chunk.actions[i] = state.joints[i % dof] + part * (target - state.joints[i % dof]);
        }
        chunk.tick = state.tick;
        sleep_until(now_ns() + static_cast<int64_t>(3e9 / options.hz));
        planned.publish();
    }
}

// What is left of a chunk at a tick; its last action is held where none is.
void take_rest(const Chunk& chunk, int64_t tick, size_t dof, std::vector<float>& draft) {
    const size_t rows = draft.size() / dof;
    const size_t gone = static_cast<size_t>(std::max<int64_t>(0, tick - chunk.tick));
    for (size_t row = 0; row < rows; ++row) {
        const size_t from = std::min(row + gone, rows - 1);
        std::copy_n(&chunk.actions[from * dof], dof, &draft[row * dof]);
    }
}

void prefer_real_time(int cpu) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) std::printf("memory is not locked: %s\n", std::strerror(errno));
    const sched_param priority{80};
    const int refused = pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
    if (refused != 0) std::printf("no real-time priority: %s\n", std::strerror(refused));
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<unsigned>(cpu), &set);
        const int missing = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
        if (missing != 0) std::printf("not on processor %d: %s\n", cpu, std::strerror(missing));
    }
}

void print_line(const char* name, std::vector<int64_t>& ns) {
    std::sort(ns.begin(), ns.end());
    const auto at = [&](double q) { return static_cast<double>(ns[static_cast<size_t>(q * (ns.size() - 1))]) / 1e3; };
    std::printf("%-12s %9.1f %9.1f %9.1f\n", name, at(0.5), at(0.99), at(1.0));
}

int run(const Options& options) {
    Head head(options.head);
    const size_t dof = static_cast<size_t>(head.info().dof), rows = static_cast<size_t>(head.info().answer_rows);
    const int64_t tick_ns = static_cast<int64_t>(1e9 / options.hz);
    const int64_t ticks = static_cast<int64_t>(options.seconds * options.hz);
    Newest<State> seen(State{0, std::vector<float>(dof)});
    Newest<Chunk> planned(Chunk{0, std::vector<float>(rows * dof)});
    std::vector<float> joints(dof), last(dof), draft(rows * dof);
    std::vector<int64_t> woken(static_cast<size_t>(ticks)), taken(static_cast<size_t>(ticks));
    std::vector<int64_t> steps(kMaxSteps + 1);
    std::map<trm_status, int64_t> statuses;
    for (trm_status status = TRM_DEVICE_ERROR; status <= TRM_OUTSIDE_LIMITS; ++status) statuses[status] = 0;
    int64_t late = 0;

    std::signal(SIGUSR1, next_mode);
    std::atomic<bool> stop{false};
    std::thread policy(plan, std::cref(options), static_cast<int64_t>(rows), std::ref(seen), std::ref(planned),
                       std::cref(stop));
    prefer_real_time(options.cpu);  // of this thread; the policy keeps what it has
    head.refine(draft, last, now_ns());

    int64_t next = now_ns() + tick_ns;
    for (int64_t tick = 0; tick < ticks; ++tick, next += tick_ns) {
        sleep_until(next);
        const int64_t begun = now_ns();
        State& state = seen.draft();
        state.tick = tick;
        state.joints = joints;  // the same size: nothing is allocated
        seen.publish();

        take_rest(planned.latest(), tick, dof, draft);
        head.see(joints);
        const int now = mode;
        const int64_t deadline = next + static_cast<int64_t>(options.budget * static_cast<double>(tick_ns));
        trm_status refined = TRM_OK;
        if (now < 2) {
            refined = head.refine(draft, last, deadline);
            ++steps[static_cast<size_t>(refined < 0 ? 0 : head.steps())];
        }
        const trm_status sent = now > 0 || refined < 0 ? head.project(draft, last) : refined;
        ++statuses[refined < 0 ? refined : sent];
        if (sent >= 0) std::copy_n(head.answer().begin(), dof, last.begin());  // else the last action is held

        const int64_t done = now_ns();
        woken[static_cast<size_t>(tick)] = begun - next;
        taken[static_cast<size_t>(tick)] = done - begun;
        late += done > next + tick_ns;
        for (size_t i = 0; i < dof; ++i) joints[i] += 0.2F * (last[i] - joints[i]);  // the robot's stand-in
    }
    stop = true;
    policy.join();

    std::printf("%g Hz for %g s on %s in %s, mode %s at the end; %lld of %lld ticks ended late\n", options.hz,
                options.seconds, head.isa(), head.precision(), kModes[mode], static_cast<long long>(late),
                static_cast<long long>(ticks));
    std::printf("%-12s %9s %9s %9s  us\n", "", "p50", "p99", "max");
    print_line("woken after", woken);
    print_line("a tick took", taken);
    for (size_t k = 0; k < steps.size(); ++k)
        if (steps[k] > 0) std::printf("%zu steps in %lld ticks\n", k, static_cast<long long>(steps[k]));
    bool right = true;
    for (const auto& [status, count] : statuses) {
        if (count > 0) std::printf("%s in %lld ticks\n", trm_status_name(status), static_cast<long long>(count));
        right = right && (status >= 0 || count == 0);
    }
    return right ? 0 : 1;
}

double number(const std::string& name, const char* text, double least, double most) {
    char* end = nullptr;
    const double value = text == nullptr ? NAN : std::strtod(text, &end);
    if (text == nullptr || end == text || *end != '\0' || !(value >= least && value <= most))
        throw std::runtime_error(name + ": expected a number in " + std::to_string(least) + ".." +
                                 std::to_string(most) + ", got " + (text == nullptr ? "nothing" : text));
    return value;
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name.rfind("--", 0) != 0) {
            options.head = name;
            continue;
        }
        const char* text = i + 1 < argc ? argv[++i] : nullptr;
        if (name == "--hz") {
            options.hz = number(name, text, 1, 10000);
        } else if (name == "--seconds") {
            options.seconds = number(name, text, 0.1, 3600);
        } else if (name == "--budget") {
            options.budget = number(name, text, 0, 1);
        } else if (name == "--cpu") {
            options.cpu = static_cast<int>(number(name, text, 0, CPU_SETSIZE - 1));
        } else if (name == "--mode") {
            const auto* found = std::find(std::begin(kModes), std::end(kModes), std::string(text ? text : ""));
            if (found == std::end(kModes)) throw std::runtime_error("--mode: expected on, shadow or off");
            mode = static_cast<int>(found - std::begin(kModes));
        } else {
            throw std::runtime_error(name + ": expected --hz, --seconds, --budget, --cpu or --mode");
        }
    }
    if (options.head.empty())
        throw std::runtime_error(
            "usage: control_loop HEAD.trm [--hz N] [--seconds N] [--budget 0..1] [--cpu N] [--mode M]");
    return options;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(parse(argc, argv));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "control_loop: %s\n", error.what());
        return 2;
    }
}
