/* The fake Metal device; see fake_metal.h. One thread calls. */
#import <Metal/Metal.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/metal/metal_kernels.h"
#include "metal/fake/fake_metal.h"
#include "metal/shim/shim.h"

#define EXPORT      __attribute__((visibility("default")))
#define ARGS_MAX    4096 /* of setBytes */
#define BUFS_MAX    30
#define SHARED_MAX  32768
#define PAGE        ((NSUInteger)16 << 10)
#define SENT_MAX    64 /* command buffers that a queue takes */

static mft_metal_state state;

EXPORT mft_metal_state *mft_metal(void)
{
    return &state;
}

EXPORT void mft_metal_reset(void)
{
    state = (mft_metal_state){.working_set_bytes = (uint64_t)2 << 30,
                              .max_buf_bytes = (uint64_t)1 << 30,
                              .threads_max = 1024,
                              .width = 32,
                              .looks = 3};
}

__attribute__((constructor)) static void begin(void)
{
    mft_metal_reset();
}

__attribute__((format(printf, 1, 2))) static void fault(const char *format, ...)
{
    va_list args;
    if (state.fault[0])
        return;
    va_start(args, format);
    vsnprintf(state.fault, sizeof state.fault, format, args);
    va_end(args);
    fprintf(stderr, "fake Metal: %s\n", state.fault);
}

BOOL mft_metal_is_macos_15(void)
{
    return !state.macos_14;
}

static void want_macos_15(const char *what)
{
    if (state.macos_14)
        fault("there is no %s before macOS 15", what);
}

static bool count_down(int *n)
{
    return *n > 0 && --*n == 0;
}

static NSError *error_of(const char *text)
{
    return [[[NSError alloc] initWithText:text] autorelease];
}

/* Counted, so that what is left shows. */
@interface MFTObject : NSObject
@end
@implementation MFTObject
+ (id)alloc
{
    state.n_objects++;
    return [super alloc];
}
- (void)dealloc
{
    state.n_objects--;
    [super dealloc];
}
@end

/* ---- memory ---- */

@interface MFTBuffer : MFTObject <MTLBuffer> {
@public
    char *memory;
    NSUInteger bytes, mapped_bytes; /* mapped: what is ours; 0: wrapped */
    bool untracked, wired;
    int n_under_way; /* command buffers */
    int wrap;
}
@end
@implementation MFTBuffer
- (void *)contents
{
    return memory;
}
- (NSUInteger)length
{
    return bytes;
}
- (void)dealloc
{
    unsigned char in_core;
    if (n_under_way)
        fault("a buffer ends while it is in use");
    if (wired)
        fault("a buffer ends while it is in a residency set");
    if (mapped_bytes) {
        munmap(memory, mapped_bytes);
        state.buffer_bytes -= bytes;
    } else {
        /* The wrapped pages must still be there. */
        if (mincore(memory, 1, &in_core) != 0)
            fault("a mapping went before the buffer on it");
        state.wraps[wrap].alive = false;
    }
    [super dealloc];
}
@end

/* While a command buffer that uses it is under way, the host keeps off. */
static void keep_off(MFTBuffer *b, bool off)
{
    if (b->mapped_bytes && !b->untracked)
        mprotect(b->memory, b->mapped_bytes, off ? PROT_NONE : PROT_READ | PROT_WRITE);
}

/* ---- small ones ---- */

@implementation MTLCompileOptions
- (id)init
{
    fast = YES;
    math = 2;
    return self;
}
- (void)setFastMathEnabled:(BOOL)on
{
    fast = on;
}
- (void)setMathMode:(MTLMathMode)mode
{
    want_macos_15("setMathMode:");
    math = mode;
}
- (void)setLanguageVersion:(MTLLanguageVersion)v
{
    version = v;
}
- (BOOL)exact
{
    return (!fast || math == MTLMathModeSafe) && version == MTLLanguageVersion3_0;
}
@end

@implementation MTLResidencySetDescriptor
+ (id)alloc
{
    want_macos_15("MTLResidencySetDescriptor");
    return [super alloc];
}
- (void)setInitialCapacity:(NSUInteger)n
{
    capacity = n;
}
@end

