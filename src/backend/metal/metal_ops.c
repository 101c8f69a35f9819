/* One op of a program as kernels in the open command buffer. Called by the backend's run, on the
 * engine's thread; encodes work and waits for nothing. */
#include <math.h>
#include <string.h>

#include "backend/metal/metal_int.h"

typedef struct job {
    mfi_metal *m;
    const mfi_op *op;
    const mfi_shape *s;
    uint32_t n;         /* rows: tokens, or head rows; of mixers, those of one sequence */
    const mfi_seq *seq; /* mixers: that one */
    mf_error *err;
} job;

mfi_metal_ref mfi_metal_row(const mfi_metal *m, uint32_t buf, uint32_t row)
{
    const mfi_program_buf *b = &m->p->bufs[buf];
    return mfi_metal_at(&m->mem[MFI_MEM_SCRATCH],
                        b->offset + (uint64_t)row * b->width * sizeof(float));
}

static mfi_metal_ref row(const job *j, uint32_t buf)
{
    return mfi_metal_row(j->m, buf, j->seq ? j->seq->row : 0);
}

static uint32_t width(const job *j, uint32_t buf)
{
    return j->m->p->bufs[buf].width;
}

/* What a kernel doesn't look at. */
static mfi_metal_ref nothing(const job *j)
{
    return mfi_metal_at(&j->m->mem[MFI_MEM_SCRATCH], 0);
}

static mfi_metal_ref vector(const job *j, uint32_t w)
{
    return w == MFI_WEIGHT_NONE ? nothing(j) : j->m->weights[w].plane[0];
}

static mfi_metal_ref plane(const job *j, uint32_t w, uint32_t p)
{
    mfi_metal_ref ref = j->m->weights[w].plane[p];
    return ref.handle ? ref : nothing(j);
}

static mfi_metal_ref tables(const job *j)
{
    return mfi_metal_at(&j->m->tables, 0);
}

/* Lists of the step that the host has written. */
static mfi_metal_ref step_list(const job *j, uint32_t i)
{
    mfi_metal *m = j->m;
    mfi_metal_use(m, m->steps, m->step_at);
    return mfi_metal_at(&m->steps[m->step_at].buf, (uint64_t)i * m->p->chunk * sizeof(uint32_t));
}

static mf_status encode(const job *j, mfi_metal_call call, const void *args,
                        const mfi_metal_ref *bufs)
{
    return mfi_metal_encode(j->m->device, &call, args, bufs, j->err);
}

/* ---- rows ---- */

static mf_status embed(const job *j)
{
    uint32_t dst = j->op->dst[0], w = j->op->w[0];
    const mfi_metal_embed a = {.mat = j->m->weights[w].mat,
                               .ldy = width(j, dst),
                               .n_tok = j->n,
                               .scale = j->s->embed_scale};
    const mfi_metal_ref bufs[] = {plane(j, w, 0),  plane(j, w, 1), plane(j, w, 2),
                                  step_list(j, 0), row(j, dst),    tables(j)};
    return encode(j, mfi_metal_embed_call(&a), &a, bufs);
}

static mf_status rope_table(const job *j)
{
    uint32_t dst = j->op->dst[0];
    const mfi_metal_rope_table a = {j->n, j->s->n_rot / 2, width(j, dst),
                                    (float)j->s->rope.attn_factor};
    const mfi_metal_ref bufs[] = {mfi_metal_at(&j->m->freq, 0), step_list(j, 1), row(j, dst)};
    return encode(j, mfi_metal_rope_table_call(&a), &a, bufs);
}

static mf_status rmsnorm(const job *j)
{
    const mfi_op *op = j->op;
    uint32_t src = op->src[0], dst = op->dst[0], w = op->w[0];
    const mfi_metal_rmsnorm a = {.n = j->m->weights[w].mat.cols,
                                 .n_tok = j->n,
                                 .ldx = width(j, src),
                                 .ldy = width(j, dst),
                                 .by_head = op->head,
                                 .eps = op->n ? j->s->latent_eps : j->s->eps};
    const mfi_metal_ref bufs[] = {row(j, src), vector(j, w),
                                  op->head ? step_list(j, 2) : nothing(j), row(j, dst)};
    return encode(j, mfi_metal_rmsnorm_call(&a), &a, bufs);
}

