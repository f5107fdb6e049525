// Memory that a native kernel or a product works in. One scope owns it; any thread.
#pragma once

#include <cstdint>

#include "tandem/core/allocator.h"

namespace tandem::ops {

/// Bytes from the caching allocator for the length of a scope; none for 0.
class Scratch {
 public:
  explicit Scratch(int64_t nbytes) : nbytes_(nbytes), data_(nbytes == 0 ? nullptr : core::allocate(nbytes)) {}
  ~Scratch() {
    if (data_ != nullptr) core::deallocate(data_, nbytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  int64_t nbytes_;
  void* data_;
};

}  // namespace tandem::ops
