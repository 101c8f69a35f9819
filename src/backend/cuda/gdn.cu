/* Gated DeltaNet on the device, in its recurrent form: tokens in order, so that chunks change no
 * bit. Called by the backend's thread; only queues work. */
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/reduce.cuh"

static __device__ float silu(float x)
{
    return x / (1 + expf(-x));
}

/* A thread a channel. */
static __global__ void conv(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch,
                            uint32_t kernel, uint32_t n_tok)
{
    begin_wait();
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n_ch)
        return;
    const float *taps = w + (size_t)c * kernel;
    for (uint32_t t = 0; t < n_tok; t++) {
        float *in = x + (size_t)t * ldx + c, now = *in, sum = 0;
        for (uint32_t j = 0; j + 1 < kernel; j++) {
            float *old = state + (size_t)j * n_ch + c;
            sum = fmaf(taps[j], *old, sum);
            *old = j + 2 < kernel ? old[n_ch] : now;
        }
        *in = silu(fmaf(taps[kernel - 1], now, sum));
    }
}

cudaError_t mfi_cuda_gdn_conv(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch,
                              uint32_t kernel, uint32_t n_tok, cudaStream_t s)
{
    conv<<<(n_ch + 63) / 64, 64, 0, s>>>(state, w, x, ldx, n_ch, kernel, n_tok);
    return cudaGetLastError();
}

/* Keys and queries of a token in shared memory, of unit length (queries times 1 / sqrt(dk)). */
static __device__ void load_unit(const float *x, uint32_t n, float scale, float *to, float *room)
{
    float sq = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        sq = fmaf(x[i], x[i], sq);
    float factor = scale / sqrtf(block_sum(sq, room) + 1e-6f);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = x[i] * factor;
}

/* One step for column j of the state, S[i] at s[i * ld]. DK 0: any number of rows, from memory. */
template <int DK>
static __device__ __forceinline__ float delta_step(float *s, size_t ld, uint32_t dk, const float *q,
                                                   const float *k, float v, float g, float beta)
{
    float delta = 0, out = 0;
    uint32_t n = DK ? DK : dk;
#pragma unroll(DK ? DK : 4)
    for (uint32_t i = 0; i < n; i++) {
        s[i * ld] *= g;
        delta = fmaf(s[i * ld], k[i], delta);
    }
    delta = beta * (v - delta);
#pragma unroll(DK ? DK : 4)
    for (uint32_t i = 0; i < n; i++) {
        s[i * ld] = fmaf(k[i], delta, s[i * ld]);
        out = fmaf(s[i * ld], q[i], out);
    }
    return out;
}

/* A block a value head, a thread a column of its state (v_dim is below 1024). */
template <int DK>
static __global__ void __launch_bounds__(DK ? 256 : 1024) heads(mfi_cuda_gdn g)
{
    extern __shared__ float room[]; /* q, k [k_dim] */
    __shared__ float sums[32];
    begin_wait();
    uint32_t h = blockIdx.x, j = threadIdx.x, dk = g.k_dim, dv = g.v_dim;
    uint32_t k_head = g.tiled ? h % g.k_heads : h / (g.v_heads / g.k_heads);
    float *q = room, *k = room + dk, *state = g.state + (size_t)h * dk * dv + j;
    float s[DK ? DK : 1], scale = (float)(1.0 / sqrt((double)dk));
    for (uint32_t i = 0; DK && i < DK; i++)
        s[i] = j < dv ? state[(size_t)i * dv] : 0;
    for (uint32_t t = 0; t < g.n_tok; t++) {
        const float *row = g.qkv + (size_t)t * g.ld_qkv;
        __syncthreads();
        load_unit(row + (size_t)k_head * dk, dk, scale, q, sums);
        load_unit(row + (size_t)(g.k_heads + k_head) * dk, dk, 1, k, sums);
        __syncthreads();
        float x = g.a[(size_t)t * g.ld_a + h] + g.dt[h];
        float soft = (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
        float decay = expf(g.neg_exp_a[h] * soft);
        float beta = 1 / (1 + expf(-g.b[(size_t)t * g.ld_b + h])), out = 0;
        if (j < dv) {
            float v = row[(size_t)2 * g.k_heads * dk + (size_t)h * dv + j];
            out = DK ? delta_step<DK>(s, 1, dk, q, k, v, decay, beta)
                     : delta_step<0>(state, dv, dk, q, k, v, decay, beta);
        }
        float sq = block_sum(j < dv ? out * out : 0, sums);
        if (j < dv) {
            float factor = 1.0f / sqrtf(sq / (float)dv + g.eps);
            g.out[(size_t)t * g.ldo + (size_t)h * dv + j] =
                silu(g.z[(size_t)t * g.ld_z + (size_t)h * dv + j]) * (out * factor * g.norm[j]);
        }
    }
    for (uint32_t i = 0; DK && i < DK && j < dv; i++)
        state[(size_t)i * dv] = s[i];
}

cudaError_t mfi_cuda_gdn_run(const mfi_cuda_gdn *g, cudaStream_t s)
{
    uint32_t threads = (g->v_dim + 31) / 32 * 32;
    size_t room = 2 * (size_t)g->k_dim * sizeof(float);
    if (g->k_dim == 128 && threads <= 256)
        heads<128><<<g->v_heads, threads, room, s>>>(*g);
    else if (g->k_dim == 64 && threads <= 256)
        heads<64><<<g->v_heads, threads, room, s>>>(*g);
    else
        heads<0><<<g->v_heads, threads, room, s>>>(*g);
    return cudaGetLastError();
}
