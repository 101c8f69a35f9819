/* Which weights a device uses where they lie in the mapping of their files, and which ranges of
 * files that makes. Pure; called while the plan is made. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan_int.h"

#define ALIGN ((uint64_t)64)
/* Weights with at most so much of others between them share a range. */
#define JOIN_BYTES ((uint64_t)64 << 10)

/* Weights that ops read as they are stored and in the order they are stored in. */
static bool usable(const mfi_program *p, const mfi_program_weight *w, const mfi_tensor *t,
                   uint32_t align)
{
    uint32_t src = 0;
    if (w->load != MFI_LOAD_MATRIX || w->map == MFI_MAP_TILED_COLS || w->map == MFI_MAP_ROPE_PAIRS)
        return false;
    if (w->map != MFI_MAP_NONE && mfi_map_source(&p->shape, w->map, 0, &src) < w->rows)
        return false;
    if (w->rows == 0 || mfi_tensor_run(t, src) < w->rows)
        return false;
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++)
        if (src % mfi_quant_rows_per_row(t->type, k) != 0 ||
            mfi_tensor_extent(t, k, src, w->rows).offset % align != 0)
            return false;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const mfi_weight_range *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->len < y->len ? -1 : x->len > y->len;
}

/* What a buffer of the range takes: whole pages on both sides. */
static uint64_t widened(const mfi_weight_range *r, uint64_t page)
{
    return mfi_align_up(r->offset + r->len, page) - (r->offset & ~(page - 1));
}

/* Joins neighbours in sorted ranges as far as one buffer holds them: splits fall between tensors.
 */
static void join(mfi_plan *plan, const mfi_plan_device *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < plan->n_ranges; i++) {
        mfi_weight_range *last = n ? &plan->ranges[n - 1] : NULL, r = plan->ranges[i];
        if (last && last->file == r.file && r.offset <= last->offset + last->len + JOIN_BYTES) {
            uint64_t end = MFI_MAX(last->offset + last->len, r.offset + r.len);
            mfi_weight_range both = {r.file, last->offset, end - last->offset};
            if (!d->max_buf_bytes || widened(&both, d->page_bytes) <= d->max_buf_bytes) {
                *last = both;
                continue;
            }
        }
        plan->ranges[n++] = r;
    }
    plan->n_ranges = n;
    plan->mapped_bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        plan->mapped_bytes += widened(&plan->ranges[i], d->page_bytes);
}

/* The whole tensors of a weight: those who share one see the same range. */
static mf_status list(mfi_plan *plan, const mfi_model *model, const mfi_program_weight *w,
                      const mfi_plan_device *d, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(model->catalog, w->tensor);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++) {
        mfi_weight_range r = {t->file[k], t->offset[k], mfi_tensor_span(t, k)};
        if (d->max_buf_bytes && widened(&r, d->page_bytes) > d->max_buf_bytes)
            return mfi_fail(err, MF_ERR_DEVICE,
                            "%s: tensor %s of %" PRIu64
                            " bytes is larger than a buffer of the device (%" PRIu64 ")",
                            mfi_catalog_file(model->catalog, r.file)->path,
                            mfi_catalog_name(model->catalog, w->tensor), r.len, d->max_buf_bytes);
        plan->ranges[plan->n_ranges++] = r;
    }
    return MF_OK;
}

mf_status mfi_plan_in_place(mfi_plan *plan, const mfi_model *model, const mfi_plan_device *d,
                            mf_error *err)
{
    mfi_program *p = &plan->program;
    plan->page_bytes = d->page_bytes;
    plan->max_buf_bytes = d->max_buf_bytes;
    free(plan->ranges);
    plan->n_ranges = plan->n_in_place = 0;
    plan->ranges = calloc((size_t)p->n_weights * MFI_MAX_PLANES + 1, sizeof *plan->ranges);
    if (!plan->ranges)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for ranges of %u weights", p->n_weights);
    p->dense_bytes = p->dense_gap_bytes = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        mfi_program_weight *w = &p->weights[i];
        const mfi_tensor *t = mfi_catalog_tensor(model->catalog, w->tensor);
        w->in_place = usable(p, w, t, d->weight_align);
        if (w->in_place) {
            plan->n_in_place++;
            MFI_TRY(list(plan, model, w, d, err));
            continue;
        }
        for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++) {
            w->offset[k] = p->dense_bytes;
            p->dense_bytes = mfi_align_up(
                p->dense_bytes + mfi_quant_plane_bytes(w->type, k, w->rows, w->cols), ALIGN);
        }
    }
    qsort(plan->ranges, plan->n_ranges, sizeof *plan->ranges, by_place);
    join(plan, d);
    return MF_OK;
}
