/* Small tokenizers for tests, and unpacking the oracle's files. */
#ifndef MFT_TEXT_H
#define MFT_TEXT_H

#include "base/json.h"
#include "moeflux/moeflux.h"

/* Writes `json` as <tmpdir>/<name>/tokenizer.json and returns the folder, in static storage. */
const char *mft_tokenizer_folder(const char *name, const char *json);
/* Writes a file into such a folder. */
void mft_write_file(const char *folder, const char *name, const char *text);
/* Unpacks an .xz file of the oracle into the folder of this test; NULL if xz is missing. Static
 * storage. */
const char *mft_unxz(const char *path, const char *as);

/* tokenizer.json of one of the oracle's tokenizers, unpacked; remove it. Skips the test where there
 * is none. Static storage, overwritten by the next call of mft_unxz. */
const char *mft_unpack_tokenizer(const char *name);
/* Its 1500 vectors one by one: a text, "ids" and "ids_special"; lines count from 1. */
typedef void mft_vector_fn(void *user, const mfi_json *vector, size_t line);
void mft_each_vector(const char *name, mft_vector_fn *check, void *user);
/* A tokenizer gives the ids of all of them. */
void mft_check_vectors(const mf_tokenizer *t, const char *name);
/* It gives the ids that a vector has under that key. */
void mft_check_ids(const mf_tokenizer *t, const mfi_json *vector, const char *key, bool special);
bool mft_same_ids(const mfi_json *want, const int32_t *ids, size_t n);

/* A tokenizer.json with all 256 bytes and a few merges: byte b has id b, then the tokens that the
 * merges make, then the added tokens. parts: members like "\"normalizer\": null," that go in front.
 * Static storage, overwritten by the next call. */
const char *mft_small_tokenizer(const char *parts, const char *added);

#endif
