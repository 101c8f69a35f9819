/* The tokenizer and the hyper-parameters of a synthetic model, as GGUF keys. */
#ifndef MFI_SYNTH_VOCAB_H
#define MFI_SYNTH_VOCAB_H

#include "synth/list.h"

#define MFI_SYNTH_N_SPECIAL 3 /* <|endoftext|>, <|im_start|>, <|im_end|>: the last ids */

/* Ids below are bytes and what merges make of them. */
uint32_t mfi_synth_n_text(uint32_t n_vocab);

void mfi_synth_put_vocab(mfi_gguf_out *g, uint32_t n_vocab);
void mfi_synth_put_shape(mfi_gguf_out *g, const mfi_synth_shape *shape, uint32_t n_layers);

#endif
