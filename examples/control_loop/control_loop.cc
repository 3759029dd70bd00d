// A control loop with a head between a slow policy and the actuators (Linux).
//
//     cmake --install build/c --prefix "$HOME/trm"                # of a build of trm_edge, as README.md makes it
//     cmake -S examples/control_loop -B build/loop -DCMAKE_PREFIX_PATH="$HOME/trm" && cmake --build build/loop
//     build/loop/control_loop trm_edge/data/example.trm --hz 500 --seconds 5 --cpu 1
//
// The policy plans a chunk of actions for the state that it saw, and needs several ticks for it. In each of these ticks
// the loop takes what is left of its last chunk, refines that for the state of now for as long as the tick's budget
// lasts, and sends the first action. It begins in mode "shadow" (refines, and sends the draft inside the limits);
// `--mode on` sends the answer. `kill -USR1` takes the head out (mode "off": the draft, inside the limits), however
// often it is sent; `kill -USR2` goes back to the mode that the loop was started in ("shadow" where that was "off").
//
// An action stands for one period, and so do the velocity limits: a loop that was stopped or was late skips the ticks
// that have passed, rather than sending their actions one after another. Where there is no plan yet, and where the
// policy's last chunk is over (or older than --max-age ticks), the last action is held.
//
// Robot and policy are stand-ins, so what is sent means nothing. The rest is what a controller needs: all memory before
// the first tick, no lock between loop and policy, absolute wake-up times, an answer inside the limits in every tick,
// and a record of the last ticks (--record FILE.csv) that is written when the loop is over, also by ctrl-C, SIGTERM or
// SIGHUP.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kNever = -1;
constexpr int kMaxSteps = 4;             // as many as the head was trained for
constexpr int64_t kMostRecords = 65536;  // the last ticks that --record keeps

enum Mode { kOff, kShadow, kOn };
const char* const kModes[] = {"off", "shadow", "on"};
std::atomic<int> mode{kShadow}, mode_with_head{kShadow};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler writes it");

void take_head_out(int) { mode = kOff; }
void put_head_back(int) { mode = mode_with_head.load(); }

std::atomic<bool> ended{false};
void end_loop(int) { ended = true; }

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
    std::string head, record;
    double hz = 500, seconds = 5, budget = 0.5;             // the share of a tick that refinement may take
    double policy_seconds = 1e9;                            // how long the policy's stand-in lives
    int64_t max_age = std::numeric_limits<int64_t>::max();  // ticks; a chunk is never used beyond its end
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
        trm_verification found = TRM_VERIFICATION_INIT;
        check(trm_verify_file(path.c_str(), nullptr, &found));
        if (found.cases == 0)
            throw std::runtime_error(path + ": it has no golden vectors to check this machine with; nothing is moved");
        if (found.failed > 0)
            throw std::runtime_error(path + ": this machine does not reproduce its golden vectors; nothing is moved");
        check(trm_model_load_file(path.c_str(), nullptr, &model_));
        check(trm_session_create(model_, nullptr, &session_));
        check(trm_model_info(model_, &info_));
        if (info_.answer != TRM_ACTIONS) throw std::runtime_error(path + ": expected a head that answers actions");
        for (std::vector<float>* limit : {&lower_, &upper_, &velocity_}) limit->resize(static_cast<size_t>(info_.dof));
        check(trm_model_limits(model_, lower_.data(), upper_.data(), velocity_.data()));
        for (const std::vector<float>* limit : {&lower_, &upper_, &velocity_})
            for (const float one : *limit)  // a controller would also compare them with its robot's
                if (!std::isfinite(one))
                    throw std::runtime_error(path + ": expected a head with limits for all actions");
        const int64_t T = info_.answer_rows, dof = info_.dof, P = info_.max_context;
        context_.resize(static_cast<size_t>(P * info_.context_size));
        features_.resize(static_cast<size_t>(T * info_.feature_size));
        answer_.resize(static_cast<size_t>(T * dof));
        projected_.resize(static_cast<size_t>(T * dof));
        in_.x = trm_tensor_f32(context_.data(), P, info_.context_size);
        if (info_.feature_size > 0) in_.features = trm_tensor_f32(features_.data(), T, info_.feature_size);
        refined_out_.y = answer_.data();
        refined_out_.y_bytes = answer_.size() * sizeof(float);
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
    // What refine() and project() wrote; neither overwrites the other's.
    const std::vector<float>& answer() const { return answer_; }
    const std::vector<float>& projected() const { return projected_; }
    int steps() const { return refined_out_.steps_run; }
    float confidence() const { return refined_out_.confidence; }

    // What the head sees of the robot: here only its joints, in the last row of the context.
    void see(const std::vector<float>& joints) {
        const size_t width = static_cast<size_t>(info_.context_size);
        if (context_.size() >= width)
            std::copy_n(joints.begin(), std::min(width, joints.size()), context_.end() - static_cast<ptrdiff_t>(width));
    }

    // Put the draft inside the limits. Whatever is wrong with the head's other inputs, this works.
    trm_status project(const std::vector<float>& draft, const std::vector<float>& last) {
        std::copy(draft.begin(), draft.end(), projected_.begin());
        return trm_project_limits(projected_.data(), info_.answer_rows, info_.dof, lower_.data(), upper_.data(),
                                  velocity_.data(), last.data());
    }

    // Refine until the next step would not be over by `deadline`. There is an answer after every step.
    trm_status refine(const std::vector<float>& draft, const std::vector<float>& last, int64_t deadline) {
        in_.y0 = trm_tensor_f32(draft.data(), info_.answer_rows, info_.dof);
        in_.last_action = trm_tensor_f32_1d(last.data(), info_.dof);
        trm_status status = trm_begin(session_, &in_);
        for (int k = 0; k < kMaxSteps && status >= 0; ++k) {
            const int64_t begun = now_ns();
            if (k > 0 && begun + longest_ > deadline) break;
            status = trm_step(session_, nullptr, nullptr, nullptr, &refined_out_);
            longest_ = std::max(now_ns() - begun, longest_ - longest_ / 128);  // forgets a slow one
        }
        return status;
    }

  private:
    static void check(trm_status status) {
        if (status < 0) throw std::runtime_error(trm_last_message());
    }

    trm_model* model_ = nullptr;
    trm_session* session_ = nullptr;
    trm_info info_ = TRM_INFO_INIT;
    trm_inputs in_ = TRM_INPUTS_INIT;
    trm_outputs refined_out_ = TRM_OUTPUTS_INIT;
    std::vector<float> lower_, upper_, velocity_, context_, features_, answer_, projected_;
    int64_t longest_ = 0;
};

