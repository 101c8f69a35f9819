/* Row orders of packed, tiled and paired projections; see program.h. Pure index arithmetic. */
#include "op/program.h"

/* v head h in grouped order (by key head) stands at this place in tiled order. */
static uint32_t tiled(const mfi_shape *s, uint32_t h)
{
    uint32_t per = s->gdn_v_heads / s->gdn_k_heads;
    return h % per * s->gdn_k_heads + h / per;
}

/* `unit` rows a head, heads tiled. */
static uint32_t tiled_rows(const mfi_shape *s, uint32_t row, uint32_t unit, uint32_t *src)
{
    *src = tiled(s, row / unit) * unit + row % unit;
    return unit - row % unit;
}

/* Row of [q heads | k heads | v heads] in a tensor packed by key head. */
static uint32_t packed_qkv(const mfi_shape *s, uint32_t row, uint32_t *src)
{
    uint32_t dk = s->gdn_k_dim, group_v = s->gdn_v_heads / s->gdn_k_heads * s->gdn_v_dim;
    uint32_t stride = 2 * dk + 2 * group_v, n_k = s->gdn_k_heads * dk;
    if (row < 2 * n_k) { /* q, then k */
        uint32_t part = row / n_k, at = row % n_k;
        *src = at / dk * stride + part * dk + at % dk;
        return dk - at % dk;
    }
    uint32_t at = row - 2 * n_k;
    *src = at / group_v * stride + 2 * dk + at % group_v;
    return group_v - at % group_v;
}

/* Row of a half (0 or 1) of a tensor that has, per key head, two runs of `run` rows after `skip`.
 */
static uint32_t packed_half(uint32_t row, uint32_t skip, uint32_t run, uint32_t half, uint32_t *src)
{
    *src = row / run * (skip + 2 * run) + skip + half * run + row % run;
    return run - row % run;
}

/* Row of a head whose first n_rot rows come as pairs (0, n_rot / 2), (1, n_rot / 2 + 1)... */
static uint32_t paired_rows(const mfi_shape *s, uint32_t row, uint32_t *src)
{
    uint32_t at = row % s->head_dim, half = s->n_rot / 2;
    *src = row;
    if (at >= s->n_rot)
        return s->head_dim - at;
    *src += at % half * 2 + at / half - at;
    return 1;
}

uint32_t mfi_map_source(const mfi_shape *s, mfi_row_map map, uint32_t row, uint32_t *src)
{
    uint32_t per = s->gdn_k_heads ? s->gdn_v_heads / s->gdn_k_heads : 0;
    uint32_t n_qk = 2 * s->gdn_k_heads * s->gdn_k_dim;
    switch (map) {
    case MFI_MAP_NONE:
        break;
    case MFI_MAP_QKVZ_QKV:
        return packed_qkv(s, row, src);
    case MFI_MAP_QKVZ_Z:
        return packed_half(row, 2 * s->gdn_k_dim, per * s->gdn_v_dim, 1, src);
    case MFI_MAP_BA_B:
        return packed_half(row, 0, per, 0, src);
    case MFI_MAP_BA_A:
        return packed_half(row, 0, per, 1, src);
    case MFI_MAP_TILED_QKV:
        if (row < n_qk) {
            *src = row;
            return n_qk - row;
        } else {
            uint32_t n = tiled_rows(s, row - n_qk, s->gdn_v_dim, src);
            *src += n_qk;
            return n;
        }
    case MFI_MAP_TILED_V:
    case MFI_MAP_TILED_COLS:
        return tiled_rows(s, row, s->gdn_v_dim, src);
    case MFI_MAP_TILED_HEADS:
        return tiled_rows(s, row, 1, src);
    case MFI_MAP_ROPE_PAIRS:
        return paired_rows(s, row, src);
    case MFI_MAP_KVB_K:
        *src = row / s->nope_dim * (s->nope_dim + s->v_dim) + row % s->nope_dim;
        return s->nope_dim - row % s->nope_dim;
    case MFI_MAP_KVB_V:
        *src = row / s->v_dim * (s->nope_dim + s->v_dim) + s->nope_dim + row % s->v_dim;
        return s->v_dim - row % s->v_dim;
    case MFI_MAP_FUSED_Q:
        break;
    case MFI_MAP_FUSED_K:
        *src = row + s->n_head * s->head_dim;
        return UINT32_MAX;
    case MFI_MAP_FUSED_V:
        *src = row + (s->n_head + s->n_kv_head) * s->head_dim;
        return UINT32_MAX;
    }
    *src = row;
    return UINT32_MAX;
}

uint64_t mfi_map_tensor_rows(const mfi_shape *s, mfi_row_map map, uint64_t rows)
{
    uint64_t v = (uint64_t)s->gdn_v_heads * s->gdn_v_dim;
    switch (map) {
    case MFI_MAP_QKVZ_QKV:
    case MFI_MAP_QKVZ_Z:
        return 2 * (uint64_t)s->gdn_k_heads * s->gdn_k_dim + 2 * v;
    case MFI_MAP_BA_B:
    case MFI_MAP_BA_A:
        return 2 * (uint64_t)s->gdn_v_heads;
    case MFI_MAP_KVB_K:
    case MFI_MAP_KVB_V:
        return (uint64_t)s->n_head * (s->nope_dim + s->v_dim);
    case MFI_MAP_FUSED_Q:
    case MFI_MAP_FUSED_K:
    case MFI_MAP_FUSED_V:
        return ((uint64_t)s->n_head + 2 * (uint64_t)s->n_kv_head) * s->head_dim;
    default:
        return rows;
    }
}
