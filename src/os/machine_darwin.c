/* Facts of the machine on macOS; see machine.h. Asks sysctl and the Mach kernel when called, on any
 * thread; keeps nothing. There are no control groups, so no limit but the machine's memory. */
#ifdef __APPLE__
#include "os/machine.h"

#include <mach/mach.h>
#include <sys/sysctl.h>
#include <unistd.h>

static uint64_t sysctl_u64(const char *name)
{
    /* Some names hold 4 bytes, some 8. */
    union {
        uint32_t u32;
        uint64_t u64;
    } value = {.u64 = 0};
    size_t len = sizeof value;
    if (sysctlbyname(name, &value, &len, NULL, 0) != 0)
        return 0;
    return len == sizeof value.u32 ? value.u32 : len == sizeof value.u64 ? value.u64 : 0;
}

static uint64_t mem_available(void)
{
    mach_port_t host = mach_host_self();
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    kern_return_t kr = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&vm, &count);
    mach_port_deallocate(mach_task_self(), host);
    if (kr != KERN_SUCCESS)
        return 0;
    /* free_count includes the speculative pages; file pages and purgeable ones go without paging.
     */
    uint64_t pages = (uint64_t)vm.free_count + vm.external_page_count + vm.purgeable_count;
    return pages * (uint64_t)vm_kernel_page_size;
}

static bool task_memory(mach_task_basic_info_data_t *info)
{
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    return task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)info, &count) ==
           KERN_SUCCESS;
}

void mfi_machine_read(mfi_machine *machine)
{
    uint64_t n_cpus = sysctl_u64("hw.activecpu"), n_cores = sysctl_u64("hw.physicalcpu");
    *machine = (mfi_machine){
        .n_cpus = n_cpus ? (uint32_t)n_cpus : 1,
        .n_cores = (uint32_t)MFI_MIN(MFI_MAX(n_cores, 1), MFI_MAX(n_cpus, 1)),
        .mem_total = sysctl_u64("hw.memsize"),
        .mem_available = mem_available(),
        .cgroup_limit = UINT64_MAX,
        .rss_bytes = mfi_process_rss(),
    };
}

uint64_t mfi_process_rss(void)
{
    mach_task_basic_info_data_t info;
    return task_memory(&info) ? info.resident_size : 0;
}

uint64_t mfi_process_rss_peak(void)
{
    mach_task_basic_info_data_t info;
    return task_memory(&info) ? info.resident_size_max : 0;
}

#else
typedef int mfi_machine_darwin_unused; /* ISO C wants a declaration in every file */
#endif
