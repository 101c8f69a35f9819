/* `moeflux eval`: asks the questions of a file, greedily, and counts the answers that equal the
 * expected ones byte for byte. The whole file is checked before the model is opened. One session,
 * reset between questions. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli.h"
#include "input.h"
#include "output.h"
#include "signals.h"

#define ANSWER_TOKENS_MAX 256
#define FILE_MAX_BYTES    ((size_t)256 << 20)

typedef struct question {
    mfi_json *root;   /* owns the strings */
    const char *text; /* NUL-terminated */
    const char *expected;
    size_t expected_len;
} question;

typedef struct job {
    const cli_args *args;
    mfi_buf file;
    mf_engine *engine;
    mf_session *session;
    mf_template *template;        /* of --chat-template; NULL: the model's */
    cli_progress loading, asking; /* the engine speaks of each prompt: that is too much here */
    mfi_buf answer;
    uint64_t n_questions, n_asked, n_correct;
} job;

static bool on_token(void *user, int32_t id, const char *bytes, size_t len)
{
    job *j = user;
    (void)id;
    mfi_buf_append(&j->answer, bytes, len);
    return !cli_signal_code() && !j->answer.failed;
}

/* Leaves the answer in j->answer. */
static mf_status answer(job *j, const question *q, mf_error *err)
{
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(j->engine);
    const mf_chat_message message = {.role = "user", .content = q->text};
    mf_generate_options options;
    mf_generate_result result = {.struct_size = sizeof result};
    const mf_chat_options chat = {
        .struct_size = sizeof chat, .chat_template = j->template, .now = j->args->now};
    mf_rendering rendered = {0};
    size_t n_ids;
    int32_t *ids = NULL;
    mf_status status = mf_chat_render(tokenizer, &message, 1, &chat, &rendered, err);
    if (!status)
        status = mf_rendering_encode(&rendered, 0, tokenizer, &ids, &n_ids, err);
    if (!status) {
        mf_session_reset(j->session);
        mf_generate_options_default(&options);
        options.prompt = ids;
        options.n_prompt = n_ids;
        options.max_tokens = CLI_GIVEN(j->args, predict) ? j->args->predict : ANSWER_TOKENS_MAX;
        mf_sampling_default(&options.sampling);
        options.sampling.temperature = 0;
        options.on_token = on_token;
        options.user = j;
        j->answer.len = 0;
        status = mf_session_generate(j->session, &options, &result, err);
    }
    if (!status && result.stop == MF_STOP_CANCELLED)
        status = j->answer.failed ? MF_ERR_NO_MEMORY : MF_ERR_CANCELLED;
    mf_rendering_free(&rendered);
    mf_free(ids);
    return status;
}

/* Reads one line; q->root is to be freed if this succeeds. */
static int parse_question(const job *j, uint64_t line, const char *text, size_t len, question *q)
{
    mf_error err = {0};
    const char *path = j->args->positional[0], *why = NULL;
    size_t text_len = 0;
    if (mfi_json_parse(text, len, "question", &q->root, &err))
        return cli_error(CLI_EXIT_RUNTIME, "%s, line %llu: %s", path, (unsigned long long)line,
                         err.message);
    q->text = mfi_json_str(mfi_json_get(q->root, "question"), &text_len);
    q->expected = mfi_json_str(mfi_json_get(q->root, "answer"), &q->expected_len);
    if (!q->text || !q->expected)
        why = "\"question\" and \"answer\" must be there and be strings";
    else if (strlen(q->text) != text_len)
        why = "the question has a NUL character";
    if (!why)
        return CLI_EXIT_OK;
    mfi_json_free(&q->root);
    return cli_error(CLI_EXIT_RUNTIME, "%s, line %llu: %s", path, (unsigned long long)line, why);
}

static int ask(job *j, const question *q)
{
    mf_error err = {0};
    int code = cli_report(answer(j, q, &err), &err, CLI_RUNNING);
    if (code)
        return code;
    j->n_asked++;
    j->n_correct += j->answer.len == q->expected_len &&
                    (!q->expected_len || memcmp(j->answer.data, q->expected, q->expected_len) == 0);
    cli_progress_update(&j->asking, "eval", "questions", j->n_asked, j->n_questions);
    return CLI_EXIT_OK;
}

/* Goes through the lines up to the limit; asks if there is an engine, else only checks and counts.
 */
static int each_question(job *j, uint64_t limit)
{
    const char *p = j->file.data, *end = p + j->file.len;
    for (uint64_t line = 1; p < end && line <= limit; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((newline ? newline : end) - p);
        question q = {0};
        int code = parse_question(j, line, p, len, &q);
        if (!code)
            code = j->engine ? ask(j, &q) : CLI_EXIT_OK;
        mfi_json_free(&q.root);
        if (code)
            return code;
        if (!j->engine)
            j->n_questions = line;
        p += newline ? len + 1 : len;
    }
    return CLI_EXIT_OK;
}

static int print_result(const job *j)
{
    mfi_buf text = {0};
    double accuracy = (double)j->n_correct / (double)j->n_asked;
    unsigned long long correct = j->n_correct, total = j->n_asked;
    if (j->args->json) {
        mfi_buf_fmt(&text, "{\"schema\":1,\"correct\":%llu,\"total\":%llu,\"accuracy\":", correct,
                    total);
        mfi_json_put_f64(&text, accuracy);
        mfi_buf_str(&text, "}\n");
    } else {
        mfi_buf_fmt(&text, "%llu of %llu correct (%.2f %%)\n", correct, total, 100 * accuracy);
    }
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int eval_model(job *j, uint64_t limit)
{
    mf_error err = {0};
    cli_progress_init(&j->loading, j->args->no_progress);
    cli_progress_init(&j->asking, j->args->no_progress);
    int code = cli_template_open(j->args, &j->template);
    if (!code)
        code = cli_engine_open(j->args, 0, &j->loading, &j->engine);
    if (code)
        return code;
    j->loading.quiet = true;
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(j->engine);
    if (!tokenizer || !(j->template || mf_tokenizer_has_chat_template(tokenizer)))
        return cli_error(CLI_EXIT_MODEL, "%s has no %s", j->args->model,
                         tokenizer ? "chat template" : "tokenizer");
    code = cli_report(mf_session_open(&j->session, j->engine, &err), &err, CLI_OPENING);
    if (!code)
        code = each_question(j, limit);
    cli_progress_clear(&j->asking);
    return code ? code : print_result(j);
}

int cli_eval(const cli_args *args)
{
    job j = {.args = args};
    uint64_t limit = args->limit ? (uint64_t)args->limit : UINT64_MAX;
    int code = cli_read_all(args->positional[0], FILE_MAX_BYTES, &j.file);
    if (!code)
        code = each_question(&j, limit);
    if (!code && !j.n_questions)
        code = cli_error(CLI_EXIT_RUNTIME, "%s: no questions", args->positional[0]);
    if (!code)
        code = eval_model(&j, limit);
    mf_session_close(&j.session);
    code = cli_engine_close(&j.engine, code);
    mf_template_close(&j.template);
    mfi_buf_free(&j.answer);
    mfi_buf_free(&j.file);
    return code;
}
