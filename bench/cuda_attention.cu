/* What a single token's attention takes of a layer on a CUDA device, and a hash of what it gives.
 *
 *     nvcc -O3 -std=c++17 -fmad=false -arch=native -Isrc -o /tmp/it bench/cuda_attention.cu
 *     /tmp/it
 *
 * For shapes of published models and positions of the token: microseconds a layer, the least of
 * nine replays of a graph of 24 layers, in which a kernel of some microseconds that makes queries,
 * keys and values stands in front of each attention; what such a graph takes without attention is
 * taken off. The hash is that of all outputs and of a cache: the same bits, the same hash. The
 * kernels are the module's own; whether they are right is test_cuda_attention's matter. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/attention.cu"
#include "backend/cuda/attention_one.cu"

#define LAYERS    24u
#define REPLAYS   9
#define POSITIONS 4096u
#define FRONT     132u /* blocks of threads */
#define CYCLES    5000

/* route.cu has it in the module: no router looks experts up here. */
void mfi_cuda_tell(cudaError_t (*)(unsigned *, cudaStream_t))
{
}

typedef struct shape {
    const char *name;
    uint32_t n_head, n_kv_head, dim, n_rot, window;
    bool norms, norm_after, sinks, gated;
} shape;

static const shape shapes[] = {
    {"Qwen3-30B-A3B", 32, 4, 128, 128, 0, true, false, false, false},
    {"Qwen3-235B-A22B", 64, 4, 128, 128, 0, true, false, false, false},
    {"gpt-oss, window", 64, 8, 64, 64, 128, false, false, true, false},
    {"Qwen3-Next", 16, 2, 256, 64, 0, true, false, false, true},
    {"GLM-4.5", 96, 8, 128, 64, 0, true, false, false, false},
    {"norm after rotation", 32, 8, 128, 128, 0, true, true, false, false},
};

static void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

static __device__ float noise(uint32_t i)
{
    i = i * 747796405u + 2891336453u;
    i = ((i >> ((i >> 28) + 4)) ^ i) * 277803737u;
    return (float)((i >> 22 ^ i) >> 8) / (1 << 23) - 1;
}

static __global__ void fill(float *x, size_t n, uint32_t seed, float scale)
{
    begin_wait();
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        x[i] = scale * noise((uint32_t)i + seed);
}

static float *filled(size_t n, uint32_t seed, float scale)
{
    float *x;
    must(cudaMalloc(&x, n * sizeof *x), "cudaMalloc");
    fill<<<1024, 256>>>(x, n, seed, scale);
    must(cudaGetLastError(), "fill");
    return x;
}

/* In front of attention: takes its time, then makes rows of what the attention before left. */
static __global__ void front(float *x, uint32_t n, uint32_t seed, const float *before)
{
    begin_wait();
    begin_next();
    long long begin = clock64();
    while (clock64() - begin < CYCLES)
        continue;
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        x[i] = 2 * noise(i + seed) + (before ? before[i % 64] * 1e-3f : 0);
}

typedef struct bench {
    const shape *is;
    mfi_cuda_attn a;
    mfi_cuda_prep p;
    float *x, *kv, *out;
    uint32_t *pos, width;
    size_t kv_floats;
} bench;

static void make(bench *b, const shape *is)
{
    uint32_t kvw = is->n_kv_head * is->dim, q_stride = is->dim * (is->gated ? 2 : 1);
    uint32_t ring = is->window ? is->window + 64 : 0;
    *b = (bench){};
    b->is = is;
    b->width = is->n_head * q_stride + 2 * kvw;
    b->x = filled(b->width, 0, 1);
    b->kv_floats = (size_t)(ring ? ring : POSITIONS) * 2 * kvw;
    must(cudaMalloc(&b->kv, LAYERS * b->kv_floats * sizeof(float)), "cudaMalloc");
    b->out = filled((size_t)LAYERS * is->n_head * is->dim, 2, 0);
    must(cudaMalloc(&b->pos, sizeof *b->pos), "cudaMalloc");
    b->p.q = b->x;
    b->p.k = b->x + is->n_head * q_stride;
    b->p.v = b->p.k + kvw;
    b->p.rope = filled(is->dim, 3, 1);
    b->p.q_stride = q_stride;
    b->p.q_norm = is->norms ? filled(is->dim, 4, 2) : NULL;
    b->p.k_norm = is->norms ? filled(is->dim, 5, 2) : NULL;
    b->p.eps = 1e-6f;
    b->p.n_head = is->n_head;
    b->p.n_kv_head = is->n_kv_head;
    b->p.head_dim = is->dim;
    b->p.n_rot = is->n_rot;
    b->p.n_tok = 1;
    b->p.ring = ring;
    b->p.norm_after = is->norm_after;
    b->p.pos = b->a.pos = b->pos;
    b->a.q = b->x;
    b->a.q_stride = q_stride;
    b->a.row = 2 * kvw;
    b->a.v_offset = kvw;
    b->a.k_stride = b->a.v_stride = b->a.dim = b->a.dim_v = is->dim;
    b->a.n_head = is->n_head;
    b->a.group = is->n_head / is->n_kv_head;
    b->a.window = is->window;
    b->a.ring = ring;
    b->a.scale = 1 / sqrtf((float)is->dim);
    b->a.sinks = is->sinks ? filled(is->n_head, 6, 1) : NULL;
    b->a.gated = is->gated;
    b->a.n_tok = 1;
    b->a.partial = filled((size_t)is->n_head * (POSITIONS / BLOCK + 2) * (is->dim + 2), 7, 0);
}

