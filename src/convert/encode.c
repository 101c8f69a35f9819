/* Encoding tensors, for GGUF and for MLX; see encode.h. Called by the converters' drivers, tensor
 * after tensor, on their thread, which reads and writes; rows in between are decoded and encoded by
 * all workers of a pool. Each row's bytes depend on that row alone, so not on their number. */
#include "convert/encode.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "os/machine.h"

#define BLOCK_BYTES_MAX (16 * MFI_MIB) /* more would only make cancelling slower */
#define ROWS_MAX        65536
#define PROGRESS_NS     200000000u
#define ALIGN           64
#define PART_SHIFT      30 /* of a place: which part its row is from */
#define PLACE_ROW(p)    ((p) & (((uint32_t)1 << PART_SHIFT) - 1))

/* One input row in memory. */
typedef struct row_in {
    const void *planes[MFI_MAX_PLANES];
    uint32_t part; /* of the tensor's */
} row_in;

struct mfi_cv_encoder {
    const mfi_model *model;
    const mfi_im_file *imatrix;
    mfi_pool *pool;
    bool mlx; /* of the plan */
    unsigned char *base;
    uint64_t bytes;
    /* Of the tensor at hand: */
    const mfi_gp_tensor *t;
    uint32_t *place;  /* [rows] part and row of its tensor, for each row that is written */
    uint32_t *column; /* [cols] where each column stands; NULL: in order */
    uint32_t n_place, n_column;
    const mfi_tensor *in[MFI_GP_PARTS];
    unsigned char *in_planes[MFI_MAX_PLANES];
    unsigned char *out[MFI_MAX_PLANES];
    row_in *rows; /* [block] */
    float *slice; /* of tensors that are gathered: [rows][cols] of the slice at hand */
    uint64_t n_slice;
    uint32_t first_in;   /* row of the slice as stored that rows[0] is */
    float *importance;   /* [cols] */
    unsigned char *work; /* [workers][worker_bytes] */
    bool weighted;
    uint32_t block;     /* rows there is room for */
    uint32_t n_rows;    /* in the block at hand */
    uint32_t first_row; /* its first */
    uint32_t *bad;      /* [workers] first row that can't be encoded, or n_rows */
};

mf_status mfi_cv_advance(mfi_cv_progress *p, uint64_t bytes, mf_error *err)
{
    p->done += bytes;
    if (!p->fn)
        return MF_OK;
    uint64_t now = mfi_clock_ns();
    if (p->last_ns && now - p->last_ns < PROGRESS_NS && p->done < p->total)
        return MF_OK;
    p->last_ns = now;
    if (!p->fn(p->user, p->what ? p->what : "converting", "bytes", p->done, p->total))
        return mfi_fail(err, MF_ERR_CANCELLED, "%s cancelled", p->what ? p->what : "conversion");
    return MF_OK;
}

mf_status mfi_cv_pool_open(mfi_pool **pool, uint32_t n_threads, mf_error *err)
{
    mfi_machine machine;
    if (n_threads == 0) {
        mfi_machine_read(&machine);
        n_threads = machine.n_cpus;
    }
    return mfi_pool_open(pool, n_threads, err);
}

/* ---- buffers ---- */

/* The columns' importance; a worker: the row as read and as moved, and its codes (MLX). */
static uint64_t worker_bytes(uint32_t cols)
{
    return 2 * mfi_align_up((uint64_t)cols * sizeof(float), ALIGN) + mfi_align_up(cols, ALIGN);
}

static uint32_t widest(const mfi_gp_tensor *t)
{
    return MFI_MAX(t->cols, mfi_gp_in_cols(t));
}

static uint64_t work_bytes(const mfi_cv_encoder *g, uint32_t cols)
{
    return mfi_align_up((uint64_t)cols * sizeof(float), ALIGN) +
           mfi_pool_size(g->pool) * worker_bytes(cols);
}

static const mfi_tensor *source(const mfi_cv_encoder *g, const mfi_gp_tensor *t, uint32_t part)
{
    uint32_t id = t->n_parts ? t->parts[part].src.tensor : mfi_gp_expert(g->model, t, part)->tensor;
    return mfi_catalog_tensor(g->model->catalog, id);
}

