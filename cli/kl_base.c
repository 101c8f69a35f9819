/* Reading and making what kl_base.h describes. Used by `moeflux perplexity` on the main thread; the
 * bytes of a file are anybody's, so nothing of it is used before it was checked. Writes no files.
 */
#include "kl_base.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

_Static_assert(MFI_MAX_VOCAB <= 1 << 24, "log of it below the range: cli_kl_base_next");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are used as they are in the file");

static mf_status read_at(const cli_kl_base *b, void *to, size_t len, uint64_t offset, mf_error *err)
{
    char *p = to;
    while (len) {
        const ssize_t n = pread(b->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mfi_fail(err, MF_ERR_IO, "%s: reading at byte %llu: %s", b->path,
                            (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return mfi_fail(err, MF_ERR_FILE_TRUNCATED, "%s ends at byte %llu", b->path,
                            (unsigned long long)offset);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return MF_OK;
}

static mf_status read_header(cli_kl_base *b, mf_error *err)
{
    char magic[8];
    uint32_t numbers[3];
    MFI_TRY(read_at(b, magic, sizeof magic, 0, err));
    if (memcmp(magic, "_logits_", sizeof magic) != 0)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: no log-probabilities to compare with: it doesn't begin with _logits_",
                        b->path);
    MFI_TRY(read_at(b, numbers, sizeof numbers, 8, err));
    if (numbers[0] < CLI_KL_MIN_CTX || numbers[0] > MFI_MAX_CTX)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: byte 8: windows of %u tokens", b->path,
                        numbers[0]);
    if (numbers[1] == 0 || numbers[1] > MFI_MAX_VOCAB)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: byte 12: a vocabulary of %u", b->path, numbers[1]);
    if (numbers[2] == 0 || numbers[2] > INT32_MAX)
        return mfi_fail(err, MF_ERR_FORMAT, "%s: byte 16: %u windows", b->path, numbers[2]);
    b->n_ctx = numbers[0];
    b->n_vocab = numbers[1];
    b->n_chunks = numbers[2];
    return MF_OK;
}

/* What the file must be long; the numbers are within their limits. */
static mf_status check_length(const cli_kl_base *b, mf_error *err)
{
    /* Of a window, below 2^24 * (4 + 2^25): no overflow before the number of windows comes in. */
    const uint64_t chunk_bytes =
        (uint64_t)b->n_ctx * 4 + (uint64_t)cli_kl_rows(b->n_ctx) * cli_kl_row_words(b->n_vocab) * 2;
    struct stat st;
    if (fstat(b->fd, &st) != 0)
        return mfi_fail(err, MF_ERR_IO, "%s: %s", b->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: not a regular file", b->path);
    const uint64_t has = (uint64_t)st.st_size;
    if (b->n_chunks > (UINT64_MAX - CLI_KL_HEADER) / chunk_bytes ||
        has != CLI_KL_HEADER + b->n_chunks * chunk_bytes)
        return mfi_fail(err, MF_ERR_FORMAT,
                        "%s: %llu bytes; %u windows of %u tokens, %llu bytes each, don't make that",
                        b->path, (unsigned long long)has, b->n_chunks, b->n_ctx,
                        (unsigned long long)chunk_bytes);
    return MF_OK;
}

static mf_status read_tokens(cli_kl_base *b, mf_error *err)
{
    const size_t n = (size_t)b->n_chunks * b->n_ctx; /* no more than the file has */
    b->tokens = malloc(n * sizeof *b->tokens);
    b->row = malloc(cli_kl_row_words(b->n_vocab) * sizeof *b->row);
    if (!b->tokens || !b->row)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for %zu tokens", b->path, n);
    MFI_TRY(read_at(b, b->tokens, n * sizeof *b->tokens, CLI_KL_HEADER, err));
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)b->tokens[i] >= b->n_vocab)
            return mfi_fail(err, MF_ERR_FORMAT,
                            "%s: byte %zu: token %d is outside the vocabulary of %u", b->path,
                            CLI_KL_HEADER + 4 * i, b->tokens[i], b->n_vocab);
    b->at = CLI_KL_HEADER + (uint64_t)n * 4;
    return MF_OK;
}

mf_status cli_kl_base_open(cli_kl_base *b, const char *path, mf_error *err)
{
    *b = (cli_kl_base){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (b->fd < 0) {
        *b = (cli_kl_base){0};
        return mfi_fail(err, errno == ENOENT ? MF_ERR_FILE_MISSING : MF_ERR_IO, "%s: %s", path,
                        strerror(errno));
    }
    mf_status status = read_header(b, err);
    if (status == MF_OK)
        status = check_length(b, err);
    if (status == MF_OK)
        status = read_tokens(b, err);
    if (status != MF_OK)
        cli_kl_base_close(b);
    return status;
}

void cli_kl_base_close(cli_kl_base *b)
{
    if (b->path)
        close(b->fd);
    free(b->tokens);
    free(b->row);
    *b = (cli_kl_base){0};
}

mf_status cli_kl_base_next(cli_kl_base *b, mf_error *err)
{
    const size_t bytes = cli_kl_row_words(b->n_vocab) * sizeof *b->row;
    float scale[2];
    MFI_TRY(read_at(b, b->row, bytes, b->at, err));
    memcpy(scale, b->row, sizeof scale);
    /* No lower than the range below the likeliest of 2^24 tokens; above 0 only by rounding. */
    if (!(scale[0] >= 0 && scale[0] <= 1.001f * CLI_KL_LOWEST / 65535) ||
        !(scale[1] > -CLI_KL_LOWEST - 17) || !(scale[0] * 65535 + scale[1] < 0.01f))
        return mfi_fail(err, MF_ERR_FORMAT, "%s: byte %llu: %g and %g scale no log-probabilities",
                        b->path, (unsigned long long)b->at, (double)scale[0], (double)scale[1]);
    b->at += bytes;
    return MF_OK;
}

void cli_kl_encode(const float *logits, uint32_t n_vocab, double log_sum, uint32_t next,
                   uint16_t *row)
{
    float most = logits[0], least = logits[0];
    for (uint32_t i = 1; i < n_vocab; i++) {
        most = MFI_MAX(most, logits[i]);
        least = MFI_MIN(least, logits[i]);
    }
    least = MFI_MAX(least, MFI_MIN(most - CLI_KL_RANGE, logits[next]));
    least = MFI_MAX(least, most - CLI_KL_LOWEST);
    const float scale[2] = {(most - least) / 65535, (float)((double)least - log_sum)};
    const float inverse = scale[0] > 0 ? 1 / scale[0] : 0;
    memset(row, 0, cli_kl_row_words(n_vocab) * sizeof *row);
    memcpy(row, scale, sizeof scale);
    for (uint32_t i = 0; i < n_vocab && inverse > 0; i++)
        if (logits[i] > least)
            row[4 + i] = (uint16_t)MFI_MIN(lrintf(inverse * (logits[i] - least)), 65535);
}
