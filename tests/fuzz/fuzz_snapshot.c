/* Any bytes as a snapshot's header: refused with a message, or sensible, and then one whose sizes
 * agree with the file's. Every input is tried as it is and with its checksum set right. */
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "session/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const unsigned char *bytes, uint64_t file_bytes)
{
    mfi_snapshot head = {0};
    mf_error err = {0};
    if (mfi_snapshot_parse(&head, bytes, file_bytes, "fuzz", &err) != MF_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    if (head.n_tokens == 0 || head.n_tokens > MFI_MAX_CTX ||
        strnlen(head.identity.text, sizeof head.identity.text) == sizeof head.identity.text ||
        MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)head.n_tokens * 4 + head.state_bytes != file_bytes)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char bytes[MFI_SNAPSHOT_HEAD_BYTES] = {0};
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    parse(bytes, size);
    uint64_t sum = mfi_checksum_of(bytes, sizeof bytes - sizeof sum);
    memcpy(bytes + sizeof bytes - sizeof sum, &sum, sizeof sum);
    parse(bytes, size);
    /* The file that the header tells of. */
    uint32_t n_tokens;
    uint64_t state_bytes;
    memcpy(&n_tokens, bytes + 40, sizeof n_tokens);
    memcpy(&state_bytes, bytes + 48, sizeof state_bytes);
    parse(bytes, MFI_SNAPSHOT_HEAD_BYTES + (uint64_t)n_tokens * 4 + state_bytes);
    return 0;
}
