/* Loading: resident weights into the dense region, and the table of where experts lie. Called once
 * at open, on the engine's thread. Weights are read with explicit reads into planned memory, a few
 * requests at a time, never through a mapping. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_int.h"

_Static_assert(sizeof(mfi_expert_part) == 24, "the plan counts PART_BYTES");

#define PIECE_BYTES ((uint64_t)1 << 20)
#define N_REQS      8

typedef struct loader {
    const mfi_catalog *catalog;
    const mfi_shape *shape;
    mfi_io *io;
    mfi_io_req reqs[N_REQS];
    uint32_t free[N_REQS], n_free;
    uint64_t done, total;
    mf_progress_fn progress;
    void *progress_user;
} loader;

static mf_status reap(loader *l, mf_error *err)
{
    mfi_io_req *req = l->io->wait(l->io);
    MFI_ASSERT(req);
    l->free[l->n_free++] = (uint32_t)(req - l->reqs);
    l->done += req->len;
    if (req->status != MF_OK)
        return mfi_fail(err, req->status, "loading weights: %s", req->error.message);
    return MF_OK;
}

static mf_status drain(loader *l, mf_error *err)
{
    mf_status status = MF_OK;
    while (l->n_free < N_REQS) {
        mf_status one = reap(l, status == MF_OK ? err : NULL);
        status = status == MF_OK ? one : status;
    }
    return status;
}

static mf_status read_extent(loader *l, mfi_extent x, char *dst, mf_error *err)
{
    while (x.len > 0) {
        if (l->n_free == 0)
            MFI_TRY(reap(l, err));
        mfi_io_req *req = &l->reqs[l->free[--l->n_free]];
        *req = (mfi_io_req){
            .file = x.file, .offset = x.offset, .len = MFI_MIN(x.len, PIECE_BYTES), .dst = dst};
        x.offset += req->len;
        x.len -= req->len;
        dst += req->len;
        l->io->submit(l->io, &req, 1);
    }
    if (l->progress && !l->progress(l->progress_user, "loading", "bytes", l->done, l->total))
        return mfi_fail(err, MF_ERR_CANCELLED, "cancelled while weights were loaded");
    return MF_OK;
}

static void transform(float *v, uint64_t n, mfi_load load)
{
    for (uint64_t i = 0; i < n; i++) {
        if (load == MFI_LOAD_F32_PLUS1)
            v[i] += 1.0f;
        else if (load == MFI_LOAD_F32_NEG_EXP)
            v[i] = -expf(v[i]);
    }
}

/* Reads rows of a plane into a buffer of its own, which the caller frees. */
static mf_status read_plane(loader *l, const mfi_program_weight *w, uint32_t plane, uint32_t row,
                            uint32_t n_rows, char **out, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(l->catalog, w->tensor);
    mfi_extent x = mfi_tensor_extent(t, plane, row, n_rows);
    char *raw = malloc((size_t)x.len);
    if (!raw)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %" PRIu64 " bytes of %s", x.len,
                        mfi_catalog_name(l->catalog, w->tensor));
    mf_status status = read_extent(l, x, raw, err);
    mf_status drained = drain(l, status == MF_OK ? err : NULL);
    status = status == MF_OK ? drained : status;
    if (status == MF_OK)
        *out = raw;
    else
        free(raw);
    return status;
}

/* Small vectors, widened to float32; convolution taps count as rows, other vectors as one element a
 * row where they are mapped. */
static mf_status load_vector(loader *l, const mfi_program_weight *w, float *dst, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(l->catalog, w->tensor);
    uint32_t rows = w->rows > 1 ? w->rows : w->cols, width = w->rows > 1 ? w->cols : 1;
    char *raw;
    MFI_TRY(read_plane(l, w, 0, 0, (uint32_t)mfi_tensor_rows(t), &raw, err));
    for (uint32_t r = 0; r < rows;) {
        uint32_t src, run = MFI_MIN(mfi_map_source(l->shape, w->map, r, &src), rows - r);
        const void *at = raw + (size_t)src * width * (t->type.bits / 8);
        mfi_dequant_row(t->type, &at, (uint64_t)run * width, dst + (size_t)r * width);
        r += run;
    }
    free(raw);
    transform(dst, (uint64_t)rows * width, w->load);
    return MF_OK;
}

