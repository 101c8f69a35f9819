/* What a model becomes as an MLX folder: every tensor with its name, type, rows and place in a
 * shard. Made from the bound model, so that any readable format is a source; nothing is read yet,
 * so that what can't be written is refused at once. */
#ifndef MFI_CONVERT_MLX_PLAN_H
#define MFI_CONVERT_MLX_PLAN_H

#include "convert/gguf_plan.h"
#include "convert/st_write.h"

typedef struct mfi_mp_shard {
    char name[48];
    mfi_st_entry *entries;
    uint32_t n_entries;
    uint64_t bytes;
} mfi_mp_shard;

typedef struct mfi_mp_place {
    uint32_t shard, entry; /* its planes are entries entry.. of that shard */
} mfi_mp_place;

typedef struct mfi_mp {
    mfi_gp gp;            /* the tensors; matrices are named without ".weight" */
    mfi_mp_place *places; /* [gp.n_tensors] */
    mfi_mp_shard *shards;
    uint32_t n_shards;
    char *names; /* of the planes */
    uint32_t bits, dense_bits, group;
} mfi_mp;

/* bits, dense_bits and group are valid. Close the plan also after a failure. */
mf_status mfi_mp_open(mfi_mp *plan, const mfi_model *model, uint32_t bits, uint32_t dense_bits,
                      uint32_t group, uint64_t shard_bytes, mf_error *err);
void mfi_mp_close(mfi_mp *plan);

#endif
