/* The fake weight device; see fake_device.h. */
#include "fake/support.h"
#include "fake/fake_device.h"

static mf_status bind(void *ctx, const void *address, uint64_t len, void **handle, mf_error *err)
{
    mft_device *d = ctx;
    if (d->refuse) {
        d->n_refused++;
        return mfi_fail(err, MF_ERR_NO_MEMORY, "fake device is full");
    }
    assert_int_equal((uintptr_t)address % d->device.page, 0);
    assert_int_equal(len % d->device.page, 0);
    assert_true(len > 0);
    assert_true(d->device.max_buf_bytes == 0 || len <= d->device.max_buf_bytes);
    assert_true(d->n_binds < MFT_MAX_BINDS);
    mft_bind *b = &d->binds[d->n_binds++];
    *b = (mft_bind){address, len, true};
    d->n_live++;
    *handle = b;
    return MF_OK;
}

static void unbind(void *ctx, void *handle)
{
    mft_device *d = ctx;
    mft_bind *b = handle;
    assert_true(b >= d->binds && b < d->binds + d->n_binds && b->live);
    b->live = false;
    d->n_live--;
}

void mft_device_init(mft_device *device, uint64_t page, uint64_t max_buf_bytes)
{
    *device = (mft_device){
        .device = {.page = page, .max_buf_bytes = max_buf_bytes, .bind = bind, .unbind = unbind}};
    device->device.ctx = device;
}
