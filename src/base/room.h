/* Room at the end of arrays that grow. */
#ifndef MFI_BASE_ROOM_H
#define MFI_BASE_ROOM_H

#include <stdbool.h>
#include <stdlib.h>

/* Whether there is room for items[n], of which `cap` are allocated. Doubles them (from `first`)
 * where there is none; false without memory, and nothing is lost then. Callers hold n to a limit.
 */
#define MFI_ROOM(items, n, cap, first)                                                             \
    ({                                                                                             \
        bool room_ = (n) < (cap);                                                                  \
        if (!room_) {                                                                              \
            __typeof__(cap) more_ = (cap) ? (cap)*2 : (first);                                     \
            void *grown_ = realloc((items), more_ * sizeof *(items));                              \
            room_ = grown_ != NULL;                                                                \
            if (room_) {                                                                           \
                (items) = grown_;                                                                  \
                (cap) = more_;                                                                     \
            }                                                                                      \
        }                                                                                          \
        room_;                                                                                     \
    })

#endif
