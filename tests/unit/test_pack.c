/* Packs: what is computed from one is, to the bit, what is computed from its source; one aligned
 * piece an expert; damage is found and named; interrupted ones go on; foreign bytes are refused. */
#include "fake/evaluate.h"
#include "fake/gguf_files.h"
#include "fake/oss_model.h"
#include "fake/model_files.h"
#include "fake/support.h"
#include "fake/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "format/format.h"
#include "model/model.h"

static mf_status try_pack(const char *in, const char *out, mf_progress_fn progress, void *user,
                          mf_error *err)
{
    mf_pack_options o;
    mf_pack_options_default(&o);
    o.in_path = in;
    o.out_path = out;
    o.progress = progress;
    o.progress_user = user;
    return mf_pack(&o, err);
}

static const char *pack(const char *in)
{
    mf_error err;
    const char *out = mft_fresh("pack");
    mft_ok(try_pack(in, out, NULL, NULL, &err), &err);
    return out;
}

static const char *tiny(bool bf16, bool fused)
{
    mft_tiny spec;
    mft_tiny_default(&spec);
    spec.bf16 = bf16;
    spec.fused = fused;
    return mft_tiny_write(&spec);
}

static const char *converted(const char *in, const char *type)
{
    mf_error err;
    mf_convert_options o;
    mf_convert_options_default(&o);
    o.in_path = in;
    o.out_path = mft_fresh("m.gguf");
    o.type = type;
    o.n_threads = 2;
    mft_ok(mf_convert(&o, &err), &err);
    return o.out_path;
}

/* ---- what is computed ---- */

static void check_same(const char *source, bool evaluate)
{
    mf_error err;
    char first[512], second[512];
    snprintf(first, sizeof first, "%s", pack(source));
    snprintf(second, sizeof second, "%s", pack(first)); /* a pack is a source like any other */
    mft_ok(mf_pack_verify(first, NULL, NULL, &err), &err);
    mft_same_file(mft_path(first, "model.mfpack"), mft_path(second, "model.mfpack"));
    if (evaluate && mft_nmse_of(second, source, 2) != 0)
        fail_msg("%s: the pack's logits are others", source);
}

static void test_same_bits(void **state)
{
    (void)state;
    check_same(tiny(true, false), true); /* one tensor an expert */
    check_same(tiny(true, true), true);  /* stacked, gate and up in one */
    check_same(tiny(false, true), true);
    check_same(mft_source("models/pocket-dictionary"), true); /* MLX */
    check_same(converted(tiny(true, true), "bf16"), true);
    check_same(converted(tiny(true, false), "q8_0"), true);
}

/* FP8 and MXFP4, biases, dense layers, blocks of all kinds, shards. */
static void test_same_bits_published(void **state)
{
    (void)state;
    static const char *const folders[] = {"hf/deepseek_v3", "hf/gpt_oss", "hf/mixtral",
                                          "hf/qwen3_next"};
    static const char *const files[] = {"gguf/models/qwen3moe-Q4_K_M.gguf",
                                        "gguf/models/qwen3moe-MXFP4_MOE.gguf"};
    if (!mft_oracle(folders[0]))
        mft_skip("no oracle");
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        check_same(mft_oracle(folders[i]), true);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        check_same(mft_unpack(files[i], mft_folder()), true);
    const char *dir = mft_folder();
    for (int i = 3; i > 0; i--) { /* the first is what is opened */
        char name[96];
        snprintf(name, sizeof name, "gguf/split/qwen3moe-Q4_0-%05d-of-00003.gguf", i);
        mft_unpack(name, dir);
    }
    check_same(mft_path(dir, "qwen3moe-Q4_0-00001-of-00003.gguf"), true);
}

/* The other readers of weights follow experts that lie apart. */
typedef struct text {
    char *bytes;
    size_t len;
} text;

