/* Experts that a device lacks, computed by the CPU where they lie in the host's memory: their
 * inputs are brought down, their rows up, and what the device has is computed there meanwhile.
 * Called by the forward pass on its thread; the CPU's workers run inside. Allocates nothing. Rows
 * land where the device's would, so the sum is made in the same order; but they are the CPU's bits.
 *
 * So nothing would ever get to the device. Of each layer and step one of those experts is copied as
 * well, for later: nobody waits for it. */
#include "base/clock.h"
#include "forward/forward_int.h"

void mfi_forward_miss_on(mfi_forward *f, mfi_backend *cpu, mfi_store *below)
{
    f->helper = cpu;
    f->below = below;
}

uint64_t mfi_forward_n_on_cpu(const mfi_forward *f)
{
    return f->n_on_cpu;
}

/* group_choices has put those that are here first. */
bool mfi_forward_misses(const mfi_forward *f, const mfi_step *step)
{
    return f->helper && !f->cached && step->n_tok <= MFI_MAX_MISS_TOK;
}

/* What ops see of a buffer's first row, of a backend whose buffers the host can read in place. */
static void *row_of(mfi_backend *cpu, uint32_t buf, uint32_t width, uint32_t row)
{
    char *at = (char *)(uintptr_t)cpu->view(cpu, (mfi_buf_id)buf);
    return at + (size_t)row * width * sizeof(float);
}

/* Computes those that are listed, on the CPU. */
static mf_status compute_listed(mfi_forward *f, uint32_t op, mfi_step *step, mf_error *err)
{
    uint64_t begin_ns = mfi_clock_ns();
    mf_status status = f->helper->run(f->helper, op, 1, step, err);
    uint64_t ns = mfi_clock_ns() - begin_ns;
    f->arith_ns += ns;
    f->experts_ns += ns;
    return status;
}

static mf_status wait_below(mfi_forward *f, mfi_expert_ref *refs, uint32_t n, mf_error *err)
{
    uint64_t begin_ns = mfi_clock_ns();
    mf_status status = mfi_store_wait(f->below, refs, n, err);
    mfi_store_count_stall(f->store, mfi_clock_ns() - begin_ns);
    return status;
}

/* Computes held experts as they arrive. */
static mf_status compute_held(mfi_forward *f, uint32_t op, mfi_step *step, mfi_expert_ref *refs,
                              uint32_t n, mf_error *err)
{
    mf_status status = MF_OK;
    while (n > 0) {
        uint32_t n_ready = 0;
        status = mfi_store_poll(f->below, refs, n, err);
        if (status != MF_OK)
            break;
        for (uint32_t i = 0; i < n; i++) {
            mfi_expert_ref ref = refs[i];
            if (!ref.ready)
                continue;
            refs[i] = refs[n_ready];
            refs[n_ready] = ref;
            f->work[n_ready++] = (mfi_expert_work){mfi_store_data(f->below, &ref),
                                                   f->first[ref.expert], f->count[ref.expert]};
        }
        step->work = f->work;
        step->n_work = n_ready;
        status = n_ready ? compute_listed(f, op, step, err) : wait_below(f, refs, n, err);
        if (status != MF_OK)
            break;
        mfi_store_release(f->below, refs, n_ready);
        n -= n_ready;
        for (uint32_t i = 0; i < n; i++)
            refs[i] = refs[n_ready + i];
    }
    mfi_store_release(f->below, refs, n);
    return status;
}

/* The experts wanted[begin, end), a few at a time; those of the first few are asked for before the
 * device begins. */
static mf_status compute(mfi_forward *f, uint32_t op, mfi_step *step, uint32_t begin, uint32_t end,
                         mf_error *err)
{
    uint32_t layer = f->p->ops[op].layer;
    for (uint32_t at = begin, n; at < end; at += n) {
        mfi_expert_ref refs[MFI_MAX_MISS_HELD];
        n = MFI_MIN(end - at, MFI_MAX_MISS_HELD);
        MFI_TRY(mfi_store_acquire(f->below, layer, f->wanted + at, n, refs, err));
        MFI_TRY(compute_held(f, op, step, refs, n, err));
        f->n_on_cpu += n;
    }
    return MF_OK;
}

/* Starts the copy of one; it ends whenever it does. */
static mf_status promote(mfi_forward *f, uint32_t layer, uint32_t i, mf_error *err)
{
    mfi_expert_ref ref;
    MFI_TRY(mfi_store_acquire(f->store, layer, f->wanted + i, 1, &ref, err));
    mfi_store_release(f->store, &ref, 1);
    return MF_OK;
}

mf_status mfi_forward_missing(mfi_forward *f, uint32_t after_route, uint32_t op, mfi_step *step,
                              mf_error *err)
{
    const mfi_op *experts = &f->p->ops[op];
    const mfi_program_buf *in = &f->p->bufs[experts->src[0]], *out = &f->p->bufs[experts->dst[0]];
    uint32_t layer = experts->layer, n_wanted = f->n_wanted, n_here = 0;
    while (mfi_store_cached(f->store, layer, f->wanted[n_here]))
        n_here++;
    MFI_TRY(f->backend->read(f->backend, (mfi_buf_id)experts->src[0], 0, step->n_tok,
                             row_of(f->helper, experts->src[0], in->width, 0), err));
    f->n_wanted = n_here;
    mf_status status = mfi_forward_acquire(f, layer, err);
    if (status == MF_OK)
        status = mfi_forward_ops(f, after_route, op - after_route, step, err);
    if (status == MF_OK && n_here > 0) {
        status = mfi_forward_run_experts(f, op, step, err);
    } else if (status == MF_OK) { /* COMBINE takes the order of rows from an EXPERTS before it */
        step->n_work = 0;
        status = mfi_forward_ops(f, op, 1, step, err);
    }
    f->n_wanted = n_wanted;
    MFI_TRY(status);
    MFI_TRY(promote(f, layer, n_here, err));
    uint64_t on_cpu_from = f->first[f->wanted[n_here]]; /* pairs of the rest stand behind it */
    MFI_TRY(compute(f, op, step, n_here, n_wanted, err));
    uint64_t n_rows = (uint64_t)step->n_tok * f->p->shape.top_k - on_cpu_from;
    return f->backend->write(f->backend, MFI_MEM_SCRATCH,
                             out->offset + on_cpu_from * out->width * sizeof(float),
                             row_of(f->helper, experts->dst[0], out->width, (uint32_t)on_cpu_from),
                             n_rows * out->width * sizeof(float), err);
}
