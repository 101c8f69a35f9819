/* Where a text stands in a grammar, and which tokens may follow.
 *
 * The automaton's stacks and the sets of its configurations are numbered and remembered, so that
 * what was met once is a look-up: sets of configurations become states of a table that grows as it
 * is used, and masks are kept by state. All memory is taken at open; when a table is full it is
 * emptied but for what is current. */
#ifndef MFI_GRAMMAR_MATCHER_H
#define MFI_GRAMMAR_MATCHER_H

#include "grammar/nfa.h"
#include "grammar/trie.h"

typedef struct mfi_matcher mfi_matcher;

/* Begins at the grammar's beginning. end_ids are allowed where the grammar can end; they must not
 * be in the trie. Grammar, trie and ids must outlive the matcher. */
mf_status mfi_matcher_open(mfi_matcher **matcher, const mf_grammar *grammar,
                           const mfi_vocab_trie *trie, const int32_t *end_ids, uint32_t n_end_ids,
                           mf_error *err);
void mfi_matcher_close(mfi_matcher **matcher);
/* What a matcher takes at most, for the plan. */
uint64_t mfi_matcher_bytes(uint32_t n_vocab);

/* Back to the beginning; what was learnt is kept. */
mf_status mfi_matcher_reset(mfi_matcher *matcher, mf_error *err);

/* Goes on by bytes. *alive: the grammar allows them; if not the matcher stays where it was. */
mf_status mfi_matcher_accept(mfi_matcher *matcher, const char *bytes, size_t len, bool *alive,
                             mf_error *err);
/* One bit a token, [(n_vocab + 31) / 32] words, valid until the next call. */
mf_status mfi_matcher_mask(mfi_matcher *matcher, const uint32_t **mask, mf_error *err);
/* The text so far is whole; it is, and nothing may follow. */
bool mfi_matcher_can_end(const mfi_matcher *matcher);
bool mfi_matcher_must_end(const mfi_matcher *matcher);

/* For tests: how often the tables were emptied. */
uint32_t mfi_matcher_n_flushes(const mfi_matcher *matcher);

#endif
