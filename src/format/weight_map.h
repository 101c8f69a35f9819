/* The weight file as one device buffer: device-neutral form.
 *
 * mf_weight_map maps a weight file once, read-only and shared, its length rounded up to the page;
 * it is address space, not residency. mf_weight_buf binds such a map, or page-aligned ranges of it,
 * to a device without a copy and answers where a tensor lies inside: offset = tensor address - base
 * address, bounds-checked. The map must outlive its buffers: it counts them, and closing it before
 * them is refused. Size and identity of the file are checked again before a device binds a range.
 *
 * A device backend fills mfi_weight_device (Metal: no-copy buffer; CUDA: read-only host
 * registration). The CPU backend doesn't use this: it reads into planned memory, so that a file cut
 * short is a read error and never a signal. Nothing here touches a mapped page.
 *
 * Errors: MF_ERR_EMPTY_MANIFEST, MF_ERR_TENSOR_MISSING, MF_ERR_TENSOR_BOUNDS, MF_ERR_FILE_CHANGED,
 * MF_ERR_DEVICE. One thread at a time. */
#ifndef MFI_FORMAT_WEIGHT_MAP_H
#define MFI_FORMAT_WEIGHT_MAP_H

#include "format/catalog.h"

typedef struct mf_weight_map mf_weight_map;
typedef struct mf_weight_buf mf_weight_buf;

/* Maps file `file` of the catalog, which must outlive the map. The catalog is the manifest: no
 * tensor in that file is MF_ERR_EMPTY_MANIFEST. Two tensors of the file (its first and its last by
 * offset) are cross-checked: their addresses by base + offset must differ by the difference of
 * their offsets and lie inside the mapping. */
mf_status mf_weight_map_open(mf_weight_map **map, const mfi_catalog *catalog, uint32_t file,
                             mf_error *err);
/* MF_ERR_STATE, and the map stays, while a buffer on it is open. */
mf_status mf_weight_map_close(mf_weight_map **map, mf_error *err);
const void *mf_weight_map_base(const mf_weight_map *map);
uint64_t mf_weight_map_len(const mf_weight_map *map);      /* rounded up to the page */
uint64_t mf_weight_map_file_len(const mf_weight_map *map); /* as the file has it */

typedef struct mfi_weight_device {
    void *ctx;
    uint64_t page; /* alignment of ranges the device wants; a power of two >= the system's page */
    uint64_t max_buf_bytes; /* largest range of one buffer; 0: no bound */
    /* Wraps [address, address + len) without copying; *handle is the device's. */
    mf_status (*bind)(void *ctx, const void *address, uint64_t len, void **handle, mf_error *err);
    void (*unbind)(void *ctx, void *handle);
} mfi_weight_device;

/* Binds the bytes [offset, offset + len) of the file, widened to the device's pages; len 0: to the
 * end of the mapping. Checks the file's size and identity first (MF_ERR_FILE_CHANGED). */
mf_status mf_weight_buf_open(mf_weight_buf **buf, mf_weight_map *map,
                             const mfi_weight_device *device, uint64_t offset, uint64_t len,
                             mf_error *err);
void mf_weight_buf_close(mf_weight_buf **buf);
void *mf_weight_buf_handle(const mf_weight_buf *buf);
const void *mf_weight_buf_base(
    const mf_weight_buf *buf); /* address that device offset 0 stands for */
uint64_t mf_weight_buf_len(const mf_weight_buf *buf);

/* Where plane `plane` of the named tensor lies in the device buffer. MF_ERR_TENSOR_MISSING: no such
 * tensor, or not in this file; MF_ERR_TENSOR_BOUNDS: not wholly inside this buffer. */
mf_status mf_weight_buf_offset(const mf_weight_buf *buf, const char *name, uint32_t plane,
                               uint64_t *offset, uint64_t *len, mf_error *err);

#endif