/* Bytes that a row takes in input plane k, whichever part it is from. */
static uint64_t in_row_bytes(const mfi_cv_encoder *g, const mfi_gp_tensor *t, uint32_t k)
{
    uint64_t bytes = 0;
    for (uint32_t part = 0; part < MFI_MAX(t->n_parts, 1); part++) {
        mfi_qtype type = source(g, t, part)->type;
        if (k < mfi_quant_n_planes(type))
            bytes = MFI_MAX(bytes, mfi_quant_row_bytes(type, k, mfi_gp_in_cols(t)));
    }
    return bytes;
}

static uint64_t row_bytes(const mfi_cv_encoder *g, const mfi_gp_tensor *t)
{
    uint64_t bytes = sizeof(row_in);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
        bytes += mfi_quant_row_bytes(t->type, k, t->cols);
    for (uint32_t k = 0; k < MFI_MAX_PLANES; k++)
        bytes += in_row_bytes(g, t, k);
    return bytes;
}

#define SLACK ((2 * MFI_MAX_PLANES + 2) * ALIGN) /* what aligning the parts of a block may cost */

static uint64_t tables_bytes(const mfi_gp *plan, uint32_t *n_place, uint32_t *n_column,
                             uint64_t *n_slice)
{
    *n_place = *n_column = 0;
    *n_slice = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        *n_place = MFI_MAX(*n_place, t->n_parts ? t->rows : 0);
        *n_slice = MFI_MAX(*n_slice, t->gather ? (uint64_t)t->rows * t->cols : 0);
        for (uint32_t k = 0; k < t->n_parts; k++)
            if (t->parts[k].map == MFI_MAP_TILED_COLS || t->parts[k].src.map == MFI_MAP_TILED_COLS)
                *n_column = MFI_MAX(*n_column, t->cols);
    }
    return ((uint64_t)*n_place + *n_column) * sizeof(uint32_t) + *n_slice * sizeof(float);
}

mf_status mfi_cv_encoder_open(mfi_cv_encoder **encoder, const mfi_gp *plan, const mfi_model *model,
                              mfi_pool *pool, const mfi_im_file *imatrix, uint64_t memory_bytes,
                              mf_error *err)
{
    mfi_cv_encoder *g = calloc(1, sizeof *g);
    if (!g)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the converter");
    *g = (mfi_cv_encoder){.model = model, .imatrix = imatrix, .pool = pool, .mlx = plan->mlx};
    uint64_t tables = tables_bytes(plan, &g->n_place, &g->n_column, &g->n_slice), need = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        uint64_t one = row_bytes(g, t) + SLACK;
        need = MFI_MAX(need, work_bytes(g, widest(t)) + one);
    }
    if (need + tables > memory_bytes) {
        free(g);
        return mfi_fail(err, MF_ERR_BUDGET,
                        "a row of the widest tensor needs %" PRIu64 " bytes of buffers, but only "
                        "%" PRIu64 " are allowed",
                        need + tables, memory_bytes);
    }
    g->bytes = MFI_MAX(need, MFI_MIN(memory_bytes - tables, (uint64_t)BLOCK_BYTES_MAX));
    g->base = aligned_alloc(ALIGN, mfi_align_up(g->bytes, ALIGN));
    g->place = malloc(g->n_place * sizeof *g->place + 1);
    g->column = malloc(g->n_column * sizeof *g->column + 1);
    g->slice = malloc(g->n_slice * sizeof *g->slice + 1);
    g->bad = malloc(mfi_pool_size(pool) * sizeof *g->bad);
    *encoder = g;
    if (!g->base || !g->place || !g->column || !g->slice || !g->bad) {
        mfi_cv_encoder_close(encoder);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %" PRIu64 " bytes of buffers",
                        need + tables);
    }
    return MF_OK;
}

void mfi_cv_encoder_close(mfi_cv_encoder **encoder)
{
    mfi_cv_encoder *g = *encoder;
    if (!g)
        return;
    free(g->base);
    free(g->place);
    free(g->column);
    free(g->slice);
    free(g->bad);
    free(g);
    *encoder = NULL;
}

