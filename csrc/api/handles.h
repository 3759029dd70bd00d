// What the opaque handles of the C ABI hold.
#ifndef TRM_EDGE_API_HANDLES_H
#define TRM_EDGE_API_HANDLES_H

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "core/session.h"
#include "trm_edge/trm_edge.h"

struct trm_model {
    std::shared_ptr<const trm::Model> model;
};

struct trm_session {
    trm_session(std::shared_ptr<const trm::Model> model, const trm::SessionOptions& options)
        : core(std::move(model), options) {}

    trm::Session core;
    std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

namespace trm::api {

// Return the model of the bundle that read() returns; options (null: the defaults) are checked before anything is read.
std::shared_ptr<const Model> load_model(const trm_load_options* options, const std::function<Bundle()>& read);

}  // namespace trm::api

#endif
