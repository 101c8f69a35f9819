/* GGUF files: read as they were written, the oracle's, and every kind of broken ones. */
#include "fake/support.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "format/format.h"

/* ---- what was written is what is read ---- */

static void write_small(const char *dir, const char *name, uint32_t version)
{
    mft_gguf g = {.version = version};
    mft_gguf_str(&g, "general.architecture", "tiny");
    mft_gguf_u32(&g, "tiny.block_count", 3);
    mft_gguf_u64(&g, "big", UINT64_MAX);
    mft_gguf_i32(&g, "small", -7);
    mft_gguf_f32(&g, "theta", 1e7f);
    mft_gguf_f32(&g, "eps", 1e-6f);
    mft_gguf_f32(&g, "nan", (float)(0.0 / 0.0));
    mft_gguf_bool(&g, "yes", true);
    mft_gguf_str(&g, "text", "a \"b\"\n\xc3\xa9");
    mft_gguf_str(&g, "broken", "x\xff\xc3y");
    mft_gguf_array(&g, "list", 5, 3);
    for (int i = 0; i < 3; i++)
        mft_gguf_put(&g.kv, (uint64_t)(i - 1), 4);
    mft_gguf_array(&g, "words", 8, 2);
    mft_gguf_put_str(&g.kv, "one", 3);
    mft_gguf_put_str(&g.kv, "", 0);
    mft_gguf_array(&g, "long", 8, 5000);
    for (int i = 0; i < 5000; i++)
        mft_gguf_put_str(&g.kv, "abcdefghijklmnopqrstuvwxyz", (size_t)(i % 27));
    mft_gguf_bool(&g, "after", false);
    mft_gguf_tensor(&g, "a.weight", 0, 2, (uint64_t[]){5, 3}, NULL, 60);
    mft_gguf_tensor(&g, "b.weight", 12, 3, (uint64_t[]){512, 2, 4}, NULL, 144 * 16);
    mft_gguf_tensor(&g, "c", 30, 1, (uint64_t[]){7}, NULL, 14);
    mft_gguf_tensor(&g, "d", 26, 1, (uint64_t[]){4}, NULL, 16);
    mft_gguf_tensor(&g, "e", 1, 0, NULL, NULL, 2);
    mft_gguf_write(&g, dir, name);
}

static void check_small(const char *path)
{
    mfi_catalog *c;
    mf_error err;
    mft_ok(mfi_format_open(&c, path, &err), &err);
    assert_string_equal(mfi_catalog_path(c), path);
    assert_null(mfi_catalog_config(c));
    const mfi_json *m = mfi_catalog_meta(c);
    int64_t i;
    double f;
    bool b;
    assert_string_equal(mfi_json_str(mfi_json_get(m, "general.architecture"), NULL), "tiny");
    assert_true(mfi_json_i64(mfi_json_get(m, "tiny.block_count"), &i) && i == 3);
    assert_int_equal(mfi_json_typeof(mfi_json_get(m, "big")), MFI_JSON_INT);
    assert_false(mfi_json_i64(mfi_json_get(m, "big"), &i));
    assert_true(mfi_json_i64(mfi_json_get(m, "small"), &i) && i == -7);
    assert_true(mfi_json_f64(mfi_json_get(m, "theta"), &f) && f == 1e7);
    assert_int_equal(mfi_json_typeof(mfi_json_get(m, "theta")), MFI_JSON_FLOAT);
    assert_true(mfi_json_f64(mfi_json_get(m, "eps"), &f) && f == (double)1e-6f);
    assert_int_equal(mfi_json_typeof(mfi_json_get(m, "nan")), MFI_JSON_NULL);
    assert_true(mfi_json_bool(mfi_json_get(m, "yes"), &b) && b);
    assert_true(mfi_json_bool(mfi_json_get(m, "after"), &b) && !b);
    assert_string_equal(mfi_json_str(mfi_json_get(m, "text"), NULL), "a \"b\"\n\xc3\xa9");
    assert_string_equal(mfi_json_str(mfi_json_get(m, "broken"), NULL),
                        "x\xef\xbf\xbd\xef\xbf\xbdy");
    assert_int_equal(mfi_json_len(mfi_json_get(m, "list")), 3);
    assert_true(mfi_json_i64(mfi_json_at(mfi_json_get(m, "list"), 0), &i) && i == -1);
    assert_string_equal(mfi_json_str(mfi_json_at(mfi_json_get(m, "words"), 1), NULL), "");
    const mfi_json *long_one = mfi_json_get(m, "long");
    assert_string_equal(mfi_json_str(mfi_json_get(long_one, "type"), NULL), "string");
    assert_true(mfi_json_i64(mfi_json_get(long_one, "count"), &i) && i == 5000);

    static const struct {
        const char *name;
        mfi_qtype type;
        uint32_t n_dims, dims[3];
    } wanted[] = {{"a.weight", {MFI_Q_F32, 32, 0, 0}, 2, {3, 5}},
                  {"b.weight", {MFI_Q_GGML, 12, 0, 0}, 3, {4, 2, 512}},
                  {"c", {MFI_Q_BF16, 16, 0, 0}, 1, {7}},
                  {"d", {MFI_Q_OTHER, 32, 0, 0}, 1, {4}},
                  {"e", {MFI_Q_F16, 16, 0, 0}, 0, {0}}};
    assert_int_equal(mfi_catalog_n_tensors(c), MFI_ARRAY_LEN(wanted));
    for (uint32_t id = 0; id < MFI_ARRAY_LEN(wanted); id++) {
        assert_int_equal(mfi_catalog_find(c, wanted[id].name), id);
        const mfi_tensor *t = mfi_catalog_tensor(c, id);
        assert_true(mfi_qtype_equal(t->type, wanted[id].type));
        assert_int_equal(t->n_dims, wanted[id].n_dims);
        assert_memory_equal(t->dims, wanted[id].dims, t->n_dims * sizeof *t->dims);
        mfi_extent x = mfi_tensor_extent(t, 0, 0, mfi_tensor_rows(t));
        unsigned char bytes[144 * 16];
        assert_true(x.len <= sizeof bytes);
        mft_ok(mfi_file_read(mfi_catalog_file(c, 0), bytes, x.len, x.offset, &err), &err);
        for (size_t at = 0; at < x.len; at++) /* as mft_gguf_tensor fills it */
            assert_int_equal(bytes[at], (7 * at + strlen(wanted[id].name)) & 0xff);
    }
    mfi_catalog_close(&c);
}

