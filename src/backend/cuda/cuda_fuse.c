/* Ops of a single token that one kernel computes: norms go into the products behind them, additions
 * into those before them, routers and their choice are one, and so are the experts' last products
 * and their sum. Bits are those of the ops one by one. Called by the backend's run, on the engine's
 * thread, also while a graph is recorded. */
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

/* NORM, MATMUL, ROUTE, if they go together. */
static bool route(mfi_cuda *c, const mfi_op *op, cudaError_t *e)
{
    mfi_cuda_mm mm = {.n_mats = 1,
                      .mat = {c->mats[op[1].w[0]]},
                      .y = {mfi_cuda_row(c, op[1].dst[0])},
                      .ldy = {width(c, op[1].dst[0])},
                      .n_tok = 1};
    mfi_cuda_route r = mfi_cuda_route_of(c, &op[2], 1);
    add_norm(c, op, &mm);
    if (!mfi_cuda_route_fits(&mm))
        return false;
    *e = mfi_cuda_route_rows(&mm, &r, c->turn, c->stream);
    return true;
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
    if (n >= 3 && normed && routes(c, &op[1], &op[2]) && route(c, op, e))
        return 3;
    if (normed && all_codes(c, &op[1], op[0].src[0]) && all_codes(c, &op[1], op[1].src[0])) {
        mfi_cuda_mm first = {0};
        add_norm(c, op, &first);
        *e = mfi_cuda_matmul_op(c, &op[1], &first);
        return 2;
    }
    if (op[0].code == MFI_OP_MATMUL && op[0].n == 1 && op[1].code == MFI_OP_ADD && !op[0].head &&
        op[1].src[0] == op[0].dst[0] && all_codes(c, &op[0], op[0].src[0])) {
        mfi_cuda_mm first = {.res = mfi_cuda_row(c, op[1].dst[0]),
                             .ld_res = width(c, op[1].dst[0]),
                             .res_factor = c->p->shape.residual_scale};
        *e = mfi_cuda_matmul_op(c, &op[0], &first);
        return 2;
    }
    return 0;
}
