/* trm_edge: refine a draft answer with a Tiny Recursive Model, at a fixed latency, on a CPU or a GPU.
 *
 * USAGE
 *
 *     trm_model* model;
 *     trm_session* session;
 *     trm_verification check = TRM_VERIFICATION_INIT;  // does this machine reproduce what the bundle recorded?
 *     if (trm_verify_file("push.trm", NULL, &check) < 0) { puts(trm_last_message()); return 1; }
 *     if (check.cases == 0 || check.failed > 0) return 1;  // nothing to check with, or it does not
 *     if (trm_model_load_file("push.trm", NULL, &model) < 0) { puts(trm_last_message()); return 1; }
 *     if (trm_session_create(model, NULL, &session) < 0) { puts(trm_last_message()); return 1; }
 *
 *     trm_inputs in = TRM_INPUTS_INIT;
 *     trm_outputs out = TRM_OUTPUTS_INIT;
 *     in.x = trm_tensor_f32(context, P, Dx);
 *     in.y0 = trm_tensor_f32(draft_chunk, T, dof);
 *     in.last_action = trm_tensor_f32_1d(q, dof);
 *     out.y = chunk;                       // float[T * dof]
 *     out.y_bytes = sizeof chunk;
 *     trm_status status = trm_refine(session, &in, 4, TRM_NEVER_HALT, &out);
 *     // status == TRM_OK: chunk is the answer.  status > 0: chunk is an answer too, with a reason.
 *     // status < 0: the call was wrong, nothing was written; trm_last_message() says what to do.
 *
 *     trm_session_free(session);
 *     trm_model_free(model);
 *
 * SYMBOLS  P context rows, Dx context width, T action steps, dof action width, S slots or tokens, M candidates,
 *          V vocabulary, K refinement steps. Arrays are dense, row-major, and aligned to their elements. Outputs may
 *          overlap inputs, but not each other.
 *
 * THREADS  A model is immutable: any number of threads and sessions may share it. A session serves one call at a
 *          time; a call that finds it in use returns TRM_BUSY and touches nothing. Freeing a model that sessions still
 *          use is allowed: the last session to go frees it.
 *
 * REAL TIME  trm_session_create allocates and touches all memory that the session will ever use. From the first call
 *          on, trm_refine, trm_begin and trm_step allocate nothing, take no lock and make no system call (reading
 *          the clock goes through the vDSO). With several threads and spinning workers it makes none either, except
 *          sched_yield while a worker waits for a free processor.
 *          Where the library was opened by dlopen, a thread's first failing call may
 *          allocate the room for its message. The library never prints, throws or aborts. (A session of
 *          TRM_BACKEND_CUDA launches and waits through the driver, which makes system calls of its own.)
 *
 * LIMITS   For actions, `y` lies inside the bounds and moves at most `velocity` per tick, from `last_action` on where
 *          it is given. That is a projection after the last step, not something learned.
 */
#ifndef TRM_EDGE_TRM_EDGE_H
#define TRM_EDGE_TRM_EDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TRM_API __attribute__((visibility("default")))
#else
#define TRM_API
#endif

/* Outcome of a call. 0: ok. Positive: an answer was written, for a reason other than the usual. Negative: the call was
 * wrong and no answer was written; a handle that was to be made is NULL. Numbers are frozen. */
typedef int32_t trm_status;
enum {
    TRM_OK = 0,
    TRM_HALTED = 1,         /* confidence reached `halt` before the last step */
    TRM_NONFINITE = 2,      /* NaN or Inf in x, features, slots or candidates, or inside the recursion; the answer is
                             * the draft, projected onto the limits, or approaching them as for OUTSIDE_LIMITS. In y0
                             * or last_action, of which it is made: INVALID_ARGUMENT */
    TRM_OUTSIDE_LIMITS = 3, /* last_action is farther outside the bounds than one velocity step; the answer approaches
                             * them at the velocity limit */
    TRM_INVALID_ARGUMENT = -1,
    TRM_INVALID_BUNDLE = -2,
    TRM_UNSUPPORTED_VERSION = -3,
    TRM_IO_ERROR = -4,
    TRM_OUT_OF_MEMORY = -5,
    TRM_UNSUPPORTED = -6,
    TRM_BUSY = -7,
    TRM_NOT_BEGUN = -8,
    TRM_INTERNAL = -9,
    TRM_DEVICE_ERROR = -10 /* the GPU or its driver failed; the session is of no more use */
};

