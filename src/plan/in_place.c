/* Which weights a device uses where they lie in the mapping of their files, or copies from there,
 * and which ranges of files that makes. Pure; called while the plan is made. */
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

/* Nothing but EMBED reads it. */
static bool is_table(const mfi_program *p, uint32_t weight)
{
    bool embeds = false;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const mfi_op *op = &p->ops[i];
        embeds |= op->code == MFI_OP_EMBED && op->w[0] == weight;
        for (uint32_t j = 0; op->code == MFI_OP_MATMUL && j < op->n; j++)
            if (op->w[j] == weight)
                return false;
    }
    return embeds;
}

static bool is_wanted(const mfi_program *p, uint32_t i, const mfi_in_place *which)
{
    const mfi_program_weight *w = &p->weights[i];
    uint64_t bytes = 0;
    for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++)
        bytes += mfi_quant_plane_bytes(w->type, k, w->rows, w->cols);
    return bytes >= which->least_bytes || (which->tables && is_table(p, i));
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

/* Sorts ranges and joins neighbours as far as one buffer holds them: splits fall between tensors.
 */
static void join(mfi_plan *plan, const mfi_plan_device *d)
{
    uint32_t n = 0;
    qsort(plan->ranges, plan->n_ranges, sizeof *plan->ranges, by_place);
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
static mf_status list(mfi_plan *plan, const mfi_model *model, uint32_t tensor,
                      const mfi_plan_device *d, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(model->catalog, tensor);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++) {
        mfi_weight_range r = {t->file[k], t->offset[k], mfi_tensor_span(t, k)};
        if (d->max_buf_bytes && widened(&r, d->page_bytes) > d->max_buf_bytes)
            return mfi_fail(err, MF_ERR_DEVICE,
                            "%s: tensor %s of %" PRIu64
                            " bytes is larger than a buffer of the device (%" PRIu64 ")",
                            mfi_catalog_file(model->catalog, r.file)->path,
                            mfi_catalog_name(model->catalog, tensor), r.len, d->max_buf_bytes);
        plan->ranges[plan->n_ranges++] = r;
    }
    return MF_OK;
}

/* Tensors of experts, each once: stacked ones are named by every expert of the layer. */
static mf_status list_experts(mfi_plan *plan, const mfi_model *model, const mfi_plan_device *d,
                              mf_error *err)
{
    const mfi_shape *s = &model->shape;
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
            const mfi_expert_mat *mat = &plan->program.experts[layer].proj[proj];
            uint32_t last = MFI_TENSOR_NONE;
            if (!mfi_model_routed(model, layer) || mat->rows == 0)
                continue;
            for (uint32_t e = 0; e < s->n_experts; e++) {
                size_t at = (size_t)layer * s->n_experts + e;
                uint32_t tensor = model->experts[at * MFI_EXPERT_PROJS + proj].tensor;
                if (tensor != last)
                    MFI_TRY(list(plan, model, tensor, d, err));
                last = tensor;
            }
            if (mat->n_bias)
                MFI_TRY(
                    list(plan, model, model->expert_bias[layer * MFI_EXPERT_PROJS + proj], d, err));
        }
    }
    return MF_OK;
}

static mf_status list_dense(mfi_plan *plan, const mfi_model *model, const mfi_plan_device *d,
                            const mfi_in_place *which, mf_error *err)
{
    mfi_program *p = &plan->program;
    plan->n_in_place = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        mfi_program_weight *w = &p->weights[i];
        w->in_place =
            usable(p, w, mfi_catalog_tensor(model->catalog, w->tensor), d->weight_align) &&
            is_wanted(p, i, which);
        plan->n_in_place += w->in_place;
        if (w->in_place)
            MFI_TRY(list(plan, model, w->tensor, d, err));
    }
    if (plan->n_in_place == 0)
        return MF_OK; /* all of them lie as they did */
    p->dense_bytes = p->dense_gap_bytes = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        mfi_program_weight *w = &p->weights[i];
        for (uint32_t k = 0; !w->in_place && k < mfi_quant_n_planes(w->type); k++) {
            w->offset[k] = p->dense_bytes;
            p->dense_bytes = mfi_align_up(
                p->dense_bytes + mfi_quant_plane_bytes(w->type, k, w->rows, w->cols), ALIGN);
        }
    }
    return MF_OK;
}

uint64_t mfi_plan_movable_bytes(const mfi_plan *plan, const mfi_model *model,
                                const mfi_plan_device *d)
{
    const mfi_program *p = &plan->program;
    uint64_t bytes = 0;
    for (uint32_t i = 0; d->weight_align && i < p->n_weights; i++) {
        const mfi_program_weight *w = &p->weights[i];
        if (w->in_place ||
            !usable(p, w, mfi_catalog_tensor(model->catalog, w->tensor), d->weight_align))
            continue;
        for (uint32_t k = 0; k < mfi_quant_n_planes(w->type); k++)
            bytes += mfi_quant_plane_bytes(w->type, k, w->rows, w->cols);
    }
    return bytes;
}

mf_status mfi_plan_in_place(mfi_plan *plan, const mfi_model *model, const mfi_plan_device *d,
                            const mfi_in_place *which, mf_error *err)
{
    const mfi_shape *s = &model->shape;
    size_t n = (size_t)plan->program.n_weights * MFI_MAX_PLANES + 1;
    if (which->experts)
        n += (size_t)s->n_layers * (s->n_experts * MFI_MAX_PLANES + 1) * MFI_EXPERT_PROJS;
    plan->in_place = *which;
    plan->page_bytes = d->page_bytes;
    plan->max_buf_bytes = d->max_buf_bytes;
    free(plan->ranges);
    plan->n_ranges = 0;
    plan->ranges = calloc(n, sizeof *plan->ranges);
    if (!plan->ranges)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %zu ranges of weights", n);
    MFI_TRY(list_dense(plan, model, d, which, err));
    join(plan, d);
    plan->mapped_dense_bytes = plan->mapped_bytes;
    if (which->experts)
        MFI_TRY(list_experts(plan, model, d, err));
    join(plan, d);
    return MF_OK;
}
