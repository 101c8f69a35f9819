/* mf_synth's entry for tests: the same with a cap on how much is made at a time. */
#ifndef MFI_SYNTH_SYNTH_H
#define MFI_SYNTH_SYNTH_H

#include "moeflux/moeflux.h"

#define MFI_SYNTH_PIECE_BYTES ((size_t)1 << 20) /* stays in the processor's cache until written */

/* piece_bytes: at least one row of the widest table. The file doesn't depend on it. */
mf_status mfi_synth(const mf_synth_options *options, size_t piece_bytes, mf_error *err);

#endif
