/* Encoding the tensors of a GGUF file; see gguf_encode.h. Called by the converter's driver, tensor
 * after tensor, on its thread, which reads and writes; rows in between are decoded and encoded by
 * all workers of a pool. Each row's bytes depend on that row alone, so not on their number. */
#include "convert/gguf_encode.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES_MAX (16 * MFI_MIB) /* more would only make cancelling slower */
#define ROWS_MAX        65536
#define ALIGN           64
#define PART_SHIFT      31 /* of a place: which part its row is from */

/* One input row in memory. */
typedef struct row_in {
    const void *planes[MFI_MAX_PLANES];
} row_in;

struct mfi_ge {
    const mfi_model *model;
    const mfi_im_file *imatrix;
    mfi_pool *pool;
    unsigned char *base;
    uint64_t bytes;
    /* Of the tensor at hand: */
    const mfi_gp_tensor *t;
    uint32_t *place;  /* [rows] part and row of its tensor, for each row that is written */
    uint32_t *column; /* [cols] where each column stands; NULL: in order */
    uint32_t n_place, n_column;
    const mfi_tensor *in[MFI_GP_PARTS];
    unsigned char *in_planes[MFI_MAX_PLANES];
    unsigned char *out;
    row_in *rows;             /* [block] */
    float *importance, *work; /* [cols], [workers][2][cols] */
    bool weighted;
    uint32_t block;  /* rows there is room for */
    uint32_t n_rows; /* in the block at hand */
    uint32_t *bad;   /* [workers] first row that can't be encoded, or n_rows */
};

/* ---- buffers ---- */

static uint64_t work_bytes(const mfi_ge *g, uint32_t cols)
{
    return (uint64_t)(1 + 2 * mfi_pool_size(g->pool)) *
           mfi_align_up((uint64_t)cols * sizeof(float), ALIGN);
}

static uint64_t row_bytes(const mfi_gp_tensor *t, mfi_qtype in)
{
    uint64_t bytes = sizeof(row_in) + mfi_quant_row_bytes(t->type, 0, t->cols);
    for (uint32_t p = 0; p < mfi_quant_n_planes(in); p++)
        bytes += mfi_quant_row_bytes(in, p, t->cols);
    return bytes;
}

static const mfi_tensor *source(const mfi_ge *g, const mfi_gp_tensor *t, uint32_t part)
{
    uint32_t id = t->n_parts ? t->parts[part].src.tensor : mfi_gp_expert(g->model, t, part)->tensor;
    return mfi_catalog_tensor(g->model->catalog, id);
}

#define SLACK ((MFI_MAX_PLANES + 3) * ALIGN) /* what aligning the parts of a block may cost */

static uint64_t tables_bytes(const mfi_gp *plan, uint32_t *n_place, uint32_t *n_column)
{
    *n_place = *n_column = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        *n_place = MFI_MAX(*n_place, t->n_parts ? t->rows : 0);
        for (uint32_t k = 0; k < t->n_parts; k++)
            if (t->parts[k].map == MFI_MAP_TILED_COLS || t->parts[k].src.map == MFI_MAP_TILED_COLS)
                *n_column = MFI_MAX(*n_column, t->cols);
    }
    return ((uint64_t)*n_place + *n_column) * sizeof(uint32_t);
}

mf_status mfi_ge_open(mfi_ge **encoder, const mfi_gp *plan, const mfi_model *model, mfi_pool *pool,
                      const mfi_im_file *imatrix, uint64_t memory_bytes, mf_error *err)
{
    mfi_ge *g = calloc(1, sizeof *g);
    if (!g)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the converter");
    *g = (mfi_ge){.model = model, .imatrix = imatrix, .pool = pool};
    uint64_t tables = tables_bytes(plan, &g->n_place, &g->n_column), need = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const mfi_gp_tensor *t = &plan->tensors[i];
        uint64_t one = row_bytes(t, source(g, t, 0)->type) + SLACK;
        need = MFI_MAX(need, work_bytes(g, t->cols) + one);
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
    g->bad = malloc(mfi_pool_size(pool) * sizeof *g->bad);
    *encoder = g;
    if (!g->base || !g->place || !g->column || !g->bad) {
        mfi_ge_close(encoder);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %" PRIu64 " bytes of buffers",
                        need + tables);
    }
    return MF_OK;
}

