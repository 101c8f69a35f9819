/* Numbers and sizes as people type them: strict, overflow-checked, independent of the locale. */
#ifndef MOEFLUX_CLI_SIZE_H
#define MOEFLUX_CLI_SIZE_H

#include "base/buf.h"

/* Each takes the whole text or fails; *out is untouched on failure. */

/* An optional sign and decimal digits. */
bool cli_parse_i64(const char *text, int64_t *out);
bool cli_parse_u64(const char *text, uint64_t *out);

/* 1, -0.5, .5, 1e-3; no hexadecimal, no infinities, no NaN, no white space. */
bool cli_parse_f64(const char *text, double *out);

/* Bytes ("4096"), binary units ("64K", "1.5G", "8GiB", either case), or a share of `whole` ("50%").
 * At least 1 byte; at most nine digits after the point. */
bool cli_parse_size(const char *text, uint64_t whole, uint64_t *out);

/* "12.3 MiB"; below 1 KiB "512 bytes". */
void cli_put_size(mfi_buf *out, double bytes);

#endif
