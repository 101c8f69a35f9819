/* SentencePiece's precompiled character map: a double-array trie of what is replaced, and the
 * replacements. */
#ifndef MFI_TEXT_CHARSMAP_H
#define MFI_TEXT_CHARSMAP_H

#include "base/buf.h"
#include "base/status.h"

typedef struct mfi_charsmap mfi_charsmap;

/* Copies the blob. by_grapheme: as Hugging Face tokenizers apply it (a cluster at a time, of which
 * the shortest match replaces all), else as SentencePiece does (the longest match at each place).
 */
mf_status mfi_charsmap_open(mfi_charsmap **map, const void *blob, size_t len, bool by_grapheme,
                            mf_error *err);
/* The same from base64, as tokenizer.json has it. */
mf_status mfi_charsmap_open_base64(mfi_charsmap **map, const char *text, size_t len, mf_error *err);
void mfi_charsmap_close(mfi_charsmap **map);
uint64_t mfi_charsmap_bytes(const mfi_charsmap *map);
/* Appends the mapped text; text is valid UTF-8, and so is what comes out. */
mf_status mfi_charsmap_put(const mfi_charsmap *map, const char *text, size_t len, mfi_buf *out,
                           mf_error *err);

#endif
