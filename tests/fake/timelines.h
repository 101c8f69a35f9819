/* Engines on a device, with few slots or all, and what their timelines must stand: the same tests
 * for every device. */
#ifndef MFT_TIMELINES_H
#define MFT_TIMELINES_H

#include "moeflux/moeflux.h"

enum { MFT_VOCAB = 64, MFT_PROMPT = 40, MFT_MORE = 2, MFT_IDS = 60 };

/* Recurrent layers and attention; attention with windows, whose keys lie in rings; latent
 * attention, behind a layer without experts. */
typedef enum mft_timeline_model { MFT_RECURRENT, MFT_WINDOWS, MFT_LATENT } mft_timeline_model;

typedef struct mft_device_case {
    const char *device;    /* as mf_engine_options has it */
    int n_models;          /* the first so many: a device that is acted takes its time */
    void (*prepare)(void); /* whenever options are made: skips the test without the device, and
                              makes it as new; NULL: nothing */
    void (*closed)(void);  /* after an engine was; NULL: nothing */
} mft_device_case;

/* For all functions below, from now on. */
void mft_timelines_on(const mft_device_case *device);

/* A context of 128, chunks of 16, two sessions, four checkpoints. n_slots 0: all. */
mf_engine_options mft_timeline_options(mft_timeline_model model, uint32_t n_slots);
uint32_t mft_timeline_n_experts(mft_timeline_model model);
/* A number of the plan with these options. */
uint64_t mft_plan_number(const mf_engine_options *options, const char *key);

typedef struct mft_world {
    mf_engine *engine;
    mf_session *session;
} mft_world;

void mft_world_open(mft_world *w, const mf_engine_options *o);
void mft_world_close(mft_world *w);
mf_stats mft_world_stats(const mft_world *w);

const int32_t *mft_timeline_ids(void); /* [MFT_IDS] */
/* Evaluates tokens [from, from + n) of them. */
void mft_timeline_eval(mf_session *s, uint32_t from, uint32_t n);
/* The next MFT_MORE of them one by one. */
void mft_timeline_go_on(mf_session *s, uint32_t from, float logits[MFT_MORE * MFT_VOCAB]);

/* The tests: logits behind the prompt are those of a timeline that went straight on. */
void mft_timeline_copied(void **state);
void mft_timeline_gone_back(void **state);
void mft_timeline_saved(void **state);
void mft_timeline_kept(void **state);

/* What an engine that looks experts up has written down and counted; another one, which times its
 * ops and so stops at every router, must have the same, and does. `evaluate` is run in both. */
typedef struct mft_books {
    char *trace; /* release with free */
    size_t len;
    mf_stats stats;
} mft_books;
void mft_same_books(const mf_engine_options *o, void (*evaluate)(mft_world *w), mft_books *books);

#endif
