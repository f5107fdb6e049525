// Containers: Sequential calls its modules one after another, ModuleList only owns them. Both name them "0",
// "1", ... as PyTorch does and own them on the heap, at addresses that stay. Threads as in module.h.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

/// i, checked; negative positions count from the end.
inline size_t position_in(const Position& i, size_t size) {
  const auto n = static_cast<int64_t>(size);
  if (i.index < -n || i.index >= n)
    fail("modules: there is no position " + std::to_string(i.index) + " among " + std::to_string(n), i.where);
  return static_cast<size_t>(i.index < 0 ? i.index + n : i.index);
}

/// Modules of one type, made in place: `blocks.emplace(width)`.
template <class M>
class ModuleList : public Module {
 public:
  template <class... Args>
  M& emplace(Args&&... args) {
    std::unique_ptr<M> m(new M(this->template child<M>(Name(std::to_string(list_.size()), made_at({})),
                                                       std::forward<Args>(args)...)));
    list_.push_back(std::move(m));
    return *list_.back();
  }
  size_t size() const { return list_.size(); }
  M& operator[](const Position& i) const { return *list_[position_in(i, list_.size())]; }
  auto begin() const { return list_.begin(); }  // of std::unique_ptr<M>
  auto end() const { return list_.end(); }

 private:
  std::vector<std::unique_ptr<M>> list_;
};

/// Calls modules one after another: `Sequential net; net.emplace<Linear>(64, 10); y = net(x);`. As a member:
/// `Sequential net = child<Sequential>("net", [](Sequential& s) { s.emplace<Linear>(64, 10); });`
class Sequential : public Module {
 public:
  Sequential() = default;
  template <class Build>
  requires std::is_invocable_v<Build&, Sequential&>
  explicit Sequential(Build&& build) { build(*this); }

  /// Adds a module with `forward(const Tensor&)` and returns it.
  template <class M, class... Args>
  M& emplace(Args&&... args) {
    std::unique_ptr<M> m(
        new M(child<M>(Name(std::to_string(steps_.size()), made_at({})), std::forward<Args>(args)...)));
    M& added = *m;
    steps_.push_back({std::move(m), [](Module& module, const Tensor& x, Location where) {
                        if constexpr (requires(M & m) { m.forward(x, where); }) {
                          return static_cast<M&>(module).forward(x, where);
                        } else {
                          return static_cast<M&>(module).forward(x);
                        }
                      }});
    return added;
  }
  size_t size() const { return steps_.size(); }
  Module& operator[](const Position& i) const { return *steps_[position_in(i, steps_.size())].module; }

  Tensor forward(Tensor x, Location where = Location::here()) const {
    for (const Step& s : steps_) x = s.call(*s.module, x, where);
    return x;
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

 private:
  struct Step {
    std::unique_ptr<Module> module;
    Tensor (*call)(Module&, const Tensor&, Location);
  };
  std::vector<Step> steps_;
};

}  // namespace tandem::nn
