/* Snapshot files: one session's state after some tokens.
 *
 * A header of 128 bytes, the tokens (int32), then the state as mfi_state_list lists it; integers
 * and floats are little-endian. Header, tokens and state have a checksum each. docs/formats.md has
 * the table. */
#ifndef MFI_SESSION_SNAPSHOT_H
#define MFI_SESSION_SNAPSHOT_H

#include "os/file.h"
#include "session/session_int.h"

#define MFI_SNAPSHOT_HEAD_BYTES 128

typedef struct mfi_snapshot {
    mfi_identity identity;
    uint32_t n_tokens;
    bool has_logits;
    uint64_t state_bytes, tokens_sum, state_sum;
} mfi_snapshot;

/* Takes a header apart: MF_ERR_FORMAT if it is none, is damaged, or tells another size than
 * file_bytes; MF_ERR_UNSUPPORTED for another version. `path` is for messages. Pure. */
mf_status mfi_snapshot_parse(mfi_snapshot *head, const unsigned char *bytes, uint64_t file_bytes,
                             const char *path, mf_error *err);
/* MF_ERR_STATE: it is of another model, or of other arithmetic. */
mf_status mfi_snapshot_fits(const mfi_snapshot *head, mf_engine *engine, const char *path,
                            mf_error *err);
/* Opens a file and reads its header. */
mf_status mfi_snapshot_open(mfi_file *file, mfi_snapshot *head, const char *path, mf_error *err);

/* Bytes of the file for the state after n tokens. */
uint64_t mfi_snapshot_bytes(mf_session *session, uint32_t n, bool has_logits);
/* Writes the state after n tokens (c as for mfi_state_list) in place of what has the name. */
mf_status mfi_snapshot_write(mf_session *session, uint32_t n, const mfi_checkpoint *c,
                             const char *path, mf_error *err);

/* The same in steps. Open is the engine's thread's; the steps are any one thread's, while nobody
 * changes the session: others may read its memory meanwhile. */
typedef struct mfi_snapshot_writer mfi_snapshot_writer;

mf_status mfi_snapshot_writer_open(mfi_snapshot_writer **writer, mf_session *session, uint32_t n,
                                   const mfi_checkpoint *c, const char *path, mf_error *err);
/* Writes at most so many bytes; *done: the file has its name. After a failure only close. */
mf_status mfi_snapshot_writer_step(mfi_snapshot_writer *writer, uint64_t bytes, bool *done,
                                   mf_error *err);
void mfi_snapshot_writer_close(mfi_snapshot_writer **writer); /* what isn't done is discarded */

/* Reads an open file that fits: the session's timeline is then its tokens. A failure leaves the
 * session as it was if it had tokens (the file is read twice then), and empty otherwise. */
mf_status mfi_snapshot_read(mf_session *session, const mfi_file *file, const mfi_snapshot *head,
                            mf_error *err);

#endif
