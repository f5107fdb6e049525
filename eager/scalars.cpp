#include "tandem/eager/scalars.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/core/modes.h"

namespace tandem {

namespace {

constexpr size_t kMostTensors = 1024;  // then those that are real become numbers

struct Logged {
  Scalar scalar;
  Tensor tensor;  // undefined once it was read
};
struct List {
  std::mutex mutex;
  std::vector<Logged> logged;
  size_t unread = 0;  // tensors, at the list's end
  std::unordered_map<std::string, int64_t> counts;
};
List& list() {
  static List* const l = new List;  // tensors may be logged by destructors of static objects
  return *l;
}

void read_real(List& l) {
  size_t unread = 0;
  for (size_t i = l.logged.size() - l.unread; i < l.logged.size(); ++i) {
    Logged& e = l.logged[i];
    if (!e.tensor.defined()) continue;
    if (e.tensor.impl()->has(core::kPending)) {
      unread = std::max(unread, l.logged.size() - i);
      continue;
    }
    e.scalar.value = e.tensor.item<double>();
    e.tensor = Tensor();
  }
  l.unread = unread;
}

}  // namespace

void log_scalar(const std::string& name, const Tensor& value, Location where) {
  if (!value.defined()) fail("log_scalar: \"" + name + "\": the tensor is undefined", where);
  if (value.numel() != 1)
    fail("log_scalar: \"" + name + "\": one element is wanted, the tensor has " + to_string(value.sizes()),
         where);
  Tensor copy = [&] {
    const NoGrad no_grad;
    return value.clone(where);
  }();
  List& l = list();
  const std::lock_guard lock(l.mutex);
  if (l.unread >= kMostTensors) read_real(l);
  l.logged.push_back({{name, l.counts[name]++, 0}, std::move(copy)});
  ++l.unread;
}

std::vector<Scalar> take_scalars() {
  List& l = list();
  const std::lock_guard lock(l.mutex);
  read_real(l);
  std::vector<Scalar> taken;
  std::vector<Logged> rest;
  for (Logged& e : l.logged) {
    if (e.tensor.defined())
      rest.push_back(std::move(e));
    else
      taken.push_back(std::move(e.scalar));
  }
  l.logged = std::move(rest);
  l.unread = l.logged.size();
  return taken;
}

}  // namespace tandem
