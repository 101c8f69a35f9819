/* Encoding tensors; see encode.h. Called by the converter's driver, tensor after tensor, on its
 * thread. Holds a few megabytes at a time, whatever the size of the tensor. */
#include "convert/encode.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define BLOCK_BYTES_MAX (16 * MFI_MIB) /* more would only make cancelling slower */
#define PROGRESS_NS     200000000u
#define ALIGN           64

mf_status mfi_cv_advance(mfi_cv_progress *p, uint64_t bytes, mf_error *err)
{
    p->done += bytes;
    if (!p->fn)
        return MF_OK;
    uint64_t now = mfi_clock_ns();
    if (p->last_ns && now - p->last_ns < PROGRESS_NS && p->done < p->total)
        return MF_OK;
    p->last_ns = now;
    if (!p->fn(p->user, "converting", "bytes", p->done, p->total))
        return mfi_fail(err, MF_ERR_CANCELLED, "conversion cancelled");
    return MF_OK;
}

/* ---- buffers ---- */

/* One row as floats and as codes: needed once. */
static uint64_t fixed_bytes(const mfi_cv_tensor *t)
{
    if (t->op != MFI_CV_OP_QUANTISE)
        return 0;
    return mfi_align_up(t->cols * sizeof(float), ALIGN) + mfi_align_up(t->cols, ALIGN);
}

/* A row as read and its planes: needed for each row of a block. */
static uint64_t row_bytes(const mfi_cv_tensor *t)
{
    uint64_t bytes = mfi_quant_row_bytes(t->in, 0, t->cols);
    for (uint32_t k = 0; t->op == MFI_CV_OP_QUANTISE && k < MFI_MAX_PLANES; k++)
        bytes += mfi_quant_row_bytes(t->out, k, t->cols);
    return bytes;
}

#define SLACK (4 * ALIGN) /* what aligning the parts of a block may cost */

mf_status mfi_cv_buffers_open(mfi_cv_buffers *buffers, const mfi_cv_plan *plan,
                              uint64_t memory_bytes, mf_error *err)
{
    uint64_t need = 64 * MFI_KIB; /* small files are copied through it, too */
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        uint64_t one = fixed_bytes(&plan->tensors[i]) + row_bytes(&plan->tensors[i]) + SLACK;
        need = MFI_MAX(need, one);
    }
    if (need > memory_bytes)
        return mfi_fail(err, MF_ERR_BUDGET,
                        "a row of the widest tensor needs %" PRIu64 " bytes of buffers, but only "
                        "%" PRIu64 " are allowed",
                        need, memory_bytes);
    uint64_t bytes = MFI_MAX(need, MFI_MIN(memory_bytes, (uint64_t)BLOCK_BYTES_MAX));
    unsigned char *base = malloc(bytes);
    if (!base)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %" PRIu64 " bytes of buffers", bytes);
    *buffers = (mfi_cv_buffers){base, bytes};
    return MF_OK;
}

void mfi_cv_buffers_close(mfi_cv_buffers *buffers)
{
    free(buffers->base);
    *buffers = (mfi_cv_buffers){0};
}

/* ---- rows ---- */

static void put_float(mfi_qkind kind, float value, unsigned char *at)
{
    if (kind == MFI_Q_F32) {
        memcpy(at, &value, sizeof value);
    } else {
        uint16_t h = kind == MFI_Q_F16 ? mfi_f32_to_f16(value) : mfi_f32_to_bf16(value);
        memcpy(at, &h, sizeof h);
    }
}

