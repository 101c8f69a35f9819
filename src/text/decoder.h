/* What tokens are decoded to. */
#ifndef MFI_TEXT_DECODER_H
#define MFI_TEXT_DECODER_H

#include "base/json.h"
#include "text/normalizer.h"
#include "text/vocab.h"

typedef struct mfi_decoder {
    bool byte_level;
    bool byte_fallback;     /* "<0x0A>" is a byte */
    mfi_normalizer replace; /* of each token */
    mfi_normalizer first;   /* the same of a text's first token, if strip is UINT32_MAX */
    uint32_t strip;         /* spaces taken from where text begins; UINT32_MAX: `first` */
} mfi_decoder;

/* Reads the "decoder" of a tokenizer.json; what it would do is refused unless it can be done token
 * by token. */
mf_status mfi_decoder_open(mfi_decoder *decoder, const mfi_json *node, mf_error *err);
void mfi_decoder_close(mfi_decoder *decoder);
/* Notes in the vocabulary what its tokens are decoded to. */
mf_status mfi_decoder_apply(const mfi_decoder *decoder, mfi_vocab *vocab, mf_error *err);

#endif
