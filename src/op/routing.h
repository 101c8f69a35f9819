/* How a router's logits become chosen experts and their weights: data, filled by a family, read by
 * kernels. */
#ifndef MFI_OP_ROUTING_H
#define MFI_OP_ROUTING_H

#include "base/defs.h"

typedef enum mfi_score {
    MFI_SCORE_SOFTMAX,       /* over all experts */
    MFI_SCORE_SIGMOID,       /* each on its own */
    MFI_SCORE_SOFTMAX_CHOSEN /* choice by logits, weights their softmax among the chosen */
} mfi_score;

/* An expert's score, plus its correction bias where the router has one, is what the choice goes by;
 * its weight comes from the score alone. With groups (of neighbours, equally large), only experts
 * of the best n_groups_used of them can be chosen; a group is as good as the sum of its group_best
 * best experts: 1 in DeepSeek-V2, 2 from DeepSeek-V3 on. */
typedef struct mfi_routing {
    mfi_score score;
    uint32_t n_groups, n_groups_used; /* 0 or 1: no groups */
    uint32_t group_best;
    bool normalize; /* weights divided by their sum (softmax of the chosen: it is 1 already) */
    float scale;    /* then multiplied by this */
} mfi_routing;

#endif