static void small(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        const char *dir = mft_folder();
        write_small(dir, "x.gguf", version);
        check_small(mft_path(dir, "x.gguf"));
        check_small(dir);
        mft_write_str(dir, "mmproj-x.gguf", "no model");
        mft_write_str(dir, "config.json", "{}");
        check_small(dir);
        mft_write_str(dir, "y.gguf", "GGUF");
        mfi_catalog *c;
        mf_error err;
        assert_int_equal(mfi_format_open(&c, dir, &err), MF_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "x.gguf"));
        assert_non_null(strstr(err.message, "y.gguf"));
    }
}

static void meta_only(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", "gpt2");
    mft_gguf_write(&g, dir, "vocab.gguf");
    mfi_catalog *c;
    mf_error err;
    assert_int_equal(mfi_format_open(&c, dir, &err), MF_ERR_EMPTY_MANIFEST);
    mft_ok(mfi_format_open_meta(&c, dir, &err), &err);
    assert_string_equal(
        mfi_json_str(mfi_json_get(mfi_catalog_meta(c), "tokenizer.ggml.model"), NULL), "gpt2");
    mfi_catalog_close(&c);
}

/* ---- a second reader, that trusts its file, for the oracle's ---- */

typedef struct naive {
    const unsigned char *p;
} naive;

static uint64_t take(naive *n, int n_bytes)
{
    uint64_t v = 0;
    for (int i = n_bytes - 1; i >= 0; i--)
        v = v << 8 | n->p[i];
    n->p += n_bytes;
    return v;
}

static void skip_value(naive *n, uint64_t type)
{
    static const int sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
        uint64_t len = take(n, 8);
        n->p += len;
    } else if (type == 9) {
        uint64_t of = take(n, 4), count = take(n, 8);
        for (uint64_t i = 0; i < count; i++)
            skip_value(n, of);
    } else {
        n->p += sizes[type];
    }
}

