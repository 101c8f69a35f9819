/* Which kernel a call goes to, and its grid; what kernels need that the host works out. Pure:
 * called by the Metal backend on its thread, and by tests. */
#include "backend/metal/metal_kernels.h"

#include <math.h>
#include <string.h>

#include "base/defs.h"
#include "quant/ggml_iq_tables.h"

const mfi_metal_kernel_info mfi_metal_kernels[MFI_METAL_N_KERNELS] = {
#define INFO(name, n_buffers, type) {"mfi_" #name, n_buffers, sizeof(type)},
#define INFO_MM(d)                  MFI_METAL_MM_KERNELS(INFO, d)
    MFI_METAL_DECODERS(INFO_MM) MFI_METAL_OTHER_KERNELS(INFO)};

static uint32_t ceil_div(uint64_t n, uint32_t d)
{
    return (uint32_t)((n + d - 1) / d);
}

/* Threadgroup memory comes in 16 bytes, and never as none. */
static mfi_metal_call call(mfi_metal_kernel kernel, uint32_t x, uint32_t y, uint32_t z,
                           uint32_t threads, uint64_t shared_bytes)
{
    return (mfi_metal_call){
        kernel, {x, y, z}, threads, (uint32_t)MFI_MAX(mfi_align_up(shared_bytes, 16), 16)};
}

/* ---- products ---- */

mfi_metal_mat mfi_metal_mat_of(mfi_qtype type, uint32_t rows, uint32_t cols)
{
    mfi_metal_mat m = {.rows = rows,
                       .cols = cols,
                       .kind = type.kind,
                       .bits = type.bits,
                       .scale = type.scale,
                       .group = type.group};
    for (uint32_t p = 0; p < mfi_quant_n_planes(type); p++)
        m.row_bytes[p] = mfi_quant_row_bytes(type, p, cols);
    if (type.kind == MFI_Q_GGML)
        MFI_ASSERT(mfi_ggml_block(type.bits, &m.n_elements, &m.n_bytes));
    return m;
}

/* The first of a decoder's four kernels. */
static uint32_t decoder_of(const mfi_metal_mat *m)
{
    switch (m->kind) {
    case MFI_METAL_F32:
        return MFI_METAL_K_mm_f32_1;
    case MFI_METAL_F16:
        return MFI_METAL_K_mm_f16_1;
    case MFI_METAL_BF16:
        return MFI_METAL_K_mm_bf16_1;
    case MFI_METAL_MXFP4:
        return MFI_METAL_K_mm_mxfp4_1;
    case MFI_METAL_MLX:
        return m->bits == 4   ? MFI_METAL_K_mm_mlx4_1
               : m->bits == 8 ? MFI_METAL_K_mm_mlx8_1
                              : MFI_METAL_K_mm_any_1;
    case MFI_METAL_GGML:
        return m->bits == 8    ? MFI_METAL_K_mm_q8_0_1
               : m->bits == 12 ? MFI_METAL_K_mm_q4_k_1
               : m->bits == 13 ? MFI_METAL_K_mm_q5_k_1
               : m->bits == 14 ? MFI_METAL_K_mm_q6_k_1
                               : MFI_METAL_K_mm_any_1;
    default:
        return MFI_METAL_K_mm_any_1;
    }
}

mfi_metal_call mfi_metal_mm_call(const mfi_metal_mm *a, bool few)
{
    uint32_t head_rows = a->head_rows ? a->head_rows : a->mat[0].rows;
    uint32_t x = ceil_div(head_rows, MFI_METAL_ROWS_TG) * (a->mat[0].rows / head_rows);
    if (!a->n_items)
        few = a->n_tok == 1;
    uint32_t y = a->n_items ? a->n_items : ceil_div(a->n_tok, few ? 1 : MFI_METAL_TILE);
    uint32_t kernel = decoder_of(&a->mat[0]) + (few ? 0 : 1) + (a->glu ? 2 : 0);
    return call((mfi_metal_kernel)kernel, x, y, 1, MFI_METAL_MM_THREADS, 0);
}

mfi_metal_call mfi_metal_mm_cols_call(const mfi_metal_mm *a)
{
    return call(MFI_METAL_K_mm_cols, ceil_div(a->mat[0].cols, 64), a->n_items, 1, 64, 0);
}

