/* A turn of a chat; see chat.h. Main thread only.
 *
 * The whole conversation is rendered every turn, since only the template knows how its parts go
 * together. The session's tokens stay exactly as they were evaluated and sampled: where the
 * rendered text begins with what they stand for, only the rest is tokenised and evaluated.
 * Otherwise (the system message changed, the template leaves out earlier reasoning) all of it is
 * tokenised anew, the session keeps what it can, and what has to be evaluated once more is told. */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "signals.h"
#include "summary.h"

typedef struct turn {
    cli_chat *chat;
    int32_t *ids; /* [n_ids] the conversation up to where the answer begins */
    size_t n_ids, n_kept;
    mf_generate_result result;
    uint64_t n_evaluated; /* by the engine's own count */
    uint64_t seed;
} turn;

void cli_chat_reset(cli_chat *chat)
{
    mf_session_reset(chat->session);
    chat->timeline.len = 0;
}

static uint64_t evaluated(const cli_chat *chat)
{
    mf_stats stats = {.struct_size = sizeof stats};
    mf_engine_stats(chat->engine, &stats);
    return stats.tokens_evaluated;
}

/* ---- what the template is told besides ---- */

static void put_vars(mfi_buf *out, const mfi_buf *tools, const char *thinking)
{
    mfi_buf_str(out, "{");
    if (tools->len) {
        mfi_buf_str(out, "\"tools\":");
        mfi_buf_append(out, tools->data, tools->len);
    }
    if (thinking)
        mfi_buf_fmt(out, "%s\"enable_thinking\":%s", tools->len ? "," : "", thinking);
    mfi_buf_str(out, "}");
}

static mf_status render(const cli_chat *chat, const mf_chat_message *messages, size_t n,
                        const mfi_buf *tools, const char *thinking, mf_rendering *rendered,
                        mf_error *err)
{
    mfi_buf vars = {0};
    put_vars(&vars, tools, thinking);
    const mf_chat_options options = {.struct_size = sizeof options,
                                     .chat_template = chat->template,
                                     .vars_json = vars.data,
                                     .now = chat->args->now};
    mf_status status = vars.failed ? MF_ERR_NO_MEMORY
                                   : mf_chat_render(mf_engine_tokenizer(chat->engine), messages, n,
                                                    &options, rendered, err);
    mfi_buf_free(&vars);
    return status;
}

/* Whether the template makes different texts of the two. */
static int compare(const cli_chat *chat, const mfi_buf *tools_a, const char *thinking_a,
                   const mfi_buf *tools_b, const char *thinking_b, bool *differ)
{
    const mf_chat_message message = {.role = "user", .content = "?"};
    mf_rendering a = {0}, b = {0};
    mf_error err = {0};
    mf_status status = render(chat, &message, 1, tools_a, thinking_a, &a, &err);
    if (status == MF_OK)
        status = render(chat, &message, 1, tools_b, thinking_b, &b, &err);
    *differ = status == MF_OK && (a.len != b.len || memcmp(a.text, b.text, a.len) != 0);
    mf_rendering_free(&a);
    mf_rendering_free(&b);
    return cli_report(status, &err, CLI_RUNNING);
}

int cli_chat_set_tools(cli_chat *chat, const char *json, size_t len, bool *read)
{
    const mfi_buf none = {0};
    mfi_buf tools = {0};
    int code = CLI_EXIT_OK;
    *read = true;
    mfi_buf_append(&tools, json, len);
    if (tools.failed)
        code = cli_error(CLI_EXIT_ROOM, "out of memory");
    else if (len)
        code = compare(chat, &tools, chat->thinking, &none, chat->thinking, read);
    if (code || !*read) {
        mfi_buf_free(&tools);
        return code;
    }
    mfi_buf_free(&chat->tools);
    chat->tools = tools;
    return CLI_EXIT_OK;
}

int cli_chat_set_thinking(cli_chat *chat, bool on, bool *read)
{
    int code = compare(chat, &chat->tools, "true", &chat->tools, "false", read);
    if (!code && *read)
        chat->thinking = on ? "true" : "false";
    return code;
}

/* ---- from the conversation to tokens ---- */

static bool continues(const mfi_buf *timeline, const char *text, size_t len)
{
    return timeline->len && timeline->len < len &&
           memcmp(timeline->data, text, timeline->len) == 0 &&
           ((unsigned char)text[timeline->len] & 0xc0) != 0x80; /* not within a character */
}

/* Puts the timeline's tokens in front of t->ids. */
static bool put_timeline_first(turn *t)
{
    size_t n_past = mf_session_length(t->chat->session);
    int32_t *all = malloc((n_past + t->n_ids + 1) * sizeof *all);
    if (!all)
        return false;
    memcpy(all, mf_session_tokens(t->chat->session), n_past * sizeof *all);
    if (t->n_ids)
        memcpy(all + n_past, t->ids, t->n_ids * sizeof *all);
    mf_free(t->ids);
    t->ids = all; /* from malloc, as the library's */
    t->n_ids += n_past;
    return true;
}

