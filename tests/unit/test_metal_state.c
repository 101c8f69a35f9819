/* Timelines on the fake Metal device, whose state lies in memory that the host sees as well:
 * copied, gone back to, saved, loaded and kept in a folder, they go on with the same bits. The
 * device keeps the host off what it is at, so that a wait that was forgotten is a fault. */
#include "fake/support.h"
#include "fake/timelines.h"
#include "base/buf.h"
#include "metal/fake/metal_rig.h"
#include "os/out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool append(void *user, const char *text, size_t len)
{
    mfi_buf_append(user, text, len);
    return true;
}

/* Bytes of the host that the plan has for recurrent state and checkpoints. */
static uint64_t planned_state(const mf_engine_options *o)
{
    static const char key[] = "{\"item\":\"state_bytes\",\"bytes\":";
    mf_error err;
    mfi_buf text = {0};
    mft_ok(mf_plan_write(o, true, append, &text, &err), &err);
    mfi_buf_append(&text, "", 1);
    const char *at = strstr(text.data, key);
    assert_non_null(at);
    uint64_t n = strtoull(at + sizeof key - 1, NULL, 10);
    mfi_buf_free(&text);
    return n;
}

/* Counted, two sessions' with logits, and none of the device's. */
static void checkpoints_counted(void **state)
{
    (void)state;
    mf_engine_options o = mft_timeline_options(MFT_RECURRENT, 0), none = o;
    none.n_checkpoints = 0;
    uint64_t more = planned_state(&o) - planned_state(&none);
    assert_true(more >= 2 * 4 * MFT_VOCAB * sizeof(float) && more % (2 * 4 * 4096) == 0);
    assert_int_equal(mft_plan_number(&o, "vram_total_bytes"),
                     mft_plan_number(&none, "vram_total_bytes"));
}

static mf_status count_file(void *ctx, const char *name, mf_error *err)
{
    (void)err;
    *(int *)ctx += strstr(name, ".mfx") != NULL;
    return MF_OK;
}

static int n_kept_files(const char *dir)
{
    int n = 0;
    mf_error err;
    mft_ok(mfi_dir_each_file(dir, count_file, &n, &err), &err);
    return n;
}

/* Nothing of a device that is lost is saved, and no file goes because of it. */
static void lost(void **state)
{
    (void)state;
    mf_error err;
    mft_world w;
    char path[600], dir[600];
    size_t n_kept;
    int32_t id = 1;
    snprintf(path, sizeof path, "%s/lost", mft_tmpdir());
    snprintf(dir, sizeof dir, "%s/kept", mft_tmpdir());
    mf_engine_options o = mft_timeline_options(MFT_RECURRENT, 0);
    o.prefix_dir = dir;
    mft_world_open(&w, &o);
    mft_metal_state *d = mft_metal_find();
    mft_timeline_eval(w.session, 0, MFT_PROMPT);
    mft_ok(mf_session_keep(w.session, &err), &err);
    int n_files = n_kept_files(dir);
    assert_true(n_files > 0);
    mf_session_reset(w.session);
    d->lose = 1;
    assert_int_equal(mf_session_eval(w.session, &id, 1, NULL, &err), MF_ERR_DEVICE);
    assert_int_equal(mf_session_save(w.session, path, &err), MF_ERR_DEVICE);
    assert_int_equal(
        mf_session_restore(w.session, mft_timeline_ids(), MFT_PROMPT + MFT_MORE, &n_kept, &err),
        MF_ERR_DEVICE);
    assert_int_equal(n_kept_files(dir), n_files);
    mft_world_close(&w);
    (void)mft_metal_device(); /* as new */
    mft_world_open(&w, &o);
    mft_ok(mf_session_restore(w.session, mft_timeline_ids(), MFT_PROMPT + MFT_MORE, &n_kept, &err),
           &err);
    assert_int_equal(n_kept, MFT_PROMPT);
    mft_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mft_timeline_copied), cmocka_unit_test(mft_timeline_gone_back),
        cmocka_unit_test(mft_timeline_saved),  cmocka_unit_test(mft_timeline_kept),
        cmocka_unit_test(checkpoints_counted), cmocka_unit_test(lost),
    };
    mft_timelines_on(&mft_metal_case);
    return mft_run(tests);
}
