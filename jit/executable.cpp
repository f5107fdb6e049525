#include "tandem/jit/executable.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "tandem/core/allocator.h"
#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/profile.h"
#include "tandem/core/storage.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/compiler.h"
#include "tandem/jit/cuda_executable.h"
#include "tandem/jit/describe.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/kernel_table.h"
#include "tandem/jit/make_plan.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/print_cuda.h"
#include "tandem/jit/thread_arena.h"
#include "tandem/jit/thread_choice.h"

namespace tandem::jit {

namespace {

constexpr int64_t kGrainBytes = 262144;  // of operands and results that are worth a thread

/// So many products of m x n elements with k terms each are worth a thread.
int64_t grain_of_products(int64_t m, int64_t n, int64_t k) {
  constexpr double kWork = 1e6;  // floating-point operations
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return static_cast<int64_t>(kWork / std::max(flops, 1.0)) + 1;
}

std::atomic<int> without_entries{0};  // WithoutEntries alive

struct Memory {
  char* arena;
  void* const* inputs;
  void* const* outputs;
  const void* constants;

  void* at(const Address& a) const {
    switch (a.base) {
      case Base::arena:
        return arena + a.offset;
      case Base::input:
        return static_cast<char*>(inputs[a.index]) + a.offset;
      case Base::output:
        return static_cast<char*>(outputs[a.index]) + a.offset;
      case Base::constant:
        return const_cast<char*>(static_cast<const char*>(constants)) + a.offset;
      case Base::none:
        break;
    }
    return nullptr;
  }
};

/// What a kernel loads and stores for each element, at least 1.
int64_t bytes_per_element(const Kernel& k) {
  int64_t bytes = 0;
  const auto add = [&](const auto& access) {
    if (!access.row_level && access.inner != Inner::constant) bytes += itemsize(access.dtype);
  };
  std::for_each(k.loads.begin(), k.loads.end(), add);
  std::for_each(k.stores.begin(), k.stores.end(), add);
  return std::max<int64_t>(1, bytes);
}

}  // namespace

struct Executable::Impl {
  struct Runner {
    KernelFunction function;  // null: the evaluator
    const Evaluator* evaluator;
    int64_t grain;  // elements that are worth a thread
  };

  Graph graph;
  Device device;
  Plan plan;
  std::vector<Runner> runners;  // per Plan::kernels; none on CUDA
  std::unique_ptr<const CudaExecutable> cuda;
  ExecutableStats stats;
  size_t entries_to_run = 0;                 // all of the plan's, but for WithoutEntries
  alignas(64) mutable ThreadChoice threads;  // every run writes to it

  void run_call(const Runner& runner, const Kernel& kernel, const KernelCall& call, int64_t begin,
                int64_t end, const Memory& memory, const int64_t* numbers, int64_t* error) const {
    void* buffers[kMaxKernelBuffers];
    int64_t values[kMaxKernelNumbers];
    const Address* const addresses = plan.buffers.data() + call.buffers;
    for (int i = 0; i < kernel.buffers; ++i) buffers[i] = memory.at(addresses[i]);
    const NumberWord* const words = plan.numbers.data() + call.numbers;
    for (int i = 0; i < kernel.numbers; ++i)
      values[i] = words[i].index >= 0 ? numbers[words[i].index] : words[i].bits;
    const KernelArgs args{
        buffers, plan.words.data() + call.dims, plan.words.data() + call.strides, values, begin, end, error};
    if (runner.function)
      runner.function(&args);
    else
      runner.evaluator->run(args);
  }

  /// One call of a kernel, spread over the pool: whole blocks of rows, where results of these are left.
  bool run_whole(int32_t kernel, const KernelCall& c, const Memory& memory, const int64_t* numbers) const {
    std::atomic<bool> failed{false};
    const Kernel& k = plan.kernels[static_cast<size_t>(kernel)];
    const Runner& runner = runners[static_cast<size_t>(kernel)];
    const int64_t block = k.across.empty() ? 1 : kColumnBlock, parts = (c.range + block - 1) / block;
    core::parallel(
        parts, std::max<int64_t>(1, runner.grain / (c.work * block)), [&](int64_t begin, int64_t end) {
          int64_t error = 0;
          run_call(runner, k, c, begin * block, std::min(end * block, c.range), memory, numbers, &error);
          if (error) failed.store(true, std::memory_order_relaxed);
        });
    return !failed.load(std::memory_order_relaxed);
  }

