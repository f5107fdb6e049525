// A GPU for printed kernels: CUDA's words for the host compiler, and blocks that run one after another, their
// threads as fibers that stop at barriers and shuffles. One launch at a time in the process.
#pragma once

#include <ucontext.h>

#include <string>
#include <vector>

namespace tandem::jit::samples {

/// Text in front of prelude and kernels, which are compiled without includes.
inline const char* const kFiberPrelude = R"_text_(
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
extern "C" {
float fmaf(float, float, float), sqrtf(float), fmodf(float, float);
double fma(double, double, double), sqrt(double), fmod(double, double), exp(double), expm1(double), log(double);
double log1p(double), sin(double), cos(double), tanh(double), erf(double), pow(double, double);
struct FiberState { unsigned thread, block, threads, blocks; void (*barrier)(bool warp); unsigned char (*slots)[8]; };
FiberState* fiber_state;
}
static struct { struct X { unsigned FiberState::*m; operator unsigned() const { return fiber_state->*m; } } x; }
threadIdx = {{&FiberState::thread}}, blockIdx = {{&FiberState::block}}, blockDim = {{&FiberState::threads}}, gridDim = {{&FiberState::blocks}};
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long)a * b >> 32; }
static inline void __syncthreads() { fiber_state->barrier(false); }
template <class T> static T fiber_exchange(T x, unsigned from) {
  __builtin_memcpy(fiber_state->slots[fiber_state->thread], &x, sizeof x);
  fiber_state->barrier(true);
  __builtin_memcpy(&x, fiber_state->slots[from], sizeof x);
  fiber_state->barrier(true);
  return x;
}
template <class T> static T __shfl_down_sync(unsigned, T x, int d, int width = 32) {
  const unsigned self = fiber_state->thread;
  return fiber_exchange(x, (int)(self % width) + d < width ? self + d : self);
}
template <class T> static T __shfl_sync(unsigned, T x, int lane, int width = 32) {
  return fiber_exchange(x, fiber_state->thread / width * width + lane % width);
}
)_text_";

class FiberGpu {
 public:
  struct State {
    unsigned thread, block, threads, blocks;
    void (*barrier)(bool warp);
    unsigned char (*slots)[8];
  };
  using Function = void (*)(const void* words);

  /// Goes behind a printed kernel.
  static std::string entry(const std::string& symbol) {
    return "extern \"C\" void run_" + symbol + "(const void* words) { " + symbol + "(*(const td_args_" +
           symbol + "*)words); }\n";
  }

  /// `state`: the module's `fiber_state`.
  static void launch(State** state, Function f, const void* words, unsigned grid, unsigned block) {
    static FiberGpu gpu;
    gpu.run(state, f, words, grid, block);
  }

 private:
  struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    long barriers[2];
    bool done;
  };

  static void start() {
    FiberGpu& g = *active();
    g.function_(g.words_);
    g.fibers_[g.state_.thread].done = true;
  }

  void run(State** state, Function f, const void* words, unsigned grid, unsigned block) {
    active() = this;
    function_ = f;
    words_ = words;
    state_ = {0, 0, block, grid, barrier, slots_};
    *state = &state_;
    fibers_.resize(block);
    for (state_.block = 0; state_.block < grid; ++state_.block) {
      for (Fiber& x : fibers_) {
        x.stack.resize(128 * 1024);
        x.barriers[0] = x.barriers[1] = 0;
        x.done = false;
        getcontext(&x.context);
        x.context.uc_stack.ss_sp = x.stack.data();
        x.context.uc_stack.ss_size = x.stack.size();
        x.context.uc_link = &scheduler_;
        makecontext(&x.context, start, 0);
      }
      for (bool left = true; left;) {
        left = false;
        for (unsigned i = 0; i < block; ++i) {
          if (fibers_[i].done) continue;
          state_.thread = i;
          swapcontext(&scheduler_, &fibers_[i].context);
          left = left || !fibers_[i].done;
        }
      }
    }
  }

  // Waits until all threads of the warp, or of the block, have come as far.
  static void barrier(bool warp) {
    FiberGpu& g = *active();
    const unsigned self = g.state_.thread, first = warp ? self / 32 * 32 : 0;
    const unsigned last = warp ? first + 32 : g.state_.threads;
    const long n = ++g.fibers_[self].barriers[warp];
    for (;;) {
      bool all = true;
      for (unsigned i = first; i < last && all; ++i)
        all = g.fibers_[i].done || g.fibers_[i].barriers[warp] >= n;
      if (all) return;
      swapcontext(&g.fibers_[self].context, &g.scheduler_);
    }
  }

  static FiberGpu*& active() {
    static FiberGpu* gpu = nullptr;
    return gpu;
  }

  std::vector<Fiber> fibers_;
  ucontext_t scheduler_;
  State state_;
  unsigned char slots_[1024][8];
  Function function_ = nullptr;
  const void* words_ = nullptr;
};

}  // namespace tandem::jit::samples
