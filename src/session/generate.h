/* What generating needs of a session beyond the public header. */
#ifndef MFI_SESSION_GENERATE_H
#define MFI_SESSION_GENERATE_H

#include "session/session.h"

const mfi_session_host *mfi_session_host_of(const mf_session *session);

#endif
