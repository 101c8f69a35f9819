/* Status codes of moeflux: one list from which names, numbers and strings derive.
 *
 * Numbers are stable within a major version and grouped: -1.. the caller, -10.. files, -20.. what
 * is in them, -30.. room, -40.. devices. 0 is success; every failure is negative.
 */
#ifndef MF_STATUS_H
#define MF_STATUS_H

#define MF_STATUS_LIST(X)                                                                          \
    X(OK, 0, "ok")                                                                                 \
    X(ERR_ARGUMENT, -1, "invalid argument")                                                        \
    X(ERR_NO_MEMORY, -2, "out of memory")                                                          \
    X(ERR_LIMIT, -3, "a limit of this build is exceeded")                                          \
    X(ERR_CANCELLED, -4, "cancelled")                                                              \
    X(ERR_STATE, -5, "not possible in this state")                                                 \
    X(ERR_IO, -10, "input/output error")                                                           \
    X(ERR_FILE_MISSING, -11, "no such file")                                                       \
    X(ERR_FILE_CHANGED, -12, "file changed while in use")                                          \
    X(ERR_FILE_TRUNCATED, -13, "file ends too early")                                              \
    X(ERR_DISK_FULL, -14, "no space left for output")                                              \
    X(ERR_FORMAT, -20, "malformed file")                                                           \
    X(ERR_UNSUPPORTED, -21, "not supported")                                                       \
    X(ERR_TENSOR_MISSING, -22, "tensor missing")                                                   \
    X(ERR_TENSOR_BOUNDS, -23, "tensor lies outside its file")                                      \
    X(ERR_TENSOR_SHAPE, -24, "tensor has an unexpected shape or type")                             \
    X(ERR_EMPTY_MANIFEST, -25, "no tensors in the manifest")                                       \
    X(ERR_BUDGET, -30, "memory budget too small")                                                  \
    X(ERR_CONTEXT, -31, "context is full")                                                         \
    X(ERR_DEVICE, -40, "device failed")

typedef enum mf_status {
#define MF_STATUS_ENUM(name, value, text) MF_##name = value,
    MF_STATUS_LIST(MF_STATUS_ENUM)
#undef MF_STATUS_ENUM
} mf_status;

#endif