static bool keep(void *user, const char *bytes, size_t len)
{
    text *t = user;
    t->bytes = realloc(t->bytes, t->len + len);
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    return true;
}

static void test_other_readers(void **state)
{
    (void)state;
    mf_error err;
    char source[512], packed[512];
    snprintf(source, sizeof source, "%s", tiny(true, true));
    snprintf(packed, sizeof packed, "%s", pack(source));
    static const char name[] = "model.layers.1.mlp.experts.gate_up_proj";
    mfi_catalog *catalog = NULL;
    mft_ok(mfi_format_open(&catalog, packed, &err), &err);
    const char *full = NULL;
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(catalog) && !full; id++)
        if (strstr(mfi_catalog_name(catalog, id), "layers.1.mlp.experts.gate_up_proj") &&
            mfi_catalog_tensor(catalog, id)->stride > 0)
            full = mfi_catalog_name(catalog, id);
    if (!full)
        fail_msg("no tensor like %s with slices apart", name);
    text a = {0}, b = {0};
    mft_ok(mf_tensor_read_f32(source, full, 1, keep, &a, NULL, &err), &err);
    mft_ok(mf_tensor_read_f32(packed, full, 1, keep, &b, NULL, &err), &err);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.bytes, b.bytes, a.len);
    free(a.bytes);
    free(b.bytes);
    mfi_catalog_close(&catalog);
    char want[512];
    snprintf(want, sizeof want, "%s", converted(source, "f32"));
    mft_same_file(converted(packed, "f32"), want);

    /* Biases lie in the experts' records as well. */
    mft_oss oss;
    mft_oss_default(&oss);
    snprintf(source, sizeof source, "%s", mft_oss_write(&oss));
    snprintf(packed, sizeof packed, "%s", pack(source));
    snprintf(want, sizeof want, "%s", converted(source, "f32"));
    mft_same_file(converted(packed, "f32"), want);
}

/* ---- the layout, as docs/formats.md has it, read without the reader ---- */

typedef struct found_record {
    uint32_t kind, layer, expert;
    uint64_t offset, bytes;
    char name[256];
} found_record;

static uint64_t little(const unsigned char *p, int n)
{
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

/* Record i of a pack. */
static found_record record_at(const unsigned char *bytes, uint32_t i)
{
    const unsigned char *p = bytes + little(bytes + 40, 8);
    found_record r;
    for (;; i--) {
        uint64_t len = little(p + 36, 8);
        r = (found_record){(uint32_t)little(p, 4),     (uint32_t)little(p + 4, 4),
                           (uint32_t)little(p + 8, 4), little(p + 12, 8),
                           little(p + 20, 8),          ""};
        memcpy(r.name, p + 44, len < 255 ? len : 255);
        if (i == 0)
            return r;
        p += 44 + len;
    }
}

static found_record find_record(const char *packed, uint32_t kind, uint32_t layer, uint32_t expert)
{
    size_t len;
    unsigned char *bytes = mft_read(mft_path(packed, "model.mfpack"), &len);
    found_record r = {.kind = UINT32_MAX};
    for (uint32_t i = 0; i < little(bytes + 16, 4); i++) {
        r = record_at(bytes, i);
        if (r.kind == kind && r.layer == layer && r.expert == expert)
            break;
    }
    assert_int_equal(r.kind, kind);
    assert_true(r.layer == layer && r.expert == expert);
    free(bytes);
    return r;
}

/* All that an expert has lies in its record, which begins and ends at a block of the drive. */
static void test_one_piece(void **state)
{
    (void)state;
    mf_error err;
    for (int fused = 0; fused < 2; fused++) {
        const char *packed = pack(tiny(true, fused));
        mfi_catalog *catalog = NULL;
        mfi_model *model = NULL;
        mft_ok(mfi_format_open(&catalog, packed, &err), &err);
        mft_ok(mfi_model_open(&model, catalog, &err), &err);
        uint32_t n = model->shape.n_experts;
        for (uint32_t layer = 0; layer < model->shape.n_layers; layer++) {
            for (uint32_t e = 0; e < n; e++) {
                found_record r = find_record(packed, 0, layer, e);
                assert_int_equal(r.offset % 4096, 0);
                assert_int_equal(r.bytes % 4096, 0);
                for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
                    const mfi_expert_src *src =
                        &model->experts[(layer * n + e) * MFI_EXPERT_PROJS + proj];
                    mfi_extent x =
                        mfi_tensor_extent(mfi_catalog_tensor(catalog, src->tensor), 0, src->row, 1);
                    assert_true(x.offset >= r.offset && x.offset + x.len <= r.offset + r.bytes);
                }
            }
        }
        mfi_model_close(&model);
        mfi_catalog_close(&catalog);
    }
}

