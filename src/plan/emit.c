/* From recipes to the program: layers unrolled, weights and buffers placed. Called by the plan,
 * which is pure: nothing here touches weights or files. */
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"
#include "quant/int_form.h"

#define ALIGN            64  /* of planes and buffers: a cache line, and the widest vector */
#define DRIVE_BLOCK      512 /* what drives want of an address; larger ones are read buffered */
#define ELEMENT          4   /* what kernels want of one */
#define BESIDE_BYTES_MIN (64 * DRIVE_BLOCK) /* of a plane that is worth a gap */

typedef struct emitter {
    mfi_program *p;
    const mfi_model *model;
    mf_activations activations;
    uint32_t cap_ops;
    uint32_t *index;            /* [1 + n_layers][MFI_N_ROLES] program weight of a role */
    uint8_t phases[MFI_N_BUFS]; /* bit set of the phases that use a buffer */
    bool fresh[MFI_N_BUFS];     /* the 8-bit and 16-bit forms are up to date at this point */
} emitter;

/* Buffers of different phases share memory where their lives don't overlap. */
enum { PHASE_BEGIN, PHASE_MIXER, PHASE_FFN, PHASE_DENSE, PHASE_HEAD, N_PHASES };

static const struct {
    uint8_t dim, rows;
} buf_shapes[MFI_N_BUFS] = {
    [MFI_BUF_RES] = {MFI_DIM_HIDDEN, MFI_ROWS_TOKENS},
    [MFI_BUF_H] = {MFI_DIM_HIDDEN, MFI_ROWS_TOKENS},
    [MFI_BUF_ROPE] = {MFI_DIM_ROT, MFI_ROWS_TOKENS},
    [MFI_BUF_Q] = {MFI_DIM_Q, MFI_ROWS_TOKENS},
    [MFI_BUF_K] = {MFI_DIM_KV, MFI_ROWS_TOKENS},
    [MFI_BUF_V] = {MFI_DIM_KV, MFI_ROWS_TOKENS},
    [MFI_BUF_QA] = {MFI_DIM_LATENT_Q, MFI_ROWS_TOKENS},
    [MFI_BUF_KVA] = {MFI_DIM_LATENT_KV_A, MFI_ROWS_TOKENS},
    [MFI_BUF_QL] = {MFI_DIM_LATENT_QL, MFI_ROWS_TOKENS},
    [MFI_BUF_OL] = {MFI_DIM_LATENT_K, MFI_ROWS_TOKENS},
    [MFI_BUF_QKV] = {MFI_DIM_GDN_QKV, MFI_ROWS_TOKENS},
    [MFI_BUF_Z] = {MFI_DIM_GDN_V, MFI_ROWS_TOKENS},
    [MFI_BUF_B] = {MFI_DIM_GDN_HEADS, MFI_ROWS_TOKENS},
    [MFI_BUF_A] = {MFI_DIM_GDN_HEADS, MFI_ROWS_TOKENS},
    [MFI_BUF_O] = {MFI_DIM_ATTN, MFI_ROWS_TOKENS}, /* or GDN_V: the wider, see place_buffers */
    [MFI_BUF_Y] = {MFI_DIM_HIDDEN, MFI_ROWS_TOKENS},
    [MFI_BUF_ROUTER] = {MFI_DIM_EXPERTS, MFI_ROWS_TOKENS},
    [MFI_BUF_IDS] = {MFI_DIM_TOP_K, MFI_ROWS_TOKENS},
    [MFI_BUF_WEIGHTS] = {MFI_DIM_TOP_K, MFI_ROWS_TOKENS},
    [MFI_BUF_DG] = {MFI_DIM_DENSE, MFI_ROWS_TOKENS},
    [MFI_BUF_DU] = {MFI_DIM_DENSE, MFI_ROWS_TOKENS},
    [MFI_BUF_SG] = {MFI_DIM_SHARED, MFI_ROWS_TOKENS},
    [MFI_BUF_SU] = {MFI_DIM_SHARED, MFI_ROWS_TOKENS},
    [MFI_BUF_SS] = {MFI_DIM_1, MFI_ROWS_TOKENS},
    [MFI_BUF_EG] = {MFI_DIM_EXPERT, MFI_ROWS_PAIRS},
    [MFI_BUF_EU] = {MFI_DIM_EXPERT, MFI_ROWS_PAIRS},
    [MFI_BUF_EX] = {MFI_DIM_HIDDEN, MFI_ROWS_PAIRS},
    [MFI_BUF_EY] = {MFI_DIM_HIDDEN, MFI_ROWS_PAIRS},
    [MFI_BUF_HN] = {MFI_DIM_HIDDEN, MFI_ROWS_HEAD},
    [MFI_BUF_LOGITS] = {MFI_DIM_VOCAB, MFI_ROWS_HEAD},
};

