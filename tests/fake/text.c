/* Support for the text tests; see text.h. */
#include "fake/text.h"
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "text/unicode.h"

void mft_write_file(const char *folder, const char *name, const char *text)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

const char *mft_tokenizer_folder(const char *name, const char *json)
{
    static char folder[1024];
    snprintf(folder, sizeof folder, "%s/%s", mft_tmpdir(), name);
    mkdir(folder, 0700);
    mft_write_file(folder, "tokenizer.json", json);
    return folder;
}

const char *mft_unxz(const char *path, const char *as)
{
    static char out[1024];
    char command[3072];
    snprintf(out, sizeof out, "%s/%s", mft_tmpdir(), as);
    snprintf(command, sizeof command, "xz -dc '%s' > '%s' 2>/dev/null", path, out);
    return system(command) == 0 ? out : NULL;
}

/* The character of the byte-level alphabet that stands for a byte. */
static void put_byte(mfi_buf *json, unsigned b)
{
    char utf8[4];
    uint32_t cp = b;
    if (b <= 0x20)
        cp = 0x100 + b;
    else if (b >= 0x7f && b <= 0xa0)
        cp = 0x121 + b - 0x7f;
    else if (b == 0xad)
        cp = 0x143;
    if (cp == '"' || cp == '\\')
        mfi_buf_str(json, "\\");
    mfi_buf_append(json, utf8, mfi_utf8_encode(cp, utf8));
}

const char *mft_small_tokenizer(const char *parts, const char *added)
{
    static mfi_buf json;
    json.len = 0;
    mfi_buf_fmt(&json, "{%s \"added_tokens\": [%s], ", parts, added);
    mfi_buf_str(&json, "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
                       "\"vocab\": {");
    for (unsigned b = 0; b < 256; b++) {
        mfi_buf_str(&json, "\"");
        put_byte(&json, b);
        mfi_buf_fmt(&json, "\":%u, ", b);
    }
    mfi_buf_str(&json, "\"he\":256, \"ll\":257, \"hell\":258, \"hello\":259, \"\\u0120w\":260, "
                       "\"or\":261, \"\\u0120wor\":262, \"ld\":263, \"\\u0120world\":264, "
                       "\"aa\":265, \"aaaa\":266}, "
                       "\"merges\": [\"h e\", [\"l\", \"l\"], \"he ll\", [\"hell\", \"o\"], "
                       "\"\\u0120 w\", \"o r\", \"\\u0120w or\", \"l d\", \"\\u0120wor ld\", "
                       "\"a a\", \"aa aa\"]}}");
    return json.data;
}
