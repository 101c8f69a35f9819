/* What the files that take answers apart share. */
#ifndef MFI_TEXT_OUTPUT_INT_H
#define MFI_TEXT_OUTPUT_INT_H

#include "text/output.h"

#define MFI_DS_CALL_BEGIN                                                                          \
    "<\xef\xbd\x9ctool\xe2\x96\x81"                                                                \
    "call\xe2\x96\x81"                                                                             \
    "begin\xef\xbd\x9c>"
#define MFI_DS_CALL_END                                                                            \
    "<\xef\xbd\x9ctool\xe2\x96\x81"                                                                \
    "call\xe2\x96\x81"                                                                             \
    "end\xef\xbd\x9c>"
#define MFI_DS_SEP "<\xef\xbd\x9ctool\xe2\x96\x81sep\xef\xbd\x9c>"

#define MFI_DSML                                                                                   \
    "\xef\xbd\x9c"                                                                                 \
    "DSML"                                                                                         \
    "\xef\xbd\x9c"

/* How a family brackets its calls; close NULL: the end of the answer. */
typedef struct mfi_brackets {
    const char *name;
    const char *open, *close;
} mfi_brackets;

extern const mfi_brackets mfi_output_brackets[MFI_N_NOTATIONS];

/* What begins or ends reasoning. */
const char *mfi_think_marker(mfi_notation notation, bool begin);
/* Whether a special token's text means something in the notation. */
bool mfi_output_is_marker(mfi_notation notation, const char *text, size_t len);

/* One call, as it is read: spans of its text, or of what was made of it. */
typedef struct mfi_call_text {
    mfi_buf name, id, arguments;
} mfi_call_text;

typedef struct mfi_call_list {
    mfi_call_text *calls;
    size_t n, cap;
    bool failed;
} mfi_call_list;

mfi_call_text *mfi_call_add(mfi_call_list *list);
void mfi_call_list_free(mfi_call_list *list);

/* Appends a call whose arguments are a JSON object; false if they aren't, or the name is none. */
bool mfi_call_put(mfi_call_list *list, const char *name, size_t name_len, const char *args,
                  size_t args_len);

/* How a notation writes a call's arguments key by key: <parameter=KEY>VALUE</parameter>, say.
 * newlines: one before the value and one after it are the notation's. */
typedef struct mfi_pair_form {
    const char *open, *after_key, *before_value, *close;
    bool newlines;
    const char *head_end; /* what ends a call's name, and belongs to it unless it begins a pair */
    const char *tail;     /* what ends the pairs; NULL: the closing bracket */
    const char *head; /* what begins a call, of which there may be several; NULL: one a bracket */
    bool typed;       /* before a value: true"> if it is a string, false"> if it is JSON */
} mfi_pair_form;

/* NULL if the arguments are JSON. */
const mfi_pair_form *mfi_pair_form_of(mfi_notation notation);
typedef enum mfi_pair_type { MFI_PAIR_ANY, MFI_PAIR_STRING, MFI_PAIR_JSON } mfi_pair_type;

/* What says that a value is a string, or JSON, in notations that say it. */
#define MFI_PAIR_TYPE_STRING "true\">"
#define MFI_PAIR_TYPE_JSON   "false\">"

/* A pair's value as JSON. */
void mfi_pair_put_value(mfi_buf *out, mfi_pair_type type, const char *text, size_t len);

/* Whether calls are the objects of a JSON list. */
bool mfi_notation_is_list(mfi_notation notation);

/* Reads what stands between the brackets; false if it isn't calls and nothing else. */
bool mfi_calls_read(mfi_notation notation, const char *body, size_t len, mfi_call_list *list);

/* ---- calls that aren't whole yet (output_live.c) ---- */

typedef enum mfi_live_at {
    MFI_LIVE_LOST, /* nothing more is known until the call is whole */
    MFI_LIVE_HEAD, /* before the arguments of a call between markers */
    MFI_LIVE_VALUE,
    MFI_LIVE_ARGUMENTS,
    MFI_LIVE_TAIL,
    MFI_LIVE_LIST, /* before the list, before a call's object, in it, ... */
    MFI_LIVE_LIST_NEXT,
    MFI_LIVE_ELEMENT,
    MFI_LIVE_ELEMENT_ARGUMENTS,
    MFI_LIVE_LIST_AFTER,
    MFI_LIVE_PAIR_HEAD, /* before arguments that come key by key, at a key, in a value, ... */
    MFI_LIVE_PAIR_KEY,
    MFI_LIVE_PAIR_BEFORE_VALUE,
    MFI_LIVE_PAIR_VALUE,
    MFI_LIVE_DONE
} mfi_live_at;

typedef enum mfi_live_key {
    MFI_LIVE_KEY_OTHER,
    MFI_LIVE_KEY_NAME,
    MFI_LIVE_KEY_ARGUMENTS
} mfi_live_key;

typedef enum mfi_live_act {
    MFI_LIVE_NOTHING,
    MFI_LIVE_OPEN,     /* name and id are known, and the byte is the first of the arguments */
    MFI_LIVE_ARGUMENT, /* the byte is one of the arguments */
    MFI_LIVE_MADE,     /* there are more arguments in `made` */
    MFI_LIVE_END       /* the call is [from, end) */
} mfi_live_act;

/* Positions are the block's. */
typedef struct mfi_live {
    mfi_notation notation;
    mfi_live_at at;
    bool open;                /* the call was begun */
    size_t from;              /* where the call begins */
    size_t end;               /* with MFI_LIVE_END */
    size_t done;              /* what is before it was handed out as calls */
    uint32_t n_done;          /* calls of the block that ended */
    size_t args_from, n_args; /* begun: what was handed out */
    uint32_t depth;           /* of brackets */
    bool in_string, escaped;
    bool in_value; /* of the call's own object, behind a colon */
    mfi_live_key key;
    size_t string_from;
    mfi_buf name, id;
    /* pairs */
    size_t pair_from, value_from; /* value_from: what of the value is not in `made` yet */
    bool string;                  /* the value is a string for sure */
    mfi_pair_type type;           /* what is said of it */
    mfi_buf made;                 /* the arguments so far, of which n_args were handed out */
} mfi_live;

void mfi_live_begin(mfi_live *live, mfi_notation notation, size_t from);
/* The last byte of the block is new. */
mfi_live_act mfi_live_byte(mfi_live *live, const char *block, size_t len);
/* The call has ended at `end`, the next one begins at `from` or later. */
void mfi_live_next(mfi_live *live, size_t end, size_t from);
void mfi_live_free(mfi_live *live);

/* Whether the last byte of the block ends with the text, which begins at `from` or later. */
bool mfi_live_ends(const char *block, size_t from, size_t len, const char *text);
/* mfi_live_byte for notations with pairs (output_pairs.c). */
mfi_live_act mfi_live_pair_byte(mfi_live *live, const char *block, size_t len);

#endif
