/* The Metal device: everything that needs Objective-C. Owns device, queue, compiled kernels, the
 * command buffer that is being filled and those under way. Called by the backend's C files, on the
 * engine's thread. References are counted by hand, and there are no blocks, so that it compiles with
 * GCC against the tests' fake device as well as with the system's compiler on macOS. */
#import <Metal/Metal.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/metal/metal_device.h"

#if defined(__APPLE__) && !defined(__MAC_15_0)
#error "The Metal backend wants the SDK of macOS 15 (Xcode 16) or later; -DMF_METAL=OFF leaves it out"
#endif

/* Residency sets and modes of maths. The tests' device says itself what it is. */
#ifndef HAS_RESIDENCY
#define HAS_RESIDENCY @available(macOS 15.0, iOS 18.0, *)
#endif

#define MESSAGE_BYTES 400 /* of a compiler's */
#define WIDTH         32  /* threads of a simdgroup */

struct mfi_metal_device {
    id<MTLDevice> device;
    id<MTLCommandQueue> queue;
    id<MTLLibrary> library;
    id<MTLSharedEvent> event; /* has the last ticket that is done */
    id residency;             /* MTLResidencySet, or nil before macOS 15 */
    id<MTLComputePipelineState> pipelines[MFI_METAL_N_KERNELS];
    id<MTLCommandBuffer> open; /* being filled, or nil */
    id<MTLComputeCommandEncoder> encoder;
    id<MTLBuffer> stop; /* the backend's; bound for all dispatches */
    id<MTLCommandBuffer> sent[MFI_METAL_IN_FLIGHT]; /* ticket t at t % MFI_METAL_IN_FLIGHT */
    uint64_t n_sent, n_done;
    bool lost;
    char why[MESSAGE_BYTES];
};

static const char *text_of(NSError *error)
{
    const char *text = error ? [[error localizedDescription] UTF8String] : NULL;
    return text ? text : "no reason given";
}

/* What was encoded and not sent is forgotten. */
static void drop_open(mfi_metal_device *d)
{
    [d->encoder endEncoding];
    [d->encoder release];
    [d->open release];
    d->encoder = nil;
    d->open = nil;
}

/* ---- opening ---- */

/* The default device, retained; Macs with Apple's processors have one. */
static mf_status find(id<MTLDevice> *device, uint32_t index, mfi_device_facts *facts, mf_error *err)
{
    *facts = (mfi_device_facts){.index = index};
    id<MTLDevice> d = MTLCreateSystemDefaultDevice();
    if (!d)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no Metal: there is no device");
    facts->n_devices = 1;
    snprintf(facts->name, sizeof facts->name, "%s", [[d name] UTF8String]);
    mf_status status = MF_OK;
    if (index > 0)
        status = mfi_fail(err, MF_ERR_UNSUPPORTED, "no Metal: there is no device %" PRIu32, index);
    else if (![d hasUnifiedMemory] || ![d supportsFamily:MTLGPUFamilyApple7])
        status = mfi_fail(err, MF_ERR_UNSUPPORTED,
                          "no Metal: %s doesn't share memory as Apple's processors do from M1 on",
                          facts->name);
    if (status != MF_OK) {
        [d release];
        return status;
    }
    facts->unified = true;
    facts->weight_align = MFI_METAL_ALIGN;
    facts->page_bytes = MFI_METAL_PAGE;
    facts->max_buf_bytes = [d maxBufferLength];
    facts->total_bytes = [d recommendedMaxWorkingSetSize];
    uint64_t used = [d currentAllocatedSize];
    facts->free_bytes = facts->total_bytes > used ? facts->total_bytes - used : 0;
    *device = d;
    return MF_OK;
}

mf_status mfi_metal_device_facts(uint32_t index, mfi_device_facts *facts, mf_error *err)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    id<MTLDevice> d = nil;
    mf_status status = find(&d, index, facts, err);
    [d release];
    [pool drain];
    return status;
}

