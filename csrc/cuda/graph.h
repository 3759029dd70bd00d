// Graphs of kernels, captured at first use and kept by what they depend on.
#ifndef TRM_EDGE_CUDA_GRAPH_H
#define TRM_EDGE_CUDA_GRAPH_H

#include <cuda_runtime_api.h>

#include <map>
#include <vector>

#include "cuda/check.h"
#include "cuda/resources.h"

namespace trm::cuda {

class GraphCache {
  public:
    using Key = std::vector<int>;

    GraphCache() = default;
    GraphCache(const GraphCache&) = delete;
    GraphCache& operator=(const GraphCache&) = delete;
    ~GraphCache() { clear(); }

    // Launch the graph of what `enqueue` puts on the stream that it is given: one of our own, as not every stream of a
    // caller can be captured, and others may be working on it.
    template <typename Enqueue>
    void launch(const Key& key, cudaStream_t stream, Enqueue&& enqueue) {
        auto found = graphs_.find(key);
        if (found == graphs_.end()) {
            if (graphs_.size() >= kMost) clear();
            found = graphs_.emplace(key, capture(captured_.get(), enqueue)).first;
        }
        TRM_CUDA(cudaGraphLaunch(found->second, stream));
    }

  private:
    static constexpr size_t kMost = 64;  // lengths of context differ from call to call

    template <typename Enqueue>
    static cudaGraphExec_t capture(cudaStream_t stream, Enqueue&& enqueue) {
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t executable = nullptr;
        TRM_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        try {
            enqueue(stream);
        } catch (...) {
            ignore(cudaStreamEndCapture(stream, &graph));  // which has failed, as what is thrown says
            if (graph) ignore(cudaGraphDestroy(graph));
            throw;
        }
        TRM_CUDA(cudaStreamEndCapture(stream, &graph));
        const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
        ignore(cudaGraphDestroy(graph));
        check(error, "cudaGraphInstantiate");
        return executable;
    }

    void clear() {
        for (const auto& [key, graph] : graphs_) ignore(cudaGraphExecDestroy(graph));
        graphs_.clear();
    }

    Stream captured_;
    std::map<Key, cudaGraphExec_t> graphs_;
};

}  // namespace trm::cuda

#endif
