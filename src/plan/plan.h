/* The plan: everything that is decided before anything is allocated.
 *
 * A pure function of the model's description, facts of the machine and options. It says what is
 * resident, how many expert slots there are, how large scratch, KV and state are, what a token
 * costs in bytes, and why; and it builds the program. What it can't fit it refuses, with the
 * smallest budget that works. */
#ifndef MFI_PLAN_PLAN_H
#define MFI_PLAN_PLAN_H

#include "base/buf.h"
#include "model/model.h"
#include "os/cpu.h"
#include "os/machine.h"

/* A device that computes: with memory of its own, or in the host's. */
typedef struct mfi_plan_device {
    const char *name;
    uint64_t total_bytes, free_bytes;
    bool unified;
    /* Weights that lie at multiples of weight_align in their files can be used there, by buffers of
     * whole pages; 0: the device has no way to. */
    uint32_t weight_align;
    uint64_t page_bytes, max_buf_bytes;                        /* max 0: no bound */
    uint64_t (*own_bytes)(const mfi_program *p, uint32_t ctx); /* its own lists; NULL: none */
} mfi_plan_device;

/* What stays in the mapping of the files. */
typedef struct mfi_in_place {
    bool tables;          /* embeddings that nothing but EMBED reads: a row a token */
    uint64_t least_bytes; /* of other resident weights; UINT64_MAX: none of them */
    bool experts;         /* all of them: a device copies from there */
} mfi_in_place;

/* A range of a weight file that a device uses in place. */
typedef struct mfi_weight_range {
    uint32_t file;
    uint64_t offset, len;
} mfi_weight_range;

typedef struct mfi_plan_options {
    uint64_t memory_bytes;                        /* 0: from the machine */
    uint32_t ctx, chunk, n_threads, n_io_threads; /* 0: chosen here */
    uint32_t n_logit_rows, n_sessions;            /* 0: 1 */
    bool keeps;                                   /* states of sessions are written to a drive */
    uint32_t n_checkpoints;                       /* a session, at most */
    uint64_t other_bytes; /* that the engine takes beside what is planned here */
    mf_activations activations;
    mf_cache_type cache_type[2]; /* of keys, of values */
    mfi_isa isa;
    const char *policy;            /* NULL: chosen here */
    const mfi_plan_device *device; /* NULL: the host computes */
    uint64_t vram_bytes;           /* of the device; 0: chosen here */
    const char *host_tier;         /* "slots", "mapped"; NULL: chosen here */
    const char *tiers;             /* "inclusive", "exclusive"; NULL: chosen here */
    bool miss_cpu;                 /* the host computes what a device lacks */
    const char *mapping_refused;   /* the device's word when ranges were bound; NULL: not tried */
} mfi_plan_options;

/* Lines of the budget, in the order they are printed. */
typedef enum mfi_plan_item {
    MFI_PLAN_PROCESS, /* code, libraries, tokenizer, catalog, stacks */
    MFI_PLAN_CACHE,   /* page cache left by our own reads */
    MFI_PLAN_DENSE,   /* resident weights */
    MFI_PLAN_KV,
    MFI_PLAN_STATE, /* recurrent */
    MFI_PLAN_SCRATCH,
    MFI_PLAN_TABLES, /* store, sampler, expert table */
    MFI_PLAN_SLOTS,  /* cached experts; with a device, those that it copies from */
    MFI_PLAN_N_ITEMS
} mfi_plan_item;

#define MFI_PLAN_REASON_BYTES 200