/* What the plan allows is wired as a whole, instead of buffer by buffer for each command buffer. */
static void open_residency(mfi_metal_device *d)
{
    if (HAS_RESIDENCY) {
        MTLResidencySetDescriptor *how = [[MTLResidencySetDescriptor alloc] init];
        [how setInitialCapacity:64];
        id<MTLResidencySet> set = [d->device newResidencySetWithDescriptor:how error:NULL];
        [how release];
        if (set)
            [d->queue addResidencySet:set];
        d->residency = set;
    }
}

static void set_resident(mfi_metal_device *d, id<MTLBuffer> buffer, bool resident)
{
    if (!d->residency)
        return;
    if (HAS_RESIDENCY) {
        id<MTLResidencySet> set = d->residency;
        if (resident)
            [set addAllocation:buffer];
        else
            [set removeAllocation:buffer];
        [set commit];
        if (resident)
            [set requestResidency];
    }
}

mf_status mfi_metal_device_open(mfi_metal_device **out, uint32_t index, mfi_device_facts *facts,
                                mf_error *err)
{
    mfi_metal_device *d = calloc(1, sizeof *d);
    if (!d)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a Metal device");
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    mf_status status = find(&d->device, index, facts, err);
    if (status == MF_OK) {
        d->queue = [d->device newCommandQueue];
        d->event = [d->device newSharedEvent];
        if (!d->queue || !d->event)
            status = mfi_fail(err, MF_ERR_DEVICE, "Metal: %s gives no command queue", facts->name);
        else
            open_residency(d);
    }
    [pool drain];
    if (status != MF_OK)
        mfi_metal_device_close(&d);
    *out = d;
    return status;
}

void mfi_metal_device_close(mfi_metal_device **out)
{
    mfi_metal_device *d = *out;
    uint64_t n_done;
    if (!d)
        return;
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    drop_open(d);
    (void)mfi_metal_wait(d, d->n_sent, &n_done, NULL);
    for (size_t i = 0; i < MFI_METAL_N_KERNELS; i++)
        [d->pipelines[i] release];
    if (d->residency) {
        if (HAS_RESIDENCY) {
            [(id<MTLResidencySet>)d->residency endResidency];
            [d->queue removeResidencySet:d->residency];
        }
        [d->residency release];
    }
    [d->library release];
    [d->event release];
    [d->queue release];
    [d->device release];
    [pool drain];
    free(d);
    *out = NULL;
}

/* ---- memory ---- */

mf_status mfi_metal_buf_alloc(mfi_metal_device *d, uint64_t bytes, bool host_writes,
                              mfi_metal_buf *buf, mf_error *err)
{
    MTLResourceOptions options = MTLResourceStorageModeShared;
    if (host_writes)
        options |= MTLResourceHazardTrackingModeUntracked;
    bytes = MFI_MAX(bytes, MFI_METAL_BUF_LEAST);
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    id<MTLBuffer> b = nil;
    if (bytes <= [d->device maxBufferLength])
        b = [d->device newBufferWithLength:bytes options:options];
    if (b) {
        *buf = (mfi_metal_buf){b, [b contents], bytes};
        set_resident(d, b, true);
    }
    [pool drain];
    if (!b)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "Metal: no buffer of %" PRIu64 " bytes", bytes);
    return MF_OK;
}

mf_status mfi_metal_buf_wrap(mfi_metal_device *d, const void *address, uint64_t len,
                             mfi_metal_buf *buf, mf_error *err)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    id<MTLBuffer> b = [d->device newBufferWithBytesNoCopy:(void *)(uintptr_t)address
                                                   length:len
                                                  options:MTLResourceStorageModeShared
                                              deallocator:nil];
    bool copied = b && [b contents] != address;
    if (copied) {
        [b release];
        b = nil;
    }
    if (b) {
        *buf = (mfi_metal_buf){b, [b contents], len};
        set_resident(d, b, true);
    }
    [pool drain];
    if (!b)
        return mfi_fail(err, MF_ERR_DEVICE, "Metal: no buffer on %" PRIu64 " mapped bytes%s", len,
                        copied ? " but by copying them" : "");
    return MF_OK;
}

