/* Queues ops: the loop over them, and graphs of single tokens' spans, recorded once and kept. A
 * span whose routers look up begins and ends at many ops; it is cut at borders of layers whose
 * numbers are multiples of powers of two, so that few graphs serve all spans. Called by the
 * backend's run, on the engine's thread; allocates when a graph is recorded. */
#include <string.h>

#include "backend/cuda/cuda_int.h"

#define GRAPH_PROGRAMS 24 /* all graphs have no more ops than the program so many times */

static mf_status run_ops(mfi_cuda *c, uint32_t first, uint32_t n, const mfi_step *step,
                         mf_error *err)
{
    for (uint32_t i = first; i < first + n;) {
        const mfi_op *op = &c->p->ops[i], *combine = NULL;
        cudaError_t e;
        uint32_t taken = mfi_cuda_fuse(c, op, first + n - i, step, &e);
        if (e != cudaSuccess)
            return mfi_cuda_op_failed(err, e, op);
        if (op->code == MFI_OP_EXPERTS && i + 1 < first + n && op[1].code == MFI_OP_COMBINE) {
            combine = op + 1;
            MFI_TRY(mfi_cuda_experts(c, op, &combine, step, err));
            taken = combine ? 1 : 2;
        }
        if (taken == 0)
            MFI_TRY(mfi_cuda_op(c, op, step, err));
        i += MFI_MAX(taken, 1);
    }
    return MF_OK;
}

/* ---- graphs ---- */

void mfi_cuda_graphs_drop(mfi_cuda *c)
{
    for (uint32_t i = 0; i < c->n_graphs; i++)
        if (c->graphs[i].exec)
            (void)cudaGraphExecDestroy(c->graphs[i].exec);
    if (c->graph_of)
        memset(c->graph_of, 0, c->p->n_ops * sizeof *c->graph_of);
    c->n_graphs = c->n_graph_ops = 0;
}

static mf_status record(mfi_cuda *c, const mfi_step *step, mfi_cuda_graph *g, mf_error *err)
{
    cudaGraph_t graph = NULL;
    if (g->exec)
        (void)cudaGraphExecDestroy(g->exec);
    g->exec = NULL;
    g->n_blocks = c->n_blocks;
    MFI_CUDA_TRY(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    mf_status status = run_ops(c, g->first, g->n, step, err);
    cudaError_t e = cudaStreamEndCapture(c->stream, &graph);
    if (status == MF_OK && e == cudaSuccess)
        e = cudaGraphInstantiate(&g->exec, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    MFI_TRY(status);
    MFI_CUDA_TRY(e);
    return MF_OK;
}

static mfi_cuda_graph *find(mfi_cuda *c, uint32_t first, uint32_t n)
{
    for (uint32_t i = c->graph_of[first]; i; i = c->graphs[i - 1].next)
        if (c->graphs[i - 1].n == n && c->graphs[i - 1].generation == c->generation)
            return &c->graphs[i - 1];
    if (c->n_graphs == MFI_CUDA_GRAPHS || c->n_graph_ops + n > GRAPH_PROGRAMS * c->p->n_ops)
        mfi_cuda_graphs_drop(c);
    c->n_graph_ops += n;
    mfi_cuda_graph *g = &c->graphs[c->n_graphs++];
    *g = (mfi_cuda_graph){
        .first = first, .n = n, .generation = c->generation, .next = c->graph_of[first]};
    c->graph_of[first] = c->n_graphs;
    return g;
}

static mf_status launch(mfi_cuda *c, uint32_t first, uint32_t n, const mfi_step *step,
                        mf_error *err)
{
    mfi_cuda_graph *g = find(c, first, n);
    if (!g->exec || g->n_blocks != c->n_blocks)
        MFI_TRY(record(c, step, g, err));
    MFI_CUDA_TRY(cudaGraphLaunch(g->exec, c->stream));
    return MF_OK;
}

/* Single tokens run as graphs, except where the step brings lists. */
static bool as_graph(const mfi_cuda *c, uint32_t first, uint32_t n, const mfi_step *step)
{
    if (step->n_tok != 1 || step->n_head > 1 || n < 2)
        return false;
    for (uint32_t i = first; i < first + n; i++)
        if (c->p->ops[i].code == MFI_OP_EXPERTS && !mfi_cuda_looks(c, &c->p->ops[i]))
            return false;
    return true;
}

/* Where the piece of a span that begins at op `at` ends: what is left of a layer and, behind it, as
 * many whole layers as a power of two that the first one's number is a multiple of. */
static uint32_t piece_end(const mfi_program *p, uint32_t at, uint32_t end)
{
    uint32_t layer = 0, n = 0, size = 1;
    while (layer < p->shape.n_layers && p->layer_end[layer] <= at)
        layer++;
    if (at > 0 && !(layer > 0 && p->layer_end[layer - 1] == at))
        layer++;
    while (layer + n < p->shape.n_layers && p->layer_end[layer + n] <= end)
        n++;
    if (n == 0)
        return end;
    while (2 * size <= n && layer % (2 * size) == 0)
        size *= 2;
    return p->layer_end[layer + size - 1];
}

mf_status mfi_cuda_enqueue(mfi_cuda *c, uint32_t first, uint32_t n, const mfi_step *step,
                           mf_error *err)
{
    uint32_t end = first + n;
    if (!as_graph(c, first, n, step))
        return run_ops(c, first, n, step, err);
    if (!c->look_end)
        return launch(c, first, n, step, err);
    for (uint32_t at = first, next; at < end; at = next) {
        next = piece_end(c->p, at, end);
        MFI_TRY(launch(c, at, next - at, step, err));
    }
    return MF_OK;
}
