/* Running Metal kernels in tests: on guarded memory, in both orders of threads, which have to give
 * the same bits. */
#ifndef MFTM_RIG_H
#define MFTM_RIG_H

#include "fake/kernel_case.h"
#include "fake/support.h"

#include "backend/metal/metal_kernels.h"
#include "shim.h"

#define RIG_BUFFERS 9

/* One dispatch; buffers by index less one. */
typedef struct rig {
    void *buffer[RIG_BUFFERS];
    size_t out_bytes[RIG_BUFFERS]; /* of those that are written, else 0 */
} rig;

/* A guarded buffer: exactly `bytes` up to a multiple of 4. */
void *rig_alloc(size_t bytes);
float *rig_floats(size_t n);
/* A guarded copy. */
void *rig_copy(const void *from, size_t bytes);
/* What the kernel has no use for is bound to 4 bytes. */
void rig_run(const rig *r, const mfi_metal_call *call, const void *args);

/* What the last run left in the word that stops kernels. */
uint32_t rig_stop(void);

/* Copies of a matrix's planes, each before a guard, at buffers[0..2]. */
void rig_planes(rig *r, const mfi_mat *m);
uint16_t *rig_tables(void);

/* Fails where |got - want| > bound * size, naming what and where; NaNs have to be NaNs. */
void rig_near(const char *what, float got, double want, double bound, size_t at);

#endif
