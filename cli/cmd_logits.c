/* `moeflux logits`: evaluates given tokens and writes every row of logits, and of hidden states if
 * wanted, as the engine produces it. Rows of logits come in order and are streamed; hidden rows
 * come a layer at a time and are written at their places. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli.h"
#include "input.h"
#include "output.h"
#include "signals.h"
#include "size.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "rows are written as they are in memory, and the files are little-endian");

#define IDS_MAX_BYTES ((size_t)256 << 20)

typedef struct job {
    const cli_args *args;
    int32_t *ids; /* [n_ids] */
    size_t n_ids;
    cli_outfile logits_file, hidden_file;
    cli_output logits;
    int hidden_error; /* errno */
} job;

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int parse_ids(job *j, const char *text, size_t len)
{
    const char *p = text, *end = text + len;
    size_t cap = 0;
    for (;;) {
        while (p < end && is_space(*p))
            p++;
        if (p == end)
            break;
        char word[16];
        size_t n = 0;
        for (; p + n < end && !is_space(p[n]) && n + 1 < sizeof word; n++)
            word[n] = p[n];
        word[n] = 0;
        uint64_t id;
        if ((p + n < end && !is_space(p[n])) || strlen(word) != n || !cli_parse_u64(word, &id) ||
            id >= MFI_MAX_VOCAB)
            return cli_error(CLI_EXIT_RUNTIME, "%s: word %zu is no token id: '%.15s'", j->args->ids,
                             j->n_ids + 1, word);
        if (j->n_ids == cap) {
            cap = cap ? 2 * cap : 256;
            int32_t *grown = realloc(j->ids, cap * sizeof *grown);
            if (!grown)
                return cli_error(CLI_EXIT_ROOM, "out of memory");
            j->ids = grown;
        }
        j->ids[j->n_ids++] = (int32_t)id;
        p += n;
    }
    if (!j->n_ids)
        return cli_error(CLI_EXIT_RUNTIME, "%s: no token ids", j->args->ids);
    if (j->n_ids > MFI_MAX_CTX)
        return cli_error(CLI_EXIT_RUNTIME, "%s: more than %u token ids", j->args->ids, MFI_MAX_CTX);
    return CLI_EXIT_OK;
}

static int read_ids(job *j)
{
    mfi_buf text = {0};
    int code = cli_read_all(j->args->ids, IDS_MAX_BYTES, &text);
    if (!code)
        code = parse_ids(j, text.data, text.len);
    mfi_buf_free(&text);
    return code;
}

static int check_ids(const job *j, const mf_model_info *info)
{
    for (size_t i = 0; i < j->n_ids; i++)
        if ((uint32_t)j->ids[i] >= info->n_vocab)
            return cli_error(CLI_EXIT_RUNTIME,
                             "%s: id %d, number %zu, is outside the vocabulary of %u", j->args->ids,
                             j->ids[i], i + 1, info->n_vocab);
    return CLI_EXIT_OK;
}

static bool on_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    job *j = user;
    (void)index; /* rows come in order */
    return !cli_signal_code() && cli_output_write(&j->logits, logits, n_vocab * sizeof *logits);
}

static bool on_hidden(void *user, size_t layer, size_t index, const float *row, size_t hidden)
{
    job *j = user;
    const char *p = (const char *)row;
    size_t left = hidden * sizeof *row;
    uint64_t offset = ((uint64_t)layer * j->n_ids + index) * left;
    while (left) {
        ssize_t n = pwrite(j->hidden_file.fd, p, left, (off_t)offset);
        if (n < 0 && errno == EINTR && !cli_signal_code())
            continue;
        if (n < 0) {
            j->hidden_error = errno;
            return false;
        }
        p += n;
        left -= (size_t)n;
        offset += (uint64_t)n;
    }
    return !cli_signal_code();
}

static int evaluate(job *j, mf_engine *engine, cli_progress *progress)
{
    mf_session *session = NULL;
    mf_error err = {0};
    mf_eval_outputs outputs = {.struct_size = sizeof outputs,
                               .on_logits = on_logits,
                               .on_hidden = j->args->hidden ? on_hidden : NULL,
                               .user = j};
    mf_status status = mf_session_open(&session, engine, &err);
    if (!status)
        status = mf_session_eval(session, j->ids, j->n_ids, &outputs, &err);
    mf_session_close(&session);
    cli_progress_clear(progress);
    int write_code = cli_output_close(&j->logits);
    if (write_code)
        return write_code;
    if (j->hidden_error)
        return cli_write_failed(j->args->hidden, j->hidden_error);
    return cli_report(status, &err, CLI_RUNNING);
}

static int open_files(job *j)
{
    int code = cli_outfile_open(&j->logits_file, j->args->output);
    if (!code && j->args->hidden)
        code = cli_outfile_open(&j->hidden_file, j->args->hidden);
    return code;
}

static int commit_files(job *j)
{
    int code = cli_outfile_commit(&j->logits_file);
    if (!code && j->args->hidden) {
        code = cli_outfile_commit(&j->hidden_file);
        if (code)
            cli_outfile_discard(&j->logits_file);
    }
    return code;
}

static int print_shapes(const job *j, const mf_model_info *info)
{
    mfi_buf text = {0};
    mfi_buf_fmt(&text, "{\"schema\":1,\"logits\":[%zu,%u],", j->n_ids, info->n_vocab);
    if (j->args->hidden)
        mfi_buf_fmt(&text, "\"hidden\":[%u,%zu,%u],", info->n_layers + 1, j->n_ids, info->hidden);
    mfi_buf_fmt(&text, "\"dtype\":\"float32\",\"activations\":\"%s\",\"isa\":\"%s\"}\n",
                info->activations, info->isa);
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int write_logits(job *j, mf_engine *engine, cli_progress *progress)
{
    mf_model_info info = {.struct_size = sizeof info};
    mf_engine_info(engine, &info);
    int code = check_ids(j, &info);
    if (!code)
        code = open_files(j);
    if (!code) {
        cli_output_open(&j->logits, j->logits_file.fd, j->args->output);
        code = evaluate(j, engine, progress);
    }
    if (!code)
        code = commit_files(j);
    cli_outfile_close(&j->logits_file);
    cli_outfile_close(&j->hidden_file);
    return code || !j->args->json ? code : print_shapes(j, &info);
}

int cli_logits(const cli_args *args)
{
    job j = {.args = args};
    mf_engine *engine = NULL;
    cli_progress progress;
    if (args->hidden && strcmp(args->hidden, args->output) == 0)
        return cli_usage_error("--output and --hidden name the same file");
    if (args->hidden && strcmp(args->hidden, "-") == 0)
        return cli_usage_error("--hidden -: hidden states are not written in order; name a file");
    if (args->json && strcmp(args->output, "-") == 0)
        return cli_usage_error("-o - and --json both write to standard output");
    cli_progress_init(&progress, args->no_progress);
    int code = read_ids(&j);
    if (!code)
        code = cli_engine_open(args, (uint32_t)j.n_ids, &progress, &engine);
    if (!code)
        code = write_logits(&j, engine, &progress);
    code = cli_engine_close(&engine, code);
    free(j.ids);
    return code;
}
