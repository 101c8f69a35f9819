/* The few classes of Foundation that the backend uses; see Foundation/Foundation.h. Reference counts
 * aren't atomic: one thread calls. */
#import <Foundation/Foundation.h>

#include <objc/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOLED_MAX 4096

/* Objects that wait for the pool that is drained next, all pools in one list. */
static id pooled[POOLED_MAX];
static NSUInteger n_pooled;

@implementation NSObject
+ (id)alloc
{
    NSObject *o = class_createInstance(self, 0);
    o->n_refs = 1;
    return o;
}
- (id)init
{
    return self;
}
- (id)retain
{
    n_refs++;
    return self;
}
- (void)release
{
    if (n_refs <= 0) {
        fprintf(stderr, "fake Metal: an object is released after its end\n");
        abort();
    }
    if (--n_refs == 0)
        [self dealloc];
}
- (id)autorelease
{
    if (n_pooled == POOLED_MAX) {
        fprintf(stderr, "fake Metal: no pool is drained\n");
        abort();
    }
    pooled[n_pooled++] = self;
    return self;
}
- (void)dealloc
{
    object_dispose(self);
}
- (NSUInteger)retainCount
{
    return (NSUInteger)n_refs;
}
- (BOOL)respondsToSelector:(SEL)selector
{
    return class_respondsToSelector(object_getClass(self), selector);
}
@end

@implementation NSAutoreleasePool
- (id)init
{
    first = n_pooled;
    return self;
}
- (void)drain
{
    while (n_pooled > first)
        [pooled[--n_pooled] release];
    [self release];
}
@end

@implementation NSString
+ (NSString *)stringWithUTF8String:(const char *)text
{
    NSString *s = [[NSString alloc] initWithBytes:text
                                           length:strlen(text)
                                         encoding:NSUTF8StringEncoding];
    return [s autorelease];
}
- (id)initWithBytes:(const void *)bytes length:(NSUInteger)length encoding:(NSUInteger)encoding
{
    (void)encoding;
    text = malloc(length + 1);
    memcpy(text, bytes, length);
    text[length] = 0;
    return self;
}
- (const char *)UTF8String
{
    return text;
}
- (void)dealloc
{
    free(text);
    [super dealloc];
}
@end

@implementation NSError
- (id)initWithText:(const char *)text
{
    description = [[NSString stringWithUTF8String:text] retain];
    return self;
}
- (NSString *)localizedDescription
{
    return description;
}
- (void)dealloc
{
    [description release];
    [super dealloc];
}
@end
