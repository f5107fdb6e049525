// Runners are fibers that start one thread after another. A thread that has to wait keeps its runner, and the
// next runner goes on. So a kernel without barriers runs as a plain loop on one runner. Who can run again
// stands in a queue; barriers and warp functions put their threads there in the order of the launch.
#include "tests/sim_gpu/driver/fibers.h"

#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <map>
#include <memory>

#include "tests/sim_gpu/driver/state.h"

#ifdef SIM_GPU_ADDRESS
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call must keep and the stack pointer in *from, takes those of `to`.
extern "C" void sim_gpu_switch(void** from, void* to);
__asm__(
    ".text\n.p2align 4\n.hidden sim_gpu_switch\n.globl sim_gpu_switch\n.type sim_gpu_switch, @function\n"
    "sim_gpu_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n"
    ".size sim_gpu_switch, .-sim_gpu_switch\n");

namespace sim_gpu {

namespace {

#ifdef SIM_GPU_ADDRESS
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kPageBytes = 4096;

struct Stack {
  void* pointer = nullptr;
  char* memory = nullptr;  // its lowest page cannot be touched
  void* fake = nullptr;    // the address sanitizer's
};

enum class State : unsigned char { unstarted, ready, at_barrier, in_warp, exited };

struct Thread {
  State state;
  sim_exchange_kind kind;
  int line, source;
  unsigned mask;
  unsigned long value, result;
  Stack* stack;
};

struct Scheduler {
  const sim_module* module;
  const sim_kernel* kernel;
  void** parameters;
  const ThreadOrder* order;
  int n, started, exited, at_barrier;
  int running;    // a thread
  Stack* runner;  // its fiber
  std::vector<Thread> threads;
  std::vector<unsigned> alive, arrived;  // lanes of each warp
  std::vector<int> ready;                // a ring
  size_t first, count;
  std::vector<Stack*> idle;
  std::vector<std::unique_ptr<Stack>> stacks;
  Stack home;
  std::string fault;
};

Scheduler& scheduler() {
  static auto* const s = new Scheduler{};
  return *s;
}

void switch_stacks(Stack* from, Stack* to) {
#ifdef SIM_GPU_ADDRESS
  Scheduler& s = scheduler();
  static thread_local const void* home_bottom;
  static thread_local size_t home_bytes;
  if (home_bytes == 0) {
    pthread_attr_t attributes;
    void* bottom = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &bottom, &home_bytes);
    pthread_attr_destroy(&attributes);
    home_bottom = bottom;
  }
  const bool home = to == &s.home;
  __sanitizer_start_switch_fiber(&from->fake, home ? home_bottom : to->memory + kPageBytes,
                                 home ? home_bytes : kStackBytes - kPageBytes);
#endif
  sim_gpu_switch(&from->pointer, to->pointer);
#ifdef SIM_GPU_ADDRESS
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

void runner_main();

void prepare(Stack& stack, size_t index) {
  // Tops at different places of a page, so that the stacks do not share their places in the cache.
  auto top = reinterpret_cast<uintptr_t>(stack.memory + kStackBytes) - (index * 320) % kPageBytes;
  top &= ~uintptr_t{63};
  auto* words = reinterpret_cast<void**>(top);
  words[-1] = nullptr;  // where a return would go to
  words[-2] = reinterpret_cast<void*>(&runner_main);
  for (int i = 3; i <= 8; ++i) words[-i] = nullptr;
  stack.pointer = &words[-8];
  stack.fake = nullptr;
}

Stack* take_stack(Scheduler& s) {
  if (s.idle.empty()) {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) __builtin_trap();
    mprotect(memory, kPageBytes, PROT_NONE);
    auto stack = std::make_unique<Stack>();
    stack->memory = static_cast<char*>(memory);
    prepare(*stack, s.stacks.size());
    s.idle.push_back(stack.get());
    s.stacks.push_back(std::move(stack));
  }
  Stack* stack = s.idle.back();
  s.idle.pop_back();
  return stack;
}

void queue(Scheduler& s, int thread) {
  s.threads[static_cast<size_t>(thread)].state = State::ready;
  size_t at = s.first + s.count++;
  if (at >= s.ready.size()) at -= s.ready.size();
  s.ready[at] = thread;
}

/// From `from`, whose thread waits or which is idle, to whoever can go on; home if nobody can.
void go_on(Scheduler& s, Stack* from) {
  Stack* to = &s.home;
  if (s.count > 0) {
    const int thread = s.ready[s.first];
    if (++s.first == s.ready.size()) s.first = 0;
    --s.count;
    s.running = thread;
    *s.module->thread = s.order->positions[static_cast<size_t>(thread)];
    to = s.threads[static_cast<size_t>(thread)].stack;
  } else if (s.started < s.n) {
    to = take_stack(s);
  }
  s.runner = to;
  if (to != from) switch_stacks(from, to);
}

/// Does not return and destroys nothing: the block is given up, its fibers are never resumed.
[[noreturn]] void give_up(Scheduler& s, std::string what) {
  s.fault.swap(what);  // nothing of it may stay behind on this stack
  switch_stacks(s.runner, &s.home);
  __builtin_unreachable();
}

std::string at_line(int line) { return line > 0 ? " at line " + std::to_string(line) : std::string(); }

/// "3 waiting at the barrier in line 7, 1 exited"
std::string whereabouts(const Scheduler& s) {
  std::map<std::string, int> places;
  for (const Thread& t : s.threads) {
    if (t.state == State::at_barrier) ++places["waiting" + at_line(t.line)];
    if (t.state == State::in_warp) ++places["in a warp function" + at_line(t.line)];
    if (t.state == State::exited) ++places["exited"];
  }
  std::string out;
  for (auto place = places.rbegin(); place != places.rend(); ++place)
    out += (out.empty() ? "" : ", ") + std::to_string(place->second) + ' ' + place->first;
  return out;
}

/// Lets the barrier's threads go if all have come.
void check_barrier(Scheduler& s) {
  if (s.at_barrier == 0 || s.at_barrier + s.exited < s.n) return;
  bool one_place = true;
  int line = 0;
  for (const Thread& t : s.threads) {
    if (t.state != State::at_barrier) continue;
    one_place = one_place && (line == 0 || line == t.line);
    line = t.line;
  }
  if (s.exited > 0 || !one_place) give_up(s, "divergent __syncthreads: " + whereabouts(s));
  s.at_barrier = 0;
  for (const int thread : s.order->threads) queue(s, thread);
}

void barrier(int line) {
  Scheduler& s = scheduler();
  Thread& t = s.threads[static_cast<size_t>(s.running)];
  t.state = State::at_barrier;
  t.line = line;
  t.stack = s.runner;
  ++s.at_barrier;
  check_barrier(s);
  go_on(s, t.stack);
}

/// Completes the exchange among the lanes of `mask` if all that live have come.
void check_warp(Scheduler& s, size_t warp, unsigned mask) {
  const unsigned group = mask & s.alive[warp];
  if ((s.arrived[warp] & group) != group) return;
  Thread* const threads = s.threads.data() + warp * 32;
  const int first = std::countr_zero(group);
  unsigned votes = 0;
  for (unsigned left = group; left != 0; left &= left - 1) {
    const Thread& t = threads[std::countr_zero(left)];
    if (t.mask != mask || t.kind != threads[first].kind || t.line != threads[first].line)
      give_up(s, "lanes of a warp wait in different warp functions, or with different masks:" +
                     at_line(t.line) + " and" + at_line(threads[first].line));
    votes |= static_cast<unsigned>(t.value & 1) << std::countr_zero(left);
  }
  for (unsigned left = group; left != 0; left &= left - 1) {
    Thread& t = threads[std::countr_zero(left)];
    if (t.kind == sim_shuffle) {
      if ((group >> (t.source & 31) & 1) == 0)
        give_up(s, "shuffle" + at_line(t.line) + " from lane " + std::to_string(t.source & 31) +
                       ((mask >> (t.source & 31) & 1) != 0 ? ", which has exited or does not exist"
                                                           : ", which the mask lacks"));
      t.result = threads[t.source & 31].value;
    } else {
      t.result = votes;
    }
  }
  s.arrived[warp] &= ~group;
  const signed char* lane = s.order->lanes.data() + warp * 32;
  for (int i = 0; i < 32 && lane[i] >= 0; ++i)
    if ((group >> lane[i] & 1) != 0) queue(s, static_cast<int>(warp) * 32 + lane[i]);
}

unsigned long exchange(sim_exchange_kind kind, unsigned long value, int source, unsigned mask, int line) {
  Scheduler& s = scheduler();
  Thread& t = s.threads[static_cast<size_t>(s.running)];
  const size_t warp = static_cast<size_t>(s.running) / 32;
  const unsigned bit = 1u << (s.running & 31);
  if ((mask & bit) == 0)
    give_up(s, "the mask of a warp function" + at_line(line) + " lacks the lane that calls");
  t.state = State::in_warp;
  t.kind = kind;
  t.value = value;
  t.source = source;
  t.mask = mask;
  t.line = line;
  t.stack = s.runner;
  s.arrived[warp] |= bit;
  check_warp(s, warp, mask);
  go_on(s, t.stack);
  return t.result;
}

unsigned active() {
  // The lanes that have neither exited nor wait elsewhere: a thread alone is what can be relied on.
  return 1u << (scheduler().running & 31);
}

void fail(const char* what, int line) {
  Scheduler& s = scheduler();
  give_up(s, what + at_line(line));
}

void exit_thread(Scheduler& s) {
  const size_t thread = static_cast<size_t>(s.running), warp = thread / 32;
  s.threads[thread].state = State::exited;
  ++s.exited;
  s.alive[warp] &= ~(1u << (thread & 31));
  check_barrier(s);
  // Those who wait for this lane wait no longer.
  for (unsigned left = s.arrived[warp]; left != 0; left &= left - 1) {
    const Thread& other = s.threads[warp * 32 + static_cast<size_t>(std::countr_zero(left))];
    if ((other.mask >> (thread & 31) & 1) == 0) continue;
    check_warp(s, warp, other.mask);
    break;
  }
}

void runner_main() {
#ifdef SIM_GPU_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  Scheduler& s = scheduler();
  for (;;) {
    Stack* const own = s.runner;
    while (s.started < s.n && s.count == 0) {
      const int thread = s.order->threads[static_cast<size_t>(s.started++)];
      s.running = thread;
      *s.module->thread = s.order->positions[static_cast<size_t>(thread)];
      s.kernel->call(s.parameters);
      s.runner = own;
      exit_thread(s);
    }
    s.idle.push_back(own);
    if (s.count == 0 && s.started == s.n) {
      s.runner = &s.home;
      switch_stacks(own, &s.home);
    } else {
      go_on(s, own);
    }
  }
}

unsigned long gcd(unsigned long a, unsigned long b) {
  while (b != 0) {
    const unsigned long r = a % b;
    a = b;
    b = r;
  }
  return a;
}

}  // namespace