/* ---- weights ---- */

/* Types of at most so many bits: whole blocks, scales and all. */
static bool is_coarse(mfi_qtype type)
{
    uint32_t n_elements = 1, n_bytes = 0;
    if (type.kind == MFI_Q_MLX)
        return type.bits <= MFI_Q8_AUTO_MAX_BITS;
    if (type.kind == MFI_Q_GGML && mfi_ggml_block(type.bits, &n_elements, &n_bytes))
        return 8 * n_bytes <= (MFI_Q8_AUTO_MAX_BITS + 1) * n_elements;
    return true; /* MXFP4 */
}

/* The form of activations that a weight meets; see program.h. The two products of latent attention
 * that are made head by head take floats: their inputs are parts of rows. Routers and scalar gates
 * keep floats: a flipped expert costs more than the product saves. So do float weights and types
 * without an integer form. Activations come in whole blocks of 32. */
static uint8_t x_bits_of(const emitter *e, mfi_role role, mfi_qtype type, uint32_t cols)
{
    mfi_int_form form;
    if (role == MFI_ROLE_LATENT_K || role == MFI_ROLE_LATENT_V || role == MFI_ROLE_ROUTER ||
        role == MFI_ROLE_SHARED_SCALE || cols % 32 != 0 || e->activations == MF_ACTIVATIONS_F32)
        return 0;
    if (!mfi_int_form_of(type, &form)) /* asked for: a float product with rounded activations */
        return type.kind == MFI_Q_GGML && e->activations == MF_ACTIVATIONS_Q8 ? 8 : 0;
    if (e->activations == MF_ACTIVATIONS_AUTO)
        return is_coarse(type) ? 8 : 16;
    return e->activations == MF_ACTIVATIONS_Q8 ? 8 : 16;
}

/* Where `bytes` that lie at `file_offset` are put, not before `at`: as far from a block of the
 * drive in memory as in the file, so that they can be read past the page cache, where that costs
 * little.
 */
static uint64_t beside_file(uint64_t at, uint64_t bytes, uint64_t file_offset)
{
    if (bytes < BESIDE_BYTES_MIN || file_offset % ELEMENT != 0)
        return at;
    return at + (file_offset - at) % DRIVE_BLOCK;
}

static void add_weight(emitter *e, uint32_t row, mfi_role role)
{
    const mfi_weight_src *src = &e->model->weights[(size_t)row * MFI_N_ROLES + role];
    uint32_t *slot = &e->index[(size_t)row * MFI_N_ROLES + role];
    *slot = MFI_WEIGHT_NONE;
    if (src->tensor == MFI_TENSOR_NONE)
        return;
    if (role == MFI_ROLE_LM_HEAD && e->model->tied) {
        *slot = e->index[MFI_ROLE_EMBED]; /* one matrix, two roles */
        e->p->weights[*slot].x_bits = x_bits_of(e, role, e->p->weights[*slot].type, src->cols);
        return;
    }
    const mfi_tensor *t = mfi_catalog_tensor(e->model->catalog, src->tensor);
    mfi_program_weight *w = &e->p->weights[e->p->n_weights];
    *slot = e->p->n_weights++;
    *w = (mfi_program_weight){.type = t->type,
                              .rows = src->rows,
                              .cols = src->cols,
                              .load = src->load,
                              .map = src->map,
                              .tensor = src->tensor};
    if (src->load != MFI_LOAD_MATRIX)
        w->type = mfi_qtype_float(MFI_Q_F32);
    w->x_bits = x_bits_of(e, role, w->type, w->cols);
    for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++) {
        uint64_t bytes = mfi_quant_plane_bytes(w->type, p, w->rows, w->cols);
        uint64_t begin = e->p->dense_bytes, at = begin;
        if (src->load == MFI_LOAD_MATRIX && src->map == MFI_MAP_NONE)
            at = beside_file(begin, bytes, mfi_tensor_extent(t, p, 0, w->rows).offset);
        w->offset[p] = at;
        e->p->dense_bytes = mfi_align_up(at + bytes, ALIGN);
        e->p->dense_gap_bytes += e->p->dense_bytes - mfi_align_up(begin + bytes, ALIGN);
    }
}