/* Name of a status as spelled above, "TRM_?" for an unknown number. Never null. */
TRM_API const char* trm_status_name(trm_status status);

/* What went wrong in this thread's most recent call that returned a negative status: the field, what was expected and
 * what was given. Valid until the thread's next such call. Never null. */
TRM_API const char* trm_last_message(void);

/* Version of the library, e.g. "0.1.0". */
TRM_API const char* trm_version(void);

/* Names of the instruction sets that this build holds and this machine supports, best first, separated by commas.
 * The environment variable TRM_EDGE_ISA picks one by name when a model is loaded. */
TRM_API const char* trm_supported_isas(void);

/* ---- Model ------------------------------------------------------------------------------------------------------ */

typedef struct trm_model trm_model;

typedef enum trm_answer { TRM_ACTIONS = 0, TRM_SLOTS = 1, TRM_TOKENS = 2 } trm_answer;

/* Sizes of a model. Those that its answer kind does not use are 0. */
typedef struct trm_info {
    size_t struct_size;     /* sizeof(trm_info), set by TRM_INFO_INIT */
    int32_t answer;         /* trm_answer */
    int32_t answer_rows;    /* T or S; for slots the maximum */
    int32_t dof;            /* actions: width of one action */
    int32_t max_context;    /* largest P; the only P where fixed_context is 1 */
    int32_t fixed_context;  /* 1: token-mixing weights fix P */
    int32_t context_size;   /* Dx */
    int32_t feature_size;   /* actions: width of one row of features */
    int32_t draft_optional; /* actions: 1 where y0 may be absent */
    int32_t slot_size;      /* slots: width of one slot */
    int32_t candidate_size; /* slots: width of one candidate */
    int32_t max_candidates; /* slots: largest M */
    int32_t vocab_size;     /* tokens: V */
    int32_t num_puzzles;    /* tokens: puzzle ids are 0..num_puzzles-1 */
} trm_info;
#define TRM_INFO_INIT {sizeof(trm_info), TRM_ACTIONS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What the matrices of the blocks are multiplied in. All else is float32, with one exception: on a GPU, and on
 * processors with AVX-512 BF16, attention's own products are 16-bit, unless qkv itself is float32. Numbers are frozen.
 */
typedef enum trm_precision {
    TRM_PRECISION_AUTO = 0, /* what the bundle was calibrated to, else float32 */
    TRM_PRECISION_FP32 = 1,
    TRM_PRECISION_BF16 = 2, /* bfloat16 weights and inputs, float32 sums */
    TRM_PRECISION_INT8 = 3, /* as calibrated; else 8-bit weights with a scale a row, inputs with a scale a token */
    TRM_PRECISION_FP16 = 4, /* TRM_BACKEND_CUDA: float16 weights and inputs, float32 sums; beyond 65504: NONFINITE */
    TRM_PRECISION_W8A16 = 5 /* TRM_BACKEND_CUDA: 8-bit weights with a scale a row, bfloat16 inputs, float32 sums */
} trm_precision;

/* What runs the recursion. Numbers are frozen. */
typedef enum trm_backend {
    TRM_BACKEND_CPU = 0,
    TRM_BACKEND_CUDA = 1 /* the first GPU; projection onto limits stays on the CPU, but for trm_refine_async */
} trm_backend;

/* Why TRM_BACKEND_CUDA cannot run here: no GPU, or a build without CUDA. Empty where it can. Never null. */
TRM_API const char* trm_cuda_missing(void);