/* A matrix whose columns are moved by whole heads, a band of rows at a time. */
static mf_status load_columns(loader *l, const mfi_program_weight *w, char *dst, mf_error *err)
{
    uint64_t row_bytes = mfi_quant_row_bytes(w->type, 0, w->cols);
    uint32_t band = (uint32_t)MFI_MAX(PIECE_BYTES / row_bytes, 1);
    for (uint32_t row = 0; row < w->rows; row += band) {
        uint32_t n = MFI_MIN(band, w->rows - row);
        char *raw;
        MFI_TRY(read_plane(l, w, 0, row, n, &raw, err));
        for (uint32_t c = 0; c < w->cols;) {
            uint32_t src, run = MFI_MIN(mfi_map_source(l->shape, w->map, c, &src), w->cols - c);
            uint64_t to = mfi_quant_row_bytes(w->type, 0, c),
                     from = mfi_quant_row_bytes(w->type, 0, src);
            uint64_t bytes = mfi_quant_row_bytes(w->type, 0, run);
            for (uint32_t r = 0; r < n; r++)
                memcpy(dst + (row + r) * row_bytes + to, raw + r * row_bytes + from, bytes);
            c += run;
        }
        free(raw);
    }
    return MF_OK;
}

/* Rows [src, src + n) of FP8 weights, which lie in one row of blocks, as float32. */
static mf_status decode_band(loader *l, const mfi_program_weight *w, uint32_t src, uint32_t n,
                             float *dst, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(l->catalog, w->tensor);
    uint32_t block = src / MFI_FP8_BLOCK * MFI_FP8_BLOCK;
    uint32_t n_block = (uint32_t)MFI_MIN(mfi_tensor_rows(t) - block, MFI_FP8_BLOCK);
    char *codes, *scales;
    MFI_TRY(read_plane(l, w, 0, src, n, &codes, err));
    mf_status status = read_plane(l, w, 1, block, n_block, &scales, err);
    if (status == MF_OK) {
        for (uint32_t r = 0; r < n; r++) {
            const void *at[MFI_MAX_PLANES] = {codes + (size_t)r * w->cols, scales};
            mfi_dequant_row(t->type, at, w->cols, dst + (size_t)r * w->cols);
        }
        free(scales);
    }
    free(codes);
    return status;
}

static mf_status load_decoded(loader *l, const mfi_program_weight *w, float *dst, mf_error *err)
{
    MFI_ASSERT(mfi_catalog_tensor(l->catalog, w->tensor)->type.kind == MFI_Q_FP8);
    for (uint32_t r = 0, n; r < w->rows; r += n) {
        uint32_t src, run = MFI_MIN(mfi_map_source(l->shape, w->map, r, &src), w->rows - r);
        n = MFI_MIN(run, MFI_FP8_BLOCK - src % MFI_FP8_BLOCK);
        MFI_TRY(decode_band(l, w, src, n, dst + (size_t)r * w->cols, err));
    }
    return MF_OK;
}

/* A matrix whose rows are moved one by one within heads, a band of whole heads at a time. */
static mf_status load_paired(loader *l, const mfi_program_weight *w, char *dst, mf_error *err)
{
    uint64_t row_bytes = mfi_quant_row_bytes(w->type, 0, w->cols);
    uint32_t head = l->shape->head_dim;
    uint32_t band = (uint32_t)MFI_MAX(PIECE_BYTES / (row_bytes * head), 1) * head;
    for (uint32_t row = 0; row < w->rows; row += band) {
        uint32_t n = MFI_MIN(band, w->rows - row);
        char *raw;
        MFI_TRY(read_plane(l, w, 0, row, n, &raw, err));
        for (uint32_t r = 0; r < n; r++) {
            uint32_t src;
            mfi_map_source(l->shape, w->map, row + r, &src);
            memcpy(dst + (row + r) * row_bytes, raw + (src - row) * row_bytes, row_bytes);
        }
        free(raw);
    }
    return MF_OK;
}

static mf_status load_weight(loader *l, const mfi_program_weight *w, char *dense, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(l->catalog, w->tensor);
    if (w->load == MFI_LOAD_DECODED)
        return load_decoded(l, w, (float *)(dense + w->offset[0]), err);
    if (w->load != MFI_LOAD_MATRIX)
        return load_vector(l, w, (float *)(dense + w->offset[0]), err);
    if (w->map == MFI_MAP_TILED_COLS)
        return load_columns(l, w, dense + w->offset[0], err);
    if (w->map == MFI_MAP_ROPE_PAIRS)
        return load_paired(l, w, dense + w->offset[0], err);
    for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++) {
        uint64_t row_bytes = mfi_quant_row_bytes(t->type, p, w->cols);
        for (uint32_t r = 0; r < w->rows;) {
            uint32_t src, run = MFI_MIN(mfi_map_source(l->shape, w->map, r, &src), w->rows - r);
            /* Where a plane's rows stand for several, runs are whole rows of it. */
            MFI_TRY(read_extent(
                l, mfi_tensor_extent(t, p, src, run),
                dense + w->offset[p] + r / mfi_quant_rows_per_row(t->type, p) * row_bytes, err));
            r += run;
        }
    }
    return MF_OK;
}

