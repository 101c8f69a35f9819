/* Facts of the machine on Linux; see machine.h. Reads /proc and the control groups (v1, v2, or both
 * at once) when asked; any thread may call it; it keeps nothing. A file that is missing or odd
 * means "no limit" or 0: these are facts for the plan, and a container may hide any of them. */
#ifdef __linux__
#include "os/machine.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define NO_LIMIT   ((uint64_t)1 << 62) /* v1 writes "none" as INT64_MAX rounded down to a page */

/* ---- small files ---- */

static FILE *open_at(const char *root, const char *path)
{
    char full[PATH_BYTES];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof full ? fopen(full, "re") : NULL;
}

/* The first line of root/dir/name, without its end. */
static bool read_line(const char *root, const char *dir, const char *name, char *line, size_t cap)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = n > 0 && (size_t)n < sizeof path ? open_at(root, path) : NULL;
    if (!f)
        return false;
    bool ok = fgets(line, (int)cap, f) != NULL;
    fclose(f);
    if (ok)
        line[strcspn(line, "\n")] = 0;
    return ok;
}

/* False for anything but a decimal number: "max", "-1". */
static bool parse_u64(const char *text, uint64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    *out = strtoull(text, NULL, 10); /* saturates */
    return true;
}

static bool read_u64(const char *root, const char *dir, const char *name, uint64_t *out)
{
    char line[64];
    return read_line(root, dir, name, line, sizeof line) && parse_u64(line, out);
}

/* The number after `key` in a file of lines "key number"; keys end in a separator. */
static bool read_keyed(const char *root, const char *path, const char *key, uint64_t *out)
{
    FILE *f = open_at(root, path);
    if (!f)
        return false;
    char line[256];
    size_t len = strlen(key);
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, len) == 0)
            found = parse_u64(line + len + strspn(line + len, " \t"), out);
    }
    fclose(f);
    return found;
}

static uint64_t read_kib(const char *root, const char *path, const char *key)
{
    uint64_t kib, bytes;
    if (!read_keyed(root, path, key, &kib) || mfi_mul_overflow(kib, MFI_KIB, &bytes))
        return 0;
    return bytes;
}

/* ---- where this process stands in a hierarchy of control groups ---- */

typedef struct cgroup_place {
    char mount[PATH_BYTES]; /* where the hierarchy is mounted; "" if it isn't */
    char root[PATH_BYTES];  /* the group that the mount shows as its top */
    char dir[PATH_BYTES];   /* this process's group, as a path below mount or mount itself */
} cgroup_place;

/* Whether comma-separated `list` holds `item`. */
static bool list_has(const char *list, const char *item)
{
    size_t len = strlen(item);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, item, len) == 0 && (p[len] == ',' || p[len] == 0))
            return true;
    }
    return false;
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *path)
{
    char *out = path;
    for (const char *p = path; *p; out++) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' &&
            p[3] >= '0' && p[3] <= '7') {
            *out = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
            p += 4;
        } else {
            *out = *p++;
        }
    }
    *out = 0;
}

static void copy_path(char *dst, const char *src)
{
    size_t len = strlen(src);
    if (len >= PATH_BYTES)
        len = 0; /* too long to be read: as if there were none */
    memcpy(dst, src, len);
    dst[len] = 0;
}

/* One line: "36 35 98:0 /root /mount rw,noatime master:1 - cgroup cgroup rw,memory". `controller`
 * NULL asks for v2. */
static bool mount_matches(char *line, const char *controller, cgroup_place *place)
{
    char *sep = strstr(line, " - ");
    if (!sep)
        return false;
    *sep = 0;
    char *save = NULL;
    char *type = strtok_r(sep + 3, " \n", &save);
    char *source = strtok_r(NULL, " \n", &save);
    char *options = strtok_r(NULL, " \n", &save);
    if (!type || !source || strcmp(type, controller ? "cgroup" : "cgroup2") != 0)
        return false;
    if (controller && (!options || !list_has(options, controller)))
        return false;
    char *field[5] = {0};
    field[0] = strtok_r(line, " ", &save);
    for (int i = 1; i < 5 && field[i - 1]; i++)
        field[i] = strtok_r(NULL, " ", &save);
    if (!field[3] || !field[4])
        return false;
    unescape(field[3]);
    unescape(field[4]);
    copy_path(place->root, field[3]);
    copy_path(place->mount, field[4]);
    return place->mount[0] != 0;
}