typedef struct trm_load_options {
    size_t struct_size; /* sizeof(trm_load_options), set by TRM_LOAD_OPTIONS_INIT */
    int32_t precision;  /* trm_precision */
    int32_t backend;    /* trm_backend */
} trm_load_options;
#define TRM_LOAD_OPTIONS_INIT {sizeof(trm_load_options), TRM_PRECISION_AUTO, TRM_BACKEND_CPU}

/* Load and check a bundle, pack its weights for this machine's instruction set, and return the model in *out.
 * Nullable: options, for the defaults of TRM_LOAD_OPTIONS_INIT.
 * The file is read, not mapped. Returns TRM_IO_ERROR, TRM_INVALID_BUNDLE, TRM_UNSUPPORTED_VERSION, TRM_UNSUPPORTED
 * (TRM_EDGE_ISA names an instruction set that is unknown or not supported here, matrices too long for int8, fp16
 * or w8a16 without TRM_BACKEND_CUDA, fp16 of a weight beyond 65504, or no GPU for TRM_BACKEND_CUDA),
 * TRM_OUT_OF_MEMORY or TRM_DEVICE_ERROR. */
TRM_API trm_status trm_model_load_file(const char* path, const trm_load_options* options, trm_model** out);

/* As trm_model_load_file, from `size` bytes at `data`, which may be freed afterwards. */
TRM_API trm_status trm_model_load_memory(const void* data, size_t size, const trm_load_options* options,
                                         trm_model** out);

/* Release the caller's hold on a model. Nullable: model. */
TRM_API void trm_model_free(trm_model* model);

/* Fill *out, which was started with TRM_INFO_INIT, with the sizes of a model. */
TRM_API trm_status trm_model_info(const trm_model* model, trm_info* out);

/* Copy the limits of an actions head, [dof] floats each, infinite where it has none, for a controller that compares
 * them with its robot's, or puts a draft inside them by trm_project_limits, whatever became of the head's other inputs.
 * Nullable: lower, upper, velocity. Heads of other kinds: TRM_INVALID_ARGUMENT. */
TRM_API trm_status trm_model_limits(const trm_model* model, float* lower, float* upper, float* velocity);

/* Value of a metadata key of the bundle, e.g. "spec.hidden_size" or "provenance.source"; null where there is none.
 * Valid as long as the model. */
TRM_API const char* trm_model_metadata(const trm_model* model, const char* key);

/* Name of the instruction set that the model was packed for, e.g. "avx512"; on a GPU of the architecture and the way
 * it runs, e.g. "sm_90 fused". */
TRM_API const char* trm_model_isa(const trm_model* model);

/* What the model multiplies in: "fp32", "bf16", "int8", "fp16" or "w8a16". A calibrated mixture reads "int8". */
TRM_API const char* trm_model_precision(const trm_model* model);

/* How a machine reproduces the golden vectors of a bundle, step by step. */
typedef struct trm_verification {
    size_t struct_size; /* sizeof(trm_verification), set by TRM_VERIFICATION_INIT */
    int32_t cases;      /* golden cases of the bundle; 0: it holds none, and nothing was checked */
    int32_t steps;      /* steps that were compared, of all cases together */
    int32_t failed;     /* of these, how many are off by more than is allowed: 0 where this machine is to be trusted */
    int32_t worst_case; /* case (from 0) and step (from 1) that is off by most */
    int32_t worst_step;
    double worst; /* its error over what is allowed; infinite where a choice is wrong or a value not finite */
} trm_verification;
#define TRM_VERIFICATION_INIT {sizeof(trm_verification), 0, 0, 0, 0, 0, 0.0}

/* Run the golden vectors of the bundle at `path` here, as it would be loaded with `options`, and compare every step
 * with the float64 oracle's outputs in it, by the rule of `trm-edge verify`: float32 may err by max(1e-5, 4 x the
 * recorded error of plain float32), what the bundle was calibrated to by 1.5 x its recorded error. For a controller's
 * start: a machine that answers otherwise, whatever the reason, should not move anything. Nullable: options. Returns
 * TRM_OK where it ran, also where out->failed is not 0; TRM_UNSUPPORTED for a precision whose error the bundle does not
 * record (all but float32 and what it was calibrated to); else as trm_model_load_file. */
