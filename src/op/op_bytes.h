/* What an op has to move: the weights, experts and cached positions that it goes through, each
 * once. Activations, which stay in the caches, don't count. For reports; nothing is decided by it.
 */
#ifndef MFI_OP_OP_BYTES_H
#define MFI_OP_OP_BYTES_H

#include "op/step.h"

uint64_t mfi_op_bytes(const mfi_program *program, const mfi_op *op, const mfi_step *step);

/* "matmul q k v": the op in lower case and what it writes; the same for all layers that do the
 * same. */
#define MFI_OP_LABEL_BYTES 48
void mfi_op_label(const mfi_op *op, char label[MFI_OP_LABEL_BYTES]);

#endif
