/* Memory of the Metal backend: buffers that host and device share, what a sequence keeps, weights
 * in the mapping of their files, and lists that the host writes while the device reads earlier
 * ones. Called on the engine's thread. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/metal/metal_int.h"

static const char *const kinds[MFI_N_MEM_KINDS] = {
    [MFI_MEM_DENSE] = "weights", [MFI_MEM_SCRATCH] = "activations", [MFI_MEM_SLOTS] = "experts"};

mf_status mfi_metal_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                          mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    mf_error why = {0};
    MFI_ASSERT(!m->mem[kind].handle && kind != MFI_MEM_TIER);
    if (mfi_metal_buf_alloc(m->device, bytes, kind == MFI_MEM_SLOTS, &m->mem[kind], &why) != MF_OK)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no room for %" PRIu64 " MiB of %s", why.message,
                        bytes / MFI_MIB, kinds[kind]);
    *host = m->mem[kind].host;
    return MF_OK;
}

mf_status mfi_metal_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                          uint64_t len, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    MFI_ASSERT(offset <= m->mem[kind].len && len <= m->mem[kind].len - offset);
    MFI_TRY(mfi_metal_sync(b, err));
    memcpy(m->mem[kind].host + offset, src, len);
    return MF_OK;
}

/* ---- command buffers ---- */

mf_status mfi_metal_send(mfi_metal *m, mf_error *err)
{
    return mfi_metal_commit(m->device, &m->n_sent, err);
}

static mf_status wait_for(mfi_metal *m, uint64_t ticket, mf_error *err)
{
    uint64_t n_done;
    if (ticket > m->n_sent)
        MFI_TRY(mfi_metal_send(m, err));
    if (ticket > m->n_sent)
        return MF_OK; /* the list was used, but encoding failed: nothing reads it */
    return mfi_metal_wait(m->device, ticket, &n_done, err);
}

mf_status mfi_metal_sync(mfi_backend *b, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    uint64_t n_done;
    MFI_TRY(mfi_metal_send(m, err));
    return mfi_metal_wait(m->device, m->n_sent, &n_done, err);
}

mf_status mfi_metal_take(mfi_metal *m, mfi_metal_list *ring, uint32_t *at, mf_error *err)
{
    uint32_t next = (*at + 1) % MFI_METAL_RING;
    if (ring[next].ticket)
        MFI_TRY(wait_for(m, ring[next].ticket, err));
    ring[next].ticket = 0;
    *at = next;
    return MF_OK;
}

void mfi_metal_use(mfi_metal *m, mfi_metal_list *ring, uint32_t at)
{
    ring[at].ticket = m->n_sent + 1;
}

/* ---- sequences ---- */

static mf_status state_alloc(mfi_backend *b, uint64_t bytes, void **mem, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    mf_error why = {0};
    *mem = NULL;
    if (m->n_state == m->n_state_max) {
        uint32_t n = m->n_state_max ? 2 * m->n_state_max : 64;
        mfi_metal_buf *more = realloc(m->state, n * sizeof *more);
        if (!more)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a list of %" PRIu32 " buffers",
                            n);
        m->state = more;
        m->n_state_max = n;
    }
    if (mfi_metal_buf_alloc(m->device, bytes, false, &m->state[m->n_state], &why) != MF_OK)
        return mfi_fail(err, MF_ERR_NO_MEMORY,
                        "%s: no room for %" PRIu64 " MiB of a sequence's state", why.message,
                        bytes / MFI_MIB);
    *mem = m->state[m->n_state++].host;
    return MF_OK;
}

static mf_status state_clear(mfi_backend *b, void *mem, uint64_t bytes, mf_error *err)
{
    MFI_TRY(mfi_metal_sync(b, err));
    memset(mem, 0, bytes);
    return MF_OK;
}

static void state_free(mfi_backend *b, void *mem)
{
    mfi_metal *m = (mfi_metal *)b;
    for (uint32_t i = 0; mem && i < m->n_state; i++) {
        if (m->state[i].host != mem)
            continue;
        (void)mfi_metal_sync(b, NULL);
        mfi_metal_buf_free(m->device, &m->state[i]);
        m->state[i] = m->state[--m->n_state];
        return;
    }
}

mfi_metal_ref mfi_metal_state_ref(const mfi_metal *m, const void *at)
{
    uintptr_t address = (uintptr_t)at;
    for (uint32_t i = 0; i < m->n_state; i++) {
        const mfi_metal_buf *buf = &m->state[i];
        if (address >= (uintptr_t)buf->host && address - (uintptr_t)buf->host < buf->len)
            return mfi_metal_at(buf, address - (uintptr_t)buf->host);
    }
    MFI_ASSERT(!"a sequence's memory came from state_alloc");
    return (mfi_metal_ref){0};
}

/* ---- weights in place ---- */

static mf_status bind(void *b, const void *address, uint64_t len, void **handle, mf_error *err)
{
    mfi_metal_buf *buf = calloc(1, sizeof *buf);
    if (!buf)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a buffer");
    mf_status status = mfi_metal_buf_wrap(((mfi_metal *)b)->device, address, len, buf, err);
    if (status != MF_OK)
        free(buf);
    else
        *handle = buf;
    return status;
}

static void unbind(void *b, void *handle)
{
    mfi_metal_buf *buf = handle;
    mfi_metal_buf_free(((mfi_metal *)b)->device, buf);
    free(buf);
}

static void place(mfi_backend *b, uint32_t weight, uint32_t plane, void *handle, uint64_t offset)
{
    mfi_metal *m = (mfi_metal *)b;
    const mfi_metal_buf *buf = handle;
    MFI_ASSERT(m->p && m->p->weights[weight].in_place && offset < buf->len &&
               offset % MFI_METAL_ALIGN == 0);
    m->weights[weight].plane[plane] = mfi_metal_at(buf, offset);
}

static mf_status mark(mfi_backend *b, uint64_t *ticket, mf_error *err)
{
    mfi_metal *m = (mfi_metal *)b;
    MFI_TRY(mfi_metal_send(m, err));
    *ticket = m->n_sent;
    return MF_OK;
}

static mf_status passed(mfi_backend *b, uint64_t ticket, uint64_t *n_passed, mf_error *err)
{
    return mfi_metal_wait(((mfi_metal *)b)->device, ticket, n_passed, err);
}

static const mfi_binding_ops binding_ops = {.bind = bind, .unbind = unbind, .place = place};
static const mfi_unified_ops unified_ops = {.mark = mark, .passed = passed};

const mfi_device_ops mfi_metal_device_ops = {.state_alloc = state_alloc,
                                             .state_clear = state_clear,
                                             .state_free = state_free,
                                             .bind_experts = mfi_metal_bind_experts,
                                             .binding = &binding_ops,
                                             .unified = &unified_ops,
                                             .lookup = &mfi_metal_lookup_ops};