void mfi_metal_buf_free(mfi_metal_device *d, mfi_metal_buf *buf)
{
    if (!buf->handle)
        return;
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    set_resident(d, buf->handle, false);
    [(id<MTLBuffer>)buf->handle release];
    [pool drain];
    *buf = (mfi_metal_buf){0};
}

/* ---- kernels ---- */

mf_status mfi_metal_compile(mfi_metal_device *d, const char *source, size_t bytes, mf_error *err)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    NSString *text = [[NSString alloc] initWithBytes:source
                                              length:bytes
                                            encoding:NSUTF8StringEncoding];
    MTLCompileOptions *options = [[MTLCompileOptions alloc] init];
    NSError *error = nil;
    [options setLanguageVersion:MTLLanguageVersion3_0];
    /* Sums keep their order, and infinities their meaning. */
    if (HAS_RESIDENCY) {
        [options setMathMode:MTLMathModeSafe];
    } else {
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
#endif
        [options setFastMathEnabled:NO];
#ifdef __clang__
#pragma clang diagnostic pop
#endif
    }
    d->library = [d->device newLibraryWithSource:text options:options error:&error];
    mf_status status = MF_OK;
    if (!d->library)
        status = mfi_fail(err, MF_ERR_DEVICE, "Metal: kernels don't compile: %.*s", MESSAGE_BYTES,
                          text_of(error));
    [options release];
    [text release];
    [pool drain];
    return status;
}

static mf_status make_pipeline(mfi_metal_device *d, const mfi_metal_call *call, mf_error *err)
{
    const char *name = mfi_metal_kernels[call->kernel].name;
    NSError *error = nil;
    id<MTLFunction> function =
        [d->library newFunctionWithName:[NSString stringWithUTF8String:name]];
    if (!function)
        return mfi_fail(err, MF_ERR_DEVICE, "Metal: there is no kernel %s", name);
    id<MTLComputePipelineState> p = [d->device newComputePipelineStateWithFunction:function
                                                                             error:&error];
    [function release];
    if (!p)
        return mfi_fail(err, MF_ERR_DEVICE, "Metal: kernel %s can't be built: %.*s", name,
                        MESSAGE_BYTES, text_of(error));
    if ([p threadExecutionWidth] != WIDTH || [p maxTotalThreadsPerThreadgroup] < call->threads) {
        mf_status status = mfi_fail(err, MF_ERR_UNSUPPORTED,
                                    "Metal: kernel %s wants %" PRIu32
                                    " threads in groups of %d; the device gives %lu of %lu",
                                    name, call->threads, WIDTH,
                                    (unsigned long)[p maxTotalThreadsPerThreadgroup],
                                    (unsigned long)[p threadExecutionWidth]);
        [p release];
        return status;
    }
    d->pipelines[call->kernel] = p;
    return MF_OK;
}

/* ---- running ---- */

static mf_status check_lost(const mfi_metal_device *d, mf_error *err)
{
    return d->lost ? mfi_fail(err, MF_ERR_DEVICE, "Metal: a command buffer was lost: %s", d->why)
                   : MF_OK;
}

void mfi_metal_stop_by(mfi_metal_device *d, const mfi_metal_buf *word)
{
    d->stop = word->handle;
}

static mf_status begin(mfi_metal_device *d, mf_error *err)
{
    if (d->open)
        return MF_OK;
    d->open = [[d->queue commandBuffer] retain];
    d->encoder = [[d->open computeCommandEncoder] retain]; /* serial: each waits for the last */
    [d->encoder setBuffer:d->stop offset:0 atIndex:MFI_METAL_STOP];
    if (d->open && d->encoder)
        return MF_OK;
    [d->open release];
    d->open = nil;
    return mfi_fail(err, MF_ERR_DEVICE, "Metal: no command buffer");
}

