/* Facts of the machine and of this process, read once at open and handed to the plan as a struct.
 */
#ifndef MFI_OS_MACHINE_H
#define MFI_OS_MACHINE_H

#include "base/status.h"

typedef struct mfi_machine {
    uint32_t n_cpus;        /* this process may use (affinity, cgroup quota rounded up) */
    uint32_t n_cores;       /* those of them that share no core with another; at most n_cpus */
    uint64_t mem_total;     /* physical */
    uint64_t mem_available; /* free without pushing others out */
    uint64_t cgroup_limit;  /* smallest limit on the path to the root; UINT64_MAX: none */
    uint64_t cgroup_used;   /* the limit less what the fullest of those groups leaves; page cache
                             * that would go first counts as left. 0 if none */
    uint64_t rss_bytes;     /* of this process now */
    uint64_t
        open_peak_bytes; /* most that was resident while the model was opened, if that was a new
                          * peak of this process; else 0. Not read here: the engine knows */
} mfi_machine;

void mfi_machine_read(mfi_machine *machine);
#ifdef __linux__
/* The same from the files below `root` ("" for the real ones) and for a process that may use
 * n_cpus_affinity processors; for tests. */
void mfi_machine_read_at(const char *root, uint32_t n_cpus_affinity, mfi_machine *machine);
/* Of the processors i < n with allowed[i], how many cores they are. */
uint32_t mfi_machine_cores_at(const char *root, const uint8_t *allowed, uint32_t n);
#endif

uint64_t mfi_process_rss(void);      /* resident bytes now: anonymous, file and shared */
uint64_t mfi_process_rss_peak(void); /* highest since start */

#endif
