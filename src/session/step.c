/* Several answers advanced together, a pass over the model at a time: each that decodes has a row
 * in it, prompts share what is left of the chunk. So an expert that is read serves all of them, and
 * a long prompt never stops the others for longer than a pass. Runs on the engine's thread;
 * allocates nothing. */
#include "base/clock.h"
#include "session/generation.h"

/* While others decode, prompts take this part of a chunk: those others wait for the whole pass. */
#define PROMPT_PART 4

typedef struct pass {
    mfi_part parts[MFI_MAX_SESSIONS];
    mf_generation *of[MFI_MAX_SESSIONS]; /* whose part it is */
    uint32_t n;
} pass;

static size_t prompt_left(const mf_generation *g)
{
    return g->o.n_prompt - g->result.n_prompt_done;
}

/* Turns and chunks of prompts are what is come back to, single tokens of an answer aren't. */
static void add_part(pass *p, mf_generation *g, const int32_t *tokens, uint32_t n, bool logits)
{
    bool mark = !g->has_next || g->result.n_generated == 1;
    p->of[p->n] = g;
    p->parts[p->n++] = (mfi_part){g->session, tokens, n, logits, mark};
}

/* Rows for everybody: one for each that decodes, and fair shares for prompts, which leave to later
 * ones what they don't need. */
static void share_rows(pass *p, const mfi_plan *plan, mf_generation *const *list, size_t n)
{
    uint32_t n_prompts = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i]->has_next)
            add_part(p, list[i], &list[i]->next, 1, true);
        n_prompts += !list[i]->done && prompt_left(list[i]) > 0;
    }
    uint32_t room = plan->chunk - p->n;
    if (p->n > 0)
        room = MFI_MIN(room, MFI_MAX(plan->chunk / PROMPT_PART, n_prompts));
    for (size_t i = 0; i < n && n_prompts > 0; i++) {
        mf_generation *g = list[i];
        if (g->done || prompt_left(g) == 0)
            continue;
        uint32_t rows = (uint32_t)MFI_MIN(prompt_left(g), room / n_prompts);
        n_prompts--;
        MFI_ASSERT(rows > 0); /* the plan's chunk has a row for every session */
        add_part(p, g, g->o.prompt + g->result.n_prompt_done, rows, rows == prompt_left(g));
        room -= rows;
    }
}

/* A prompt that is evaluated alone tells how far it is; false: it shall end. */
static bool tell_prompt(const mf_generation *g)
{
    const mfi_session_host *host = g->host;
    return !host->progress || g->o.n_prompt <= g->host->plan->chunk ||
           host->progress(host->progress_user, "prompt", "tokens", g->result.n_prompt_done,
                          g->o.n_prompt) ||
           prompt_left(g) == 0;
}

static void after_pass(const pass *p, bool alone)
{
    for (uint32_t i = 0; i < p->n; i++) {
        mf_generation *g = p->of[i];
        if (g->has_next) {
            mfi_generation_take(g);
            continue;
        }
        g->result.n_prompt_done += p->parts[i].n;
        if (alone && !tell_prompt(g)) {
            mf_error err;
            mfi_generation_fail(g,
                                mfi_fail(&err, MF_ERR_CANCELLED,
                                         "cancelled after %zu of %zu prompt tokens",
                                         g->result.n_prompt_done, g->o.n_prompt),
                                &err);
        } else if (prompt_left(g) == 0) {
            mfi_generation_take(g);
        }
    }
}

/* Marks everything in the list, which must be distinct and of this engine. */
static mf_status check_list(mf_engine *engine, mf_generation *const *list, size_t n, mf_error *err)
{
    const mfi_session_host *host = mfi_engine_session_host(engine);
    bool wrong = n > host->n_sessions;
    for (size_t i = 0; i < n && !wrong; i++) {
        wrong = list[i]->host != host || list[i]->listed;
        list[i]->listed = !wrong || list[i]->listed;
    }
    for (size_t i = 0; i < n; i++)
        list[i]->listed = false;
    return wrong ? mfi_fail(err, MF_ERR_ARGUMENT,
                            "answers of another engine, or one of them more than once")
                 : MF_OK;
}

mf_status mf_engine_step(mf_engine *engine, mf_generation *const *list, size_t n, size_t *n_running,
                         mf_error *err)
{
    pass p;
    mf_error failure = {0};
    MFI_TRY(check_list(engine, list, n, err));
    p.n = 0;
    for (size_t i = 0; i < n; i++) {
        mf_generation *g = list[i];
        if (!g->begin_ns)
            g->begin_ns = mfi_clock_ns();
        if (!g->done && !g->has_next && prompt_left(g) == 0)
            mfi_generation_take(g); /* an empty prompt: the logits are at hand */
    }
    share_rows(&p, mfi_engine_session_host(engine)->plan, list, n);
    bool alone = p.n == 1 && n == 1;
    mfi_prompt_progress progress = {0};
    if (alone)
        progress = (mfi_prompt_progress){p.of[0]->result.n_prompt_done, p.of[0]->o.n_prompt};
    mf_status status = mfi_session_pass(p.parts, p.n, alone ? &progress : NULL, &failure);
    if (status == MF_OK)
        after_pass(&p, alone);
    for (uint32_t i = 0; i < p.n && status != MF_OK; i++)
        mfi_generation_fail(p.of[i], status, &failure);
    *n_running = 0;
    for (size_t i = 0; i < n; i++)
        *n_running += !list[i]->done;
    return MF_OK;
}

mf_status mf_session_generate(mf_session *session, const mf_generate_options *options,
                              mf_generate_result *result, mf_error *err)
{
    mf_generation *g = NULL;
    size_t n_running = 1;
    *result = (mf_generate_result){.struct_size = sizeof *result, .n_prompt = options->n_prompt};
    MFI_TRY(mf_generation_begin(&g, session, options, err));
    mf_status status = MF_OK;
    while (status == MF_OK && n_running > 0)
        status = mf_engine_step(session->host->engine, &g, 1, &n_running, err);
    if (status == MF_OK)
        status = mf_generation_result(g, result, err);
    mf_generation_end(&g);
    return status;
}
