/* Stretches of one class of characters, as in texts of bounded length. */
#ifndef MFI_GRAMMAR_STRETCH_H
#define MFI_GRAMMAR_STRETCH_H

#include "grammar/nfa.h"
#include "grammar/trie.h"

typedef struct mfi_stretch {
    uint32_t state, ret;
    uint32_t run;              /* characters that can be read, as far as was looked */
    uint32_t at_state, at_ret; /* the last of them is read there; 0: there are no more */
    uint16_t need;             /* the most that a state of these needs */
    bool wide;                 /* lead bytes in `chars` are known */
    mfi_char_set chars;        /* of the class; lead bytes whose characters all are */
} mfi_stretch;

/* What a state that reads a character begins, in a rule that returns to `ret` (0: to nothing); run
 * is 0 for others. */
void mfi_stretch_find(const mf_grammar *g, uint32_t state, uint32_t ret, mfi_stretch *out);
void mfi_stretch_find_wide(const mf_grammar *g, mfi_stretch *s);
/* Whether n characters of the class can be read; looks no further than that. */
bool mfi_stretch_reaches(const mf_grammar *g, mfi_stretch *s, uint32_t n);

#endif