/* No early exit, so that it is vectorised. */
static bool all_finite(const float *x, uint64_t n)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        bad |= (u & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

typedef struct block {
    unsigned char *in;
    unsigned char *planes[MFI_MAX_PLANES];
    float *row;
    uint8_t *codes;
    uint64_t rows; /* it has room for */
} block;

static block make_block(const mfi_cv_tensor *t, const mfi_cv_buffers *buffers)
{
    block b = {0};
    uint64_t per_row = row_bytes(t), fixed = fixed_bytes(t);
    b.rows = t->slice_rows;
    if (per_row)
        b.rows = MFI_MIN(b.rows, (buffers->bytes - fixed - SLACK) / per_row);
    unsigned char *p = buffers->base;
    if (t->op == MFI_CV_OP_QUANTISE) {
        b.row = (float *)p;
        p += mfi_align_up(t->cols * sizeof(float), ALIGN);
        b.codes = p;
        p += mfi_align_up(t->cols, ALIGN);
        for (uint32_t k = 0; k < MFI_MAX_PLANES; k++) {
            b.planes[k] = p;
            p += mfi_align_up(b.rows * mfi_quant_row_bytes(t->out, k, t->cols), ALIGN);
        }
    }
    b.in = p;
    if (t->op != MFI_CV_OP_QUANTISE)
        b.planes[0] = b.in; /* done in place */
    return b;
}

/* False if a value or a scale is not finite. */
static bool quantise_row(const mfi_cv_tensor *t, const block *b, uint64_t r)
{
    uint64_t group = t->out.group, n_groups = t->cols / group;
    mfi_qkind kind = (mfi_qkind)t->out.scale;
    uint64_t scale_bytes = mfi_quant_row_bytes(t->out, 1, t->cols);
    const void *in[MFI_MAX_PLANES] = {b->in + r * mfi_quant_row_bytes(t->in, 0, t->cols)};
    mfi_dequant_row(t->in, in, t->cols, b->row);
    if (!all_finite(b->row, t->cols))
        return false;
    for (uint64_t g = 0; g < n_groups; g++) {
        float scale, bias;
        mfi_mlx_quantize_group(b->row + g * group, (uint32_t)group, t->out.bits, kind,
                               b->codes + g * group, &scale, &bias);
        if (!isfinite(scale))
            return false;
        uint64_t at = r * scale_bytes + g * (scale_bytes / n_groups);
        put_float(kind, scale, b->planes[1] + at);
        put_float(kind, bias, b->planes[2] + at);
    }
    mfi_mlx_pack(b->codes, t->cols, t->out.bits,
                 b->planes[0] + r * mfi_quant_row_bytes(t->out, 0, t->cols));
    return true;
}

static void add_one(const mfi_cv_tensor *t, unsigned char *row)
{
    uint64_t width = mfi_quant_row_bytes(t->in, 0, t->cols) / t->cols;
    for (uint64_t i = 0; i < t->cols; i++) {
        float value;
        const void *in[MFI_MAX_PLANES] = {row + i * width};
        mfi_dequant_row(t->in, in, 1, &value);
        put_float((mfi_qkind)t->in.kind, value + 1, row + i * width);
    }
}

static mf_status encode_block(const mfi_cv_tensor *t, const block *b, uint64_t n_rows,
                              const char *in_name, uint64_t in_row, mf_error *err)
{
    for (uint64_t r = 0; r < n_rows; r++) {
        if (t->op == MFI_CV_OP_QUANTISE && !quantise_row(t, b, r))
            return mfi_fail(err, MF_ERR_FORMAT,
                            "tensor %.200s: row %" PRIu64
                            " has a value that is not finite or too large to be quantised",
                            in_name, in_row + r);
        if (t->op == MFI_CV_OP_ADD_ONE && t->cols)
            add_one(t, b->in + r * mfi_quant_row_bytes(t->in, 0, t->cols));
    }
    return MF_OK;
}

mf_status mfi_cv_encode(const mfi_cv_plan *plan, const mfi_cv_tensor *t, const mfi_catalog *catalog,
                        const mfi_cv_buffers *buffers, mfi_out *out, mfi_cv_progress *progress,
                        mf_error *err)
{
    block b = make_block(t, buffers);
    const mfi_st_entry *entries = plan->shards[t->shard].entries + t->entry;
    for (uint64_t s = 0; s < t->n_slices; s++) {
        uint32_t id = t->n_sources > 1 ? t->sources[s] : t->sources[0];
        uint64_t first = t->n_sources > 1 ? 0 : t->first_row + s * t->row_stride;
        const mfi_tensor *in = mfi_catalog_tensor(catalog, id);
        for (uint64_t row = 0, n; row < t->slice_rows; row += n) {
            n = MFI_MIN(b.rows, t->slice_rows - row);
            mfi_extent e = mfi_tensor_extent(in, 0, first + row, n);
            MFI_TRY(mfi_file_read(mfi_catalog_file(catalog, e.file), b.in, e.len, e.offset, err));
            MFI_TRY(encode_block(t, &b, n, mfi_catalog_name(catalog, id), first + row, err));
            for (uint32_t k = 0; k < mfi_quant_n_planes(t->out); k++) {
                uint64_t bytes = mfi_quant_row_bytes(t->out, k, t->cols);
                uint64_t at = entries[k].offset + (s * t->slice_rows + row) * bytes;
                MFI_TRY(mfi_out_write(out, b.planes[k], n * bytes, at, err));
            }
            MFI_TRY(mfi_cv_advance(progress, e.len, err));
        }
    }
    return MF_OK;
}
