/* Tiny models of any family that has a config.json: one tensor for each line of the family's own
 * name table, seeded random bfloat16, experts one tensor a matrix. */
#ifndef MFT_FAMILY_MODEL_H
#define MFT_FAMILY_MODEL_H

#include "base/defs.h"

/* Writes config.json, with this text, and model.safetensors into a fresh folder. */
const char *mft_family_write(const char *config, uint64_t seed);

#endif
