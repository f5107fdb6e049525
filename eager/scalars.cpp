#include "tandem/eager/scalars.h"

#include <mutex>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/core/modes.h"
#include "tandem/eager/interceptor.h"

namespace tandem {

namespace {

constexpr size_t kMostTensors = 1024;  // then they become numbers

struct Logged {
  Scalar scalar;
  Tensor tensor;  // undefined once it was read
};
/// Tensors in it are real, and nobody else's: any thread may read them.
struct List {
  std::mutex mutex;
  std::vector<Logged> logged;
  size_t unread = 0;  // tensors, at the list's end
  std::unordered_map<std::string, int64_t> counts;

  void read() {
    for (; unread > 0; --unread) {  // reading may throw
      Logged& next = logged[logged.size() - unread];
      next.scalar.value = next.tensor.item<double>();
      next.tensor = Tensor();
    }
  }
  void add(Logged entry) {
    if (unread >= kMostTensors) read();
    entry.scalar.index = counts[entry.scalar.name]++;
    logged.push_back(std::move(entry));
    ++unread;
  }
};
List& list() {
  static List* const l = new List;  // tensors may be logged by destructors of static objects
  return *l;
}

/// Of the traced call that runs on this thread.
std::vector<Logged>& waiting() {
  static thread_local std::vector<Logged> w;
  return w;
}

}  // namespace

constinit thread_local bool eager::scalars_wait = false;

void eager::publish_waiting_scalars() {
  scalars_wait = false;
  std::vector<Logged> entries = std::exchange(waiting(), {});
  List& l = list();
  const std::lock_guard lock(l.mutex);
  for (Logged& e : entries)
    if (!e.tensor.impl()->has(core::kPending)) l.add(std::move(e));
}

void log_scalar(const std::string& name, const Tensor& value, Location where) {
  if (!value.defined()) fail("log_scalar: \"" + name + "\": the tensor is undefined", where);
  if (value.numel() != 1)
    fail("log_scalar: \"" + name + "\": one element is wanted, the tensor has " + to_string(value.sizes()),
         where);
  Tensor copy = [&] {
    const NoGrad no_grad;
    return value.clone(where);
  }();
  Logged entry{{.name = name}, std::move(copy)};
  if (eager::interceptor()) {
    waiting().push_back(std::move(entry));
    eager::scalars_wait = true;
    return;
  }
  List& l = list();
  const std::lock_guard lock(l.mutex);
  l.add(std::move(entry));
}

std::vector<Scalar> take_scalars() {
  List& l = list();
  const std::lock_guard lock(l.mutex);
  l.read();
  std::vector<Scalar> taken;
  for (Logged& e : l.logged) taken.push_back(std::move(e.scalar));
  l.logged.clear();
  return taken;
}

}  // namespace tandem
