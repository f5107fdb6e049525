// A block of memory that grows and is used again: what a run of the evaluator works in, so that it allocates
// nothing once warm. One thread owns it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace tandem::jit {

class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  char* get(size_t n) {
    if (n > size_) [[unlikely]]
      grow(n);
    return data_;
  }

 private:
  void grow(size_t n) {
    std::free(data_);
    size_ = 0;
    n = (n + 16383) / 16384 * 16384;
    data_ = static_cast<char*>(std::aligned_alloc(64, n));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = n;
  }
  char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tandem::jit
