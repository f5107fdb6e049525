// What the parts of the simulated driver share: its lock, settings, counters, failures on demand, messages,
// and which handles are alive. Everything here is used under the lock.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>

#include "tandem/core/cuda/api.h"
#include "tests/sim_gpu/control.h"

namespace sim_gpu {

using tandem::cuda::Context;
using tandem::cuda::EventHandle;
using tandem::cuda::Function;
using tandem::cuda::Graph;
using tandem::cuda::GraphExec;
using tandem::cuda::GraphNode;
using tandem::cuda::KernelNode;
using tandem::cuda::Module;
using tandem::cuda::Pointer;
using tandem::cuda::Result;
using tandem::cuda::StreamHandle;

// CUresults that Tandem has no name for.
constexpr Result kInvalidContext{201}, kInvalidHandle{400}, kCaptureUnsupported{900},
    kCaptureInvalidated{901}, kUpdateFailure{910};

/// One lock for the whole driver.
using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex& mutex();

struct Settings {
  int devices = 1;
  int orders = 3;
  int capability = 90, version = 13000;  // of the device, of the driver
  int lazy = 0;
  int products = 2, captures = 2;  // sim_gpu_set_products, sim_gpu_set_captures
  bool libraries = true;           // whether what the other libraries queue does anything
  size_t device_bytes = size_t{8} << 30;
};
Settings& settings();

/// Counts a call in a mode that runs nothing; false in others, and while something is captured. No lock.
bool only_counted(const char* what);
/// Captures going on.
void count_captures(int by);

/// Tells `text` on standard error and keeps it for sim_gpu_message.
void say(const std::string& text);
void add(const char* what, long by);
/// Counts a call that can fail; true if this one shall.
bool take_failure(const char* function);

/// Handles: `kind` is one fixed text per type.
void handle_made(const void* handle, const char* kind);
/// False if it is not alive: `say` has told which function was given it.
bool handle_is(const void* handle, const char* kind, const char* function);
void handle_gone(const void* handle, const char* kind);

/// The device of this thread's current context; -1 for none.
int& current_device();

}  // namespace sim_gpu