static mf_status add_weights(emitter *e, mf_error *err)
{
    size_t n = (size_t)(1 + e->model->shape.n_layers) * MFI_N_ROLES;
    e->p->weights = calloc(n, sizeof *e->p->weights);
    if (!e->p->weights)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the table of weights");
    for (uint32_t row = 0; row <= e->model->shape.n_layers; row++)
        for (uint32_t role = 0; role < MFI_N_ROLES; role++)
            add_weight(e, row, (mfi_role)role);
    return MF_OK;
}

/* ---- experts ---- */

/* Offsets in a slot and the lengths of reads are 32 bits; with this limit, all sums over experts,
 * layers, positions and rows fit 64 (limits.h bounds each factor, and the files the tensors). */
#define EXPERT_BYTES_MAX ((uint64_t)UINT32_MAX - 2 * DRIVE_BLOCK)

static uint64_t extent_of(const emitter *e, const mfi_expert_src *src, uint32_t plane,
                          uint32_t rows)
{
    const mfi_tensor *t = mfi_catalog_tensor(e->model->catalog, src->tensor);
    return mfi_tensor_extent(t, plane, src->row, rows).offset;
}

/* All experts of a layer share one layout: whether they lie alike in their files. */
static bool all_beside(const emitter *e, uint32_t layer, uint32_t proj, uint32_t plane,
                       uint32_t rows)
{
    uint32_t n = e->model->shape.n_experts;
    const mfi_expert_src *src = e->model->experts + (size_t)layer * n * MFI_EXPERT_PROJS + proj;
    uint64_t first = extent_of(e, src, plane, rows);
    for (uint32_t i = 1; i < n; i++)
        if ((extent_of(e, src + (size_t)i * MFI_EXPERT_PROJS, plane, rows) - first) % DRIVE_BLOCK)
            return false;
    return true;
}

/* A part of a layer's experts; `begin` is where the slot would have it: its end, or behind a gap.
 */
static mf_status place_part(emitter *e, uint32_t layer, uint64_t begin, uint64_t bytes,
                            uint32_t *offset, mf_error *err)
{
    const mfi_shape *s = &e->model->shape;
    mfi_expert_layout *l = &e->p->experts[layer];
    if (bytes > EXPERT_BYTES_MAX || l->bytes + bytes > EXPERT_BYTES_MAX)
        return mfi_fail(err, MF_ERR_LIMIT, "%s: layer %u: an expert of %u x %u has more than 4 GiB",
                        mfi_catalog_path(e->model->catalog), layer, s->hidden, s->expert_width);
    uint64_t without = mfi_align_up(l->bytes + bytes, ALIGN);
    *offset = (uint32_t)begin;
    l->bytes = mfi_align_up(begin + bytes, ALIGN);
    l->gap_bytes += l->bytes - without;
    return MF_OK;
}

/* Biases lie in the slot with the matrices: resident they would take memory for all experts, most
 * of which are on the drive (docs/architecture.md). */
