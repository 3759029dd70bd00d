#include <algorithm>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "core/memory.h"
#include "cuda/decoder.h"
#include "cuda/encoder.h"
#include "cuda/fused.h"
#include "cuda/plain.h"
#include "cuda/resources.h"
#include "cuda/session.h"
#include "cuda/streams.h"

namespace trm::cuda {
namespace {

// Whether the device reads an array where it is. Pinned memory is the host's, which may write it again at any time.
bool is_reached(const char* name, const void* array) {
    cudaPointerAttributes found{};
    TRM_CUDA(cudaPointerGetAttributes(&found, array));
    if (found.type != cudaMemoryTypeDevice && found.type != cudaMemoryTypeManaged) return false;
    if (found.type == cudaMemoryTypeDevice && found.device != kDevice)
        throw Error(Status::kInvalidArgument, std::string(name) + ": lies on GPU " + std::to_string(found.device) +
                                                  ", and this session runs on GPU " + std::to_string(kDevice));
    return true;
}

// Inputs on their way to the device: packed into pinned memory, then copied to the same places of the device's at once.
class Inbox {
  public:
    explicit Inbox(const Spec& spec) : Inbox(most_bytes(spec)) {}

    // Begin anew. What was sent before has to have arrived.
    void open() { used_ = 0; }

    // Where the device will find `count` values that are at `from`.
    template <typename T>
    const T* pack(const T* from, size_t count) {
        std::memcpy(host_.get() + used_, from, count * sizeof(T));
        const size_t at = std::exchange(used_, used_ + padded(count * sizeof(T)));
        return reinterpret_cast<const T*>(device_.get() + at);
    }

    void send(cudaStream_t stream) const {
        if (used_) TRM_CUDA(cudaMemcpyAsync(device_.get(), host_.get(), used_, cudaMemcpyHostToDevice, stream));
    }

  private:
    explicit Inbox(size_t bytes) : host_(bytes), device_(bytes) {}

    static size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }
    static size_t most_bytes(const Spec& s) {
        size_t bytes = 0;
        for (const size_t values : {area(s.max_context, s.context_size), area(s.answer_rows, s.dof),
                                    area(s.answer_rows, s.feature_size), area(s.answer_rows, s.slot_size),
                                    area(s.max_candidates, s.candidate_size), area(1, s.answer_rows), area(1, s.dof)})
            bytes += padded(values * sizeof(float));
        return bytes;
    }

    Pinned<std::byte> host_;
    DeviceBuffer<std::byte> device_;
    size_t used_ = 0;
};

// A call whose arrays are where `place(name, array, count)` says.
template <typename Place>
Call placed(const Spec& spec, const Call& call, Place&& place) {
    Call to = call;
    const auto put = [&](const char* name, auto*& array, size_t count) {
        if (array != nullptr && count > 0) array = place(name, array, count);
    };
    const int S = call.answer_rows;
    put("x", to.x, area(call.context_rows, spec.context_size));
    put("x", to.tokens, area(1, S));
    put("y0", to.y0, area(S, spec.dof));
    put("y0", to.choices, area(1, S));
    put("features", to.features, area(S, spec.feature_size));
    put("slots", to.slots, area(S, spec.slot_size));
    put("candidates", to.candidates, area(call.num_candidates, spec.candidate_size));
    put("last_action", to.last_action, area(1, spec.dof));
    return to;
}

static_assert(DeviceSession::kMaxAhead <= kMaxMaps, "a map for the queries of every step");

// Values that a step decodes to at most: actions, or logits.
size_t values_of_step(const Spec& s) { return area(s.answer_rows, std::max({s.dof, s.vocab_size, s.max_candidates})); }

constexpr size_t kMostValues = size_t{1} << 28;  // of all steps of a run; decoder.cu counts them in 32 bits

// What the device writes for the host.
struct Found {
    int ran;
    float halt_logits[DeviceSession::kMaxAhead];
    DeviceOutcome outcome;
};

class CudaSession : public DeviceSession {
  public:
    explicit CudaSession(std::shared_ptr<const Shared> shared)
        : shared_(std::move(shared)),
          inbox_(spec()),
          rows_(3 * size()),
          keys_(area(spec().max_candidates, spec().hidden_size)),
          out_(kMaxAhead * size()),
          queries_(spec().answer == Answer::kSlots ? kMaxAhead * area(spec().answer_rows, spec().hidden_size) : 0),
          answers_(spec().answer == Answer::kActions ? (kMaxAhead + 1) * values_of_step(spec()) : 0),
          halt_logits_(kMaxAhead),
          kept_action_(static_cast<size_t>(spec().dof)),
          ran_(1),
          nonfinite_(1),
          values_(kMaxAhead * values_of_step(spec())),
          found_(1),
          runner_(make_runner()) {
        *found_.get() = Found{};
    }

