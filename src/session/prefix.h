/* The prefix cache on disk: a folder of snapshots, never larger than it may be. */
#ifndef MFI_SESSION_PREFIX_H
#define MFI_SESSION_PREFIX_H

#include "session/session_int.h"

/* Opens a folder, which is made if it isn't there, for this process alone (MF_ERR_STATE): removes
 * what a process that was killed left half, and what is no snapshot under a snapshot's name. Files
 * of other names are left alone. */
mf_status mfi_prefix_open(mfi_prefix_cache **cache, const char *dir, uint64_t max_bytes,
                          mf_error *err);
void mfi_prefix_close(mfi_prefix_cache **cache);

#endif