/* Holds tensors [*id, ...) of the catalog against one of its files; alignment 32. */
static void check_file(const mfi_catalog *c, uint32_t file, uint32_t *id)
{
    size_t len;
    unsigned char *bytes = mft_read(mfi_catalog_file(c, file)->path, &len);
    naive n = {bytes + 8};
    uint64_t n_tensors = take(&n, 8), n_kv = take(&n, 8);
    if (file == 0)
        assert_int_equal(mfi_json_len(mfi_catalog_meta(c)), n_kv);
    while (n_kv-- > 0) {
        uint64_t n_key = take(&n, 8);
        n.p += n_key;
        skip_value(&n, take(&n, 4));
    }
    uint32_t first = *id;
    uint64_t offsets[4096];
    assert_true(n_tensors <= MFI_ARRAY_LEN(offsets));
    for (uint64_t i = 0; i < n_tensors; i++, (*id)++) {
        uint64_t n_name = take(&n, 8);
        const mfi_tensor *t = mfi_catalog_tensor(c, *id);
        assert_int_equal(strlen(mfi_catalog_name(c, *id)), n_name);
        assert_memory_equal(mfi_catalog_name(c, *id), n.p, n_name);
        n.p += n_name;
        assert_int_equal(t->n_dims, take(&n, 4));
        for (uint32_t d = t->n_dims; d-- > 0;)
            assert_int_equal(t->dims[d], take(&n, 8));
        uint64_t type = take(&n, 4);
        uint64_t found = t->type.kind == MFI_Q_GGML   ? t->type.bits
                         : t->type.kind == MFI_Q_F32  ? 0
                         : t->type.kind == MFI_Q_F16  ? 1
                         : t->type.kind == MFI_Q_BF16 ? 30
                                                      : 26;
        assert_int_equal(found, type);
        offsets[i] = take(&n, 8);
        assert_int_equal(t->file[0], file);
    }
    uint64_t data = ((uint64_t)(n.p - bytes) + 31) / 32 * 32, end = data;
    for (uint64_t i = 0; i < n_tensors; i++) {
        const mfi_tensor *t = mfi_catalog_tensor(c, first + (uint32_t)i);
        assert_int_equal(t->offset[0], data + offsets[i]);
        assert_int_equal(t->offset[0], end); /* these writers leave no gaps */
        end = (t->offset[0] + mfi_tensor_bytes(t, 0) + 31) / 32 * 32;
    }
    if (n_tensors)
        assert_true(len <= end && end < len + 32);
    free(bytes);
}

static void check_oracle_folder(const char *folder, uint32_t n_wanted)
{
    const char *at = mft_oracle(folder);
    DIR *dir = at ? opendir(at) : NULL;
    if (!dir)
        mft_skip("no oracle");
    uint32_t n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        char *xz = strstr(name, ".gguf.xz");
        if (!xz)
            continue;
        strcpy(xz, ".gguf");
        const char *tmp = mft_folder(), *path = mft_unpack(name, tmp);
        if (!path)
            mft_skip("no xz");
        mfi_catalog *c;
        mf_error err;
        mft_ok(mfi_format_open(&c, path, &err), &err);
        uint32_t id = 0;
        check_file(c, 0, &id);
        assert_int_equal(id, mfi_catalog_n_tensors(c));
        mfi_catalog_close(&c);
        unlink(path);
        n++;
    }
    closedir(dir);
    assert_int_equal(n, n_wanted);
}

static void models(void **state)
{
    (void)state;
    check_oracle_folder("gguf/models", 18);
}

static void archs(void **state)
{
    (void)state;
    check_oracle_folder("gguf/archs", 50);
}

static void split(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    const char *paths[3];
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "gguf/split/qwen3moe-Q4_0-0000%d-of-00003.gguf", i + 1);
        paths[i] = mft_unpack(name, dir);
        if (!paths[i])
            mft_skip("no oracle or no xz");
    }
    for (int from = 0; from < 2; from++) {
        mfi_catalog *c;
        mf_error err;
        mft_ok(mfi_format_open(&c, from ? dir : paths[0], &err), &err);
        assert_int_equal(mfi_catalog_n_files(c), 3);
        uint32_t id = 0;
        for (uint32_t file = 0; file < 3; file++)
            check_file(c, file, &id);
        assert_int_equal(id, mfi_catalog_n_tensors(c));
        mfi_catalog_close(&c);
    }
    mfi_catalog *c;
    mf_error err;
    assert_int_equal(mfi_format_open(&c, paths[1], &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "-00001-of-00003.gguf"));
    unlink(paths[2]);
    assert_int_equal(mfi_format_open(&c, paths[0], &err), MF_ERR_FILE_MISSING);
    assert_non_null(strstr(err.message, "-00003-of-00003.gguf"));
    rename(paths[1], mft_path(dir, "qwen3moe-Q4_0-00003-of-00003.gguf"));
    assert_int_equal(mfi_format_open(&c, paths[0], &err), MF_ERR_FILE_MISSING);
    assert_non_null(strstr(err.message, "-00002-of-00003.gguf"));
    unlink(paths[0]);
    assert_int_equal(mfi_format_open(&c, dir, &err), MF_ERR_FILE_MISSING);
}