static mf_status place_experts(emitter *e, mf_error *err)
{
    const mfi_shape *s = &e->model->shape;
    for (uint32_t layer = 0; layer < s->n_layers; layer++) {
        if (!mfi_model_routed(e->model, layer))
            continue;
        const mfi_expert_src *src =
            e->model->experts + (size_t)layer * s->n_experts * MFI_EXPERT_PROJS;
        mfi_expert_layout *l = &e->p->experts[layer];
        l->interleaved = e->model->interleaved;
        for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
            mfi_expert_mat *m = &l->proj[proj];
            if (src[proj].tensor == MFI_TENSOR_NONE)
                continue;
            m->type = mfi_catalog_tensor(e->model->catalog, src[proj].tensor)->type;
            uint32_t outputs = proj == MFI_EXPERT_DOWN ? s->hidden : s->expert_width;
            uint32_t inputs = proj == MFI_EXPERT_DOWN ? s->expert_width : s->hidden;
            if (l->interleaved && proj == MFI_EXPERT_GATE)
                outputs *= 2;
            m->transposed = e->model->transposed;
            m->rows = m->transposed ? inputs : outputs;
            m->cols = m->transposed ? outputs : inputs;
            for (uint32_t p = 0; p < mfi_quant_n_planes(m->type); p++) {
                uint64_t bytes = mfi_quant_plane_bytes(m->type, p, m->rows, m->cols);
                uint64_t begin = l->bytes;
                if (bytes >= BESIDE_BYTES_MIN && all_beside(e, layer, proj, p, m->rows))
                    begin = beside_file(begin, bytes, extent_of(e, &src[proj], p, m->rows));
                MFI_TRY(place_part(e, layer, begin, bytes, &m->offset[p], err));
            }
            uint32_t bias = e->model->expert_bias[layer * MFI_EXPERT_PROJS + proj];
            if (bias == MFI_TENSOR_NONE)
                continue;
            m->n_bias = outputs;
            m->bias_type = mfi_catalog_tensor(e->model->catalog, bias)->type;
            MFI_TRY(place_part(e, layer, l->bytes, mfi_quant_row_bytes(m->bias_type, 0, outputs),
                               &m->bias_offset, err));
        }
        mfi_qtype up = l->proj[l->interleaved ? MFI_EXPERT_GATE : MFI_EXPERT_UP].type;
        uint8_t gate = x_bits_of(e, MFI_ROLE_NONE, l->proj[MFI_EXPERT_GATE].type, s->hidden);
        uint8_t both = x_bits_of(e, MFI_ROLE_NONE, up, s->hidden);
        l->in_bits = gate && both ? MFI_MAX(gate, both) : 0; /* both take the same */
        l->mid_bits = x_bits_of(e, MFI_ROLE_NONE, l->proj[MFI_EXPERT_DOWN].type, s->expert_width);
        e->p->slot_bytes = MFI_MAX(e->p->slot_bytes, l->bytes);
    }
    return MF_OK;
}

/* ---- ops ---- */

static mfi_op *push(emitter *e, mfi_op_code code, uint32_t layer, bool head)
{
    MFI_ASSERT(e->p->n_ops < e->cap_ops);
    mfi_op *op = &e->p->ops[e->p->n_ops++];
    memset(op, 0, sizeof *op);
    op->code = (uint8_t)code;
    op->layer = (uint16_t)layer;
    op->head = head;
    for (uint32_t i = 0; i < MFI_OP_OPERANDS; i++)
        op->w[i] = MFI_WEIGHT_NONE;
    return op;
}

static void need_bits(emitter *e, uint32_t buf, uint8_t bits, uint32_t cols, uint32_t layer,
                      bool head, uint32_t phase)
{
    e->p->bufs[buf].x_bits = MFI_MAX(e->p->bufs[buf].x_bits, bits);
    if (e->fresh[buf]) /* QUANTIZE makes all forms that the buffer has in the end */
        return;
    e->phases[buf] |= (uint8_t)(1u << phase);
    mfi_op *op = push(e, MFI_OP_QUANTIZE, layer, head);
    op->src[0] = (uint8_t)buf;
    op->w[0] = cols;
    e->fresh[buf] = true;
}

/* The program's weight for operand i of a recipe's op in a row of the index. */
static uint32_t operand(const emitter *e, const mfi_recipe_op *r, uint32_t row, uint32_t i)
{
    return r->w[i] == MFI_ROLE_NONE ? MFI_WEIGHT_NONE
                                    : e->index[(size_t)row * MFI_N_ROLES + r->w[i]];
}

/* Biases and norms that this family or model does without; an op's weights are all there or none.
 */
static bool is_left_out(const emitter *e, const mfi_recipe_op *r, uint32_t row)
{
    bool optional = r->code == MFI_OP_BIAS || r->code == MFI_OP_RMSNORM;
    return optional && operand(e, r, row, 0) == MFI_WEIGHT_NONE;
}

