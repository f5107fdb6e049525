// Optimizer: parameter groups with numbers of their own, and a state per parameter (moments, step count) that
// the constructor makes. It holds handles to the parameters, whose module may die first. An optimizer neither
// moves nor copies (schedulers point to it); one thread at a time.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <utility>

#include "tandem/eager/named_tensor.h"
#include "tandem/eager/optim/device_counts.h"

namespace tandem::eager {
struct StepCounts;
}

namespace tandem::optim {

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Updates every parameter that has a gradient, in order of registration.
  void step(Location where = Location::here());
  /// step() where `skip`, a scalar on the parameters' device, is 0; else parameters, moments and step counts
  /// stay as they are, bit for bit. The device decides, the host reads nothing, so a traced function has one
  /// path for both. From then on the device keeps the step counts, until state() or step() reads them.
  /// Errors: another `skip`, parameters on another device.
  void step_unless(const Tensor& skip, Location where = Location::here());
  /// A number that no other optimizer of the program has or had.
  uint64_t id() const { return id_; }
  /// In order of registration.
  std::vector<Tensor> parameters() const;
  /// Drops the gradients of all parameters.
  void zero_grad();

  size_t group_count() const { return groups_.size(); }
  /// The learning rate of a group: a plain number, read at each step.
  double lr(size_t group = 0, Location where = Location::here()) const { return numbers(group, where)[0]; }
  void set_lr(double lr, size_t group = 0, Location where = Location::here());
  /// The rate that the group had when its first scheduler was made, which asked for it.
  double initial_lr(size_t group = 0, Location where = Location::here());

  /// Numbers of the groups ("group.0.lr"), step counts ("0.step"), NAdam's products of momenta
  /// ("0.mu_product") and moments ("0.exp_avg") by the parameters' indices.
  std::vector<NamedTensor> state() const;
  /// Takes back what state() gave. An Error lists missing and unexpected names, wrong shapes and dtypes, or
  /// names an impossible number or one that needs moments which are not there; nothing is changed then. A
  /// state without any of NAdam's products, as older versions gave it, has those of its step counts under its
  /// groups' numbers, as if these never changed.
  void load_state(const std::vector<NamedTensor>& state, Location where = Location::here());
  /// The Error that load_state would throw, and no change.
  void check_state(const std::vector<NamedTensor>& state, Location where = Location::here()) const;

  static constexpr size_t kNumbers = 7, kMoments = 3;
  /// Of a group; the first is the learning rate.
  using Numbers = std::array<double, kNumbers>;
  /// What an optimizer calls its numbers and its moments.
  struct Names {
    const char* optimizer;
    std::span<const char*const> numbers, moments;
    const char* product = nullptr;  // of a number of each step; null: none is kept
    size_t newer = 0;  // so many numbers, the last ones, are 0 where an older version's state lacks them
  };
  /// A parameter and what is kept for it.
  struct Slot {
    Tensor parameter;
    Tensor moments[kMoments];
    size_t group = 0;
  };

 protected:
  explicit Optimizer(const Names& names);
  void add_group(const std::vector<Tensor>& parameters, const Numbers& numbers, Location where);
  const Numbers& numbers(size_t group, Location where = {}) const;
  void set_numbers(const Numbers& numbers, size_t group, Location where);

  virtual void update(Location where) = 0;
  virtual void update_unless(const Tensor& skip, Location where) = 0;
  /// Throws if a number is impossible.
  virtual void check(const Numbers& numbers, Location where) const = 0;
  /// Which moments a parameter of such a group has, as bits.
  virtual uint32_t moments(const Numbers& numbers) const = 0;
  /// What their elements are at first.
  virtual double initial_moment(const Numbers& numbers) const = 0;
  /// Of an optimizer that keeps one: the product after so many steps under these numbers.
  virtual double product_of(const Numbers& numbers, int64_t steps) const = 0;
  std::vector<size_t> group_of() const;
  [[noreturn]] void refuse(const std::string& message, Location where) const;

  std::vector<Slot> slots_;
  const std::shared_ptr<eager::StepCounts> steps_;  // by slot
  std::vector<double> products_;                    // by slot: of NAdam's momenta; 1 for the others
  std::vector<Numbers> groups_;
  DeviceCounts device_counts_;  // for step_unless

 private:
  struct Loaded;
  Loaded read_state(const std::vector<NamedTensor>& state, Location where) const;
  void make_moments(Slot& slot) const;
  /// From now on, from steps_ and products_.
  void count_on_host();

  const Names names_;
  const uint64_t id_;
  std::vector<std::optional<double>> initial_lr_;  // by group
};

}  // namespace tandem::optim