@interface MFTFunction : MFTObject <MTLFunction> {
@public
    char name[64];
}
@end
@implementation MFTFunction
@end

@interface MFTPipeline : MFTObject <MTLComputePipelineState> {
@public
    char name[64];
    const mfi_metal_kernel_info *info;
}
@end
@implementation MFTPipeline
- (NSUInteger)maxTotalThreadsPerThreadgroup
{
    return state.threads_max;
}
- (NSUInteger)threadExecutionWidth
{
    return state.width;
}
@end

@interface MFTLibrary : MFTObject <MTLLibrary>
@end
@implementation MFTLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString *)wanted
{
    const char *name = [wanted UTF8String];
    if (!mftm_has(name) || (state.missing_kernel && strcmp(state.missing_kernel, name) == 0))
        return nil;
    MFTFunction *f = [[MFTFunction alloc] init];
    snprintf(f->name, sizeof f->name, "%s", name);
    return f;
}
@end

@interface MFTEvent : MFTObject <MTLSharedEvent> {
@public
    uint64_t value;
    unsigned n_looks;
    id queue; /* not retained: who looks keeps both */
}
@end

@interface MFTResidencySet : MFTObject <MTLResidencySet> {
@public
    MFTBuffer *all[4096];
    NSUInteger n, n_committed;
    bool requested;
}
@end
@implementation MFTResidencySet
- (void)addAllocation:(id<MTLAllocation>)allocation
{
    MFTBuffer *b = (MFTBuffer *)allocation;
    if (b->wired || n == sizeof all / sizeof *all)
        fault("a buffer is in a residency set twice, or there are too many");
    b->wired = true;
    state.wired_bytes += b->bytes;
    if (state.wired_bytes > state.working_set_bytes)
        fault("more is wired than the device recommends");
    all[n++] = [b retain];
}
- (void)removeAllocation:(id<MTLAllocation>)allocation
{
    MFTBuffer *b = (MFTBuffer *)allocation;
    for (NSUInteger i = 0; i < n; i++) {
        if (all[i] != b)
            continue;
        all[i] = all[--n];
        b->wired = false;
        state.wired_bytes -= b->bytes;
        [b release];
        return;
    }
    fault("a buffer is taken out of a residency set that it isn't in");
}
- (void)commit
{
    n_committed = n;
}
- (void)requestResidency
{
    requested = true;
}
- (void)endResidency
{
    requested = false;
}
- (void)dealloc
{
    while (n > 0) {
        all[--n]->wired = false;
        state.wired_bytes -= all[n]->bytes;
        [all[n] release];
    }
    [super dealloc];
}
@end

/* ---- command buffers ---- */

typedef struct dispatch {
    struct dispatch *next;
    MFTPipeline *pipeline;
    unsigned char args[ARGS_MAX];
    NSUInteger args_bytes;
    MFTBuffer *bufs[BUFS_MAX];
    NSUInteger offsets[BUFS_MAX];
    mftm_grid grid;
} dispatch;

@class MFTQueue;

@interface MFTCommandBuffer : MFTObject <MTLCommandBuffer> {
@public
    MFTQueue *queue;
    dispatch *first, **last;
    MFTEvent *event;
    uint64_t value;
    MTLCommandBufferStatus status;
    bool encoding, lose;
}
- (void)execute;
@end

@interface MFTQueue : MFTObject <MTLCommandQueue> {
@public
    MFTCommandBuffer *sent[SENT_MAX];
    int n_sent;
    MFTResidencySet *set;
}
- (void)executeOne;
@end

