// Module: the base of layers and models. A module owns its parameters, buffers and children by registration, in order, under
// PyTorch's names ("hidden.weight"). Modules neither move nor copy, so that what is registered stays where it is; `clone()`
// of a tensor list copies weights. One thread at a time may change a module; forward may run on several.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tandem/eager/functions.h"

namespace tandem::nn {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Parameters of this module and its children, in registration order.
  std::vector<Tensor> parameters() const;
  std::vector<NamedTensor> named_parameters() const;
  std::vector<NamedTensor> named_buffers() const;
  /// Parameters and buffers that are saved, in registration order.
  std::vector<NamedTensor> state() const;
  /// Copies values in by name. With `strict`, missing and unexpected names, and always wrong shapes and dtypes, are an
  /// Error that lists them; nothing is changed then.
  void load_state(const std::vector<NamedTensor>& state, bool strict = true, Location where = Location::here());

  /// Training mode of this module and its children (dropout acts, for example).
  void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }
  /// Moves parameters and buffers to a device, or floating ones to a dtype, in place.
  void to(Device device, Location where = Location::here());
  void to(DType dtype, Location where = Location::here());
  void zero_grad();
  void requires_grad_(bool on = true);
  int64_t num_parameters() const;

 protected:
  /// Makes a child in place and registers it: `Linear hidden = child<Linear>("hidden", 784, 256);`
  template <class M, class... Args>
  M child(const std::string& name, Args&&... args) {
    return M(Registration{this, &name}, std::forward<Args>(args)...);
  }
  /// A parameter: a leaf that requires grad. Returns the registered tensor.
  Tensor parameter(const std::string& name, Tensor initial);
  /// State that is not trained. Saved unless `persistent` is false.
  Tensor buffer(const std::string& name, Tensor initial, bool persistent = true);

  /// What `child` hands to a module's constructor; the module registers itself at its final address.
  struct Registration {
    Module* parent = nullptr;
    const std::string* name = nullptr;
  };

 private:
  friend class ChildOf;
  struct Item {
    std::string name;
    Tensor tensor;
    bool persistent = true;
  };
  void visit(const std::string& prefix, const std::function<void(const std::string&, Module&)>& f);
  std::vector<Item> parameters_, buffers_;
  std::vector<std::pair<std::string, Module*>> children_;
  bool training_ = true;
};

}  // namespace tandem::nn
