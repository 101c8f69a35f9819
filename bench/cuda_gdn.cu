/* What Gated DeltaNet takes of a layer on a CUDA device, at Qwen3.5-35B-A3B's shape.
 *
 *     nvcc -O3 -std=c++17 -fmad=false -arch=native -Isrc -o cuda_gdn bench/cuda_gdn.cu &&
 * ./cuda_gdn
 *
 * Prints microseconds of the convolution and of the delta rule with norm and gate for numbers of
 * tokens: the least of seven replays of a graph of ten. The kernels are the module's own; whether
 * they are right is test_cuda_gdn's matter. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/gdn.cu"

#define K_HEADS    16u
#define V_HEADS    32u
#define DIM        128u
#define CHANNELS   (2 * K_HEADS * DIM + V_HEADS * DIM)
#define KERNEL     4u
#define TOKENS_MAX 2048u
#define TIMES      10
#define REPLAYS    7

/* route.cu has it in the module: no router looks experts up here. */
void mfi_cuda_tell(cudaError_t (*)(unsigned *, cudaStream_t))
{
}

static void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

/* Device memory with even values from -scale to scale. */
static float *filled(size_t n, float scale)
{
    static uint32_t seed = 1;
    float *host = (float *)malloc(n * sizeof *host), *device;
    if (!host)
        must(cudaErrorMemoryAllocation, "host memory");
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        host[i] = scale * ((float)(seed >> 8) / (1 << 23) - 1);
    }
    must(cudaMalloc(&device, n * sizeof *device), "cudaMalloc");
    must(cudaMemcpy(device, host, n * sizeof *host, cudaMemcpyHostToDevice), "cudaMemcpy");
    free(host);
    return device;
}

typedef struct layer {
    mfi_cuda_gdn g;
    float *conv_state, *taps, *x;
} layer;

static void enqueue(const layer *l, bool conv, bool rule, cudaStream_t s)
{
    if (conv)
        must(mfi_cuda_gdn_conv(l->conv_state, l->taps, l->x, CHANNELS, CHANNELS, KERNEL, l->g.n_tok,
                               s),
             "convolution");
    if (rule)
        must(mfi_cuda_gdn_run(&l->g, s), "delta rule");
}

static double timed_us(const layer *l, bool conv, bool rule, cudaStream_t s)
{
    cudaGraph_t graph;
    cudaGraphExec_t run;
    cudaEvent_t begin, end;
    float best = 0;
    must(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < TIMES; i++)
        enqueue(l, conv, rule, s);
    must(cudaStreamEndCapture(s, &graph), "capture");
    must(cudaGraphInstantiate(&run, graph, 0), "graph");
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
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    return best * 1000 / TIMES;
}

int main(void)
{
    static const uint32_t tokens[] = {1, 4, 16, 64, 512, 2048};
    const uint32_t inner = V_HEADS * DIM;
    cudaStream_t s;
    layer l = {};
    must(cudaStreamCreate(&s), "stream");
    l.x = filled((size_t)TOKENS_MAX * CHANNELS, 2);
    l.conv_state = filled((KERNEL - 1) * CHANNELS, 1);
    l.taps = filled(KERNEL * CHANNELS, 1);
    l.g.qkv = l.x;
    l.g.z = filled((size_t)TOKENS_MAX * inner, 1);
    l.g.a = filled(TOKENS_MAX * V_HEADS, 1);
    l.g.b = filled(TOKENS_MAX * V_HEADS, 1);
    l.g.neg_exp_a = filled(V_HEADS, 0); /* nothing is forgotten, whatever the gates are */
    l.g.dt = filled(V_HEADS, 1);
    l.g.norm = filled(DIM, 1);
    l.g.state = filled((size_t)V_HEADS * DIM * DIM, 1);
    l.g.out = filled((size_t)TOKENS_MAX * inner, 1);
    l.g.ld_qkv = CHANNELS;
    l.g.ld_z = l.g.ldo = inner;
    l.g.ld_a = l.g.ld_b = l.g.v_heads = V_HEADS;
    l.g.k_heads = K_HEADS;
    l.g.k_dim = l.g.v_dim = DIM;
    l.g.eps = 1e-6f;
    printf("tokens  convolution  delta rule  both, in us a layer\n");
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        l.g.n_tok = tokens[i];
        printf("%6u  %11.2f  %10.2f  %.2f\n", tokens[i], timed_us(&l, true, false, s),
               timed_us(&l, false, true, s), timed_us(&l, true, true, s));
    }
    return 0;
}
