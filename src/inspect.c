/* mf_inspect_write: what a model's files hold, for people and as JSON. Composes format and model;
 * runs on the caller's thread, reads headers only, and works for families nobody knows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "model/model.h"

#define FLUSH_BYTES 65536
#define SHOWN_BYTES 160 /* of a metadata value, for people */

typedef enum bucket {
    BUCKET_EMBEDDING,
    BUCKET_MIXER,
    BUCKET_ROUTER,
    BUCKET_SHARED,
    BUCKET_DENSE,
    BUCKET_EXPERTS,
    BUCKET_HEAD,
    BUCKET_OTHER,
    N_BUCKETS
} bucket;

static const char *const bucket_names[N_BUCKETS] = {
    [BUCKET_EMBEDDING] = "embedding", [BUCKET_MIXER] = "mixer", [BUCKET_ROUTER] = "router",
    [BUCKET_SHARED] = "shared",       [BUCKET_DENSE] = "dense", [BUCKET_EXPERTS] = "experts",
    [BUCKET_HEAD] = "head",           [BUCKET_OTHER] = "other",
};

typedef struct type_bytes {
    char name[64];
    uint64_t bytes;
} type_bytes;

typedef struct report {
    const char *path;
    mfi_catalog *catalog;
    mfi_model *model; /* NULL: no family */
    mf_error why_not; /* then */
    uint8_t *buckets; /* [n_tensors], with a model */
    uint64_t by_bucket[N_BUCKETS], total;
    type_bytes types[64];
    uint32_t n_types;
    mfi_buf out;
    mf_write_fn write;
    void *user;
    mf_error *err;
} report;

static uint64_t tensor_bytes(const mfi_tensor *t)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < mfi_quant_n_planes(t->type); i++)
        bytes += mfi_tensor_bytes(t, i);
    return bytes;
}

/* ---- gathering ---- */

static bucket bucket_of(uint32_t role)
{
    switch (role) {
    case MFI_ROLE_EMBED:
        return BUCKET_EMBEDDING;
    case MFI_ROLE_NORM_OUT:
    case MFI_ROLE_LM_HEAD:
        return BUCKET_HEAD;
    case MFI_ROLE_NORM_FFN:
        return BUCKET_OTHER;
    case MFI_ROLE_ROUTER:
    case MFI_ROLE_ROUTER_BIAS:
    case MFI_ROLE_ROUTER_CORRECTION:
        return BUCKET_ROUTER;
    case MFI_ROLE_FFN_GATE:
    case MFI_ROLE_FFN_UP:
    case MFI_ROLE_FFN_DOWN:
        return BUCKET_DENSE;
    case MFI_ROLE_SHARED_GATE:
    case MFI_ROLE_SHARED_UP:
    case MFI_ROLE_SHARED_DOWN:
    case MFI_ROLE_SHARED_SCALE:
        return BUCKET_SHARED;
    default:
        return BUCKET_MIXER;
    }
}

/* A tensor that serves twice (a tied head) counts where it stands first. */
static void put_bucket(report *r, uint32_t tensor, bucket b)
{
    if (tensor != MFI_TENSOR_NONE && r->buckets[tensor] == BUCKET_OTHER)
        r->buckets[tensor] = (uint8_t)b;
}

static mf_status sort_tensors(report *r)
{
    const mfi_model *m = r->model;
    uint32_t n = mfi_catalog_n_tensors(r->catalog);
    r->buckets = malloc(n);
    if (!r->buckets)
        return mfi_fail(r->err, MF_ERR_NO_MEMORY, "%s: out of memory", r->path);
    memset(r->buckets, BUCKET_OTHER, n);
    for (size_t i = 0; i < (size_t)(m->shape.n_layers + 1) * MFI_N_ROLES; i++)
        put_bucket(r, m->weights[i].tensor, bucket_of((uint32_t)(i % MFI_N_ROLES)));
    size_t n_mats = (size_t)m->shape.n_experts * MFI_EXPERT_PROJS;
    for (uint32_t layer = 0; layer < m->shape.n_layers; layer++)
        for (size_t i = 0; mfi_model_routed(m, layer) && i < n_mats; i++)
            put_bucket(r, m->experts[layer * n_mats + i].tensor, BUCKET_EXPERTS);
    for (size_t i = 0; i < (size_t)m->shape.n_layers * MFI_EXPERT_PROJS; i++)
        put_bucket(r, m->expert_bias[i], BUCKET_EXPERTS);
    for (uint32_t id = 0; id < n; id++)
        r->by_bucket[r->buckets[id]] += tensor_bytes(mfi_catalog_tensor(r->catalog, id));
    return MF_OK;
}

