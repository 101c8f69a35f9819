/* The public functions that belong to no module: the version, and freeing what the library
 * allocated for the caller. Any thread; no state. */
#include "base/status.h"

#include <stdlib.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *mf_version(void)
{
    return TEXT(MF_VERSION_MAJOR) "." TEXT(MF_VERSION_MINOR) "." TEXT(MF_VERSION_PATCH);
}

void mf_free(void *p)
{
    free(p);
}
