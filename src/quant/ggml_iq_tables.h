/* The lists of the IQ types; see ggml_iq_tables.c. For ggml_iq.c only. */
#ifndef MFI_QUANT_GGML_IQ_TABLES_H
#define MFI_QUANT_GGML_IQ_TABLES_H

#include <stdint.h>

/* Eight codes of two bits, element 0 lowest. iq2: levels 8, 25, 43; iq1: -1, 0, 1. */
extern const uint16_t mfi_iq2_xxs_grid[256], mfi_iq2_xs_grid[512], mfi_iq2_s_grid[1024],
    mfi_iq1_grid[2048];
/* Four codes of three bits, element 0 lowest: one of eight levels. */
extern const uint16_t mfi_iq3_xxs_grid[256], mfi_iq3_s_grid[512];

#endif
