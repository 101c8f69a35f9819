/* Pictures for `moeflux top` from what a server says of itself, or from lines that --stats writes.
 * What is foreign is bounded, and what is missing is not known. */
#include "top.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli.h"

#define LINE_BYTES_MAX ((size_t)1 << 16)

void top_picture_free(top_picture *p)
{
    mfi_buf_free(&p->tiers);
    mfi_buf_free(&p->use);
    mfi_buf_free(&p->layers);
}

static double number(const mfi_json *object, const char *name)
{
    double value;
    return mfi_json_f64(mfi_json_get(object, name), &value) ? value : -1;
}

void top_text(const mfi_json *object, const char *name, char *to, size_t size)
{
    const char *from = mfi_json_str(mfi_json_get(object, name), NULL);
    size_t n = 0;
    for (; from && *from && n + 1 < size; from++)
        to[n++] = *from >= ' ' && *from < 0x7f ? *from : '?';
    to[n] = 0;
}

/* ---- a server ---- */

static void take_seats(top_picture *p, const mfi_json *list)
{
    p->n_seats = 0;
    for (size_t i = 0; i < mfi_json_len(list) && i < TOP_SEATS_MAX; i++) {
        const mfi_json *v = mfi_json_at(list, i);
        top_seat *s = &p->seats[p->n_seats++];
        top_text(v, "state", s->state, sizeof s->state);
        s->used = number(v, "used_tokens");
        s->n_prompt = number(v, "prompt_tokens");
        s->n_done = number(v, "prompt_done");
        s->n_generated = number(v, "generated_tokens");
        s->seconds = number(v, "seconds");
    }
}

/* Sums of the last evaluations, by the names of the rows' fields. */
static void take_evaluations(top_picture *p, const mfi_json *evaluations)
{
    const mfi_json *fields = mfi_json_get(evaluations, "fields");
    const mfi_json *rows = mfi_json_get(evaluations, "rows");
    const struct {
        const char *name;
        double *to;
    } sums[] = {
        {"wall_ns", &p->wall},   {"arithmetic_ns", &p->arithmetic}, {"stall_ns", &p->stall},
        {"other_ns", &p->other}, {"between_ns", &p->between},       {"tokens", &p->last_tokens},
        {"hits", &p->last_hits}, {"misses", &p->last_misses},       {"bytes_read", &p->last_bytes}};
    for (size_t k = 0; k < MFI_ARRAY_LEN(sums); k++) {
        size_t column = mfi_json_len(fields);
        for (size_t i = 0; i < mfi_json_len(fields); i++) {
            const char *name = mfi_json_str(mfi_json_at(fields, i), NULL);
            column = name && strcmp(name, sums[k].name) == 0 ? i : column;
        }
        *sums[k].to = 0;
        for (size_t i = 0; i < mfi_json_len(rows); i++) {
            double value = 0;
            mfi_json_f64(mfi_json_at(mfi_json_at(rows, i), column), &value);
            *sums[k].to += value;
        }
    }
}

