/* Gated DeltaNet on the device, in its recurrent form: tokens in order, so that chunks change no
 * bit. Called by the backend's thread; only queues work. */
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gdn.cuh"

/* The convolution: CONV_WAYS threads a channel take CONV_RUN tokens each of a round, and leave what
 * the next one needs of them in shared memory. KERNEL 0: any number of taps, a thread a channel. */
#define CONV_CHANNELS 32
#define CONV_WAYS     8
#define CONV_RUN      8

static __device__ __forceinline__ void conv_load(float *to, const float *x, size_t ldx, uint32_t t,
                                                 uint32_t n_tok)
{
#pragma unroll
    for (uint32_t i = 0; i < CONV_RUN; i++)
        to[i] = t + i < n_tok ? x[(t + i) * ldx] : 0;
}

template <int KERNEL>
static __global__ void __launch_bounds__(CONV_CHANNELS *CONV_WAYS)
    conv(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch, uint32_t n_tok)
{
    constexpr int OLD = KERNEL - 1;
    static_assert(OLD >= 1 && OLD <= CONV_RUN, "a run holds what the next one needs");
    __shared__ float tail[CONV_WAYS][OLD][CONV_CHANNELS];
    uint32_t lane = threadIdx.x, way = threadIdx.y, n_ways = blockDim.y;
    uint32_t c = blockIdx.x * CONV_CHANNELS + lane, round = n_ways * CONV_RUN;
    bool mine = c < n_ch;
    float taps[KERNEL], in[CONV_RUN], next[CONV_RUN], old[OLD];
    for (int j = 0; j < KERNEL; j++)
        taps[j] = mine ? w[(size_t)c * KERNEL + j] : 0;
    begin_wait();
    begin_next();
    x += c;
    for (int j = 0; j < OLD; j++)
        old[j] = mine && way == 0 ? state[(size_t)j * n_ch + c] : 0;
    conv_load(in, x, ldx, way * CONV_RUN, mine ? n_tok : 0);
    for (uint32_t t0 = 0; t0 < n_tok; t0 += round) {
        uint32_t t = t0 + way * CONV_RUN, n = t < n_tok ? min(n_tok - t, CONV_RUN) : 0;
        conv_load(next, x, ldx, t + round, mine ? n_tok : 0);
        for (int j = 0; j < OLD; j++)
            tail[way][j][lane] = in[CONV_RUN - OLD + j];
        __syncthreads();
        for (int j = 0; j < OLD && way > 0; j++)
            old[j] = tail[way - 1][j][lane];
#pragma unroll
        for (uint32_t i = 0; i < CONV_RUN; i++) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < OLD; j++)
                sum = fmaf(taps[j], (int)i + j < OLD ? old[i + j] : in[i + j - OLD], sum);
            if (mine && i < n)
                x[(size_t)(t + i) * ldx] = gdn_silu(fmaf(taps[OLD], in[i], sum));
        }
        /* The last inputs, of this round or before it. */
        if (mine && n > 0 && t + n == n_tok)
            for (int j = 0; j < OLD; j++) {
                float last = 0;
#pragma unroll
                for (int i = 0; i < CONV_RUN + OLD; i++)
                    if (i == (int)n + j)
                        last = i < OLD ? old[i] : in[i - OLD];
                state[(size_t)j * n_ch + c] = last;
            }
        for (int j = 0; j < OLD && way == 0; j++)
            old[j] = tail[n_ways - 1][j][lane];
        __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < CONV_RUN; i++)
            in[i] = next[i];
    }
}

static __global__ void conv_any(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch,
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
        *in = gdn_silu(fmaf(taps[kernel - 1], now, sum));
    }
}

