// Numbers for people to watch while a program trains: logged as tensors, read later. Logging waits for
// nothing and does not end a segment of a traced call. Any thread; one list a process.
#pragma once

#include <string>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem {

struct Scalar {
  std::string name;
  int64_t index = 0;  // counts the values logged under this name
  double value = 0;
};

/// Keeps a copy of `value` (one element, any dtype), without history, until take_scalars() asks for it.
void log_scalar(const std::string& name, const Tensor& value, Location where = Location::here());

/// What was logged since the last time, in order. Values of a traced call that still runs stay for later;
/// those of a call that failed before they were computed are lost.
std::vector<Scalar> take_scalars();

namespace eager {
extern constinit thread_local bool scalars_wait;
void publish_waiting_scalars();
/// A traced call of this thread is over: what it logged is real.
inline void publish_scalars() {
  if (scalars_wait) [[unlikely]]
    publish_waiting_scalars();
}
}  // namespace eager

}  // namespace tandem
