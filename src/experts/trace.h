/* A record of every expert choice, as JSON lines, for replaying cache policies offline:
 *   {"schema":1,"model":...,"layers":...,"experts":...,"top_k":...,"expert_bytes":...}
 *   {"pass":2,"layer":3,"pos":17,"ids":[4,9,1,30],"hit":[1,0,1,1]}
 * one line for each (layer, token), ids in rank order; tokens of one pass were evaluated together,
 * and share an expert's read. Written through a fixed buffer; a full disk
 * ends the trace with one error at close and never stops the model. */
#ifndef MFI_EXPERTS_TRACE_H
#define MFI_EXPERTS_TRACE_H

#include "base/status.h"

typedef struct mfi_trace mfi_trace;

mf_status mfi_trace_open(mfi_trace **trace, const char *path, const char *model, uint32_t n_layers,
                         uint32_t n_experts, uint32_t top_k, uint64_t expert_bytes, mf_error *err);
/* `hit[i]`: expert i was in a slot when it was asked for. */
void mfi_trace_choice(mfi_trace *trace, uint64_t pass, uint32_t layer, uint64_t pos,
                      const uint16_t *ids, const uint8_t *hit, uint32_t n);
/* Writes what is buffered; the first failure since open, which close tells, too. */
mf_status mfi_trace_flush(mfi_trace *trace, mf_error *err);
mf_status mfi_trace_close(mfi_trace **trace, mf_error *err);

#endif
