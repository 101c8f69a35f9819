/* One op of a program as kernels on the device's stream. Called by the backend's run, on the
 * engine's thread, also while a graph is recorded; queues work and waits for nothing. */
#include <string.h>

#include "backend/cuda/cuda_int.h"

typedef struct job {
    mfi_cuda *c;
    const mfi_op *op;
    const mfi_step *step;
    const mfi_shape *s;
    uint32_t n;         /* rows: tokens, or head rows; of mixers, those of one sequence */
    const mfi_seq *seq; /* mixers: that one */
} job;

static float *row(const job *j, uint32_t buf)
{
    size_t first = j->seq ? j->seq->row : 0;
    return mfi_cuda_row(j->c, buf) + first * j->c->p->bufs[buf].width;
}

static const uint32_t *positions(const job *j)
{
    return j->c->pos + (j->seq ? j->seq->row : 0);
}

static uint32_t width(const job *j, uint32_t buf)
{
    return j->c->p->bufs[buf].width;
}

static const float *vector(const job *j, uint32_t w)
{
    return w == MFI_WEIGHT_NONE ? NULL : (const float *)j->c->mats[w].plane[0];
}

mfi_cuda_mat mfi_cuda_mat_of(mfi_qtype type, uint32_t rows, uint32_t cols)
{
    mfi_cuda_mat m = {.rows = rows, .cols = cols};
    memcpy(&m.type, &type, sizeof m.type);
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++)
        m.row_bytes[p] = mfi_quant_row_bytes(type, p, cols);
    if (type.kind == MFI_Q_GGML)
        MFI_ASSERT(mfi_ggml_block(type.bits, &m.n_elements, &m.n_bytes));
    return m;
}

/* ---- rows ---- */

static cudaError_t embed(const job *j)
{
    uint32_t dst = j->op->dst[0];
    return mfi_cuda_embed(&j->c->mats[j->op->w[0]], j->c->tokens, j->n, j->s->embed_scale,
                          row(j, dst), width(j, dst), j->c->stream);
}

static cudaError_t rope_table(const job *j)
{
    uint32_t dst = j->op->dst[0];
    return mfi_cuda_rope_table(j->c->freq, j->s->rope.attn_factor, positions(j), j->n,
                               j->s->n_rot / 2, row(j, dst), width(j, dst), j->c->stream);
}

static cudaError_t rmsnorm(const job *j)
{
    uint32_t src = j->op->src[0], dst = j->op->dst[0], w = j->op->w[0];
    return mfi_cuda_rmsnorm(row(j, src), width(j, src), vector(j, w),
                            j->op->n ? j->s->latent_eps : j->s->eps, j->c->mats[w].cols,
                            j->op->head ? j->c->head_rows : NULL, j->n, row(j, dst), width(j, dst),
                            j->c->stream);
}

