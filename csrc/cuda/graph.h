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
        if (found == graphs_.end()) found = graphs_.emplace(key, capture(captured_.get(), enqueue)).first;
        TRM_CUDA(cudaGraphLaunch(found->second, stream));
    }

  private:
    // Lengths of context differ from call to call, and each node may take tens of kilobytes of the device.
    static constexpr size_t kMost = 64, kMostNodes = 1 << 14;

    struct Graph {
        ~Graph() {
            if (handle) ignore(cudaGraphDestroy(handle));
        }
        cudaGraph_t handle = nullptr;
    };

    template <typename Enqueue>
    cudaGraphExec_t capture(cudaStream_t stream, Enqueue&& enqueue) {
        Graph graph;
        cudaGraphExec_t executable = nullptr;
        size_t nodes = 0;
        TRM_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        try {
            enqueue(stream);
        } catch (...) {
            ignore(cudaStreamEndCapture(stream, &graph.handle));  // which has failed, as what is thrown says
            throw;
        }
        TRM_CUDA(cudaStreamEndCapture(stream, &graph.handle));
        TRM_CUDA(cudaGraphGetNodes(graph.handle, nullptr, &nodes));
        if (graphs_.size() >= kMost || nodes_ + nodes > kMostNodes) clear();
        TRM_CUDA(cudaGraphInstantiate(&executable, graph.handle, 0));
        nodes_ += nodes;
        return executable;
    }

    void clear() {
        for (const auto& [key, graph] : graphs_) ignore(cudaGraphExecDestroy(graph));
        graphs_.clear();
        nodes_ = 0;
    }

    Stream captured_;
    std::map<Key, cudaGraphExec_t> graphs_;
    size_t nodes_ = 0;  // of all of them
};

}  // namespace trm::cuda

#endif
