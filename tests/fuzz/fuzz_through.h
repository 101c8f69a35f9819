/* A fixed text through a tokenizer that opened, in all ways; for fuzz targets. */
#ifndef MFT_FUZZ_THROUGH_H
#define MFT_FUZZ_THROUGH_H

#include "text/tokenizer_int.h"

static inline void fuzz_through(const mf_tokenizer *t)
{
    static const char text[] = "Hello, World!  It's 12345 \xe2\x82\xac \xe6\xbc\xa2\xe5\xad\x97 "
                               "e\xcc\x81\r\n\n<|im_start|> <s> \xe2\x96\x81the \xef\xac\x81 \t "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    mf_text_span spans[] = {{text, 7, true}, {text + 7, 40, false}, {text + 47, 30, true}};
    mf_error err;
    for (int way = 0; way < 3; way++) {
        int32_t *ids;
        size_t n, len;
        uint32_t strip = mfi_tokenizer_strip(t, -1);
        mf_status status = way < 2
                               ? mf_tokenizer_encode(t, text, sizeof text - 1, way, &ids, &n, &err)
                               : mf_tokenizer_encode_spans(t, spans, 3, true, &ids, &n, &err);
        if (status != MF_OK)
            continue;
        for (size_t i = 0; i < n; i++) {
            (void)mf_tokenizer_piece(t, ids[i], way, &len);
            (void)mfi_tokenizer_show(t, ids[i], way, &strip, &len);
        }
        mf_free(ids);
    }
    (void)mfi_tokenizer_id(t, "a");
    (void)mfi_tokenizer_bytes(t);
}

#endif
