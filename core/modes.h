// What changes the meaning of later ops on this thread: one small struct, compared as one word, behind scope
// guards. Thread-local; never shared.
#pragma once

#include <bit>
#include <cstdint>

#include "tandem/core/device.h"
#include "tandem/core/dtype.h"
#include "tandem/core/location.h"

namespace tandem {

struct Modes {
  bool grad = true;  // ops note their gradients
  bool deterministic = true;
  bool flush_denormals = false;  // results below 2^-126 become zero
  uint8_t autocast = 0;          // 0 off, else 1 + DType
  Device default_device;
  bool tf32 = false;  // products of float32 may round their operands
  uint8_t spare = 0;
  friend constexpr bool operator==(const Modes&, const Modes&) = default;
};
static_assert(sizeof(Modes) == 8);

namespace core {
extern constinit thread_local Modes modes_;
}
/// This thread's modes.
inline const Modes& modes() { return core::modes_; }
inline uint64_t modes_word(const Modes& m) { return std::bit_cast<uint64_t>(m); }

/// Sets this thread's modes for a scope.
class ModeGuard {
 public:
  explicit ModeGuard(const Modes& m) : saved_(core::modes_) { core::modes_ = m; }
  ~ModeGuard() { core::modes_ = saved_; }
  ModeGuard(const ModeGuard&) = delete;
  ModeGuard& operator=(const ModeGuard&) = delete;

 private:
  Modes saved_;
};

/// Ops in this scope note no gradients (PyTorch's torch::NoGradGuard).
class NoGrad : public ModeGuard {
 public:
  NoGrad() : ModeGuard(with(false)) {}

 protected:
  explicit NoGrad(bool grad) : ModeGuard(with(grad)) {}

 private:
  static Modes with(bool grad) {
    Modes m = modes();
    m.grad = grad;
    return m;
  }
};
/// Ops in this scope note their gradients again.
class EnableGrad : public NoGrad {
 public:
  EnableGrad() : NoGrad(true) {}
};

/// Tensors that are made from nothing in this scope live on `d`.
class OnDevice : public ModeGuard {
 public:
  explicit OnDevice(Device d) : ModeGuard(with(d)) {}

 private:
  static Modes with(Device d) {
    Modes m = modes();
    m.default_device = d;
    return m;
  }
};

/// CUDA products of float32 in this scope may round their operands to TF32, which keeps 10 bits of the
/// mantissa and sums in float32; their gradients do as they did. Off without it, and nothing on the CPU
/// (PyTorch's allow_tf32).
class AllowTf32 : public ModeGuard {
 public:
  explicit AllowTf32(bool allow = true) : ModeGuard(with(allow)) {}

 private:
  static Modes with(bool allow) {
    Modes m = modes();
    m.tf32 = allow;
    return m;
  }
};

/// Ops in this scope run in mixed precision (PyTorch's torch.autocast): products in `type` (bfloat16 or
/// float16), what would overflow or lose digits there in float32, everything else in the types that it is
/// given; ops/autocast.def lists them. Operands are cast by ops, so that gradients come back in the types of
/// the tensors that were cast: weights of float32 get gradients of float32. With `enabled` false the scope
/// runs without. Only the thread's own ops; backward() is not touched by it, wherever it is called. Gradients
/// of float16 underflow without a optim::GradScaler. Errors: another type.
class Autocast : public ModeGuard {
 public:
  explicit Autocast(DType type, bool enabled = true, Location where = Location::here())
      : ModeGuard(with(type, enabled, where)) {}

 private:
  static Modes with(DType type, bool enabled, Location where);
};
using autocast = Autocast;  // PyTorch's name

/// Whether ops in this scope must give the same bits on every run (PyTorch's
/// torch.use_deterministic_algorithms), as they do without it: on one device, with one build of Tandem and of
/// the libraries, the same values, layouts and alignments give the same results, whatever the threads do and
/// however often a program runs. No op has a faster form that breaks this, so `false` changes nothing yet and
/// `true` refuses nothing; a traced function compares the mode like the others.
class Deterministic : public ModeGuard {
 public:
  explicit Deterministic(bool on = true) : ModeGuard(with(on)) {}

 private:
  static Modes with(bool on) {
    Modes m = modes();
    m.deterministic = on;
    return m;
  }
};
using deterministic = Deterministic;

Device default_device();
/// Of this thread. That the device is there is checked when a tensor is made.
void set_default_device(Device d);

}  // namespace tandem
