/* Runs Metal kernels on the CPU. The kernels' own source is compiled as C++ against metal_stdlib in
 * this folder; a threadgroup's threads are fibers that meet at barriers and simdgroup functions, so
 * those do exactly what the language says, and threads that don't meet are an error.
 *
 * What is checked: every thread of a simdgroup reaches the same simdgroup function at the same
 * place, every thread of a threadgroup the same barrier, and none ends before; threadgroup memory
 * begins as NaNs, and ends in a guard. Accesses to buffers are plain ones: allocate buffers to the
 * byte, under AddressSanitizer or before a guard page, and what is outside is found. Races on
 * threadgroup memory show as results that depend on the order of threads: run a kernel in both. */
#ifndef MFTM_SHIM_H
#define MFTM_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mftm_grid {
    uint32_t groups[3]; /* threadgroups */
    uint32_t threads;   /* of one, along x; a multiple of 32 */
    uint32_t shared_bytes;
    uint32_t *stop; /* the word at MFI_METAL_STOP; NULL: one that is 0 */
} mftm_grid;

/* Orders in which threads run between two meetings. */
typedef enum mftm_order { MFTM_FORWARD, MFTM_BACKWARD } mftm_order;

/* True if there is a kernel of that name. */
bool mftm_has(const char *name);

/* Runs a kernel to its end. args is what was bound at index 0, args_bytes must be the structure's
 * size; buffers[i] is what was bound at index i + 1, at its offset. False: nothing or a part was
 * done, and message (NUL-terminated) says why. May be called on any thread, on several at one time.
 */
bool mftm_dispatch(const char *name, const void *args, size_t args_bytes, void *const *buffers,
                   uint32_t n_buffers, const mftm_grid *grid, mftm_order order, char *message,
                   size_t message_bytes);

#ifdef __cplusplus
}
#endif
#endif
