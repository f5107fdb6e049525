// Step counts that the device keeps, since it decides which steps are skipped. Parameters of one group that
// have taken part in the same steps share a count. Owned by an optimizer; used by its thread.
#pragma once

#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem::optim {

class DeviceCounts {
 public:
  struct Count {
    size_t group = 0;
    Tensor steps;    // float64, a scalar
    Tensor product;  // float64, a scalar: of NAdam's momenta up to that step
    // Of both while no parameter follows them:
    int64_t known_steps = 0;
    double known_product = 1;
    bool in_use = false;  // parameters follow it
  };

  /// A group was added whose `parameters` lie on `device` and have made no step. Its first count is made
  /// here, so that a step has nothing to make.
  void add_group(size_t parameters, Device device);
  /// The parameters `taking_part` are about to make a step; the others are by parameter. Those whose steps
  /// the host has counted follow the device from now on.
  void take_over(const std::vector<size_t>& taking_part, const std::vector<size_t>& group_of,
                 const std::vector<int64_t>& steps, const std::vector<double>& products);
  /// Which count a parameter follows; -1: the host's.
  int of(size_t parameter) const { return of_[parameter]; }
  Count& operator[](int index) { return counts_[static_cast<size_t>(index)]; }
  size_t size() const { return counts_.size(); }
  /// Whether a parameter follows the device.
  bool any() const;
  /// Replaces what the host has counted, by parameter, by what the device has, where that counts.
  void read(std::vector<int64_t>& steps, std::vector<double>& products, Location where) const;
  /// The host counts again, from these on.
  void give_back(const std::vector<size_t>& group_of, const std::vector<int64_t>& steps,
                 const std::vector<double>& products);

 private:
  void part(const std::vector<size_t>& taking_part);
  std::vector<Count> counts_;
  std::vector<int> of_;
  size_t n_groups_ = 0;
};

}  // namespace tandem::optim
