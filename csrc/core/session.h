// A mutable session: one recursion on a shared model, with what it was begun with and what its last step answered.
#ifndef TRM_EDGE_CORE_SESSION_H
#define TRM_EDGE_CORE_SESSION_H

#include <cstdint>
#include <memory>

#include "core/call.h"
#include "core/memory.h"
#include "core/model.h"
#include "core/recurrence.h"

namespace trm {

class Session {
  public:
    // Throws std::bad_alloc, or std::system_error where the system grants no more threads.
    Session(std::shared_ptr<const Model> model, const SessionOptions& options);

    const Model& model() const { return *model_; }

    // Encode a call: the rows injected at every latent update, and the first y and z. Returns null, or where what
    // limits are projected from is not finite, the name of that input ("y0", "last_action"); then nothing was begun.
    [[nodiscard]] const char* begin(const Call& call);

    // Say how many steps will be asked for without anything fresh between them, or fewer where one's confidence reaches
    // `halt` (negative: never), so that a device may run them at once.
    void expect(int steps, float halt) { recurrence_->expect(steps, halt); }

    // A whole call without waiting; see DeviceSession.
    DeviceAnswer refine_async(const Call& call, int steps, float halt, float* y, void* stream);
    // How many steps the last one was asked for, where no other call came after it; else -1.
    int steps_in_flight() const { return in_flight_; }

    // The device that the recursion runs on; null: the processor.
    DeviceSession* device() const { return recurrence_->device(); }

    // Take a fresh last action; null: keep what there is. False where it is not finite; then nothing has changed.
    [[nodiscard]] bool keep_last_action(const float* last_action);

    // Run one refinement step. Nullable: x, features; where given they replace those of the step before. False where a
    // value was not finite: in an input (then nothing has changed), or inside.
    bool step(const float* x = nullptr, const float* features = nullptr);

    // Write the answer: the last step's, or the draft; actions are projected onto the limits. True where the last
    // action was too far outside the bounds for the answer to be inside.
    bool write_answer(void* y, bool draft) const;

    // Forget the recursion, so that a further step needs a begin.
    void end() { begun_ = false; }

    bool begun() const { return begun_; }
    bool inputs_finite() const { return finite_.all(); }
    int answer_rows() const { return answer_rows_; }
    int context_rows() const { return context_rows_; }
    int num_candidates() const { return num_candidates_; }
    int steps_run() const { return steps_run_; }

    // Of the last step: the answer before projection, logits [answer_rows, M or V], and the halt logit.
    const void* step_answer() const;
    const float* step_logits() const { return logits_; }
    float halt_logit() const { return halt_logit_; }
    size_t answer_bytes() const;
    size_t logits_bytes() const;

  private:
    Arena lay_out(std::byte* base);
    const char* keep(const Call& call);
    bool refresh(const float* x, const float* features);
    void abandon();

    // What a step decoded to becomes its answer; false where a value is not finite.
    bool add_draft();
    bool choose();
    bool choose_tokens();
    bool choose_slots();

    std::shared_ptr<const Model> model_;
    std::unique_ptr<Recurrence> recurrence_;
    Buffer<std::byte> memory_;

    bool begun_ = false;
    Finite finite_;
    bool has_last_action_ = false;
    int answer_rows_ = 0, context_rows_ = 0, num_candidates_ = 0, steps_run_ = 0;
    int in_flight_ = -1;
    float halt_logit_ = 0;

    float *draft_, *actions_;             // actions: y0 and the last step's answer [T, dof]
    float *last_action_, *fresh_action_;  // actions: [dof], and one that is not checked yet
    float* logits_;                       // [S, M or V]
    int32_t *choices_, *chosen_;          // slots, tokens: y0 or x, and the last step's answer [S]
    uint8_t* mask_;                       // slots: [S, M]
};

// Whether no value is NaN or Inf.
bool all_finite(const float* values, size_t count);

}  // namespace trm

#endif
