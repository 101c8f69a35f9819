/* Products with weights as stored, on the matrix units, as exact as sums in float32 are.
 *
 * A warp takes 16 rows. Columns come in blocks of 32; in each, a thread decodes 8 neighbouring
 * columns of two rows and loads the same columns of a token, so that what the four steps of a block
 * multiply in which thread is a permutation of columns that both factors share. A factor is the sum
 * of two of 11 bits (the units cut the rest off, so the second is rounded beforehand), and three of
 * the four products are added: what is left out is below 2^-21 of a product. Factors that have 11
 * bits anyway are not split.
 *
 * Every output has one order of sums: blocks in rising order within a segment of 128 columns, each
 * segment from zero, then the segments in rising order. The kernel for few tokens deals segments
 * out to the warps of a block, the one for many walks over them; the bits are the same, so a
 * prompt's chunks and single tokens agree. */
#ifndef MFI_BACKEND_CUDA_MATMUL_CUH
#define MFI_BACKEND_CUDA_MATMUL_CUH

#include "backend/cuda/decode.cuh"
#include "backend/cuda/launch.cuh"

#define MM_ROWS    16
#define MM_WARPS   8
#define MM_BLOCK   32  /* columns decoded at a time */
#define MM_SEG     128 /* columns summed from zero */
#define MM_ROUND   32  /* segments whose sums wait in shared memory at a time */
#define MM_TILE    64 /* tokens of a tile of the kernel for many */
#define MM_NT      (MM_TILE / 8)
#define MM_X_STRIDE 36 /* floats; keeps 16-byte loads of a warp in different banks */

struct mm_split {
    uint32_t hi[8], lo[8];
};

MFI_DEV void split8(const float v[8], mm_split *s)
{
    EACH8(i)
    {
        s->hi[i] = (__float_as_uint(v[i]) + 0x1000) & 0xffffe000;
        s->lo[i] = __float_as_uint(v[i] - __uint_as_float(s->hi[i])) + 0x1000;
    }
}

MFI_DEV void mma(float c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                 uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Sums on their way: of the large parts' products, and of the others. Two chains, since the units
 * add with a latency, and cut off what a sum has no room for. */
struct mm_acc {
    float big[4], small[4];
};

MFI_DEV void mm_clear(mm_acc *c)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        c->big[i] = c->small[i] = 0;
}

/* 32 columns: rows g (a) and g + 8 (b) of the weights, token g (x). */
template <bool EXACT>
MFI_DEV void mm_block(mm_acc *c, const mm_split &a, const mm_split &b, const mm_split &x)
{
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        mma(c->big, a.hi[j], b.hi[j], a.hi[j + 1], b.hi[j + 1], x.hi[j], x.hi[j + 1]);
        mma(c->small, a.hi[j], b.hi[j], a.hi[j + 1], b.hi[j + 1], x.lo[j], x.lo[j + 1]);
        if (!EXACT)
            mma(c->small, a.lo[j], b.lo[j], a.lo[j + 1], b.lo[j + 1], x.hi[j], x.hi[j + 1]);
    }
}

/* Where a block of threads works. */
struct mm_place {
    uint32_t m;             /* matrix, the first of two with a glu */
    uint32_t row0, row_end; /* its rows: MM_ROWS a warp tile */
    uint32_t x_col, y_col;  /* by heads: added to columns of x, and instead of row0 in y */
    uint32_t first, n;      /* tokens, or pairs */
    const uint8_t *data;
};

/* Rows of tiles: `step` rows of one matrix, by heads where there are heads. */
MFI_DEV bool mm_find(const mfi_cuda_mm &mm, uint32_t step, uint32_t tok_tile, mm_place *at,
                     uint32_t tile)
{
    uint32_t n_mats = mm.glu ? 1 : mm.n_mats;
    for (at->m = 0; at->m < n_mats; at->m++) {
        uint32_t rows = mm.mat[at->m].rows;
        if (!mm.head_rows && tile * step < rows) {
            at->row0 = at->y_col = tile * step;
            at->row_end = rows;
            at->x_col = 0;
            break;
        }
        if (!mm.head_rows) {
            tile -= (rows + step - 1) / step;
            continue;
        }
        uint32_t head_rows = mm.head_rows;
        uint32_t per_head = (head_rows + step - 1) / step;
        uint32_t tiles = per_head * (rows / head_rows);
        if (tile < tiles) {
            uint32_t head = tile / per_head, row = tile % per_head * step;
            at->row0 = head * head_rows + row;
            at->row_end = (head + 1) * head_rows;
            at->x_col = head * mm.head_x;
            at->y_col = head * mm.head_y + row;
            break;
        }
        tile -= tiles;
    }
    if (at->m == n_mats)
        return false;
    at->data = NULL;
    if (mm.items) {
        mfi_cuda_item item = mm.items[blockIdx.y];
        at->first = item.first;
        at->n = item.n;
        at->data = item.data;
    } else {
        at->first = blockIdx.y * tok_tile;
        at->n = min(mm.n_tok - at->first, tok_tile);
    }
    return at->n > 0;
}

