/* Pre-tokenizers by the names that GGUF files call them. */
#ifndef MFI_TEXT_PRE_TYPES_H
#define MFI_TEXT_PRE_TYPES_H

#include "base/defs.h"

#define MFI_PRE_MAX_SPLITS 6

typedef struct mfi_pre_type {
    const char *names;                      /* separated by spaces */
    const char *splits[MFI_PRE_MAX_SPLITS]; /* patterns, one after the other */
    bool byte_level_split;                  /* then GPT-2's own */
    bool ignore_merges, add_bos, nfc;
} mfi_pre_type;

/* NULL if the name is unknown. */
const mfi_pre_type *mfi_pre_type_find(const char *name);
/* Type i, or NULL behind the last one. */
const mfi_pre_type *mfi_pre_type_at(uint32_t i);

#endif
