/* Cores among the processors of a process, on Linux; see machine.h. Reads /sys when asked; any
 * thread may call it; it keeps nothing. Where the topology is hidden, every processor counts. */
#ifdef __linux__
#include "os/machine.h"

#include <stdio.h>
#include <stdlib.h>

#define LIST_BYTES 256

/* "0-1,8": whether one of the list that comes before `cpu` is allowed as well. */
static bool has_earlier(const char *list, const uint8_t *allowed, uint32_t cpu)
{
    for (const char *p = list; *p >= '0' && *p <= '9';) {
        char *end;
        unsigned long first = strtoul(p, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < cpu; i++)
            if (allowed[i])
                return true;
        p = *end == ',' ? end + 1 : end;
        if (*end != ',')
            break;
    }
    return false;
}

uint32_t mfi_machine_cores_at(const char *root, const uint8_t *allowed, uint32_t n)
{
    uint32_t n_cores = 0;
    for (uint32_t cpu = 0; cpu < n; cpu++) {
        char path[4096], list[LIST_BYTES] = "";
        if (!allowed[cpu])
            continue;
        int len = snprintf(path, sizeof path,
                           "%s/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", root,
                           (unsigned)cpu);
        FILE *f = len > 0 && (size_t)len < sizeof path ? fopen(path, "re") : NULL;
        if (f && !fgets(list, sizeof list, f))
            list[0] = 0;
        if (f)
            fclose(f);
        n_cores += !has_earlier(list, allowed, cpu);
    }
    return n_cores;
}

#else
typedef int mfi_cores_linux_unused; /* ISO C wants a declaration in every file */
#endif
