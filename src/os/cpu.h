/* Instruction-set levels: real machines, not feature bits. Each x86 level implies C and AVX2, but
 * not the others: processors with AVX-512 may lack AVX-VNNI, and the other way round. I8MM implies
 * NEON. */
#ifndef MFI_OS_CPU_H
#define MFI_OS_CPU_H

#include "base/defs.h"

typedef enum mfi_isa {
    MFI_ISA_C = 0,    /* portable C */
    MFI_ISA_AVX2,     /* x86-64-v3: AVX2, FMA, F16C */
    MFI_ISA_AVX_VNNI, /* and AVX-VNNI (Alder Lake, Zen 5) */
    MFI_ISA_AVX512,   /* AVX2 and AVX-512 F, BW, DQ, VL, VNNI, VBMI (Ice Lake, Zen 4) */
    MFI_ISA_NEON,     /* ARMv8.2 with dot products of bytes (Cortex-A76, Apple M1) */
    MFI_ISA_I8MM,     /* and I8MM (Neoverse V1, Apple M2) */
    MFI_N_ISA
} mfi_isa;

/* Whether this machine (and its operating system) has a level. */
bool mfi_cpu_has(mfi_isa isa);
/* The level to use here unless told otherwise: of those it has, the fastest. */
mfi_isa mfi_cpu_isa(void);
/* False for levels whose kernels have been compiled, but run on no such machine by those who wrote
 * them: measurements say so. docs/testing.md tells which, and what would change it. */
bool mfi_isa_verified(mfi_isa isa);
const char *mfi_isa_name(mfi_isa isa); /* "c", "avx2", "avx-vnni", ... */
/* False if `name` is unknown; NULL and "auto" give mfi_cpu_isa(). */
bool mfi_isa_parse(const char *name, mfi_isa *isa);

#endif
