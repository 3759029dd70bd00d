#include <algorithm>
#include <cmath>

#include "cuda/encoder.h"
#include "cuda/launch.h"

namespace trm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = kThreads / 32;  // of a block: a warp each
constexpr int kRows = 8;                 // of a block
constexpr int kStaged = 512;             // input columns at a time

__host__ __device__ int row_groups(int rows) { return (rows + kRows - 1) / kRows; }
__host__ __device__ int column_tiles(int hidden) { return (hidden + kColumns - 1) / kColumns; }

// The row of what a map picks from; -1: none.
__device__ int picked(const RowMap& m, int row) {
    return m.pick ? min(max(m.pick[row], m.none ? -1 : 0), m.choices - 1) : row;
}

// Normalise a chunk of kRows input rows into shared memory; true where a value was not finite.
__device__ bool stage(const RowMap& m, int first, int chunk, int size, float (*staged)[kStaged]) {
    bool finite = true;
    for (int r = 0; r < kRows; ++r) {
        const int row = first + r < m.rows ? picked(m, first + r) : -1;
        for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
            float value = 0;
            if (row >= 0) {
                value = m.in[static_cast<size_t>(row) * static_cast<size_t>(m.k) + static_cast<size_t>(chunk + i)];
                finite = finite && isfinite(value);
                if (m.mean) value = (value - m.mean[chunk + i]) / m.std[chunk + i];
            }
            staged[r][i] = value;
        }
    }
    return !finite;
}

__global__ void __launch_bounds__(kThreads) map_rows_kernel(const __grid_constant__ RowMaps maps) {
    __shared__ float staged[kRows][kStaged];
    const int tiles = column_tiles(maps.hidden), tile = static_cast<int>(blockIdx.x) % tiles;
    int group = static_cast<int>(blockIdx.x) / tiles, number = 0;
    while (group >= row_groups(maps.of[number].rows)) group -= row_groups(maps.of[number++].rows);
    const RowMap& m = maps.of[number];
    const int first = group * kRows, lane = static_cast<int>(threadIdx.x) % 32;
    const int column = tile * kColumns + static_cast<int>(threadIdx.x) / 32;
    const bool inside = column < maps.hidden;
    float sum[kRows] = {};
    for (int chunk = 0; chunk < m.k; chunk += kStaged) {
        const int size = min(kStaged, m.k - chunk);
        __syncthreads();  // until the chunk before has been used
        if (stage(m, first, chunk, size, staged) && maps.nonfinite && tile == 0) atomicOr(maps.nonfinite, 1u);
        __syncthreads();
        const float* w = m.w + static_cast<size_t>(column) * static_cast<size_t>(m.k) + chunk;
        for (int i = lane; inside && i < size; i += 32) {
            const float weight = w[i];
#pragma unroll
            for (int r = 0; r < kRows; ++r) sum[r] += staged[r][i] * weight;
        }
    }
    float value = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        for (int step = 16; step > 0; step /= 2) sum[r] += __shfl_xor_sync(~0u, sum[r], step);
        if (lane == r) value = sum[r];
    }
    const int row = first + lane;
    if (!inside || lane >= kRows || row >= m.rows) return;
    const auto at = [&](const float* rows, int i) {
        return rows[static_cast<size_t>(i) * static_cast<size_t>(maps.hidden) + static_cast<size_t>(column)];
    };
    if (m.none && picked(m, row) < 0) value = m.none[column];
    if (m.base) value += at(m.base, m.base_stride == 0 ? 0 : m.in ? row : picked(m, row));
    if (m.position) value += at(m.position, row);
    m.out[static_cast<size_t>(row) * static_cast<size_t>(maps.hidden) + static_cast<size_t>(column)] = value;
}

// Builds maps with the names of a bundle's tensors.
class Encoding {
  public:
    Encoding(const Spec& spec, const DeviceTensors& tensors, const Call& call, const EncodedRows& to)
        : spec_(spec), tensors_(tensors), call_(call), to_(to) {
        maps_.hidden = spec.hidden_size;
    }

    void registers() {
        RowMap map = rows(to_.e, 0, spec_.registers);
        const bool tokens = spec_.answer == Answer::kTokens;
        map.base = tensors_[tokens ? "puzzle_embedding" : "registers"];
        if (map.base && tokens) map.base = at(map.base, call_.puzzle_id * spec_.registers);
        map.base_stride = spec_.hidden_size;
        map.position = position(0);
        maps_.add(map);
    }

    void context() {
        RowMap map = rows(to_.e, spec_.registers + call_.answer_rows, call_.context_rows);
        read(&map, call_.x, spec_.context_size, "context_encoder.weight", "x");
        map.position = position(spec_.registers + spec_.answer_rows);
        maps_.add(map);
    }

