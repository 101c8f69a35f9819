/* Ops of a single token that one kernel computes: norms go into the products behind them, biases
 * and additions into those before them, routers and their choice are one, and so are the experts'
 * last products and their sum. Bits are those of the ops one by one. Called by the backend's run,
 * on the engine's thread, also while a graph is recorded. */
#include <string.h>

#include "backend/cuda/cuda_int.h"

#define ROUTER_ROWS_MAX 512

static uint32_t width(const mfi_cuda *c, uint32_t buf)
{
    return c->p->bufs[buf].width;
}

static bool all_codes(const mfi_cuda *c, const mfi_op *op, uint32_t src)
{
    for (uint32_t i = 0; i < op->n; i++) {
        mfi_cuda_mm mm = {.n_mats = 1,
                          .mat = {c->mats[op->w[i]]},
                          .x = mfi_cuda_row(c, src),
                          .ldx = width(c, src)};
        if (!mfi_cuda_takes_codes(&mm))
            return false;
    }
    return op->n > 0;
}

/* Has the product norm its input. */
static void add_norm(const mfi_cuda *c, const mfi_op *norm, mfi_cuda_mm *mm)
{
    mm->x = mfi_cuda_row(c, norm->src[0]);
    mm->ldx = width(c, norm->src[0]);
    mm->norm = (const float *)c->mats[norm->w[0]].plane[0];
    mm->norm_eps = norm->n ? c->p->shape.latent_eps : c->p->shape.eps;
    mm->norm_out = mfi_cuda_row(c, norm->dst[0]);
}

static bool norms_into(const mfi_cuda *c, const mfi_op *norm, const mfi_op *product)
{
    return norm->code == MFI_OP_RMSNORM && !norm->head && product->code == MFI_OP_MATMUL &&
           product->src[0] == norm->dst[0] && norm->src[0] != norm->dst[0] &&
           c->mats[product->w[0]].cols == c->mats[norm->w[0]].cols;
}

static bool routes(const mfi_cuda *c, const mfi_op *product, const mfi_op *route)
{
    const mfi_cuda_mat *m = &c->mats[product->w[0]];
    return product->n == 1 && route->code == MFI_OP_ROUTE && route->src[0] == product->dst[0] &&
           m->type.kind <= MFI_CUDA_BF16 && m->rows <= ROUTER_ROWS_MAX;
}

/* A BIAS whose every vector is added to an output of the product. */
static bool biases(const mfi_cuda *c, const mfi_op *product, const mfi_op *bias)
{
    if (product->code != MFI_OP_MATMUL || bias->code != MFI_OP_BIAS || product->head)
        return false;
    for (uint32_t i = 0; i < bias->n; i++) {
        uint32_t n = 0;
        for (uint32_t k = 0; k < product->n; k++)
            n += product->dst[k] == bias->dst[i] &&
                 c->mats[product->w[k]].rows == c->mats[bias->w[i]].cols;
        for (uint32_t k = 0; k < i; k++)
            n += bias->dst[k] == bias->dst[i];
        if (n != 1)
            return false;
    }
    return true;
}

/* NORM, MATMUL, maybe BIAS, ROUTE. */
static cudaError_t route(mfi_cuda *c, const mfi_op *op, const mfi_op *bias)
{
    mfi_cuda_mm mm = {.n_mats = 1,
                      .mat = {c->mats[op[1].w[0]]},
                      .y = {mfi_cuda_row(c, op[1].dst[0])},
                      .ldy = {width(c, op[1].dst[0])},
                      .n_tok = 1};
    mfi_cuda_route r = mfi_cuda_route_of(c, &op[bias ? 3 : 2], 1);
    add_norm(c, op, &mm);
    if (bias) {
        mm.bias[0] = true;
        mm.bias_type[0].kind = MFI_CUDA_F32;
        mm.bias_offset[0] = (uintptr_t)c->mats[bias->w[0]].plane[0]; /* of no slot */
    }
    return mfi_cuda_route_rows(&mm, &r, c->turn, c->stream);
}

/* MATMUL, the norm in front of it if `norm` isn't NULL, and a BIAS and an ADD behind it, of the n
 * ops from the product on; how many of these. */
static uint32_t product(mfi_cuda *c, const mfi_op *norm, const mfi_op *op, uint32_t n,
                        cudaError_t *e)
{
    mfi_cuda_mm first = {0};
    uint32_t taken = 1;
    if (!all_codes(c, op, op->src[0]) || (norm && !all_codes(c, op, norm->src[0])))
        return 0;
    const mfi_op *bias = n > 1 && biases(c, op, &op[1]) ? &op[taken++] : NULL;
    const mfi_op *add = taken < n && !norm && op->n == 1 && !op->head ? &op[taken] : NULL;
    if (add && add->code == MFI_OP_ADD && add->src[0] == op->dst[0]) {
        first.res = mfi_cuda_row(c, add->dst[0]);
        first.ld_res = width(c, add->dst[0]);
        first.res_factor = c->p->shape.residual_scale;
        taken++;
    }
    if (norm)
        add_norm(c, norm, &first);
    else if (taken == 1)
        return 0;
    *e = mfi_cuda_matmul_op(c, op, &first, bias);
    return taken;
}

uint32_t mfi_cuda_fuse(mfi_cuda *c, const mfi_op *op, uint32_t n, const mfi_step *step,
                       cudaError_t *e)
{
    *e = cudaSuccess;
    if (step->n_tok != 1 || n < 2)
        return 0;
    if (op[0].code == MFI_OP_ATTN_PREP && op[1].code == MFI_OP_ATTN &&
        op[0].src[0] == op[1].src[0] && mfi_cuda_attn_op(c, op, step, e))
        return 2;
    bool normed = norms_into(c, &op[0], &op[1]);
    if (n >= 3 && normed && routes(c, &op[1], &op[2])) {
        *e = route(c, op, NULL);
        return 3;
    }
    if (n >= 4 && normed && biases(c, &op[1], &op[2]) && routes(c, &op[1], &op[3])) {
        *e = route(c, op, &op[2]);
        return 4;
    }
    if (normed) {
        uint32_t taken = product(c, op, &op[1], n - 1, e);
        return taken ? taken + 1 : 0;
    }
    return op[0].code == MFI_OP_MATMUL ? product(c, NULL, op, n, e) : 0;
}
