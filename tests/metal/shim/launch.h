/* One dispatch as the fibers see it. For the shim only. */
#ifndef MFTM_LAUNCH_H
#define MFTM_LAUNCH_H

#include "shim.h"

namespace mftm
{

struct place {
    uint32_t group[3];
    uint32_t thread, n_threads;
    void *shared;
};

struct launch {
    const char *name;
    const void *args;
    void *const *buffers;
    void *stop;
    mftm_order order;
    void (*invoke)(const launch &l, const place &p);
};

/* meets: the kernel's threads do meet; others need no fibers. */
bool run(const launch &l, const mftm_grid &grid, bool meets, char *message, size_t cap);

} // namespace mftm

#endif
