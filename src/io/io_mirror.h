/* Two copies of the same files behind io.h: each request goes to the one that will have it sooner,
 * by what is under way there and how fast it has been. What fails on the mirror is read again from
 * the files themselves, and the mirror is given up. */
#ifndef MFI_IO_IO_MIRROR_H
#define MFI_IO_IO_MIRROR_H

#include "io/io.h"

/* `inner` reads 2 * n_files files: those that requests name, then the mirror's in the same order.
 * It is closed with the mirror's reader, and also if this fails. */
mf_status mfi_io_mirror_open(mfi_io **io, mfi_io *inner, uint32_t n_files, mf_error *err);

/* Why the mirror was given up, or NULL. */
const mf_error *mfi_io_mirror_failure(const mfi_io *io);

#endif