static void emit_op(emitter *e, const mfi_recipe_op *r, uint32_t row, uint32_t layer,
                    uint32_t phase)
{
    static const uint8_t n_src[MFI_N_OPS] = {
        [MFI_OP_RMSNORM] = 1,       [MFI_OP_MATMUL] = 1,        [MFI_OP_ADD] = 1,
        [MFI_OP_GLU] = 2,           [MFI_OP_SCALE] = 1,         [MFI_OP_ATTN_PREP] = 4,
        [MFI_OP_ATTN] = 1,          [MFI_OP_GDN_CONV] = 1,      [MFI_OP_GDN] = 4,
        [MFI_OP_LATENT_PREP] = 3,   [MFI_OP_LATENT_ABSORB] = 1, [MFI_OP_LATENT_ATTN] = 1,
        [MFI_OP_LATENT_EXPAND] = 1, [MFI_OP_ROUTE] = 1,         [MFI_OP_EXPERTS] = 1,
        [MFI_OP_COMBINE] = 4};
    static const uint8_t n_dst[MFI_N_OPS] = {
        [MFI_OP_EMBED] = 1,         [MFI_OP_ROPE_TABLE] = 1,  [MFI_OP_RMSNORM] = 1,
        [MFI_OP_ADD] = 1,           [MFI_OP_SCALE] = 1,       [MFI_OP_GLU] = 1,
        [MFI_OP_ATTN] = 1,          [MFI_OP_GDN_CONV] = 1,    [MFI_OP_GDN] = 1,
        [MFI_OP_LATENT_ABSORB] = 1, [MFI_OP_LATENT_ATTN] = 1, [MFI_OP_LATENT_EXPAND] = 1,
        [MFI_OP_ROUTE] = 2,         [MFI_OP_EXPERTS] = 1,     [MFI_OP_COMBINE] = 1};
    static const uint8_t n_w[MFI_N_OPS] = {
        [MFI_OP_EMBED] = 1,         [MFI_OP_RMSNORM] = 1,       [MFI_OP_ATTN_PREP] = 2,
        [MFI_OP_GDN_CONV] = 1,      [MFI_OP_GDN] = 3,           [MFI_OP_LATENT_PREP] = 1,
        [MFI_OP_LATENT_ABSORB] = 1, [MFI_OP_LATENT_EXPAND] = 1, [MFI_OP_ROUTE] = 1};
    if (is_left_out(e, r, row))
        return;
    bool head = phase == PHASE_HEAD, matmul = r->code == MFI_OP_MATMUL;
    bool counted = matmul || r->code == MFI_OP_BIAS;
    uint32_t weights = counted || r->code == MFI_OP_ATTN ? r->n : n_w[r->code];
    uint32_t dsts = counted ? r->n : n_dst[r->code];
    uint32_t w[MFI_OP_OPERANDS];
    for (uint32_t i = 0; i < weights; i++) {
        w[i] = operand(e, r, row, i);
        MFI_ASSERT(w[i] != MFI_WEIGHT_NONE || r->code == MFI_OP_ATTN_PREP ||
                   r->code == MFI_OP_ROUTE);
        if (matmul && e->p->weights[w[i]].x_bits)
            need_bits(e, r->src[0], e->p->weights[w[i]].x_bits, e->p->weights[w[i]].cols, layer,
                      head, phase);
    }
    if (r->code == MFI_OP_EXPERTS && e->p->experts[layer].in_bits)
        need_bits(e, r->src[0], e->p->experts[layer].in_bits, e->model->shape.hidden, layer, head,
                  phase);
    mfi_op *op = push(e, r->code, layer, head);
    op->n = r->n;
    if (r->code == MFI_OP_LATENT_ABSORB)
        op->n = e->p->weights[w[0]].map != MFI_MAP_KVB_K;
    for (uint32_t i = 0; i < weights; i++)
        op->w[i] = w[i];
    for (uint32_t i = 0; i < n_src[r->code]; i++) {
        op->src[i] = r->src[i];
        e->phases[r->src[i]] |= (uint8_t)(1u << phase);
    }
    for (uint32_t i = 0; i < dsts; i++) {
        op->dst[i] = r->dst[i];
        e->phases[r->dst[i]] |= (uint8_t)(1u << phase);
        e->fresh[r->dst[i]] = false;
    }
    if (r->code == MFI_OP_EXPERTS) { /* scratch inside the op */
        static const uint8_t inner[] = {MFI_BUF_EG, MFI_BUF_EU, MFI_BUF_EX};
        for (uint32_t i = 0; i < MFI_ARRAY_LEN(inner); i++)
            e->phases[inner[i]] |= (uint8_t)(1u << phase);
        uint8_t *ex = &e->p->bufs[MFI_BUF_EX].x_bits, *eg = &e->p->bufs[MFI_BUF_EG].x_bits;
        *ex = MFI_MAX(*ex, e->p->experts[layer].in_bits);
        *eg = MFI_MAX(*eg, e->p->experts[layer].mid_bits);
    }
}