static bool same_type(mfi_cuda_type a, mfi_cuda_type b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* What BIAS adds to a product's output `dst`, as a bias of its own; `bias` may be NULL. */
static void add_bias(const job *j, const mfi_op *bias, uint32_t dst, mfi_cuda_mm *mm, uint32_t at)
{
    for (uint32_t i = 0; bias && i < bias->n; i++) {
        if (bias->dst[i] != dst)
            continue;
        mm->bias[at] = true;
        mm->bias_type[at].kind = MFI_CUDA_F32;
        mm->bias_offset[at] = (uintptr_t)vector(j, bias->w[i]); /* of no slot */
    }
}

/* Weights of one type at a time: they share a kernel. The first one takes what `with` says beside
 * the product, and its x if it has one; `bias` is a BIAS behind the op, or NULL. */
static cudaError_t matmul_with(const job *j, const mfi_cuda_mm *with, const mfi_op *bias)
{
    const mfi_op *op = j->op;
    bool done[MFI_OP_OPERANDS] = {false};
    for (uint32_t i = 0; i < op->n; i++) {
        if (done[i])
            continue;
        mfi_cuda_mm mm = i == 0 ? *with : (mfi_cuda_mm){0};
        mm.n_tok = j->n;
        mm.split = j->c->split;
        if (!mm.x) {
            mm.x = row(j, op->src[0]);
            mm.ldx = width(j, op->src[0]);
        }
        for (uint32_t k = i; k < op->n; k++) {
            const mfi_cuda_mat *m = &j->c->mats[op->w[k]];
            if (done[k] || !same_type(m->type, j->c->mats[op->w[i]].type))
                continue;
            add_bias(j, bias, op->dst[k], &mm, mm.n_mats);
            mm.mat[mm.n_mats] = *m;
            mm.y[mm.n_mats] = row(j, op->dst[k]);
            mm.ldy[mm.n_mats++] = width(j, op->dst[k]);
            done[k] = true;
        }
        cudaError_t e = mfi_cuda_matmul(&mm, j->c->stream);
        if (e != cudaSuccess)
            return e;
    }
    return cudaSuccess;
}

static cudaError_t matmul(const job *j)
{
    return matmul_with(j, &(mfi_cuda_mm){0}, NULL);
}

cudaError_t mfi_cuda_matmul_op(mfi_cuda *c, const mfi_op *op, const mfi_cuda_mm *with,
                               const mfi_op *bias)
{
    job j = {.c = c, .op = op, .s = &c->p->shape, .n = 1};
    return matmul_with(&j, with, bias);
}

static cudaError_t bias(const job *j)
{
    for (uint32_t i = 0; i < j->op->n; i++) {
        uint32_t dst = j->op->dst[i], w = j->op->w[i];
        cudaError_t e = mfi_cuda_bias(row(j, dst), width(j, dst), vector(j, w), j->c->mats[w].cols,
                                      j->n, j->c->stream);
        if (e != cudaSuccess)
            return e;
    }
    return cudaSuccess;
}

static cudaError_t add(const job *j)
{
    uint32_t src = j->op->src[0], dst = j->op->dst[0];
    return mfi_cuda_add(row(j, dst), width(j, dst), row(j, src), width(j, src), width(j, dst),
                        j->s->residual_scale, j->n, j->c->stream);
}

static cudaError_t scale(const job *j)
{
    uint32_t dst = j->op->dst[0];
    return mfi_cuda_scale(row(j, dst), (uint64_t)j->n * width(j, dst), j->s->logit_scale,
                          j->c->stream);
}

static cudaError_t glu(const job *j)
{
    uint32_t g = j->op->src[0], u = j->op->src[1], dst = j->op->dst[0];
    uint32_t kind = j->s->glu == MFI_GLU_CLAMPED ? MFI_CUDA_GLU_CLAMPED : MFI_CUDA_GLU_SILU;
    return mfi_cuda_glu(row(j, g), width(j, g), row(j, u), width(j, u), false, kind,
                        j->s->glu_alpha, j->s->glu_limit, width(j, dst), j->n, row(j, dst),
                        width(j, dst), j->c->stream);
}

/* ---- mixers ---- */

static mfi_cuda_prep prep_of(const job *j)
{
    const mfi_op *op = j->op;
    return (mfi_cuda_prep){.q = row(j, op->src[0]),
                           .k = row(j, op->src[1]),
                           .v = row(j, op->src[2]),
                           .rope = row(j, op->src[3]),
                           .ldq = width(j, op->src[0]),
                           .ldk = width(j, op->src[1]),
                           .ldv = width(j, op->src[2]),
                           .ldr = width(j, op->src[3]),
                           .q_stride = j->s->head_dim * (j->s->attn_gate ? 2 : 1),
                           .q_norm = vector(j, op->w[0]),
                           .k_norm = vector(j, op->w[1]),
                           .eps = j->s->eps,
                           .n_head = j->s->n_head,
                           .n_kv_head = j->s->n_kv_head,
                           .head_dim = j->s->head_dim,
                           .n_rot = j->s->n_rot,
                           .n_tok = j->n,
                           .ring = j->c->p->state[op->layer].kv_ring,
                           .unrotated = op->n & MFI_PREP_UNROTATED,
                           .norm_after = op->n & MFI_PREP_NORM_AFTER,
                           .kv = j->seq->mem[op->layer].kv,
                           .pos = positions(j)};
}

static cudaError_t attn_prep(const job *j)
{
    mfi_cuda_prep p = prep_of(j);
    return mfi_cuda_attn_prep(&p, j->c->stream);
}

static void split_blocks(const job *j, mfi_cuda_attn *a)
{
    if (j->n > MFI_CUDA_ATTN_SPLIT_TOK)
        return;
    a->partial = j->c->partial;
    a->n_blocks_max = j->c->n_blocks;
    if (a->window)
        a->n_blocks_max = MFI_MIN(a->n_blocks_max,
                                  a->window / MFI_CUDA_ATTN_BLOCK + 3); /* both ends, and tokens */
}

static mfi_cuda_attn attn_of(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_layer_state *st = &j->c->p->state[op->layer];
    uint32_t hd = j->s->head_dim, kvw = j->s->n_kv_head * hd;
    mfi_cuda_attn a = {.q = row(j, op->src[0]),
                       .ldq = width(j, op->src[0]),
                       .q_stride = hd * (j->s->attn_gate ? 2 : 1),
                       .kv = j->seq->mem[op->layer].kv,
                       .row = 2 * kvw,
                       .v_offset = kvw,
                       .k_stride = hd,
                       .v_stride = hd,
                       .dim = hd,
                       .dim_v = hd,
                       .n_head = j->s->n_head,
                       .group = j->s->n_head / j->s->n_kv_head,
                       .window = st->window,
                       .ring = st->kv_ring,
                       .scale = j->s->attn_scale,
                       .sinks = op->n ? vector(j, op->w[0]) : NULL,
                       .gated = j->s->attn_gate,
                       .out = row(j, op->dst[0]),
                       .ldo = width(j, op->dst[0]),
                       .pos = positions(j),
                       .n_tok = j->n};
    split_blocks(j, &a);
    return a;
}

static cudaError_t attn(const job *j)
{
    mfi_cuda_attn a = attn_of(j);
    return mfi_cuda_attn_run(&a, j->c->stream);
}

bool mfi_cuda_attn_op(mfi_cuda *c, const mfi_op *op, const mfi_step *step, cudaError_t *e)
{
    job j = {c, &op[1], step, &c->p->shape, 1, &step->seqs[0]};
    mfi_cuda_attn a = attn_of(&j);
    j.op = op;
    mfi_cuda_prep p = prep_of(&j);
    if (!mfi_cuda_attn_one_fits(&a, &p))
        return false;
    *e = mfi_cuda_attn_one(&a, &p, c->stream);
    return true;
}

static cudaError_t gdn_conv(const job *j)
{
    const mfi_shape *s = j->s;
    uint32_t src = j->op->src[0];
    uint32_t n_ch = 2 * s->gdn_k_heads * s->gdn_k_dim + s->gdn_v_heads * s->gdn_v_dim;
    return mfi_cuda_gdn_conv(j->seq->mem[j->op->layer].recurrent, vector(j, j->op->w[0]),
                             row(j, src), width(j, src), n_ch, s->conv_kernel, j->n, j->c->stream);
}

static cudaError_t gdn(const job *j)
{
    const mfi_shape *s = j->s;
    const mfi_op *op = j->op;
    uint32_t n_ch = 2 * s->gdn_k_heads * s->gdn_k_dim + s->gdn_v_heads * s->gdn_v_dim;
    mfi_cuda_gdn g = {.qkv = row(j, op->src[0]),
                      .z = row(j, op->src[1]),
                      .b = row(j, op->src[2]),
                      .a = row(j, op->src[3]),
                      .ld_qkv = width(j, op->src[0]),
                      .ld_z = width(j, op->src[1]),
                      .ld_b = width(j, op->src[2]),
                      .ld_a = width(j, op->src[3]),
                      .ldo = width(j, op->dst[0]),
                      .neg_exp_a = vector(j, op->w[0]),
                      .dt = vector(j, op->w[1]),
                      .norm = vector(j, op->w[2]),
                      .eps = s->eps,
                      .k_heads = s->gdn_k_heads,
                      .v_heads = s->gdn_v_heads,
                      .k_dim = s->gdn_k_dim,
                      .v_dim = s->gdn_v_dim,
                      .n_tok = j->n,
                      .tiled = s->gdn_tiled,
                      .state =
                          j->seq->mem[op->layer].recurrent + (size_t)(s->conv_kernel - 1) * n_ch,
                      .out = row(j, op->dst[0])};
    return mfi_cuda_gdn_run(&g, j->c->stream);
}

static cudaError_t latent_prep(const job *j)
{
    const mfi_op *op = j->op;
    mfi_cuda_latent l = {.q = row(j, op->src[0]),
                         .kva = row(j, op->src[1]),
                         .rope = row(j, op->src[2]),
                         .norm = vector(j, op->w[0]),
                         .ldq = width(j, op->src[0]),
                         .ldk = width(j, op->src[1]),
                         .ldr = width(j, op->src[2]),
                         .n_head = j->s->n_head,
                         .head_dim = j->s->head_dim,
                         .nope = j->s->nope_dim,
                         .n_rot = j->s->n_rot,
                         .latent = j->s->latent_kv,
                         .n_tok = j->n,
                         .eps = j->s->latent_eps,
                         .pairs = j->s->rope_pairs,
                         .kv = j->seq->mem[op->layer].kv,
                         .pos = positions(j)};
    return mfi_cuda_latent_prep(&l, j->c->stream);
}

static cudaError_t latent_absorb(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    uint32_t src = op->src[0], dst = op->dst[0];
    mfi_cuda_mm mm = {.mat = {j->c->mats[op->w[0]]},
                      .n_mats = 1,
                      .x = row(j, src),
                      .ldx = width(j, src),
                      .split = j->c->split,
                      .y = {row(j, dst)},
                      .ldy = {width(j, dst)},
                      .n_tok = j->n,
                      .head_rows = op->n ? s->latent_kv : s->nope_dim,
                      .head_x = s->head_dim,
                      .head_y = s->latent_kv + s->n_rot};
    cudaError_t e = op->n ? mfi_cuda_matmul(&mm, j->c->stream)
                          : mfi_cuda_matmul_t(&mm, s->n_head, j->c->stream);
    if (e != cudaSuccess)
        return e;
    return mfi_cuda_latent_tail(row(j, src), width(j, src), s->head_dim, s->nope_dim, s->n_rot,
                                s->latent_kv, s->n_head, j->n, row(j, dst), width(j, dst),
                                j->c->stream);
}

static cudaError_t latent_attn(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    uint32_t dim = s->latent_kv + s->n_rot;
    mfi_cuda_attn a = {.q = row(j, op->src[0]),
                       .ldq = width(j, op->src[0]),
                       .q_stride = dim,
                       .kv = j->seq->mem[op->layer].kv,
                       .row = dim,
                       .dim = dim,
                       .dim_v = s->latent_kv,
                       .n_head = s->n_head,
                       .group = s->n_head,
                       .scale = s->attn_scale,
                       .out = row(j, op->dst[0]),
                       .ldo = width(j, op->dst[0]),
                       .pos = positions(j),
                       .n_tok = j->n};
    split_blocks(j, &a);
    return mfi_cuda_attn_run(&a, j->c->stream);
}

static cudaError_t latent_expand(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    mfi_cuda_mm mm = {.mat = {j->c->mats[op->w[0]]},
                      .n_mats = 1,
                      .x = row(j, op->src[0]),
                      .ldx = width(j, op->src[0]),
                      .split = j->c->split,
                      .y = {row(j, op->dst[0])},
                      .ldy = {width(j, op->dst[0])},
                      .n_tok = j->n,
                      .head_rows = s->v_dim,
                      .head_x = s->latent_kv,
                      .head_y = s->v_dim};
    return mfi_cuda_matmul(&mm, j->c->stream);
}

/* ---- experts ---- */

mfi_cuda_route mfi_cuda_route_of(const mfi_cuda *c, const mfi_op *op, uint32_t n)
{
    const mfi_shape *s = &c->p->shape;
    uint32_t logits = op->src[0], ids = op->dst[0], weights = op->dst[1];
    mfi_cuda_route r = {.score = s->routing.score,
                        .n_groups = s->routing.n_groups,
                        .n_groups_used = s->routing.n_groups_used,
                        .group_best = s->routing.group_best,
                        .normalize = s->routing.normalize,
                        .scale = s->routing.scale,
                        .logits = mfi_cuda_row(c, logits),
                        .correction = op->w[0] == MFI_WEIGHT_NONE
                                          ? NULL
                                          : (const float *)c->mats[op->w[0]].plane[0],
                        .ld = c->p->bufs[logits].width,
                        .n = s->n_experts,
                        .top_k = s->top_k,
                        .n_tok = n,
                        .ids = (uint16_t *)(void *)mfi_cuda_row(c, ids),
                        .weights = mfi_cuda_row(c, weights),
                        .ldw = c->p->bufs[weights].width,
                        .items = n == 1 ? c->items : NULL,
                        .x_row = c->x_row,
                        .pair_of = c->pair_of};
    mfi_cuda_look_as(c, op, &r);
    return r;
}

static cudaError_t route(const job *j)
{
    mfi_cuda *c = j->c;
    mfi_cuda_route r = mfi_cuda_route_of(c, j->op, j->n);
    cudaError_t e = mfi_cuda_route_run(&r, c->stream);
    if (e != cudaSuccess || !r.slots || j->n == 1)
        return e;
    uint32_t tile = mfi_cuda_small_tiles(c, j->n) ? MFI_CUDA_TILE_SMALL : MFI_CUDA_TILE;
    return mfi_cuda_group(&r, tile, c->items, mfi_cuda_n_items(c, j->n), c->stream);
}

mfi_cuda_combine mfi_cuda_combine_of(const mfi_cuda *c, const mfi_op *op, uint32_t n)
{
    const mfi_program_buf *bufs = c->p->bufs;
    bool gated = op->n == MFI_COMBINE_GATED;
    return (mfi_cuda_combine){.res = mfi_cuda_row(c, op->dst[0]),
                              .sum = mfi_cuda_row(c, op->src[2]),
                              .y = mfi_cuda_row(c, op->src[0]),
                              .weights = mfi_cuda_row(c, op->src[1]),
                              .gate = gated ? mfi_cuda_row(c, op->src[3]) : NULL,
                              .pair_of = c->pair_of,
                              .ld_res = bufs[op->dst[0]].width,
                              .ld_sum = bufs[op->src[2]].width,
                              .ldy = bufs[op->src[0]].width,
                              .ldw = bufs[op->src[1]].width,
                              .ldg = gated ? bufs[op->src[3]].width : 0,
                              .hidden = c->p->shape.hidden,
                              .top_k = c->p->shape.top_k,
                              .n_tok = n,
                              .shared = op->n != MFI_COMBINE_ROUTED,
                              .factor = c->p->shape.residual_scale};
}

static cudaError_t combine(const job *j)
{
    mfi_cuda_combine m = mfi_cuda_combine_of(j->c, j->op, j->n);
    return mfi_cuda_combine_run(&m, j->c->stream);
}

static cudaError_t (*const ops[MFI_N_OPS])(const job *j) = {
    [MFI_OP_EMBED] = embed,
    [MFI_OP_ROPE_TABLE] = rope_table,
    [MFI_OP_RMSNORM] = rmsnorm,
    [MFI_OP_MATMUL] = matmul,
    [MFI_OP_BIAS] = bias,
    [MFI_OP_ADD] = add,
    [MFI_OP_SCALE] = scale,
    [MFI_OP_GLU] = glu,
    [MFI_OP_ATTN_PREP] = attn_prep,
    [MFI_OP_ATTN] = attn,
    [MFI_OP_GDN_CONV] = gdn_conv,
    [MFI_OP_GDN] = gdn,
    [MFI_OP_LATENT_PREP] = latent_prep,
    [MFI_OP_LATENT_ABSORB] = latent_absorb,
    [MFI_OP_LATENT_ATTN] = latent_attn,
    [MFI_OP_LATENT_EXPAND] = latent_expand,
    [MFI_OP_ROUTE] = route,
    [MFI_OP_COMBINE] = combine,
};

mf_status mfi_cuda_op_failed(mf_error *err, cudaError_t e, const mfi_op *op)
{
    static const char *const names[MFI_N_OPS] = {
#define OP_NAME(name) #name,
        MFI_OP_LIST(OP_NAME)
#undef OP_NAME
    };
    return mfi_cuda_fail(err, e, names[op->code]);
}

mf_status mfi_cuda_op(mfi_cuda *c, const mfi_op *op, const mfi_step *step, mf_error *err)
{
    if (op->code == MFI_OP_EXPERTS)
        return mfi_cuda_experts(c, op, NULL, step, err);
    job j = {c, op, step, &c->p->shape, op->head ? step->n_head : step->n_tok, NULL};
    MFI_ASSERT(ops[op->code]); /* no QUANTIZE: the plan gives devices float activations */
    cudaError_t e = cudaSuccess;
    for (uint32_t i = 0; mfi_op_is_mixer(op) && i < step->n_seqs && e == cudaSuccess; i++) {
        j.seq = &step->seqs[i];
        j.n = j.seq->n;
        e = ops[op->code](&j);
    }
    if (!mfi_op_is_mixer(op))
        e = ops[op->code](&j);
    return e == cudaSuccess ? MF_OK : mfi_cuda_op_failed(err, e, op);
}
