/* Machine facts: fake /proc and control-group trees of all kinds, then the real machine. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/machine.h"

#ifndef MAP_POPULATE
#define MAP_POPULATE 0
#endif

#ifdef __linux__
static const char *new_root(void)
{
    static char root[512];
    static int n;
    snprintf(root, sizeof root, "%s/root%d", mft_tmpdir(), n++);
    assert_int_equal(mkdir(root, 0755), 0);
    return root;
}

static void put(const char *root, const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0755);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

#define MOUNT_V2 "24 23 0:21 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

static void meminfo_and_statm(void **state)
{
    (void)state;
    const char *root = new_root();
    put(root, "/proc/meminfo",
        "MemTotal:       24684084 kB\nMemFree:        100 kB\nMemAvailable:   24206388 kB\n");
    put(root, "/proc/self/statm", "1000 321 50 1 0 90 0\n");
    mfi_machine m;
    mfi_machine_read_at(root, 6, &m);
    assert_int_equal(m.mem_total, 24684084ull * 1024);
    assert_int_equal(m.mem_available, 24206388ull * 1024);
    assert_int_equal(m.rss_bytes, 321ull * (uint64_t)sysconf(_SC_PAGESIZE));
    assert_int_equal(m.n_cpus, 6);
    assert_true(m.cgroup_limit == UINT64_MAX);
    assert_int_equal(m.cgroup_used, 0);
    put(root, "/proc/meminfo", "MemTotal: 10 kB\nMemFree:        7 kB\n");
    mfi_machine_read_at(root, 0, &m);
    assert_int_equal(m.mem_available, 7 * 1024);
    assert_int_equal(m.n_cpus, 1);
}

static void nothing_there(void **state)
{
    (void)state;
    mfi_machine m;
    mfi_machine_read_at(new_root(), 3, &m);
    assert_int_equal(m.n_cpus, 3);
    assert_int_equal(m.mem_total, 0);
    assert_true(m.cgroup_limit == UINT64_MAX);
}

/* The smallest limit stands above the process's own group. */
static void v2_walks_to_the_top(void **state)
{
    (void)state;
    const char *root = new_root();
    put(root, "/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" MOUNT_V2);
    put(root, "/proc/self/cgroup", "0::/user.slice/app.scope\n");
    put(root, "/sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
    put(root, "/sys/fs/cgroup/user.slice/memory.max", "1000000\n");
    put(root, "/sys/fs/cgroup/user.slice/memory.current", "700000\n");
    put(root, "/sys/fs/cgroup/user.slice/memory.stat",
        "anon 5\nactive_file 7\ninactive_file 200000\n");
    put(root, "/sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
    mfi_machine m;
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 1000000);
    assert_int_equal(m.cgroup_used, 500000);
    assert_int_equal(m.n_cpus, 3);
    put(root, "/sys/fs/cgroup/user.slice/app.scope/memory.high", "999999\n");
    put(root, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "50000 100000\n");
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 999999);
    assert_int_equal(m.cgroup_used, 499999); /* the slice leaves no more than before */
    assert_int_equal(m.n_cpus, 1);
    mfi_machine_read_at(root, 1, &m);
    assert_int_equal(m.n_cpus, 1);
}

static void v1_none_is_none(void **state)
{
    (void)state;
    const char *root = new_root();
    put(root, "/proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
    put(root, "/proc/self/cgroup", "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/q\n0::/\n");
    put(root, "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put(root, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854710272\n");
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put(root, "/sys/fs/cgroup/cpu,cpuacct/q/cpu.cfs_quota_us", "-1\n");
    put(root, "/sys/fs/cgroup/cpu,cpuacct/q/cpu.cfs_period_us", "100000\n");
    mfi_machine m;
    mfi_machine_read_at(root, 8, &m);
    assert_true(m.cgroup_limit == UINT64_MAX);
    assert_int_equal(m.cgroup_used, 0);
    assert_int_equal(m.n_cpus, 8);

    put(root, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096000\n");
    put(root, "/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "100\n");
    put(root, "/sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 150\n");
    put(root, "/sys/fs/cgroup/cpu,cpuacct/q/cpu.cfs_quota_us", "400000\n");
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 4096000);
    assert_int_equal(m.cgroup_used, 0); /* the cache may exceed what is counted; never wraps */
    assert_int_equal(m.n_cpus, 4);
}

/* A container without its own namespace: the path is the host's, the mount shows the container's
 * group. */
static void container_paths(void **state)
{
    (void)state;
    const char *root = new_root();
    put(root, "/proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put(root, "/proc/self/cgroup", "4:memory:/docker/abc\n");
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "77\n");
    mfi_machine m;
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 77);
    put(root, "/proc/self/cgroup", "4:memory:/docker/abc/inner\n");
    put(root, "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "66\n");
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 66);
    /* A path that isn't below the mount at all. */
    put(root, "/proc/self/cgroup", "4:memory:/docker/abcd/gone\n");
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 77);
    put(root, "/proc/self/cgroup", "4:memory:/../../outside\n");
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 77);
}