typedef struct mfi_plan {
    mfi_program program;
    uint64_t budget_bytes;
    uint64_t floor_bytes; /* smallest budget that works with these options, in every run */
    uint64_t least_bytes; /* and in this one: at most 1 MiB less */
    bool fits;
    uint64_t bytes[MFI_PLAN_N_ITEMS];
    uint64_t other_bytes; /* as asked for; counted among the tables */
    char reason[MFI_PLAN_N_ITEMS][MFI_PLAN_REASON_BYTES];
    char budget_reason[MFI_PLAN_REASON_BYTES], ctx_reason[MFI_PLAN_REASON_BYTES],
        chunk_reason[MFI_PLAN_REASON_BYTES], threads_reason[MFI_PLAN_REASON_BYTES],
        activations_reason[MFI_PLAN_REASON_BYTES], policy_reason[MFI_PLAN_REASON_BYTES];
    const char *policy; /* "odds", or as asked */
    uint32_t ctx, chunk, n_threads, n_io_threads, n_slots, n_experts_total;
    uint32_t n_checkpoints;     /* of each session; 0 where nothing is lost by cutting */
    uint64_t checkpoint_bytes;  /* of one; 0 where nothing is */
    uint32_t n_sessions;        /* KV, recurrent state and tables are for so many */
    mf_activations activations; /* as asked */
    mf_cache_type cache_type[2];
    uint8_t x_bits_min; /* of the activations that quantised weights meet: 8, 16, or 32 */
    mfi_isa isa;
    uint64_t slot_stride;        /* slot_bytes, page-aligned */
    uint64_t expert_bytes_total; /* all routed experts on the drive */
    uint64_t token_dense_bytes;  /* resident weight bytes that a token multiplies */
    uint64_t token_expert_bytes; /* routed expert bytes of a token: one token's working set */
    uint64_t page_cache_bytes;
    bool keeps;
    uint64_t write_cache_bytes; /* of them, for states on their way to the drive */
    /* With a device `bytes` counts what the host holds, vram what the device does (the same lines),
     * and n_slots are the device's. */
    char device[96]; /* "": none */
    uint64_t vram_budget_bytes, vram_floor_bytes, vram[MFI_PLAN_N_ITEMS];
    char vram_reason[MFI_PLAN_REASON_BYTES], vram_slots_reason[MFI_PLAN_REASON_BYTES];
    uint32_t n_host_slots; /* 0: experts are copied from the files' mapping */
    mfi_program *helper;   /* the same ops for few tokens, of a CPU that computes what the device
                              lacks; NULL: it waits for copies */
    bool exclusive;        /* an expert is on the device or in a slot of the host's, not in both */
    char tier_reason[MFI_PLAN_REASON_BYTES]; /* how they lie below the device */
    mfi_in_place in_place;
    mfi_weight_range *ranges; /* [n_ranges], by file and offset: what a device reads in place */
    uint32_t n_ranges, n_in_place;      /* n_in_place: resident weights */
    uint64_t mapped_bytes;              /* of ranges, whole pages; */
    uint64_t mapped_dense_bytes;        /* of them, those of resident weights */
    uint64_t page_bytes, max_buf_bytes; /* as the device has them */
} mfi_plan;

/* MF_ERR_BUDGET (with the floor in the message) leaves *plan filled for printing, without being
 * usable. The plan must be released in every case. */
mf_status mfi_plan_make(mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                        const mfi_plan_options *options, mf_error *err);
void mfi_plan_free(mfi_plan *plan);

/* Experts that the forward pass holds or waits for at one time: the store's n_refs_max. */
uint32_t mfi_plan_held_max(const mfi_plan *plan);
/* Experts of the host's slots that are read or copied at one time: references of a tier. */
uint32_t mfi_plan_host_held_max(const mfi_plan *plan);
/* Experts that are read ahead at one time, at most: the store's n_hints_max. */
uint32_t mfi_plan_hints_max(const mfi_plan *plan);

/* "q8", "q16" or "f32": the coarsest form of activations that quantised weights meet. */
const char *mfi_plan_activations(const mfi_plan *plan);

/* "f32", "f16" or "q8_0": of cached keys (0), or values (1). */
const char *mfi_plan_cache_type(const mfi_plan *plan, int values);

/* As a table for people or one JSON object. */
void mfi_plan_print(const mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                    bool json, mfi_buf *out);

/* Builds the program for a chunk size; sizes of dense, scratch and slot regions follow (emit.c).
 * What activations weights meet is chosen there, one by one. */
mf_status mfi_plan_emit(mfi_program *program, const mfi_model *model, uint32_t chunk,
                        uint32_t n_logit_rows, mf_activations activations,
                        const mf_cache_type cache_type[2], mf_error *err);

#endif