    ~CudaSession() override {
        leaving_.emplace();
        cudaEventSynchronize(done_.get());
    }

    void begin(const Call& call) override {
        const OnDevice on_device;
        call_ = sent(call);
        map_rows(encoding(spec(), shared_->tensors, call_, encoded()), stream_.get());
        mark(stream_.get());
        begin_ = refresh_ = true;
    }

    void refresh(const float* x, const float* features) override {
        const OnDevice on_device;
        Call fresh;
        fresh.answer_rows = call_.answer_rows;
        fresh.context_rows = call_.context_rows;
        fresh.x = x;
        fresh.features = features;
        map_rows(fresh_encoding(spec(), shared_->tensors, sent(fresh), encoded()), stream_.get());
        mark(stream_.get());
        refresh_ = true;
    }

    int run(int steps, float halt) override {
        const OnDevice on_device;
        recur(steps, halt, stream_.get());
        Products decoded = products(steps, stream_.get());
        decoded.out = values_.get();
        decoded.halt_logits = found_.get()->halt_logits;
        decoded.steps_run = &found_.get()->ran;
        multiply(decoded, stream_.get());
        TRM_CUDA(cudaStreamSynchronize(stream_.get()));
        const int ran = found_.get()->ran;
        if (ran < 1 || ran > steps) throw Error(Status::kDeviceError, "cuda: the kernel did not run");
        pending_ = begin_ = refresh_ = false;
        return ran;
    }

    DeviceStep step(int i) const override {
        const size_t width = area(call_.answer_rows, columns());
        return {values_.get() + static_cast<size_t>(i) * width, found_.get()->halt_logits[i]};
    }

    DeviceAnswer refine_async(const Call& call, int steps, float halt, float* y, void* stream_or_null) override {
        const OnDevice on_device;
        const cudaStream_t stream = stream_or_null ? static_cast<cudaStream_t>(stream_or_null) : stream_.get();
        const bool captured = is_captured(stream);
        if (captured) check_capture(y, stream);
        if (y != nullptr && !is_reached("y", y))
            throw Error(Status::kInvalidArgument, "y: expected memory that the GPU writes, got the host's");
        take(stream);
        bool opened = false;
        call_ = placed(spec(), call, [&](const char* name, auto* array, size_t count) {
            if (is_reached(name, array)) return array;
            if (captured)
                throw Error(Status::kInvalidArgument, std::string(name) +
                                                          ": expected memory of the GPU in a call that " +
                                                          "is captured into a graph, got the host's");
            if (!std::exchange(opened, true)) {
                settle();
                inbox_.open();
            }
            return inbox_.pack(array, count);
        });
        try {
            if (opened) inbox_.send(stream);
            return answer_ = enqueue(steps, halt, y, stream, captured);
        } catch (...) {
            if (!captured) abandon(stream);
            throw;
        }
    }

    DeviceOutcome wait(const DeviceAnswer& to) override {
        const OnDevice on_device;
        settle();
        DeviceOutcome outcome = found_.get()->outcome;
        outcome.steps_run = std::clamp(outcome.steps_run, 0, asked_);  // a graph that was captured before may have run
        if (outcome.status == Status::kNotBegun) return outcome;
        const size_t steps = static_cast<size_t>(outcome.steps_run), count = area(call_.answer_rows, spec().dof);
        const auto copy = [&](float* into, const float* from, size_t values) {
            if (into == nullptr || values == 0) return;  // by our own stream: the default one waits for others' work
            TRM_CUDA(cudaMemcpyAsync(into, from, values * sizeof(float), cudaMemcpyDeviceToHost, stream_.get()));
        };
        copy(to.y, answer_.y, count);
        copy(to.halt_logits, answer_.halt_logits, steps);
        copy(to.trajectory, answer_.trajectory, steps * count);
        TRM_CUDA(cudaStreamSynchronize(stream_.get()));
        return outcome;
    }