static mfi_metal_mm product(const job *j, uint32_t w, uint32_t src, uint32_t dst)
{
    return (mfi_metal_mm){
        .mat = {j->m->weights[w].mat}, .ldx = width(j, src), .ldy = width(j, dst), .n_tok = j->n};
}

static mf_status encode_product(const job *j, mfi_metal_call call, const mfi_metal_mm *mm,
                                uint32_t w, uint32_t src, uint32_t dst)
{
    const mfi_metal_ref bufs[] = {plane(j, w, 0), plane(j, w, 1), plane(j, w, 2), row(j, src),
                                  row(j, dst),    nothing(j),     nothing(j),     tables(j)};
    return encode(j, call, mm, bufs);
}

static mf_status matmul(const job *j)
{
    const mfi_op *op = j->op;
    for (uint32_t i = 0; i < op->n; i++) {
        mfi_metal_mm mm = product(j, op->w[i], op->src[0], op->dst[i]);
        MFI_TRY(encode_product(j, mfi_metal_mm_call(&mm, false), &mm, op->w[i], op->src[0],
                               op->dst[i]));
    }
    return MF_OK;
}

static mf_status bias(const job *j)
{
    for (uint32_t i = 0; i < j->op->n; i++) {
        uint32_t dst = j->op->dst[i], w = j->op->w[i];
        const mfi_metal_add a = {j->m->weights[w].mat.cols, j->n, 0, width(j, dst), 1.0f};
        const mfi_metal_ref bufs[] = {vector(j, w), row(j, dst)};
        MFI_TRY(encode(j, mfi_metal_add_call(&a), &a, bufs));
    }
    return MF_OK;
}

static mf_status add(const job *j)
{
    uint32_t src = j->op->src[0], dst = j->op->dst[0];
    const mfi_metal_add a = {width(j, dst), j->n, width(j, src), width(j, dst),
                             j->s->residual_scale};
    const mfi_metal_ref bufs[] = {row(j, src), row(j, dst)};
    return encode(j, mfi_metal_add_call(&a), &a, bufs);
}

static mf_status scale(const job *j)
{
    uint32_t dst = j->op->dst[0];
    const mfi_metal_scale a = {.n = (uint64_t)j->n * width(j, dst), .factor = j->s->logit_scale};
    const mfi_metal_ref bufs[] = {row(j, dst)};
    return encode(j, mfi_metal_scale_call(&a), &a, bufs);
}

static mf_status glu(const job *j)
{
    uint32_t g = j->op->src[0], u = j->op->src[1], dst = j->op->dst[0];
    const mfi_metal_glu a = {.n = width(j, dst),
                             .n_tok = j->n,
                             .ldg = width(j, g),
                             .ldu = width(j, u),
                             .ldy = width(j, dst),
                             .kind = j->s->glu == MFI_GLU_CLAMPED ? MFI_METAL_GLU_CLAMPED
                                                                  : MFI_METAL_GLU_SILU,
                             .alpha = j->s->glu_alpha,
                             .limit = j->s->glu_limit};
    const mfi_metal_ref bufs[] = {row(j, g), row(j, u), row(j, dst)};
    return encode(j, mfi_metal_glu_call(&a), &a, bufs);
}

/* ---- mixers ---- */

static mfi_metal_ref kv(const job *j)
{
    return mfi_metal_state_ref(j->m, j->seq->mem[j->op->layer].kv);
}

