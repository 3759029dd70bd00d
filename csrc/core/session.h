// A mutable session: the arena of one recursion on a shared model, and the recursion itself.
#ifndef TRM_EDGE_CORE_SESSION_H
#define TRM_EDGE_CORE_SESSION_H

#include <cstdint>
#include <memory>

#include "core/call.h"
#include "core/memory.h"
#include "core/model.h"
#include "core/team.h"

namespace trm {

struct SessionOptions {
    int threads = 1;
    int64_t park_after_us = Team::kNeverPark;
    bool pin = false;
};

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
    void expect(int steps, float halt) {
        steps_to_come_ = steps;
        halt_ = halt;
    }

    // A whole call without waiting; see DeviceSession.
    DeviceAnswer refine_async(const Call& call, int steps, float halt, float* y, void* stream);
    // How many steps the last one was asked for, where no other call came after it; else -1.
    int steps_in_flight() const { return in_flight_; }

    // The device that the recursion runs on; null: the processor.
    DeviceSession* device() const { return device_.get(); }

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
    bool inputs_finite() const { return x_finite_ && features_finite_ && slots_finite_; }
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
    int rows() const { return model_->spec.registers + answer_rows_ + context_rows_; }
    float* answer_rows_of(float* states) const;
    float* context_rows_of(float* states) const;

    // encode.cc: e and the first y and z
    const char* keep(const Call& call);
    void set_positions();
    void encode_registers(int puzzle_id);
    void encode_draft();
    void encode_slots(const Call& call);
    void encode_features(const float* features);
    void encode_context(const float* x);
    void linear(const Linear& layer, const float* in, int count, float* out) const;
    void encode(const Encoder& encoder, const float* values, int count, float* out);
    void add_learned_positions(float* rows, int first_position, int count);
    bool refresh(const float* x, const float* features);

    // recursion.cc: h_cycles x (l_cycles + 1) evaluations of net
    void recur();
    void recur_on_device();
    void abandon();
    void evaluate_net(float* states);

    // decode.cc: false where a value is not finite
    bool decode();
    float own_halt_logit() const;
    bool decode_answer();
    bool decode_actions();
    bool decode_tokens();
    bool decode_slots();

    std::shared_ptr<const Model> model_;
    std::unique_ptr<DeviceSession> device_;  // null: the processor
    Team team_;
    Buffer<std::byte> memory_;

    bool begun_ = false;
    bool x_finite_ = true, features_finite_ = true, slots_finite_ = true;
    bool has_last_action_ = false;
    int answer_rows_ = 0, context_rows_ = 0, num_candidates_ = 0, steps_run_ = 0;
    int steps_to_come_ = 0, steps_ahead_ = 0, steps_taken_ = 0;  // of a device: ahead were run, taken were used of them
    int in_flight_ = -1;
    float halt_ = -1;
    float halt_logit_ = 0;
    DeviceStep decoded_{};  // what a device says of the last step

    float *e_, *y_, *z_;                  // [L, D]; null where a device has them
    float* scratch_;                      // the kernels' own
    float* staged_;                       // one input, normalised
    float *draft_, *actions_;             // actions: y0 and the last step's answer [T, dof]
    float *last_action_, *fresh_action_;  // actions: [dof], and one that is not checked yet
    float* keys_;                         // slots: [M, D]
    Word* packed_keys_;                   // slots: the same as a packed matrix
    float* queries_;                      // slots: [S, D]
    float* logits_;                       // [S, M or V]
    int32_t *choices_, *chosen_;          // slots, tokens: y0 or x, and the last step's answer [S]
    int32_t* position_;                   // [L]
    uint8_t* mask_;                       // slots: [S, M]
};

// Whether no value is NaN or Inf.
bool all_finite(const float* values, size_t count);

}  // namespace trm

#endif