    // A learned row per time step, plus what the features say about the draft there.
    void features() {
        RowMap map = rows(to_.e, spec_.registers, call_.answer_rows);
        if (spec_.feature_size) read(&map, call_.features, spec_.feature_size, "features_encoder.weight", "features");
        map.base = tensors_["time_embedding"];
        map.base_stride = spec_.hidden_size;
        map.position = position(spec_.registers);
        maps_.add(map);
    }

    void tokens() {
        RowMap map = rows(to_.e, spec_.registers, call_.answer_rows);
        map.base = tensors_["token_embedding"];
        map.base_stride = spec_.hidden_size;
        map.pick = call_.tokens;
        map.choices = spec_.vocab_size;
        map.position = position(spec_.registers);
        maps_.add(map);
    }

    void slots() {
        RowMap map = rows(to_.e, spec_.registers, call_.answer_rows);
        read(&map, call_.slots, spec_.slot_size, "slot_encoder.weight", "slots");
        map.position = position(spec_.registers);
        maps_.add(map);
        RowMap keys = rows(to_.keys, 0, call_.num_candidates);
        read(&keys, call_.candidates, spec_.candidate_size, "key.weight", "candidates");
        maps_.add(keys);
    }

    // The first y and z; drafts are added to the answer rows of y.
    void states() {
        const int all = spec_.registers + call_.answer_rows + call_.context_rows;
        const auto same = [&](float* states, int first, int count, const char* name) {
            RowMap map = rows(states, first, count);
            map.base = tensors_[name];
            return map;
        };
        RowMap answer = same(to_.y, spec_.registers, call_.answer_rows, "y_init");
        if (spec_.answer == Answer::kActions && call_.y0)  // none is the mean action, which is encoded as 0
            read(&answer, call_.y0, spec_.dof, "answer_encoder.weight", "y0");
        if (spec_.answer == Answer::kSlots) {
            read(&answer, call_.candidates, spec_.candidate_size, "key.weight", "candidates");
            answer.pick = call_.choices;
            answer.choices = call_.num_candidates;
            answer.none = tensors_["key_none"];
        }
        maps_.add(answer);
        maps_.add(same(to_.y, 0, spec_.registers, "y_init"));
        maps_.add(same(to_.y, spec_.registers + call_.answer_rows, call_.context_rows, "y_init"));
        maps_.add(same(to_.z, 0, all, "z_init"));
    }

    const RowMaps& maps() const { return maps_; }

  private:
    const float* at(const float* rows, int row) const {
        return rows + static_cast<size_t>(row) * static_cast<size_t>(spec_.hidden_size);
    }
    RowMap rows(float* states, int first, int count) const {
        RowMap map;
        map.out = states + static_cast<size_t>(first) * static_cast<size_t>(spec_.hidden_size);
        map.rows = count;
        return map;
    }
    void read(RowMap* map, const float* in, int k, const char* weight, const std::string& input) const {
        map->in = in;
        map->k = k;
        map->w = tensors_[weight];
        map->mean = tensors_["normalization." + input + ".mean"];
        map->std = tensors_["normalization." + input + ".std"];
    }
    const float* position(int row) const {
        const float* learned = tensors_["position_embedding"];
        return learned ? at(learned, row) : nullptr;
    }

    const Spec& spec_;
    const DeviceTensors& tensors_;
    const Call& call_;
    EncodedRows to_;
    RowMaps maps_;
};

}  // namespace

void map_rows(const RowMaps& maps, cudaStream_t stream) {
    int groups = 0;
    for (int i = 0; i < maps.count; ++i) groups += row_groups(maps.of[i].rows);
    if (groups == 0) return;
    const unsigned blocks = static_cast<unsigned>(groups) * static_cast<unsigned>(column_tiles(maps.hidden));
    launch(map_rows_kernel, {blocks, kThreads}, stream, maps);
}

RowMaps encoding(const Spec& spec, const DeviceTensors& tensors, const Call& call, const EncodedRows& to) {
    Encoding encoding(spec, tensors, call, to);
    encoding.registers();
    if (spec.answer == Answer::kActions) encoding.features();
    if (spec.answer == Answer::kTokens) encoding.tokens();
    if (spec.answer == Answer::kSlots) encoding.slots();
    encoding.context();
    encoding.states();
    return encoding.maps();
}

RowMaps fresh_encoding(const Spec& spec, const DeviceTensors& tensors, const Call& call, const EncodedRows& to) {
    Encoding encoding(spec, tensors, call, to);
    if (call.features) encoding.features();
    if (call.x) encoding.context();
    return encoding.maps();
}

}  // namespace trm::cuda