@interface MFTEncoder : MFTObject <MTLComputeCommandEncoder> {
@public
    MFTCommandBuffer *buffer;
    dispatch now;
    bool ended;
}
@end
@implementation MFTEncoder
- (void)setComputePipelineState:(id<MTLComputePipelineState>)p
{
    now.pipeline = (MFTPipeline *)p;
}
- (void)setBytes:(const void *)bytes length:(NSUInteger)length atIndex:(NSUInteger)index
{
    if (index != 0 || length > ARGS_MAX || length == 0) {
        fault("setBytes of %lu bytes at %lu", length, index);
        return;
    }
    memcpy(now.args, bytes, length);
    now.args_bytes = length;
}
- (void)setBuffer:(id<MTLBuffer>)b offset:(NSUInteger)offset atIndex:(NSUInteger)index
{
    if (index == 0 || index > BUFS_MAX || (b && offset >= [b length])) {
        fault("a buffer of %lu bytes is bound at offset %lu, index %lu", b ? [b length] : 0, offset,
              index);
        return;
    }
    now.bufs[index - 1] = (MFTBuffer *)b;
    now.offsets[index - 1] = offset;
}
- (void)setThreadgroupMemoryLength:(NSUInteger)length atIndex:(NSUInteger)index
{
    if (index != 0 || length == 0 || length % 16 != 0 || length > SHARED_MAX)
        fault("threadgroup memory of %lu bytes", length);
    now.grid.shared_bytes = (uint32_t)length;
}
- (void)dispatchThreadgroups:(MTLSize)groups threadsPerThreadgroup:(MTLSize)threads
{
    const mfi_metal_kernel_info *info = now.pipeline ? now.pipeline->info : NULL;
    if (!info || ended || threads.height != 1 || threads.depth != 1 ||
        threads.width > state.threads_max || !groups.width || !groups.height || !groups.depth) {
        fault("a dispatch of %lu x %lu x %lu groups of %lu threads", groups.width, groups.height,
              groups.depth, threads.width);
        return;
    }
    if (now.args_bytes != info->args_bytes)
        fault("%s takes %u bytes, not %lu", info->name, info->args_bytes, now.args_bytes);
    for (uint32_t i = 0; i < info->n_buffers; i++)
        if (!now.bufs[i]) {
            fault("%s has nothing at index %u", info->name, i + 1);
            return;
        }
    if (!now.bufs[MFI_METAL_STOP - 1]) {
        fault("%s has no word that stops it", info->name);
        return;
    }
    dispatch *d = malloc(sizeof *d);
    *d = now;
    d->next = NULL;
    d->grid.threads = (uint32_t)threads.width;
    d->grid.groups[0] = (uint32_t)groups.width;
    d->grid.groups[1] = (uint32_t)groups.height;
    d->grid.groups[2] = (uint32_t)groups.depth;
    for (uint32_t i = 0; i < BUFS_MAX; i++)
        d->bufs[i] = i < info->n_buffers ? [d->bufs[i] retain] : nil;
    d->bufs[info->n_buffers] = [now.bufs[MFI_METAL_STOP - 1] retain]; /* behind the others */
    d->offsets[info->n_buffers] = now.offsets[MFI_METAL_STOP - 1];
    [d->pipeline retain];
    *buffer->last = d;
    buffer->last = &d->next;
    state.n_dispatches++;
}
- (void)endEncoding
{
    if (ended)
        fault("an encoder is ended twice");
    ended = true;
    buffer->encoding = false;
}
- (void)dealloc
{
    if (!ended)
        fault("an encoder isn't ended");
    [buffer release];
    [super dealloc];
}
@end

