/* Output that appears whole or not at all: files written at offsets into a staging folder, which is
 * renamed to its final name once everything is on the drive. */
#ifndef MFI_OS_OUT_H
#define MFI_OS_OUT_H

#include "base/status.h"

typedef struct mfi_out {
    int fd; /* -1 when closed */
    char *path;
} mfi_out;

/* Creates a file that must not exist and reserves `bytes` for it where the file system can, so that
 * a full drive is known before the work. All writing functions: MF_ERR_DISK_FULL (no space, quota,
 * or the file-size limit), else MF_ERR_IO. */
mf_status mfi_out_create(mfi_out *out, const char *path, uint64_t bytes, mf_error *err);
mf_status mfi_out_write(mfi_out *out, const void *src, size_t len, uint64_t offset, mf_error *err);
/* Makes the file `bytes` long, zeros where nothing was written, and reserves the space as create
 * does. */
mf_status mfi_out_resize(mfi_out *out, uint64_t bytes, mf_error *err);
/* Flushes to the drive and closes; closed on failure, too. */
mf_status mfi_out_finish(mfi_out *out, mf_error *err);
/* Closes without care for the content; closing a closed one is allowed. */
void mfi_out_close(mfi_out *out);

/* Creates a file beside `final`, named "<final>.tmp-XXXXXX", for this user only, and reserves
 * `bytes` for it. It must be published or discarded. */
mf_status mfi_out_beside(mfi_out *out, const char *final, uint64_t bytes, mf_error *err);
/* Flushes what was written so far and takes it out of the page cache. */
mf_status mfi_out_settle(mfi_out *out, mf_error *err);
/* Flushes the file and gives it its final name, in place of what had it: whole or not at all.
 * Closed in every case, and removed on failure. */
mf_status mfi_out_publish(mfi_out *out, const char *final, mf_error *err);
void mfi_out_discard(mfi_out *out); /* a closed one, too */

typedef struct mfi_stage {
    char *final; /* without a trailing slash; NULL when closed */
    char *dir;   /* "<final>.tmp-XXXXXX" */
} mfi_stage;

/* Makes the staging folder. MF_ERR_ARGUMENT if `final` exists. */
mf_status mfi_stage_open(mfi_stage *stage, const char *final, mf_error *err);
/* Flushes the folder and gives it its final name, unless something has taken that meanwhile. */
mf_status mfi_stage_commit(mfi_stage *stage, mf_error *err);
/* The same for an output that is one file: gives the one called `name` in the folder the final
 * name, and removes the folder. */
mf_status mfi_stage_commit_file(mfi_stage *stage, const char *name, mf_error *err);
/* Removes the staging folder with the files in it and in folders in it, unless it was committed,
 * and frees the names. */
void mfi_stage_close(mfi_stage *stage);

/* The same for an output that is taken up again: the folder "<final>.part", which may be there from
 * an earlier try with what that wrote (resume_posix.c). */
mf_status mfi_stage_resume(mfi_stage *stage, const char *final, mf_error *err);
/* Frees the names and leaves the folder for the next try. */
void mfi_stage_leave(mfi_stage *stage);
/* Removes a file, or an empty folder, of it; that there is none is no failure. */
mf_status mfi_stage_remove(const mfi_stage *stage, const char *name, mf_error *err);
/* Opens a file for writing that may be there already, for this process alone: MF_ERR_STATE if
 * another one has it. */
mf_status mfi_out_resume(mfi_out *out, const char *path, mf_error *err);

/* Makes a folder that must not exist. */
mf_status mfi_dir_create(const char *path, mf_error *err);
bool mfi_dir_exists(const char *path);
/* Calls fn with the name of each regular file in a folder, in no particular order, until it fails.
 */
mf_status mfi_dir_each_file(const char *path,
                            mf_status (*fn)(void *ctx, const char *name, mf_error *), void *ctx,
                            mf_error *err);

#endif
