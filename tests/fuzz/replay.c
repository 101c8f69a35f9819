/* A main for fuzz targets without libFuzzer: runs the seeds, whole and cut short at every
 * hundredth, as an ordinary test, so that what fuzzing found once stays found on every machine.
 *
 * Usage: TARGET FILE_OR_FOLDER... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak)); /* few targets have one */

static size_t n_inputs;

/* In an allocation of its own size, so that a sanitizer sees a read beyond it. */
static void run(const uint8_t *bytes, size_t len)
{
    uint8_t *own = malloc(len ? len : 1);
    if (!own)
        abort();
    memcpy(own, bytes, len);
    LLVMFuzzerTestOneInput(own, len);
    free(own);
    n_inputs++;
}

static int run_file(const char *path, long len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = malloc((size_t)len + 1);
    if (!f || !bytes || fread(bytes, 1, (size_t)len, f) != (size_t)len) {
        perror(path);
        return 1;
    }
    fclose(f);
    fprintf(stderr, "%s\n", path); /* the last one named is the one that crashed */
    for (long i = 0; i < 100 && len; i++)
        if (i == 0 || len * i / 100 != len * (i - 1) / 100)
            run(bytes, (size_t)(len * i / 100));
    run(bytes, (size_t)len);
    free(bytes);
    return 0;
}

static int run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        return 1;
    }
    if (!S_ISDIR(st.st_mode))
        return run_file(path, (long)st.st_size);
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort), failed = n < 0;
    for (int i = 0; i < n; i++) {
        char inside[4096];
        snprintf(inside, sizeof inside, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            failed |= run_path(inside);
        free(names[i]);
    }
    free(n >= 0 ? names : NULL);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        failed |= run_path(argv[i]);
    printf("%zu inputs\n", n_inputs);
    return failed || n_inputs == 0;
}
