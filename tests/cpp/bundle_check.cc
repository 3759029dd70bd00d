// Reads bundles and says what became of each: `<status> <message>`, one line a file; a good one is `0 <sha256>`, or
// after
// --verify `0 <cases> <steps> <failed> <worst>` of its golden vectors. Exit code: 0 all are good, 1 one was refused, 2
// bad usage. tests/python compares it with the Python reader.
#include <cstdio>
#include <cstring>

#include "core/bundle.h"
#include "core/status.h"
#include "trm_edge/trm_edge.h"

namespace {

bool verify(const char* path) {
    trm_verification found = TRM_VERIFICATION_INIT;
    const trm_status status = trm_verify_file(path, nullptr, &found);
    if (status == TRM_OK)
        std::printf("0 %d %d %d %.17g\n", found.cases, found.steps, found.failed, found.worst);
    else
        std::printf("%d %s\n", status, trm_last_message());
    return status == TRM_OK;
}

bool check(const char* path) {
    try {
        std::printf("0 %s\n", trm::read_bundle_file(path).sha256.c_str());
        return true;
    } catch (const trm::Error& error) {
        std::printf("%d %s\n", static_cast<int>(error.status()), error.what());
        return false;
    }
}

}  // namespace

int main(int argc, char** argv) {
    const bool verifies = argc > 1 && std::strcmp(argv[1], "--verify") == 0;
    const int first = verifies ? 2 : 1;
    if (argc <= first) {
        std::fprintf(stderr, "usage: bundle_check [--verify] FILE...\n");
        return 2;
    }
    bool good = true;
    for (int i = first; i < argc; ++i) good = (verifies ? verify(argv[i]) : check(argv[i])) && good;
    return good ? 0 : 1;
}
