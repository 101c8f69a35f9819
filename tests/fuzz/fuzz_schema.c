/* Any bytes as a JSON schema, and one text of it, which must be JSON. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "grammar/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *piece(void *ctx, uint32_t id, size_t *len)
{
    static char bytes[256][2];
    (void)ctx;
    bytes[id][0] = (char)id;
    *len = 1;
    return bytes[id];
}

/* Writes a text; true if it came to its end. */
static bool write_text(mfi_matcher *m, size_t seed, mfi_buf *text)
{
    mfi_rng rng = {seed};
    for (int step = 0; step < 400 && !mfi_matcher_can_end(m); step++) {
        const uint32_t *mask;
        bool alive = false;
        char byte;
        if (mfi_matcher_mask(m, &mask, NULL) != MF_OK)
            return false;
        uint32_t id = (uint32_t)mfi_rng_below(&rng, 256), n = 0;
        static const char closing[] = "\"]}";
        for (const char *c = closing; step > 60 && *c; c++)
            if (mask[(unsigned char)*c >> 5] >> (*c & 31) & 1)
                id = (unsigned char)*c;
        while (!(mask[id >> 5] >> (id & 31) & 1)) {
            id = (id + 1) % 256;
            if (n++ == 256)
                abort(); /* bytes are tokens, so that something is allowed */
        }
        byte = (char)id;
        mfi_buf_append(text, &byte, 1);
        if (mfi_matcher_accept(m, &byte, 1, &alive, NULL) != MF_OK)
            return false;
        if (!alive)
            abort();
    }
    return mfi_matcher_can_end(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mfi_vocab_trie *trie;
    mf_grammar *g = NULL;
    mfi_matcher *m = NULL;
    mf_error err = {0};
    if (!trie && mfi_vocab_trie_open(&trie, &(mfi_vocab_pieces){NULL, 256, piece}, &err) != MF_OK)
        abort();
    if (size > 4096)
        return 0;
    if (mf_grammar_open_json_schema(&g, (const char *)data, size, &err) != MF_OK) {
        if (!err.message[0] || g)
            abort();
        return 0;
    }
    mfi_buf text = {0};
    mfi_json *root = NULL;
    if (mfi_matcher_open(&m, g, trie, NULL, 0, &err) == MF_OK && write_text(m, size, &text)) {
        mf_status status = mfi_json_parse(text.data, text.len, "text", &root, &err);
        /* Keys that a schema doesn't name may repeat; everything else must be JSON. */
        if (status != MF_OK && !strstr(err.message, "duplicate key"))
            abort();
    }
    mfi_json_free(&root);
    mfi_buf_free(&text);
    mfi_matcher_close(&m);
    mf_grammar_close(&g);
    return 0;
}
