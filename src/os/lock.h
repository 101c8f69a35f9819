/* What a folder shared with other processes needs: a lock that ends with its process, and files
 * that are removed or marked as used. */
#ifndef MFI_OS_LOCK_H
#define MFI_OS_LOCK_H

#include "base/status.h"

/* Takes a lock on a file, which is made if it isn't there; *fd holds it. MF_ERR_STATE if another
 * has it. */
mf_status mfi_lock_take(int *fd, const char *path, mf_error *err);
void mfi_lock_drop(int *fd); /* -1: there is none */

/* Whether the file is gone now. */
bool mfi_file_remove(const char *path);
/* Sets its modification time to now, if that can be done. */
void mfi_file_touch(const char *path);

#endif
