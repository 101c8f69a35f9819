/* Stop strings: finds the first of them in a text that comes in pieces. */
#ifndef MFI_TEXT_STOPS_H
#define MFI_TEXT_STOPS_H

#include "base/buf.h"
#include "moeflux/moeflux.h"

typedef struct mfi_stops mfi_stops;

/* The texts are copied. MF_ERR_ARGUMENT for an empty one or bad UTF-8, MF_ERR_LIMIT. */
mf_status mfi_stops_open(mfi_stops **stops, const char *const *texts, size_t n, mf_error *err);
void mfi_stops_close(mfi_stops **stops);

/* Takes bytes of the text, whole characters, and appends to out what no stop string can begin with
 * any more. True: one is complete; it and all that follows are not part of the text. Of several the
 * one that is complete first counts, and of those that end together the longest. */
bool mfi_stops_push(mfi_stops *stops, const char *bytes, size_t len, mfi_buf *out);
/* The one that was complete, by its place among the texts. */
size_t mfi_stops_which(const mfi_stops *stops);
/* The end of the text: appends what was held back. */
void mfi_stops_end(mfi_stops *stops, mfi_buf *out);

#endif