bool top_take_status(top_picture *p, const mfi_json *v)
{
    const mfi_json *model = mfi_json_get(v, "model"), *memory = mfi_json_get(v, "memory");
    const mfi_json *cache = mfi_json_get(v, "cache"), *drive = mfi_json_get(v, "drive");
    const mfi_json *requests = mfi_json_get(v, "requests"), *kv = mfi_json_get(v, "kv");
    const mfi_json *prefix = mfi_json_get(v, "prefix"), *tokens = mfi_json_get(v, "tokens");
    char name[64], family[24], weights[48], device[32], version[24];
    if (!model || !tokens)
        return false;
    top_text(model, "name", name, sizeof name);
    top_text(model, "family", family, sizeof family);
    top_text(model, "weights", weights, sizeof weights);
    top_text(model, "device", device, sizeof device);
    top_text(v, "version", version, sizeof version);
    snprintf(p->title, sizeof p->title, "%s  %s %s  %s  moeflux %s", name, family, weights,
             *device ? device : "cpu", version);
    top_text(cache, "policy", p->policy, sizeof p->policy);
    top_text(drive, "reader", p->reader, sizeof p->reader);
    const struct {
        double *to;
        const mfi_json *object;
        const char *name;
    } numbers[] = {{&p->ctx, model, "ctx"},
                   {&p->slots, cache, "slots"},
                   {&p->experts_total, cache, "experts_total"},
                   {&p->hits, cache, "hits"},
                   {&p->misses, cache, "misses"},
                   {&p->budget_bytes, memory, "budget_bytes"},
                   {&p->peak_bytes, memory, "peak_bytes"},
                   {&p->ceiling, drive, "ceiling_bytes_per_second"},
                   {&p->drive_per_s, drive, "bytes_per_second"},
                   {&p->reading, drive, "reading"},
                   {&p->bytes_read, drive, "bytes_read"},
                   {&p->running, requests, "running"},
                   {&p->waiting, requests, "waiting"},
                   {&p->parallel, requests, "parallel"},
                   {&p->queue, requests, "queue"},
                   {&p->finished, requests, "finished"},
                   {&p->aborted, requests, "aborted"},
                   {&p->failed, requests, "failed"},
                   {&p->refused, requests, "refused"},
                   {&p->kv_used, kv, "used_tokens"},
                   {&p->kv_tokens, kv, "tokens"},
                   {&p->cached, prefix, "cached_tokens"},
                   {&p->queried, prefix, "queried_tokens"},
                   {&p->generated, tokens, "generated"},
                   {&p->evaluated, tokens, "evaluated"},
                   {&p->generated_per_s, tokens, "generated_per_second"},
                   {&p->evaluated_per_s, tokens, "evaluated_per_second"}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(numbers); i++)
        *numbers[i].to = number(numbers[i].object, numbers[i].name);
    take_seats(p, mfi_json_get(v, "sessions"));
    take_evaluations(p, mfi_json_get(v, "evaluations"));
    return true;
}

/* ---- the map ---- */

static bool take_base64(const mfi_json *v, size_t n, mfi_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    const char *text = mfi_json_str(v, &len);
    uint32_t bits = 0, n_bits = 0;
    out->len = 0;
    for (size_t i = 0; text && i < len && text[i] != '='; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit)
            return false;
        bits = bits << 6 | (uint32_t)(digit - digits);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            mfi_buf_append(out, &(char){(char)(bits >> n_bits & 0xff)}, 1);
        }
    }
    return !out->failed && out->len == n;
}

void top_take_experts(top_picture *p, const mfi_json *v)
{
    static const char *const tiers[] = {"drive", "loading", "host", "device"};
    const mfi_json *layers = mfi_json_get(v, "layers");
    size_t n_rows = mfi_json_len(layers);
    double n_experts = number(v, "experts");
    p->n_rows = 0;
    p->layers.len = 0;
    if (!n_rows || n_rows > MFI_MAX_LAYERS || n_experts < 1 || n_experts > MFI_MAX_EXPERTS ||
        !take_base64(mfi_json_get(v, "tiers"), n_rows * (size_t)n_experts, &p->tiers) ||
        !take_base64(mfi_json_get(v, "use"), n_rows * (size_t)n_experts, &p->use))
        return;
    for (size_t i = 0; i < n_rows; i++) {
        int64_t layer = 0;
        mfi_json_i64(mfi_json_at(layers, i), &layer);
        mfi_buf_append(&p->layers, &(uint32_t){(uint32_t)layer}, sizeof(uint32_t));
    }
    for (size_t i = 0; i < 4; i++) {
        double count = MFI_MAX(number(mfi_json_get(v, "counts"), tiers[i]), 0);
        p->counts[i] = (uint32_t)MFI_MIN(count, UINT32_MAX);
    }
    p->n_experts = (uint32_t)n_experts;
    p->n_rows = p->layers.failed ? 0 : (uint32_t)n_rows;
}

/* ---- a file of --stats ---- */

