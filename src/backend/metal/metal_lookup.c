/* Looking experts up on the device: the table of where each one is, what routers chose, and the
 * word that stops kernels behind a router that found nothing. The host touches none of them while
 * a command buffer that does is under way. Called on the engine's thread. */
#include <string.h>

#include "backend/metal/metal_int.h"

/* Where ids of a layer are; kernels are bound at multiples of 4. */
static uint64_t ids_offset(const mfi_program *p, uint32_t layer)
{
    uint64_t n = (uint64_t)MFI_MIN(p->chunk, MFI_MAX_LOOKUP_TOK) * p->shape.top_k;
    return layer * mfi_align_up(n * sizeof(uint16_t), 16);
}

uint64_t mfi_metal_chosen_bytes(const mfi_program *p)
{
    return ids_offset(p, p->shape.n_layers);
}

uint64_t mfi_metal_slots_bytes(const mfi_program *p)
{
    return (uint64_t)p->shape.n_layers * p->shape.n_experts * sizeof(uint64_t);
}

void mfi_metal_slots_clear(mfi_metal *m)
{
    memset(m->slots.host, 0xff, m->slots.len);
    _Static_assert(MFI_METAL_NOWHERE == UINT64_MAX, "all bits");
}

mfi_metal_ref mfi_metal_slots_of(const mfi_metal *m, uint32_t layer)
{
    return mfi_metal_at(&m->slots, (uint64_t)layer * m->p->shape.n_experts * sizeof(uint64_t));
}

mfi_metal_ref mfi_metal_chosen_of(const mfi_metal *m, uint32_t layer)
{
    return mfi_metal_at(&m->chosen, ids_offset(m->p, layer));
}

static uint64_t slot_of(const mfi_metal *m, const void *data)
{
    return data ? MFI_METAL_SLOT(0, (uintptr_t)data - (uintptr_t)m->mem[MFI_MEM_SLOTS].host)
                : MFI_METAL_NOWHERE;
}

static void place(mfi_backend *b, uint32_t layer, uint32_t expert, const void *data)
{
    mfi_metal *m = (mfi_metal *)b;
    ((uint64_t *)(void *)m->slots.host)[layer * m->p->shape.n_experts + expert] = slot_of(m, data);
}

static mf_status run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                     mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    MFI_ASSERT(step->n_tok <= MFI_MAX_LOOKUP_TOK && !m->settled);
    m->look_end = first + n;
    mf_status status = b->run(b, first, n, step, err);
    m->look_end = 0;
    return status;
}

static mf_status stopped(mfi_backend *b, uint32_t *layer, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    *layer = UINT32_MAX;
    mf_status status = mfi_metal_sync(b, err); /* also after a failure nothing is under way */
    uint32_t *word = (uint32_t *)(void *)m->stop.host;
    if (*word)
        *layer = *word - 1;
    *word = 0;
    return status;
}

static const uint16_t *chosen(mfi_backend *b, uint32_t layer)
{
    const mfi_metal *m = (const mfi_metal *)b;
    return (const uint16_t *)(const void *)(m->chosen.host + ids_offset(m->p, layer));
}

mf_status mfi_metal_bind_experts(mfi_backend *b, const uint64_t *slots, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    uint64_t n = (uint64_t)m->p->shape.n_layers * m->p->shape.n_experts;
    MFI_ASSERT(!m->settled);
    MFI_TRY(mfi_metal_sync(b, err));
    for (uint64_t i = 0; i < n; i++)
        ((uint64_t *)(void *)m->slots.host)[i] = slot_of(m, (const void *)(uintptr_t)slots[i]);
    m->settled = true;
    return MF_OK;
}

const mfi_lookup_ops mfi_metal_lookup_ops = {
    .place = place, .run = run, .stopped = stopped, .chosen = chosen};
