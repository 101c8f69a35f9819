/* ISA levels of this machine; see cpu.h. */
#include "os/cpu.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char *const names[MFI_N_ISA] = {
    [MFI_ISA_C] = "c",           [MFI_ISA_AVX2] = "avx2", [MFI_ISA_AVX_VNNI] = "avx-vnni",
    [MFI_ISA_AVX512] = "avx512", [MFI_ISA_NEON] = "neon", [MFI_ISA_I8MM] = "i8mm"};

#if defined(__x86_64__)
/* By hand: clang 14's __builtin_cpu_supports doesn't know f16c and avxvnni. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx_vnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

/* The builtins check that the operating system saves the wide registers, too. */
static bool has(mfi_isa isa)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return false;
    switch (isa) {
    case MFI_ISA_AVX2:
        return true;
    case MFI_ISA_AVX_VNNI:
        return has_avx_vnni();
    case MFI_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    default:
        return false;
    }
}
#elif defined(__aarch64__) && defined(__linux__)
static bool has(mfi_isa isa)
{
    const bool neon = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    const bool i8mm = getauxval(AT_HWCAP2) & HWCAP2_I8MM;
    return isa == MFI_ISA_NEON ? neon : isa == MFI_ISA_I8MM && neon && i8mm;
}
#elif defined(__aarch64__) && defined(__APPLE__)
static bool feature(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static bool has(mfi_isa isa)
{
    const bool neon = feature("hw.optional.arm.FEAT_DotProd");
    return isa == MFI_ISA_NEON
               ? neon
               : isa == MFI_ISA_I8MM && neon && feature("hw.optional.arm.FEAT_I8MM");
}
#else
static bool has(mfi_isa isa)
{
    (void)isa;
    return false;
}
#endif

bool mfi_cpu_has(mfi_isa isa)
{
    return isa == MFI_ISA_C || has(isa);
}

mfi_isa mfi_cpu_isa(void)
{
    mfi_isa isa = (mfi_isa)(MFI_N_ISA - 1);
    while (!mfi_cpu_has(isa))
        isa--;
    return isa;
}

bool mfi_isa_verified(mfi_isa isa)
{
    return isa != MFI_ISA_AVX_VNNI && isa != MFI_ISA_NEON && isa != MFI_ISA_I8MM;
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