TRM_API trm_status trm_verify_file(const char* path, const trm_load_options* options, trm_verification* out);

/* As trm_verify_file, from `size` bytes at `data`. */
TRM_API trm_status trm_verify_memory(const void* data, size_t size, const trm_load_options* options,
                                     trm_verification* out);

/* Run the multiply-adds of a full register tile `iterations` times, with this machine's instruction set and operands in
 * registers: the ceiling of every kernel of that precision, for rooflines. Writes the number of multiplications and
 * additions, and the time that they took. */
TRM_API trm_status trm_register_loop(int32_t precision, int64_t iterations, double* operations, double* seconds);

/* ---- Session ---------------------------------------------------------------------------------------------------- */

typedef struct trm_session trm_session;

#define TRM_MAX_THREADS 64
#define TRM_NEVER_PARK (-1)

typedef struct trm_session_options {
    size_t struct_size;    /* sizeof(trm_session_options), set by TRM_SESSION_OPTIONS_INIT */
    int32_t threads;       /* 1..TRM_MAX_THREADS: the caller of trm_refine and threads - 1 workers of the session */
    int32_t pin;           /* 1: worker i runs on the i-th processor after the first that the creating thread may use */
    int64_t park_after_us; /* microseconds that an idle worker spins before it sleeps; TRM_NEVER_PARK. A spinning worker
                              takes a processor; one that sleeps costs a system call and its wake-up time. */
} trm_session_options;
#define TRM_SESSION_OPTIONS_INIT {sizeof(trm_session_options), 1, 0, TRM_NEVER_PARK}

/* Create a session on a model: allocates and touches all its memory, sized for the spec's maxima, and starts its
 * workers. A session with workers does not survive fork. Nullable: options, for one thread. */
TRM_API trm_status trm_session_create(const trm_model* model, const trm_session_options* options, trm_session** out);

/* Free a session. It must not be in use. Nullable: session. */
TRM_API void trm_session_free(trm_session* session);

/* ---- Refinement ------------------------------------------------------------------------------------------------- */

typedef enum trm_dtype { TRM_ABSENT = 0, TRM_F32 = 1, TRM_I32 = 2, TRM_BOOL = 3 } trm_dtype;

/* A dense row-major array of one or two dimensions; dtype TRM_ABSENT where an argument is left out. `data` may be null
 * where a dimension is 0. TRM_BOOL is one byte an element, zero or not. */
typedef struct trm_tensor {
    const void* data;
    int32_t dtype; /* trm_dtype */
    int32_t ndim;  /* 1 or 2 */
    int64_t shape[2];
} trm_tensor;

static inline trm_tensor trm_tensor_2d(const void* data, trm_dtype dtype, int64_t rows, int64_t columns) {
    trm_tensor t;
    t.data = data;
    t.dtype = (int32_t)dtype;
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = columns;
    return t;
}
static inline trm_tensor trm_tensor_1d(const void* data, trm_dtype dtype, int64_t size) {
    trm_tensor t = trm_tensor_2d(data, dtype, size, 0);
    t.ndim = 1;
    return t;
}
static inline trm_tensor trm_tensor_f32(const float* data, int64_t rows, int64_t columns) {
    return trm_tensor_2d(data, TRM_F32, rows, columns);
}
static inline trm_tensor trm_tensor_f32_1d(const float* data, int64_t size) {
    return trm_tensor_1d(data, TRM_F32, size);
}
static inline trm_tensor trm_tensor_i32(const int32_t* data, int64_t size) {
    return trm_tensor_1d(data, TRM_I32, size);
}

/* Inputs of one call. Floats are raw values: the engine applies the bundle's normalisation. Arrays must not change
 * while the call reads them: copy what another thread writes. */
