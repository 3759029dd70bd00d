// Reads bundles and says what became of each: `<status> <message>`, one line a file; a good one is `0 <sha256>`.
// Exit code: 0 all are good, 1 one was refused, 2 bad usage. tests/python compares it with the Python reader.
#include <cstdio>

#include "core/bundle.h"
#include "core/status.h"

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: bundle_check FILE...\n");
        return 2;
    }
    int code = 0;
    for (int i = 1; i < argc; ++i) {
        try {
            std::printf("0 %s\n", trm::read_bundle_file(argv[i]).sha256.c_str());
        } catch (const trm::Error& error) {
            std::printf("%d %s\n", static_cast<int>(error.status()), error.what());
            code = 1;
        }
    }
    return code;
}
