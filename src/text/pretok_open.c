/* Reading the pre-tokeniser's steps from a tokenizer.json: Split, ByteLevel, Metaspace, Digits,
 * Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit, Sequence. Runs while a tokenizer is
 * opened; everything in the file is foreign. */
#include "text/pretok.h"

#include <stdlib.h>
#include <string.h>

/* What ByteLevel splits by (GPT-2). */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* NULL: too many. */
static mfi_pretok_step *add_step(mfi_pretok *pretok, mf_error *err)
{
    if (pretok->n_steps == MFI_MAX_PRETOK_STEPS) {
        mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: more than %d steps", MFI_MAX_PRETOK_STEPS);
        return NULL;
    }
    return &pretok->steps[pretok->n_steps++];
}

static mf_status open_regex(mfi_pretok_step *step, const char *pattern, size_t len, bool literal,
                            mf_error *err)
{
    mf_error inner;
    mf_status status = mfi_regex_open(&step->regex, pattern, len, literal, &inner);
    if (status != MF_OK)
        return mfi_fail(err, status, "pre_tokenizer: %s", inner.message);
    return MF_OK;
}

static mf_status read_behavior(const mfi_json *node, mfi_split_behavior *behavior, mf_error *err)
{
    static const char *const names[] = {
        [MFI_SPLIT_ISOLATED] = "Isolated",
        [MFI_SPLIT_REMOVED] = "Removed",
        [MFI_SPLIT_CONTIGUOUS] = "Contiguous",
        [MFI_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [MFI_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
    };
    const char *name = mfi_json_str(mfi_json_get(node, "behavior"), NULL);
    for (size_t i = 0; name && i < MFI_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *behavior = (mfi_split_behavior)i;
            return MF_OK;
        }
    }
    return mfi_fail(err, name ? MF_ERR_UNSUPPORTED : MF_ERR_FORMAT,
                    "pre_tokenizer: Split behavior %s", name ? name : "missing");
}

/* A boolean member; `absent` where there is none. */
static mf_status read_bool(const mfi_json *node, const char *key, bool absent, bool *out,
                           mf_error *err)
{
    *out = absent;
    if (mfi_json_has(node, key) && !mfi_json_bool(mfi_json_get(node, key), out))
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: %s is not a boolean", key);
    return MF_OK;
}

static mf_status open_split(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    MFI_TRY(read_behavior(node, &step->behavior, err));
    MFI_TRY(read_bool(node, "invert", false, &step->invert, err));
    const mfi_json *pattern = mfi_json_get(node, "pattern");
    size_t len;
    const char *text = mfi_json_str(mfi_json_get(pattern, "Regex"), &len);
    bool literal = !text;
    if (literal)
        text = mfi_json_str(mfi_json_get(pattern, "String"), &len);
    if (!text || !len)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: Split without a pattern");
    if (literal && len > MFI_MAX_PATTERN_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: pattern longer than %d bytes",
                        MFI_MAX_PATTERN_BYTES);
    return open_regex(step, text, len, literal, err);
}

static mf_status open_byte_level(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    bool use_regex;
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    bool prefix;
    MFI_TRY(read_bool(node, "add_prefix_space", true, &prefix, err));
    if (prefix) {
        memcpy(step->mark, " ", step->mark_len = 1);
        step->prefix = MFI_PREFIX_ALWAYS;
    }
    MFI_TRY(read_bool(node, "use_regex", true, &use_regex, err));
    pretok->byte_level = true;
    if (!use_regex)
        return MF_OK;
    return open_regex(step, byte_level_pattern, sizeof byte_level_pattern - 1, false, err);
}

static mf_status open_digits(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    bool individual;
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    MFI_TRY(read_bool(node, "individual_digits", false, &individual, err));
    step->behavior = individual ? MFI_SPLIT_ISOLATED : MFI_SPLIT_CONTIGUOUS;
    return open_regex(step, "\\p{N}", 5, false, err);
}

/* What Rust's regex engine means by \w, as a class for ours. */
#define WORD_CLASS                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{"     \
    "1f169}"                                                                                       \
    "\\x{1f170}-\\x{1f189}\\x{200c}\\x{200d}"

static mf_status open_pattern(mfi_pretok *pretok, const char *pattern, mfi_split_behavior behavior,
                              bool invert, mf_error *err)
{
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    step->behavior = behavior;
    step->invert = invert;
    return open_regex(step, pattern, strlen(pattern), false, err);
}

static mf_status open_punctuation(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    mfi_split_behavior behavior = MFI_SPLIT_ISOLATED;
    if (mfi_json_has(node, "behavior"))
        MFI_TRY(read_behavior(node, &behavior, err));
    return open_pattern(pretok, "[\\p{P}$+<=>^`|~]", behavior, false, err);
}

static mf_status open_delimiter(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    size_t len;
    const char *delimiter = mfi_json_str(mfi_json_get(node, "delimiter"), &len);
    if (!delimiter || !len || len > 4)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: CharDelimiterSplit without delimiter");
    mfi_pretok_step *step = add_step(pretok, err);
    if (!step)
        return MF_ERR_LIMIT;
    step->behavior = MFI_SPLIT_REMOVED;
    return open_regex(step, delimiter, len, true, err);
}

static mf_status read_scheme(const mfi_json *node, mfi_prefix *prefix, mf_error *err)
{
    static const char *const names[] = {
        [MFI_PREFIX_NEVER] = "never", [MFI_PREFIX_FIRST] = "first", [MFI_PREFIX_ALWAYS] = "always"};
    bool add;
    *prefix = MFI_PREFIX_ALWAYS;
    const char *name = mfi_json_str(mfi_json_get(node, "prepend_scheme"), NULL);
    if (name) {
        size_t i = 0;
        while (i < MFI_ARRAY_LEN(names) && strcmp(name, names[i]) != 0)
            i++;
        if (i == MFI_ARRAY_LEN(names))
            return mfi_fail(err, MF_ERR_UNSUPPORTED, "pre_tokenizer: prepend_scheme %s", name);
        *prefix = (mfi_prefix)i;
    }
    MFI_TRY(read_bool(node, "add_prefix_space", true, &add, err)); /* as older files say it */
    if (!add && name && *prefix != MFI_PREFIX_NEVER)
        return mfi_fail(
            err, MF_ERR_FORMAT,
            "pre_tokenizer: Metaspace with add_prefix_space false and prepend_scheme %s", name);
    if (!add)
        *prefix = MFI_PREFIX_NEVER;
    return MF_OK;
}

static mf_status open_metaspace(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    mfi_pretok_step *step = add_step(pretok, err);
    bool split;
    size_t len;
    if (!step)
        return MF_ERR_LIMIT;
    const char *mark = mfi_json_str(mfi_json_get(node, "replacement"), &len);
    if (!mark || !len || len > sizeof step->mark)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: Metaspace without replacement");
    memcpy(step->mark, mark, len);
    step->mark_len = (uint8_t)len;
    MFI_TRY(read_scheme(node, &step->prefix, err));
    MFI_TRY(read_bool(node, "split", true, &split, err));
    step->behavior = MFI_SPLIT_MERGED_WITH_NEXT;
    return split ? open_regex(step, mark, len, true, err) : MF_OK;
}

static mf_status open_node(mfi_pretok *pretok, const mfi_json *node, uint32_t depth, mf_error *err)
{
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: no type");
    if (pretok->byte_level)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "pre_tokenizer: %s behind ByteLevel", type);
    if (strcmp(type, "Split") == 0)
        return open_split(pretok, node, err);
    if (strcmp(type, "ByteLevel") == 0)
        return open_byte_level(pretok, node, err);
    if (strcmp(type, "Digits") == 0)
        return open_digits(pretok, node, err);
    if (strcmp(type, "Metaspace") == 0)
        return open_metaspace(pretok, node, err);
    if (strcmp(type, "Punctuation") == 0)
        return open_punctuation(pretok, node, err);
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return open_delimiter(pretok, node, err);
    if (strcmp(type, "Whitespace") == 0)
        return open_pattern(pretok, "[" WORD_CLASS "]+|[^\\s" WORD_CLASS "]+", MFI_SPLIT_REMOVED,
                            true, err);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return open_pattern(pretok, "\\s", MFI_SPLIT_REMOVED, false, err);
    if (strcmp(type, "Sequence") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "pre_tokenizer: %s", type);
    if (depth == 8)
        return mfi_fail(err, MF_ERR_LIMIT, "pre_tokenizer: sequences nested too deeply");
    const mfi_json *list = mfi_json_get(node, "pretokenizers");
    if (mfi_json_typeof(list) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "pre_tokenizer: Sequence without pretokenizers");
    for (size_t i = 0; i < mfi_json_len(list); i++)
        MFI_TRY(open_node(pretok, mfi_json_at(list, i), depth + 1, err));
    return MF_OK;
}

mf_status mfi_pretok_open(mfi_pretok *pretok, const mfi_json *node, mf_error *err)
{
    *pretok = (mfi_pretok){0};
    if (mfi_json_typeof(node) == MFI_JSON_NULL)
        return MF_OK;
    mf_status status = open_node(pretok, node, 0, err);
    if (status != MF_OK)
        mfi_pretok_close(pretok);
    return status;
}

void mfi_pretok_close(mfi_pretok *pretok)
{
    for (uint32_t i = 0; i < pretok->n_steps; i++)
        mfi_regex_close(&pretok->steps[i].regex);
    pretok->n_steps = 0;
}

uint64_t mfi_pretok_bytes(const mfi_pretok *pretok)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < pretok->n_steps; i++)
        if (pretok->steps[i].regex)
            bytes += mfi_regex_bytes(pretok->steps[i].regex);
    return bytes;
}