    void* stream() override { return stream_.get(); }

    void order(void* before, void* after) override {
        const OnDevice on_device;
        const std::lock_guard<std::mutex> lock(ordering_);
        cuda::order(between_.get(), static_cast<cudaStream_t>(before), static_cast<cudaStream_t>(after));
    }

  private:
    std::unique_ptr<Runner> make_runner() const {
        if (shared_->way == Way::kPlain) return plain_runner(shared_->weights);
        return fused_runner(shared_->weights, shared_->way == Way::kFused,
                            {tensor("halt_head.weight"), tensor("halt_head.bias")});
    }
    const Spec& spec() const { return shared_->spec; }
    const float* tensor(const char* name) const { return shared_->tensors[name]; }
    size_t size() const { return area(spec().max_rows(), spec().hidden_size); }
    // Of what a step decodes to.
    int columns() const {
        if (spec().answer == Answer::kSlots) return call_.num_candidates;
        return spec().answer == Answer::kTokens ? spec().vocab_size : spec().dof;
    }
    EncodedRows encoded() const { return {rows_.get(), rows_.get() + size(), rows_.get() + 2 * size(), keys_.get()}; }

    // A call of the host's arrays, on its way to the device on our own stream.
    Call sent(const Call& call) {
        settle();
        inbox_.open();
        const Call there =
            placed(spec(), call, [&](const char*, auto* array, size_t count) { return inbox_.pack(array, count); });
        inbox_.send(stream_.get());
        return there;
    }

    // Put the call at hand on a stream, from its rows to its outcome.
    DeviceAnswer enqueue(int steps, float halt, float* y, cudaStream_t stream, bool captured) {
        RowMaps maps = encoding(spec(), shared_->tensors, call_, encoded());
        maps.nonfinite = nonfinite_.get();
        map_rows(maps, stream);
        begin_ = refresh_ = true;
        Conclusion end;
        end.answers = answers_.get();
        end.halt_logits = halt_logits_.get();
        if (steps > 0) {
            recur(steps, halt, stream);
            Products decoded = products(steps, stream);
            decoded.base = call_.y0 ? call_.y0 : tensor("normalization.y0.mean");
            decoded.base_stride = call_.y0 ? spec().dof : 0;
            decoded.out = answers_.get();
            decoded.halt_logits = halt_logits_.get();
            multiply(decoded, stream);
            end.ran = decoded.ran;
        }
        end.steps = steps;
        end.rows = call_.answer_rows;
        end.dof = spec().dof;
        end.halt = halt;
        end.draft = call_.y0;
        end.mean = tensor("normalization.y0.mean");
        end.last_action = call_.last_action;
        end.kept_action = kept_action_.get();
        end.limits = {tensor("limits.lower"), tensor("limits.upper"), tensor("limits.velocity")};
        end.nonfinite = nonfinite_.get();
        end.y = y ? y : answers_.get() + kMaxAhead * values_of_step(spec());
        end.outcome = &found_.get()->outcome;
        if (captured) found_.get()->outcome = {Status::kNotBegun, 0, 0};  // until the graph is launched
        conclude(end, stream);
        if (!captured) mark(stream);
        asked_ = steps;
        return {end.y, halt_logits_.get(), answers_.get()};
    }
    // A call that failed half way: later ones still come after what it has put on the stream, and start clean.
    void abandon(cudaStream_t stream) noexcept {
        ignore(cudaMemsetAsync(nonfinite_.get(), 0, sizeof(unsigned), stream));
        const cudaError_t error = cudaEventRecord(done_.get(), stream);
        ignore(error);
        if (error == cudaSuccess) pending_ = true;
    }

    void recur(int steps, float halt, cudaStream_t stream) {
        const EncodedRows from = encoded();
        runner_->enqueue({from.e, from.y, from.z, out_.get(), call_.answer_rows, call_.context_rows, steps, begin_,
                          refresh_, halt, ran_.get()},
                         stream);
    }