static bool find_mount(const char *root, const char *controller, cgroup_place *place)
{
    FILE *f = open_at(root, "/proc/self/mountinfo");
    if (!f)
        return false;
    char *line = NULL;
    size_t cap = 0;
    bool found = false;
    while (!found && getline(&line, &cap, f) > 0)
        found = mount_matches(line, controller, place);
    free(line);
    fclose(f);
    return found;
}

/* The path in "4:memory:/path" (v1) or "0::/path" (v2); "" if there is no such line. */
static void find_path(const char *root, const char *controller, char *path)
{
    path[0] = 0;
    FILE *f = open_at(root, "/proc/self/cgroup");
    if (!f)
        return;
    char *line = NULL;
    size_t cap = 0;
    while (!path[0] && getline(&line, &cap, f) > 0) {
        char *list = strchr(line, ':');
        char *p = list ? strchr(list + 1, ':') : NULL;
        if (!p)
            continue;
        *p++ = 0;
        p[strcspn(p, "\n")] = 0;
        list++;
        if (controller ? list_has(list, controller) : *list == 0)
            copy_path(path, p);
    }
    free(line);
    fclose(f);
}

/* Fills place->dir. The path is seen from the hierarchy's top, while the mount may show a part of
 * it only (a container's), or the path may lie outside of what is mounted: then the mount's top is
 * the nearest group whose limits can be read. */
static bool find_place(const char *root, const char *controller, cgroup_place *place)
{
    if (!find_mount(root, controller, place))
        return false;
    char path[PATH_BYTES];
    find_path(root, controller, path);
    const char *below = path;
    size_t len = strlen(place->root);
    if (len > 1 && strncmp(path, place->root, len) == 0 && (path[len] == '/' || path[len] == 0))
        below = path + len;
    copy_path(place->dir, place->mount);
    if (below[0] != '/' || below[1] == 0 || strstr(below, "/.."))
        return true;
    char dir[2 * PATH_BYTES], full[3 * PATH_BYTES];
    snprintf(dir, sizeof dir, "%s%s", place->mount, below);
    snprintf(full, sizeof full, "%s%s", root, dir);
    if (strlen(dir) < PATH_BYTES && access(full, F_OK) == 0)
        copy_path(place->dir, dir);
    return true;
}

/* Moves to the parent group; false at the mount's top. */
static bool go_up(cgroup_place *place)
{
    char *slash = strrchr(place->dir, '/');
    if (strlen(place->dir) <= strlen(place->mount) || !slash)
        return false;
    *slash = 0;
    return true;
}

/* ---- limits ---- */

/* The smallest limit holds for us alone; what is left is what the fullest of the groups leaves,
 * where others may be in it, too. */
static void take_limit(mfi_machine *machine, uint64_t limit, uint64_t used)
{
    if (limit >= NO_LIMIT)
        return;
    uint64_t left = limit - MFI_MIN(used, limit);
    if (machine->cgroup_limit != UINT64_MAX)
        left = MFI_MIN(left, machine->cgroup_limit - machine->cgroup_used);
    machine->cgroup_limit = MFI_MIN(machine->cgroup_limit, limit);
    machine->cgroup_used = machine->cgroup_limit - left;
}

/* What the group uses, less inactive file pages: the kernel drops those before it refuses anything.
 */
static uint64_t group_used(const char *root, const char *dir, const char *usage, const char *key)
{
    uint64_t used, inactive;
    char path[2 * PATH_BYTES];
    if (!read_u64(root, dir, usage, &used))
        return 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (read_keyed(root, path, key, &inactive))
        used -= MFI_MIN(used, inactive);
    return used;
}

