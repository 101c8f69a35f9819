/* Stand-in for the few protocols of Metal that src/backend/metal uses, written from their
 * documentation for the fake device; see tests/metal/fake/fake_metal.h. */
#ifndef MFT_METAL_METAL_H
#define MFT_METAL_METAL_H

#import <Foundation/Foundation.h>

#ifdef __APPLE__ /* clang's check for the system itself: it runs nothing, and asks @available */
#define MACOS_15 __attribute__((availability(macos, introduced = 15.0)))
#define UP_TO_MACOS_15(instead)                                                                    \
    __attribute__((availability(macos, introduced = 10.11, deprecated = 15.0, message = instead)))
#else
/* What @available would ask: whether this is macOS 15. */
#define HAS_RESIDENCY mft_metal_is_macos_15()
BOOL mft_metal_is_macos_15(void);
#define MACOS_15
#define UP_TO_MACOS_15(instead)
#endif

typedef struct {
    NSUInteger width, height, depth;
} MTLSize;

static inline MTLSize MTLSizeMake(NSUInteger width, NSUInteger height, NSUInteger depth)
{
    MTLSize size = {width, height, depth};
    return size;
}

typedef NSUInteger MTLResourceOptions;
enum {
    MTLResourceStorageModeShared = 0,
    MTLResourceStorageModePrivate = 32,
    MTLResourceHazardTrackingModeUntracked = 256
};
typedef NSInteger MTLGPUFamily;
enum { MTLGPUFamilyApple7 = 1007 };
typedef NSUInteger MTLLanguageVersion;
enum { MTLLanguageVersion3_0 = 3 << 16 };
typedef NSInteger MTLMathMode;
enum { MTLMathModeSafe = 0 };
typedef NSUInteger MTLCommandBufferStatus;
enum {
    MTLCommandBufferStatusNotEnqueued = 0,
    MTLCommandBufferStatusCommitted = 2,
    MTLCommandBufferStatusCompleted = 4,
    MTLCommandBufferStatusError = 5
};

@interface MTLCompileOptions : NSObject {
    BOOL fast;
    MTLMathMode math;
    MTLLanguageVersion version;
}
- (void)setFastMathEnabled:(BOOL)on UP_TO_MACOS_15("mathMode");
- (void)setMathMode:(MTLMathMode)mode MACOS_15;
- (void)setLanguageVersion:(MTLLanguageVersion)version;
- (BOOL)exact; /* the fake's own: neither fast nor relaxed */
@end

MACOS_15
@interface MTLResidencySetDescriptor : NSObject {
    NSUInteger capacity;
}
- (void)setInitialCapacity:(NSUInteger)n;
@end

@protocol MTLAllocation <NSObject>
@end

@protocol MTLBuffer <MTLAllocation>
- (void *)contents;
- (NSUInteger)length;
@end

@protocol MTLFunction <NSObject>
@end

@protocol MTLLibrary <NSObject>
- (id<MTLFunction>)newFunctionWithName:(NSString *)name;
@end

@protocol MTLComputePipelineState <NSObject>
- (NSUInteger)maxTotalThreadsPerThreadgroup;
- (NSUInteger)threadExecutionWidth;
@end

@protocol MTLEvent <NSObject>
@end

@protocol MTLSharedEvent <MTLEvent>
- (uint64_t)signaledValue;
@end

MACOS_15
@protocol MTLResidencySet <NSObject>
- (void)addAllocation:(id<MTLAllocation>)allocation;
- (void)removeAllocation:(id<MTLAllocation>)allocation;
- (void)commit;
- (void)requestResidency;
- (void)endResidency;
@end

@protocol MTLComputeCommandEncoder <NSObject>
- (void)setComputePipelineState:(id<MTLComputePipelineState>)state;
- (void)setBytes:(const void *)bytes length:(NSUInteger)length atIndex:(NSUInteger)index;
- (void)setBuffer:(id<MTLBuffer>)buffer offset:(NSUInteger)offset atIndex:(NSUInteger)index;
- (void)setThreadgroupMemoryLength:(NSUInteger)length atIndex:(NSUInteger)index;
- (void)dispatchThreadgroups:(MTLSize)groups threadsPerThreadgroup:(MTLSize)threads;
- (void)endEncoding;
@end

@protocol MTLCommandBuffer <NSObject>
- (id<MTLComputeCommandEncoder>)computeCommandEncoder;
- (void)encodeSignalEvent:(id<MTLEvent>)event value:(uint64_t)value;
- (void)commit;
- (void)waitUntilCompleted;
- (MTLCommandBufferStatus)status;
- (NSError *)error;
@end

@protocol MTLCommandQueue <NSObject>
- (id<MTLCommandBuffer>)commandBuffer;
- (void)addResidencySet:(id<MTLResidencySet>)set MACOS_15;
- (void)removeResidencySet:(id<MTLResidencySet>)set MACOS_15;
@end

@protocol MTLDevice <NSObject>
- (NSString *)name;
- (BOOL)hasUnifiedMemory;
- (BOOL)supportsFamily:(MTLGPUFamily)family;
- (NSUInteger)maxBufferLength;
- (uint64_t)recommendedMaxWorkingSetSize;
- (NSUInteger)currentAllocatedSize;
- (id<MTLCommandQueue>)newCommandQueue;
- (id<MTLSharedEvent>)newSharedEvent;
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options;
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)pointer
                                   length:(NSUInteger)length
                                  options:(MTLResourceOptions)options
                              deallocator:(void *)deallocator;
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)source
                               options:(MTLCompileOptions *)options
                                 error:(NSError **)error;
- (id<MTLComputePipelineState>)newComputePipelineStateWithFunction:(id<MTLFunction>)function
                                                             error:(NSError **)error;
- (id<MTLResidencySet>)newResidencySetWithDescriptor:(MTLResidencySetDescriptor *)descriptor
                                               error:(NSError **)error MACOS_15;
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void);

#endif
