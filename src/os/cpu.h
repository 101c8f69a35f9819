/* Instruction-set levels: real machines, not feature bits; each level implies those below it. */
#ifndef MFI_OS_CPU_H
#define MFI_OS_CPU_H

#include "base/defs.h"

typedef enum mfi_isa {
    MFI_ISA_C = 0,   /* portable C */
    MFI_ISA_AVX2 = 1 /* x86-64-v3: AVX2, FMA, F16C */
} mfi_isa;

/* The highest level this machine (and its operating system) supports. */
mfi_isa mfi_cpu_isa(void);
const char *mfi_isa_name(mfi_isa isa); /* "c", "avx2" */
/* False if `name` is unknown; NULL and "auto" give the highest supported level. */
bool mfi_isa_parse(const char *name, mfi_isa *isa);

#endif