mfi_metal_call mfi_metal_mm_t_call(const mfi_metal_mm *a, uint32_t n_head)
{
    return call(MFI_METAL_K_mm_t, ceil_div(a->mat[0].cols, 256), n_head, ceil_div(a->n_tok, 4), 32,
                0);
}

/* ---- rows ---- */

mfi_metal_call mfi_metal_embed_call(const mfi_metal_embed *a)
{
    return call(MFI_METAL_K_embed, ceil_div(a->mat.cols, 512), a->n_tok, 1, 64, 0);
}

mfi_metal_call mfi_metal_rope_table_call(const mfi_metal_rope_table *a)
{
    return call(MFI_METAL_K_rope_table, a->n_pairs ? a->n_tok : 0, 1, 1, 64, 0);
}

mfi_metal_call mfi_metal_rmsnorm_call(const mfi_metal_rmsnorm *a)
{
    /* By the row's length alone: it is part of the order of sums. */
    uint32_t threads = MFI_MIN(ceil_div(a->n, 128) * 32, MFI_METAL_NORM_THREADS);
    return call(MFI_METAL_K_rmsnorm, a->n_tok, 1, 1, threads, 32 * sizeof(float));
}

mfi_metal_call mfi_metal_add_call(const mfi_metal_add *a)
{
    return call(MFI_METAL_K_add, ceil_div(a->n, 256), a->n_tok, 1, 256, 0);
}

mfi_metal_call mfi_metal_scale_call(const mfi_metal_scale *a)
{
    return call(MFI_METAL_K_scale, ceil_div(a->n, 256), 1, 1, 256, 0);
}

mfi_metal_call mfi_metal_glu_call(const mfi_metal_glu *a)
{
    return call(MFI_METAL_K_glu, ceil_div(a->n, 128), a->n_tok, 1, 128, 0);
}

mfi_metal_call mfi_metal_combine_call(const mfi_metal_combine *a)
{
    return call(MFI_METAL_K_combine, ceil_div(a->hidden, 128), a->n_tok, 1, 128, 0);
}

/* ---- mixers ---- */

mfi_metal_call mfi_metal_prep_call(const mfi_metal_prep *a)
{
    return call(MFI_METAL_K_attn_prep, ceil_div((uint64_t)a->n_head + a->n_kv_head, 4), a->n_tok, 1,
                128, 0);
}

mfi_metal_call mfi_metal_latent_prep_call(const mfi_metal_latent *a)
{
    return call(MFI_METAL_K_latent_prep, ceil_div((uint64_t)a->n_head + 1, 4), a->n_tok, 1, 128, 0);
}

mfi_metal_call mfi_metal_latent_tail_call(const mfi_metal_latent *a)
{
    return call(MFI_METAL_K_latent_tail, ceil_div((uint64_t)a->n_head * a->n_rot, 128), a->n_tok, 1,
                128, 0);
}

static uint32_t first_block(uint32_t last, uint32_t window)
{
    return window && last >= window ? (last - window + 1) / MFI_METAL_ATTN_BLOCK : 0;
}

uint32_t mfi_metal_attn_blocks(uint32_t pos, uint32_t n_tok, uint32_t window)
{
    return (pos + n_tok - 1) / MFI_METAL_ATTN_BLOCK + 1 - first_block(pos, window);
}

uint64_t mfi_metal_attn_partial_bytes(uint32_t n_tok, uint32_t n_head, uint32_t n_blocks,
                                      uint32_t dim_v)
{
    return (uint64_t)n_tok * n_head * n_blocks * ((uint64_t)dim_v + 2) * sizeof(float);
}

/* Columns of values that a thread has: one of four kernels. */
static uint32_t width_of(const mfi_metal_attn *a)
{
    uint32_t columns = ceil_div(a->dim_v, MFI_METAL_ATTN_THREADS);
    return columns <= 1 ? 0 : columns <= 2 ? 1 : columns <= 4 ? 2 : 3;
}