static mf_status attn_prep(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    const mfi_metal_prep a = {.ldq = width(j, op->src[0]),
                              .ldk = width(j, op->src[1]),
                              .ldv = width(j, op->src[2]),
                              .ldr = width(j, op->src[3]),
                              .q_stride = s->head_dim * (s->attn_gate ? 2 : 1),
                              .n_head = s->n_head,
                              .n_kv_head = s->n_kv_head,
                              .head_dim = s->head_dim,
                              .n_rot = s->n_rot,
                              .n_tok = j->n,
                              .pos = j->seq->pos,
                              .ring = j->m->p->state[op->layer].kv_ring,
                              .unrotated = (op->n & MFI_PREP_UNROTATED) != 0,
                              .norm_after = (op->n & MFI_PREP_NORM_AFTER) != 0,
                              .q_normed = op->w[0] != MFI_WEIGHT_NONE,
                              .k_normed = op->w[1] != MFI_WEIGHT_NONE,
                              .eps = s->eps};
    const mfi_metal_ref bufs[] = {row(j, op->src[0]),
                                  row(j, op->src[1]),
                                  row(j, op->src[2]),
                                  row(j, op->src[3]),
                                  vector(j, op->w[0]),
                                  vector(j, op->w[1]),
                                  kv(j)};
    return encode(j, mfi_metal_prep_call(&a), &a, bufs);
}

/* Few tokens: blocks of positions side by side. */
static mf_status attend(const job *j, mfi_metal_attn *a, uint32_t sinks)
{
    const mfi_metal_ref bufs[] = {row(j, j->op->src[0]), kv(j), vector(j, sinks),
                                  mfi_metal_at(&j->m->partial, 0), row(j, j->op->dst[0])};
    a->n_blocks = mfi_metal_attn_blocks(a->pos, a->n_tok, a->window);
    if (j->n > MFI_METAL_ATTN_SPLIT_TOK)
        return encode(j, mfi_metal_attn_walk_call(a), a, bufs);
    MFI_TRY(encode(j, mfi_metal_attn_part_call(a), a, bufs));
    return encode(j, mfi_metal_attn_merge_call(a), a, bufs);
}

static mf_status attn(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_layer_state *st = &j->m->p->state[op->layer];
    uint32_t hd = j->s->head_dim, kvw = j->s->n_kv_head * hd;
    mfi_metal_attn a = {.ldq = width(j, op->src[0]),
                        .q_stride = hd * (j->s->attn_gate ? 2 : 1),
                        .ldo = width(j, op->dst[0]),
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
                        .with_sinks = op->n != 0,
                        .gated = j->s->attn_gate,
                        .pos = j->seq->pos,
                        .n_tok = j->n,
                        .scale = j->s->attn_scale};
    return attend(j, &a, op->n ? op->w[0] : MFI_WEIGHT_NONE);
}

static uint32_t gdn_channels(const mfi_shape *s)
{
    return 2 * s->gdn_k_heads * s->gdn_k_dim + s->gdn_v_heads * s->gdn_v_dim;
}

static mf_status gdn_conv(const job *j)
{
    uint32_t src = j->op->src[0];
    const mfi_metal_conv a = {gdn_channels(j->s), j->s->conv_kernel, j->n, width(j, src)};
    const mfi_metal_ref bufs[] = {mfi_metal_state_ref(j->m, j->seq->mem[j->op->layer].recurrent),
                                  vector(j, j->op->w[0]), row(j, src)};
    return encode(j, mfi_metal_conv_call(&a), &a, bufs);
}

