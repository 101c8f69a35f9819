/* Bytes as a tokenizer.json; if it opens, a fixed text goes through it. */
#include <stdlib.h>

#include "fuzz_through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mf_error err;
    mf_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return 0;
    if (mfi_tokenizer_read(t, (const char *)data, size, "fuzz", &err) == MF_OK)
        fuzz_through(t);
    mf_tokenizer_close(&t);
    return 0;
}