static void split_lies(void **state)
{
    (void)state;
    static const struct {
        uint16_t no, count;
        int32_t n_tensors;
        const char *name, *second;
        mf_status status;
    } cases[] = {
        {0, 2, 2, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", MF_OK},
        {0, 2, 3, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", MF_ERR_TENSOR_MISSING},
        {0, 2, 2, "m.gguf", "m-00002-of-00002.gguf", MF_ERR_FORMAT},
        {0, 3, 2, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", MF_ERR_FORMAT},
        {0, 60000, 2, "m-00001-of-60000.gguf", "m-00002-of-60000.gguf", MF_ERR_FORMAT},
        {1, 2, 2, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", MF_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        const char *dir = mft_folder();
        for (int second = 0; second < 2; second++) {
            mft_gguf g = {0};
            mft_gguf_u16(&g, "split.no", second ? 1 : cases[i].no);
            mft_gguf_u16(&g, "split.count", cases[i].count);
            mft_gguf_i32(&g, "split.tensors.count", cases[i].n_tensors);
            mft_gguf_tensor(&g, second ? "b" : "a", 0, 1, (uint64_t[]){4}, NULL, 16);
            mft_gguf_write(&g, dir, second ? cases[i].second : cases[i].name);
        }
        mfi_catalog *c = NULL;
        mf_error err = {0};
        mf_status status = mfi_format_open(&c, mft_path(dir, cases[i].name), &err);
        if (status != cases[i].status)
            fail_msg("case %zu: %s: %s", i, mf_status_name(status), err.message);
        mfi_catalog_close(&c);
    }
}

/* ---- broken files ---- */

static void bad_oracle(void **state)
{
    (void)state;
    static const struct {
        const char *name, *offset;
    } cases[] = {
        {"truncated_header", "offset 16:"},
        {"bad_magic", "offset 0:"},
        {"wrong_version", "offset 4:"},
        {"version_zero", "offset 4:"},
        {"huge_tensor_count", "offset 8:"},
        {"huge_kv_count", "offset 16:"},
        {"string_length_overflow", "offset 24:"},
        {"huge_array_count", "offset 160:"},
        {"bad_value_type", "offset 156:"},
        {"too_many_dims", "offset 218:"},
        {"dims_product_overflow", "offset 222:"},
        {"bad_tensor_type", "offset 238:"},
        {"tensor_offset_past_end", "offset 242:"},
        {"truncated_data", "offset 576 "},
    };
    if (!mft_oracle("gguf/bad"))
        mft_skip("no oracle");
    mfi_catalog *c;
    mf_error err;
    mft_ok(mfi_format_open(&c, mft_oracle("gguf/bad/valid.gguf"), &err), &err);
    assert_int_equal(mfi_catalog_n_tensors(c), 2);
    mfi_catalog_close(&c);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        char name[128];
        snprintf(name, sizeof name, "gguf/bad/%s.gguf", cases[i].name);
        const char *path = mft_oracle(name);
        assert_non_null(path);
        err = (mf_error){0};
        mf_status status = mfi_format_open(&c, path, &err);
        if (status == MF_OK || !strstr(err.message, cases[i].offset) || !strstr(err.message, name))
            fail_msg("%s: %s: %s", name, mf_status_name(status), err.message);
        assert_null(c);
    }
}

/* Files whose one flaw is built here; `says` must be in the message, which names an offset. */
typedef struct bad_case {
    const char *says;
    mf_status status;
    void (*build)(mft_gguf *g);
} bad_case;

static void put_f32(mft_gguf *g, const char *name, uint64_t offset)
{
    mft_gguf_tensor(g, name, 0, 1, (uint64_t[]){4}, NULL, 16);
    for (int i = 0; i < 8; i++)
        g->infos.data[g->infos.len - 8 + (size_t)i] = (char)(offset >> 8 * i & 0xff);
}

static void twice(mft_gguf *g)
{
    mft_gguf_u32(g, "k", 1);
    mft_gguf_u32(g, "other", 1);
    mft_gguf_u32(g, "k", 1);
}

static void nested(mft_gguf *g)
{
    mft_gguf_array(g, "k", 9, 1);
    mft_gguf_put(&g->kv, 4, 4);
    mft_gguf_put(&g->kv, 0, 8);
}

static void array_type(mft_gguf *g)
{
    mft_gguf_array(g, "k", 13, 0);
}

static void long_string_in_array(mft_gguf *g)
{
    mft_gguf_array(g, "k", 8, 5000);
    for (int i = 0; i < 4999; i++)
        mft_gguf_put(&g->kv, 0, 8);
    mft_gguf_put(&g->kv, UINT64_MAX, 8);
}

static void key_nul(mft_gguf *g)
{
    mft_gguf_put_str(&g->kv, "a\0b", 3);
    mft_gguf_put(&g->kv, 0, 5);
    g->n_kv++;
}

static void key_utf8(mft_gguf *g)
{
    mft_gguf_bool(g, "a\xff", true);
}

static void align_type(mft_gguf *g)
{
    mft_gguf_u64(g, "general.alignment", 32);
}

static void align_zero(mft_gguf *g)
{
    mft_gguf_u32(g, "general.alignment", 0);
}

static void align_odd(mft_gguf *g)
{
    mft_gguf_u32(g, "general.alignment", 48);
}

static void unaligned(mft_gguf *g)
{
    put_f32(g, "w", 16);
}

static void overlap(mft_gguf *g)
{
    put_f32(g, "a", 0);
    put_f32(g, "b", 0);
}

static void same_name(mft_gguf *g)
{
    put_f32(g, "a", 0);
    put_f32(g, "a", 32);
}

static void far(mft_gguf *g)
{
    put_f32(g, "a", UINT64_MAX - 31);
}

static void part_block(mft_gguf *g)
{
    mft_gguf_tensor(g, "w", 12, 1, (uint64_t[]){128}, NULL, 144);
}

static void removed_type(mft_gguf *g)
{
    mft_gguf_tensor(g, "w", 4, 1, (uint64_t[]){32}, NULL, 32);
}

static void product(mft_gguf *g)
{
    mft_gguf_tensor(g, "w", 0, 3, (uint64_t[]){1u << 31, 1u << 31, 2}, NULL, 32);
}

static void product_over_zero(mft_gguf *g)
{
    mft_gguf_tensor(g, "w", 0, 4, (uint64_t[]){0, 1u << 31, 1u << 31, 1u << 31}, NULL, 32);
}

static void long_name(mft_gguf *g)
{
    char name[600];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    mft_gguf_tensor(g, name, 0, 1, (uint64_t[]){4}, NULL, 16);
}

static void version_1(mft_gguf *g)
{
    g->version = 1;
}

static void big_endian(mft_gguf *g)
{
    g->version = 3u << 24;
}

static void many_elements(mft_gguf *g)
{
    char key[16];
    for (int i = 0; i < 257; i++) {
        snprintf(key, sizeof key, "k%d", i);
        mft_gguf_array(g, key, 0, 4096);
        for (int j = 0; j < 512; j++)
            mft_gguf_put(&g->kv, 0, 8);
    }
}

static void bad_built(void **state)
{
    (void)state;
    static const bad_case cases[] = {
        {"there already, at offset 24", MF_ERR_FORMAT, twice},
        {"array of arrays", MF_ERR_UNSUPPORTED, nested},
        {"unknown type 13", MF_ERR_FORMAT, array_type},
        {"string 4999", MF_ERR_FORMAT, long_string_in_array},
        {"UTF-8", MF_ERR_FORMAT, key_nul},
        {"UTF-8", MF_ERR_FORMAT, key_utf8},
        {"power of two", MF_ERR_FORMAT, align_type},
        {"power of two", MF_ERR_FORMAT, align_zero},
        {"power of two", MF_ERR_FORMAT, align_odd},
        {"aligned to 32", MF_ERR_FORMAT, unaligned},
        {"overlap", MF_ERR_FORMAT, overlap},
        {"tensor a is also", MF_ERR_FORMAT, same_name},
        {"behind the end", MF_ERR_TENSOR_BOUNDS, far},
        {"whole blocks of q4_K", MF_ERR_FORMAT, part_block},
        {"type 4", MF_ERR_UNSUPPORTED, removed_type},
        {"overflow", MF_ERR_FORMAT, product},
        {"overflow", MF_ERR_FORMAT, product_over_zero},
        {"599 bytes", MF_ERR_LIMIT, long_name},
        {"version 1", MF_ERR_UNSUPPORTED, version_1},
        {"big-endian", MF_ERR_UNSUPPORTED, big_endian},
        {"elements", MF_ERR_LIMIT, many_elements},
    };
    const char *dir = mft_folder();
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mft_gguf g = {0};
        cases[i].build(&g);
        mft_gguf_write(&g, dir, "x.gguf");
        mfi_catalog *c = (mfi_catalog *)&g;
        mf_error err = {0};
        mf_status status = mfi_format_open(&c, dir, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].says) ||
            !strstr(err.message, "x.gguf") ||
            (!strstr(err.message, "offset ") && cases[i].build != same_name))
            fail_msg("case %zu (%s): %s: %s", i, cases[i].says, mf_status_name(status),
                     err.message);
        assert_null(c);
    }
}

