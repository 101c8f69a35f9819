/* How many tokens of a prompt are evaluated together; part of making the plan (plan.c calls it),
 * pure as it.
 *
 * A chunk reads every expert that isn't cached about once, however long it is: twice as long, half
 * the reads. Its scratch, though, takes the place of cached experts, for the prompt and for what is
 * generated then. So up to where arithmetic gains nothing more, a chunk is as long as its scratch
 * is small; from there on only as long as the bytes that a conversation reads become fewer. */
#include <math.h>
#include <stdio.h>

#include "plan/plan_int.h"

#define CHUNK_ENOUGH   512  /* arithmetic gains little by more */
#define CHUNK_AUTO_MAX 2048 /* nor do reads; and nobody else is served meanwhile */
#define PROMPT_TOKENS  2048 /* of the conversation reckoned with, if the context has room */
#define ANSWER_TOKENS  512
#define GAIN_LEAST     0.02 /* of the bytes: less isn't worth the memory */

/* Bytes of experts that a conversation reads with plan->program, in bytes of all experts. */
static double reads_of_talk(const mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                            uint32_t chunk)
{
    mfi_plan_sizes z;
    mfi_plan_measure(model, &plan->program, plan->ctx, plan->n_sessions, &z);
    uint64_t fixed = mfi_plan_fixed_bytes(plan, m, &plan->program, &z, plan->ctx, 0);
    uint64_t room = plan->budget_bytes > fixed ? plan->budget_bytes - fixed : 0;
    double all = (double)plan->n_experts_total * (double)plan->slot_stride;
    double missing = all > 0 && (double)room < all ? 1 - (double)room / all : 0;
    double chosen = (double)model->shape.top_k / MFI_MAX(model->shape.n_experts, 1);
    double of_chunk = 1 - pow(1 - chosen, chunk); /* of all experts, if every token draws anew */
    double n_chunks = MFI_MAX((double)MFI_MIN(plan->ctx, PROMPT_TOKENS) / chunk, 1);
    double n_answer = MFI_MIN(plan->ctx, PROMPT_TOKENS) * (double)ANSWER_TOKENS / PROMPT_TOKENS;
    /* The first chunk finds nothing cached. */
    return of_chunk * (1 + (n_chunks - 1) * missing) + n_answer * chosen * missing;
}

static mf_status emit(mfi_plan *plan, const mfi_model *model, uint32_t chunk, uint32_t n_logit_rows,
                      mf_error *err)
{
    mfi_program_free(&plan->program);
    return mfi_plan_emit(&plan->program, model, chunk, n_logit_rows, plan->activations,
                         plan->cache_type, err);
}

/* Doubles the chunk while that saves reads and the program takes at most `most_bytes`. */
static mf_status lengthen(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                          uint64_t most_bytes, uint32_t n_logit_rows, mf_error *err)
{
    double reads = reads_of_talk(plan, model, m, plan->chunk);
    while (2 * plan->chunk <= MFI_MIN(CHUNK_AUTO_MAX, plan->ctx)) {
        MFI_TRY(emit(plan, model, 2 * plan->chunk, n_logit_rows, err));
        double now = reads_of_talk(plan, model, m, 2 * plan->chunk);
        if (now > reads * (1 - GAIN_LEAST) ||
            mfi_plan_room_least(plan, model, m, &plan->program, plan->ctx) > most_bytes)
            return emit(plan, model, plan->chunk, n_logit_rows, err);
        reads = now;
        plan->chunk *= 2;
        snprintf(plan->chunk_reason, sizeof plan->chunk_reason,
                 "fewer reads of what isn't cached; longer would displace more than it saves");
    }
    return MF_OK;
}

mf_status mfi_plan_longest_chunk(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                                 const mfi_plan_options *o, const mfi_plan_bound *bound,
                                 uint32_t n_logit_rows, mf_error *err)
{
    uint32_t least = plan->n_sessions; /* each has a row in a pass */
    uint32_t most = o->chunk ? o->chunk : MFI_MAX(MFI_MIN(bound->auto_max, plan->ctx), least);
    uint32_t chunk = most;
    for (; !o->chunk; chunk = MFI_MAX(chunk / 2, least)) {
        uint64_t bytes;
        MFI_TRY(emit(plan, model, chunk, n_logit_rows, err));
        MFI_TRY(bound->measure(plan, model, m, o, &bytes, err));
        if (chunk == least || bytes <= bound->most_bytes)
            break;
    }
    plan->chunk = chunk;
    snprintf(plan->chunk_reason, sizeof plan->chunk_reason, "%s",
             o->chunk        ? "as asked"
             : chunk == most ? "longer gains little"
                             : bound->why_less);
    return MF_OK;
}

static mf_status measure(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                         const mfi_plan_options *o, uint64_t *bytes, mf_error *err)
{
    (void)o, (void)err;
    *bytes = mfi_plan_room_least(plan, model, m, &plan->program, plan->ctx);
    return MF_OK;
}

mf_status mfi_plan_choose_chunk(mfi_plan *plan, const mfi_model *model, const mfi_machine *m,
                                const mfi_plan_options *o, uint32_t n_logit_rows, mf_error *err)
{
    /* plan->program has the smallest chunk. Scratch may take an eighth of what the least of the
     * rest leaves. */
    uint64_t base = mfi_plan_room_least(plan, model, m, &plan->program, plan->ctx);
    uint64_t room = plan->budget_bytes > base ? (plan->budget_bytes - base) / 8 : 0;
    const mfi_plan_bound bound = {CHUNK_ENOUGH, base + room, measure,
                                  "scratch kept to an eighth of what is free"};
    MFI_TRY(mfi_plan_longest_chunk(plan, model, m, o, &bound, n_logit_rows, err));
    if (o->chunk || plan->chunk < MFI_MIN(CHUNK_ENOUGH, plan->ctx))
        return MF_OK;
    return lengthen(plan, model, m, base + room, n_logit_rows, err);
}
