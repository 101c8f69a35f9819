/* The floating-point twin of an MLX-quantised model: the same weights as Hugging Face names them,
 * so that what was computed for the one holds for the other. */
#ifndef MFT_DECODED_MLX_H
#define MFT_DECODED_MLX_H

/* `folder` has one model.safetensors with 4 bits in groups of 32. The twin is in float32, with a
 * tensor an expert, and expected.safetensors beside it; a folder of mft_folder. */
const char *mft_decode_mlx(const char *folder);

#endif