@implementation MFTCommandBuffer
- (id<MTLComputeCommandEncoder>)computeCommandEncoder
{
    if (encoding || status != MTLCommandBufferStatusNotEnqueued)
        fault("a command buffer takes no encoder now");
    MFTEncoder *e = [[MFTEncoder alloc] init];
    e->buffer = [self retain];
    encoding = true;
    return [e autorelease];
}
- (void)encodeSignalEvent:(id<MTLEvent>)e value:(uint64_t)v
{
    if (encoding || status != MTLCommandBufferStatusNotEnqueued)
        fault("an event is encoded inside an encoder, or too late");
    [event release];
    event = [(MFTEvent *)e retain];
    event->queue = queue;
    value = v;
}
- (void)commit
{
    if (encoding || status != MTLCommandBufferStatusNotEnqueued || queue->n_sent == SENT_MAX) {
        fault("a command buffer is sent twice, before its encoder's end, or too many are");
        return;
    }
    status = MTLCommandBufferStatusCommitted;
    lose = count_down(&state.lose);
    state.n_sent++;
    queue->sent[queue->n_sent++] = [self retain];
    for (dispatch *d = first; d; d = d->next)
        for (uint32_t i = 0; i < BUFS_MAX && d->bufs[i]; i++) {
            if (queue->set && !d->bufs[i]->wired)
                fault("a buffer isn't resident");
            if (d->bufs[i]->n_under_way++ == 0)
                keep_off(d->bufs[i], true);
        }
}
static void run(dispatch *d)
{
    void *at[BUFS_MAX];
    char message[200];
    const mfi_metal_kernel_info *info = d->pipeline->info;
    for (uint32_t i = 0; i < info->n_buffers; i++)
        at[i] = d->bufs[i]->memory + d->offsets[i];
    d->grid.stop = (uint32_t *)(void *)(d->bufs[info->n_buffers]->memory +
                                        d->offsets[info->n_buffers]);
    if (!mftm_dispatch(info->name, d->args, d->args_bytes, at, info->n_buffers, &d->grid,
                       state.backward ? MFTM_BACKWARD : MFTM_FORWARD, message, sizeof message))
        fault("%s: %s", info->name, message);
}
- (void)execute
{
    for (dispatch *d = first; d; d = d->next)
        for (uint32_t i = 0; i < BUFS_MAX && d->bufs[i]; i++)
            keep_off(d->bufs[i], false);
    for (dispatch *d = first; d && !lose; d = d->next)
        run(d);
    status = lose ? MTLCommandBufferStatusError : MTLCommandBufferStatusCompleted;
    if (event && !lose)
        event->value = value;
    for (dispatch *d = first, *next; d; d = next) {
        next = d->next;
        for (uint32_t i = 0; i < BUFS_MAX && d->bufs[i]; i++) {
            d->bufs[i]->n_under_way--;
            keep_off(d->bufs[i], d->bufs[i]->n_under_way > 0);
            [d->bufs[i] release];
        }
        [d->pipeline release];
        free(d);
    }
    first = NULL;
    last = &first;
    state.n_done++;
}
- (void)waitUntilCompleted
{
    if (status == MTLCommandBufferStatusNotEnqueued)
        fault("somebody waits for a command buffer that wasn't sent");
    state.n_waits += status == MTLCommandBufferStatusCommitted;
    while (status == MTLCommandBufferStatusCommitted)
        [queue executeOne];
}
- (MTLCommandBufferStatus)status
{
    return status;
}
- (NSError *)error
{
    return status == MTLCommandBufferStatusError ? error_of("the device hangs, says the fake") : nil;
}
- (void)dealloc
{
    for (dispatch *d = first, *next; d; d = next) { /* never sent */
        next = d->next;
        for (uint32_t i = 0; i < BUFS_MAX; i++)
            [d->bufs[i] release];
        [d->pipeline release];
        free(d);
    }
    [event release];
    [queue release];
    [super dealloc];
}
@end

@implementation MFTQueue
- (id<MTLCommandBuffer>)commandBuffer
{
    MFTCommandBuffer *b = [[MFTCommandBuffer alloc] init];
    b->queue = [self retain];
    b->last = &b->first;
    return [b autorelease];
}
- (void)executeOne
{
    if (n_sent == 0)
        return;
    MFTCommandBuffer *b = sent[0];
    memmove(sent, sent + 1, (size_t)--n_sent * sizeof *sent);
    [b execute];
    [b release];
}
- (void)addResidencySet:(id<MTLResidencySet>)s
{
    set = (MFTResidencySet *)[s retain];
}
- (void)removeResidencySet:(id<MTLResidencySet>)s
{
    if ((MFTResidencySet *)s == set) {
        [set release];
        set = nil;
    }
}
- (void)dealloc
{
    if (n_sent)
        fault("a queue ends while %d command buffers are under way", n_sent);
    [set release];
    [super dealloc];
}
@end