static void lay_out(mfi_cv_encoder *g)
{
    const mfi_gp_tensor *t = g->t;
    uint64_t room = (g->bytes - work_bytes(g, widest(t)) - SLACK) / row_bytes(g, t);
    uint64_t most = MFI_MAX(t->rows, t->gather ? t->in_rows : 0);
    g->block = (uint32_t)MFI_MIN(MFI_MIN(room, most), ROWS_MAX);
    unsigned char *p = g->base;
    g->importance = (float *)p;
    g->work = p + mfi_align_up((uint64_t)widest(t) * sizeof(float), ALIGN);
    p += work_bytes(g, widest(t));
    g->rows = (row_in *)p;
    p += mfi_align_up(g->block * sizeof(row_in), ALIGN);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++) {
        g->out[k] = p;
        p += mfi_align_up(g->block * mfi_quant_row_bytes(t->type, k, t->cols), ALIGN);
    }
    for (uint32_t k = 0; k < MFI_MAX_PLANES; k++) {
        g->in_planes[k] = p;
        p += mfi_align_up(g->block * in_row_bytes(g, t, k), ALIGN);
    }
}

/* ---- where rows and columns come from ---- */

static void map_rows(mfi_cv_encoder *g, uint32_t part)
{
    const mfi_gp_part *p = &g->t->parts[part];
    const mfi_shape *s = &g->model->shape;
    uint32_t n = g->t->vector ? p->src.cols : p->src.rows;
    for (uint32_t r = 0; r < n; r++) {
        uint32_t from = r, to = r;
        if (p->src.map != MFI_MAP_TILED_COLS)
            mfi_map_source(s, p->src.map, r, &from);
        if (p->map != MFI_MAP_TILED_COLS)
            mfi_map_source(s, p->map, r, &to);
        g->place[to] = from | part << PART_SHIFT;
    }
}

static void map_columns(mfi_cv_encoder *g, const mfi_gp_part *p)
{
    const mfi_shape *s = &g->model->shape;
    for (uint32_t c = 0; c < g->t->cols; c++) {
        uint32_t from = c, to = c;
        if (p->src.map == MFI_MAP_TILED_COLS)
            mfi_map_source(s, p->src.map, c, &from);
        if (p->map == MFI_MAP_TILED_COLS)
            mfi_map_source(s, p->map, c, &to);
        g->column[to] = from;
    }
}

static bool moves_columns(const mfi_gp_tensor *t)
{
    return t->n_parts &&
           (t->parts[0].map == MFI_MAP_TILED_COLS || t->parts[0].src.map == MFI_MAP_TILED_COLS);
}

/* ---- a block of rows ---- */

/* Reads rows [row, row + n) of a part's tensor behind the `filled` rows that the block has. */
static mf_status read_run(mfi_cv_encoder *g, const mfi_tensor *t, uint32_t part, uint32_t row,
                          uint32_t n, uint32_t filled, mf_error *err)
{
    MFI_ASSERT(!t->stride || n <= mfi_tensor_run(t, row));
    for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++) {
        uint64_t bytes = mfi_quant_row_bytes(t->type, p, mfi_gp_in_cols(g->t));
        uint32_t per = mfi_quant_rows_per_row(t->type, p), first = row / per;
        uint64_t n_stored = (row + n - 1) / per - first + 1; /* never more than n */
        unsigned char *dst = g->in_planes[p] + filled * in_row_bytes(g, g->t, p);
        uint64_t at = t->offset[p] + first * bytes; /* rows of vectors are single elements here */
        if (t->stride)
            at = mfi_tensor_extent(t, p, (uint64_t)first * per, 0).offset;
        MFI_TRY(mfi_file_read(mfi_catalog_file(g->model->catalog, t->file[p]), dst,
                              n_stored * bytes, at, err));
        for (uint32_t r = 0; r < n; r++)
            g->rows[filled + r].planes[p] = dst + ((row + r) / per - first) * bytes;
    }
    for (uint32_t r = 0; r < n; r++)
        g->rows[filled + r].part = part;
    return MF_OK;
}