static mf_status gdn(const job *j)
{
    const mfi_shape *s = j->s;
    const mfi_op *op = j->op;
    const mfi_metal_gdn a = {.ld_qkv = width(j, op->src[0]),
                             .ld_z = width(j, op->src[1]),
                             .ld_b = width(j, op->src[2]),
                             .ld_a = width(j, op->src[3]),
                             .ldo = width(j, op->dst[0]),
                             .k_heads = s->gdn_k_heads,
                             .v_heads = s->gdn_v_heads,
                             .k_dim = s->gdn_k_dim,
                             .v_dim = s->gdn_v_dim,
                             .n_tok = j->n,
                             .tiled = s->gdn_tiled,
                             .eps = s->eps,
                             .q_scale = 1.0f / sqrtf((float)s->gdn_k_dim)};
    mfi_metal_ref state = mfi_metal_state_ref(j->m, j->seq->mem[op->layer].recurrent);
    state.offset += (uint64_t)(s->conv_kernel - 1) * gdn_channels(s) * sizeof(float);
    const mfi_metal_ref bufs[] = {
        row(j, op->src[0]),  row(j, op->src[1]),  row(j, op->src[2]),  row(j, op->src[3]),
        vector(j, op->w[0]), vector(j, op->w[1]), vector(j, op->w[2]), state,
        row(j, op->dst[0])};
    return encode(j, mfi_metal_gdn_call(&a), &a, bufs);
}

static mf_status latent_prep(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_metal_latent a = {.ldq = width(j, op->src[0]),
                                .ldk = width(j, op->src[1]),
                                .ldr = width(j, op->src[2]),
                                .n_head = j->s->n_head,
                                .head_dim = j->s->head_dim,
                                .nope = j->s->nope_dim,
                                .n_rot = j->s->n_rot,
                                .latent = j->s->latent_kv,
                                .n_tok = j->n,
                                .pos = j->seq->pos,
                                .pairs = j->s->rope_pairs,
                                .eps = j->s->latent_eps};
    const mfi_metal_ref bufs[] = {row(j, op->src[0]), row(j, op->src[1]), row(j, op->src[2]),
                                  vector(j, op->w[0]), kv(j)};
    return encode(j, mfi_metal_latent_prep_call(&a), &a, bufs);
}

static mf_status latent_absorb(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    uint32_t src = op->src[0], dst = op->dst[0], w = op->w[0];
    mfi_metal_mm mm = product(j, w, src, dst);
    mm.head_rows = op->n ? s->latent_kv : s->nope_dim;
    mm.head_x = s->head_dim;
    mm.head_y = s->latent_kv + s->n_rot;
    MFI_TRY(encode_product(
        j, op->n ? mfi_metal_mm_call(&mm, false) : mfi_metal_mm_t_call(&mm, s->n_head), &mm, w, src,
        dst));
    const mfi_metal_latent a = {.ldq = width(j, src),
                                .ldy = width(j, dst),
                                .n_head = s->n_head,
                                .head_dim = s->head_dim,
                                .nope = s->nope_dim,
                                .n_rot = s->n_rot,
                                .latent = s->latent_kv,
                                .n_tok = j->n};
    const mfi_metal_ref bufs[] = {row(j, src), row(j, dst)};
    return encode(j, mfi_metal_latent_tail_call(&a), &a, bufs);
}

static mf_status latent_attn(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    uint32_t dim = s->latent_kv + s->n_rot;
    mfi_metal_attn a = {.ldq = width(j, op->src[0]),
                        .q_stride = dim,
                        .ldo = width(j, op->dst[0]),
                        .row = dim,
                        .dim = dim,
                        .dim_v = s->latent_kv,
                        .n_head = s->n_head,
                        .group = s->n_head,
                        .pos = j->seq->pos,
                        .n_tok = j->n,
                        .scale = s->attn_scale};
    return attend(j, &a, MFI_WEIGHT_NONE);
}

static mf_status latent_expand(const job *j)
{
    const mfi_op *op = j->op;
    mfi_metal_mm mm = product(j, op->w[0], op->src[0], op->dst[0]);
    mm.head_rows = j->s->v_dim;
    mm.head_x = j->s->latent_kv;
    mm.head_y = j->s->v_dim;
    return encode_product(j, mfi_metal_mm_call(&mm, false), &mm, op->w[0], op->src[0], op->dst[0]);
}

/* ---- experts ---- */

