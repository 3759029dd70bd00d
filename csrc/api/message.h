// The message of a thread's last failed call, in a fixed buffer: all that an error may allocate is the
// thread-local storage of a library that was opened by dlopen, at the thread's first one.
#ifndef TRM_EDGE_API_MESSAGE_H
#define TRM_EDGE_API_MESSAGE_H

#include "trm_edge/trm_edge.h"

namespace trm::api {

// Store a message (printf format) and return `status`, which is negative.
__attribute__((format(printf, 2, 3))) trm_status fail(trm_status status, const char* format, ...) noexcept;

// Turn the exception that is being handled into a status and a message.
trm_status fail_with_current_exception() noexcept;

// Call `body`, which returns a trm_status, and let no exception out.
template <typename Body>
trm_status guarded(Body&& body) noexcept {
    try {
        return body();
    } catch (...) {
        return fail_with_current_exception();
    }
}

}  // namespace trm::api

#endif