static void alignment(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_gguf g = {.alignment = 256};
    mft_gguf_u32(&g, "general.alignment", 256);
    mft_gguf_tensor(&g, "a", 0, 1, (uint64_t[]){4}, NULL, 16);
    mft_gguf_tensor(&g, "b", 0, 1, (uint64_t[]){4}, NULL, 16);
    mft_gguf_write(&g, dir, "x.gguf");
    mfi_catalog *c;
    mf_error err;
    mft_ok(mfi_format_open(&c, dir, &err), &err);
    assert_int_equal(mfi_catalog_tensor(c, 0)->offset[0], 256);
    assert_int_equal(mfi_catalog_tensor(c, 1)->offset[0], 512);
    mfi_catalog_close(&c);
}

static void truncate_all(const unsigned char *bytes, size_t size, size_t n_cuts)
{
    const char *dir = mft_folder();
    for (size_t cut = 0; cut <= n_cuts; cut++) {
        size_t len = cut == n_cuts ? size - 1 : size * cut / n_cuts;
        mft_write(dir, "x.gguf", bytes, len);
        mfi_catalog *c;
        mf_error err = {0};
        mf_status status = mfi_format_open(&c, dir, &err);
        if ((status != MF_ERR_FORMAT && status != MF_ERR_TENSOR_BOUNDS) ||
            !strstr(err.message, "x.gguf") || !strstr(err.message, "offset "))
            fail_msg("cut at %zu: %s: %s", len, mf_status_name(status), err.message);
        assert_null(c);
    }
}