cudaError_t mfi_cuda_gdn_conv(float *state, const float *w, float *x, uint32_t ldx, uint32_t n_ch,
                              uint32_t kernel, uint32_t n_tok, cudaStream_t s)
{
    if (kernel != 4) {
        conv_any<<<(n_ch + 63) / 64, 64, 0, s>>>(state, w, x, ldx, n_ch, kernel, n_tok);
        return cudaGetLastError();
    }
    uint32_t ways = min((n_tok + CONV_RUN - 1) / CONV_RUN, CONV_WAYS);
    return start_early(conv<4>, (n_ch + CONV_CHANNELS - 1) / CONV_CHANNELS,
                       dim3(CONV_CHANNELS, ways), 0, s, state, w, x, ldx, n_ch, n_tok);
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

/* One step for column j of the state, S[i] at s[i * ld]. */
static __device__ float delta_step(float *s, size_t ld, uint32_t dk, const float *q, const float *k,
                                   float v, float g, float beta)
{
    float delta = 0, out = 0;
#pragma unroll 4
    for (uint32_t i = 0; i < dk; i++) {
        s[i * ld] *= g;
        delta = fmaf(s[i * ld], k[i], delta);
    }
    delta = beta * (v - delta);
#pragma unroll 4
    for (uint32_t i = 0; i < dk; i++) {
        s[i * ld] = fmaf(k[i], delta, s[i * ld]);
        out = fmaf(s[i * ld], q[i], out);
    }
    return out;
}

/* Heads of any shape: a block a value head, a thread a column of its state (v_dim is below 1024),
 * which stays in memory. */
static __global__ void __launch_bounds__(1024) heads_any(mfi_cuda_gdn g)
{
    extern __shared__ float room[]; /* q, k [k_dim] */
    __shared__ float sums[32];
    begin_wait();
    uint32_t h = blockIdx.x, j = threadIdx.x, dk = g.k_dim, dv = g.v_dim;
    uint32_t k_head = gdn_k_head(g, h);
    float *q = room, *k = room + dk, *state = g.state + (size_t)h * dk * dv + j;
    float scale = (float)(1.0 / sqrt((double)dk));
    for (uint32_t t = 0; t < g.n_tok; t++) {
        const float *row = g.qkv + (size_t)t * g.ld_qkv;
        __syncthreads();
        load_unit(row + (size_t)k_head * dk, dk, scale, q, sums);
        load_unit(row + (size_t)(g.k_heads + k_head) * dk, dk, 1, k, sums);
        __syncthreads();
        float decay = gdn_decay(g.a[(size_t)t * g.ld_a + h], g.dt[h], g.neg_exp_a[h]);
        float beta = gdn_beta(g.b[(size_t)t * g.ld_b + h]), out = 0;
        if (j < dv) {
            float v = row[(size_t)2 * g.k_heads * dk + (size_t)h * dv + j];
            out = delta_step(state, dv, dk, q, k, v, decay, beta);
        }
        float sq = block_sum(j < dv ? out * out : 0, sums);
        if (j < dv) {
            float factor = 1.0f / sqrtf(sq / (float)dv + g.eps);
            g.out[(size_t)t * g.ldo + (size_t)h * dv + j] =
                gdn_silu(g.z[(size_t)t * g.ld_z + (size_t)h * dv + j]) * (out * factor * g.norm[j]);
        }
    }
}

static bool fits(const mfi_cuda_gdn *g)
{
    return (g->k_dim == 128 || g->k_dim == 64 || g->k_dim == 32) &&
           g->v_dim % GDN_BLOCK_COLS == 0 && g->v_dim <= GDN_MAX_COLS && g->ld_qkv % 4 == 0 &&
           (uintptr_t)g->qkv % 16 == 0;
}

cudaError_t mfi_cuda_gdn_run(const mfi_cuda_gdn *g, cudaStream_t s)
{
    if (fits(g)) {
        switch (g->k_dim) {
        case 128:
            return gdn_run<128>(g, s);
        case 64:
            return gdn_run<64>(g, s);
        default:
            return gdn_run<32>(g, s);
        }
    }
    heads_any<<<g->v_heads, (g->v_dim + 31) / 32 * 32, 2 * (size_t)g->k_dim * sizeof(float), s>>>(
        *g);
    return cudaGetLastError();
}