  bool run_joins(const Entry& e, const Memory& memory, const int64_t* numbers) const {
    for (const Join& join : plan.joins_of(e))
      if (!run_whole(join.kernel, plan.calls[static_cast<size_t>(join.call)], memory, numbers)) return false;
    return true;
  }

  bool run_kernel(const Entry& e, const Memory& memory, const int64_t* numbers) const {
    if (e.joins > 0)
      return run_whole(e.index, plan.calls[static_cast<size_t>(e.first)], memory, numbers) &&
             run_joins(e, memory, numbers);
    const Runner& runner = runners[static_cast<size_t>(e.index)];
    const Kernel& kernel = plan.kernels[static_cast<size_t>(e.index)];
    const int64_t parts = std::clamp<int64_t>(e.work / runner.grain, 1, core::threads_here());
    std::atomic<bool> failed{false};
    core::parallel(parts, 1, [&](int64_t begin, int64_t end) {
      int64_t error = 0;
      for (int32_t i = e.first; i < e.first + e.count; ++i) {
        const KernelCall& c = plan.calls[static_cast<size_t>(i)];
        const int64_t from = first_index(e, c, begin, parts), to = first_index(e, c, end, parts);
        if (from < to) run_call(runner, kernel, c, from, to, memory, numbers, &error);
      }
      if (error) failed.store(true, std::memory_order_relaxed);
    });
    return !failed.load(std::memory_order_relaxed);
  }

  static ops::ProductCall with_addresses(const ProductCallPlan& c, const Memory& memory) {
    ops::ProductCall call = c.shape.call;
    call.a = memory.at(c.a);
    call.b = memory.at(c.b);
    call.bias = memory.at(c.bias);
    call.c = memory.at(c.c);
    return call;
  }

