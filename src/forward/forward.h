/* The forward pass: walks a program in spans around its router barriers.
 *
 * Written once for every backend and for one token as for many. It reads the router's choice, asks
 * the store for the experts, lets the backend work on what is there while the rest is read, and
 * never does arithmetic itself. Owned by one thread; allocates at open only. */
#ifndef MFI_FORWARD_FORWARD_H
#define MFI_FORWARD_FORWARD_H

#include "backend/backend.h"
#include "experts/store.h"
#include "experts/watch.h"
#include "plan/plan.h"

typedef struct mfi_forward mfi_forward;

/* Everything is borrowed and must outlive the forward pass. */
mf_status mfi_forward_open(mfi_forward **forward, const mfi_plan *plan, mfi_backend *backend,
                           mfi_store *store, mf_error *err);
void mfi_forward_close(mfi_forward **forward);

typedef enum mfi_want {
    MFI_WANT_NOTHING, /* state only */
    MFI_WANT_LAST,    /* logits of the last token, kept for mfi_forward_logits */
    MFI_WANT_ALL      /* every token's logits and hidden states through `outputs`; one run alone */
} mfi_want;

/* Tokens of one sequence that a pass evaluates. */
typedef struct mfi_run {
    const int32_t *tokens; /* [n], ids below n_vocab */
    uint32_t n, pos;       /* pos: of the first */
    const mfi_layer_mem *mem;
    mfi_want want;
} mfi_run;

/* Evaluates runs of distinct sequences in one pass: together at most the plan's chunk of tokens,
 * and of its rows of logits. Each expert that any of them chose is read once. `outputs` (with
 * MFI_WANT_ALL) gets rows numbered from index0 on. On failure the state of all sequences is
 * undefined and must be rebuilt. */
mf_status mfi_forward_run(mfi_forward *forward, const mfi_run *runs, uint32_t n_runs,
                          const mf_eval_outputs *outputs, size_t index0, mf_error *err);

/* Where slots hold every expert: reads all of them now. From then on the store isn't asked for any,
 * and a device's spans run over routers without a stop. `progress` may be NULL. */
mf_status mfi_forward_settle(mfi_forward *forward, mf_progress_fn progress, void *user,
                             mf_error *err);

/* In passes that choose nearly every expert of a layer anyhow, up to n of the next layer's are read
 * ahead, whatever the store's hints are set to. 0, from the start: none. */
void mfi_forward_read_ahead(mfi_forward *forward, uint32_t n);

/* Calls `tick` after each layer's experts, with the number of layers done; returning false ends the
 * run with MF_ERR_CANCELLED. NULL: nobody is called. */
void mfi_forward_on_layer(mfi_forward *forward, bool (*tick)(void *user, uint32_t n_layers),
                          void *user);

/* Calls `tap` after each op that has run, with the op's index and its inputs still in their
 * buffers: the importance matrix is made so. Ops then run one by one; the results are the same.
 * NULL: nobody is called. */
typedef void (*mfi_tap_fn)(void *user, uint32_t op, const mfi_step *step, mfi_backend *backend);
void mfi_forward_tap(mfi_forward *forward, mfi_tap_fn tap, void *user);

/* Tells `watch` every choice from now on. NULL: nobody. */
void mfi_forward_watch(mfi_forward *forward, mfi_watch *watch);

/* Calls `on_run` at the end of each run that succeeded: what was evaluated, how long that took, and
 * what of it the backend did. Its failure is the run's. NULL: nobody is called. */
typedef struct mfi_run_facts {
    uint32_t pos, n_tok, n_seqs; /* pos: of the first sequence */
    uint64_t begin_ns, wall_ns, arith_ns;
    uint64_t experts_ns; /* of arith_ns, the routed experts' */
} mfi_run_facts;
typedef mf_status (*mfi_run_fn)(void *user, const mfi_run_facts *facts, mf_error *err);
void mfi_forward_on_run(mfi_forward *forward, mfi_run_fn on_run, void *user);
/* What an op took, summed over its runs. */
typedef struct mfi_op_time {
    uint64_t n_runs, ns, bytes; /* bytes: mfi_op_bytes */
} mfi_op_time;
/* Times every op of the program from now on, adding to times [n_ops], which are the caller's. Ops
 * then run one by one; the results are the same. NULL: none is timed. */
void mfi_forward_time_ops(mfi_forward *forward, mfi_op_time *times);

/* Of steps of few tokens, experts that aren't on the device are computed by `cpu` from now on, in
 * the slots of `below`, and their rows brought to the device; one of a layer's is copied meanwhile,
 * for later. cpu is prepared with the plan's helper. */
void mfi_forward_miss_on(mfi_forward *forward, mfi_backend *cpu, mfi_store *below);
uint64_t mfi_forward_n_on_cpu(const mfi_forward *forward); /* since open or the last reset */

/* Tokens that runs were asked to evaluate, since open or the last reset. */
uint64_t mfi_forward_n_tokens(const mfi_forward *forward);
void mfi_forward_n_tokens_reset(mfi_forward *forward);

/* Logits [n_vocab] of the last token of a run, of the last pass that wanted any: `i` counts the
 * runs that did. Valid until the next pass. */
const float *mfi_forward_logits(const mfi_forward *forward, uint32_t i);

#endif
