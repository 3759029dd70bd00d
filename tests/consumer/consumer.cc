// The header in C++: a wrong call gives a status and a message.
#include <trm_edge/trm_edge.h>

#include <iostream>
#include <string>

int main() {
    trm_model* model = nullptr;
    const trm_status status = trm_model_load_file("/no/such/file.trm", nullptr, &model);
    std::cout << trm_version() << ' ' << trm_status_name(status) << ": " << trm_last_message() << '\n';
    return status == TRM_IO_ERROR && std::string(trm_last_message()).find("/no/such/file.trm") != std::string::npos ? 0
                                                                                                                    : 1;
}