static mf_status encode(turn *t, const mf_rendering *rendered, mf_error *err)
{
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(t->chat->engine);
    const mfi_buf *timeline = &t->chat->timeline;
    size_t from = continues(timeline, rendered->text, rendered->len) ? timeline->len : 0;
    mf_status status = mf_rendering_encode(rendered, from, tokenizer, &t->ids, &t->n_ids, err);
    if (status == MF_OK && from && !put_timeline_first(t))
        status = MF_ERR_NO_MEMORY;
    return status;
}

/* Makes the session ready for t->ids and says what has to be evaluated once more. */
static mf_status sync_session(turn *t, mf_error *err)
{
    cli_chat *chat = t->chat;
    const cli_conversation *c = &chat->conversation;
    size_t n_before = mf_session_length(chat->session);
    mf_status status = mf_session_restore(chat->session, t->ids, t->n_ids, &t->n_kept, err);
    if (status != MF_OK)
        return status;
    bool past = c->n > 2 || (c->n == 2 && strcmp(c->messages[0].role, "system") != 0);
    if (past && (t->n_kept < n_before || !n_before))
        fprintf(stderr, "rebuilding %zu tokens\n", t->n_ids - t->n_kept);
    return MF_OK;
}

static mf_status prepare(turn *t, mf_error *err)
{
    cli_chat *chat = t->chat;
    const cli_conversation *c = &chat->conversation;
    mf_rendering rendered = {0};
    mf_status status =
        render(chat, c->messages, c->n, &chat->tools, chat->thinking, &rendered, err);
    if (status == MF_OK)
        status = encode(t, &rendered, err);
    if (status == MF_OK)
        status = sync_session(t, err);
    if (status == MF_OK) {
        chat->timeline.len = 0;
        mfi_buf_append(&chat->timeline, rendered.text, rendered.len);
    }
    mf_rendering_free(&rendered);
    return status;
}

/* ---- the answer ---- */

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    turn *t = user;
    cli_chat *chat = t->chat;
    (void)id;
    cli_progress_clear(&chat->progress);
    if (cli_signal_code())
        return false;
    return cli_answer_token(&chat->answer, bytes, len);
}

static mf_status generate(turn *t, mf_error *err)
{
    cli_chat *chat = t->chat;
    mf_generate_options options;
    uint64_t before = evaluated(chat);
    mf_generate_options_default(&options);
    options.prompt = t->ids + t->n_kept;
    options.n_prompt = t->n_ids - t->n_kept;
    options.max_tokens = chat->args->predict;
    options.ignore_eos = chat->args->ignore_eos;
    options.grammar = chat->grammar;
    options.stop = chat->args->stop.at;
    options.n_stop = chat->args->stop.n;
    options.sampling = chat->sampling;
    options.sampling.seed = t->seed = chat->sampling.seed + chat->n_answers++;
    options.on_token = on_token;
    options.output = chat->answer.output;
    options.user = t;
    t->result.struct_size = sizeof t->result;
    mf_status status = mf_session_generate(chat->session, &options, &t->result, err);
    cli_progress_clear(&chat->progress);
    t->n_evaluated = evaluated(chat) - before;
    return status;
}

/* The text of what was generated and evaluated, also where it isn't shown. */
static void extend_timeline(turn *t)
{
    cli_chat *chat = t->chat;
    const int32_t *tokens = mf_session_tokens(chat->session);
    for (size_t i = t->n_ids; i < mf_session_length(chat->session); i++) {
        size_t len;
        const char *piece =
            mf_tokenizer_piece(mf_engine_tokenizer(chat->engine), tokens[i], true, &len);
        mfi_buf_append(&chat->timeline, piece, len);
    }
}

/* ---- what it was ---- */

static double per_second(double n, uint64_t ns)
{
    return ns ? n * 1e9 / (double)ns : 0;
}

static double decode_rate(const turn *t)
{
    return t->result.n_generated > 1
               ? per_second((double)(t->result.n_generated - 1), t->result.decode_ns)
               : 0;
}

