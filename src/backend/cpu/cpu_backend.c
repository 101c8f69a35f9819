/* The CPU backend: memory, workers and the loop over ops. Called by forward and the engine, on one
 * thread; the workers run inside single ops. Allocates at open and prepare, never in run. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_int.h"

static mfi_cpu_op *const ops[MFI_N_OPS] = {
    [MFI_OP_EMBED] = mfi_cpu_embed,
    [MFI_OP_ROPE_TABLE] = mfi_cpu_rope_table,
    [MFI_OP_RMSNORM] = mfi_cpu_rmsnorm,
    [MFI_OP_QUANTIZE] = mfi_cpu_quantize,
    [MFI_OP_MATMUL] = mfi_cpu_matmul,
    [MFI_OP_BIAS] = mfi_cpu_bias,
    [MFI_OP_ADD] = mfi_cpu_add,
    [MFI_OP_SCALE] = mfi_cpu_scale,
    [MFI_OP_GLU] = mfi_cpu_glu,
    [MFI_OP_ATTN_PREP] = mfi_cpu_attn_prep,
    [MFI_OP_ATTN] = mfi_cpu_attn,
    [MFI_OP_GDN_CONV] = mfi_cpu_gdn_conv,
    [MFI_OP_GDN] = mfi_cpu_gdn,
    [MFI_OP_LATENT_PREP] = mfi_cpu_latent_prep,
    [MFI_OP_LATENT_ABSORB] = mfi_cpu_latent_absorb,
    [MFI_OP_LATENT_ATTN] = mfi_cpu_latent_attn,
    [MFI_OP_LATENT_EXPAND] = mfi_cpu_latent_expand,
    [MFI_OP_ROUTE] = mfi_cpu_route,
    [MFI_OP_EXPERTS] = mfi_cpu_experts,
    [MFI_OP_COMBINE] = mfi_cpu_combine,
};

void mfi_cpu_dispatch(const mfi_cpu_job *job, mfi_pool_fn fn, uint32_t n_units)
{
    if (n_units < 2)
        fn((void *)job, 0, 1);
    else
        mfi_pool_run(job->cpu->pool, fn, (void *)job);
}

static mf_status cpu_alloc(mfi_backend *b, mfi_mem_kind kind, uint64_t bytes, void **host,
                           mf_error *err)
{
    mfi_cpu *cpu = (mfi_cpu *)b;
    MFI_ASSERT(!cpu->mem[kind].base);
    if (bytes > SIZE_MAX / 2)
        return mfi_fail(err, MF_ERR_LIMIT, "%llu bytes don't fit this machine's addresses",
                        (unsigned long long)bytes);
    MFI_TRY(mfi_vmem_alloc(&cpu->mem[kind], (size_t)bytes, err));
    *host = cpu->mem[kind].base;
    return MF_OK;
}

static mf_status cpu_write(mfi_backend *b, mfi_mem_kind kind, uint64_t offset, const void *src,
                           uint64_t len, mf_error *err)
{
    mfi_cpu *cpu = (mfi_cpu *)b;
    (void)err;
    MFI_ASSERT(offset <= cpu->mem[kind].committed && len <= cpu->mem[kind].committed - offset);
    memcpy((char *)cpu->mem[kind].base + offset, src, (size_t)len);
    return MF_OK;
}

static mf_status cpu_read(mfi_backend *b, mfi_buf_id buf, uint32_t row, uint32_t n_rows, void *dst,
                          mf_error *err)
{
    const mfi_cpu *cpu = (const mfi_cpu *)b;
    (void)err;
    MFI_ASSERT(row + n_rows <= cpu->p->bufs[buf].rows);
    memcpy(dst, mfi_cpu_row(cpu, buf, row),
           (size_t)n_rows * cpu->p->bufs[buf].width * sizeof(float));
    return MF_OK;
}

static const void *cpu_view(mfi_backend *b, mfi_buf_id buf)
{
    return mfi_cpu_row((const mfi_cpu *)b, buf, 0);
}

static mf_status cpu_prepare(mfi_backend *b, const mfi_program *p, mf_error *err)
{
    mfi_cpu *cpu = (mfi_cpu *)b;
    MFI_ASSERT(!cpu->p && cpu->mem[MFI_MEM_DENSE].base && cpu->mem[MFI_MEM_SCRATCH].base);
    if (p->shape.head_dim > MFI_ATTN_DIM_MAX ||
        (p->shape.latent_kv && p->shape.latent_kv + p->shape.n_rot > MFI_ATTN_DIM_MAX) ||
        p->shape.gdn_v_dim > MFI_GDN_DIM_MAX || p->shape.gdn_k_dim > MFI_GDN_DIM_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "heads of %u, %u and %u elements: at most %u",
                        p->shape.head_dim, p->shape.gdn_k_dim, p->shape.gdn_v_dim,
                        MFI_ATTN_DIM_MAX);
    cpu->mats = calloc(p->n_weights, sizeof *cpu->mats);
    cpu->inv_freq = calloc(p->shape.n_rot / 2 + 1, sizeof *cpu->inv_freq);
    if (!cpu->mats || !cpu->inv_freq)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for %u weight descriptors", p->n_weights);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const mfi_program_weight *w = &p->weights[i];
        cpu->mats[i] = (mfi_mat){.type = w->type, .rows = w->rows, .cols = w->cols};
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(w->type); plane++)
            cpu->mats[i].planes[plane] =
                (const char *)cpu->mem[MFI_MEM_DENSE].base + w->offset[plane];
    }
    mfi_rope_frequencies(&p->shape.rope, p->shape.n_rot, cpu->inv_freq);
    cpu->p = p;
    return MF_OK;
}

static mf_status cpu_run(mfi_backend *b, uint32_t first, uint32_t n, const mfi_step *step,
                         mf_error *err)
{
    mfi_cpu *cpu = (mfi_cpu *)b;
    (void)err;
    MFI_ASSERT(first + n <= cpu->p->n_ops + cpu->p->n_hint_ops && step->n_tok > 0 &&
               step->n_tok <= cpu->p->chunk);
    for (uint32_t i = first; i < first + n; i++) {
        const mfi_op *op = &cpu->p->ops[i];
        mfi_cpu_job job = {cpu, op, step, op->head ? step->n_head : step->n_tok};
        ops[op->code](&job);
    }
    return MF_OK;
}

static mf_status cpu_sync(mfi_backend *b, mf_error *err)
{
    (void)b, (void)err;
    return MF_OK;
}

static void cpu_close(mfi_backend *b)
{
    mfi_cpu *cpu = (mfi_cpu *)b;
    mfi_pool_close(&cpu->pool);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cpu->mem); i++)
        mfi_vmem_release(&cpu->mem[i]);
    free(cpu->mats);
    free(cpu->inv_freq);
    free(cpu);
}

mf_status mfi_backend_cpu_open(mfi_backend **backend, mfi_isa isa, uint32_t n_threads,
                               mf_error *err)
{
    if (!mfi_cpu_has(isa))
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "this processor has no %s (best: %s)",
                        mfi_isa_name(isa), mfi_isa_name(mfi_cpu_isa()));
    mfi_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the CPU backend");
    mf_status status = mfi_pool_open(&cpu->pool, n_threads, err);
    if (status != MF_OK) {
        free(cpu);
        return status;
    }
    cpu->k = mfi_kernels_get(isa);
    cpu->base = (mfi_backend){.name = "cpu",
                              .alloc = cpu_alloc,
                              .write = cpu_write,
                              .read = cpu_read,
                              .view = cpu_view,
                              .prepare = cpu_prepare,
                              .run = cpu_run,
                              .sync = cpu_sync,
                              .close = cpu_close};
    *backend = &cpu->base;
    return MF_OK;
}
