// Step counts that the device keeps, since it decides which steps are skipped. Parameters of one group that
// have taken part in the same steps share a count. Owned by an optimizer; used by its thread.
#pragma once

#include <functional>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem::optim {

class DeviceCounts {
 public:
  struct Count {
    size_t group = 0;
    Tensor steps;         // float64, a scalar
    Tensor product;       // float64, a scalar: of NAdam's momenta up to that step
    int64_t value = 0;    // of `steps` while no parameter follows it
    bool in_use = false;  // parameters follow it
  };
  /// The second number of a count of a group after so many steps.
  using Product = std::function<double(size_t group, int64_t steps)>;

  /// A group was added whose `parameters` lie on `device` and have made no step. Its first count is made
  /// here, so that a step has nothing to make.
  void add_group(size_t parameters, Device device);
  /// The parameters `taking_part` are about to make a step; `group_of` and `host_steps` are by parameter.
  /// Those whose steps the host has counted follow the device from now on.
  void take_over(const std::vector<size_t>& taking_part, const std::vector<size_t>& group_of,
                 const std::vector<int64_t>& host_steps, const Product& product);
  /// Which count a parameter follows; -1: the host's.
  int of(size_t parameter) const { return of_[parameter]; }
  Count& operator[](int index) { return counts_[static_cast<size_t>(index)]; }
  size_t size() const { return counts_.size(); }
  /// Whether a parameter follows the device.
  bool any() const;
  /// The steps of all parameters, read from the device where it counts.
  std::vector<int64_t> read(std::vector<int64_t> host_steps, Location where) const;
  /// The host counts again, from `host_steps` on.
  void give_back(const std::vector<size_t>& group_of, const std::vector<int64_t>& host_steps,
                 const Product& product);

 private:
  void part(const std::vector<size_t>& taking_part);
  std::vector<Count> counts_;
  std::vector<int> of_;
  size_t n_groups_ = 0;
};

}  // namespace tandem::optim
