/* Element-wise ops, norms and rotary tables on the device. Called by the backend's thread; only
 * queues work. A row's sums have one order, by the row's length alone. */
#include "backend/cuda/combine.cuh"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/reduce.cuh"

static __global__ void rope_rows(const double *freq, double factor, const uint32_t *pos,
                                 uint32_t half, float *y, uint32_t ldy)
{
    begin_wait();
    begin_next();
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
    return start_early(rope_rows, dim3(n_tok), 64, 0, s, freq, factor, pos, half, y, ldy);
}

static __global__ void __launch_bounds__(NORM_THREADS)
    norm_rows(const float *x, uint32_t ldx, const float *w, float eps, uint32_t n,
              const uint32_t *head_rows, float *y, uint32_t ldy)
{
    __shared__ float room[32];
    begin_wait();
    begin_next();
    x += (size_t)(head_rows ? head_rows[blockIdx.x] : blockIdx.x) * ldx;
    y += (size_t)blockIdx.x * ldy;
    float factor = norm_factor(x, n, eps, room);
    for (uint32_t i = threadIdx.x; i < n; i += NORM_THREADS)
        y[i] = x[i] * factor * w[i];
}

cudaError_t mfi_cuda_rmsnorm(const float *x, uint32_t ldx, const float *w, float eps, uint32_t n,
                             const uint32_t *head_rows, uint32_t n_tok, float *y, uint32_t ldy,
                             cudaStream_t s)
{
    return start_early(norm_rows, dim3(n_tok), NORM_THREADS, 0, s, x, ldx, w, eps, n, head_rows, y,
                       ldy);
}

static __global__ void add_rows(float *y, uint32_t ldy, const float *x, uint32_t ldx, uint32_t n,
                                float factor)
{
    begin_wait();
    begin_next();
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[(size_t)blockIdx.y * ldy + i] += factor * x[(size_t)blockIdx.y * ldx + i];
}

cudaError_t mfi_cuda_add(float *y, uint32_t ldy, const float *x, uint32_t ldx, uint32_t n,
                         float factor, uint32_t n_tok, cudaStream_t s)
{
    return start_early(add_rows, dim3((n + 255) / 256, n_tok), 256, 0, s, y, ldy, x, ldx, n,
                       factor);
}

cudaError_t mfi_cuda_bias(float *y, uint32_t ldy, const float *bias, uint32_t n, uint32_t n_tok,
                          cudaStream_t s)
{
    return mfi_cuda_add(y, ldy, bias, 0, n, 1, n_tok, s);
}

static __global__ void scale_all(float *y, uint64_t n, float factor)
{
    begin_wait();
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
    begin_wait();
    begin_next();
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
    return start_early(glu_rows, dim3((n + 127) / 128, n_rows), 128, 0, s, gate, ldg, up, ldu,
                       interleaved, kind, alpha, limit, n, y, ldy);
}

/* ---- the sum of experts ---- */

static __global__ void combine_rows(mfi_cuda_combine c)
{
    begin_wait();
    begin_next();
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (i >= c.hidden)
        return;
    combine_one(c, t, i, [&](uint32_t rank) {
        return c.y[(size_t)c.pair_of[t * c.top_k + rank] * c.ldy + i];
    });
}

cudaError_t mfi_cuda_combine_run(const mfi_cuda_combine *c, cudaStream_t s)
{
    return start_early(combine_rows, dim3((c->hidden + 127) / 128, c->n_tok), 128, 0, s, *c);
}

/* ---- lists and small copies ---- */

static __global__ void put_lists(const __grid_constant__ mfi_cuda_lists l, mfi_cuda_item *items,
                                 uint32_t *x_row, uint32_t *pair_of)
{
    uint32_t i = threadIdx.x;
    begin_wait();
    begin_next();
    if (i < l.n_items)
        items[i] = l.item[i];
    if (i < l.n_pairs) {
        x_row[i] = l.x_row[i];
        pair_of[i] = l.pair_of[i];
    }
}

cudaError_t mfi_cuda_put_lists(const mfi_cuda_lists *l, mfi_cuda_item *items, uint32_t *x_row,
                               uint32_t *pair_of, cudaStream_t s)
{
    return start_early(put_lists, dim3(1), 32, 0, s, *l, items, x_row, pair_of);
}

/* It is no op, and stops for no router. */
static __global__ void fetch_bytes(uint8_t *dst, const uint8_t *src, uint64_t len)
{
    uint64_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if ((((uintptr_t)dst | (uintptr_t)src) & 15) == 0) {
        if (i < len / 16)
            ((uint4 *)dst)[i] = ((const uint4 *)src)[i];
        if (i < len % 16)
            dst[len / 16 * 16 + i] = src[len / 16 * 16 + i];
        return;
    }
    for (; i < len; i += gridDim.x * blockDim.x)
        dst[i] = src[i];
}

cudaError_t mfi_cuda_fetch_bytes(void *dst, const void *src, uint64_t len, cudaStream_t s)
{
    fetch_bytes<<<(unsigned)(len / 16 / 256 + 1), 256, 0, s>>>((uint8_t *)dst, (const uint8_t *)src,
                                                               len);
    return cudaGetLastError();
}
