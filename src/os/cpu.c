/* ISA levels of this machine; see cpu.h. */
#include "os/cpu.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[] = {[MFI_ISA_C] = "c", [MFI_ISA_AVX2] = "avx2"};

#if defined(__x86_64__)
/* By hand: clang 14's __builtin_cpu_supports doesn't know f16c. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

mfi_isa mfi_cpu_isa(void)
{
#if defined(__x86_64__)
    /* The builtins check that the operating system saves the wide registers, too. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        return MFI_ISA_AVX2;
#endif
    return MFI_ISA_C;
}

const char *mfi_isa_name(mfi_isa isa)
{
    return names[isa];
}

bool mfi_isa_parse(const char *name, mfi_isa *isa)
{
    if (!name || strcmp(name, "auto") == 0) {
        *isa = mfi_cpu_isa();
        return true;
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *isa = (mfi_isa)i;
            return true;
        }
    }
    return false;
}
