/* Products with few rows of floats: routers, gates. Called by the backend's thread; only queues
 * work. */
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rows.cuh"

/* R rows of a matrix by T tokens a block. */
template <int R, int T>
static __global__ void __launch_bounds__(ROWS_THREADS) rows(const __grid_constant__ mfi_cuda_mm mm)
{
    __shared__ float room[R * T][ROWS_WARPS];
    begin_wait();
    begin_next();
    const mfi_cuda_mat &m = mm.mat[blockIdx.z];
    uint32_t row0 = blockIdx.x * R, tok0 = blockIdx.y * T;
    if (row0 >= m.rows)
        return;
    const uint8_t *w[R];
    const float *x[T];
    float sum[R][T];
#pragma unroll
    for (int r = 0; r < R; r++)
        w[r] = m.plane[0] + min(row0 + r, m.rows - 1) * m.row_bytes[0];
#pragma unroll
    for (int t = 0; t < T; t++)
        x[t] = mm.x + (size_t)min(tok0 + t, mm.n_tok - 1) * mm.ldx;
#pragma unroll
    for (int i = 0; i < R * T; i++)
        sum[i / T][i % T] = 0;
#pragma unroll(R *T > 16 ? 1 : 4)
    for (uint32_t col = threadIdx.x * 4; col < m.cols; col += ROWS_THREADS * 4) {
        float4 a[R];
#pragma unroll
        for (int r = 0; r < R; r++)
            a[r] = rows_weights(m.type.kind, w[r], col, m.cols - col);
#pragma unroll
        for (int t = 0; t < T; t++) {
            float4 v = rows_x(x[t] + col, m.cols - col);
#pragma unroll
            for (int r = 0; r < R; r++)
                sum[r][t] = rows_dot(a[r], v, sum[r][t]);
        }
    }
#pragma unroll
    for (int base = 0; base + 32 <= R * T; base += 32) {
        float v[32];
#pragma unroll
        for (int i = 0; i < 32; i++)
            v[i] = sum[(base + i) / T][i % T];
        room[base + threadIdx.x % 32][threadIdx.x / 32] = warp_sums(v);
    }
#pragma unroll
    for (int i = R * T / 32 * 32; i < R * T; i++) {
        float s = warp_sum(sum[i / T][i % T]);
        if (threadIdx.x % 32 == 0)
            room[i][threadIdx.x / 32] = s;
    }
    __syncthreads();
    uint32_t row = row0 + threadIdx.x / T, tok = tok0 + threadIdx.x % T;
    if (threadIdx.x < R * T && row < m.rows && tok < mm.n_tok)
        mm.y[blockIdx.z][(size_t)tok * mm.ldy[blockIdx.z] + row] = rows_sum(room[threadIdx.x]);
}

cudaError_t mfi_cuda_matmul_rows(const mfi_cuda_mm *mm, cudaStream_t s)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < mm->n_mats; i++)
        most = mm->mat[i].rows > most ? mm->mat[i].rows : most;
    if (mm->n_tok <= 4)
        return start_early(rows<1, 1>, dim3(most, mm->n_tok, mm->n_mats), ROWS_THREADS, 0, s, *mm);
    if (mm->n_tok >= 64)
        return start_early(rows<8, 8>, dim3((most + 7) / 8, (mm->n_tok + 7) / 8, mm->n_mats),
                           ROWS_THREADS, 0, s, *mm);
    return start_early(rows<4, 4>, dim3((most + 3) / 4, (mm->n_tok + 3) / 4, mm->n_mats),
                       ROWS_THREADS, 0, s, *mm);
}
