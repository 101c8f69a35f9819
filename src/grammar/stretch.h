/* Stretches of one class of characters, as in texts of bounded length. */
#ifndef MFI_GRAMMAR_STRETCH_H
#define MFI_GRAMMAR_STRETCH_H

#include "grammar/nfa.h"

#define MFI_STRETCH_ENDLESS 255

typedef struct mfi_stretch {
    uint32_t state;
    uint16_t need;     /* the most that a state of the stretch needs */
    uint8_t run;       /* characters of its class that can be read from the state on: at least so
                        * many, or ENDLESS */
    bool wide;         /* the class has every character from U+0080 */
    uint64_t plain[2]; /* which it has below */
} mfi_stretch;

/* What a state that reads a character begins; run is 0 for others. */
void mfi_stretch_find(const mf_grammar *g, uint32_t state, mfi_stretch *out);

#endif