/* Where experts are looked up, what EXPERTS works on is written here as well. */
static mf_status route(const job *j)
{
    const mfi_op *op = j->op;
    const mfi_shape *s = j->s;
    mfi_metal *m = j->m;
    bool own = mfi_metal_looks(m, op), list = own && j->n == 1;
    const mfi_metal_route a = {.score = s->routing.score,
                               .n_groups = s->routing.n_groups,
                               .n_groups_used = s->routing.n_groups_used,
                               .group_best = s->routing.group_best,
                               .normalize = s->routing.normalize,
                               .corrected = op->w[0] != MFI_WEIGHT_NONE,
                               .ld = width(j, op->src[0]),
                               .n = s->n_experts,
                               .top_k = s->top_k,
                               .n_tok = j->n,
                               .ldw = width(j, op->dst[1]),
                               .list = list,
                               .layer = op->layer,
                               .scale = s->routing.scale};
    mfi_metal_ref slots = nothing(j), ids = row(j, op->dst[0]);
    mfi_metal_work work = {nothing(j), nothing(j), nothing(j)};
    if (own) {
        m->own_lists = true;
        slots = mfi_metal_slots_of(m, op->layer);
        work = mfi_metal_work_of(m);
        if (!m->settled) /* the host wants to know later */
            ids = mfi_metal_chosen_of(m, op->layer);
    }
    const mfi_metal_ref bufs[] = {
        row(j, op->src[0]), vector(j, op->w[0]), ids,         row(j, op->dst[1]), slots,
        work.items,         work.x_row,          work.pair_of};
    MFI_TRY(encode(j, mfi_metal_route_call(&a), &a, bufs));
    m->n_items = s->top_k;
    if (!own || list)
        return MF_OK;
    m->n_items = mfi_metal_group_items(j->n, s->top_k, s->n_experts, MFI_METAL_TILE);
    const mfi_metal_group g = {j->n, s->top_k, s->n_experts, MFI_METAL_TILE, m->n_items, op->layer};
    const mfi_metal_ref to[] = {ids, slots, work.items, work.x_row, work.pair_of};
    return encode(j, mfi_metal_group_call(&g), &g, to);
}

static mf_status combine(const job *j)
{
    const mfi_op *op = j->op;
    bool gated = op->n == MFI_COMBINE_GATED;
    const mfi_metal_combine a = {.hidden = j->s->hidden,
                                 .top_k = j->s->top_k,
                                 .n_tok = j->n,
                                 .ld_res = width(j, op->dst[0]),
                                 .ld_sum = width(j, op->src[2]),
                                 .ldy = width(j, op->src[0]),
                                 .ldw = width(j, op->src[1]),
                                 .ldg = gated ? width(j, op->src[3]) : 0,
                                 .how = op->n,
                                 .factor = j->s->residual_scale};
    const mfi_metal_ref bufs[] = {row(j, op->dst[0]),
                                  row(j, op->src[2]),
                                  row(j, op->src[0]),
                                  row(j, op->src[1]),
                                  gated ? row(j, op->src[3]) : nothing(j),
                                  mfi_metal_work_of(j->m).pair_of};
    return encode(j, mfi_metal_combine_call(&a), &a, bufs);
}

static mf_status (*const ops[MFI_N_OPS])(const job *j) = {
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

mf_status mfi_metal_op(mfi_metal *m, const mfi_op *op, const mfi_step *step, mf_error *err)
{
    if (op->code == MFI_OP_EXPERTS)
        return mfi_metal_experts(m, op, step, err);
    job j = {m, op, &m->p->shape, op->head ? step->n_head : step->n_tok, NULL, err};
    MFI_ASSERT(ops[op->code]); /* no QUANTIZE: the plan gives devices float activations */
    if (!mfi_op_is_mixer(op))
        return ops[op->code](&j);
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        j.seq = &step->seqs[i];
        j.n = j.seq->n;
        MFI_TRY(ops[op->code](&j));
    }
    return MF_OK;
}
