// Module: the base of layers and models. A module owns its parameters, buffers and children by registration,
// in that order and under PyTorch's names ("hidden.weight"). Modules neither move nor copy, so what is
// registered stays where it is; clone() makes a second one. Members that hold a parameter are handles:
// assigning another tensor to such a member does not replace the registered parameter. One thread at a time
// may change a module; forward may run on several.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/eager/functions.h"
#include "tandem/eager/named_tensor.h"

namespace tandem::nn {

using tandem::NamedTensor;

class Module;
struct NamedModule {
  std::string name;  // "" for the module that was asked
  Module* module = nullptr;
};

class Module {
 public:
  Module();
  virtual ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Parameters of this module and then of its children, in registration order, each tensor once.
  std::vector<Tensor> parameters() const;
  std::vector<NamedTensor> named_parameters() const;
  std::vector<NamedTensor> named_buffers() const;
  /// What is saved: parameters and persistent buffers. A tensor with two names is there twice.
  std::vector<NamedTensor> state() const;
  /// Copies values in by name. An Error lists every missing and unexpected name (unless not `strict`), wrong
  /// shape and wrong dtype; nothing is changed then.
  void load_state(const std::vector<NamedTensor>& state, bool strict = true,
                  Location where = Location::here());
  /// The Error that load_state would throw, and no change.
  void check_state(const std::vector<NamedTensor>& state, bool strict = true,
                   Location where = Location::here()) const;

  /// This module and everything below it, parents first, in registration order.
  std::vector<NamedModule> named_modules();
  /// Calls f(module) for this module and everything below it, parents first.
  template <class F>
  void apply(F&& f) {
    for (const NamedModule& m : named_modules()) f(*m.module);
  }

  /// Training mode of this module and everything below it (dropout acts then).
  void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }
  /// Moves parameters, their gradients and buffers to a device in place.
  void to(Device device, Location where = Location::here());
  /// Casts floating parameters, their gradients and floating buffers in place.
  void to(DType dtype, Location where = Location::here());
  /// Drops the gradients of all parameters.
  void zero_grad();
  void requires_grad_(bool on = true, Location where = Location::here());
  int64_t num_parameters() const;

 protected:
  /// A child's name, with the line that gave it.
  struct Name {
    std::string text;
    Location where;
    Name(const char* text, Location where = Location::here()) : text(text), where(where) {}  // NOLINT
    Name(std::string text, Location where = Location::here())                                // NOLINT
        : text(std::move(text)), where(where) {}
  };

  /// Makes a child at its final address and registers it: `Linear hidden = child<Linear>("hidden", 784,
  /// 256);`. M is any type derived from Module, with any constructor.
  template <class M, class... Args>
  M child(Name name, Args&&... args) {
    static_assert(std::is_base_of_v<Module, M>, "a child is a Module");
    const Registration registration(*this, name);
    return M(std::forward<Args>(args)...);
  }
  /// Registers a leaf that requires grad and returns it: `Tensor scale = parameter("scale", ones({n}));`.
  Tensor parameter(const std::string& name, Tensor initial, Location where = Location::here());
  /// Registers state that is not trained. Saved unless `persistent` is false.
  Tensor buffer(const std::string& name, Tensor initial, bool persistent = true,
                Location where = Location::here());
  /// Where this module was registered as a child, else `otherwise`: the line for a constructor's errors.
  Location made_at(Location otherwise) const { return parent_ ? made_at_ : otherwise; }

 private:
  /// While it lives, the next Module that is constructed on this thread becomes the named child of `parent`.
  class Registration {
   public:
    Registration(Module& parent, const Name& name);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    friend class Module;
    Module& parent_;
    const Name& name_;
    Registration* outer_;
  };
  static constinit thread_local Registration* pending_;

  struct Item {
    std::string name;
    Tensor tensor;
    bool is_parameter = true, persistent = true;
  };
  struct Child {
    std::string name;
    Module* module = nullptr;
  };
  void check_name(const std::string& name, Location where) const;
  void collect(const std::string& prefix, std::vector<NamedModule>& out) const;
  std::vector<NamedModule> all() const;
  template <class Keep>
  std::vector<NamedTensor> named(Keep keep) const;
  template <class Convert>
  void convert(Convert convert, const char* who, Location where);
  friend void fill_clone(const Module& from, Module& to);

  std::vector<Item> items_;  // parameters and buffers
  std::vector<Child> children_;
  Module* parent_ = nullptr;
  Location made_at_;
  bool training_ = true;
};

/// For clone: copies parameters, all buffers, training modes and which parameters require grad.
void fill_clone(const Module& from, Module& to);

/// Keeps the default generator as it is while a module is made only to be filled with another's values.
class KeepGenerator {
 public:
  KeepGenerator() : saved_(default_generator()) {}
  ~KeepGenerator() { default_generator() = saved_; }
  KeepGenerator(const KeepGenerator&) = delete;
  KeepGenerator& operator=(const KeepGenerator&) = delete;

 private:
  Generator saved_;
};

/// A second module with the same values: M made from `args`, which are those that made `from`, then filled.
/// The default generator is left as it was. Members that are no parameters, buffers or children come from the
/// constructor.
template <class M, class... Args>
std::unique_ptr<M> clone(const M& from, Args&&... args) {
  const KeepGenerator keep;
  auto copy = std::make_unique<M>(std::forward<Args>(args)...);
  fill_clone(from, *copy);
  return copy;
}

}  // namespace tandem::nn