static void put_json(const turn *t, mfi_buf *out)
{
    const cli_chat *chat = t->chat;
    const mf_generate_result *r = &t->result;
    mfi_buf_str(out, "{\"schema\":1,");
    cli_answer_put_json(&chat->answer, out);
    mfi_buf_fmt(
        out,
        ",\"stop\":\"%s\",\"context_tokens\":%zu,\"reused_tokens\":%zu,\"prompt_tokens\":%zu,"
        "\"generated_tokens\":%zu,\"evaluated_tokens\":%llu,\"seed\":%llu,",
        cli_stop_name(r->stop), mf_session_length(chat->session), t->n_kept, r->n_prompt,
        r->n_generated, (unsigned long long)t->n_evaluated, (unsigned long long)t->seed);
    mfi_buf_fmt(out, "\"timings\":{\"prompt_ns\":%llu,\"decode_ns\":%llu}}\n",
                (unsigned long long)r->prompt_ns, (unsigned long long)r->decode_ns);
}

static void tell_cost(const turn *t)
{
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_info(t->chat->engine, &info);
    if (t->result.stop == MF_STOP_CANCELLED)
        fputs("(stopped)\n", stderr);
    else if (t->result.stop == MF_STOP_LENGTH)
        fprintf(stderr, "(cut after %zu tokens: --predict)\n", t->result.n_generated);
    else if (t->result.stop == MF_STOP_CONTEXT)
        fprintf(stderr,
                "(cut: the context of %u tokens is full; /clear begins anew, -c makes it larger)\n",
                info.ctx);
    fprintf(stderr,
            "[ Context: %zu of %u | Prompt: %zu new, %.1f t/s | Generation: %zu, %.1f t/s ]\n",
            mf_session_length(t->chat->session), info.ctx, t->result.n_prompt,
            per_second((double)t->result.n_prompt, t->result.prompt_ns), t->result.n_generated,
            decode_rate(t));
}

/* Ends the answer on standard output; what that costs is for standard error. */
static int finish(turn *t)
{
    cli_chat *chat = t->chat;
    if (chat->args->jsonl) {
        mfi_buf line = {0};
        put_json(t, &line);
        bool failed = line.failed;
        if (!failed)
            cli_output_write(&chat->out, line.data, line.len);
        mfi_buf_free(&line);
        if (failed)
            return cli_error(CLI_EXIT_ROOM, "out of memory");
    } else if (!chat->answer.last || chat->answer.last != '\n') {
        cli_output_write(&chat->out, "\n", 1);
    }
    cli_output_flush(&chat->out);
    if (!chat->args->jsonl)
        tell_cost(t);
    return CLI_EXIT_OK;
}

/* Reports why a turn came to nothing. */
static int turn_failed(turn *t, mf_status status, const mf_error *err)
{
    cli_chat *chat = t->chat;
    cli_progress_clear(&chat->progress);
    if (chat->answer.last && chat->answer.last != '\n') {
        cli_output_write(&chat->out, "\n", 1);
        cli_output_flush(&chat->out);
    }
    if (status == MF_ERR_CONTEXT)
        return cli_error(CLI_EXIT_RUNTIME, "%s; /clear begins anew, -c N makes it larger",
                         err->message);
    if (status == MF_ERR_CANCELLED && chat->interactive && cli_signal_code() == CLI_EXIT_SIGINT) {
        fputs("(stopped before the answer; the message is not kept)\n", stderr);
        return CLI_EXIT_RUNTIME;
    }
    return cli_report(status, err, CLI_RUNNING);
}

int cli_chat_turn(cli_chat *chat, const char *text, size_t len)
{
    turn t = {.chat = chat};
    mf_error err = {0};
    if (strnlen(text, len) != len)
        return cli_error(CLI_EXIT_RUNTIME, "the message has a NUL byte at offset %zu",
                         strnlen(text, len));
    if (!cli_conversation_add(&chat->conversation, "user", text, len))
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    chat->answer.last = 0;
    chat->answer.tools = chat->tools.len > 0;
    chat->answer.no_nul = true; /* a message is a C string */
    chat->answer.show = chat->args->jsonl ? NULL : &chat->out;
    chat->answer.progress = &chat->progress;
    mf_status status = prepare(&t, &err);
    bool ran = status == MF_OK;
    if (ran)
        status = cli_answer_begin(&chat->answer, chat->args, mf_engine_tokenizer(chat->engine),
                                  chat->template, t.ids, t.n_ids)
                     ? MF_ERR_NO_MEMORY
                     : MF_OK;
    if (status == MF_OK)
        status = generate(&t, &err);
    int code = CLI_EXIT_OK;
    if (ran && !cli_answer_end(&chat->answer) && status == MF_OK)
        status = MF_ERR_NO_MEMORY;
    if (status == MF_OK && !cli_conversation_add_answer(&chat->conversation, &chat->answer))
        status = MF_ERR_NO_MEMORY;
    if (status == MF_OK) {
        extend_timeline(&t);
        code = finish(&t);
    } else {
        code = turn_failed(&t, status, &err);
        cli_conversation_pop(&chat->conversation);
        if (ran)
            cli_chat_reset(chat);
    }
    mf_free(t.ids);
    return code;
}