/* ---- damage ---- */

static void flip(const char *path, uint64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_true(f && fseek(f, (long)at, SEEK_SET) == 0);
    int c = fgetc(f);
    assert_true(c != EOF && fseek(f, (long)at, SEEK_SET) == 0);
    assert_true(fputc(c ^ 0x10, f) != EOF && fclose(f) == 0);
}

static void verify_says(const char *packed, const char *what, uint64_t offset)
{
    mf_error err;
    char place[64];
    assert_int_equal(mf_pack_verify(packed, NULL, NULL, &err), MF_ERR_FORMAT);
    snprintf(place, sizeof place, "offset %llu", (unsigned long long)offset);
    if (!strstr(err.message, what) || !strstr(err.message, place))
        fail_msg("%s, %s: %s", what, place, err.message);
}

static void test_damage(void **state)
{
    (void)state;
    mf_error err;
    const char *packed = pack(tiny(true, true));
    const char *weights = mft_path(packed, "model.mfpack");
    const found_record expert = find_record(packed, 0, 1, 2), plane = find_record(packed, 1, 0, 0);
    const uint64_t places[] = {expert.offset, expert.offset + expert.bytes / 2,
                               expert.offset + expert.bytes - 1};
    for (int i = 0; i < 3; i++) {
        flip(weights, places[i]);
        verify_says(packed, "layer 1, expert 2:", expert.offset);
        flip(weights, places[i]);
    }
    flip(weights, plane.offset + plane.bytes - 1);
    verify_says(packed, plane.name, plane.offset);
    flip(weights, expert.offset);
    verify_says(packed, "(and 1 more)", expert.offset);
    flip(weights, expert.offset);
    flip(weights, plane.offset + plane.bytes - 1);
    mft_ok(mf_pack_verify(packed, NULL, NULL, &err), &err);
    const char *config = mft_path(packed, "config.json");
    flip(config, 3);
    verify_says(packed, "config.json", 0);
    unlink(config);
    verify_says(packed, "config.json", 0);
}

static void refused(const char *packed, mf_status want, const char *what)
{
    mf_error err;
    mfi_catalog *catalog = NULL;
    assert_int_equal(mfi_format_open(&catalog, packed, &err), want);
    assert_null(catalog);
    if (!strstr(err.message, what) || !strstr(err.message, "model.mfpack"))
        fail_msg("%s: %s", what, err.message);
    assert_int_equal(mf_pack_verify(packed, NULL, NULL, &err), want);
}

static void test_header(void **state)
{
    (void)state;
    const char *packed = pack(tiny(true, false));
    const char *weights = mft_path(packed, "model.mfpack");
    size_t len;
    unsigned char *bytes = mft_read(weights, &len);
    uint64_t n_header = little(bytes + 32, 8);
    flip(weights, 0);
    refused(packed, MF_ERR_FORMAT, "offset 0: not a pack");
    flip(weights, 0);
    flip(weights, 8);
    refused(packed, MF_ERR_UNSUPPORTED, "version 17");
    flip(weights, 8);
    for (uint64_t at = 56; at < n_header; at += 97) {
        flip(weights, at);
        refused(packed, MF_ERR_FORMAT, "damaged");
        flip(weights, at);
    }
    for (int percent = 0; percent < 100; percent++) {
        size_t n = len * (size_t)percent / 100;
        mft_write(packed, "model.mfpack", bytes, n);
        refused(packed, n < n_header ? MF_ERR_FORMAT : MF_ERR_TENSOR_BOUNDS, "");
    }
    free(bytes);
}