/* Reads what rows [first, first + n_rows) of slice `s` are made from. */
static mf_status read_block(mfi_cv_encoder *g, uint32_t s, uint32_t first, mf_error *err)
{
    if (g->t->gather)
        return MF_OK; /* the slice was read whole */
    if (g->t->n_parts == 0) {
        const mfi_expert_src *src = mfi_gp_expert(g->model, g->t, s);
        return read_run(g, mfi_catalog_tensor(g->model->catalog, src->tensor), 0, src->row + first,
                        g->n_rows, 0, err);
    }
    for (uint32_t r = 0, n; r < g->n_rows; r += n) {
        uint32_t place = g->place[first + r], part = place >> PART_SHIFT;
        for (n = 1; r + n < g->n_rows && g->place[first + r + n] == place + n; n++)
            ;
        uint32_t row = PLACE_ROW(place);
        MFI_TRY(read_run(g, g->in[part], part, row, n, r, err));
    }
    return MF_OK;
}

/* False if a value is not finite, or beyond what a half float, which GGML's blocks store, can hold.
 * No early exit, so that it is vectorised. */
static bool encodable(mfi_qtype type, const float *x, uint32_t n)
{
    bool half = type.kind == MFI_Q_F16 || type.kind == MFI_Q_GGML;
    float limit = half ? 65504.0f : type.kind == MFI_Q_BF16 ? 0x1.fep127f : FLT_MAX;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++)
        bad |= !(fabsf(x[i]) <= limit);
    return !bad;
}

static void transform(float *x, uint32_t n, const mfi_gp_tensor *t)
{
    mfi_load load = t->n_parts ? t->parts[0].src.load : MFI_LOAD_MATRIX;
    for (uint32_t i = 0; i < n; i++) {
        if (load == MFI_LOAD_F32_PLUS1)
            x[i] += 1.0f;
        else if (load == MFI_LOAD_F32_NEG_EXP)
            x[i] = -expf(x[i]);
        else if (t->log_neg)
            x[i] = logf(-x[i]);
    }
}

static void put_float(mfi_qkind kind, float value, unsigned char *at)
{
    if (kind == MFI_Q_F32) {
        memcpy(at, &value, sizeof value);
    } else {
        uint16_t h = kind == MFI_Q_F16 ? mfi_f32_to_f16(value) : mfi_f32_to_bf16(value);
        memcpy(at, &h, sizeof h);
    }
}

/* MLX's three planes. False if a scale is not finite. */
static bool encode_affine(const mfi_cv_encoder *g, const float *x, uint8_t *codes, uint32_t r)
{
    mfi_qtype type = g->t->type;
    uint32_t cols = g->t->cols, group = type.group, n_groups = cols / group;
    mfi_qkind kind = (mfi_qkind)type.scale;
    uint64_t scale_bytes = mfi_quant_row_bytes(type, 1, cols);
    for (uint32_t i = 0; i < n_groups; i++) {
        float scale, bias;
        mfi_mlx_quantize_group(x + i * group, group, type.bits, kind, codes + i * group, &scale,
                               &bias);
        if (!isfinite(scale))
            return false;
        uint64_t at = r * scale_bytes + i * (scale_bytes / n_groups);
        put_float(kind, scale, g->out[1] + at);
        put_float(kind, bias, g->out[2] + at);
    }
    mfi_mlx_pack(codes, cols, type.bits, g->out[0] + r * mfi_quant_row_bytes(type, 0, cols));
    return true;
}

static void decode_row(const mfi_cv_encoder *g, uint32_t r, float *x)
{
    mfi_qtype type = g->in[g->rows[r].part]->type;
    uint32_t cols = mfi_gp_in_cols(g->t);
    if (g->mlx)
        mfi_dequant_row(type, g->rows[r].planes, cols, x);
    else
        mfi_dequant_row_wide(type, g->rows[r].planes, cols, x);
}