// What a tick did.
struct Tick {
    int64_t tick = kNever, age = 0;  // of the chunk: how many of its rows have passed
    int mode = kOff;
    bool held = false;           // no plan for this tick: the last action, inside the limits
    trm_status status = TRM_OK;  // of the refinement where there was one
    int steps = 0;               // of the refinement; 0 where there was none, or none came to an end
    float confidence = NAN;
};

// The last ticks, with the actions that were sent and those that refinement gave: a ring that is written to a file when
// the loop is over, so that a tick neither allocates nor waits for a disk.
class Record {
  public:
    // Opens a file beside it at once: a path that is wrong is found before the robot moves. It takes the record's name
    // when it is whole, so that an older record stays until then. An empty path: no record.
    Record(const std::string& path, int64_t ticks, size_t dof) : path_(path), part_(path + ".part"), dof_(dof) {
        if (path.empty()) return;
        struct stat existing{};
        if (stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode))
            throw std::runtime_error(path + ": cannot be written: not a file");
        file_.reset(std::fopen(part_.c_str(), "w"));
        if (!file_) throw std::runtime_error(path + ": cannot be written: " + std::strerror(errno));
        ticks_.resize(static_cast<size_t>(std::min(ticks, kMostRecords)));
        sent_.resize(ticks_.size() * dof);
        refined_.resize(ticks_.size() * dof);
    }

    // `refined` is empty where nothing was refined.
    void add(const Tick& tick, const float* sent, const float* refined) {
        if (!file_) return;
        const size_t at = static_cast<size_t>(count_++) % ticks_.size();
        ticks_[at] = tick;
        std::copy_n(sent, dof_, &sent_[at * dof_]);
        if (refined != nullptr) {
            std::copy_n(refined, dof_, &refined_[at * dof_]);
        } else {
            std::fill_n(&refined_[at * dof_], dof_, NAN);
        }
    }

    // Write a line per tick, the oldest first.
    void write() {
        if (!file_) return;
        std::FILE* file = file_.get();
        std::fputs("tick,mode,held,age,status,steps,confidence", file);
        for (const char* name : {"sent", "refined"})
            for (size_t i = 0; i < dof_; ++i) std::fprintf(file, ",%s_%zu", name, i);
        const size_t count = static_cast<size_t>(count_);
        for (size_t k = count - std::min(count, ticks_.size()); k < count; ++k) write_line(k % ticks_.size());
        std::fputc('\n', file);
        const bool whole = std::fflush(file) == 0 && std::ferror(file) == 0;
        if (!whole || std::rename(part_.c_str(), path_.c_str()) != 0)
            throw std::runtime_error(path_ + ": cannot be written: " + std::strerror(errno) + "; what was is in " +
                                     part_);
        std::printf("%s: the last %zu ticks\n", path_.c_str(), std::min(count, ticks_.size()));
    }

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };

    void write_line(size_t at) {
        const Tick& t = ticks_[at];
        std::FILE* file = file_.get();
        std::fprintf(file, "\n%lld,%s,%d,%lld,%s,%d,%.9g", static_cast<long long>(t.tick), kModes[t.mode], t.held,
                     static_cast<long long>(t.age), trm_status_name(t.status), t.steps,
                     static_cast<double>(t.confidence));
        for (const std::vector<float>* values : {&sent_, &refined_})
            for (size_t i = 0; i < dof_; ++i)
                std::fprintf(file, ",%.9g", static_cast<double>((*values)[at * dof_ + i]));
    }

    std::string path_, part_;
    std::unique_ptr<std::FILE, Close> file_;
    size_t dof_;
    int64_t count_ = 0;
    std::vector<Tick> ticks_;
    std::vector<float> sent_, refined_;
};

