/* Prints the levels that kernels are tested at here: tools/arm_kernels.sh holds them against the
 * processor that it asked for, lest a level that was not found pass for one that works. */
#include <stdio.h>

#include "os/cpu.h"

int main(void)
{
    for (int isa = 0; isa < MFI_N_ISA; isa++)
        if (mfi_cpu_has((mfi_isa)isa))
            printf("%s%s", isa ? " " : "", mfi_isa_name((mfi_isa)isa));
    printf("\n");
    return 0;
}