const sim_runtime kRuntime = {barrier, exchange, active, fail, note_access};

unsigned long place(Order order, unsigned long i, unsigned long n) {
  if (order == Order::forward) return i;
  if (order == Order::backward) return n - 1 - i;
  unsigned long step = n * 0.6180339887;
  if (step == 0) step = 1;
  while (gcd(step, n) != 1) ++step;
  return static_cast<unsigned long>((static_cast<unsigned __int128>(i) * step + n / 3) % n);
}

ThreadOrder thread_order(Order order, sim_index block) {
  ThreadOrder out;
  const unsigned n = block.x * block.y * block.z;
  out.lanes.assign((n + 31) / 32 * 32, -1);
  std::vector<size_t> filled((n + 31) / 32);
  for (unsigned i = 0; i < n; ++i) {
    const auto thread = static_cast<int>(place(order, i, n));
    out.threads.push_back(thread);
    const auto warp = static_cast<size_t>(thread) / 32;
    out.lanes[warp * 32 + filled[warp]++] = static_cast<signed char>(thread % 32);
    out.positions.push_back({i % block.x, i / block.x % block.y, i / block.x / block.y});
  }
  return out;
}

std::string run_block(const sim_module& module, const sim_kernel& kernel, void** parameters,
                      const ThreadOrder& order) {
  Scheduler& s = scheduler();
  s.module = &module;
  s.kernel = &kernel;
  s.parameters = parameters;
  s.order = &order;
  s.n = static_cast<int>(order.threads.size());
  s.started = s.exited = s.at_barrier = 0;
  s.first = s.count = 0;
  s.threads.assign(order.threads.size(), Thread{});
  s.ready.resize(order.threads.size());
  s.alive.assign(order.lanes.size() / 32, ~0u);
  s.arrived.assign(order.lanes.size() / 32, 0);
  if (s.n % 32 != 0) s.alive.back() = (1u << s.n % 32) - 1;

  s.runner = take_stack(s);
  switch_stacks(&s.home, s.runner);
  std::string fault;
  fault.swap(s.fault);
  if (fault.empty() && s.exited < s.n) fault = "deadlock: " + whereabouts(s);
  if (!fault.empty()) {
    const sim_index t = running_thread(), b = *module.block;
    fault += "; block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) +
             "), thread (" + std::to_string(t.x) + ", " + std::to_string(t.y) + ", " + std::to_string(t.z) +
             ")";
    forget_fibers();
  }
  return fault;
}

sim_index running_thread() {
  const Scheduler& s = scheduler();
  const auto thread = static_cast<size_t>(s.running);
  return s.order != nullptr && thread < s.order->positions.size() ? s.order->positions[thread] : sim_index{};
}

void forget_fibers() {
  Scheduler& s = scheduler();
  s.idle.clear();
  for (size_t i = 0; i < s.stacks.size(); ++i) {
    prepare(*s.stacks[i], i);
    s.idle.push_back(s.stacks[i].get());
  }
}

}  // namespace sim_gpu
