// Runs the unit tests; with TRM_EDGE_ISA set to what this processor lacks, says so and skips them.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "trm_edge/trm_edge.h"

int main(int argc, char** argv) {
    constexpr int kSkipped = 77;  // SKIP_RETURN_CODE in CMakeLists.txt
    const char* isa = std::getenv("TRM_EDGE_ISA");
    const std::string supported = "," + std::string(trm_supported_isas()) + ",";
    if (isa != nullptr && *isa != '\0' && supported.find("," + std::string(isa) + ",") == std::string::npos) {
        std::printf("skipped: this processor does not support %s\n", isa);
        return kSkipped;
    }
    return doctest::Context(argc, argv).run();
}