static void odd_mounts(void **state)
{
    (void)state;
    const char *root = new_root();
    put(root, "/proc/self/mountinfo",
        "nonsense\n - \n1 2 3 - cgroup2 cgroup2 rw\n"
        "9 9 0:1 / /sys/my\\040cgroup rw - cgroup2 none rw\n");
    put(root, "/proc/self/cgroup", "x\n:\n0::/g\n");
    put(root, "/sys/my cgroup/g/memory.max", "55\n");
    mfi_machine m;
    mfi_machine_read_at(root, 8, &m);
    assert_int_equal(m.cgroup_limit, 55);
    put(root, "/sys/my cgroup/g/memory.max", "");
    put(root, "/sys/my cgroup/g/cpu.max", "100000");
    mfi_machine_read_at(root, 8, &m);
    assert_true(m.cgroup_limit == UINT64_MAX);
    assert_int_equal(m.n_cpus, 8);
}

static void siblings_are_one_core(void **state)
{
    (void)state;
    const char *root = new_root();
    static const char *const lists[8] = {"0,4\n", "1,5\n", "2-3\n", "2-3\n",
                                         "0,4\n", "1,5\n", "odd\n", ""};
    uint8_t all[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, some[9] = {[3] = 1, [4] = 1, [5] = 1};
    for (int i = 0; i < 8; i++) { /* the ninth says nothing */
        char path[128];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 i);
        put(root, path, lists[i]);
    }
    assert_int_equal(mfi_machine_cores_at(root, all, 9), 6);
    assert_int_equal(mfi_machine_cores_at(root, some, 9), 3); /* their siblings aren't allowed */
    assert_int_equal(mfi_machine_cores_at(root, all, 0), 0);
}
#endif

static void the_real_machine(void **state)
{
    (void)state;
    mfi_machine m;
    mfi_machine_read(&m);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    assert_in_range(m.n_cpus, 1, online);
    assert_in_range(m.n_cores, 1, m.n_cpus);
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_in_range(m.mem_total, total / 10 * 9, total / 9 * 10);
    assert_in_range(m.mem_available, 1, m.mem_total);
    assert_in_range(m.rss_bytes, 1, m.mem_total);
}

static void resident_memory_is_seen(void **state)
{
    (void)state;
    const size_t bytes = (size_t)64 << 20;
    uint64_t before = mfi_process_rss();
    /* Populated by the kernel where it can: touching would fill a sanitizer's shadow memory, too.
     */
    volatile char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    assert_true(p != MAP_FAILED);
    for (size_t i = 0; !MAP_POPULATE && i < bytes; i += 512)
        p[i] = 1;
    uint64_t during = mfi_process_rss();
    munmap((void *)p, bytes);
    uint64_t slack = 4u << 20;
    assert_in_range(during - before, bytes - slack, bytes + 2 * slack);
    assert_true(mfi_process_rss_peak() + slack >= during);
    assert_true(mfi_process_rss_peak() >= before + bytes - slack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef __linux__
        cmocka_unit_test(meminfo_and_statm),     cmocka_unit_test(nothing_there),
        cmocka_unit_test(v2_walks_to_the_top),   cmocka_unit_test(v1_none_is_none),
        cmocka_unit_test(container_paths),       cmocka_unit_test(odd_mounts),
        cmocka_unit_test(siblings_are_one_core),
#endif
        cmocka_unit_test(the_real_machine),      cmocka_unit_test(resident_memory_is_seen),
    };
    return mft_run(tests);
}