static void read_memory_limits(const char *root, mfi_machine *machine)
{
    cgroup_place place;
    uint64_t limit;
    if (find_place(root, "memory", &place)) {
        do {
            if (read_u64(root, place.dir, "memory.limit_in_bytes", &limit))
                take_limit(
                    machine, limit,
                    group_used(root, place.dir, "memory.usage_in_bytes", "total_inactive_file "));
        } while (go_up(&place));
    }
    if (find_place(root, NULL, &place)) {
        do {
            /* Above memory.high a process isn't killed but slowed to a crawl: a limit as well. */
            static const char *const names[] = {"memory.max", "memory.high"};
            for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++) {
                if (read_u64(root, place.dir, names[i], &limit))
                    take_limit(machine, limit,
                               group_used(root, place.dir, "memory.current", "inactive_file "));
            }
        } while (go_up(&place));
    }
}

static uint32_t take_quota(uint32_t n_cpus, uint64_t quota, uint64_t period)
{
    if (quota == 0 || period == 0)
        return n_cpus;
    uint64_t n = quota / period + (quota % period != 0);
    return n < n_cpus ? (uint32_t)n : n_cpus;
}

static uint32_t read_cpu_quota(const char *root, uint32_t n_cpus)
{
    cgroup_place place;
    uint64_t quota, period;
    if (find_place(root, "cpu", &place)) {
        do {
            if (read_u64(root, place.dir, "cpu.cfs_quota_us", &quota) &&
                read_u64(root, place.dir, "cpu.cfs_period_us", &period))
                n_cpus = take_quota(n_cpus, quota, period);
        } while (go_up(&place));
    }
    if (find_place(root, NULL, &place)) {
        do {
            char line[64];
            char *sep;
            if (read_line(root, place.dir, "cpu.max", line, sizeof line) &&
                (sep = strchr(line, ' ')) && parse_u64(line, &quota) && parse_u64(sep + 1, &period))
                n_cpus = take_quota(n_cpus, quota, period);
        } while (go_up(&place));
    }
    return n_cpus;
}

/* ---- this process ---- */

static uint64_t read_rss(const char *root)
{
    char line[256];
    uint64_t pages = 0;
    if (!read_line(root, "/proc/self", "statm", line, sizeof line))
        return 0;
    const char *second = strchr(line, ' '); /* "size resident shared ..." in pages */
    if (!second || !parse_u64(second + 1, &pages))
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Processors of this process, and how many cores they are. */
static uint32_t count_affinity(uint32_t *n_cores)
{
    cpu_set_t sets[16]; /* 16,384 processors; a smaller set fails where the kernel knows more */
    uint8_t allowed[8 * sizeof sets];
    if (sched_getaffinity(0, sizeof sets, sets) == 0) {
        for (size_t i = 0; i < sizeof allowed; i++)
            allowed[i] = CPU_ISSET_S(i, sizeof sets, sets) != 0;
        *n_cores = mfi_machine_cores_at("", allowed, sizeof allowed);
        return (uint32_t)CPU_COUNT_S(sizeof sets, sets);
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    *n_cores = n > 0 ? (uint32_t)n : 1;
    return *n_cores;
}

void mfi_machine_read_at(const char *root, uint32_t n_cpus_affinity, mfi_machine *machine)
{
    *machine = (mfi_machine){.cgroup_limit = UINT64_MAX};
    machine->n_cpus = read_cpu_quota(root, MFI_MAX(n_cpus_affinity, 1));
    machine->n_cores = machine->n_cpus;
    machine->mem_total = read_kib(root, "/proc/meminfo", "MemTotal:");
    machine->mem_available = read_kib(root, "/proc/meminfo", "MemAvailable:");
    if (machine->mem_available == 0) /* before Linux 3.14 */
        machine->mem_available = read_kib(root, "/proc/meminfo", "MemFree:");
    read_memory_limits(root, machine);
    machine->rss_bytes = read_rss(root);
}

void mfi_machine_read(mfi_machine *machine)
{
    uint32_t n_cores, n_cpus = count_affinity(&n_cores);
    mfi_machine_read_at("", n_cpus, machine);
    machine->n_cores = MFI_MIN(MFI_MAX(n_cores, 1), machine->n_cpus);
}

uint64_t mfi_process_rss(void)
{
    return read_rss("");
}

uint64_t mfi_process_rss_peak(void)
{
    return read_kib("", "/proc/self/status", "VmHWM:");
}

#else
typedef int mfi_machine_linux_unused; /* ISO C wants a declaration in every file */
#endif
