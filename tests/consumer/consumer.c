/* The usage sketch of the header, in C99: load the shipped bundle, refine a zero draft, check the limits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <trm_edge/trm_edge.h>

int main(int argc, char** argv) {
    trm_model* model = NULL;
    trm_session* session = NULL;
    trm_info info = TRM_INFO_INIT;
    trm_verification verified = TRM_VERIFICATION_INIT;
    trm_inputs in = TRM_INPUTS_INIT;
    trm_outputs out = TRM_OUTPUTS_INIT;
    size_t i, count;
    float *draft, *chunk;
    trm_status status;
    if (argc != 2) return 2;
    if (trm_verify_file(argv[1], NULL, &verified) < 0 || verified.steps == 0 || verified.failed != 0) {
        printf("%s: %d of %d steps are off\n", argv[1], (int)verified.failed, (int)verified.steps);
        return 1;
    }
    if (trm_model_load_file(argv[1], NULL, &model) < 0 || trm_session_create(model, NULL, &session) < 0) {
        printf("%s\n", trm_last_message());
        return 1;
    }
    if (trm_model_info(model, &info) < 0 || info.answer != TRM_ACTIONS) return 1;
    count = (size_t)info.answer_rows * (size_t)info.dof;
    draft = calloc(count, sizeof(float));
    chunk = calloc(count, sizeof(float));
    in.y0 = trm_tensor_f32(draft, info.answer_rows, info.dof);
    out.y = chunk;
    out.y_bytes = count * sizeof(float);
    status = trm_refine(session, &in, 4, TRM_NEVER_HALT, &out);
    printf("%s, %d steps, %.1f us, %s\n", trm_status_name(status), (int)out.steps_run, out.duration_us,
           trm_model_isa(model));
    for (i = 0; i < count; ++i) {
        if (!(fabsf(chunk[i]) <= 1.0f)) return 1;
    }
    free(draft);
    free(chunk);
    trm_session_free(session);
    trm_model_free(model);
    return status == TRM_OK && out.steps_run == 4 ? 0 : 1;
}