static void emit_recipe(emitter *e, const mfi_recipe *recipe, uint32_t row, uint32_t layer,
                        uint32_t phase)
{
    for (uint32_t i = 0; i < recipe->n_ops; i++)
        emit_op(e, &recipe->ops[i], row, layer, phase);
}

static void emit_ops(emitter *e)
{
    const mfi_arch *arch = e->model->arch;
    emit_recipe(e, &arch->begin, 0, 0, PHASE_BEGIN);
    for (uint32_t i = 0; i < e->model->shape.n_layers; i++) {
        emit_recipe(e, &arch->mixer[e->model->mixer[i]], 1 + i, i, PHASE_MIXER);
        uint8_t ffn = e->model->ffn[i];
        emit_recipe(e, &arch->ffn[ffn], 1 + i, i, ffn == MFI_FFN_DENSE ? PHASE_DENSE : PHASE_FFN);
        e->p->layer_end[i] = e->p->n_ops;
    }
    e->p->head_first = e->p->n_ops;
    emit_recipe(e, &arch->head, 0, 0, PHASE_HEAD);
}

/* ---- buffers ---- */

static uint64_t place_one(mfi_program_buf *b, uint64_t at)
{
    b->offset = at;
    at = mfi_align_up(at + (uint64_t)b->rows * b->width * sizeof(float), ALIGN);
    const uint64_t n = (uint64_t)b->rows * b->width, floats = n / 32 * sizeof(float);
    const uint64_t sums = n / 16 * sizeof(int16_t);
    uint64_t *offsets[] = {&b->q_offset,  &b->d_offset,      &b->s_offset,      &b->h_offset,
                           &b->lo_offset, &b->d_fine_offset, &b->s_fine_offset, &b->h_lo_offset};
    const uint64_t bytes[] = {n, floats, floats, sums, n, floats, floats, sums};
    for (uint32_t i = 0; i < b->x_bits / 2u; i++) { /* four arrays a form */
        *offsets[i] = at;
        at = mfi_align_up(at + bytes[i], ALIGN);
    }
    return at;
}

static void place_buffers(emitter *e)
{
    mfi_program *p = e->p;
    const mfi_shape *s = &e->model->shape;
    uint64_t shared_end = 0;
    for (uint32_t i = 0; i < MFI_N_BUFS; i++) {
        mfi_program_buf *b = &p->bufs[i];
        if (!e->phases[i])
            continue;
        b->width = mfi_dim_value(s, (mfi_dim)buf_shapes[i].dim);
        if (i == MFI_BUF_O)
            b->width = MFI_MAX(b->width, mfi_dim_value(s, MFI_DIM_GDN_V));
        if (i == MFI_BUF_EU && e->model->interleaved)
            b->width *= 2; /* gate and up alternate in it */
        b->rows = buf_shapes[i].rows == MFI_ROWS_HEAD    ? p->n_logit_rows
                  : buf_shapes[i].rows == MFI_ROWS_PAIRS ? p->chunk * s->top_k
                                                         : p->chunk;
        if ((e->phases[i] & (e->phases[i] - 1)) != 0) /* lives in more than one phase */
            shared_end = place_one(b, shared_end);
    }
    p->scratch_bytes = shared_end;
    for (uint32_t phase = 0; phase < N_PHASES; phase++) {
        uint64_t at = shared_end;
        for (uint32_t i = 0; i < MFI_N_BUFS; i++)
            if (e->phases[i] == 1u << phase)
                at = place_one(&p->bufs[i], at);
        p->scratch_bytes = MFI_MAX(p->scratch_bytes, at);
    }
}