  static void run_product(const ProductCallPlan& c, const Memory& memory) {
    const ops::ProductCall call = with_addresses(c, memory);
    if (c.shape.outer.empty()) return ops::product(call, c.shape.provider);
    const int64_t total = numel(c.shape.outer), size = itemsize(call.dtype);
    const auto run = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const MatrixPlace place = matrix_place(c.shape, i);
        ops::ProductCall one = call;
        one.a = static_cast<const char*>(call.a) + place.a * size;
        one.b = static_cast<const char*>(call.b) + place.b * size;
        one.c = static_cast<char*>(call.c) + place.c * size;
        ops::product(one, c.shape.provider);
      }
    };
    // Each thread gets whole ones, if these come out even; else each one is cut for the threads.
    const int64_t threads = core::threads_here();
    if (total % threads != 0 && total < 4 * threads) return run(0, total);
    core::parallel(total, grain_of_products(call.batch * call.m, call.n, call.k), run);
  }

  /// A product and the kernels behind it: block by block, or, where there are too few blocks for the threads,
  /// one after the other. Where those leave results of blocks of rows, a thread has whole ones of them.
  /// Several threads also go one after the other where k is no less than the rows: a product may be cut along
  /// its columns, so that each thread has its part of the weights, which it updates, too, while blocks of
  /// rows would have all threads read all of them; and C, read again, is no more than they are.
  bool run_product_entry(const Entry& e, const Memory& memory, const int64_t* numbers) const {
    const ProductCallPlan& c = plan.products[static_cast<size_t>(e.index)];
    if (e.count == 0) return run_product(c, memory), true;
    const Tail* const tails = plan.tails.data() + e.first;
    const RowBlocks blocks(c.shape, core::threads_here());
    const int64_t threads = core::threads_here(), unit = e.joins > 0 ? kColumnBlock : blocks.rows;
    const int64_t units = e.joins > 0 ? (c.shape.call.m + unit - 1) / unit : blocks.count;
    const bool alone = c.shape.outer.empty() && c.shape.call.batch == 1;
    const bool by_columns = threads > 1 && alone && c.shape.call.k >= c.shape.call.m;
    if (by_columns || units < (e.joins > 0 && threads > 1 ? 4 * threads : threads)) {
      run_product(c, memory);
      for (int32_t t = 0; t < e.count; ++t)
        if (!run_whole(tails[t].kernel, plan.calls[static_cast<size_t>(tails[t].call)], memory, numbers))
          return false;
      return run_joins(e, memory, numbers);
    }
    const ops::ProductCall whole = with_addresses(c, memory);
    std::atomic<bool> failed{false};
    const auto run_rows = [&](const ops::ProductCall& part, int64_t row) {
      ops::product(part, c.shape.provider);
      int64_t error = 0;
      for (int32_t t = 0; t < e.count; ++t) {
        const Tail& tail = tails[t];
        run_call(runners[static_cast<size_t>(tail.kernel)], plan.kernels[static_cast<size_t>(tail.kernel)],
                 plan.calls[static_cast<size_t>(tail.call)], row * tail.per_row,
                 (row + part.m) * tail.per_row, memory, numbers, &error);
      }
      if (error) failed.store(true, std::memory_order_relaxed);
    };
    core::parallel(units, grain_of_products(unit, whole.n, whole.k + 16), [&](int64_t begin, int64_t end) {
      if (e.joins == 0) {
        for (int64_t i = begin; i < end; ++i) run_rows(blocks.block(i, whole), blocks.first_row(i));
        return;
      }
      const int64_t last = std::min(end * unit, whole.m);
      for (int64_t row = begin * unit; row < last; row += blocks.rows)
        run_rows(blocks.part(0, row, std::min(blocks.rows, last - row), whole), row);
    });
    return !failed.load(std::memory_order_relaxed) && run_joins(e, memory, numbers);
  }

  /// Results without elements, where nothing can go wrong either: an axis beside the empty one may be so long
  /// that the natives could not count with it.
  static bool nothing_to_do(const NativeCallPlan& c) {
    if (c.op->kind == ops::OpKind::scatter || c.op->kind == ops::OpKind::kernel) return false;
    for (const TensorType& t : c.out_types)
      if (std::find(t.sizes.begin(), t.sizes.end(), 0) == t.sizes.end()) return false;
    return true;
  }

  bool run_native(const NativeCallPlan& c, const Memory& memory) const {
    if (nothing_to_do(c)) return true;
    constexpr size_t kInline = 32;
    const void* few_in[kInline];
    void* few_out[kInline];
    std::vector<const void*> many_in;
    std::vector<void*> many_out;
    const void** in = few_in;
    void** out = few_out;
    if (c.in.size() > kInline) {
      many_in.resize(c.in.size());
      in = many_in.data();
    }
    if (c.out.size() > kInline) {
      many_out.resize(c.out.size());
      out = many_out.data();
    }
    for (size_t i = 0; i < c.in.size(); ++i) in[i] = memory.at(c.in[i]);
    for (size_t i = 0; i < c.out.size(); ++i) out[i] = memory.at(c.out[i]);
    int64_t error = 0;
    c.op->native({{in, c.in.size()},
                  {out, c.out.size()},
                  c.in_types,
                  c.out_types,
                  c.words,
                  &error,
                  c.own_layout,
                  c.steps});
    return error == 0;
  }

  bool run_entry(const Entry& e, const Memory& memory, const int64_t* numbers) const {
    switch (e.kind) {
      case EntryKind::kernel:
        return run_kernel(e, memory, numbers);
      case EntryKind::product:
        return run_product_entry(e, memory, numbers);
      case EntryKind::native:
        return run_native(plan.natives[static_cast<size_t>(e.index)], memory);
    }
    return true;
  }

  int run(const Memory& memory, const int64_t* numbers, int* reached) const {
    const int all = core::threads_here();
    if (all == 1) return run_entries(memory, numbers, reached);
    const ThreadChoice::Turn turn = threads.next(all);
    const core::OnOneThread on_one_thread(turn.alone);
    if (!turn.timed) [[likely]]
      return run_entries(memory, numbers, reached);
    const uint64_t shared = core::shared_regions();
    const auto start = std::chrono::steady_clock::now();
    const int failed = run_entries(memory, numbers, reached);
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - start;
    if (failed == 0) threads.took(turn, took.count(), core::shared_regions() != shared);
    return failed;
  }

  int run_entries(const Memory& memory, const int64_t* numbers, int* reached) const {
    size_t i = 0;
    try {
      for (; i < entries_to_run; ++i)
        if (!run_entry(plan.entries[i], memory, numbers)) return static_cast<int>(i) + 1;
    } catch (...) {
      if (reached) *reached = static_cast<int>(i) + 1;
      throw;
    }
    return 0;
  }

  /// The same, each entry timed: a loop of its own, so that the other one asks nothing.
  [[gnu::cold, gnu::noinline]] int run_timed(const Memory& memory, const int64_t* numbers,
                                             int* reached) const {
    static constexpr const char* kKinds[] = {"kernel", "product", "native"};
    const core::OnOneThread on_one_thread(threads.alone());
    for (size_t i = 0; i < entries_to_run; ++i) {
      const Entry& e = plan.entries[i];
      const EntryNote& note = plan.notes[i];
      const core::ProfileSpan span(kKinds[static_cast<int>(e.kind)], e.name, e.where,
                                   note.bytes_read + note.bytes_written);
      try {
        if (!run_entry(e, memory, numbers)) return static_cast<int>(i) + 1;
      } catch (...) {
        if (reached) *reached = static_cast<int>(i) + 1;
        throw;
      }
    }
    return 0;
  }

  void choose_code(bool compile) {
    std::vector<KernelText> kernels;
    for (size_t i = 0; i < plan.kernels.size(); ++i)
      kernels.push_back({&plan.kernels[i], &plan.kernel_texts[i]});
    const auto [known, compile_ms] = known_kernels(kernels, compile);
    stats.compile_ms = compile_ms;
    for (size_t i = 0; i < known.size(); ++i)
      runners.push_back({compile ? known[i]->function.load(std::memory_order_acquire) : nullptr,
                         &known[i]->evaluator,
                         std::max<int64_t>(1, kGrainBytes / bytes_per_element(plan.kernels[i]))});
  }

  /// The printed text of a kernel; empty, with the reason, if it is interpreted.
  std::string source(size_t kernel, std::string* why) const {
    const std::string symbol = kernel_symbol(plan.kernel_texts[kernel]);
    return cuda ? print_cuda(plan.kernels[kernel], symbol) : print_c(plan.kernels[kernel], symbol, why);
  }
  bool is_compiled(size_t kernel) const { return cuda || runners[kernel].function != nullptr; }

  void count() {
    stats.entries = static_cast<int>(plan.entries.size());
    for (const Entry& e : plan.entries) switch (e.kind) {
        case EntryKind::kernel:
          ++stats.kernels;
          ++(is_compiled(static_cast<size_t>(e.index)) ? stats.compiled : stats.interpreted);
          break;
        case EntryKind::product:
          ++stats.products;
          for (int32_t t = e.first; t < e.first + e.count; ++t) {
            ++stats.kernels, ++stats.tails;
            ++(is_compiled(static_cast<size_t>(plan.tails[static_cast<size_t>(t)].kernel))
                   ? stats.compiled
                   : stats.interpreted);
          }
          break;
        case EntryKind::native:
          ++stats.natives;
          break;
      }
    for (const Join& j : plan.joins) {
      ++stats.kernels, ++stats.joins;
      ++(is_compiled(static_cast<size_t>(j.kernel)) ? stats.compiled : stats.interpreted);
    }
    if (cuda) {
      stats.graph_nodes = cuda->has_graph() ? static_cast<int>(cuda->steps().steps.size()) : 0;
      stats.launches = cuda->has_graph() ? 1 : cuda->steps().launches;
    }
    stats.groups = plan.groups;
    stats.distinct = static_cast<int>(plan.kernels.size());
    stats.arena_bytes = plan.arena_bytes;
    stats.bytes_moved = plan.bytes_moved;
    stats.bytes_unfused = plan.bytes_unfused;
  }
};