void mfi_ge_close(mfi_ge **encoder)
{
    mfi_ge *g = *encoder;
    if (!g)
        return;
    free(g->base);
    free(g->place);
    free(g->column);
    free(g->bad);
    free(g);
    *encoder = NULL;
}

static void lay_out(mfi_ge *g)
{
    const mfi_gp_tensor *t = g->t;
    mfi_qtype in = g->in[0]->type;
    uint64_t float_bytes = mfi_align_up((uint64_t)t->cols * sizeof(float), ALIGN);
    uint64_t room = (g->bytes - work_bytes(g, t->cols) - SLACK) / row_bytes(t, in);
    g->block = (uint32_t)MFI_MIN(MFI_MIN(room, (uint64_t)t->rows), ROWS_MAX);
    unsigned char *p = g->base;
    g->importance = (float *)p;
    g->work = (float *)(p + float_bytes);
    p += work_bytes(g, t->cols);
    g->rows = (row_in *)p;
    p += mfi_align_up(g->block * sizeof(row_in), ALIGN);
    g->out = p;
    p += mfi_align_up(g->block * mfi_quant_row_bytes(t->type, 0, t->cols), ALIGN);
    for (uint32_t k = 0; k < mfi_quant_n_planes(in); k++) {
        g->in_planes[k] = p;
        p += mfi_align_up(g->block * mfi_quant_row_bytes(in, k, t->cols), ALIGN);
    }
}

/* ---- where rows and columns come from ---- */

static void map_rows(mfi_ge *g, uint32_t part)
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

static void map_columns(mfi_ge *g, const mfi_gp_part *p)
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

/* Reads rows [row, row + n) of a tensor behind the `filled` rows that the block has. */
static mf_status read_run(mfi_ge *g, const mfi_tensor *t, uint32_t row, uint32_t n, uint32_t filled,
                          mf_error *err)
{
    for (uint32_t p = 0; p < mfi_quant_n_planes(t->type); p++) {
        uint64_t bytes = mfi_quant_row_bytes(t->type, p, g->t->cols);
        uint32_t per = mfi_quant_rows_per_row(t->type, p), first = row / per;
        uint64_t n_stored = (row + n - 1) / per - first + 1; /* never more than n */
        unsigned char *dst = g->in_planes[p] + filled * bytes;
        MFI_TRY(mfi_file_read(mfi_catalog_file(g->model->catalog, t->file[p]), dst,
                              n_stored * bytes, t->offset[p] + first * bytes, err));
        for (uint32_t r = 0; r < n; r++)
            g->rows[filled + r].planes[p] = dst + ((row + r) / per - first) * bytes;
    }
    return MF_OK;
}

/* Reads what rows [first, first + n_rows) of slice `s` are made from. */
static mf_status read_block(mfi_ge *g, uint32_t s, uint32_t first, mf_error *err)
{
    if (g->t->n_parts == 0) {
        const mfi_expert_src *src = mfi_gp_expert(g->model, g->t, s);
        return read_run(g, mfi_catalog_tensor(g->model->catalog, src->tensor), src->row + first,
                        g->n_rows, 0, err);
    }
    for (uint32_t r = 0, n; r < g->n_rows; r += n) {
        uint32_t place = g->place[first + r];
        for (n = 1; r + n < g->n_rows && g->place[first + r + n] == place + n; n++)
            ;
        uint32_t row = place & ~((uint32_t)1 << PART_SHIFT);
        MFI_TRY(read_run(g, g->in[place >> PART_SHIFT], row, n, r, err));
    }
    return MF_OK;
}

/* False if a value is not finite, or beyond what a half float, which all but the wide types store,
 * can hold. No early exit, so that it is vectorised. */
static bool encodable(mfi_qtype type, const float *x, uint32_t n)
{
    float limit = type.kind == MFI_Q_F32 || type.kind == MFI_Q_BF16 ? 3.38e38f : 65504.0f;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++)
        bad |= !(fabsf(x[i]) <= limit);
    return !bad;
}