    // What the steps that were run decode to; where, the caller says.
    Products products(int steps, cudaStream_t stream) {
        const int D = spec().hidden_size, S = call_.answer_rows;
        const size_t step = area(spec().registers + S + call_.context_rows, D);
        const float* answer_rows = out_.get() + area(spec().registers, D);
        Products p;
        p.steps = steps;
        p.ran = runner_->stops_early() ? ran_.get() : nullptr;
        p.rows = S;
        p.n = columns();
        p.k = D;
        p.in = answer_rows;
        p.in_stride = step;
        p.w = tensor("answer_decoder.weight");
        if (spec().answer == Answer::kActions) p.scale = tensor("normalization.y0.std");
        if (spec().answer == Answer::kSlots) {
            RowMaps maps;
            maps.hidden = D;
            for (int i = 0; i < steps; ++i) {
                RowMap map;
                map.out = queries_.get() + static_cast<size_t>(i) * area(S, D);
                map.rows = S;
                map.in = answer_rows + static_cast<size_t>(i) * step;
                map.k = D;
                map.w = tensor("query.weight");
                maps.add(map);
            }
            map_rows(maps, stream);
            p.in = queries_.get();
            p.in_stride = area(S, D);
            p.w = keys_.get();
        }
        p.halt_in = out_.get();
        p.halt_stride = step;
        p.halt_weight = tensor("halt_head.weight");
        p.halt_bias = tensor("halt_head.bias");
        return p;
    }

    // What is put on a stream from now on comes after all that this session has put on any before.
    void take(cudaStream_t stream) {
        if (pending_) TRM_CUDA(cudaStreamWaitEvent(stream, done_.get(), 0));
    }
    void mark(cudaStream_t stream) {
        TRM_CUDA(cudaEventRecord(done_.get(), stream));
        pending_ = true;
    }
    void settle() {
        if (std::exchange(pending_, false)) TRM_CUDA(cudaEventSynchronize(done_.get()));
    }

    // Nothing may be waited for in a capture, and a graph be launched by none.
    void check_capture(const float* y, cudaStream_t stream) const {
        if (stream == stream_.get())
            throw Error(Status::kUnsupported, "stream: a capture is under way; give the stream that is being captured");
        if (y == nullptr)
            throw Error(Status::kInvalidArgument,
                        "y: expected memory of the GPU in a call that is captured into a graph, got null");
        if (shared_->way != Way::kFused)
            throw Error(Status::kUnsupported, "stream: is being captured into a graph, which is for the way 'fused'");
        if (pending_)
            throw Error(
                Status::kUnsupported,
                "stream: is being captured into a graph, and the session may still be at work; make a call with "
                "a step and wait for it, then capture");
    }

    std::optional<BesideCaptures> leaving_;  // comes first, and so goes last
    std::shared_ptr<const Shared> shared_;
    Inbox inbox_;
    DeviceBuffer<float> rows_, keys_, out_, queries_, answers_, halt_logits_, kept_action_;
    DeviceBuffer<int> ran_;
    DeviceBuffer<unsigned> nonfinite_;
    Pinned<float> values_;
    Pinned<Found> found_;
    Stream stream_;
    Event done_, between_;
    std::unique_ptr<Runner> runner_;
    Call call_;              // the last one, as the device has it
    DeviceAnswer answer_{};  // of the last one without waiting
    int asked_ = 0;          // steps of that call
    std::mutex ordering_;
    bool pending_ = false;  // since the host last waited
    bool begin_ = true, refresh_ = true;
};

}  // namespace

void check_values(const Spec& spec) {
    if (DeviceSession::kMaxAhead * values_of_step(spec) <= kMostValues) return;
    throw Error(Status::kUnsupported, "backend cuda: " + std::to_string(values_of_step(spec)) +
                                          " values a step are too many to be kept; run it with backend fused");
}

std::unique_ptr<DeviceSession> make_session(std::shared_ptr<const Shared> shared) {
    return std::make_unique<CudaSession>(std::move(shared));
}

}  // namespace trm::cuda
