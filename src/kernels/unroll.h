/* Loops over arrays that are meant to be registers: their count is a constant once the function
 * around them is inlined, and they must be gone before the compiler looks for registers. GCC's
 * pragma does that; clang takes the same words for a hint to a later pass, and leaves the arrays in
 * memory. */
#ifndef MFI_KERNELS_UNROLL_H
#define MFI_KERNELS_UNROLL_H

#define MFI_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* some counts are no constants everywhere */
#define MFI_UNROLL(n) MFI_PRAGMA(clang loop unroll(full))
#else
#define MFI_UNROLL(n) MFI_PRAGMA(GCC unroll n)
#endif

#endif
