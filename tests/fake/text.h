/* Small tokenizers for tests, and unpacking the oracle's files. */
#ifndef MFT_TEXT_H
#define MFT_TEXT_H

#include "moeflux/moeflux.h"

/* Writes `json` as <tmpdir>/<name>/tokenizer.json and returns the folder, in static storage. */
const char *mft_tokenizer_folder(const char *name, const char *json);
/* Writes a file into such a folder. */
void mft_write_file(const char *folder, const char *name, const char *text);
/* Unpacks an .xz file of the oracle into the folder of this test; NULL if xz is missing. Static storage. */
const char *mft_unxz(const char *path, const char *as);
/* A tokenizer.json with all 256 bytes and a few merges: byte b has id b, then the tokens that the
 * merges make, then the added tokens. parts: members like "\"normalizer\": null," that go in front. Static
 * storage, overwritten by the next call. */
const char *mft_small_tokenizer(const char *parts, const char *added);

#endif
