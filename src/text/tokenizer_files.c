/* Opening a tokenizer from the files of a model folder: tokenizer.json, or else a SentencePiece
 * model or tiktoken's ranks with what tokenizer_config.json says beside it. Runs inside
 * mf_tokenizer_open or while an engine is opened. Everything in the files is foreign. */
#include <stdlib.h>
#include <string.h>

#include "os/file.h"
#include "os/out.h"
#include "text/source.h"
#include "text/spm.h"
#include "text/tiktoken.h"
#include "text/tokenizer_int.h"

#define N_KIMI_SPECIAL 256    /* reserved behind the ranks, by Kimi's own code */
#define LLAMA3_MAX_RANKS 150000 /* it has 128,000, Llama 4 under the same name 200,000 */

/* What stands in a folder, the better first; the names that pre-tokenizers follow from. */
static const char *const file_names[] = {
    "tokenizer.json",      "tokenizer.model",      "tiktoken.model",
    "o200k_base.tiktoken", "cl100k_base.tiktoken", "qwen.tiktoken",
};

static const struct {
    const char *name, *pre;
    bool kimi;
} rank_files[] = {
    {"tiktoken.model", "kimi-k2", true}, /* Kimi and Moonlight */
    {"o200k_base.tiktoken", "gpt-4o", false},
    {"cl100k_base.tiktoken", "dbrx", false},
    {"qwen.tiktoken", "qwen2", false},
    {"tokenizer.model", "llama-bpe", false}, /* Llama 3, 4 */
};

/* ---- tokenizer_config.json ---- */

typedef struct options {
    mfi_json *config; /* NULL: none */
    mfi_json *added;  /* as tokenizer.json lists them */
} options;

static int8_t flag(const options *o, const char *key)
{
    bool set;
    return mfi_json_bool(mfi_json_get(o->config, key), &set) ? set : -1;
}

/* "added_tokens_decoder": {"163584": {"content": "[BOS]", ...}, ...} */
static mf_status put_added(const options *o, mfi_buf *json, mf_error *err)
{
    const mfi_json *added = mfi_json_get(o->config, "added_tokens_decoder");
    for (size_t i = 0; mfi_json_typeof(added) == MFI_JSON_OBJECT && i < mfi_json_len(added); i++) {
        const char *key;
        size_t len, n;
        const mfi_json *node = mfi_json_member(added, i, &key);
        const char *content = mfi_json_str(mfi_json_get(node, "content"), &len);
        n = strspn(key, "0123456789");
        if (!content || !n || key[n] || n > 9)
            return mfi_fail(err, MF_ERR_FORMAT,
                            "tokenizer_config.json: added_tokens_decoder: %.40s", key);
        mfi_buf_fmt(json, "%s{\"id\":%ld,\"content\":", json->len > 1 ? "," : "",
                    strtol(key, NULL, 10));
        mfi_json_put_str(json, content, len);
        static const char *const flags[] = {"special", "single_word", "lstrip", "rstrip"};
        for (size_t k = 0; k < MFI_ARRAY_LEN(flags); k++) {
            bool set = false;
            mfi_json_bool(mfi_json_get(node, flags[k]), &set);
            mfi_buf_fmt(json, ",\"%s\":%s", flags[k], set ? "true" : "false");
        }
        mfi_buf_str(json, "}");
    }
    return MF_OK;
}

/* Kimi's reserved tokens that the configuration doesn't name, by its own code's rule. */
static void put_reserved(const options *o, uint32_t n_ranks, mfi_buf *json)
{
    const mfi_json *added = mfi_json_get(o->config, "added_tokens_decoder");
    for (uint32_t id = n_ranks; id < n_ranks + N_KIMI_SPECIAL; id++) {
        mfi_buf key = {0};
        mfi_buf_fmt(&key, "%u", id);
        if (key.failed || !mfi_json_has(added, key.data))
            mfi_buf_fmt(json,
                        "%s{\"id\":%u,\"special\":true,\"content\":\"<|reserved_token_%u|>\"}",
                        json->len > 1 ? "," : "", id, id);
        mfi_buf_free(&key);
    }
}

static mf_status read_options(options *o, const char *dir, bool kimi, uint32_t n_ranks,
                              mf_error *err)
{
    char *path = mfi_path_join(dir, "tokenizer_config.json");
    if (!path)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory");
    mf_status status = MF_OK;
    if (mfi_file_exists(path))
        status = mfi_json_parse_file(path, MFI_MAX_CONFIG_BYTES, &o->config, err);
    free(path);
    mfi_buf json = {0};
    mfi_buf_str(&json, "[");
    if (status == MF_OK)
        status = put_added(o, &json, err);
    if (status == MF_OK && kimi)
        put_reserved(o, n_ranks, &json);
    mfi_buf_str(&json, "]");
    if (status == MF_OK)
        status = json.failed ? mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory")
                             : mfi_json_parse(json.data, json.len, "added tokens", &o->added, err);
    mfi_buf_free(&json);
    return status;
}

