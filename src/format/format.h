/* Opening a model folder, whatever its format. */
#ifndef MFI_FORMAT_FORMAT_H
#define MFI_FORMAT_FORMAT_H

#include "format/catalog.h"

/* Opens `path` (a folder with config.json and safetensors: model.safetensors, or shards with
 * model.safetensors.index.json; float or MLX-quantised) and checks every tensor against its file:
 *   missing file                      MF_ERR_FILE_MISSING
 *   header malformed, overlapping or
 *   impossible tensors                MF_ERR_FORMAT (file, tensor, offset)
 *   bytes outside the file            MF_ERR_TENSOR_BOUNDS (file, tensor, range, file size)
 *   index names an absent tensor      MF_ERR_TENSOR_MISSING
 *   another format or quantisation    MF_ERR_UNSUPPORTED (names it and what is supported)
 *   quantised triple that contradicts
 *   config.json or itself             MF_ERR_TENSOR_SHAPE, MF_ERR_TENSOR_MISSING
 *   no tensors at all                 MF_ERR_EMPTY_MANIFEST
 * A file cut inside its header is MF_ERR_FORMAT, behind it MF_ERR_TENSOR_BOUNDS. Of model.safetensors
 * and an index the former is taken. Tensors of more than MFI_MAX_DIMS dims have the leading ones folded.
 * Files stay open for reading. Shard headers are read one at a time; nothing else is kept of them
 * than the catalog (about 100 bytes a tensor). */
mf_status mfi_format_open(mfi_catalog **catalog, const char *path, mf_error *err);

#endif
