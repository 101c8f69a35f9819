/* Opening a model, whatever its format. */
#ifndef MFI_FORMAT_FORMAT_H
#define MFI_FORMAT_FORMAT_H

#include "format/catalog.h"

/* Opens `path` and checks every tensor against its file. It is one of
 *   - a folder with config.json and safetensors: model.safetensors, or shards with
 *     model.safetensors.index.json; float or MLX-quantised
 *   - a GGUF file (version 2 or 3), the first of a split model's for all of them, or a folder with
 *     one GGUF model in it and no safetensors. mfi_catalog_meta is set then, and config is NULL
 *   - a folder with a pack (pack.h), with meta or config as what it was made from.
 * Failures:
 *   missing file, missing shard       MF_ERR_FILE_MISSING
 *   header malformed, overlapping or
 *   impossible tensors                MF_ERR_FORMAT (file, tensor, offset)
 *   bytes outside the file            MF_ERR_TENSOR_BOUNDS (file, tensor, range, file size)
 *   index names an absent tensor      MF_ERR_TENSOR_MISSING
 *   another format or quantisation    MF_ERR_UNSUPPORTED (names it and what is supported)
 *   quantised triple that contradicts
 *   config.json or itself             MF_ERR_TENSOR_SHAPE, MF_ERR_TENSOR_MISSING
 *   no tensors at all                 MF_ERR_EMPTY_MANIFEST
 *   a shard that isn't the first      MF_ERR_UNSUPPORTED (names the first)
 *   several models                    MF_ERR_ARGUMENT
 * A file cut inside its header is MF_ERR_FORMAT, behind it MF_ERR_TENSOR_BOUNDS. Of
 * model.safetensors and an index the former is taken. Tensors of more than MFI_MAX_DIMS dims have
 * the leading ones folded. Files stay open for reading. Shard headers are read one at a time;
 * nothing else is kept of them than the catalog (about 100 bytes a tensor) and GGUF metadata
 * without its long arrays. */
mf_status mfi_format_open(mfi_catalog **catalog, const char *path, mf_error *err);
/* GGUF only: the metadata of the first file, without tensors. */
mf_status mfi_format_open_meta(mfi_catalog **catalog, const char *path, mf_error *err);
/* True if mfi_format_open would take the path for GGUF. */
bool mfi_format_is_gguf(const char *path);
/* True if it is a folder with a pack. */
bool mfi_format_is_pack(const char *path);

#endif
