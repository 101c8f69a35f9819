/* Weights that a device uses in the mapping of their files, or copies from there: maps those files,
 * binds the ranges that the plan names, and tells the backend where each plane lies and a tier
 * where the ranges do. Called at open and close, on the engine's thread. It reads no mapped byte.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "engine_int.h"
#include "format/weight_map.h"

struct mfi_engine_mapped {
    mfi_weight_device device;
    mf_weight_map **maps;     /* [n_files]; NULL where nothing is used */
    mf_weight_buf **bufs;     /* [n_ranges] */
    mfi_mapped_range *ranges; /* [n_ranges] the same, for a tier */
    uint32_t n_files, n_ranges;
};

void mfi_engine_mapped_close(mfi_engine_mapped **mapped)
{
    mfi_engine_mapped *m = *mapped;
    if (!m)
        return;
    for (uint32_t i = 0; m->bufs && i < m->n_ranges; i++)
        mf_weight_buf_close(&m->bufs[i]);
    for (uint32_t i = 0; m->maps && i < m->n_files; i++)
        (void)mf_weight_map_close(&m->maps[i], NULL);
    free(m->ranges);
    free(m->bufs);
    free(m->maps);
    free(m);
    *mapped = NULL;
}

/* The buffer whose range has the whole plane: ranges were made of whole ones. */
static const mf_weight_buf *buf_of(const mfi_engine_mapped *m, const mfi_plan *plan,
                                   const mfi_tensor *t, uint32_t plane)
{
    uint64_t begin = t->offset[plane], end = begin + mfi_tensor_span(t, plane);
    for (uint32_t i = 0; i < plan->n_ranges; i++) {
        const mfi_weight_range *r = &plan->ranges[i];
        if (r->file == t->file[plane] && r->offset <= begin && end <= r->offset + r->len)
            return m->bufs[i];
    }
    MFI_ASSERT(!"the plan has a range for every plane in place");
    return NULL;
}

mfi_extent mfi_mapped_extent(const mfi_plan *plan, const mfi_catalog *catalog, uint32_t weight,
                             uint32_t plane)
{
    const mfi_program_weight *w = &plan->program.weights[weight];
    uint32_t row = 0;
    if (w->map != MFI_MAP_NONE)
        mfi_map_source(&plan->program.shape, w->map, 0, &row);
    return mfi_tensor_extent(mfi_catalog_tensor(catalog, w->tensor), plane, row, w->rows);
}

static mf_status place(const mfi_engine_mapped *m, const mfi_plan *plan, const mfi_catalog *catalog,
                       uint32_t weight, mfi_backend *backend, mf_error *err)
{
    const mfi_program_weight *w = &plan->program.weights[weight];
    const mfi_tensor *t = mfi_catalog_tensor(catalog, w->tensor);
    const char *name = mfi_catalog_name(catalog, w->tensor);
    for (uint32_t k = 0; k < mfi_quant_n_planes(t->type); k++) {
        const mf_weight_buf *buf = buf_of(m, plan, t, k);
        uint64_t at, len;
        MFI_TRY(mf_weight_buf_offset(buf, name, k, &at, &len, err));
        mfi_extent x = mfi_mapped_extent(plan, catalog, weight, k);
        backend->device->binding->place(backend, weight, k, mf_weight_buf_handle(buf),
                                        at + (x.offset - t->offset[k]));
    }
    return MF_OK;
}

static mf_status open_mapped(mfi_engine_mapped *m, const mfi_plan *plan, const mfi_catalog *catalog,
                             mf_progress_fn progress, void *user, mf_error *err)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < plan->n_ranges; i++) {
        const mfi_weight_range *r = &plan->ranges[i];
        if (!m->maps[r->file])
            MFI_TRY(mf_weight_map_open(&m->maps[r->file], catalog, r->file, err));
        MFI_TRY(
            mf_weight_buf_open(&m->bufs[i], m->maps[r->file], &m->device, r->offset, r->len, err));
        const char *base = mf_weight_map_base(m->maps[r->file]);
        m->ranges[i] = (mfi_mapped_range){r->file, r->offset, r->len, base + r->offset};
        done += mf_weight_buf_len(m->bufs[i]);
        if (progress && !progress(user, "mapping", "bytes", done, plan->mapped_bytes))
            return mfi_fail(err, MF_ERR_CANCELLED, "cancelled while weights were mapped");
    }
    return MF_OK;
}

mf_status mfi_engine_mapped_open(mfi_engine_mapped **mapped, const mfi_plan *plan,
                                 const mfi_catalog *catalog, mfi_backend *backend,
                                 mf_progress_fn progress, void *user, mf_error *err)
{
    const mfi_binding_ops *ops = backend->device->binding;
    mfi_engine_mapped *m = calloc(1, sizeof *m);
    if (!m)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for weights in place");
    m->device = (mfi_weight_device){.ctx = backend,
                                    .page = plan->page_bytes,
                                    .max_buf_bytes = plan->max_buf_bytes,
                                    .bind = ops->bind,
                                    .unbind = ops->unbind};
    m->n_files = mfi_catalog_n_files(catalog);
    m->n_ranges = plan->n_ranges;
    m->maps = calloc(m->n_files, sizeof *m->maps);
    m->bufs = calloc(m->n_ranges, sizeof *m->bufs);
    m->ranges = calloc(m->n_ranges, sizeof *m->ranges);
    mf_status status = m->maps && m->bufs && m->ranges
                           ? open_mapped(m, plan, catalog, progress, user, err)
                           : mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for weights in place");
    if (status != MF_OK)
        mfi_engine_mapped_close(&m);
    *mapped = m;
    return status;
}

mf_status mfi_engine_mapped_place(const mfi_engine_mapped *m, const mfi_plan *plan,
                                  const mfi_catalog *catalog, mfi_backend *backend, mf_error *err)
{
    for (uint32_t i = 0; i < plan->program.n_weights; i++)
        if (plan->program.weights[i].in_place)
            MFI_TRY(place(m, plan, catalog, i, backend, err));
    return MF_OK;
}

const mfi_mapped_range *mfi_engine_mapped_ranges(const mfi_engine_mapped *m)
{
    return m->ranges;
}
