/* Bytes as Kimi's ranks (tiktoken.model); if they open, a fixed text goes through them. */
#include <stdlib.h>

#include "fuzz_through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mf_error err;
    mf_tokenizer *t = NULL;
    if (mfi_tokenizer_open_bytes(&t, "tiktoken.model", "/nonexistent", (const char *)data, size,
                                 &err) == MF_OK)
        fuzz_through(t);
    mf_tokenizer_close(&t);
    return 0;
}