/* ---- interrupted ---- */

typedef struct stopper {
    int n_left; /* calls until it says stop */
    const char *in, *out;
    mf_status second; /* of another writer meanwhile */
} stopper;

/* Waits so long that the next piece calls back, too: calls are at least a fifth of a second apart.
 */
static bool stop(void *user, const char *what, const char *unit, uint64_t done, uint64_t total)
{
    stopper *s = user;
    assert_string_equal(what, "packing");
    assert_string_equal(unit, "bytes");
    assert_true(done <= total);
    if (s->n_left == 2)
        s->second = try_pack(s->in, s->out, NULL, NULL, NULL);
    nanosleep(&(struct timespec){0, 201000000}, NULL);
    return s->n_left-- > 0;
}

static void assert_absent(const char *path)
{
    struct stat st;
    assert_int_not_equal(lstat(path, &st), 0);
}

static void test_resumed(void **state)
{
    (void)state;
    mf_error err;
    size_t len;
    char source[512], other[512], out[512], part[600];
    snprintf(source, sizeof source, "%s", tiny(true, true));
    snprintf(other, sizeof other, "%s", tiny(true, false));
    snprintf(out, sizeof out, "%s", mft_fresh("pack"));
    snprintf(part, sizeof part, "%s.part", out);
    stopper s = {12, source, out, MF_OK};
    assert_int_equal(try_pack(source, out, stop, &s, &err), MF_ERR_CANCELLED);
    assert_int_equal(s.second, MF_ERR_STATE);
    assert_absent(out);
    unsigned char *journal = mft_read(mft_path(part, "journal"), &len);
    if (len < 3 * 16)
        fail_msg("a journal of %zu bytes: too little was done", len);
    uint32_t last = (uint32_t)little(journal + len - 16, 4);
    free(journal);

    assert_int_equal(try_pack(other, out, NULL, NULL, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "another model"));
    assert_absent(out);

    /* What the journal has is there, and is not believed blindly: one of its records gets damaged,
     * and its end torn. */
    char whole[512];
    snprintf(whole, sizeof whole, "%s", pack(source));
    unsigned char *bytes = mft_read(mft_path(whole, "model.mfpack"), &len);
    found_record r = record_at(bytes, last);
    size_t n_part;
    unsigned char *begun = mft_read(mft_path(part, "model.mfpack"), &n_part);
    assert_int_equal(n_part, len);
    assert_memory_equal(begun + r.offset, bytes + r.offset, r.bytes);
    free(begun);
    free(bytes);
    flip(mft_path(part, "model.mfpack"), r.offset);
    FILE *f = fopen(mft_path(part, "journal"), "ab");
    assert_true(f && fwrite("torn", 1, 4, f) == 4 && fclose(f) == 0);

    mft_ok(try_pack(source, out, NULL, NULL, &err), &err);
    assert_absent(part);
    mft_same_file(mft_path(out, "model.mfpack"), mft_path(whole, "model.mfpack"));
    assert_int_equal(mft_n_entries(out), mft_n_entries(whole));
    assert_absent(mft_path(out, "journal"));
    assert_int_equal(try_pack(source, out, NULL, NULL, &err), MF_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "exists already"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),     cmocka_unit_test(test_same_bits_published),
        cmocka_unit_test(test_other_readers), cmocka_unit_test(test_one_piece),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_header),
        cmocka_unit_test(test_resumed),
    };
    return mft_run(tests);
}
