/* The forward pass's inside, shared by its C files only. */
#ifndef MFI_FORWARD_INT_H
#define MFI_FORWARD_INT_H

#include "forward/forward.h"

/* A reference on an expert that a device reads where it lies, until it has passed a mark. */
typedef struct deferred {
    mfi_expert_ref ref;
    uint64_t ticket;
} deferred;

struct mfi_forward {
    const mfi_plan *plan;
    const mfi_program *p;
    mfi_backend *backend;
    mfi_store *store;
    uint32_t n_held_max; /* references at one time */
    bool settled;        /* the device has every expert and looks them up itself */
    uint64_t *found;     /* [n_layers][n_experts] addresses of experts that all were read at open
                            and stay; NULL: the store is asked */
    /* of one layer of one step */
    mfi_pair *pairs;         /* [chunk * top_k] grouped by expert */
    uint32_t *pair_of;       /* [chunk][top_k] */
    uint32_t *count, *first; /* [n_experts] pairs of an expert, and where they begin */
    uint16_t *wanted;        /* [n_experts] the experts chosen, cached ones first */
    uint32_t n_wanted, next; /* wanted[next] is the first not asked for yet */
    bool cached;             /* all of them, as the layer began */
    mfi_expert_ref *refs;    /* [n_held_max] */
    uint32_t n_held;
    deferred *deferred; /* [n_held_max] a ring, in the order of tickets; NULL: none is */
    uint32_t first_deferred, n_deferred;
    mfi_expert_work *work; /* [n_held_max] */
    uint32_t *score;       /* [n_experts] of guesses of the next layer */
    bool looked_ahead;     /* in this layer */
    bool many;             /* the step wants most experts: reading ahead is no guess */
    uint32_t n_ahead;      /* experts to read ahead then */
    /* of one step */
    int32_t *tokens;     /* [chunk] */
    uint16_t *seq_of;    /* [chunk] */
    uint32_t *head_rows; /* [chunk] */
    mfi_seq *seqs;       /* [n_sessions] */
    uint32_t last_row;   /* of LOGITS: where the first run's are */
    uint64_t n_tokens;   /* evaluated */
    uint64_t n_passes;   /* begun */
    uint64_t arith_ns;   /* of this step */
    uint64_t experts_ns; /* of it, the routed experts' */
    mfi_run_fn on_run;   /* may be NULL */
    void *on_run_user;
    bool (*tick)(void *user, uint32_t n_layers); /* may be NULL */
    void *tick_user;
    mfi_tap_fn tap; /* may be NULL */
    void *tap_user;
    mfi_op_time *times;           /* [n_ops]; may be NULL */
    mfi_watch *watch;             /* may be NULL */
    mfi_backend *helper;          /* NULL: misses are copied */
    mfi_store *below;             /* whose slots it computes in */
    uint64_t n_on_cpu;            /* experts that it computed */
    const mfi_lookup_ops *lookup; /* NULL: spans end at routers */
    uint32_t span;                /* layers that the next one looks up, and one more router */
    float missing;                /* the part of layers that lacked something of late */
};

/* forward.c. Runs ops [first, first + n), timed. */
mf_status mfi_forward_ops(mfi_forward *f, uint32_t first, uint32_t n, const mfi_step *step,
                          mf_error *err);
/* Gives back what the device has passed; waits for the first of them if wanted. */
mf_status mfi_forward_reclaim(mfi_forward *f, bool wait, mf_error *err);
/* What a layer's router chose, ids [n_tok][top_k]: tells who wants to know, groups the choices. */
void mfi_forward_choices(mfi_forward *f, uint32_t layer, const mfi_step *step, const uint16_t *ids);
/* Takes references on as many further experts as there are slots for; their reads start at once. */
mf_status mfi_forward_acquire(mfi_forward *f, uint32_t layer, mf_error *err);
/* From after ROUTE to after EXPERTS, op `op`, once choices are told. */
mf_status mfi_forward_experts(mfi_forward *f, uint32_t after_route, uint32_t op, mfi_step *step,
                              mf_error *err);
/* Computes the experts that are wanted and held as they arrive; `op` is the EXPERTS op. */
mf_status mfi_forward_run_experts(mfi_forward *f, uint32_t op, mfi_step *step, mf_error *err);
/* miss.c. Whether some of the layer's experts are for the CPU to compute. */
bool mfi_forward_misses(const mfi_forward *f, const mfi_step *step);
/* In the place of mfi_forward_experts then. */
mf_status mfi_forward_missing(mfi_forward *f, uint32_t after_route, uint32_t op, mfi_step *step,
                              mf_error *err);
/* A layer is through: tells who wants to know, who may cancel. */
mf_status mfi_forward_ticked(const mfi_forward *f, uint32_t layer, mf_error *err);
/* The EXPERTS op of the router at `route`. */
uint32_t mfi_forward_experts_of(const mfi_forward *f, uint32_t route);

/* look.c: passes whose routers the device looks up itself. Whether this one can be so. */
bool mfi_forward_looks(const mfi_forward *f, const mfi_step *step);
/* The pass; with_head: the head, too, on what the step says. */
mf_status mfi_forward_look(mfi_forward *f, mfi_step *step, bool with_head, mf_error *err);
void mfi_forward_look_open(mfi_forward *f);
void mfi_forward_look_close(mfi_forward *f);

#endif
