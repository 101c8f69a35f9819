/* Members of requests; see fields.h. On the desk's thread. */
#include "fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

bool srv_refuse(srv_fields *f, const char *param, const char *fmt, ...)
{
    char message[MF_ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (!f->refused)
        srv_reply_error(f->x, 400, NULL, param, "%s", message);
    f->refused = true;
    return false;
}

/* NULL if it is absent, null, or the request was refused. */
static const mfi_json *get(const srv_fields *f, const char *name)
{
    const mfi_json *v = f->refused ? NULL : mfi_json_get(f->body, name);
    return mfi_json_typeof(v) == MFI_JSON_NULL ? NULL : v;
}

bool srv_field_f64(srv_fields *f, const char *name, double lo, double hi, double *out)
{
    const mfi_json *v = get(f, name);
    double d;
    if (!v)
        return false;
    if (!mfi_json_f64(v, &d) || !(d >= lo && d <= hi))
        return srv_refuse(f, name, "%s: not a number from %g to %g", name, lo, hi);
    *out = d;
    return true;
}

bool srv_field_i64(srv_fields *f, const char *name, int64_t lo, int64_t hi, int64_t *out)
{
    const mfi_json *v = get(f, name);
    int64_t i;
    double d;
    if (!v)
        return false;
    bool whole = mfi_json_i64(v, &i);
    if (!whole && mfi_json_f64(v, &d) && d == floor(d) && fabs(d) < 9e15) { /* 64.0 */
        i = (int64_t)d;
        whole = true;
    }
    if (!whole || i < lo || i > hi)
        return srv_refuse(f, name, "%s: not a whole number from %lld to %lld", name, (long long)lo,
                          (long long)hi);
    *out = i;
    return true;
}

bool srv_field_bool(srv_fields *f, const char *name, bool *out)
{
    const mfi_json *v = get(f, name);
    if (!v)
        return false;
    if (!mfi_json_bool(v, out))
        return srv_refuse(f, name, "%s: neither true nor false", name);
    return true;
}

bool srv_member_bool(srv_fields *f, const mfi_json *object, const char *name, const char *param,
                     bool *out)
{
    const mfi_json *v = mfi_json_get(object, name);
    if (mfi_json_typeof(v) != MFI_JSON_NULL && !mfi_json_bool(v, out))
        return srv_refuse(f, param, "%s: its %s is neither true nor false", param, name);
    return true;
}

const char *srv_field_str(srv_fields *f, const char *name, size_t *len)
{
    const mfi_json *v = get(f, name);
    const char *text = mfi_json_str(v, len);
    if (v && !text)
        srv_refuse(f, name, "%s: not a string", name);
    return text;
}

const mfi_json *srv_field(srv_fields *f, const char *name, mfi_json_type type)
{
    static const char *const names[] = {"null",     "a boolean", "a whole number", "a number",
                                        "a string", "an array",  "an object"};
    const mfi_json *v = get(f, name);
    if (v && mfi_json_typeof(v) != type) {
        srv_refuse(f, name, "%s: not %s", name, names[type]);
        return NULL;
    }
    return v;
}

/* ---- sampling ---- */

static bool take_bias(srv_fields *f, srv_server *server, srv_job *job)
{
    const mfi_json *object = srv_field(f, "logit_bias", MFI_JSON_OBJECT);
    size_t n = mfi_json_len(object);
    if (!n)
        return !f->refused;
    job->bias = calloc(n, sizeof *job->bias);
    if (!job->bias)
        return srv_refuse(f, "logit_bias", "out of memory");
    for (size_t i = 0; i < n; i++) {
        const char *key = NULL;
        char *end = NULL;
        double bias;
        const mfi_json *v = mfi_json_member(object, i, &key);
        long long id = strtoll(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || id >= (long long)server->info.n_vocab)
            return srv_refuse(f, "logit_bias", "logit_bias: '%.40s' is no token of this model",
                              key);
        if (!mfi_json_f64(v, &bias) || !(bias >= -100 && bias <= 100))
            return srv_refuse(f, "logit_bias", "logit_bias: not a number from -100 to 100");
        job->bias[i] = (mf_logit_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    }
    job->sampling.bias = job->bias;
    job->sampling.n_bias = n;
    return true;
}

static void take_f32(srv_fields *f, const char *name, double lo, double hi, float *out)
{
    double v = 0;
    if (srv_field_f64(f, name, lo, hi, &v))
        *out = (float)v;
}

static void take_i32(srv_fields *f, const char *name, int64_t lo, int64_t hi, int32_t *out)
{
    int64_t v = 0;
    if (srv_field_i64(f, name, lo, hi, &v))
        *out = (int32_t)v;
}

bool srv_take_sampling(srv_fields *f, srv_server *server, srv_job *job)
{
    mf_sampling *s = &job->sampling;
    int64_t seed = -1;
    uint32_t random = 0;
    *s = server->sampling;
    take_f32(f, "temperature", 0, 100, &s->temperature);
    take_f32(f, "top_p", 0, 1, &s->top_p);
    take_f32(f, "min_p", 0, 1, &s->min_p);
    take_i32(f, "top_k", -1, INT32_MAX, &s->top_k);
    s->top_k = s->top_k < 0 ? 0 : s->top_k; /* vLLM's "all" */
    take_f32(f, "presence_penalty", -1e6, 1e6, &s->presence_penalty);
    take_f32(f, "frequency_penalty", -1e6, 1e6, &s->frequency_penalty);
    take_f32(f, "repeat_penalty", 1e-6, 1e6, &s->repeat_penalty);
    take_f32(f, "repetition_penalty", 1e-6, 1e6, &s->repeat_penalty);
    take_i32(f, "repeat_last_n", -1, MFI_MAX_REPEAT_LAST_N, &s->repeat_last_n);
    if (getentropy(&random, sizeof random) != 0)
        random = (uint32_t)job->created_s;
    s->seed = random;
    if (srv_field_i64(f, "seed", INT64_MIN, INT64_MAX, &seed) && seed != -1)
        s->seed = (uint64_t)seed;
    return take_bias(f, server, job) && !f->refused;
}

static bool add_stop(srv_fields *f, srv_job *job, const mfi_json *v, const char *name)
{
    size_t len;
    const char *text = mfi_json_str(v, &len);
    if (!text || strlen(text) != len || len > MFI_MAX_STOP_BYTES)
        return srv_refuse(f, name, "%s: not a text of at most %d bytes without NUL", name,
                          MFI_MAX_STOP_BYTES);
    if (!len)
        return true; /* some clients send "" for none */
    job->stop[job->n_stop] = strdup(text);
    if (!job->stop[job->n_stop])
        return srv_refuse(f, name, "out of memory");
    job->n_stop++;
    return true;
}

bool srv_take_stop(srv_fields *f, srv_job *job, const char *name)
{
    const mfi_json *v = get(f, name);
    bool list = mfi_json_typeof(v) == MFI_JSON_ARRAY;
    size_t n = list ? mfi_json_len(v) : v ? 1 : 0;
    if (!n)
        return !f->refused;
    if (n > MFI_MAX_STOPS)
        return srv_refuse(f, name, "%s: more than %d texts", name, MFI_MAX_STOPS);
    job->stop = calloc(n, sizeof *job->stop);
    if (!job->stop)
        return srv_refuse(f, name, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (!add_stop(f, job, list ? mfi_json_at(v, i) : v, name))
            return false;
    return true;
}

/* ---- what answers may be ---- */

bool srv_take_schema(srv_fields *f, srv_job *job, const mfi_json *schema, const char *param)
{
    mfi_buf text = {0};
    mf_error err = {0};
    mfi_json_put(&text, schema);
    mf_status status = text.failed
                           ? MF_ERR_NO_MEMORY
                           : mf_grammar_open_json_schema(&job->grammar, text.data, text.len, &err);
    mfi_buf_free(&text);
    if (status != MF_OK)
        return srv_refuse(f, param, "%s", err.message[0] ? err.message : mf_status_text(status));
    job->schema = true;
    return true;
}

bool srv_take_format(srv_fields *f, srv_job *job, const mfi_json *format, const mfi_json *in,
                     const char *param)
{
    static const char object[] = "{\"type\":\"object\"}";
    const char *kind = mfi_json_str(mfi_json_get(format, "type"), NULL);
    const mfi_json *schema = mfi_json_get(in, "schema");
    mfi_json *any = NULL;
    bool strict = true; /* as if it were, always */
    if (f->refused || mfi_json_typeof(format) == MFI_JSON_NULL)
        return !f->refused;
    if (!kind ||
        (strcmp(kind, "text") && strcmp(kind, "json_object") && strcmp(kind, "json_schema")))
        return srv_refuse(f, param, "%s: its type is none of text, json_object and json_schema",
                          param);
    if (!srv_member_bool(f, in, "strict", param, &strict))
        return false;
    if (strcmp(kind, "text") == 0)
        return true;
    if (!schema && strcmp(kind, "json_schema") == 0)
        return srv_refuse(f, param, "%s: json_schema has no schema", param);
    if (!schema && mfi_json_parse(object, sizeof object - 1, "schema", &any, NULL) == MF_OK)
        schema = any;
    bool ok = srv_take_schema(f, job, schema, param);
    mfi_json_free(&any);
    return ok;
}

bool srv_take_grammar(srv_fields *f, srv_job *job)
{
    size_t len;
    mf_error err = {0};
    const char *text = srv_field_str(f, "grammar", &len);
    if (!text || !len)
        return !f->refused;
    if (job->grammar)
        return srv_refuse(f, "grammar", "a grammar and a response_format can't be combined");
    if (mf_grammar_open(&job->grammar, text, len, &err) != MF_OK)
        return srv_refuse(f, "grammar", "%s", err.message);
    return true;
}

/* ---- prompts ---- */

bool srv_too_long(const srv_server *server, size_t text_bytes)
{
    return text_bytes / 3 / server->longest_token > server->info.ctx; /* as `run` has it */
}

/* Clients look for the words of either protocol's own server, to shorten the conversation. */
bool srv_refuse_context(srv_fields *f, const srv_server *server, size_t n_tokens)
{
    f->x->error_code = "context_length_exceeded";
    if (!f->refused && f->x->dialect == SRV_ANTHROPIC)
        srv_reply_error(f->x, 400, NULL, NULL,
                        "prompt is too long: %zu tokens > %u maximum (a larger context: serve -c)",
                        n_tokens, server->info.ctx - 1);
    else if (!f->refused)
        srv_reply_error(f->x, 400, "exceed_context_size_error", NULL,
                        "This model's maximum context length is %u tokens: the prompt has %zu and "
                        "leaves no room for an answer (a larger context: serve -c)",
                        server->info.ctx, n_tokens);
    f->refused = true;
    return false;
}

bool srv_add_prompt_tokens(srv_fields *f, srv_server *server, srv_job *job, const int32_t *ids,
                           size_t n, const char *param)
{
    if (n == 0)
        return srv_refuse(f, param, "the prompt is empty: there is nothing to continue");
    if (!job->count_only && n >= server->info.ctx + (job->max_tokens == 0))
        return srv_refuse_context(f, server, n);
    size_t *grown = realloc(job->prompt_at, (job->n_prompts + 2) * sizeof *grown);
    if (!grown)
        return srv_refuse(f, param, "out of memory");
    job->prompt_at = grown;
    job->prompt_at[0] = 0;
    mfi_buf_append(&job->prompts, ids, n * sizeof *ids);
    job->prompt_at[job->n_prompts + 1] = job->prompts.len / sizeof *ids;
    job->n_prompts++;
    return job->prompts.failed ? srv_refuse(f, param, "out of memory") : true;
}

bool srv_add_prompt_text(srv_fields *f, srv_server *server, srv_job *job, const char *text,
                         size_t len, bool special, const char *param)
{
    int32_t *ids = NULL;
    size_t n = 0;
    mf_error err = {0};
    if (srv_too_long(server, len))
        return srv_refuse_context(f, server, len / server->longest_token);
    if (mf_tokenizer_encode(server->tokenizer, text, len, special, &ids, &n, &err) != MF_OK)
        return srv_refuse(f, param, "%s", err.message);
    bool ok = srv_add_prompt_tokens(f, server, job, ids, n, param);
    mf_free(ids);
    return ok;
}

bool srv_add_prompt_ids(srv_fields *f, srv_server *server, srv_job *job, const mfi_json *list,
                        const char *param)
{
    size_t n = mfi_json_len(list);
    if (n > server->info.ctx)
        return srv_refuse_context(f, server, n);
    int32_t *ids = calloc(n ? n : 1, sizeof *ids);
    bool ok = ids != NULL || srv_refuse(f, param, "out of memory");
    for (size_t i = 0; ok && i < n; i++) {
        int64_t id = -1;
        if (!mfi_json_i64(mfi_json_at(list, i), &id) || id < 0 || id >= server->info.n_vocab)
            ok = srv_refuse(f, param, "%s: element %zu is no token of this model", param, i);
        else
            ids[i] = (int32_t)id;
    }
    ok = ok && srv_add_prompt_tokens(f, server, job, ids, n, param);
    free(ids);
    return ok;
}

bool srv_prepare(srv_server *server, srv_job *job)
{
    if (atomic_load(&server->stopping)) {
        srv_reply_error(job->x, 503, NULL, NULL, "the server is stopping");
    } else if (!srv_request_charge(&job->x->request, job->prompts.len + job->held_bytes)) {
        srv_reply_error(job->x, 503, NULL, NULL,
                        "the prompts that wait take all there is for them");
    } else if (!srv_job_make_choices(job)) {
        srv_reply_error(job->x, 500, NULL, NULL, "out of memory");
    } else {
        return true;
    }
    srv_job_free(job);
    return false;
}

void srv_submit(srv_server *server, srv_job *job)
{
    if (!srv_prepare(server, job))
        return;
    if (job->stream)
        srv_stream_begin(job->x);
    job->x->submitted = true;
    job->x->kept = job->prompts.len + job->held_bytes;
    srv_worker_add(server, job);
}