static bool encode_row(const mfi_cv_encoder *g, uint32_t r, unsigned char *work)
{
    const mfi_gp_tensor *t = g->t;
    uint32_t cols = t->cols;
    uint64_t float_bytes = mfi_align_up((uint64_t)widest(t) * sizeof(float), ALIGN);
    float *x = (float *)work, *moved = (float *)(work + float_bytes);
    bool mlx = t->type.kind == MFI_Q_MLX;
    const float *row = x;
    if (t->gather)
        memcpy(x, g->slice + ((uint64_t)g->first_row + r) * cols, cols * sizeof *x);
    else
        decode_row(g, r, x);
    transform(x, cols, t);
    if (moves_columns(t)) {
        for (uint32_t c = 0; c < cols; c++)
            moved[c] = x[g->column[c]];
        row = moved;
    }
    if (!encodable(t->type, row, cols))
        return false;
    if (mlx)
        return encode_affine(g, row, work + 2 * float_bytes, r);
    mfi_quant_encode_row(t->type, row, g->weighted ? g->importance : NULL, cols,
                         g->out[0] + r * mfi_quant_row_bytes(t->type, 0, cols));
    return true;
}

static void encode_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    mfi_cv_encoder *g = ctx;
    uint32_t begin, end;
    mfi_pool_range(g->n_rows, 1, worker, n_workers, &begin, &end);
    g->bad[worker] = g->n_rows;
    for (uint32_t r = begin; r < end; r++) {
        if (!encode_row(g, r, g->work + worker * worker_bytes(widest(g->t)))) {
            g->bad[worker] = r;
            return;
        }
    }
}

/* ---- slices that are gathered ---- */

/* The row of its tensor that a slice begins at. */
static uint32_t slice_row(const mfi_cv_encoder *g, uint32_t s)
{
    const mfi_gp_tensor *t = g->t;
    uint32_t row;
    if (t->n_parts == 0)
        return mfi_gp_expert(g->model, t, s)->row;
    mfi_map_source(&g->model->shape, t->parts[0].src.map, s * t->in_rows, &row);
    return row;
}

/* Row `in` of the slice as stored to where it is written from. */
static void scatter_row(const mfi_cv_encoder *g, const float *x, uint32_t in)
{
    const mfi_gp_tensor *t = g->t;
    uint64_t cols = t->cols;
    switch (t->gather) {
    case MFI_GP_IN_ORDER:
        break;
    case MFI_GP_SOME_COLUMNS:
        for (uint32_t c = 0; c < t->cols; c++)
            g->slice[in * cols + c] = x[t->first + t->step * c];
        break;
    case MFI_GP_SOME_ROWS:
        memcpy(g->slice + in / t->step * cols, x, cols * sizeof *x);
        break;
    case MFI_GP_TRANSPOSED:
        for (uint32_t r = 0; r < t->rows; r++)
            g->slice[r * cols + in] = x[t->first + t->step * r];
        break;
    }
}

static void scatter_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    mfi_cv_encoder *g = ctx;
    uint32_t begin, end;
    mfi_pool_range(g->n_rows, 1, worker, n_workers, &begin, &end);
    float *x = (float *)(g->work + worker * worker_bytes(widest(g->t)));
    for (uint32_t r = begin; r < end; r++) {
        uint32_t in = g->first_in + r;
        if (g->t->gather == MFI_GP_SOME_ROWS && in % g->t->step != g->t->first)
            continue;
        decode_row(g, r, x);
        scatter_row(g, x, in);
    }
}

static mf_status gather(mfi_cv_encoder *g, uint32_t s, mfi_cv_progress *progress, mf_error *err)
{
    const mfi_gp_tensor *t = g->t;
    uint64_t in_bytes = mfi_quant_row_bytes(g->in[0]->type, 0, t->in_cols);
    for (g->first_in = 0; g->first_in < t->in_rows; g->first_in += g->n_rows) {
        g->n_rows = MFI_MIN(g->block, t->in_rows - g->first_in);
        uint32_t row = slice_row(g, s) + g->first_in;
        if (g->in[0]->stride) /* slices of a pack lie apart */
            g->n_rows = (uint32_t)MFI_MIN(g->n_rows, mfi_tensor_run(g->in[0], row));
        MFI_TRY(read_run(g, g->in[0], 0, row, g->n_rows, 0, err));
        mfi_pool_run(g->pool, scatter_rows, g);
        MFI_TRY(mfi_cv_advance(progress, g->n_rows * in_bytes, err));
    }
    return MF_OK;
}

