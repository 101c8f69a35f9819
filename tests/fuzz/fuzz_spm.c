/* Bytes as a SentencePiece model (tokenizer.model); if it opens, a fixed text goes through it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz_through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mf_error err;
    mf_tokenizer *t = NULL;
    char *bytes = malloc(size + 1);
    if (!bytes)
        return 0;
    bytes[0] = 0;
    if (size)
        memcpy(bytes, data, size);
    if (mfi_tokenizer_open_bytes(&t, "tokenizer.model", "/nonexistent", bytes, size, &err) == MF_OK)
        fuzz_through(t);
    free(bytes);
    mf_tokenizer_close(&t);
    return 0;
}