static void count_types(report *r)
{
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(r->catalog); id++) {
        const mfi_tensor *t = mfi_catalog_tensor(r->catalog, id);
        uint64_t bytes = tensor_bytes(t);
        char name[64];
        mfi_quant_name(t->type, name, sizeof name);
        uint32_t i = 0;
        while (i < r->n_types && strcmp(r->types[i].name, name) != 0)
            i++;
        if (i == r->n_types && i < MFI_ARRAY_LEN(r->types))
            memcpy(r->types[r->n_types++].name, name, sizeof name);
        if (i < r->n_types)
            r->types[i].bytes += bytes;
        r->total += bytes;
    }
}

static mf_status gather(report *r)
{
    MFI_TRY(mfi_format_open(&r->catalog, r->path, r->err));
    count_types(r);
    mf_status status = mfi_model_open(&r->model, r->catalog, &r->why_not);
    if (status == MF_ERR_NO_MEMORY)
        return mfi_fail(r->err, status, "%s", r->why_not.message);
    if (status != MF_OK)
        r->model = NULL;
    return r->model ? sort_tensors(r) : MF_OK;
}

/* ---- writing ---- */

static mf_status flush(report *r, size_t above)
{
    if (r->out.failed)
        return mfi_fail(r->err, MF_ERR_NO_MEMORY, "no memory for the output");
    if (r->out.len <= above)
        return MF_OK;
    if (!r->write(r->user, r->out.data, r->out.len))
        return mfi_fail(r->err, MF_ERR_CANCELLED, "the output was refused");
    r->out.len = 0;
    return MF_OK;
}

static const char *format_name(const report *r)
{
    return mfi_catalog_meta(r->catalog) ? "gguf" : "safetensors";
}

static const mfi_json *metadata(const report *r)
{
    const mfi_json *meta = mfi_catalog_meta(r->catalog);
    return meta ? meta : mfi_catalog_config(r->catalog);
}

