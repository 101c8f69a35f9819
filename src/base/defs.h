/* Small things every module needs: checked arithmetic, alignment, array length. No types of ours.
 */
#ifndef MFI_BASE_DEFS_H
#define MFI_BASE_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MFI_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MFI_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MFI_MAX(a, b)    ((a) > (b) ? (a) : (b))

#define MFI_KIB ((uint64_t)1 << 10)
#define MFI_MIB ((uint64_t)1 << 20)
#define MFI_GIB ((uint64_t)1 << 30)

#if defined(__GNUC__)
#define MFI_PRINTF(fmt_idx, args_idx) __attribute__((format(printf, fmt_idx, args_idx)))
#define MFI_MUST_USE                  __attribute__((warn_unused_result))
#else
#define MFI_PRINTF(fmt_idx, args_idx)
#define MFI_MUST_USE
#endif

/* Rounds up to a multiple of `align`, a power of two; the caller knows that it can't overflow. */
static inline uint64_t mfi_align_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) & ~(align - 1);
}

/* True on overflow; *out is then unspecified. */
static inline bool mfi_mul_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

static inline bool mfi_add_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

#endif
