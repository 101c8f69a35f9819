/* Rates of queued copies between an H100's host and the device, for bounds: bench/cuda.py builds and
 * runs it. One JSON object: for pieces of each size given (bytes), GB/s from pinned memory to the
 * device, back, both at once (each way), and from a file's mapping that is registered read-only
 * (0: refused). Pieces come from all over 4 GiB, or the file; best of three.
 *
 *     nvcc -O2 -o cuda_copies bench/cuda_copies.cu && ./cuda_copies FILE SIZE... */
#include <cuda_runtime.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GIB         ((size_t)1 << 30)
#define HOST_BYTES  (4 * GIB)
#define MOVED_BYTES (2 * GIB)

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(e_));                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* GB/s of one direction; up and down together if both are wanted. */
static double rate(char *device, char *host, size_t host_bytes, size_t piece, bool up, bool down)
{
    cudaStream_t s[2];
    double best = 0;
    size_t n = MOVED_BYTES / piece, places = host_bytes / piece;
    for (int i = 0; i < 2; i++)
        CHECK(cudaStreamCreateWithFlags(&s[i], cudaStreamNonBlocking));
    for (int round = 0; round < 3; round++) {
        double begin = now();
        for (size_t i = 0; i < n; i++) {
            size_t from = (i * 7919) % places * piece, to = (i * 5 % 64) * piece;
            if (up)
                CHECK(cudaMemcpyAsync(device + to, host + from, piece, cudaMemcpyHostToDevice,
                                      s[0]));
            from = (i * 7919 + places / 2) % places * piece;
            if (down)
                CHECK(cudaMemcpyAsync(host + from, device + (64 + i * 5 % 64) * piece, piece,
                                      cudaMemcpyDeviceToHost, s[1]));
        }
        for (int i = 0; i < 2; i++)
            CHECK(cudaStreamSynchronize(s[i]));
        double gbs = (double)(n * piece) / (now() - begin) / 1e9;
        best = gbs > best ? gbs : best;
    }
    for (int i = 0; i < 2; i++)
        CHECK(cudaStreamDestroy(s[i]));
    return best;
}

int main(int argc, char **argv)
{
    struct stat st;
    int fd = argc > 2 ? open(argv[1], O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &st) != 0)
        return fprintf(stderr, "usage: cuda_copies FILE SIZE...\n"), 2;
    size_t largest = 0;
    for (int i = 2; i < argc; i++)
        largest = strtoull(argv[i], NULL, 10) > largest ? strtoull(argv[i], NULL, 10) : largest;
    char *device, *host;
    double begin = now();
    CHECK(cudaFree(NULL));
    double start = now() - begin;
    CHECK(cudaMalloc((void **)&device, 128 * largest));
    begin = now();
    CHECK(cudaHostAlloc((void **)&host, HOST_BYTES, 0));
    double alloc = now() - begin;
    size_t len = (size_t)st.st_size < HOST_BYTES ? (size_t)st.st_size & ~(size_t)4095 : HOST_BYTES;
    char *file = (char *)mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    begin = now();
    cudaError_t refused =
        cudaHostRegister(file, len, cudaHostRegisterReadOnly | cudaHostRegisterMapped);
    double reg = now() - begin;
    struct cudaDeviceProp prop;
    CHECK(cudaGetDeviceProperties(&prop, 0));
    (void)cudaGetLastError();
    printf("{\"device\":\"%s\",\"start_s\":%.2f,\"host_alloc_s_per_gib\":%.3f,"
           "\"register_s_per_gib\":%.3f,\"register_refused\":\"%s\",\"read_only_property\":%d,"
           "\"pieces\":[",
           prop.name, start, alloc * GIB / HOST_BYTES, reg * GIB / (double)len,
           refused == cudaSuccess ? "" : cudaGetErrorString(refused),
           prop.hostRegisterReadOnlySupported);
    for (int i = 2; i < argc; i++) {
        size_t piece = strtoull(argv[i], NULL, 10);
        double mapped = refused == cudaSuccess ? rate(device, file, len, piece, true, false) : 0;
        printf("%s{\"bytes\":%zu,\"up\":%.2f,\"down\":%.2f,\"both\":%.2f,\"mapped\":%.2f}",
               i > 2 ? "," : "", piece, rate(device, host, HOST_BYTES, piece, true, false),
               rate(device, host, HOST_BYTES, piece, false, true),
               rate(device, host, HOST_BYTES, piece, true, true), mapped);
    }
    printf("]}\n");
    return 0;
}
