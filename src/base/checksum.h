/* Checksums of what is written and read again, and of what identifies it: XXH3, 64 bits. Not
 * against people who forge files. */
#ifndef MFI_BASE_CHECKSUM_H
#define MFI_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

typedef struct mfi_checksum mfi_checksum;

mfi_checksum *mfi_checksum_open(void); /* NULL: out of memory */
void mfi_checksum_close(mfi_checksum **sum);
void mfi_checksum_reset(mfi_checksum *sum);
void mfi_checksum_add(mfi_checksum *sum, const void *bytes, size_t len);
uint64_t mfi_checksum_value(const mfi_checksum *sum); /* of all that was added */

uint64_t mfi_checksum_of(const void *bytes, size_t len);

#endif