static void close_options(options *o)
{
    mfi_json_free(&o->config);
    mfi_json_free(&o->added);
}

/* ---- SentencePiece ---- */

typedef struct spm_source {
    const mfi_spm *spm;
    uint32_t next;
} spm_source;

static void rewind_spm(void *ctx)
{
    ((spm_source *)ctx)->next = 0;
}

static mf_status next_piece(void *ctx, mfi_source_token *token, mf_error *err)
{
    static const mfi_source_kind kinds[] = {
        [1] = MFI_SOURCE_NORMAL, [2] = MFI_SOURCE_CONTROL, [3] = MFI_SOURCE_CONTROL,
        [4] = MFI_SOURCE_ADDED,  [5] = MFI_SOURCE_UNUSED,  [6] = MFI_SOURCE_BYTE,
    };
    (void)err;
    spm_source *s = ctx;
    const mfi_spm_piece *piece = &s->spm->pieces[s->next++];
    *token = (mfi_source_token){piece->text, piece->len, kinds[piece->type], piece->score};
    return MF_OK;
}

static mf_status open_spm(mf_tokenizer **tokenizer, const mfi_spm *spm, const options *o,
                          const char *path, mf_error *err)
{
    if (spm->model_type != 1 && spm->model_type != 2)
        return mfi_fail(err, MF_ERR_UNSUPPORTED,
                        "%s: a SentencePiece model of words or characters (type %u); supported are "
                        "unigram and BPE",
                        path, spm->model_type);
    if (spm->space_behind || !spm->escape_spaces)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "%s: a SentencePiece model with %s", path,
                        spm->space_behind ? "white space as suffix" : "spaces as they are");
    bool unigram = spm->model_type == 1;
    spm_source s = {.spm = spm};
    mfi_tokenizer_source source = {
        .what = path,
        .model = unigram ? MFI_SOURCE_UNIGRAM : MFI_SOURCE_SPM,
        .ctx = &s,
        .n_tokens = spm->n,
        .rewind_tokens = rewind_spm,
        .token = next_piece,
        .prefix = !spm->dummy_prefix       ? MFI_PREFIX_NEVER
                  : flag(o, "legacy") == 0 ? MFI_PREFIX_FIRST
                                           : MFI_PREFIX_ALWAYS,
        .collapse_spaces = spm->collapse_spaces,
        .charsmap = spm->charsmap,
        .charsmap_len = spm->charsmap_len,
        .added = o->added,
        .added_normalized = !spm->dummy_prefix,
        .add_bos = flag(o, "add_bos_token"),
        .add_eos = flag(o, "add_eos_token"),
        .special = {[MFI_SOURCE_BOS] = spm->bos,
                    [MFI_SOURCE_EOS] = spm->eos,
                    [MFI_SOURCE_UNK] = spm->unk,
                    [MFI_SOURCE_SEP] = -1,
                    [MFI_SOURCE_PAD] = spm->pad,
                    [MFI_SOURCE_MASK] = -1},
    };
    return mfi_tokenizer_open_source(tokenizer, &source, err);
}

/* ---- tiktoken ---- */

typedef struct rank_source {
    const mfi_tiktoken *tiktoken;
    uint32_t next;
} rank_source;

static void rewind_ranks(void *ctx)
{
    ((rank_source *)ctx)->next = 0;
}

static mf_status next_rank(void *ctx, mfi_source_token *token, mf_error *err)
{
    rank_source *s = ctx;
    (void)err;
    const mfi_rank_token *rank = &s->tiktoken->tokens[s->next++];
    *token = (mfi_source_token){.text = s->tiktoken->pool.data + rank->offset,
                                .len = rank->len,
                                .kind = rank->len ? MFI_SOURCE_NORMAL : MFI_SOURCE_UNUSED};
    return MF_OK;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static mf_status open_ranks(mf_tokenizer **tokenizer, const mfi_tiktoken *tiktoken,
                            const options *o, const char *pre, const char *path, mf_error *err)
{
    rank_source s = {.tiktoken = tiktoken};
    mfi_tokenizer_source source = {
        .what = path,
        .model = MFI_SOURCE_RANKS,
        .ctx = &s,
        .n_tokens = tiktoken->n,
        .rewind_tokens = rewind_ranks,
        .token = next_rank,
        .pre = pre,
        .added = o->added,
        .add_bos = -1,
        .add_eos = -1,
        .special = {-1, -1, -1, -1, -1, -1},
    };
    return mfi_tokenizer_open_source(tokenizer, &source, err);
}

static mf_status find_rank_file(const char *path, const char **pre, bool *kimi, mf_error *err)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(rank_files); i++) {
        if (strcmp(name_of(path), rank_files[i].name) == 0) {
            *pre = rank_files[i].pre;
            *kimi = rank_files[i].kimi;
            return MF_OK;
        }
    }
    return mfi_fail(err, MF_ERR_UNSUPPORTED,
                    "%s: tiktoken's ranks don't say how text is split; known by their names are "
                    "tiktoken.model (Kimi), tokenizer.model (Llama 3 and 4), o200k_base.tiktoken, "
                    "cl100k_base.tiktoken and qwen.tiktoken",
                    path);
}