static void drop(bench *b)
{
    const void *all[] = {b->x,        b->kv,       b->out,     b->pos,      b->p.rope,
                         b->p.q_norm, b->p.k_norm, b->a.sinks, b->a.partial};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        must(cudaFree((void *)all[i]), "cudaFree");
}

static void enqueue(bench *b, bool attention, cudaStream_t s)
{
    const float *before = NULL;
    for (uint32_t l = 0; l < LAYERS; l++) {
        must(start_early(front, dim3(FRONT), 256, 0, s, b->x, b->width, l * 7919, before), "front");
        b->a.kv = b->p.kv = b->kv + l * b->kv_floats;
        b->a.out = b->out + (size_t)l * b->is->n_head * b->is->dim;
        if (attention) {
            if (!mfi_cuda_attn_one_fits(&b->a, &b->p))
                fprintf(stderr, "doesn't fit\n"), exit(1);
            must(mfi_cuda_attn_one(&b->a, &b->p, s), "attention");
        }
        before = b->a.out;
    }
}

static cudaGraphExec_t record(bench *b, bool attention, cudaStream_t s)
{
    cudaGraph_t graph;
    cudaGraphExec_t run;
    must(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "capture");
    enqueue(b, attention, s);
    must(cudaStreamEndCapture(s, &graph), "capture");
    must(cudaGraphInstantiate(&run, graph, 0), "graph");
    cudaGraphDestroy(graph);
    return run;
}

static double timed_us(cudaGraphExec_t run, cudaStream_t s)
{
    cudaEvent_t begin, end;
    float best = 0;
    must(cudaEventCreate(&begin), "event");
    must(cudaEventCreate(&end), "event");
    for (int i = 0; i <= REPLAYS; i++) { /* the first warms up */
        float ms;
        must(cudaEventRecord(begin, s), "event");
        must(cudaGraphLaunch(run, s), "graph");
        must(cudaEventRecord(end, s), "event");
        must(cudaEventSynchronize(end), "graph");
        must(cudaEventElapsedTime(&ms, begin, end), "event");
        if (i == 1 || (i > 1 && ms < best))
            best = ms;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return best * 1000 / LAYERS;
}

static uint64_t hashed(uint64_t h, const float *x, size_t n)
{
    uint32_t *host = (uint32_t *)malloc(n * sizeof *host);
    if (!host)
        must(cudaErrorMemoryAllocation, "host memory");
    must(cudaMemcpy(host, x, n * sizeof *host, cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (size_t i = 0; i < n; i++)
        h = (h ^ host[i]) * 1099511628211u;
    free(host);
    return h;
}

static void one(bench *b, uint32_t pos, cudaStream_t s)
{
    uint32_t n = 4; /* as the backend's graphs have it */
    while (n < (pos + 1) / BLOCK + 2)
        n *= 2;
    b->a.n_blocks_max = n;
    if (b->is->window && n > b->is->window / BLOCK + 3)
        b->a.n_blocks_max = b->is->window / BLOCK + 3;
    if (b->a.n_blocks_max > POSITIONS / BLOCK + 2)
        b->a.n_blocks_max = POSITIONS / BLOCK + 2;
    must(cudaMemcpy(b->pos, &pos, sizeof pos, cudaMemcpyHostToDevice), "cudaMemcpy");
    fill<<<1024, 256>>>(b->kv, LAYERS * b->kv_floats, 9, 2);
    must(cudaDeviceSynchronize(), "fill");
    cudaGraphExec_t with = record(b, true, s), without = record(b, false, s);
    double us = timed_us(with, s);
    uint64_t h = hashed(14695981039346656037u, b->out, (size_t)LAYERS * b->is->n_head * b->is->dim);
    h = hashed(h, b->kv + 5 * b->kv_floats, b->kv_floats);
    us -= timed_us(without, s);
    cudaGraphExecDestroy(with);
    cudaGraphExecDestroy(without);
    printf("%-20s %5u  %6.2f  %016llx\n", b->is->name, pos, us, (unsigned long long)h);
}

int main(void)
{
    static const uint32_t positions[] = {0, 63, 64, 100, 128, 383, 700, 4000};
    cudaStream_t s;
    must(cudaStreamCreate(&s), "stream");
    printf("%-20s %5s  %6s  %s\n", "shape", "at", "us", "hash");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        bench b;
        make(&b, &shapes[i]);
        for (size_t k = 0; k < sizeof positions / sizeof *positions; k++)
            one(&b, positions[k], s);
        drop(&b);
    }
    return 0;
}