static void take_head(top_picture *p, const char *path, const mfi_json *v)
{
    const char *base = strrchr(path, '/');
    *p = (top_picture){.ctx = -1,
                       .generated_per_s = -1,
                       .generated = -1,
                       .peak_bytes = -1,
                       .running = -1,
                       .kv_used = -1,
                       .reading = -1};
    snprintf(p->title, sizeof p->title, "%.100s", base ? base + 1 : path);
    top_text(v, "policy", p->policy, sizeof p->policy);
    top_text(v, "reader", p->reader, sizeof p->reader);
    p->slots = number(v, "slots");
    p->experts_total = number(v, "layers") * number(v, "experts");
    p->budget_bytes = number(v, "budget_bytes");
    p->ceiling = number(v, "drive_bytes_per_second");
}

/* Rows: tokens, wall, arithmetic, stall, other, between, hits, misses, bytes. */
static void take_row(top_follow *f, top_picture *p, const mfi_json *v)
{
    static const char *const names[] = {"tokens",   "wall_ns",  "arithmetic_ns",
                                        "stall_ns", "other_ns", "between_ns",
                                        "hits",     "misses",   "bytes_read"};
    double *row = f->rows[f->n_rows++ % MFI_ARRAY_LEN(f->rows)];
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++)
        row[i] = MFI_MAX(number(v, names[i]), 0);
    p->evaluated += row[0];
    p->hits += row[6];
    p->misses += row[7];
    p->bytes_read += row[8];
}

static void sum_rows(const top_follow *f, top_picture *p)
{
    double *const sums[] = {&p->last_tokens, &p->wall,        &p->arithmetic,
                            &p->stall,       &p->other,       &p->between,
                            &p->last_hits,   &p->last_misses, &p->last_bytes};
    size_t n = MFI_MIN(f->n_rows, MFI_ARRAY_LEN(f->rows));
    for (size_t k = 0; k < MFI_ARRAY_LEN(sums); k++) {
        *sums[k] = 0;
        for (size_t i = 0; i < n; i++)
            *sums[k] += f->rows[i][k];
    }
    double ns = p->wall + p->between;
    p->evaluated_per_s = ns > 0 ? p->last_tokens * 1e9 / ns : -1;
    p->drive_per_s = ns > 0 ? p->last_bytes * 1e9 / ns : -1;
}

static void take_line(top_follow *f, top_picture *p)
{
    mfi_json *v = NULL;
    if (mfi_json_parse(f->line.data ? f->line.data : "", f->line.len, "line", &v, NULL) != MF_OK)
        return;
    if (mfi_json_has(v, "schema")) {
        take_head(p, f->path, v);
        f->has_head = f->had_head = true;
        f->n_rows = 0;
    } else if (f->has_head) {
        take_row(f, p, v);
    }
    mfi_json_free(&v);
}

/* A run that began anew made the file shorter: from its start. What was shown stays until then. */
static void start_over(top_follow *f)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0 || st.st_size >= lseek(f->fd, 0, SEEK_CUR))
        return;
    (void)lseek(f->fd, 0, SEEK_SET);
    f->line.len = 0;
    f->has_head = false;
}

int top_follow_read(top_follow *f, top_picture *p)
{
    char bytes[16384];
    ssize_t n;
    if (f->fd < 0 && (f->fd = open(f->path, O_RDONLY | O_CLOEXEC)) < 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s: %s", f->path, strerror(errno));
    start_over(f);
    while ((n = read(f->fd, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] == '\n') {
                take_line(f, p);
                f->line.len = 0;
            } else if (f->line.len < LINE_BYTES_MAX) {
                mfi_buf_append(&f->line, &bytes[i], 1);
            }
        }
    if (n < 0 && errno != EINTR)
        return cli_error(CLI_EXIT_RUNTIME, "%s: %s", f->path, strerror(errno));
    if (!f->has_head && !f->had_head)
        return cli_error(CLI_EXIT_RUNTIME, "%s: these are no statistics of --stats", f->path);
    sum_rows(f, p);
    return CLI_EXIT_OK;
}
