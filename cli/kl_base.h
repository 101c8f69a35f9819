/* Log-probabilities kept from one evaluation, to compare others with; in llama.cpp's form:
 *
 *   "_logits_", then in 32 bits each  n_ctx, n_vocab, n_chunks, tokens[n_chunks][n_ctx]
 *   for every chunk, a row for each of its scored positions:
 *     float step, float lowest, uint16 code[n_vocab, made even]     log p = step * code + lowest
 *
 * all little-endian. A window scores the tokens after its first half, from n_ctx / 2 + 1 on. What
 * is more than 16 below the best is kept as that. The eight letters are the form's version: there
 * is no other number in it, and no other form is read. */
#ifndef MOEFLUX_CLI_KL_BASE_H
#define MOEFLUX_CLI_KL_BASE_H

#include "base/defs.h"
#include "base/status.h"

#define CLI_KL_MIN_CTX 4
#define CLI_KL_RANGE   16.0f  /* nats below the best that are kept */
#define CLI_KL_LOWEST  512.0f /* the same for the token that came */
#define CLI_KL_HEADER  20     /* bytes before the tokens */

/* Rows a window has, and the 16-bit words of one: two floats, then the codes. */
static inline uint32_t cli_kl_rows(uint32_t n_ctx)
{
    return n_ctx - 1 - n_ctx / 2;
}

static inline size_t cli_kl_row_words(uint32_t n_vocab)
{
    return 4 + ((size_t)n_vocab + 1) / 2 * 2;
}

typedef struct cli_kl_base {
    int fd;
    const char *path; /* for messages; must live as long */
    uint32_t n_ctx, n_vocab, n_chunks;
    int32_t *tokens; /* [n_chunks][n_ctx] */
    uint64_t at;     /* of the next row */
    uint16_t *row;   /* [cli_kl_row_words] the last row read */
} cli_kl_base;

/* Reads all but the rows, and holds the file's length against what it says of itself. Messages name
 * the file and the offset. */
mf_status cli_kl_base_open(cli_kl_base *base, const char *path, mf_error *err);
void cli_kl_base_close(cli_kl_base *base); /* zeroed ones, too */

/* The next row into base->row; its floats are held to be ones that log-probabilities have. */
mf_status cli_kl_base_next(cli_kl_base *base, mf_error *err);

/* The row that keeps these logits, none of which is NaN or +infinity; log_sum: of the sum of their
 * exponentials; next: the token that came. */
void cli_kl_encode(const float *logits, uint32_t n_vocab, double log_sum, uint32_t next,
                   uint16_t *row);

/* Log-probability of token id in a row. */
static inline float cli_kl_logprob(const float scale[2], const uint16_t *row, uint32_t id)
{
    return scale[0] * (float)row[4 + id] + scale[1];
}

#endif