typedef struct trm_inputs {
    size_t struct_size;     /* sizeof(trm_inputs), set by TRM_INPUTS_INIT */
    trm_tensor x;           /* actions, slots: [P, Dx] f32, absent for P = 0; tokens: [S] i32 */
    trm_tensor y0;          /* actions: [T, dof] f32; slots: [S] i32, -1 for none, absent for all -1; tokens: absent */
    trm_tensor features;    /* actions with features: [T, Df] f32 */
    trm_tensor slots;       /* slots: [S, Ds] f32 */
    trm_tensor candidates;  /* slots: [M, Dc] f32 */
    trm_tensor mask;        /* slots: [S, M] bool, candidates that a slot may take */
    trm_tensor last_action; /* actions: [dof] f32, the action before the chunk; absent: no continuity */
    int32_t puzzle_id;      /* tokens */
} trm_inputs;
#define TRM_INPUTS_INIT                                        \
    {sizeof(trm_inputs), {0, 0, 0, {0, 0}}, {0, 0, 0, {0, 0}}, \
     {0, 0, 0, {0, 0}},  {0, 0, 0, {0, 0}}, {0, 0, 0, {0, 0}}, \
     {0, 0, 0, {0, 0}},  {0, 0, 0, {0, 0}}, 0}

/* Where one call writes. Buffers belong to the caller; sizes are in bytes and are checked.
 * An answer is [T, dof] f32 for actions, [S] i32 otherwise; a row of logits is [S, M] or [S, V] f32. */
typedef struct trm_outputs {
    size_t struct_size; /* sizeof(trm_outputs), set by TRM_OUTPUTS_INIT */
    void* y;            /* the answer; actions are projected onto the limits */
    size_t y_bytes;
    float* halt_logits;       /* Nullable: one per step that ran */
    size_t halt_logits_bytes; /* at least 4 * steps */
    void* trajectory;         /* Nullable: the answer of every step that ran, before projection */
    size_t trajectory_bytes;  /* at least steps * answer */
    float* logits;            /* Nullable: logits of every step that ran (slots, tokens) */
    size_t logits_bytes;      /* at least steps * logits */
    int32_t steps_run;        /* written: steps that were finite; after trm_step, those since trm_begin */
    float confidence;         /* written: sigmoid of the last of halt_logits (of y, but for NONFINITE); else NaN */
    double duration_us;       /* written: wall time inside the call [us] */
} trm_outputs;
#define TRM_OUTPUTS_INIT {sizeof(trm_outputs), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0f, 0.0}

#define TRM_NEVER_HALT (-1.0f)
#define TRM_MAX_STEPS 1024

/* Refine a draft over up to `steps` steps.
 * steps: 0..TRM_MAX_STEPS; 0 returns the projected draft and is an error for tokens.
 * halt: TRM_NEVER_HALT, or a confidence in 0..1: stop after the first step that reaches it. */
TRM_API trm_status trm_refine(trm_session* session, const trm_inputs* inputs, int32_t steps, float halt,
                              trm_outputs* outputs);

/* Start a recursion that trm_step carries on; copies what it needs of the inputs. trm_refine is trm_begin and `steps`
 * times trm_step, bit for bit, and ends a recursion that was begun.
 * Calls that start anew (trm_begin, trm_refine, trm_refine_async) end the recursion before they check their arguments:
 * after one that failed, for whatever reason but TRM_BUSY, trm_step returns TRM_NOT_BEGUN. */
TRM_API trm_status trm_begin(trm_session* session, const trm_inputs* inputs);

/* Forget the recursion that was begun, if one was; trm_step then returns TRM_NOT_BEGUN. */
TRM_API trm_status trm_end(trm_session* session);

/* Run one more step, keeping the recursion's state.
 * Nullable: x, features, last_action; where given they replace those of the step before. x keeps its number of rows.
 * The draft stays that of trm_begin, and the first row of the answer is the action after last_action: a recursion is of
 * one control tick, and the next tick begins another one on a draft that was shifted by one row.
 * After TRM_NONFINITE for a fresh x or features that is not finite, the recursion stands as it was, but for
 * last_action; where a finite input led to it, every step does until the next trm_begin. */
