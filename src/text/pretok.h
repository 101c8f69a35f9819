/* Pre-tokenisation: text into pieces that BPE never merges across. */
#ifndef MFI_TEXT_PRETOK_H
#define MFI_TEXT_PRETOK_H

#include "base/buf.h"
#include "base/json.h"
#include "base/limits.h"

typedef enum mfi_split_behavior {
    MFI_SPLIT_ISOLATED,
    MFI_SPLIT_REMOVED,
    MFI_SPLIT_CONTIGUOUS,
    MFI_SPLIT_MERGED_WITH_PREVIOUS,
    MFI_SPLIT_MERGED_WITH_NEXT
} mfi_split_behavior;

typedef enum mfi_prefix {
    MFI_PREFIX_NEVER,
    MFI_PREFIX_FIRST, /* of the first piece of a text */
    MFI_PREFIX_ALWAYS
} mfi_prefix;

typedef struct mfi_regex mfi_regex; /* a compiled pattern; immutable */

typedef struct mfi_pretok_step {
    mfi_regex *regex; /* NULL: this step does not split */
    mfi_split_behavior behavior;
    bool invert; /* what does not match is the match */
    /* Before it splits, spaces become marks, and one is put in front of pieces that lack one. */
    mfi_prefix prefix;
    char mark[4]; /* [mark_len]: a space, or what Metaspace has for it; 0: not this step */
    uint8_t mark_len;
} mfi_pretok_step;

typedef struct mfi_pretok {
    mfi_pretok_step steps[MFI_MAX_PRETOK_STEPS];
    uint32_t n_steps;
    bool byte_level; /* its last step was ByteLevel */
} mfi_pretok;

typedef struct mfi_piece {
    uint32_t start, len; /* bytes */
} mfi_piece;

typedef struct mfi_pieces {
    mfi_piece *data;
    size_t n, cap;
} mfi_pieces;

typedef struct mfi_regex_match mfi_regex_match; /* scratch for matching */

/* What one call to encode needs; zero to start, one thread. */
typedef struct mfi_pretok_scratch {
    mfi_regex_match *match;
    mfi_pieces pieces, next, cuts;
    bool *cut_is_match;
    size_t cut_cap;
    mfi_buf text;  /* the text with marks put in, if a step does that */
    bool at_start; /* set by the caller: the text to split begins where the whole one does */
} mfi_pretok_scratch;

/* Reads the "pre_tokenizer" of a tokenizer.json. */
mf_status mfi_pretok_open(mfi_pretok *pretok, const mfi_json *node, mf_error *err);
void mfi_pretok_close(mfi_pretok *pretok);
uint64_t mfi_pretok_bytes(const mfi_pretok *pretok);

/* Splits valid UTF-8 of at most MFI_MAX_TEXT_BYTES. *out is the text that scratch->pieces refer to:
 * `text` or scratch->text. */
mf_status mfi_pretok_run(const mfi_pretok *pretok, mfi_pretok_scratch *scratch, const char *text,
                         size_t len, const char **out, mf_error *err);
void mfi_pretok_scratch_free(mfi_pretok_scratch *scratch);

/* ---- the regex engine behind it ---- */

/* `literal`: the pattern is a string to look for. */
mf_status mfi_regex_open(mfi_regex **regex, const char *pattern, size_t len, bool literal,
                         mf_error *err);
void mfi_regex_close(mfi_regex **regex);
uint64_t mfi_regex_bytes(const mfi_regex *regex);
/* For tests: as if the system refused executable memory. */
void mfi_regex_forbid_jit(mfi_regex *regex);

typedef enum mfi_found { MFI_FOUND_NOTHING, MFI_FOUND_MATCH, MFI_FOUND_ERROR } mfi_found;
/* The first match in valid UTF-8 at or behind `from`. *match starts as NULL; the calls share it. */
mfi_found mfi_regex_find(const mfi_regex *regex, mfi_regex_match **match, const char *text,
                         size_t len, size_t from, size_t *start, size_t *end, mf_error *err);
void mfi_regex_match_free(mfi_regex_match **match);

#endif
