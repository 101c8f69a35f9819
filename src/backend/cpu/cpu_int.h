/* The CPU backend's inside, shared by its files only. */
#ifndef MFI_BACKEND_CPU_INT_H
#define MFI_BACKEND_CPU_INT_H

#include "backend/backend.h"
#include "base/pool.h"
#include "kernels/kernels.h"
#include "os/vmem.h"

typedef struct mfi_cpu {
    mfi_backend base;
    const mfi_kernels *k;
    mfi_pool *pool;
    mfi_vmem mem[3]; /* by mfi_mem_kind */
    const mfi_program *p;
    mfi_mat *mats;    /* [n_weights] the resident weights */
    double *inv_freq; /* [n_rot / 2] */
} mfi_cpu;

/* What the workers of one op see. */
typedef struct mfi_cpu_job {
    const mfi_cpu *cpu;
    const mfi_op *op;
    const mfi_step *step;
    uint32_t n_rows; /* tokens, or head rows */
} mfi_cpu_job;

/* Runs fn on all workers, or on this thread alone where there are fewer than two units of work: a
 * barrier costs more than a small op. No result depends on which it is. */
void mfi_cpu_dispatch(const mfi_cpu_job *job, mfi_pool_fn fn, uint32_t n_units);

static inline float *mfi_cpu_row(const mfi_cpu *cpu, uint32_t buf, uint32_t row)
{
    const mfi_program_buf *b = &cpu->p->bufs[buf];
    float *base = (float *)((char *)cpu->mem[MFI_MEM_SCRATCH].base + b->offset);
    return base + (size_t)row * b->width;
}

/* The 8-bit form of a buffer from row `row` on, rows of `cols` columns. */
static inline mfi_q8 mfi_cpu_q8(const mfi_cpu *cpu, uint32_t buf, uint32_t row, uint32_t cols)
{
    const mfi_program_buf *b = &cpu->p->bufs[buf];
    char *base = cpu->mem[MFI_MEM_SCRATCH].base;
    size_t blocks = cols / MFI_Q8_BLOCK;
    return (mfi_q8){(int8_t *)(base + b->q_offset) + (size_t)row * cols,
                    (float *)(base + b->d_offset) + row * blocks,
                    (float *)(base + b->s_offset) + row * blocks};
}

static inline const float *mfi_cpu_vector(const mfi_cpu *cpu, uint32_t weight)
{
    return cpu->mats[weight].planes[0];
}

/* y = gate and up by the shape's rule; y may be gate. */
static inline void mfi_cpu_glu_row(const mfi_cpu *cpu, const float *gate, const float *up,
                                   uint32_t n, float *y)
{
    const mfi_shape *s = &cpu->p->shape;
    if (s->glu == MFI_GLU_CLAMPED)
        cpu->k->glu_clamped(gate, up, s->glu_alpha, s->glu_limit, n, y);
    else
        cpu->k->silu_mul(gate, up, n, y);
}

/* dst += residual_scale * src. */
static inline void mfi_cpu_add_residual(const mfi_cpu *cpu, float *dst, const float *src,
                                        uint32_t n)
{
    if (cpu->p->shape.residual_scale == 1)
        cpu->k->add(dst, src, n);
    else
        cpu->k->axpy(dst, cpu->p->shape.residual_scale, src, n);
}

/* One function an op, in cpu_ops.c, cpu_mixers.c, cpu_latent.c and cpu_experts.c. */
typedef void mfi_cpu_op(const mfi_cpu_job *job);
mfi_cpu_op mfi_cpu_latent_prep, mfi_cpu_latent_absorb, mfi_cpu_latent_attn, mfi_cpu_latent_expand;
mfi_cpu_op mfi_cpu_embed, mfi_cpu_rope_table, mfi_cpu_rmsnorm, mfi_cpu_quantize, mfi_cpu_matmul,
    mfi_cpu_bias, mfi_cpu_add, mfi_cpu_glu, mfi_cpu_attn_prep, mfi_cpu_attn, mfi_cpu_gdn_conv,
    mfi_cpu_gdn, mfi_cpu_scale, mfi_cpu_route, mfi_cpu_experts, mfi_cpu_combine;

#endif
