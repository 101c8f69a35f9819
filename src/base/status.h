/* Failing: every module reports the world's failures through these. */
#ifndef MFI_BASE_STATUS_H
#define MFI_BASE_STATUS_H

#include "base/defs.h"
#include "moeflux/moeflux.h"

/* Fills *err (if not NULL) with the status and a one-line message, and returns the status, so that
 * `return mfi_fail(err, MF_ERR_IO, "%s: ...", path)` reads well. An error that is already set is
 * overwritten: the caller with more context wins by formatting the old message into the new one. */
mf_status mfi_fail(mf_error *err, mf_status status, const char *fmt, ...) MFI_PRINTF(3, 4);

/* Propagates a failure. */
#define MFI_TRY(expr)                                                                              \
    do {                                                                                           \
        mf_status mfi_try_status_ = (expr);                                                        \
        if (mfi_try_status_ != MF_OK)                                                              \
            return mfi_try_status_;                                                                \
    } while (0)

/* Our own faults: on in every build. Prints file, line and condition, then aborts. */
#define MFI_ASSERT(cond) ((cond) ? (void)0 : mfi_assert_failed(__FILE__, __LINE__, #cond))
_Noreturn void mfi_assert_failed(const char *file, int line, const char *cond);

#endif
