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

const char *mft_unpack_tokenizer(const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "tokenizers/%s/tokenizer.json.xz", name);
    const char *packed = mft_oracle(file);
    if (!packed)
        mft_skip("no oracle for %s", name);
    const char *json = mft_unxz(packed, "t.json");
    if (!json)
        mft_skip("xz is missing");
    return json;
}

void mft_each_vector(const char *name, mft_vector_fn *check, void *user)
{
    char file[128];
    snprintf(file, sizeof file, "tokenizers/%s/vectors.jsonl.xz", name);
    const char *path = mft_unxz(mft_oracle(file), "v.jsonl");
    assert_non_null(path);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    remove(path);
    char *line = NULL;
    size_t cap = 0, n_lines = 0;
    for (ssize_t len; (len = getline(&line, &cap, f)) > 0;) {
        mfi_json *v = NULL;
        mf_error err;
        mft_ok(mfi_json_parse(line, (size_t)len - (line[len - 1] == '\n'), "vectors", &v, &err),
               &err);
        check(user, v, ++n_lines);
        mfi_json_free(&v);
    }
    assert_int_equal(n_lines, 1500);
    free(line);
    fclose(f);
}

bool mft_same_ids(const mfi_json *want, const int32_t *ids, size_t n)
{
    bool same = mfi_json_len(want) == n;
    for (size_t i = 0; same && i < n; i++) {
        int64_t id = -1;
        same = mfi_json_i64(mfi_json_at(want, i), &id) && id == ids[i];
    }
    return same;
}

void mft_check_ids(const mf_tokenizer *t, const mfi_json *v, const char *key, bool special)
{
    size_t len, n;
    const char *text = mfi_json_str(mfi_json_get(v, "text"), &len);
    const mfi_json *want = mfi_json_get(v, key);
    int32_t *ids;
    mf_error err;
    assert_non_null(text);
    assert_int_equal(mfi_json_typeof(want), MFI_JSON_ARRAY);
    mft_ok(mf_tokenizer_encode(t, text, len, special, &ids, &n, &err), &err);
    if (!mft_same_ids(want, ids, n))
        fail_msg("%s differ for \"%s\"", key, text);
    mf_free(ids);
}

static void check_both(void *user, const mfi_json *v, size_t line)
{
    const mf_tokenizer *t = user;
    (void)line;
    mft_check_ids(t, v, "ids", false);
    mft_check_ids(t, v, "ids_special", true);
}

void mft_check_vectors(const mf_tokenizer *t, const char *name)
{
    mft_each_vector(name, check_both, (void *)t);
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