WithoutEntries::WithoutEntries() { ++without_entries; }
WithoutEntries::~WithoutEntries() { --without_entries; }

Executable::Executable(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Executable::~Executable() = default;

std::shared_ptr<const Executable> Executable::make(const Graph& g, const ExecutableOptions& options) {
  const core::ProfileSpan span("compile", options.compile ? "compile a plan" : "make a plan", {});
  auto impl = std::make_unique<Impl>();
  impl->device = options.device;
  const auto ready = [&](const Graph& from) {
    return options.optimize ? jit::optimize(from, options.disabled_passes) : expand_composites(from);
  };
  const bool calls =
      options.device.type == DeviceType::cuda || std::any_of(g.nodes.begin(), g.nodes.end(), by_library);
  impl->graph = calls ? ready(for_device(g, options.device)) : ready(g);
  impl->plan = make_plan(impl->graph, options.optimize, options.device, options.non_temporal_nbytes).plan;
  if (options.device.type == DeviceType::cuda)
    impl->cuda = std::make_unique<CudaExecutable>(impl->graph, impl->plan, options.device, options.compile);
  else
    impl->choose_code(options.compile);
  impl->count();
  impl->entries_to_run = options.compile && without_entries.load() ? 0 : impl->plan.entries.size();
  if (options.compile) HostCompiler::expect_no_more();  // where nothing was compiled
  const std::shared_ptr<const Executable> made(new Executable(std::move(impl)));
  if (core::dumps("graph")) core::dump("graph", to_string(g));
  if (core::dumps("plan")) core::dump("plan", made->plan_text());
  if (core::dumps("kernels")) core::dump("kernels", made->code());
  return made;
}

int Executable::run(void* const* inputs, const int64_t* numbers, void* const* outputs, Location where,
                    int* reached) const {
  if (impl_->cuda) {
    impl_->cuda->run(inputs, numbers, outputs, where,
                     impl_->entries_to_run == 0 && !impl_->plan.entries.empty(), reached);
    return 0;
  }
  if (core::host_copies.load(std::memory_order_relaxed) != 0) [[unlikely]]
    for (size_t i = 0; i < impl_->graph.inputs.size(); ++i) core::settle_host(inputs[i]);
  const ThreadArena arena(impl_->plan.arena_bytes);
  const Memory memory{arena.memory(), inputs, outputs, impl_->plan.constants.data()};
  if (core::profiling()) [[unlikely]]
    return impl_->run_timed(memory, numbers, reached);
  return impl_->run(memory, numbers, reached);
}

bool Executable::wrote_nothing(int reached) const {
  if (reached == 0) return true;
  if (impl_->cuda) return false;
  const Entry& e = impl_->plan.entries.at(static_cast<size_t>(reached) - 1);
  return e.kind == EntryKind::native &&
         impl_->plan.natives[static_cast<size_t>(e.index)].op->kind == ops::OpKind::kernel;
}

Location Executable::entry_where(int entry) const {
  return impl_->plan.entries.at(static_cast<size_t>(entry)).where;
}
std::string Executable::entry_name(int entry) const {
  return impl_->plan.entries.at(static_cast<size_t>(entry)).op;
}
const ExecutableStats& Executable::stats() const { return impl_->stats; }
const Graph& Executable::graph() const { return impl_->graph; }
std::string Executable::plan_text() const { return to_string(impl_->plan); }

std::string Executable::code() const {
  std::string text;
  for (size_t i = 0; i < impl_->plan.kernels.size(); ++i) {
    std::string why;
    const std::string printed = impl_->source(i, &why);
    text +=
        printed.empty() ? "// " + impl_->plan.kernels[i].name + " is interpreted: " + why + "\n" : printed;
    text += "\n";
  }
  return text;
}

Description Executable::describe() const {
  Description d{prepared_for(impl_->graph, impl_->device), impl_->plan, {}, {}};
  for (size_t i = 0; i < d.plan.kernels.size(); ++i) {
    std::string why;
    d.sources.push_back(impl_->source(i, &why));
    if (d.sources.back().empty()) d.sources.back() = why;
    d.compiled.push_back(impl_->is_compiled(i));
  }
  return d;
}

std::vector<std::string> Executable::fallbacks() const {
  std::vector<std::string> out;
  for (size_t i = 0; i < impl_->plan.kernels.size(); ++i) {
    if (impl_->is_compiled(i)) continue;
    std::string why;
    if (!impl_->source(i, &why).empty()) why = "no compiled code";
    out.push_back("kernel " + impl_->plan.kernels[i].name + " is interpreted: " + why);
  }
  return out;
}

}  // namespace tandem::jit
