/* A Metal device that isn't there. The backend's Objective-C is compiled against the headers in
 * this folder; what they declare is implemented here, and kernels run through the shim of the
 * shading language (tests/metal/shim).
 *
 * Command buffers run as late as they may: when somebody waits for them, or a few looks at the
 * event after they were sent. Until then the memory of the buffers that they use can't be touched
 * by the host (but of those that it may write to in part: untracked ones), so that a wait that was
 * forgotten is a fault of the memory, not luck. References are counted; buffers that are used after
 * their end, or whose mapping went before them, ranges outside a buffer, kernels called with what
 * they don't take, and whatever is left at the end are faults, and kept in `fault`, the first of
 * them.
 *
 * The module that is made with this device exports mft_metal(); tests find it there. */
#ifndef MFT_FAKE_METAL_H
#define MFT_FAKE_METAL_H

#include <stdbool.h>
#include <stdint.h>

#define MFT_METAL_WRAPS 256

typedef struct mft_metal_state {
    /* What the device is like, and where it fails. */
    bool no_device, own_memory, old_family, no_residency, no_queue;
    bool macos_14; /* no residency sets, no modes of maths: whoever calls them is at fault */
    uint64_t working_set_bytes, max_buf_bytes;
    uint64_t threads_max, width;
    int refuse_buffer;          /* the n-th buffer from now on (1: the next); 0: none */
    int refuse_wrap;            /* the same of those on mapped memory */
    bool copy_wraps;            /* instead of using the mapping */
    bool compile_error;         /* of the source */
    const char *missing_kernel; /* not in the library */
    const char *broken_kernel;  /* no pipeline */
    int lose;                   /* the n-th command buffer from now on */
    unsigned looks;             /* at the event until the next command buffer is done */
    bool backward;              /* threads run from the last to the first */
    /* What has been seen. */
    uint64_t n_objects; /* alive, without strings and pools */
    uint64_t n_sent, n_done, n_dispatches, n_waits;
    uint64_t buffer_bytes, wired_bytes;
    uint32_t n_wraps; /* ever; the last ones are kept */
    struct {
        const void *address;
        uint64_t len;
        bool alive;
    } wraps[MFT_METAL_WRAPS];
    char fault[256];
} mft_metal_state;

/* In the module; begin anew with mft_metal_reset. */
#define MFT_METAL_STATE "mft_metal"
#define MFT_METAL_RESET "mft_metal_reset"
mft_metal_state *mft_metal(void);
void mft_metal_reset(void);

#endif