static void truncated(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    write_small(dir, "x.gguf", 3);
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "x.gguf"), &size);
    truncate_all(bytes, size, 100);
    truncate_all(bytes, 300, 300); /* every byte of the beginning */
    free(bytes);
    const char *path = mft_unpack("gguf/models/qwen3moe-IQ1_S.gguf", dir);
    if (!path)
        mft_skip("no oracle or no xz");
    bytes = mft_read(path, &size);
    truncate_all(bytes, size, 100);
    free(bytes);
}

/* Any single byte may be anything: no crash, and what opens lies inside the file. */
static void flipped(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    write_small(dir, "x.gguf", 3);
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "x.gguf"), &size);
    mfi_rng rng = {20240607};
    for (int round = 0; round < 1500; round++) {
        size_t at = mfi_rng_below(&rng, round % 2 ? 600 : size);
        unsigned char was = bytes[at];
        bytes[at] = (unsigned char)mfi_rng_next(&rng);
        mft_write(dir, "x.gguf", bytes, size);
        mfi_catalog *c;
        mf_error err;
        if (mfi_format_open(&c, dir, &err) == MF_OK) {
            for (uint32_t id = 0; id < mfi_catalog_n_tensors(c); id++) {
                const mfi_tensor *t = mfi_catalog_tensor(c, id);
                mfi_extent x = mfi_tensor_extent(t, 0, 0, mfi_tensor_rows(t));
                if (x.offset > size || x.len > size - x.offset)
                    fail_msg("seed 20240607, round %d: tensor outside the file", round);
            }
            mfi_catalog_close(&c);
        }
        bytes[at] = was;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small),      cmocka_unit_test(meta_only), cmocka_unit_test(models),
        cmocka_unit_test(archs),      cmocka_unit_test(split),     cmocka_unit_test(split_lies),
        cmocka_unit_test(bad_oracle), cmocka_unit_test(bad_built), cmocka_unit_test(alignment),
        cmocka_unit_test(truncated),  cmocka_unit_test(flipped),
    };
    return mft_run(tests);
}
