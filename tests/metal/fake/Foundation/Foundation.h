/* Stand-in for the few classes of Foundation that src/backend/metal uses, written from their
 * documentation for the fake device; see tests/metal/fake/fake_metal.h. */
#ifndef MFT_FOUNDATION_H
#define MFT_FOUNDATION_H

#include <objc/objc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long NSUInteger;
typedef long NSInteger;

enum { NSUTF8StringEncoding = 4 };

@protocol NSObject
- (id)retain;
- (void)release;
- (BOOL)respondsToSelector:(SEL)selector;
@end

__attribute__((objc_root_class))
@interface NSObject <NSObject> {
    Class isa;
    int n_refs;
}
+ (id)alloc;
- (id)init;
- (id)retain;
- (void)release;
- (id)autorelease;
- (void)dealloc;
- (NSUInteger)retainCount;
- (BOOL)respondsToSelector:(SEL)selector;
@end

@interface NSAutoreleasePool : NSObject {
    NSUInteger first;
}
- (void)drain;
@end

@interface NSString : NSObject {
    char *text;
}
+ (NSString *)stringWithUTF8String:(const char *)text;
- (id)initWithBytes:(const void *)bytes length:(NSUInteger)length encoding:(NSUInteger)encoding;
- (const char *)UTF8String;
@end

@interface NSError : NSObject {
    NSString *description;
}
- (id)initWithText:(const char *)text; /* the fake's own */
- (NSString *)localizedDescription;
@end

#endif