@implementation MFTEvent
- (uint64_t)signaledValue
{
    if (++n_looks >= state.looks) {
        [(MFTQueue *)queue executeOne];
        n_looks = 0;
    }
    return value;
}
@end

/* ---- the device ---- */

@interface MFTDevice : MFTObject <MTLDevice>
@end
@implementation MFTDevice
- (NSString *)name
{
    return [NSString stringWithUTF8String:"Fake M1"];
}
- (BOOL)hasUnifiedMemory
{
    return !state.own_memory;
}
- (BOOL)supportsFamily:(MTLGPUFamily)family
{
    return family == MTLGPUFamilyApple7 && !state.old_family;
}
- (NSUInteger)maxBufferLength
{
    return state.max_buf_bytes;
}
- (uint64_t)recommendedMaxWorkingSetSize
{
    return state.working_set_bytes;
}
- (NSUInteger)currentAllocatedSize
{
    return state.buffer_bytes;
}
- (id<MTLCommandQueue>)newCommandQueue
{
    return state.no_queue ? nil : [[MFTQueue alloc] init];
}
- (id<MTLSharedEvent>)newSharedEvent
{
    return [[MFTEvent alloc] init];
}
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options
{
    if (length == 0 || length > state.max_buf_bytes || count_down(&state.refuse_buffer))
        return nil;
    NSUInteger pages = (length + PAGE - 1) / PAGE * PAGE;
    void *memory =
        mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return nil;
    MFTBuffer *b = [[MFTBuffer alloc] init];
    b->memory = memory;
    b->bytes = length;
    b->mapped_bytes = pages;
    b->untracked = options & MTLResourceHazardTrackingModeUntracked;
    state.buffer_bytes += length;
    return b;
}
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)pointer
                                   length:(NSUInteger)length
                                  options:(MTLResourceOptions)options
                              deallocator:(void *)deallocator
{
    if (count_down(&state.refuse_wrap))
        return nil;
    if (deallocator || options != MTLResourceStorageModeShared)
        fault("mapped memory isn't the buffer's to free, nor private");
    if ((uintptr_t)pointer % PAGE || length % PAGE || length == 0 || length > state.max_buf_bytes)
        return nil;
    if (state.copy_wraps)
        return [self newBufferWithLength:length options:options];
    MFTBuffer *b = [[MFTBuffer alloc] init];
    b->memory = pointer;
    b->bytes = length;
    b->wrap = (int)(state.n_wraps++ % MFT_METAL_WRAPS);
    state.wraps[b->wrap].address = pointer;
    state.wraps[b->wrap].len = length;
    state.wraps[b->wrap].alive = true;
    return b;
}
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)source
                               options:(MTLCompileOptions *)options
                                 error:(NSError **)error
{
    if (![options exact])
        fault("kernels are compiled with fast maths, or for another language");
    if (state.compile_error || !strstr([source UTF8String], "kernel void")) {
        *error = error_of("program_source:1:1: error: this is no program, says the fake");
        return nil;
    }
    return [[MFTLibrary alloc] init];
}
- (id<MTLComputePipelineState>)newComputePipelineStateWithFunction:(id<MTLFunction>)function
                                                             error:(NSError **)error
{
    const char *name = ((MFTFunction *)function)->name;
    const mfi_metal_kernel_info *info = NULL;
    for (int i = 0; i < MFI_METAL_N_KERNELS; i++)
        if (strcmp(mfi_metal_kernels[i].name, name) == 0)
            info = &mfi_metal_kernels[i];
    if (!info || (state.broken_kernel && strcmp(state.broken_kernel, name) == 0)) {
        *error = error_of("too many registers, says the fake");
        return nil;
    }
    MFTPipeline *p = [[MFTPipeline alloc] init];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->info = info;
    return p;
}
- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor *)descriptor
                                               error:(NSError **)error
{
    (void)descriptor, (void)error;
    return state.no_residency ? nil : [[MFTResidencySet alloc] init];
}
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void)
{
    return state.no_device ? nil : [[MFTDevice alloc] init];
}