// What the loop did, in numbers.
struct Counts {
    explicit Counts(int64_t ticks) : woken(static_cast<size_t>(ticks)), taken(woken.size()), steps(kMaxSteps + 1) {
        for (trm_status status = TRM_DEVICE_ERROR; status <= TRM_OUTSIDE_LIMITS; ++status) statuses[status] = 0;
    }
    void add(const Tick& tick, int64_t late_by, int64_t took) {
        woken[static_cast<size_t>(ran)] = late_by;
        taken[static_cast<size_t>(ran++)] = took;
        held += tick.held;
        if (tick.held && tick.status >= 0) return;  // a count of its own
        ++statuses.at(tick.status);                 // all of them are there: nothing is allocated
        if (tick.mode != kOff && !tick.held) ++steps[static_cast<size_t>(tick.steps)];
    }

    std::vector<int64_t> woken, taken, steps;
    std::map<trm_status, int64_t> statuses;
    int64_t ran = 0, late = 0, held = 0;
};

// The policy's stand-in: moves every joint to where a slow wave will be, and needs two ticks to think. A chunk
// is in use until the next one comes, so its rows have to reach over twice that time, and some for delays.
void plan(const Options& options, Newest<State>& seen, Newest<Chunk>& planned, const std::atomic<bool>& stop) {
    while (!stop.load(std::memory_order_relaxed)) {
        const State& state = seen.latest();
        if (static_cast<double>(state.tick) >= options.policy_seconds * options.hz) return;
        Chunk& chunk = planned.draft();
        const size_t dof = state.joints.size(), rows = chunk.actions.size() / dof;
        for (size_t i = 0; i < chunk.actions.size(); ++i) {
            const double when = static_cast<double>(state.tick + static_cast<int64_t>(i / dof)) / options.hz;
            const float target = 0.5F * static_cast<float>(std::sin(when + static_cast<double>(i % dof)));
            const float part = static_cast<float>(i / dof + 1) / static_cast<float>(rows);
            chunk.actions[i] = state.joints[i % dof] + part * (target - state.joints[i % dof]);
        }
        chunk.tick = state.tick;
        sleep_until(now_ns() + static_cast<int64_t>(2e9 / options.hz));
        planned.publish();
    }
}

// What is left of a chunk after `age` ticks; its last action is repeated behind its end.
void take_rest(const Chunk& chunk, int64_t age, size_t dof, std::vector<float>& draft) {
    const size_t rows = draft.size() / dof, gone = static_cast<size_t>(age);
    for (size_t row = 0; row < rows; ++row) {
        const size_t from = std::min(row + gone, rows - 1);
        std::copy_n(&chunk.actions[from * dof], dof, &draft[row * dof]);
    }
}

// A draft that stays where the last action went.
void stay(const std::vector<float>& last, std::vector<float>& draft) {
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = last[i % last.size()];
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
    if (ns.empty()) return;
    std::sort(ns.begin(), ns.end());
    const auto at = [&](double q) { return static_cast<double>(ns[static_cast<size_t>(q * (ns.size() - 1))]) / 1e3; };
    std::printf("%-12s %9.1f %9.1f %9.1f\n", name, at(0.5), at(0.99), at(1.0));
}

