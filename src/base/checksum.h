/* Checksums of what lies on drives: XXH3, 64 bits, as libxxhash has it. They find damage, not
 * malice. */
#ifndef MFI_BASE_CHECKSUM_H
#define MFI_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

typedef struct mfi_checksum mfi_checksum;

mfi_checksum *mfi_checksum_open(void); /* NULL: no memory */
void mfi_checksum_close(mfi_checksum **sum);
/* From the start again. */
void mfi_checksum_reset(mfi_checksum *sum);
void mfi_checksum_add(mfi_checksum *sum, const void *bytes, size_t len);
uint64_t mfi_checksum_value(const mfi_checksum *sum);

#endif
