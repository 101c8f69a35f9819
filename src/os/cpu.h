/* Instruction-set levels: real machines, not feature bits. Each level implies C and AVX2, but not
 * the others: processors with AVX-512 may lack AVX-VNNI, and the other way round. */
#ifndef MFI_OS_CPU_H
#define MFI_OS_CPU_H

#include "base/defs.h"

typedef enum mfi_isa {
    MFI_ISA_C = 0,    /* portable C */
    MFI_ISA_AVX2,     /* x86-64-v3: AVX2, FMA, F16C */
    MFI_ISA_AVX_VNNI, /* and AVX-VNNI (Alder Lake, Zen 5) */
    MFI_ISA_AVX512,   /* AVX2 and AVX-512 F, BW, DQ, VL, VNNI, VBMI (Ice Lake, Zen 4) */
    MFI_N_ISA
} mfi_isa;

/* Whether this machine (and its operating system) has a level. */
bool mfi_cpu_has(mfi_isa isa);
/* The level to use here unless told otherwise: of those it has, the fastest. */
mfi_isa mfi_cpu_isa(void);
const char *mfi_isa_name(mfi_isa isa); /* "c", "avx2", "avx-vnni", "avx512" */
/* False if `name` is unknown; NULL and "auto" give mfi_cpu_isa(). */
bool mfi_isa_parse(const char *name, mfi_isa *isa);

#endif
