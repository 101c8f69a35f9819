/* Filling a catalog: for the readers in format/ only, while a model is opened. */
#ifndef MFI_FORMAT_CATALOG_BUILD_H
#define MFI_FORMAT_CATALOG_BUILD_H

#include "format/catalog.h"

/* How a file stores elements. Readers need more than mfi_qtype keeps: packed words are U32. */
typedef enum mfi_dtype {
    MFI_DTYPE_FLOAT, /* BF16, F16, F32: told apart by the qtype */
    MFI_DTYPE_U32,
    MFI_DTYPE_U8,
    MFI_DTYPE_F8_E4M3,
    MFI_DTYPE_OTHER
} mfi_dtype;

/* Reads config.json. Release with mfi_catalog_close, also after a failure further on. */
mf_status mfi_catalog_new(mfi_catalog **catalog, const char *path, mf_error *err);
/* The same for files that need no config.json. */
mf_status mfi_catalog_new_bare(mfi_catalog **catalog, const char *path, mf_error *err);
/* Takes the tree over. */
void mfi_catalog_set_meta(mfi_catalog *catalog, mfi_json *meta);
mf_status mfi_catalog_add_meta_array(mfi_catalog *catalog, const char *key,
                                     const mfi_meta_array *array, mf_error *err);
/* Opens the file; *file is its index. */
mf_status mfi_catalog_add_file(mfi_catalog *catalog, const char *path, uint32_t *file,
                               mf_error *err);
/* Copies *tensor under this name; only its `name` is set here. A name that is there already is
 * MF_ERR_FORMAT. */
mf_status mfi_catalog_add(mfi_catalog *catalog, const mfi_tensor *tensor, mfi_dtype dtype,
                          const char *name, size_t name_len, mf_error *err);

mfi_tensor *mfi_catalog_edit(mfi_catalog *catalog, uint32_t id);
mfi_dtype mfi_catalog_dtype(const mfi_catalog *catalog, uint32_t id);
/* Shortens the name to its first name_len bytes, which no other tensor has. Finding and listing
 * know it after the next mfi_catalog_drop only. */
void mfi_catalog_cut_name(mfi_catalog *catalog, uint32_t id, size_t name_len);
/* Takes the tensors out for which drop[id] is true; the ids of the others move down. */
mf_status mfi_catalog_drop(mfi_catalog *catalog, const bool *drop, mf_error *err);
/* No two tensors from id `first` on may share a byte; all lie in one file and have one plane. Bytes
 * that belong to none are left alone. */
mf_status mfi_catalog_check_overlap(const mfi_catalog *catalog, uint32_t first, mf_error *err);
/* Gives back what only building needed. */
void mfi_catalog_finish(mfi_catalog *catalog);

/* The file's name without its folder. */
const char *mfi_catalog_file_name(const mfi_catalog *catalog, uint32_t file);

/* ---- quantisation of safetensors folders ---- */

#define MFI_QUANT_SUPPORTED                                                                        \
    "supported are floats (bf16, f16, f32), MLX affine (2, 3, 4, 5, 6, 8 bit; groups of 32, 64, "  \
    "128) and mxfp4, FP8 (E4M3 in blocks of 128 x 128) and MXFP4"

/* Refuses quantisations that are not supported, by config.json alone (quantization.c). */
mf_status mfi_quantization_check(const mfi_catalog *catalog, mf_error *err);
/* Joins the parts of quantised tensors into logical ones, as config.json says. */
mf_status mfi_quantization_fold(mfi_catalog *catalog, mf_error *err);

/* The same for one way to quantise each; `section` is the object in config.json, NULL for MLX if
 * there is none. */
mf_status mfi_mlx_check(const mfi_catalog *catalog, const mfi_json *section, mf_error *err);
mf_status mfi_mlx_fold(mfi_catalog *catalog, const mfi_json *section, mf_error *err);
mf_status mfi_fp8_check(const mfi_catalog *catalog, const mfi_json *section, mf_error *err);
mf_status mfi_fp8_fold(mfi_catalog *catalog, mf_error *err);
mf_status mfi_mxfp4_fold(mfi_catalog *catalog, mf_error *err);

/* For these (fold.c). Joins tensor `id` with its partner, if it is a part of that notation, and
 * sets drop[] for the partner; `name` is room for names, emptied by whoever uses it. */
typedef mf_status mfi_fold_one(mfi_catalog *catalog, uint32_t id, bool *drop, mfi_buf *name,
                               mf_error *err);
/* Calls it for each tensor, then takes the partners out. */
mf_status mfi_fold_each(mfi_catalog *catalog, mfi_fold_one *fold, mf_error *err);
/* The partner of that name; MF_ERR_TENSOR_MISSING if there is none. */
mf_status mfi_fold_partner(const mfi_catalog *catalog, const mfi_buf *name, uint32_t *id,
                           mf_error *err);
mf_status mfi_fold_bad_part(const mfi_catalog *catalog, uint32_t id, const char *why,
                            mf_error *err);

/* Adds the tensors of one safetensors file (safetensors.c). */
mf_status mfi_safetensors_add(mfi_catalog *catalog, const char *path, mf_error *err);
/* Adds the files that an index names, and holds the result against the index (shards.c). */
mf_status mfi_shards_add(mfi_catalog *catalog, const char *dir, const char *index_path,
                         mf_error *err);
/* Adds the tensors and the metadata of a GGUF file and of the shards that belong to it (gguf.c);
 * with meta_only the first file's metadata alone. */
mf_status mfi_gguf_add(mfi_catalog *catalog, const char *path, bool meta_only, mf_error *err);
/* Adds the tensors of a pack's weights (pack.c). */
mf_status mfi_pack_add(mfi_catalog *catalog, const char *path, mf_error *err);
/* True if a name ends in "-NNNNN-of-NNNNN.gguf"; *no counts from 1. */
bool mfi_gguf_shard_name(const char *name, uint32_t *no, uint32_t *n);

#endif
