#include "api/message.h"

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <new>
#include <system_error>

#include "core/status.h"

namespace trm::api {
namespace {

// The header's numbers and those of core/ are one set.
constexpr bool is(Status status, trm_status number) { return static_cast<trm_status>(status) == number; }
static_assert(is(Status::kOk, TRM_OK));
static_assert(is(Status::kHalted, TRM_HALTED));
static_assert(is(Status::kNonfinite, TRM_NONFINITE));
static_assert(is(Status::kOutsideLimits, TRM_OUTSIDE_LIMITS));
static_assert(is(Status::kInvalidArgument, TRM_INVALID_ARGUMENT));
static_assert(is(Status::kInvalidBundle, TRM_INVALID_BUNDLE));
static_assert(is(Status::kUnsupportedVersion, TRM_UNSUPPORTED_VERSION));
static_assert(is(Status::kIoError, TRM_IO_ERROR));
static_assert(is(Status::kOutOfMemory, TRM_OUT_OF_MEMORY));
static_assert(is(Status::kUnsupported, TRM_UNSUPPORTED));
static_assert(is(Status::kBusy, TRM_BUSY));
static_assert(is(Status::kNotBegun, TRM_NOT_BEGUN));
static_assert(is(Status::kInternal, TRM_INTERNAL));
static_assert(is(Status::kDeviceError, TRM_DEVICE_ERROR));

thread_local char last_message[5120] = "";  // a path of PATH_MAX bytes, and what is wrong with it

}  // namespace

trm_status fail(trm_status status, const char* format, ...) noexcept {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(last_message, sizeof last_message, format, arguments);
    va_end(arguments);
    return status;
}

trm_status fail_with_current_exception() noexcept {
    try {
        throw;
    } catch (const Error& error) {
        return fail(static_cast<trm_status>(error.status()), "%s", error.what());
    } catch (const std::bad_alloc&) {
        return fail(TRM_OUT_OF_MEMORY, "out of memory: the model or session does not fit");
    } catch (const std::system_error&) {
        return fail(TRM_OUT_OF_MEMORY, "threads: the system grants no more threads; ask for fewer");
    } catch (const std::exception& error) {
        return fail(TRM_INTERNAL, "internal error: %s", error.what());
    } catch (...) {
        return fail(TRM_INTERNAL, "internal error");
    }
}

}  // namespace trm::api

extern "C" {

const char* trm_last_message(void) { return trm::api::last_message; }

const char* trm_version(void) { return TRM_EDGE_VERSION; }

const char* trm_status_name(trm_status status) {
    switch (status) {
        case TRM_OK:
            return "TRM_OK";
        case TRM_HALTED:
            return "TRM_HALTED";
        case TRM_NONFINITE:
            return "TRM_NONFINITE";
        case TRM_OUTSIDE_LIMITS:
            return "TRM_OUTSIDE_LIMITS";
        case TRM_INVALID_ARGUMENT:
            return "TRM_INVALID_ARGUMENT";
        case TRM_INVALID_BUNDLE:
            return "TRM_INVALID_BUNDLE";
        case TRM_UNSUPPORTED_VERSION:
            return "TRM_UNSUPPORTED_VERSION";
        case TRM_IO_ERROR:
            return "TRM_IO_ERROR";
        case TRM_OUT_OF_MEMORY:
            return "TRM_OUT_OF_MEMORY";
        case TRM_UNSUPPORTED:
            return "TRM_UNSUPPORTED";
        case TRM_BUSY:
            return "TRM_BUSY";
        case TRM_NOT_BEGUN:
            return "TRM_NOT_BEGUN";
        case TRM_INTERNAL:
            return "TRM_INTERNAL";
        case TRM_DEVICE_ERROR:
            return "TRM_DEVICE_ERROR";
        default:
            return "TRM_?";
    }
}

}  // extern "C"
