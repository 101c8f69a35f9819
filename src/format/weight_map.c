/* Weight files as device buffers; see weight_map.h. Owns the mapping of one file and counts the
 * buffers bound to it. Called by backends that use weights in place, on the thread that opens and
 * closes the model. It never touches a mapped page: a page of a file that was cut short would be a
 * signal. */
#include "format/weight_map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "os/vmem.h"

/* A device's pages may be larger than the system's: the mapping begins, and its address space ends,
 * at a multiple of this. */
#define MAP_ALIGN ((uint64_t)64 << 10)

struct mf_weight_map {
    const mfi_catalog *catalog;
    uint32_t file;
    uint32_t n_bufs;
    char *base;        /* aligned to `align` */
    uint64_t len;      /* the file's, rounded up to the system's page */
    uint64_t reserved; /* rounded up to `align`; readable zeros behind len */
    uint64_t align;
    void *region; /* what was mapped */
    uint64_t region_len;
};

struct mf_weight_buf {
    mf_weight_map *map;
    const mfi_weight_device *device;
    void *handle;
    const char *base;
    uint64_t len;
};

static const mfi_file *file_of(const mf_weight_map *map)
{
    return mfi_catalog_file(map->catalog, map->file);
}

/* Address space first, so that its beginning can be aligned; then the file over it. */
static mf_status map_file(mf_weight_map *map, mf_error *err)
{
    const mfi_file *file = file_of(map);
    uint64_t page = mfi_vmem_page();
    map->align = MFI_MAX(MAP_ALIGN, page);
    map->len = mfi_align_up(file->size, page);
    map->reserved = mfi_align_up(file->size, map->align);
    map->region_len = map->reserved + map->align;
    map->region = mmap(NULL, map->region_len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map->region == MAP_FAILED) {
        map->region = NULL;
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no address space for %" PRIu64 " bytes: %s",
                        file->path, map->region_len, strerror(errno));
    }
    map->base = (char *)mfi_align_up((uintptr_t)map->region, map->align);
    if (mmap(map->base, map->len, PROT_READ, MAP_SHARED | MAP_FIXED, file->fd, 0) == MAP_FAILED)
        return mfi_fail(err, MF_ERR_IO, "%s: can't map %" PRIu64 " bytes: %s", file->path, map->len,
                        strerror(errno));
    return MF_OK;
}

/* The first and the last plane of the file by offset. */
static bool find_ends(const mf_weight_map *map, mfi_extent *first, mfi_extent *last)
{
    bool found = false;
    uint32_t n = mfi_catalog_n_tensors(map->catalog);
    for (uint32_t id = 0; id < n; id++) {
        const mfi_tensor *tensor = mfi_catalog_tensor(map->catalog, id);
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(tensor->type); plane++) {
            if (tensor->file[plane] != map->file)
                continue;
            mfi_extent at = {map->file, tensor->offset[plane], mfi_tensor_span(tensor, plane)};
            if (!found || at.offset < first->offset)
                *first = at;
            if (!found || at.offset >= last->offset)
                *last = at;
            found = true;
        }
    }
    return found;
}

static bool inside(const mf_weight_map *map, const char *address, uint64_t len)
{
    uint64_t begin = (uintptr_t)address - (uintptr_t)map->base;
    return begin <= map->len && len <= map->len - begin;
}

static mf_status cross_check(const mf_weight_map *map, const mfi_extent *first,
                             const mfi_extent *last, mf_error *err)
{
    const char *a = map->base + first->offset, *b = map->base + last->offset;
    if (!inside(map, a, first->len) || !inside(map, b, last->len) ||
        (uint64_t)(b - a) != last->offset - first->offset)
        return mfi_fail(err, MF_ERR_TENSOR_BOUNDS,
                        "%s: tensors at offsets %" PRIu64 " and %" PRIu64
                        " lie outside the mapping of %" PRIu64 " bytes",
                        file_of(map)->path, first->offset, last->offset, map->len);
    return MF_OK;
}

mf_status mf_weight_map_open(mf_weight_map **out, const mfi_catalog *catalog, uint32_t file,
                             mf_error *err)
{
    *out = NULL;
    mf_weight_map *map = calloc(1, sizeof *map);
    if (!map)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", mfi_catalog_path(catalog));
    map->catalog = catalog;
    map->file = file;
    mfi_extent first = {0}, last = {0};
    mf_status status;
    if (!find_ends(map, &first, &last))
        status = mfi_fail(err, MF_ERR_EMPTY_MANIFEST, "%s: the catalog has no tensor in it",
                          file_of(map)->path);
    else
        status = mfi_file_check(file_of(map), err);
    if (status == MF_OK)
        status = map_file(map, err);
    if (status == MF_OK)
        status = cross_check(map, &first, &last, err);
    if (status != MF_OK)
        mf_weight_map_close(&map, NULL);
    *out = map;
    return status;
}

mf_status mf_weight_map_close(mf_weight_map **out, mf_error *err)
{
    mf_weight_map *map = *out;
    if (!map)
        return MF_OK;
    if (map->n_bufs > 0)
        return mfi_fail(err, MF_ERR_STATE, "%s: %" PRIu32 " device buffers on its mapping are open",
                        file_of(map)->path, map->n_bufs);
    if (map->region)
        munmap(map->region, map->region_len);
    free(map);
    *out = NULL;
    return MF_OK;
}

