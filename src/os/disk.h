/* Room on drives. */
#ifndef MFI_OS_DISK_H
#define MFI_OS_DISK_H

#include "base/status.h"

/* Bytes that this user may still write to the drive on which the file `path` lies or would be made.
 */
mf_status mfi_disk_free(const char *path, uint64_t *bytes, mf_error *err);

#endif