static mfi_metal_call attn_call(const mfi_metal_attn *a, uint32_t kernel, uint32_t z)
{
    uint32_t queries = mfi_metal_attn_queries(a->dim);
    uint64_t floats = (uint64_t)queries * a->dim + (MFI_METAL_ATTN_BLOCK + 2) * MFI_METAL_QUERIES;
    return call((mfi_metal_kernel)kernel, ceil_div((uint64_t)a->n_tok * a->group, queries),
                a->n_head / a->group, z, MFI_METAL_ATTN_THREADS, floats * sizeof(float));
}

mfi_metal_call mfi_metal_attn_part_call(const mfi_metal_attn *a)
{
    return attn_call(a, MFI_METAL_K_attn_part_1 + width_of(a), a->n_blocks);
}

mfi_metal_call mfi_metal_attn_merge_call(const mfi_metal_attn *a)
{
    return call(MFI_METAL_K_attn_merge, a->n_head, a->n_tok, 1, MFI_METAL_ATTN_THREADS, 0);
}

mfi_metal_call mfi_metal_attn_walk_call(const mfi_metal_attn *a)
{
    return attn_call(a, MFI_METAL_K_attn_walk_1 + width_of(a), 1);
}

mfi_metal_call mfi_metal_conv_call(const mfi_metal_conv *a)
{
    return call(MFI_METAL_K_gdn_conv, ceil_div(a->n_ch, 64), 1, 1, 64, 0);
}

mfi_metal_call mfi_metal_gdn_call(const mfi_metal_gdn *a)
{
    uint64_t shared_bytes = (2 * (uint64_t)a->k_dim + 32) * sizeof(float);
    uint32_t whole = (a->v_dim + 7) / 8 * 32; /* threads, four a column; registers end there */
    if (whole <= 512 && (a->k_dim == 64 || a->k_dim == 128))
        return call(a->k_dim == 64 ? MFI_METAL_K_gdn_64 : MFI_METAL_K_gdn_128, a->v_heads, 1, 1,
                    whole, shared_bytes);
    return call(MFI_METAL_K_gdn_any, a->v_heads, 1, 1, (a->v_dim + 31) / 32 * 32, shared_bytes);
}

/* ---- experts ---- */

mfi_metal_call mfi_metal_route_call(const mfi_metal_route *a)
{
    /* What the choice goes by, groups' worth, and the chosen. */
    uint64_t floats = a->n + MFI_METAL_MAX_EXPERT_GROUPS + 2 * MFI_METAL_MAX_TOP_K;
    return call(MFI_METAL_K_route, a->n_tok, 1, 1, 32, floats * sizeof(float));
}

mfi_metal_call mfi_metal_group_call(const mfi_metal_group *a)
{
    uint64_t numbers = 2 * (uint64_t)a->n_experts + 2;
    return call(MFI_METAL_K_group, 1, 1, 1, 1024, numbers * sizeof(uint32_t));
}

uint32_t mfi_metal_group_items(uint32_t n_tok, uint32_t top_k, uint32_t n_experts, uint32_t tile)
{
    uint32_t pairs = n_tok * top_k;
    return MFI_MIN(pairs, n_experts) + pairs / tile;
}

/* ---- numbers ---- */

uint64_t mfi_metal_turns(double radians)
{
    double turns = radians / 6.283185307179586477;
    return (uint64_t)ldexp(turns - floor(turns), 64);
}

void mfi_metal_fill_tables(uint16_t tables[MFI_METAL_N_TABLES])
{
    memcpy(tables + MFI_METAL_IQ2_XXS, mfi_iq2_xxs_grid, sizeof mfi_iq2_xxs_grid);
    memcpy(tables + MFI_METAL_IQ2_XS, mfi_iq2_xs_grid, sizeof mfi_iq2_xs_grid);
    memcpy(tables + MFI_METAL_IQ2_S, mfi_iq2_s_grid, sizeof mfi_iq2_s_grid);
    memcpy(tables + MFI_METAL_IQ1, mfi_iq1_grid, sizeof mfi_iq1_grid);
    memcpy(tables + MFI_METAL_IQ3_XXS, mfi_iq3_xxs_grid, sizeof mfi_iq3_xxs_grid);
    memcpy(tables + MFI_METAL_IQ3_S, mfi_iq3_s_grid, sizeof mfi_iq3_s_grid);
}
