/* Products with all other weights, and whatever decodes any type: embeddings, products with
 * transposed rows. Called by the backend's thread; only queues work. */
#include "backend/cuda/decode_any.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/matmul.cuh"

cudaError_t mfi_cuda_matmul_any(const mfi_cuda_mm *mm, cudaStream_t s)
{
    return mm_start<dec_any>(mm, s);
}

/* Which source has the kernels of a type. */
enum family { FLOATS, K_TYPES, PACKED, LEGACY, OTHERS };

/* Kernels for codes load in sixteens of bytes; everything is aligned so but in odd files. */
static bool aligned(const mfi_cuda_mm *mm)
{
    uint32_t n = mm->glu ? 2 : mm->n_mats;
    uintptr_t all = (uintptr_t)mm->x | mm->ldx * 4 | mm->head_x * 4;
    for (uint32_t i = 0; i < n; i++)
        all |= mm->mat[i].type.kind == MFI_CUDA_GGML ? (uintptr_t)mm->mat[i].plane[0] : 0;
    return (all & 15) == 0;
}

static family family_of(const mfi_cuda_mm *mm)
{
    mfi_cuda_type type = mm->mat[0].type;
    if (type.kind <= MFI_CUDA_BF16)
        return FLOATS;
    if (mm->mat[0].cols % 32 != 0 || !aligned(mm))
        return OTHERS;
    if (type.kind == MFI_CUDA_MXFP4)
        return PACKED;
    if (type.kind == MFI_CUDA_MLX)
        return type.group % 32 == 0 && (type.bits == 4 || type.bits == 8) ? PACKED : OTHERS;
    if (type.kind != MFI_CUDA_GGML)
        return OTHERS;
    switch (type.bits) { /* GGML's numbers */
    case 2:
    case 3:
    case 6:
    case 7:
        return LEGACY;
    case 8:
    case 39:
        return PACKED;
    case 12:
    case 13:
    case 14:
        return K_TYPES;
    default:
        return OTHERS;
    }
}

bool mfi_cuda_takes_codes(const mfi_cuda_mm *mm)
{
    family f = family_of(mm);
    return f != FLOATS && f != OTHERS;
}

#define FEW_ROWS 512

static bool few_rows(const mfi_cuda_mm *mm)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < mm->n_mats; i++)
        most = max(most, mm->mat[i].rows);
    return most <= FEW_ROWS && !mm->items && !mm->head_rows && !mm->glu;
}

cudaError_t mfi_cuda_matmul(const mfi_cuda_mm *mm, cudaStream_t s)
{
    switch (family_of(mm)) {
    case FLOATS:
        return few_rows(mm) ? mfi_cuda_matmul_rows(mm, s) : mfi_cuda_matmul_float(mm, s);
    case K_TYPES:
        return mfi_cuda_matmul_k(mm, s);
    case PACKED:
        return mfi_cuda_matmul_packed(mm, s);
    case LEGACY:
        return mfi_cuda_matmul_legacy(mm, s);
    default:
        return mfi_cuda_matmul_any(mm, s);
    }
}

#define DOWN_ROOM_MAX (96u << 10) /* of shared memory */

bool mfi_cuda_down_fits(const mfi_cuda_mm *mm, uint32_t top_k)
{
    uint64_t room = (uint64_t)mm->mat[0].cols * top_k * 7;
    return mfi_cuda_takes_codes(mm) && room <= DOWN_ROOM_MAX;
}

cudaError_t mfi_cuda_down(const mfi_cuda_mm *mm, const mfi_cuda_combine *c, cudaStream_t s)
{
    switch (family_of(mm)) {
    case K_TYPES:
        return mfi_cuda_down_k(mm, c, s);
    case PACKED:
        return mfi_cuda_down_packed(mm, c, s);
    default:
        return mfi_cuda_down_legacy(mm, c, s);
    }
}

cudaError_t mfi_cuda_set_tables(const uint16_t *iq2_xxs, const uint16_t *iq2_xs,
                                const uint16_t *iq2_s, const uint16_t *iq1, const uint16_t *iq3_xxs,
                                const uint16_t *iq3_s)
{
    cudaError_t e[6] = {cudaMemcpyToSymbol(mfi_dev_iq2_xxs, iq2_xxs, sizeof mfi_dev_iq2_xxs),
                        cudaMemcpyToSymbol(mfi_dev_iq2_xs, iq2_xs, sizeof mfi_dev_iq2_xs),
                        cudaMemcpyToSymbol(mfi_dev_iq2_s, iq2_s, sizeof mfi_dev_iq2_s),
                        cudaMemcpyToSymbol(mfi_dev_iq1, iq1, sizeof mfi_dev_iq1),
                        cudaMemcpyToSymbol(mfi_dev_iq3_xxs, iq3_xxs, sizeof mfi_dev_iq3_xxs),
                        cudaMemcpyToSymbol(mfi_dev_iq3_s, iq3_s, sizeof mfi_dev_iq3_s)};
    for (int i = 0; i < 6; i++)
        if (e[i] != cudaSuccess)
            return e[i];
    return cudaSuccess;
}

