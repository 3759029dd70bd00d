// The recursion on the processor: its states, the encoders before it and the decoders behind it.
#ifndef TRM_EDGE_CORE_HOST_RECURRENCE_H
#define TRM_EDGE_CORE_HOST_RECURRENCE_H

#include <cstdint>

#include "core/memory.h"
#include "core/model.h"
#include "core/recurrence.h"
#include "core/team.h"

namespace trm {

class HostRecurrence : public Recurrence {
  public:
    HostRecurrence(const Model& model, const SessionOptions& options);

    void begin(const Call& call, const Finite& finite) override;
    void refresh(const float* x, const float* features) override;
    void expect(int, float) override {}
    float step(int k, float* values) override;

  private:
    Arena lay_out(std::byte* base);
    int rows() const { return model_.spec.registers + answer_rows_ + context_rows_; }
    float* answer_rows_of(float* states) const;
    float* context_rows_of(float* states) const;
    void linear(const Linear& layer, const float* in, int count, float* out) const;

    // encode.cc: e and the first y and z
    void set_positions();
    void encode_registers(int puzzle_id);
    void encode_draft(const Call& call);
    void encode_slots(const Call& call);
    void encode_features(const float* features);
    void encode_context(const float* x);
    void encode(const Encoder& encoder, const float* values, int count, float* out);
    void add_learned_positions(float* rows, int first_position, int count);

    // recursion.cc: h_cycles x (l_cycles + 1) evaluations of net
    void recur(int k);
    void evaluate_net(float* states, int k);

    // decode.cc
    void decode(float* values);
    float halt_logit() const;

    const Model& model_;
    Team team_;
    Buffer<std::byte> memory_;
    int answer_rows_ = 0, context_rows_ = 0, num_candidates_ = 0;

    float *e_, *y_, *z_;  // [L, D]
    float* scratch_;      // the kernels' own
    float* staged_;       // one input, normalised
    float* keys_;         // slots: [M, D]
    Word* packed_keys_;   // slots: the same as a packed matrix
    float* queries_;      // slots: [S, D]
    int32_t* position_;   // [L]
};

}  // namespace trm

#endif
