/* Products with weights of every type, embeddings, products with transposed rows.
 *
 * A simdgroup has four rows. Each lane takes eight neighbouring columns in every 256, decodes them
 * for its rows, and has one chain of fma for each row and token; the 32 chains of an output are
 * added by simd_sum. One token or eight go through the same function, so the bits are the same. */
#include "backend/metal/decode_any.metal"

#define ROWS 4 /* of a simdgroup */

MFI_FN void load_x8(device const float *x, uint left, thread float *v)
{
    if (left >= 8) {
        float4 a = *(device const packed_float4 *)x, b = *(device const packed_float4 *)(x + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
        for (uint i = 0; i < 8; i++)
            v[i] = i < left ? x[i] : 0.0f;
    }
}

/* Of four sums that all lanes have, one a lane. */
MFI_FN float row_of(float4 sum, uint lane)
{
    return lane == 0 ? sum.x : lane == 1 ? sum.y : lane == 2 ? sum.z : sum.w;
}

/* Rows of weights from row0 on, those beyond last being the last once more, with T rows of x. Lane
 * r gets row r's sums. */
template <class D, int T>
MFI_FN void dots(thread const planes &w, constant mfi_metal_mat &m, uint row0, uint last,
                 device const float *x, thread const uint64_t *x_at, uint lane, thread float *sum)
{
    float acc[T][ROWS];
    for (int t = 0; t < T; t++)
        for (int r = 0; r < ROWS; r++)
            acc[t][r] = 0;
    for (uint col = lane * 8; col < m.cols; col += 256) {
        float v[ROWS][8], in[8];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            D::get(w, m, min(row0 + r, last), col, v[r]);
#pragma unroll
        for (int t = 0; t < T; t++) {
            load_x8(x + x_at[t] + col, m.cols - col, in);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    acc[t][r] = fma(v[r][i], in[i], acc[t][r]);
        }
    }
    for (int t = 0; t < T; t++)
        sum[t] = row_of(simd_sum(float4(acc[t][0], acc[t][1], acc[t][2], acc[t][3])), lane);
}

MFI_FN float add_bias(constant mfi_metal_mm &a, int m, device const uchar *slot, uint row, float v)
{
    if (!a.bias_kind[m])
        return v;
    return v + load_float(a.bias_kind[m], slot + a.bias_offset[m], row);
}

/* Tokens, or pairs, of a threadgroup, and where their expert is; n 0: nothing to do. */
struct work {
    uint64_t base;
    uint first, n;
};

MFI_FN work work_of(constant mfi_metal_mm &a, device const mfi_metal_item *items, uint y, uint tile)
{
    work it;
    it.base = 0;
    if (a.n_items) {
        uint64_t slot = items[y].slot;
        it.first = items[y].first;
        it.n = (uint)(slot >> 56) == a.slot_buffer ? items[y].n : 0;
        it.base = slot & 0xffffffffffffffu;
    } else {
        it.first = y * tile;
        it.n = min(a.n_tok - it.first, tile);
    }
    return it;
}

MFI_FN uint64_t x_of(constant mfi_metal_mm &a, device const uint *x_row, uint token)
{
    uint row = a.n_items && !a.by_pair ? x_row[token] : token;
    return (uint64_t)row * a.ldx;
}

/* GLU: with gate and up, else one matrix. */
template <class D, int T, bool GLU>
MFI_FN void multiply(constant mfi_metal_mm &a, device const uchar *w0, device const uchar *w1,
                     device const uchar *w2, device const float *x, device float *y,
                     device const mfi_metal_item *items, device const uint *x_row,
                     device const ushort *tables, uint3 at, uint lane, uint sg)
{
    uint head_rows = a.head_rows ? a.head_rows : a.mat[0].rows;
    uint per_head = (head_rows + MFI_METAL_ROWS_TG - 1) / MFI_METAL_ROWS_TG;
    uint head = at.x / per_head, row = at.x % per_head * MFI_METAL_ROWS_TG + sg * ROWS;
    uint row0 = head * head_rows + row, last = (head + 1) * head_rows - 1;
    work it = work_of(a, items, at.y, T);
    if (row >= head_rows)
        return;
    planes gate = planes_of(a.mat[0], it.base, w0, w1, w2, tables);
    for (uint t0 = 0; t0 < it.n; t0 += T) {
        uint64_t x_at[T];
        float sum[T], other[T];
        for (int t = 0; t < T; t++)
            x_at[t] = x_of(a, x_row, it.first + min(t0 + t, it.n - 1)) + (uint64_t)head * a.head_x;
        dots<D, T>(gate, a.mat[0], row0, last, x, x_at, lane, sum);
        if (GLU) {
            planes up = planes_of(a.mat[1], it.base, w0, w1, w2, tables);
            dots<D, T>(up, a.mat[1], row0, last, x, x_at, lane, other);
        }
        for (int t = 0; t < T; t++) {
            if (lane >= ROWS || row0 + lane > last || t0 + t >= it.n)
                continue;
            float v = add_bias(a, 0, w0 + it.base, row0 + lane, sum[t]);
            if (GLU)
                v = glu_of(a.glu, a.glu_alpha, a.glu_limit, v,
                           add_bias(a, 1, w0 + it.base, row0 + lane, other[t]));
            uint column = a.head_rows ? head * a.head_y + row + lane : row0 + lane;
            y[(uint64_t)(it.first + t0 + t) * a.ldy + column] = v;
        }
    }
}

#define MM_PARAMETERS                                                                              \
    constant mfi_metal_mm &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],                  \
        device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],                \
        device const float *x [[buffer(4)]], device float *y [[buffer(5)]],                        \
        device const mfi_metal_item *items [[buffer(6)]], device const uint *x_row [[buffer(7)]],  \
        device const ushort *tables [[buffer(8)]], MFI_AT