/* ---- files ---- */

static mf_status named(mf_status status, const char *path, const mf_error *inner, mf_error *err)
{
    return status == MF_OK ? MF_OK : mfi_fail(err, status, "%s: %s", path, inner->message);
}

mf_status mfi_tokenizer_open_bytes(mf_tokenizer **tokenizer, const char *path, const char *dir,
                                   const char *bytes, size_t len, mf_error *err)
{
    mf_error inner = {0};
    mfi_spm spm = {0};
    mfi_tiktoken tiktoken = {0};
    options o = {0};
    const char *pre = NULL;
    bool kimi = false;
    bool is_spm = len && bytes[0] == '\n'; /* the first field's tag; no line of ranks is empty */
    mf_status status = MF_OK;
    if (is_spm)
        status = named(mfi_spm_read(&spm, bytes, len, &inner), path, &inner, err);
    else
        status = find_rank_file(path, &pre, &kimi, err);
    if (status == MF_OK && !is_spm)
        status = named(mfi_tiktoken_read(&tiktoken, bytes, len, &inner), path, &inner, err);
    if (pre && strcmp(pre, "llama-bpe") == 0 && tiktoken.n > LLAMA3_MAX_RANKS)
        pre = "llama4";
    if (status == MF_OK)
        status = read_options(&o, dir, kimi, tiktoken.n, err);
    if (status == MF_OK)
        status = is_spm ? open_spm(tokenizer, &spm, &o, path, err)
                        : open_ranks(tokenizer, &tiktoken, &o, pre, path, err);
    close_options(&o);
    mfi_tiktoken_close(&tiktoken);
    mfi_spm_close(&spm);
    return status;
}

/* A tokenizer that is not JSON, and its folder's configuration. */
static mf_status open_model(mf_tokenizer **tokenizer, const char *path, const char *dir,
                            mf_error *err)
{
    char *bytes;
    size_t len;
    MFI_TRY(mfi_file_read_all(path, MFI_MAX_JSON_BYTES, &bytes, &len, err));
    mf_status status = mfi_tokenizer_open_bytes(tokenizer, path, dir, bytes, len, err);
    free(bytes);
    if (status != MF_OK)
        return status;
    status = mfi_tokenizer_read_config(*tokenizer, dir, err);
    if (status != MF_OK)
        mf_tokenizer_close(tokenizer);
    return status;
}

static bool ends_with(const char *path, const char *tail)
{
    size_t n = strlen(path), k = strlen(tail);
    return n >= k && strcmp(path + n - k, tail) == 0;
}

/* The best file of a folder, allocated; NULL in *file if there is none. */
static mf_status find_file(const char *dir, char **file, mf_error *err)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(file_names); i++) {
        *file = mfi_path_join(dir, file_names[i]);
        if (!*file)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", dir);
        if (mfi_file_exists(*file))
            return MF_OK;
        free(*file);
    }
    *file = NULL;
    return MF_OK;
}

bool mfi_tokenizer_files_exist(const char *dir)
{
    char *file = NULL;
    bool there = find_file(dir, &file, NULL) == MF_OK && file;
    free(file);
    return there;
}

mf_status mfi_tokenizer_open_files(mf_tokenizer **tokenizer, const char *path, mf_error *err)
{
    char *file = NULL, *dir = NULL;
    mf_status status = find_file(path, &file, err);
    if (status != MF_OK)
        return status;
    if (file && !ends_with(file, ".json")) {
        status = open_model(tokenizer, file, path, err);
    } else if (!file && (ends_with(path, ".model") || ends_with(path, ".tiktoken"))) {
        dir = strdup(path);
        if (!dir)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", path);
        char *slash = strrchr(dir, '/');
        *(slash ? slash + 1 : dir) = '\0'; /* the folder it lies in */
        status = open_model(tokenizer, path, dir[0] ? dir : ".", err);
    } else if (!file && mfi_dir_exists(path)) {
        status = mfi_fail(err, MF_ERR_FILE_MISSING,
                          "%s: no tokenizer.json, tokenizer.model or tiktoken.model in this folder",
                          path);
    } else {
        status = mfi_tokenizer_open_json(tokenizer, path, err);
    }
    free(dir);
    free(file);
    return status;
}
