/* Element-wise ops, norms and rotary tables on the device. Called by the backend's thread; only
 * queues work. A row's sums have one order, by the row's length alone. */
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/reduce.cuh"

static __global__ void rope_rows(const double *freq, double factor, const uint32_t *pos,
                                 uint32_t half, float *y, uint32_t ldy)
{
    /* In double: at a million positions a float angle is off by a tenth of a radian. */
    float *row = y + (size_t)blockIdx.x * ldy;
    for (uint32_t i = threadIdx.x; i < half; i += blockDim.x) {
        double angle = (double)pos[blockIdx.x] * freq[i];
        row[i] = (float)(cos(angle) * factor);
        row[half + i] = (float)(sin(angle) * factor);
    }
}

cudaError_t mfi_cuda_rope_table(const double *freq, double factor, const uint32_t *pos,
                                uint32_t n_tok, uint32_t half, float *y, uint32_t ldy,
                                cudaStream_t s)
{
    rope_rows<<<n_tok, 64, 0, s>>>(freq, factor, pos, half, y, ldy);
    return cudaGetLastError();
}

#define NORM_THREADS 512
#define NORM_HELD    8 /* elements that a thread keeps between the sum and the product */

static __global__ void norm_rows(const float *x, uint32_t ldx, const float *w, float eps,
                                 uint32_t n, const uint32_t *head_rows, float *y, uint32_t ldy)
{
    __shared__ float room[32];
    x += (size_t)(head_rows ? head_rows[blockIdx.x] : blockIdx.x) * ldx;
    y += (size_t)blockIdx.x * ldy;
    float sq = 0, held[NORM_HELD], scale[NORM_HELD];
#pragma unroll
    for (int k = 0; k < NORM_HELD; k++) { /* loads of both, all under way at once */
        uint32_t i = threadIdx.x + k * NORM_THREADS;
        held[k] = i < n ? x[i] : 0;
        scale[k] = i < n ? w[i] : 0;
    }
#pragma unroll
    for (int k = 0; k < NORM_HELD; k++)
        sq = fmaf(held[k], held[k], sq);
    for (uint32_t i = threadIdx.x + NORM_HELD * NORM_THREADS; i < n; i += NORM_THREADS)
        sq = fmaf(x[i], x[i], sq);
    float factor = 1.0f / sqrtf(block_sum(sq, room) / (float)n + eps);
#pragma unroll
    for (int k = 0; k < NORM_HELD; k++)
        if (threadIdx.x + k * NORM_THREADS < n)
            y[threadIdx.x + k * NORM_THREADS] = held[k] * factor * scale[k];
    for (uint32_t i = threadIdx.x + NORM_HELD * NORM_THREADS; i < n; i += NORM_THREADS)
        y[i] = x[i] * factor * w[i];
}

cudaError_t mfi_cuda_rmsnorm(const float *x, uint32_t ldx, const float *w, float eps, uint32_t n,
                             const uint32_t *head_rows, uint32_t n_tok, float *y, uint32_t ldy,
                             cudaStream_t s)
{
    norm_rows<<<n_tok, NORM_THREADS, 0, s>>>(x, ldx, w, eps, n, head_rows, y, ldy);
    return cudaGetLastError();
}

static __global__ void add_rows(float *y, uint32_t ldy, const float *x, uint32_t ldx, uint32_t n,
                                float factor)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[(size_t)blockIdx.y * ldy + i] += factor * x[(size_t)blockIdx.y * ldx + i];
}

cudaError_t mfi_cuda_add(float *y, uint32_t ldy, const float *x, uint32_t ldx, uint32_t n,
                         float factor, uint32_t n_tok, cudaStream_t s)
{
    add_rows<<<dim3((n + 255) / 256, n_tok), 256, 0, s>>>(y, ldy, x, ldx, n, factor);
    return cudaGetLastError();
}

cudaError_t mfi_cuda_bias(float *y, uint32_t ldy, const float *bias, uint32_t n, uint32_t n_tok,
                          cudaStream_t s)
{
    return mfi_cuda_add(y, ldy, bias, 0, n, 1, n_tok, s);
}

static __global__ void scale_all(float *y, uint64_t n, float factor)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] *= factor;
}

cudaError_t mfi_cuda_scale(float *y, uint64_t n, float factor, cudaStream_t s)
{
    if (factor != 1)
        scale_all<<<(unsigned)((n + 255) / 256), 256, 0, s>>>(y, n, factor);
    return cudaGetLastError();
}

static __global__ void glu_rows(const float *gate, uint32_t ldg, const float *up, uint32_t ldu,
                                bool interleaved, uint32_t kind, float alpha, float limit,
                                uint32_t n, float *y, uint32_t ldy)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    gate += (size_t)blockIdx.y * ldg;
    float g = interleaved ? gate[2 * i] : gate[i];
    float u = interleaved ? gate[2 * i + 1] : up[(size_t)blockIdx.y * ldu + i];
    float out;
    if (kind == MFI_CUDA_GLU_CLAMPED) {
        g = g > limit ? limit : g;
        u = u > limit ? limit : u < -limit ? -limit : u;
        out = (u + 1) * (g / (1 + expf(-alpha * g)));
    } else {
        out = g / (1 + expf(-g)) * u;
    }
    y[(size_t)blockIdx.y * ldy + i] = out;
}

cudaError_t mfi_cuda_glu(const float *gate, uint32_t ldg, const float *up, uint32_t ldu,
                         bool interleaved, uint32_t kind, float alpha, float limit, uint32_t n,
                         uint32_t n_rows, float *y, uint32_t ldy, cudaStream_t s)
{
    glu_rows<<<dim3((n + 127) / 128, n_rows), 128, 0, s>>>(gate, ldg, up, ldu, interleaved, kind,
                                                            alpha, limit, n, y, ldy);
    return cudaGetLastError();
}

/* ---- the sum of experts ---- */

static __global__ void combine_rows(mfi_cuda_combine c)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (i >= c.hidden)
        return;
    float *sum_at = c.sum + (size_t)t * c.ld_sum + i, sum = 0;
    if (c.shared) {
        float gate = c.gate ? 1 / (1 + expf(-c.gate[(size_t)t * c.ldg])) : 1;
        sum = *sum_at * gate;
    }
    for (uint32_t r = 0; r < c.top_k; r++) {
        float w = c.weights[(size_t)t * c.ldw + r];
        sum += w * c.y[(size_t)c.pair_of[t * c.top_k + r] * c.ldy + i];
    }
    *sum_at = sum;
    c.res[(size_t)t * c.ld_res + i] += c.factor * sum;
}

cudaError_t mfi_cuda_combine_run(const mfi_cuda_combine *c, cudaStream_t s)
{
    combine_rows<<<dim3((c->hidden + 127) / 128, c->n_tok), 128, 0, s>>>(*c);
    return cudaGetLastError();
}