MFI_DEV void mm_planes(const mfi_cuda_mat &m, const uint8_t *data, const uint8_t *p[3])
{
    for (int i = 0; i < 3; i++)
        p[i] = data ? data + (uintptr_t)m.plane[i] : m.plane[i];
}

MFI_DEV void load_x8(const float *x, uint32_t left, float v[8])
{
    if (left >= 8 && ((uintptr_t)x & 15) == 0) {
        float4 a = ((const float4 *)x)[0], b = ((const float4 *)x)[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
        EACH8(i) v[i] = i < left ? x[i] : 0;
    }
}

MFI_DEV float mm_bias(const mfi_cuda_mm &mm, uint32_t m, const uint8_t *data, uint32_t row)
{
    return mm.bias[m] ? load_float(mm.bias_type[m].kind, data + mm.bias_offset[m], row) : 0;
}

MFI_DEV float mm_glu(const mfi_cuda_mm &mm, float gate, float up)
{
    if (mm.glu == MFI_CUDA_GLU_SILU)
        return gate / (1 + expf(-gate)) * up;
    float g = gate > mm.glu_limit ? mm.glu_limit : gate;
    float u = up > mm.glu_limit ? mm.glu_limit : up < -mm.glu_limit ? -mm.glu_limit : up;
    return (u + 1) * (g / (1 + expf(-mm.glu_alpha * g)));
}

MFI_DEV const float *mm_x_row(const mfi_cuda_mm &mm, const mm_place &at, uint32_t token)
{
    uint32_t row = at.first + token;
    if (mm.x_row)
        row = mm.x_row[row];
    return mm.x + (size_t)row * mm.ldx + at.x_col;
}

/* This thread's eight columns of block b of a segment. */
template <class D>
MFI_DEV void mm_take(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row, uint32_t seg,
                     int b, float w[8])
{
    uint32_t col = seg * MM_SEG + b * MM_BLOCK + threadIdx.x % 4 * 8;
    if (col < m.cols)
        D::get(m, p, row, col, w);
    else
        EACH8(i) w[i] = 0;
}

/* ---- few tokens ---- */

/* One segment of 16 rows by 8 tokens. */
template <class D>
MFI_DEV void mm_segment(const mfi_cuda_mat &m, const uint8_t *const p[3], uint32_t row_a,
                        uint32_t row_b, const float *x, uint32_t seg, mm_acc *acc)
{
    float v[MM_SEG / MM_BLOCK][8];
    uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (int b = 0; b < MM_SEG / MM_BLOCK; b++) {
        uint32_t col = seg * MM_SEG + b * MM_BLOCK + t * 8;
        if (x && col < m.cols)
            load_x8(x + col, m.cols - col, v[b]);
        else
            EACH8(i) v[b][i] = 0;
    }
    mm_clear(acc);
#pragma unroll
    for (int b = 0; b < MM_SEG / MM_BLOCK; b++) {
        if (seg * MM_SEG + b * MM_BLOCK >= m.cols)
            break;
        float wa[8], wb[8];
        mm_split a, c, xs;
        mm_take<D>(m, p, row_a, seg, b, wa);
        mm_take<D>(m, p, row_b, seg, b, wb);
        split8(wa, &a);
        split8(wb, &c);
        split8(v[b], &xs);
        mm_block<D::exact>(acc, a, c, xs);
    }
}

/* Adds the sums of a round's segments, each output in one thread, in rising order. */
MFI_DEV void mm_gather(const float *part, uint32_t n_seg, uint32_t out, float *sum)
{
    for (uint32_t s = 0; s < n_seg; s++)
        *sum += part[s * (MM_ROWS * 8) + out];
}

template <class D, int NM> __global__ void __launch_bounds__(MM_WARPS * 32) mm_few(mfi_cuda_mm mm)
{
    __shared__ float part[MM_ROUND][MM_ROWS * 8];
    mm_place at;
    begin_wait();
    if (!mm_find(mm, MM_ROWS, MFI_CUDA_TILE_SMALL, &at, blockIdx.x))
        return;
    uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t cols = mm.mat[at.m].cols, n_seg = (cols + MM_SEG - 1) / MM_SEG;
    const float *x = g < at.n ? mm_x_row(mm, at, g) : NULL;
    uint32_t out = threadIdx.x; /* [row][token] that this thread adds up, if below 128 */
    /* Rows beyond the matrix are its last one once more; their outputs go nowhere. */
    uint32_t row_a = min(at.row0 + g, at.row_end - 1), row_b = min(at.row0 + g + 8, at.row_end - 1);
    float sum[NM];
#pragma unroll
    for (int k = 0; k < NM; k++) {
        const mfi_cuda_mat &m = mm.mat[at.m + k];
        const uint8_t *p[3];
        mm_planes(m, at.data, p);
        sum[k] = 0;
        for (uint32_t base = 0; base < n_seg; base += MM_ROUND) {
            uint32_t n = min(n_seg - base, (uint32_t)MM_ROUND);
            for (uint32_t s = warp; s < n; s += MM_WARPS) {
                mm_acc acc;
                mm_segment<D>(m, p, row_a, row_b, x, base + s, &acc);
                part[s][g * 8 + 2 * t] = acc.big[0] + acc.small[0];
                part[s][g * 8 + 2 * t + 1] = acc.big[1] + acc.small[1];
                part[s][(g + 8) * 8 + 2 * t] = acc.big[2] + acc.small[2];
                part[s][(g + 8) * 8 + 2 * t + 1] = acc.big[3] + acc.small[3];
            }
            __syncthreads();
            if (out < MM_ROWS * 8 && out % 8 < at.n)
                mm_gather(&part[0][0], n, out, &sum[k]);
            __syncthreads();
        }
    }
    uint32_t row = at.row0 + out / 8, token = out % 8;
    if (out >= MM_ROWS * 8 || row >= at.row_end || token >= at.n)
        return;
#pragma unroll
    for (int k = 0; k < NM; k++)
        if (mm.bias[at.m + k])
            sum[k] += mm_bias(mm, at.m + k, at.data, row);
    float y = NM == 2 ? mm_glu(mm, sum[0], sum[NM - 1]) : sum[0];
    mm.y[at.m][(size_t)(at.first + token) * mm.ldy[at.m] + at.y_col + out / 8] = y;
}

/* ---- many tokens ---- */

/* The next 32 columns of all tokens, in registers: 256 threads, 8 floats each. */
MFI_DEV void mm_fetch(const float *x, uint32_t cols, uint32_t col, float v[8])
{
    col += threadIdx.x % 4 * 8;
    if (x && col < cols)
        load_x8(x + col, cols - col, v);
    else
        EACH8(i) v[i] = 0;
}

MFI_DEV void mm_store(float *xs, const float v[8])
{
    float4 *to = (float4 *)(xs + threadIdx.x / 4 * MM_X_STRIDE + threadIdx.x % 4 * 8);
    to[0] = make_float4(v[0], v[1], v[2], v[3]);
    to[1] = make_float4(v[4], v[5], v[6], v[7]);
}

/* Products of this warp's rows with the tokens of a tile: tot[token tile of 8][..]. */
template <class D>
MFI_DEV void mm_walk(const mfi_cuda_mat &m, const uint8_t *const p[3], const mm_place &at,
                     const float *x, float *xs, float tot[MM_NT][4])
{
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp = threadIdx.x / 32;
    uint32_t row = at.row0 + warp * MM_ROWS + g;
    uint32_t row_a = min(row, at.row_end - 1), row_b = min(row + 8, at.row_end - 1);
    uint32_t n_seg = (m.cols + MM_SEG - 1) / MM_SEG;
    float fetched[8];
#pragma unroll
    for (int n = 0; n < MM_NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            tot[n][i] = 0;
    mm_fetch(x, m.cols, 0, fetched);
    for (uint32_t seg = 0; seg < n_seg; seg++) {
        mm_acc acc[MM_NT];
#pragma unroll
        for (int n = 0; n < MM_NT; n++)
            mm_clear(&acc[n]);
#pragma unroll
        for (int k = 0; k < MM_SEG / MM_BLOCK; k++) {
            uint32_t base = seg * MM_SEG + k * MM_BLOCK;
            if (base >= m.cols)
                break;
            float wa[8], wb[8];
            mm_split a, b;
            __syncthreads();
            mm_store(xs, fetched);
            mm_take<D>(m, p, row_a, seg, k, wa);
            mm_take<D>(m, p, row_b, seg, k, wb);
            split8(wa, &a);
            split8(wb, &b);
            __syncthreads();
            mm_fetch(x, m.cols, base + MM_BLOCK, fetched);
#pragma unroll
            for (int n = 0; n < MM_NT; n += 2) {
                if (n * 8 >= at.n)
                    break;
                float v[2][8];
                mm_split s[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    load_x8(xs + ((n + i) * 8 + g) * MM_X_STRIDE + t * 8, 8, v[i]);
                    split8(v[i], &s[i]);
                }
#pragma unroll
                for (int i = 0; i < 2; i++)
                    mm_block<D::exact>(&acc[n + i], a, b, s[i]);
            }
        }
#pragma unroll
        for (int n = 0; n < MM_NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                tot[n][i] += acc[n].big[i] + acc[n].small[i];
    }
}

template <class D, int NM>
__global__ void __launch_bounds__(MM_WARPS * 32) mm_many(mfi_cuda_mm mm)
{
    __shared__ __align__(16) float xs[MM_TILE * MM_X_STRIDE];
    mm_place at;
    begin_wait();
    if (!mm_find(mm, MM_ROWS * MM_WARPS, MM_TILE, &at, blockIdx.x))
        return;
    /* Items may have more than a tile of pairs: further ones are other blocks'. */
    uint32_t before = blockIdx.z * MM_TILE;
    if (before >= at.n)
        return;
    at.first += before;
    at.n = min(at.n - before, (uint32_t)MM_TILE);
    uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, mine = threadIdx.x / 4;
    const float *x = mine < at.n ? mm_x_row(mm, at, mine) : NULL;
    float tot[NM][MM_NT][4];
#pragma unroll
    for (int k = 0; k < NM; k++) {
        const uint8_t *p[3];
        mm_planes(mm.mat[at.m + k], at.data, p);
        mm_walk<D>(mm.mat[at.m + k], p, at, x, xs, tot[k]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t in_tile = threadIdx.x / 32 * MM_ROWS + g + i / 2 * 8, row = at.row0 + in_tile;
        if (row >= at.row_end)
            continue;
        float bias[NM];
#pragma unroll
        for (int k = 0; k < NM; k++)
            bias[k] = mm_bias(mm, at.m + k, at.data, row);
#pragma unroll
        for (int n = 0; n < MM_NT; n++) {
            uint32_t token = n * 8 + 2 * t + i % 2;
            if (token >= at.n)
                continue;
            float sum[NM];
#pragma unroll
            for (int k = 0; k < NM; k++)
                sum[k] = mm.bias[at.m + k] ? tot[k][n][i] + bias[k] : tot[k][n][i];
            float y = NM == 2 ? mm_glu(mm, sum[0], sum[NM - 1]) : sum[0];
            mm.y[at.m][(size_t)(at.first + token) * mm.ldy[at.m] + at.y_col + in_tile] = y;
        }
    }
}

/* ---- starting ---- */

template <class D> static cudaError_t mm_start(const mfi_cuda_mm *mm, cudaStream_t s)
{
    bool few = mm->items ? mm->small_tiles : mm->n_tok <= MFI_CUDA_TILE_SMALL * 2;
    uint32_t step = few ? MM_ROWS : MM_ROWS * MM_WARPS, tiles = 0;
    uint32_t tok = few ? MFI_CUDA_TILE_SMALL : MM_TILE;
    for (uint32_t m = 0; m < (mm->glu ? 1 : mm->n_mats); m++) {
        uint32_t head_rows = mm->head_rows ? mm->head_rows : mm->mat[m].rows;
        tiles += (head_rows + step - 1) / step * (mm->mat[m].rows / head_rows);
    }
    dim3 grid(tiles, mm->items ? mm->n_items : (mm->n_tok + tok - 1) / tok);
    if (grid.x == 0 || grid.y == 0)
        return cudaSuccess;
    if (!few && mm->items)
        grid.z = MFI_CUDA_TILE / MM_TILE;
    if (few && mm->glu)
        mm_few<D, 2><<<grid, MM_WARPS * 32, 0, s>>>(*mm);
    else if (few)
        mm_few<D, 1><<<grid, MM_WARPS * 32, 0, s>>>(*mm);
    else if (mm->glu)
        mm_many<D, 2><<<grid, MM_WARPS * 32, 0, s>>>(*mm);
    else
        mm_many<D, 1><<<grid, MM_WARPS * 32, 0, s>>>(*mm);
    return cudaGetLastError();
}

#endif
