/* Log-probabilities of a prompt's own tokens, for completions that echo it. On the engine's thread,
 * a part at a time, so that others aren't held up. */
#include <math.h>

#include "say.h"

#define STEP_TOKENS 64

typedef struct rows {
    srv_choice *choice;
    size_t from; /* prompt tokens evaluated before */
} rows;

/* The row after token i of the prompt speaks of the next one. */
static bool on_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    rows *r = user;
    srv_choice *c = r->choice;
    mf_token_logprob chosen, top[MF_TOP_LOGPROBS];
    size_t next = r->from + index + 1;
    if (!c->job->logprobs || next >= c->n_ids)
        return true;
    size_t n = mf_logprobs(logits, (uint32_t)n_vocab, c->ids[next], &chosen, top, c->job->n_top);
    c->job->on_logprob(c, chosen, top, n);
    return !c->out_of_memory;
}

/* The prompt as text, before its answer. What is no character becomes U+FFFD. */
static void show_prompt(const srv_server *server, srv_choice *c)
{
    mfi_buf text = {0};
    for (size_t i = 0; i < c->n_ids; i++) {
        size_t len;
        const char *piece = mf_tokenizer_piece(server->tokenizer, c->ids[i], true, &len);
        mfi_buf_append(&text, piece, len);
    }
    srv_put_valid(text.data ? text.data : "", text.len, &c->text);
    c->out_of_memory |= text.failed || c->text.failed;
    mfi_buf_free(&text);
    if (c->job->logprobs)
        c->job->on_logprob(c, (mf_token_logprob){c->ids[0], NAN}, NULL, 0);
}

mf_status srv_echo_step(srv_server *server, srv_choice *c, mf_session *session, bool *done,
                        mf_error *err)
{
    rows r = {.choice = c, .from = c->n_echoed};
    const mf_eval_outputs outputs = {
        .struct_size = sizeof outputs, .on_logits = on_logits, .user = &r};
    size_t n = MFI_MIN(c->n_ids - c->n_echoed, (size_t)STEP_TOKENS);
    if (c->n_echoed == 0)
        show_prompt(server, c);
    MFI_TRY(mf_session_eval(session, c->ids + c->n_echoed, n, &outputs, err));
    c->n_echoed += n;
    *done = c->n_echoed == c->n_ids;
    return MF_OK;
}