#define MM_KERNEL(name, D, T, GLU)                                                                 \
    kernel void name(MM_PARAMETERS)                                                                \
    {                                                                                              \
        MFI_UNLESS_STOPPED;                                                                        \
        multiply<D, T, GLU>(a, w0, w1, w2, x, y, items, x_row, tables, at, lane, sg);              \
    }
#define MM_KERNELS(d)                                                                              \
    MM_KERNEL(mfi_mm_##d##_1, dec_##d, 1, false)                                                   \
    MM_KERNEL(mfi_mm_##d##_8, dec_##d, MFI_METAL_TILE, false)                                      \
    MM_KERNEL(mfi_glu_##d##_1, dec_##d, 1, true)                                                   \
    MM_KERNEL(mfi_glu_##d##_8, dec_##d, MFI_METAL_TILE, true)
MFI_METAL_DECODERS(MM_KERNELS)

/* ---- transposed ---- */

#define T_TOK 4 /* tokens that share a decoded row */

/* A thread has one output of a few pairs of an expert; inputs come in order. */
kernel void mfi_mm_cols(MM_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    work it = work_of(a, items, at.y, 1);
    uint c = at.x * size.x + tid;
    if (c >= a.mat[0].cols)
        return;
    device const uchar *w = w0 + (it.base + a.mat[0].offset[0]);
    for (uint p = 0; p < it.n; p += T_TOK) {
        float sum[T_TOK];
        uint64_t x_at[T_TOK];
        for (int t = 0; t < T_TOK; t++) {
            x_at[t] = x_of(a, x_row, it.first + min(p + t, it.n - 1));
            sum[t] = 0;
        }
        for (uint r = 0; r < a.mat[0].rows; r++) {
            float v = load_float(a.mat[0].kind, w, (uint64_t)r * a.mat[0].cols + c);
            for (int t = 0; t < T_TOK; t++)
                sum[t] = fma(v, x[x_at[t] + r], sum[t]);
        }
        for (int t = 0; t < T_TOK; t++)
            if (p + t < it.n)
                y[(uint64_t)(it.first + p + t) * a.ldy + c] =
                    add_bias(a, 0, w0 + it.base, c, sum[t]);
    }
}

/* A thread has 8 columns of a head, for a few tokens; rows come in order. */
kernel void mfi_mm_t(MM_PARAMETERS)
{
    MFI_UNLESS_STOPPED;
    uint col = (at.x * size.x + tid) * 8, head = at.y, first = at.z * T_TOK;
    if (col >= a.mat[0].cols)
        return;
    planes w = planes_of(a.mat[0], 0, w0, w1, w2, tables);
    float sum[T_TOK][8], v[8];
    uint64_t x_at[T_TOK];
    for (int t = 0; t < T_TOK; t++) {
        x_at[t] = (uint64_t)min(first + t, a.n_tok - 1) * a.ldx + (uint64_t)head * a.head_x;
        EACH8(i) sum[t][i] = 0;
    }
    for (uint r = 0; r < a.head_rows; r++) {
        dec_any::get(w, a.mat[0], head * a.head_rows + r, col, v);
        for (int t = 0; t < T_TOK; t++) {
            float in = x[x_at[t] + r];
            EACH8(i) sum[t][i] = fma(in, v[i], sum[t][i]);
        }
    }
    for (int t = 0; t < T_TOK; t++)
        for (uint i = 0; i < 8 && first + t < a.n_tok; i++)
            if (col + i < a.mat[0].cols)
                y[(uint64_t)(first + t) * a.ldy + (uint64_t)head * a.head_y + col + i] = sum[t][i];
}

/* ---- embedding ---- */

kernel void mfi_embed(constant mfi_metal_embed &a [[buffer(0)]],
                      device const uchar *w0 [[buffer(1)]], device const uchar *w1 [[buffer(2)]],
                      device const uchar *w2 [[buffer(3)]], device const int *tokens [[buffer(4)]],
                      device float *y [[buffer(5)]], device const ushort *tables [[buffer(6)]],
                      MFI_AT)
{
    MFI_UNLESS_STOPPED;
    uint col = (at.x * size.x + tid) * 8;
    if (col >= a.mat.cols)
        return;
    planes w = planes_of(a.mat, 0, w0, w1, w2, tables);
    float v[8];
    dec_any::get(w, a.mat, (uint)tokens[at.y], col, v);
    for (uint i = 0; i < 8; i++)
        if (col + i < a.mat.cols)
            y[(uint64_t)at.y * a.ldy + col + i] = v[i] * a.scale;
}
