/* Bytes as a tokenizer.json; if it opens, a fixed text goes through it. */
#include <stdlib.h>

#include "text/tokenizer_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello, World!  It's 12345 \xe2\x82\xac \xe6\xbc\xa2\xe5\xad\x97 "
                               "e\xcc\x81\r\n\n<|im_start|>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    mf_error err;
    mf_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return 0;
    if (mfi_tokenizer_read(t, (const char *)data, size, "fuzz", &err) == MF_OK) {
        for (int special = 0; special < 2; special++) {
            int32_t *ids;
            size_t n, len;
            if (mf_tokenizer_encode(t, text, sizeof text - 1, special, &ids, &n, &err) != MF_OK)
                continue;
            for (size_t i = 0; i < n; i++)
                (void)mf_tokenizer_piece(t, ids[i], special, &len);
            mf_free(ids);
        }
        (void)mfi_tokenizer_id(t, "a");
        (void)mfi_tokenizer_bytes(t);
    }
    mf_tokenizer_close(&t);
    return 0;
}
