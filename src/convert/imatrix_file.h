/* Importance matrices in files: how much each input column of a weight mattered in an evaluation.
 *
 * llama.cpp's layout: a GGUF file with general.type "imatrix" and, for each weight W of a GGUF
 * model, two float32 tensors: "W.in_sum2" [n][cols], sums of squares of each input column, and
 * "W.counts" [n][1], the number of rows that were summed; n is 1 or the number of experts. */
#ifndef MFI_CONVERT_IMATRIX_FILE_H
#define MFI_CONVERT_IMATRIX_FILE_H

#include "format/catalog.h"

typedef struct mfi_im_file {
    mfi_catalog *catalog;
} mfi_im_file;

mf_status mfi_im_open(mfi_im_file *file, const char *path, mf_error *err);
void mfi_im_close(mfi_im_file *file);

/* The mean square of each input column of slice `s` of a weight with that many slices and columns,
 * into out[cols]; *found is false if the file has nothing of it (not in the file, or never chosen).
 */
mf_status mfi_im_read(const mfi_im_file *file, const char *weight, uint32_t s, uint32_t n_slices,
                      uint32_t cols, float *out, bool *found, mf_error *err);

#endif
