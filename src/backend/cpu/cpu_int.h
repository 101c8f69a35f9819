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

/* The form of `bits` bits (8 or 16) of a buffer from row `row` on, rows of `cols` columns. */
static inline mfi_q8 mfi_cpu_form(const mfi_cpu *cpu, uint32_t buf, uint32_t row, uint32_t cols,
                                  uint32_t bits)
{
    const mfi_program_buf *b = &cpu->p->bufs[buf];
    char *base = cpu->mem[MFI_MEM_SCRATCH].base;
    mfi_q8 x = {.q = (int8_t *)(base + b->q_offset),
                .d = (float *)(base + b->d_offset),
                .s = (float *)(base + b->s_offset),
                .h = (int16_t *)(base + b->h_offset)};
    if (bits == 16) {
        x.lo = (int8_t *)(base + b->lo_offset);
        x.d_fine = (float *)(base + b->d_fine_offset);
        x.s_fine = (float *)(base + b->s_fine_offset);
        x.h_lo = (int16_t *)(base + b->h_lo_offset);
    }
    return mfi_q8_from(x, (size_t)row * cols);
}

/* All forms that a buffer has. */
static inline mfi_q8 mfi_cpu_forms(const mfi_cpu *cpu, uint32_t buf, uint32_t row, uint32_t cols)
{
    return mfi_cpu_form(cpu, buf, row, cols, cpu->p->bufs[buf].x_bits);
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

/* Heads [h, h + n_h) that share keys, of rows [t, t + n_t) of one sequence. */
typedef void mfi_cpu_attn_fn(const mfi_cpu_job *j, uint32_t t, uint32_t n_t, uint32_t h,
                             uint32_t n_h);
/* Calls fn for this worker's share of the step's queries, n_shared heads in each of n_groups. */
void mfi_cpu_attn_deal(const mfi_cpu_job *j, uint32_t n_shared, uint32_t n_groups, uint32_t worker,
                       uint32_t n_workers, mfi_cpu_attn_fn *fn);
/* What they all have in common; heads' queries and outputs are so far apart, k is the cache. */
mfi_attn mfi_cpu_attn_of(const mfi_cpu_job *j, uint32_t t, uint32_t n_t, uint32_t h, uint32_t n_h,
                         uint32_t stride, uint32_t out_stride);

/* One function an op, in cpu_ops.c, cpu_mixers.c, cpu_latent.c and cpu_experts.c. */
typedef void mfi_cpu_op(const mfi_cpu_job *job);
mfi_cpu_op mfi_cpu_latent_prep, mfi_cpu_latent_absorb, mfi_cpu_latent_attn, mfi_cpu_latent_expand;
mfi_cpu_op mfi_cpu_embed, mfi_cpu_rope_table, mfi_cpu_rmsnorm, mfi_cpu_quantize, mfi_cpu_matmul,
    mfi_cpu_bias, mfi_cpu_add, mfi_cpu_glu, mfi_cpu_attn_prep, mfi_cpu_attn, mfi_cpu_gdn_conv,
    mfi_cpu_gdn, mfi_cpu_scale, mfi_cpu_route, mfi_cpu_experts, mfi_cpu_combine;

#endif
