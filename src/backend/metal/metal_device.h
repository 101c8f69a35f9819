/* A Metal device as plain C: the only border to Objective-C (metal_device.m). Handles are opaque
 * and live until they are given back; one thread calls. */
#ifndef MFI_BACKEND_METAL_DEVICE_H
#define MFI_BACKEND_METAL_DEVICE_H

#include "backend/backend.h"
#include "backend/metal/metal_kernels.h"

#define MFI_METAL_PAGE      ((uint64_t)16 << 10) /* of Apple's processors */
#define MFI_METAL_IN_FLIGHT 64                   /* command buffers at one time */
#define MFI_METAL_MAX_BUFS  16                   /* that a kernel has */
#define MFI_METAL_ALIGN     4                    /* of weights in place; metal_kernels.h */
#define MFI_METAL_BUF_LEAST ((uint64_t)16)       /* bytes that the smallest buffer takes */

typedef struct mfi_metal_device mfi_metal_device;

/* Memory that host and device share. */
typedef struct mfi_metal_buf {
    void *handle;
    char *host;
    uint64_t len;
} mfi_metal_buf;

/* A place in a buffer, as a kernel is given it. */
typedef struct mfi_metal_ref {
    void *handle;
    uint64_t offset;
} mfi_metal_ref;

/* MF_ERR_UNSUPPORTED: no device of that number, or one that this can't run on. */
mf_status mfi_metal_device_facts(uint32_t index, mfi_device_facts *facts, mf_error *err);
mf_status mfi_metal_device_open(mfi_metal_device **device, uint32_t index, mfi_device_facts *facts,
                                mf_error *err);
/* Waits for what runs; all buffers must have been freed. */
void mfi_metal_device_close(mfi_metal_device **device);

/* Zeroed. MF_ERR_NO_MEMORY: refused. host_writes: the host writes to parts of it while the device
 * reads others, and the device writes to none. */
mf_status mfi_metal_buf_alloc(mfi_metal_device *device, uint64_t bytes, bool host_writes,
                              mfi_metal_buf *buf, mf_error *err);
/* Wraps whole pages of a mapping, without a copy; they stay the mapping's. MF_ERR_DEVICE: refused.
 */
mf_status mfi_metal_buf_wrap(mfi_metal_device *device, const void *address, uint64_t len,
                             mfi_metal_buf *buf, mf_error *err);
void mfi_metal_buf_free(mfi_metal_device *device, mfi_metal_buf *buf);

/* Compiles all kernels; pipelines are made one by one, when they are first used. */
mf_status mfi_metal_compile(mfi_metal_device *device, const char *source, size_t bytes,
                            mf_error *err);

/* The word at MFI_METAL_STOP of all dispatches from now on. */
void mfi_metal_stop_by(mfi_metal_device *device, const mfi_metal_buf *word);

/* Adds a dispatch to the open command buffer: structure `args` at index 0, bufs[i] at 1 + i. */
mf_status mfi_metal_encode(mfi_metal_device *device, const mfi_metal_call *call, const void *args,
                           const mfi_metal_ref *bufs, mf_error *err);
/* Sends the open command buffer. *ticket: what has to be done for all that was encoded so far. */
mf_status mfi_metal_commit(mfi_metal_device *device, uint64_t *ticket, mf_error *err);
/* *n_done: the last ticket that is done, at least `ticket`. A command buffer that was lost is
 * MF_ERR_DEVICE, then and ever after. */
mf_status mfi_metal_wait(mfi_metal_device *device, uint64_t ticket, uint64_t *n_done,
                         mf_error *err);

#endif