// Everything between what is measured and what is sent.
class Controller {
  public:
    explicit Controller(const Options& options)
        : head_(options.head),
          rows_(static_cast<size_t>(head_.info().answer_rows)),
          max_age_(std::min<int64_t>(options.max_age, head_.info().answer_rows - 1)),
          last_(static_cast<size_t>(head_.info().dof)),
          draft_(rows_ * last_.size()) {}

    const Head& head() const { return head_; }
    size_t rows() const { return rows_; }
    size_t dof() const { return last_.size(); }
    const std::vector<float>& last() const { return last_; }

    // Until there is a plan the robot stays where it is: what is measured now counts as sent. Actions of this robot are
    // positions; where they are velocities, zero is what holds it. A measurement that is no position cannot be held:
    // nothing is moved then.
    void start(const std::vector<float>& measured) {
        last_ = measured;
        stay(last_, draft_);
        if (head_.project(draft_, last_) < 0)
            throw std::runtime_error(std::string("the first measurement: ") + trm_last_message());
        head_.refine(draft_, last_, now_ns());  // the first call is slower
    }

    // Decide on one action, which last() has then.
    Tick act(int64_t now, const Chunk& chunk, const std::vector<float>& joints, int64_t deadline) {
        Tick tick;
        tick.tick = now;
        tick.mode = mode.load(std::memory_order_relaxed);
        tick.age = chunk.tick == kNever ? kNever : now - chunk.tick;
        tick.held = tick.age < 0 || tick.age > max_age_;  // no plan, one for a later tick, or one that is over
        refined_ = false;
        if (tick.held) {
            stay(last_, draft_);
        } else {
            take_rest(chunk, tick.age, last_.size(), draft_);
            if (tick.mode != kOff) refine(joints, deadline, tick);
        }
        if (tick.mode == kOn && refined_) {
            take(head_.answer());
        } else {
            const trm_status projected = head_.project(draft_, last_);
            if (projected >= 0) take(head_.projected());  // else the last action is held
            if (!refined_ && tick.status >= 0) tick.status = projected;
        }
        return tick;
    }

    // Whether no plan has come for twice as long as one lasts.
    bool is_policy_gone(const Tick& tick) const {
        return tick.held && (tick.age == kNever || tick.age >= 2 * head_.info().answer_rows);
    }

    // The first action of the answer of the last act(); null where nothing was refined.
    const float* refined() const { return refined_ ? head_.answer().data() : nullptr; }

  private:
    void refine(const std::vector<float>& joints, int64_t deadline, Tick& tick) {
        head_.see(joints);
        tick.status = head_.refine(draft_, last_, deadline);
        refined_ = tick.status >= 0;
        if (!refined_) return;
        tick.steps = head_.steps();
        tick.confidence = head_.confidence();
    }
    void take(const std::vector<float>& chunk) { std::copy_n(chunk.begin(), last_.size(), last_.begin()); }

    Head head_;
    size_t rows_;
    int64_t max_age_;
    std::vector<float> last_, draft_;
    bool refined_ = false;
};

int report(const Options& options, const Head& head, Counts& counts, int64_t ticks, bool policy_gone) {
    std::printf("%g Hz for %g s on %s in %s, mode %s at the end; of %lld ticks %lld ended late and %lld were skipped\n",
                options.hz, static_cast<double>(ticks) / options.hz, head.isa(), head.precision(), kModes[mode],
                static_cast<long long>(ticks), static_cast<long long>(counts.late),
                static_cast<long long>(ticks - counts.ran));
    counts.woken.resize(static_cast<size_t>(counts.ran));
    counts.taken.resize(static_cast<size_t>(counts.ran));
    std::printf("%-12s %9s %9s %9s  us\n", "", "p50", "p99", "max");
    print_line("woken after", counts.woken);
    print_line("a tick took", counts.taken);
    for (size_t k = 0; k < counts.steps.size(); ++k)
        if (counts.steps[k] > 0) std::printf("%zu steps in %lld ticks\n", k, static_cast<long long>(counts.steps[k]));
    bool right = !policy_gone;
    for (const auto& [status, count] : counts.statuses) {
        if (count > 0) std::printf("%s in %lld ticks\n", trm_status_name(status), static_cast<long long>(count));
        right = right && (status >= 0 || count == 0);
    }
    if (counts.held > 0)
        std::printf("held in %lld ticks, without a plan%s\n", static_cast<long long>(counts.held),
                    policy_gone ? "; the policy is gone" : "");
    return right ? 0 : 1;
}