/* ---- */

/* Names the row of the input. */
static mf_status check_rows(const mfi_cv_encoder *g, uint32_t s, uint32_t first, mf_error *err)
{
    const mfi_gp_tensor *t = g->t;
    const mfi_catalog *catalog = g->model->catalog;
    uint32_t bad = g->n_rows, id, row;
    for (uint32_t w = 0; w < mfi_pool_size(g->pool); w++)
        bad = MFI_MIN(bad, g->bad[w]);
    if (bad == g->n_rows)
        return MF_OK;
    if (t->gather) {
        id = t->n_parts ? t->parts[0].src.tensor : mfi_gp_expert(g->model, t, s)->tensor;
        row = slice_row(g, s); /* somewhere behind it */
    } else if (t->n_parts == 0) {
        id = mfi_gp_expert(g->model, t, s)->tensor;
        row = mfi_gp_expert(g->model, t, s)->row + first + bad;
    } else {
        id = t->parts[g->rows[bad].part].src.tensor;
        row = PLACE_ROW(g->place[first + bad]);
    }
    char type[64];
    mfi_quant_name(t->type, type, sizeof type);
    return mfi_fail(err, MF_ERR_FORMAT,
                    "%s: tensor %.200s: row %" PRIu32
                    " has a value that is not finite or too large for %s",
                    mfi_catalog_path(catalog), mfi_catalog_name(catalog, id), row, type);
}

static mf_status write_block(const mfi_cv_encoder *g, uint32_t s, uint32_t first, mfi_out *out,
                             const uint64_t offsets[MFI_MAX_PLANES], mf_error *err)
{
    const mfi_gp_tensor *t = g->t;
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++) {
        uint64_t bytes = mfi_quant_row_bytes(t->type, k, t->cols);
        uint64_t at = offsets[k] + ((uint64_t)s * t->rows + first) * bytes;
        MFI_TRY(mfi_out_write(out, g->out[k], g->n_rows * bytes, at, err));
    }
    return MF_OK;
}

mf_status mfi_cv_encode(mfi_cv_encoder *g, const mfi_gp_tensor *t, mfi_out *out,
                        const uint64_t offsets[MFI_MAX_PLANES], mfi_cv_progress *progress,
                        mf_error *err)
{
    g->t = t;
    for (uint32_t k = 0; k < MFI_MAX(t->n_parts, 1); k++)
        g->in[k] = source(g, t, k);
    lay_out(g);
    for (uint32_t k = 0; k < t->n_parts && !t->gather; k++)
        map_rows(g, k);
    if (moves_columns(t))
        map_columns(g, &t->parts[0]);
    uint64_t in_bytes = t->gather ? 0 : mfi_quant_row_bytes(g->in[0]->type, 0, t->cols);
    for (uint32_t s = 0; s < t->n_slices; s++) {
        g->weighted = false;
        if (t->gather)
            MFI_TRY(gather(g, s, progress, err));
        if (g->imatrix && t->type.kind == MFI_Q_GGML)
            MFI_TRY(mfi_im_read(g->imatrix, t->name, s, t->n_slices, t->cols, g->importance,
                                &g->weighted, err));
        for (uint32_t row = 0; row < t->rows; row += g->n_rows) {
            g->n_rows = MFI_MIN(g->block, t->rows - row);
            g->first_row = row;
            MFI_TRY(read_block(g, s, row, err));
            mfi_pool_run(g->pool, encode_rows, g);
            MFI_TRY(check_rows(g, s, row, err));
            MFI_TRY(write_block(g, s, row, out, offsets, err));
            MFI_TRY(mfi_cv_advance(progress, g->n_rows * in_bytes, err));
        }
    }
    return MF_OK;
}