const void *mf_weight_map_base(const mf_weight_map *map)
{
    return map->base;
}

uint64_t mf_weight_map_len(const mf_weight_map *map)
{
    return map->len;
}

uint64_t mf_weight_map_file_len(const mf_weight_map *map)
{
    return file_of(map)->size;
}

/* ---- buffers ---- */

/* Widens [offset, offset + len) to the device's pages. */
static mf_status widen(const mf_weight_map *map, const mfi_weight_device *device, uint64_t *offset,
                       uint64_t *len, mf_error *err)
{
    const char *path = file_of(map)->path;
    MFI_ASSERT(device->page >= mfi_vmem_page() && (device->page & (device->page - 1)) == 0);
    if (device->page > map->align)
        return mfi_fail(err, MF_ERR_DEVICE,
                        "%s: the device wants pages of %" PRIu64 " bytes, the mapping has %" PRIu64,
                        path, device->page, map->align);
    uint64_t limit = *len ? file_of(map)->size : map->len;
    if (*len == 0 && *offset < limit)
        *len = limit - *offset;
    if (*len == 0 || *offset > limit || *len > limit - *offset)
        return mfi_fail(err, MF_ERR_TENSOR_BOUNDS,
                        "%s: %" PRIu64 " bytes at offset %" PRIu64
                        " lie outside the file of %" PRIu64 " bytes",
                        path, *len, *offset, file_of(map)->size);
    uint64_t end = mfi_align_up(*offset + *len, device->page); /* <= reserved */
    *offset &= ~(device->page - 1);
    *len = end - *offset;
    if (device->max_buf_bytes && *len > device->max_buf_bytes)
        return mfi_fail(err, MF_ERR_DEVICE,
                        "%s: %" PRIu64 " bytes at offset %" PRIu64
                        " are more than a buffer of the device holds (%" PRIu64 ")",
                        path, *len, *offset, device->max_buf_bytes);
    return MF_OK;
}

mf_status mf_weight_buf_open(mf_weight_buf **out, mf_weight_map *map,
                             const mfi_weight_device *device, uint64_t offset, uint64_t len,
                             mf_error *err)
{
    *out = NULL;
    MFI_TRY(mfi_file_check(file_of(map), err));
    MFI_TRY(widen(map, device, &offset, &len, err));
    mf_weight_buf *buf = calloc(1, sizeof *buf);
    if (!buf)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", file_of(map)->path);
    *buf = (mf_weight_buf){.map = map, .device = device, .base = map->base + offset, .len = len};
    mf_error cause = {0};
    mf_status status = device->bind(device->ctx, buf->base, len, &buf->handle, &cause);
    if (status != MF_OK) {
        free(buf);
        return mfi_fail(err, MF_ERR_DEVICE,
                        "%s: the device refused %" PRIu64 " bytes at offset %" PRIu64 ": %s",
                        file_of(map)->path, len, offset,
                        cause.message[0] ? cause.message : mf_status_text(status));
    }
    map->n_bufs++;
    *out = buf;
    return MF_OK;
}

void mf_weight_buf_close(mf_weight_buf **out)
{
    mf_weight_buf *buf = *out;
    if (!buf)
        return;
    buf->device->unbind(buf->device->ctx, buf->handle);
    buf->map->n_bufs--;
    free(buf);
    *out = NULL;
}

void *mf_weight_buf_handle(const mf_weight_buf *buf)
{
    return buf->handle;
}

const void *mf_weight_buf_base(const mf_weight_buf *buf)
{
    return buf->base;
}

uint64_t mf_weight_buf_len(const mf_weight_buf *buf)
{
    return buf->len;
}

mf_status mf_weight_buf_offset(const mf_weight_buf *buf, const char *name, uint32_t plane,
                               uint64_t *offset, uint64_t *len, mf_error *err)
{
    const mf_weight_map *map = buf->map;
    const char *path = file_of(map)->path;
    uint32_t id = mfi_catalog_find(map->catalog, name);
    if (id == MFI_TENSOR_NONE)
        return mfi_fail(err, MF_ERR_TENSOR_MISSING, "%s: no tensor %.200s",
                        mfi_catalog_path(map->catalog), name);
    const mfi_tensor *tensor = mfi_catalog_tensor(map->catalog, id);
    if (plane >= mfi_quant_n_planes(tensor->type) || tensor->file[plane] != map->file)
        return mfi_fail(err, MF_ERR_TENSOR_MISSING,
                        "%s: plane %" PRIu32 " of tensor %.200s is not in it", path, plane, name);
    uint64_t n = mfi_tensor_span(tensor, plane);
    /* By address, since that is what the device was given. */
    uintptr_t address = (uintptr_t)map->base + tensor->offset[plane], base = (uintptr_t)buf->base;
    if (address < base || address - base > buf->len || n > buf->len - (address - base))
        return mfi_fail(err, MF_ERR_TENSOR_BOUNDS,
                        "%s: tensor %.200s: bytes %" PRIu64 " to %" PRIu64
                        " are not inside the device buffer of bytes %" PRIu64 " to %" PRIu64,
                        path, name, tensor->offset[plane], tensor->offset[plane] + n,
                        (uint64_t)(buf->base - map->base),
                        (uint64_t)(buf->base - map->base) + buf->len);
    *offset = address - base;
    *len = n;
    return MF_OK;
}
