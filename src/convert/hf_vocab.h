/* The tokenizer and the chat template of a GGUF file as Hugging Face's files. */
#ifndef MFI_CONVERT_HF_VOCAB_H
#define MFI_CONVERT_HF_VOCAB_H

#include "format/catalog.h"

/* Writes tokenizer.json and tokenizer_config.json into the folder; nothing if the file has no
 * tokenizer. MF_ERR_UNSUPPORTED names a kind that tokenizer.json isn't written for. */
mf_status mfi_hv_write(const mfi_catalog *catalog, const char *dir, mf_error *err);

#endif
