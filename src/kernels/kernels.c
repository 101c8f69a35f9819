/* Choosing the kernel table of an ISA level. Asked once when a backend is opened; the tables are
 * constants in the files of their levels, so any thread may use them. Nothing compiled for a level
 * runs before its table is asked for. */
#include "kernels/kernels.h"

#include "base/status.h"
#include "kernels/ref/ref.h"
#if defined(__x86_64__)
#include "kernels/x86/x86.h"
#elif defined(__aarch64__)
#include "kernels/arm/arm.h"
#endif

const mfi_kernels *mfi_kernels_get(mfi_isa isa)
{
    MFI_ASSERT(mfi_cpu_has(isa));
#if defined(__x86_64__)
    if (isa == MFI_ISA_AVX2)
        return &mfi_avx2_kernels;
    if (isa == MFI_ISA_AVX_VNNI)
        return &mfi_avxvnni_kernels;
    if (isa == MFI_ISA_AVX512)
        return &mfi_avx512_kernels;
#elif defined(__aarch64__)
    if (isa == MFI_ISA_NEON)
        return &mfi_neon_kernels;
    if (isa == MFI_ISA_I8MM)
        return &mfi_i8mm_kernels;
#endif
    return &mfi_ref_kernels;
}