/* ---- embedding ---- */

static __global__ void embed_rows(mfi_cuda_mat w, const int32_t *tokens, float scale, float *y,
                                  uint32_t ldy)
{
    begin_wait();
    begin_next();
    uint32_t col = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (col >= w.cols)
        return;
    float v[8];
    dec_any::get(w, w.plane, (uint32_t)tokens[blockIdx.y], col, v);
    float *to = y + (size_t)blockIdx.y * ldy + col;
    uint32_t left = w.cols - col;
    EACH8(i)
    if (i < left)
        to[i] = v[i] * scale;
}

cudaError_t mfi_cuda_embed(const mfi_cuda_mat *w, const int32_t *tokens, uint32_t n_tok,
                           float scale, float *y, uint32_t ldy, cudaStream_t s)
{
    return start_early(embed_rows, dim3((w->cols + 511) / 512, n_tok), 64, 0, s, *w, tokens, scale,
                       y, ldy);
}

/* ---- transposed ---- */

#define T_TOK 4 /* tokens that share a decoded row */

/* A thread has 8 columns of a head, for a few tokens; rows come in order. */
static __global__ void times_rows(mfi_cuda_mm mm)
{
    begin_wait();
    const mfi_cuda_mat &m = mm.mat[0];
    uint32_t col = (blockIdx.x * blockDim.x + threadIdx.x) * 8, head = blockIdx.y;
    uint32_t first = blockIdx.z * T_TOK;
    if (col >= m.cols)
        return;
    float sum[T_TOK][8], w[8];
    const float *x[T_TOK];
#pragma unroll
    for (int t = 0; t < T_TOK; t++) {
        x[t] = mm.x + (size_t)min(first + t, mm.n_tok - 1) * mm.ldx + head * mm.head_x;
        EACH8(i) sum[t][i] = 0;
    }
    for (uint32_t r = 0; r < mm.head_rows; r++) {
        dec_any::get(m, m.plane, head * mm.head_rows + r, col, w);
#pragma unroll
        for (int t = 0; t < T_TOK; t++) {
            float a = x[t][r];
            EACH8(i) sum[t][i] = fmaf(a, w[i], sum[t][i]);
        }
    }
    uint32_t left = m.cols - col;
#pragma unroll
    for (int t = 0; t < T_TOK; t++) {
        if (first + t >= mm.n_tok)
            break;
        float *to = mm.y[0] + (size_t)(first + t) * mm.ldy[0] + head * mm.head_y + col;
        EACH8(i)
        if (i < left)
            to[i] = sum[t][i];
    }
}

cudaError_t mfi_cuda_matmul_t(const mfi_cuda_mm *mm, uint32_t n_head, cudaStream_t s)
{
    dim3 grid((mm->mat[0].cols + 255) / 256, n_head, (mm->n_tok + T_TOK - 1) / T_TOK);
    times_rows<<<grid, 32, 0, s>>>(*mm);
    return cudaGetLastError();
}

/* A thread has one output of a few pairs of an expert. */
static __global__ void times_cols(mfi_cuda_mm mm)
{
    begin_wait();
    const mfi_cuda_mat &m = mm.mat[0];
    mfi_cuda_item item = mm.items[blockIdx.y];
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= m.cols)
        return;
    const uint8_t *w = item.data + (uintptr_t)m.plane[0];
    for (uint32_t p = 0; p < item.n; p += T_TOK) {
        float sum[T_TOK];
        const float *x[T_TOK];
#pragma unroll
        for (int t = 0; t < T_TOK; t++) {
            uint32_t pair = item.first + min(p + t, item.n - 1);
            x[t] = mm.x + (size_t)(mm.x_row ? mm.x_row[pair] : pair) * mm.ldx;
            sum[t] = 0;
        }
        for (uint32_t r = 0; r < m.rows; r++) {
            float v = load_float(m.type.kind, w, (uint64_t)r * m.cols + c);
#pragma unroll
            for (int t = 0; t < T_TOK; t++)
                sum[t] = fmaf(v, x[t][r], sum[t]);
        }
        float bias = mm.bias[0] ? mm_bias(mm, 0, item.data, c) : 0;
#pragma unroll
        for (int t = 0; t < T_TOK; t++)
            if (p + t < item.n)
                mm.y[0][(size_t)(item.first + p + t) * mm.ldy[0] + c] =
                    mm.bias[0] ? sum[t] + bias : sum[t];
    }
}

cudaError_t mfi_cuda_matmul_cols(const mfi_cuda_mm *mm, cudaStream_t s)
{
    if (mm->n_items == 0)
        return cudaSuccess;
    times_cols<<<dim3((mm->mat[0].cols + 127) / 128, mm->n_items), 128, 0, s>>>(*mm);
    return cudaGetLastError();
}