/* The cache's types; rows of heads must be whole blocks. */
static mf_status choose_cache(mfi_program *p, const mfi_model *model, const mf_cache_type types[2],
                              mf_error *err)
{
    const mfi_shape *s = &model->shape;
    const uint32_t cols = s->latent_kv ? mfi_dim_value(s, MFI_DIM_LATENT_KV_A) : s->head_dim;
    bool cached = false;
    for (uint32_t i = 0; i < s->n_layers; i++)
        cached |= model->mixer[i] != MFI_MIXER_GDN;
    for (int i = 0; i < 2; i++) {
        p->kv_type[i] = types[i] == MF_CACHE_Q8_0
                            ? (mfi_qtype){.kind = MFI_Q_GGML, .bits = 8}
                            : mfi_qtype_float(types[i] == MF_CACHE_F16 ? MFI_Q_F16 : MFI_Q_F32);
        if (cached && !mfi_quant_cols_ok(p->kv_type[i], cols))
            return mfi_fail(err, MF_ERR_UNSUPPORTED,
                            "a q8_0 cache takes blocks of 32; this model's heads have %u elements",
                            cols);
    }
    if (s->latent_kv && types[0] != types[1])
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "latent attention caches keys and values as one: they have one type");
    return MF_OK;
}

static void place_state(emitter *e)
{
    const mfi_shape *s = &e->model->shape;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        mfi_layer_state *st = &e->p->state[i];
        if (e->model->mixer[i] == MFI_MIXER_GDN) {
            uint64_t conv = (uint64_t)(s->conv_kernel - 1) * mfi_dim_value(s, MFI_DIM_GDN_QKV);
            uint64_t heads = (uint64_t)s->gdn_v_heads * s->gdn_k_dim * s->gdn_v_dim;
            st->recurrent_bytes = (conv + heads) * sizeof(float);
        } else if (s->latent_kv) {
            st->kv_pos_bytes =
                mfi_quant_row_bytes(e->p->kv_type[0], 0, mfi_dim_value(s, MFI_DIM_LATENT_KV_A));
        } else {
            const uint64_t cols = mfi_dim_value(s, MFI_DIM_KV);
            st->kv_pos_bytes = mfi_quant_row_bytes(e->p->kv_type[0], 0, cols) +
                               mfi_quant_row_bytes(e->p->kv_type[1], 0, cols);
            st->window = e->model->mixer[i] == MFI_MIXER_WINDOW ? s->window : 0;
            st->kv_ring = st->window ? st->window - 1 + e->p->chunk : 0;
        }
    }
}

mf_status mfi_plan_emit(mfi_program *program, const mfi_model *model, uint32_t chunk,
                        uint32_t n_logit_rows, mf_activations activations,
                        const mf_cache_type cache_type[2], mf_error *err)
{
    const mfi_shape *s = &model->shape;
    *program = (mfi_program){.shape = *s, .chunk = chunk, .n_logit_rows = n_logit_rows};
    emitter e = {.p = program, .model = model, .activations = activations};
    e.cap_ops = 64 * (s->n_layers + 2); /* recipes have fewer than 32 ops, each with one QUANTIZE */
    e.index = malloc((size_t)(1 + s->n_layers) * MFI_N_ROLES * sizeof *e.index);
    program->ops = calloc(e.cap_ops, sizeof *program->ops);
    program->layer_end = calloc(s->n_layers, sizeof *program->layer_end);
    program->experts = calloc(s->n_layers, sizeof *program->experts);
    program->state = calloc(s->n_layers, sizeof *program->state);
    mf_status status = MF_OK;
    if (!e.index || !program->ops || !program->layer_end || !program->experts || !program->state)
        status =
            mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for the program of %u layers", s->n_layers);
    if (status == MF_OK)
        status = choose_cache(program, model, cache_type, err);
    if (status == MF_OK)
        status = add_weights(&e, err);
    if (status == MF_OK)
        status = place_experts(&e, err);
    if (status == MF_OK) {
        emit_ops(&e);
        place_buffers(&e);
        place_state(&e);
    } else {
        mfi_program_free(program);
    }
    free(e.index);
    return status;
}
