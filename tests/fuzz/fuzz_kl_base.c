/* Any bytes as kept log-probabilities: refused with a message that names the file, or read to their
 * end with every number in its range. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kl_base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_row(const cli_kl_base *b)
{
    float scale[2];
    memcpy(scale, b->row, sizeof scale);
    for (uint32_t i = 0; i < b->n_vocab; i++) {
        const float p = cli_kl_logprob(scale, b->row, i);
        if (!(p > -CLI_KL_LOWEST - 18 && p < 0.02f))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cli_kl_base b;
    mf_error err = {0};
    char path[64];
    const int fd = memfd_create("base", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    mf_status status = cli_kl_base_open(&b, path, &err);
    if (status != MF_OK) {
        if (!strstr(err.message, path) || b.tokens || b.row || b.path)
            abort();
        close(fd);
        return 0;
    }
    for (size_t i = 0; i < (size_t)b.n_chunks * b.n_ctx; i++)
        if (b.tokens[i] < 0 || (uint32_t)b.tokens[i] >= b.n_vocab)
            abort();
    const uint64_t n_rows = (uint64_t)b.n_chunks * cli_kl_rows(b.n_ctx);
    for (uint64_t i = 0; i < n_rows && status == MF_OK; i++) {
        status = cli_kl_base_next(&b, &err);
        if (status == MF_OK)
            check_row(&b);
        else if (!strstr(err.message, path))
            abort();
    }
    if (status == MF_OK && (b.at != size || cli_kl_base_next(&b, &err) == MF_OK))
        abort();
    cli_kl_base_close(&b);
    close(fd);
    return 0;
}
