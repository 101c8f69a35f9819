/* The one order in which partial sums are added. Static inline only, so each level gets its own
 * copy. */
#ifndef MFI_KERNELS_LANES_H
#define MFI_KERNELS_LANES_H

#define MFI_LANES 16

/* Adds 16 lanes pairwise: (i, i+8), then (i, i+4), (i, i+2), (i, i+1). */
static inline float mfi_add_lanes(const float acc[MFI_LANES])
{
    float a[8];
    for (int i = 0; i < 8; i++)
        a[i] = acc[i] + acc[i + 8];
    for (int i = 0; i < 4; i++)
        a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

#endif