static const char *file_name(const report *r, uint32_t file)
{
    const char *path = mfi_catalog_file(r->catalog, file)->path;
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void put_text(mfi_buf *out, const char *text)
{
    mfi_json_put_str(out, text, strlen(text));
}

static void json_head(report *r)
{
    mfi_buf *out = &r->out;
    mfi_buf_str(out, "{\"schema\":1,\"path\":");
    put_text(out, r->path);
    mfi_buf_fmt(out, ",\"format\":\"%s\",\"family\":", format_name(r));
    if (r->model)
        put_text(out, r->model->family);
    else
        mfi_buf_str(out, "null");
    mfi_buf_str(out, ",\"family_reason\":");
    put_text(out, r->model ? r->model->reason : r->why_not.message);
    if (r->model)
        mfi_buf_fmt(out, ",\"mtp_layers\":%" PRIu32, r->model->n_mtp_layers);
    mfi_buf_str(out, ",\"files\":[");
    for (uint32_t i = 0; i < mfi_catalog_n_files(r->catalog); i++) {
        mfi_buf_str(out, i ? ",{\"name\":" : "{\"name\":");
        put_text(out, file_name(r, i));
        mfi_buf_fmt(out, ",\"bytes\":%" PRIu64 "}", mfi_catalog_file(r->catalog, i)->size);
    }
    mfi_buf_fmt(out, "],\"total_bytes\":%" PRIu64 ",\"bytes_by_role\":", r->total);
    for (uint32_t i = 0; r->model && i < N_BUCKETS; i++)
        mfi_buf_fmt(out, "%c\"%s\":%" PRIu64, i ? ',' : '{', bucket_names[i], r->by_bucket[i]);
    mfi_buf_str(out, r->model ? "},\"bytes_by_type\":{" : "null,\"bytes_by_type\":{");
    for (uint32_t i = 0; i < r->n_types; i++)
        mfi_buf_fmt(out, "%s\"%s\":%" PRIu64, i ? "," : "", r->types[i].name, r->types[i].bytes);
    mfi_buf_str(out, "},\"metadata\":");
    mfi_json_put(out, metadata(r));
}

static void json_tensor(report *r, uint32_t id)
{
    const mfi_tensor *t = mfi_catalog_tensor(r->catalog, id);
    mfi_buf *out = &r->out;
    char type[64];
    mfi_quant_name(t->type, type, sizeof type);
    mfi_buf_str(out, id ? ",\n{\"name\":" : "\n{\"name\":");
    put_text(out, mfi_catalog_name(r->catalog, id));
    mfi_buf_fmt(out, ",\"type\":\"%s\",\"shape\":[", type);
    for (uint32_t i = 0; i < t->n_dims; i++)
        mfi_buf_fmt(out, "%s%" PRIu32, i ? "," : "", t->dims[i]);
    mfi_buf_fmt(out, "],\"bytes\":%" PRIu64, tensor_bytes(t));
    if (r->model)
        mfi_buf_fmt(out, ",\"role\":\"%s\"", bucket_names[r->buckets[id]]);
    if (t->stride)
        mfi_buf_fmt(out, ",\"stride\":%" PRIu64, t->stride);
    mfi_buf_str(out, ",\"planes\":[");
    for (uint32_t i = 0; i < mfi_quant_n_planes(t->type); i++)
        mfi_buf_fmt(out, "%s{\"file\":%d,\"offset\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                    i ? "," : "", t->file[i], t->offset[i], mfi_tensor_bytes(t, i));
    mfi_buf_str(out, "]}");
}

static mf_status write_json(report *r)
{
    json_head(r);
    mfi_buf_str(&r->out, ",\"tensors\":[");
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(r->catalog); id++) {
        json_tensor(r, id);
        MFI_TRY(flush(r, FLUSH_BYTES));
    }
    mfi_buf_str(&r->out, "]}\n");
    return flush(r, 0);
}

/* One line, cut at a character; the rest of it is told by its length. */
static void put_cut(mfi_buf *out, const mfi_buf *text)
{
    size_t n = MFI_MIN(text->len, (size_t)SHOWN_BYTES);
    while (n < text->len && n > 0 && ((unsigned char)text->data[n] & 0xc0) == 0x80)
        n--;
    mfi_buf_append(out, text->data, n);
    if (n < text->len)
        mfi_buf_fmt(out, "... (%zu bytes)", text->len);
}

static mf_status text_metadata(report *r)
{
    const mfi_json *meta = metadata(r);
    mfi_buf value = {0};
    mf_status status = MF_OK;
    mfi_buf_str(&r->out, "\nmetadata\n");
    for (size_t i = 0; i < mfi_json_len(meta) && status == MF_OK; i++) {
        const char *key;
        const mfi_json *v = mfi_json_member(meta, i, &key);
        value.len = 0;
        mfi_json_put(&value, v);
        mfi_buf_fmt(&r->out, "  %s = ", key);
        if (mfi_json_typeof(v) == MFI_JSON_ARRAY && value.len > SHOWN_BYTES)
            mfi_buf_fmt(&r->out, "(%zu elements) ", mfi_json_len(v));
        put_cut(&r->out, &value);
        mfi_buf_str(&r->out, "\n");
        r->out.failed |= value.failed;
        status = flush(r, FLUSH_BYTES);
    }
    mfi_buf_free(&value);
    return status;
}

static void text_line(mfi_buf *out, const char *name, uint64_t bytes, uint64_t total)
{
    mfi_buf_fmt(out, "  %-34s %16" PRIu64 " %6.2f%%\n", name, bytes,
                total ? 100.0 * (double)bytes / (double)total : 0.0);
}

static void text_head(report *r)
{
    mfi_buf *out = &r->out;
    mfi_buf_fmt(out, "model   %s (%s)\n", r->path, format_name(r));
    if (r->model)
        mfi_buf_fmt(out, "family  %s (%s)\n", r->model->family, r->model->reason);
    else
        mfi_buf_fmt(out, "family  none: %s\n", r->why_not.message);
    if (r->model && r->model->n_mtp_layers)
        mfi_buf_fmt(out,
                    "left    %" PRIu32 " layer%s for multi-token prediction, from layer %" PRIu32
                    " on: not computed, not loaded\n",
                    r->model->n_mtp_layers, r->model->n_mtp_layers == 1 ? "" : "s",
                    r->model->shape.n_layers);
    mfi_buf_str(out, "\nfiles\n");
    for (uint32_t i = 0; i < mfi_catalog_n_files(r->catalog); i++)
        mfi_buf_fmt(out, "  %4" PRIu32 "  %16" PRIu64 "  %s\n", i,
                    mfi_catalog_file(r->catalog, i)->size, file_name(r, i));
    mfi_buf_fmt(out, "\nbytes of %" PRIu32 " tensors\n", mfi_catalog_n_tensors(r->catalog));
    for (uint32_t i = 0; r->model && i < N_BUCKETS; i++)
        text_line(out, bucket_names[i], r->by_bucket[i], r->total);
    text_line(out, "total", r->total, r->total);
    mfi_buf_str(out, "\nbytes by type\n");
    for (uint32_t i = 0; i < r->n_types; i++)
        text_line(out, r->types[i].name, r->types[i].bytes, r->total);
}

static void text_tensor(report *r, uint32_t id)
{
    const mfi_tensor *t = mfi_catalog_tensor(r->catalog, id);
    char type[64], shape[64];
    size_t len = (size_t)snprintf(shape, sizeof shape, "[");
    for (uint32_t i = 0; i < t->n_dims; i++)
        len += (size_t)snprintf(shape + len, sizeof shape - len, "%s%" PRIu32, i ? ", " : "",
                                t->dims[i]);
    snprintf(shape + len, sizeof shape - len, "]");
    mfi_quant_name(t->type, type, sizeof type);
    mfi_buf_fmt(&r->out, "  %-48s %-10s %-22s %14" PRIu64 "  %-9s",
                mfi_catalog_name(r->catalog, id), type, shape, tensor_bytes(t),
                r->model ? bucket_names[r->buckets[id]] : "");
    for (uint32_t i = 0; i < mfi_quant_n_planes(t->type); i++)
        mfi_buf_fmt(&r->out, " %d:%" PRIu64, t->file[i], t->offset[i]);
    mfi_buf_str(&r->out, "\n");
}

static mf_status write_text(report *r)
{
    text_head(r);
    MFI_TRY(text_metadata(r));
    mfi_buf_fmt(&r->out, "\n  %-48s %-10s %-22s %14s  %-9s %s\n", "tensor", "type", "shape",
                "bytes", r->model ? "role" : "", "file:offset");
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(r->catalog); id++) {
        text_tensor(r, id);
        MFI_TRY(flush(r, FLUSH_BYTES));
    }
    return flush(r, 0);
}

mf_status mf_inspect_write(const char *path, bool json, mf_write_fn write, void *user,
                           mf_error *err)
{
    if (!path || !write)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_inspect_write: NULL argument");
    report *r = calloc(1, sizeof *r);
    if (!r)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
    *r = (report){.path = path, .write = write, .user = user, .err = err};
    mf_status status = gather(r);
    if (status == MF_OK)
        status = json ? write_json(r) : write_text(r);
    mfi_buf_free(&r->out);
    free(r->buckets);
    mfi_model_close(&r->model);
    mfi_catalog_close(&r->catalog);
    free(r);
    return status;
}