int run(const Options& options) {
    std::signal(SIGUSR1, take_head_out);
    std::signal(SIGUSR2, put_head_back);
    std::signal(SIGINT, end_loop);
    std::signal(SIGTERM, end_loop);
    if (std::signal(SIGHUP, end_loop) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // the terminal is gone; nohup is kept
    const int64_t tick_ns = static_cast<int64_t>(1e9 / options.hz);
    const int64_t ticks = std::max<int64_t>(1, static_cast<int64_t>(options.seconds * options.hz));
    Controller controller(options);
    const size_t dof = controller.dof();
    std::vector<float> joints(dof, 0.1F);  // as measured
    Newest<State> seen(State{0, joints});
    Newest<Chunk> planned(Chunk{kNever, std::vector<float>(controller.rows() * dof)});
    Record record(options.record, ticks, dof);
    Counts counts(ticks);
    Tick tick;

    controller.start(joints);

    std::atomic<bool> stop{false};
    std::thread policy(plan, std::cref(options), std::ref(seen), std::ref(planned), std::cref(stop));
    prefer_real_time(options.cpu);  // of this thread; the policy keeps what it has

    int64_t next = now_ns() + tick_ns, now = 0;  // when tick `now` begins
    for (;;) {
        sleep_until(next);
        const int64_t begun = now_ns(), slept_over = (begun - next) / tick_ns;
        next += slept_over * tick_ns;  // whole periods that have passed
        now += slept_over;
        if (now >= ticks || ended) break;
        State& state = seen.draft();
        state.tick = now;
        state.joints = joints;  // the same size: nothing is allocated
        seen.publish();

        const int64_t deadline = next + static_cast<int64_t>(options.budget * static_cast<double>(tick_ns));
        tick = controller.act(now, planned.latest(), joints, deadline);
        // Here `controller.last()` is sent.
        const int64_t done = now_ns();
        record.add(tick, controller.last().data(), controller.refined());
        counts.add(tick, begun - next, done - begun);
        counts.late += done > next + tick_ns;
        for (size_t i = 0; i < dof; ++i) joints[i] += 0.2F * (controller.last()[i] - joints[i]);  // a stand-in, too

        const int64_t periods = 1 + (done - next) / tick_ns;  // also the one that a late action was sent in
        next += periods * tick_ns;
        now += periods;
    }
    stop = true;
    policy.join();
    const int code = report(options, controller.head(), counts, std::min(now, ticks), controller.is_policy_gone(tick));
    record.write();
    return code;
}

double number(const std::string& name, const char* text, double least, double most) {
    char* end = nullptr;
    const double value = text == nullptr ? NAN : std::strtod(text, &end);
    if (text == nullptr || end == text || *end != '\0' || !(value >= least && value <= most))
        throw std::runtime_error(name + ": expected a number in " + std::to_string(least) + ".." +
                                 std::to_string(most) + ", got " + (text == nullptr ? "nothing" : text));
    return value;
}

const char* const kUsage =
    "usage: control_loop HEAD.trm [--hz N] [--seconds N] [--budget 0..1] [--max-age TICKS] [--cpu N]\n"
    "                    [--mode off|shadow|on] [--record FILE.csv] [--policy-seconds N]\n";

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
        } else if (name == "--max-age") {
            options.max_age = static_cast<int64_t>(number(name, text, 0, 1e9));
        } else if (name == "--policy-seconds") {
            options.policy_seconds = number(name, text, 0, 1e9);
        } else if (name == "--record") {
            options.record = text == nullptr ? "" : text;
            if (options.record.empty()) throw std::runtime_error("--record: expected a file to write");
        } else if (name == "--cpu") {
            options.cpu = static_cast<int>(number(name, text, 0, CPU_SETSIZE - 1));
        } else if (name == "--mode") {
            const auto* found = std::find(std::begin(kModes), std::end(kModes), std::string(text ? text : ""));
            if (found == std::end(kModes)) throw std::runtime_error("--mode: expected off, shadow or on");
            mode = static_cast<int>(found - std::begin(kModes));
            mode_with_head = std::max<int>(mode, kShadow);
        } else {
            throw std::runtime_error(name + ": unknown\n" + kUsage);
        }
    }
    if (options.head.empty()) throw std::runtime_error(std::string("expected a head\n") + kUsage);
    return options;
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::string(argv[i]) == "--help") {
            std::fputs(kUsage, stdout);
            return 0;
        }
    }
    try {
        return run(parse(argc, argv));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "control_loop: %s\n", error.what());
        return 2;
    }
}