/* One weight at a time through the host's memory into a device's. */
static mf_status load_through(loader *l, const mfi_program *p, mfi_backend *device, mf_error *err)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (!p->weights[i].in_place)
            largest = MFI_MAX(largest, mfi_program_weight_span(&p->weights[i]));
    char *room = malloc((size_t)MFI_MAX(largest, 1));
    if (!room)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to load a weight of %" PRIu64 " bytes",
                        largest);
    mf_status status = MF_OK;
    for (uint32_t i = 0; status == MF_OK && i < p->n_weights; i++) {
        mfi_program_weight w = p->weights[i];
        if (w.in_place)
            continue;
        for (uint32_t k = 0; k < MFI_MAX_PLANES; k++)
            w.offset[k] -= p->weights[i].offset[0];
        status = load_weight(l, &w, room, err);
        mf_status drained = drain(l, status == MF_OK ? err : NULL);
        status = status == MF_OK ? drained : status;
        if (status == MF_OK)
            status = device->write(device, MFI_MEM_DENSE, p->weights[i].offset[0], room,
                                   mfi_program_weight_span(&p->weights[i]), err);
    }
    free(room);
    return status;
}

mf_status mfi_load_dense(const mfi_program *program, const mfi_catalog *catalog, mfi_io *io,
                         char *dense, mfi_backend *device, mf_progress_fn progress,
                         void *progress_user, mf_error *err)
{
    loader *l = calloc(1, sizeof *l);
    if (!l)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the loader");
    *l = (loader){.catalog = catalog,
                  .shape = &program->shape,
                  .io = io,
                  .n_free = N_REQS,
                  .total = program->dense_bytes,
                  .progress = progress,
                  .progress_user = progress_user};
    for (uint32_t i = 0; i < N_REQS; i++)
        l->free[i] = i;
    mf_status status = MF_OK;
    if (!dense)
        status = load_through(l, program, device, err);
    for (uint32_t i = 0; dense && status == MF_OK && i < program->n_weights; i++)
        if (!program->weights[i].in_place)
            status = load_weight(l, &program->weights[i], dense, err);
    mf_status drained = drain(l, status == MF_OK ? err : NULL);
    free(l);
    return status == MF_OK ? drained : status;
}

mf_status mfi_load_expert_table(const mfi_model *model, const mfi_program *program,
                                mfi_expert_table *table, mfi_expert_part **parts, uint32_t **layers,
                                mf_error *err)
{
    const mfi_shape *s = &model->shape;
    size_t n = (size_t)s->n_layers * s->n_experts;
    uint32_t n_parts = mfi_program_n_parts(program);
    *parts = calloc(n * n_parts, sizeof **parts);
    *layers = calloc(s->n_layers, sizeof **layers);
    if (!*parts || !*layers)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the table of %zu experts", n);
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        (*layers)[layer] = layer;
        if (!mfi_model_routed(model, layer))
            continue; /* never asked for */
        for (uint32_t e = 0; e < s->n_experts; e++) {
            size_t at = (size_t)layer * s->n_experts + e;
            mfi_expert_part *out = *parts + at * n_parts;
            const mfi_expert_part *end = out + n_parts;
            for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
                const mfi_expert_src *src = &model->experts[at * MFI_EXPERT_PROJS + proj];
                const mfi_expert_mat *mat = &program->experts[layer].proj[proj];
                for (uint32_t p = 0; mat->rows && p < mfi_quant_n_planes(mat->type); p++) {
                    const mfi_tensor *t = mfi_catalog_tensor(model->catalog, src->tensor);
                    mfi_extent x = mfi_tensor_extent(t, p, src->row, mat->rows);
                    MFI_ASSERT(out < end);
                    *out++ = (mfi_expert_part){x.offset, x.file, (uint32_t)x.len, mat->offset[p]};
                }
                if (mat->n_bias) {
                    uint32_t id = model->expert_bias[layer * MFI_EXPERT_PROJS + proj];
                    mfi_extent x =
                        mfi_tensor_extent(mfi_catalog_tensor(model->catalog, id), 0, e, 1);
                    MFI_ASSERT(out < end);
                    *out++ = (mfi_expert_part){x.offset, x.file, (uint32_t)x.len, mat->bias_offset};
                }
            }
        }
    }
    *table = (mfi_expert_table){.n_layers = s->n_layers,
                                .n_experts = s->n_experts,
                                .n_parts = n_parts,
                                .slot_bytes = program->slot_bytes,
                                .parts = *parts,
                                .model_layer = *layers};
    return MF_OK;
}
