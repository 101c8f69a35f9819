/* The token embedding and the output matrix, whose rows decide how the routers' choices follow each
 * other. */
#ifndef MFI_SYNTH_TABLE_H
#define MFI_SYNTH_TABLE_H

#include "synth/list.h"

/* See table.c for what this is about. */
typedef struct mfi_synth_tables {
    uint64_t seed;
    uint32_t hidden, n_vocab;
    uint32_t n_text; /* ids below are pieces of text, as are the last n_special */
    uint32_t n_special;
    uint32_t n_topics;   /* 0: uniform routing */
    uint32_t topic_cols; /* the first columns, which are the topic's; the others are the token's */
    float token_share;   /* of the embedding's energy: what isn't the topic's */
    float embed_topic, embed_token, out_topic, out_token; /* root mean squares of an element */
} mfi_synth_tables;

/* Calibrates for a shape. */
void mfi_synth_tables_init(mfi_synth_tables *t, const mfi_synth_shape *shape, bool skewed,
                           uint64_t seed);
uint32_t mfi_synth_topic(const mfi_synth_tables *t, uint32_t id);

/* Writes rows [first, first + n) of the embedding (MFI_FILL_EMBED) or the output matrix. */
void mfi_synth_table_run(const mfi_synth_tables *t, mfi_synth_fill which, mfi_qtype type,
                         uint64_t first, uint64_t n, void *out);

#endif