static void transform(float *x, uint32_t n, mfi_load load)
{
    for (uint32_t i = 0; i < n; i++) {
        if (load == MFI_LOAD_F32_PLUS1)
            x[i] += 1.0f;
        else if (load == MFI_LOAD_F32_NEG_EXP)
            x[i] = -expf(x[i]);
    }
}

static void encode_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    mfi_ge *g = ctx;
    const mfi_gp_tensor *t = g->t;
    uint32_t begin, end, cols = t->cols;
    uint64_t stride = mfi_align_up((uint64_t)cols * sizeof(float), ALIGN) / sizeof(float);
    float *x = g->work + 2 * worker * stride, *moved = x + stride;
    uint64_t out_bytes = mfi_quant_row_bytes(t->type, 0, cols);
    mfi_load load = t->n_parts ? t->parts[0].src.load : MFI_LOAD_MATRIX;
    mfi_pool_range(g->n_rows, 1, worker, n_workers, &begin, &end);
    g->bad[worker] = g->n_rows;
    for (uint32_t r = begin; r < end; r++) {
        const float *row = x;
        mfi_dequant_row_wide(g->in[0]->type, g->rows[r].planes, cols, x);
        transform(x, cols, load);
        if (moves_columns(t)) {
            for (uint32_t c = 0; c < cols; c++)
                moved[c] = x[g->column[c]];
            row = moved;
        }
        if (!encodable(t->type, row, cols)) {
            g->bad[worker] = r;
            return;
        }
        mfi_quant_encode_row(t->type, row, g->weighted ? g->importance : NULL, cols,
                             g->out + r * out_bytes);
    }
}

static mf_status check_rows(const mfi_ge *g, uint32_t s, uint32_t first, mf_error *err)
{
    uint32_t bad = g->n_rows;
    for (uint32_t w = 0; w < mfi_pool_size(g->pool); w++)
        bad = MFI_MIN(bad, g->bad[w]);
    if (bad == g->n_rows)
        return MF_OK;
    char type[64];
    mfi_quant_name(g->t->type, type, sizeof type);
    return mfi_fail(err, MF_ERR_FORMAT,
                    "%s: tensor %s as written: row %" PRIu32 " of matrix %" PRIu32
                    " has a value that is not finite or too large for %s",
                    mfi_catalog_path(g->model->catalog), g->t->name, first + bad, s, type);
}

mf_status mfi_ge_tensor(mfi_ge *g, const mfi_gp_tensor *t, mfi_gguf_out *out, uint64_t offset,
                        mfi_cv_progress *progress, mf_error *err)
{
    uint64_t out_bytes = mfi_quant_row_bytes(t->type, 0, t->cols);
    g->t = t;
    for (uint32_t k = 0; k < MFI_MAX(t->n_parts, 1); k++)
        g->in[k] = source(g, t, k);
    MFI_ASSERT(t->n_parts < 2 || mfi_qtype_equal(g->in[0]->type, g->in[1]->type)); /* one tensor */
    lay_out(g);
    for (uint32_t k = 0; k < t->n_parts; k++)
        map_rows(g, k);
    if (moves_columns(t))
        map_columns(g, &t->parts[0]);
    uint64_t in_bytes = mfi_quant_row_bytes(g->in[0]->type, 0, t->cols);
    for (uint32_t s = 0; s < t->n_slices; s++) {
        g->weighted = false;
        if (g->imatrix && t->type.kind == MFI_Q_GGML)
            MFI_TRY(mfi_im_read(g->imatrix, t->name, s, t->n_slices, t->cols, g->importance,
                                &g->weighted, err));
        for (uint32_t row = 0; row < t->rows; row += g->n_rows) {
            g->n_rows = MFI_MIN(g->block, t->rows - row);
            MFI_TRY(read_block(g, s, row, err));
            mfi_pool_run(g->pool, encode_rows, g);
            MFI_TRY(check_rows(g, s, row, err));
            MFI_TRY(mfi_gguf_write(out, g->out, g->n_rows * out_bytes,
                                   offset + ((uint64_t)s * t->rows + row) * out_bytes, err));
            MFI_TRY(mfi_cv_advance(progress, g->n_rows * in_bytes, err));
        }
    }
    return MF_OK;
}
