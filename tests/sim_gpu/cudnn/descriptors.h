// Descriptors of the simulated cuDNN: which attributes each kind has, what they must be, and what becomes of
// them when a descriptor is finalized. Stricter than the library: what that would only do in some release, or
// crash on, is refused. They belong to whoever made them; any thread, under one lock.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tandem/core/cuda/cudnn_api.h"
#include "tests/sim_gpu/cudnn/graph.h"

namespace tandem::cuda {

struct DescriptorOfCudnn {
  int kind = 0;
  bool finalized = false;
  std::map<int, std::vector<std::byte>> values;  // by attribute
  // What finalizing, or the heuristic, made of it:
  std::optional<sim_gpu::ConvolutionData> problem;  // of operations, graphs, engines and what follows
  std::optional<sim_gpu::Operation> operation;      // of those that are no convolutions
  std::vector<sim_gpu::Operation> graph;            // instead of a convolution
  int engine = 0;
  std::vector<int> proposals;  // engines

  /// The elements of an attribute that was set.
  template <class T>
  std::vector<T> read(int attribute) const {
    const auto found = values.find(attribute);
    if (found == values.end()) return {};
    std::vector<T> out(found->second.size() / sizeof(T));
    for (size_t i = 0; i < out.size(); ++i)
      __builtin_memcpy(&out[i], found->second.data() + i * sizeof(T), sizeof(T));
    return out;
  }
  template <class T>
  T first(int attribute) const {
    return read<T>(attribute).at(0);
  }
};

}  // namespace tandem::cuda

namespace sim_gpu {

using Cudnn = tandem::cuda::Cudnn;
using Descriptor = Cudnn::Descriptor;

/// An engine as the simulator has it; its number is a bit of sim_gpu_set_engines.
struct Engine {
  int index;
  std::vector<int> notes;
  int64_t workspace_bytes;
  bool plans = true;     // else it is proposed, but gives no plan
  bool spoiled = false;  // its results are wrong
  int64_t alignment = 1;
  std::vector<int> behavior = {};
};
const Engine& engine(int index);

/// Tells what is wrong, here and in cudnnGetLastErrorString. Returns `status`.
int refuse(const std::string& what, int status);
std::string& last_refusal();

/// Those that were made and not destroyed. All under the lock.
std::mutex& descriptors_lock();
Descriptor make_descriptor(int kind);
bool forget_descriptor(Descriptor d);
/// Success if it exists.
int check_descriptor(Descriptor d);

int set_attribute(Descriptor d, int attribute, int type, int64_t count, const void* values);
int get_attribute(Descriptor d, int attribute, int type, int64_t wanted, int64_t* count, void* values);
int finalize(Descriptor d);

}  // namespace sim_gpu