TRM_API trm_status trm_step(trm_session* session, const trm_tensor* x, const trm_tensor* features,
                            const trm_tensor* last_action, trm_outputs* outputs);

/* ---- On a GPU, without waiting ----------------------------------------------------------------------------------- */

#define TRM_MAX_ASYNC_STEPS 16

/* Where trm_refine_async leaves its answer, in the memory of the GPU: written when the stream has got there. */
typedef struct trm_device_answer {
    size_t struct_size; /* sizeof(trm_device_answer), set by TRM_DEVICE_ANSWER_INIT */
    float* y;           /* [T, dof]; actions inside the limits */
    float* halt_logits; /* [steps] */
    float* trajectory;  /* [steps, T, dof]: the answer of every step, before projection */
} trm_device_answer;
#define TRM_DEVICE_ANSWER_INIT {sizeof(trm_device_answer), 0, 0, 0}

/* trm_refine for action heads of TRM_BACKEND_CUDA that returns at once: all of the call is put on a stream.
 * inputs: arrays in memory of the GPU are read where they are, and have to stay as they are until the stream has got
 * there; those of the host, pinned ones too, are copied before the call returns, once the session's last call is over.
 * Values are not checked: what is not finite in y0 or last_action gives TRM_NONFINITE too, and the draft has the mean
 * action in place of what is not finite there.
 * steps: 0..TRM_MAX_ASYNC_STEPS. halt: as in trm_refine, but for confidences that differ from it by rounding alone.
 * y: [T, dof] in memory of the GPU; null: the session's own. It may be y0, and last_action a part of it, but no other
 * input may overlap it. What is the session's is overwritten by its next call. Rows of steps that did not run are left.
 * stream: a cudaStream_t; null: the session's own, of trm_session_stream, which waits for no other stream (the default
 * one is cudaStreamLegacy). Calls of one session on whatever streams are run one after the other.
 * The stream may be in the middle of a capture into a graph, with the way "fused" and all arrays and y in memory of the
 * GPU: then every launch of the graph is this call again. The session's memory is part of the graph: the session has to
 * outlive it, and serves nothing else while the graph runs. trm_wait then waits for nothing: it copies what the last
 * launch left, once the caller has waited for that.
 * Ends a recursion that was begun. */
TRM_API trm_status trm_refine_async(trm_session* session, const trm_inputs* inputs, int32_t steps, float halt, float* y,
                                    void* stream, trm_device_answer* answer);

/* Wait for the session's last trm_refine_async, copy its answer to buffers of the host as trm_refine does, and return
 * its status. What is copied is what `y` of the call holds by now. TRM_NOT_BEGUN where there was no call, another one
 * came after it, or its graph has not been launched. */
TRM_API trm_status trm_wait(trm_session* session, trm_outputs* outputs);

/* The session's own stream, a cudaStream_t; null where the session runs on the processor. */
TRM_API void* trm_session_stream(trm_session* session);

/* Let what is put on stream `after` from now on wait for all that is on stream `before` now (cudaStream_t; null: the
 * default one). By any thread. TRM_UNSUPPORTED where only one of the two is being captured into a graph. */
TRM_API trm_status trm_order_streams(trm_session* session, void* before, void* after);

/* Project actions [T, dof] in place onto lower <= a <= upper and |a[t] - a[t-1]| <= velocity (per tick).
 * Nullable: lower, upper, velocity [dof]: no such limit; last_action [dof]: the first action is free to jump.
 * Idempotent and deterministic. From a last_action farther outside the bounds than one velocity step, actions approach
 * the bounds at the velocity limit and TRM_OUTSIDE_LIMITS is returned. */
TRM_API trm_status trm_project_limits(float* actions, int64_t T, int64_t dof, const float* lower, const float* upper,
                                      const float* velocity, const float* last_action);

#ifdef __cplusplus
}
#endif

#endif
