/* How `moeflux perplexity` shows what it found: in llama-perplexity's lines, or as JSON. */
#ifndef MOEFLUX_CLI_PPL_REPORT_H
#define MOEFLUX_CLI_PPL_REPORT_H

#include "base/buf.h"
#include "moeflux/moeflux.h"
#include "ppl.h"

typedef struct cli_ppl_facts {
    const mf_model_info *info;
    uint32_t n_ctx, n_chunks;
    const double *chunk_ppl; /* [n_chunks] perplexity of all windows up to each */
} cli_ppl_facts;

void cli_ppl_put_head(mfi_buf *out); /* of the table that put_chunk fills, with a base */
void cli_ppl_put_chunk(const cli_ppl *p, uint32_t chunk, mfi_buf *out);

/* The end; with a base they sort its klds and dps. */
void cli_ppl_put_end(cli_ppl *p, mfi_buf *out);
void cli_ppl_put_json(const cli_ppl_facts *facts, cli_ppl *p, mfi_buf *out);

#endif