static void encode(mfi_metal_device *d, const mfi_metal_call *call, const void *args,
                   const mfi_metal_ref *bufs)
{
    const mfi_metal_kernel_info *info = &mfi_metal_kernels[call->kernel];
    id<MTLComputeCommandEncoder> e = d->encoder;
    [e setComputePipelineState:d->pipelines[call->kernel]];
    [e setBytes:args length:info->args_bytes atIndex:0];
    for (uint32_t i = 0; i < info->n_buffers; i++)
        [e setBuffer:(id<MTLBuffer>)bufs[i].handle offset:bufs[i].offset atIndex:1 + i];
    [e setThreadgroupMemoryLength:call->shared_bytes atIndex:0];
    [e dispatchThreadgroups:MTLSizeMake(call->groups[0], call->groups[1], call->groups[2])
        threadsPerThreadgroup:MTLSizeMake(call->threads, 1, 1)];
}

mf_status mfi_metal_encode(mfi_metal_device *d, const mfi_metal_call *call, const void *args,
                           const mfi_metal_ref *bufs, mf_error *err)
{
    MFI_ASSERT(d->library && mfi_metal_kernels[call->kernel].n_buffers <= MFI_METAL_MAX_BUFS);
    MFI_TRY(check_lost(d, err));
    if (!call->groups[0] || !call->groups[1] || !call->groups[2])
        return MF_OK;
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    mf_status status = d->pipelines[call->kernel] ? MF_OK : make_pipeline(d, call, err);
    if (status == MF_OK)
        status = begin(d, err);
    if (status == MF_OK)
        encode(d, call, args, bufs);
    [pool drain];
    return status;
}

mf_status mfi_metal_commit(mfi_metal_device *d, uint64_t *ticket, mf_error *err)
{
    uint64_t n_done;
    *ticket = d->n_sent;
    MFI_TRY(check_lost(d, err));
    if (!d->open)
        return MF_OK;
    if (d->n_sent - d->n_done == MFI_METAL_IN_FLIGHT)
        MFI_TRY(mfi_metal_wait(d, d->n_done + 1, &n_done, err));
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    uint64_t t = ++d->n_sent;
    [d->encoder endEncoding];
    [d->open encodeSignalEvent:d->event value:t];
    [d->open commit];
    [d->encoder release];
    d->sent[t % MFI_METAL_IN_FLIGHT] = d->open; /* its reference */
    d->encoder = nil;
    d->open = nil;
    [pool drain];
    *ticket = t;
    return MF_OK;
}

mf_status mfi_metal_wait(mfi_metal_device *d, uint64_t ticket, uint64_t *n_done, mf_error *err)
{
    MFI_ASSERT(ticket <= d->n_sent);
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    uint64_t signaled = d->n_done < d->n_sent ? [d->event signaledValue] : 0;
    if (!d->lost && d->n_done < ticket) /* one wait: a queue's command buffers end in order */
        [d->sent[ticket % MFI_METAL_IN_FLIGHT] waitUntilCompleted];
    while (!d->lost && d->n_done < d->n_sent && (d->n_done < ticket || d->n_done < signaled)) {
        id<MTLCommandBuffer> b = d->sent[(d->n_done + 1) % MFI_METAL_IN_FLIGHT];
        [b waitUntilCompleted];
        if ([b status] == MTLCommandBufferStatusError) {
            d->lost = true;
            snprintf(d->why, sizeof d->why, "%s", text_of([b error]));
        }
        [b release];
        d->n_done++;
    }
    if (d->lost) { /* nobody waits again, and then memory is given back */
        drop_open(d);
        for (; d->n_done < d->n_sent; d->n_done++) {
            id<MTLCommandBuffer> b = d->sent[(d->n_done + 1) % MFI_METAL_IN_FLIGHT];
            [b waitUntilCompleted];
            [b release];
        }
    }
    *n_done = d->n_done;
    [pool drain];
    return check_lost(d, err);
}
