#include "tandem/jit/cuda_executable.h"

#include "tandem/core/env.h"
#include "tandem/core/profile.h"
#include "tandem/jit/cuda_graph.h"
#include "tandem/jit/cuda_native.h"
#include "tandem/jit/cuda_product.h"
#include "tandem/jit/cuda_program.h"

namespace tandem::jit {

using cuda::Pointer;
using cuda::Runtime;

namespace {
/// Calls `f(entry, call, its split shape)` for the calls of kernels.
template <class F>
void for_calls(const Plan& plan, F&& f) {
  for (const Entry& e : plan.entries) {
    if (e.kind != EntryKind::kernel) continue;
    const Kernel& kernel = plan.kernels[static_cast<size_t>(e.index)];
    const bool splits = cuda_splits(kernel);
    for (int32_t i = e.first; i < e.first + e.count; ++i) {
      const KernelCall& call = plan.calls[static_cast<size_t>(i)];
      f(e, splits ? split_shape(kernel, plan.words.data() + call.dims, call.range) : SplitShape{});
    }
  }
}
/// Of each entry, or null: that for its calls, or that for those whose rows are split.
std::vector<cuda::Function> functions_of(Runtime& device, const Plan& plan, bool split) {
  std::vector<CudaForm> forms(plan.entries.size(), CudaForm::one);
  std::vector<bool> used(plan.entries.size(), false);
  for_calls(plan, [&](const Entry& e, const SplitShape& s) {
    const auto i = static_cast<size_t>(&e - plan.entries.data());
    if ((s.launch.grid > 0) != split) return;
    used[i] = true;
    if (split)
      forms[i] = CudaForm::split;
    else if (e.count > 1 && cuda_calls(plan.kernels[static_cast<size_t>(e.index)]) > 1)
      forms[i] = CudaForm::several;
  });
  std::vector<CudaKernel> wanted;
  for (size_t i = 0; i < used.size(); ++i) {
    const auto k = static_cast<size_t>(plan.entries[i].index);
    if (used[i]) wanted.push_back({&plan.kernels[k], &plan.kernel_texts[k], forms[i]});
  }
  const std::vector<cuda::Function> found = cuda_kernels(device, wanted);
  std::vector<cuda::Function> out;
  auto next = found.begin();
  for (size_t i = 0; i < used.size(); ++i) out.push_back(used[i] ? *next++ : nullptr);
  return out;
}
int64_t counter_bytes(const Plan& plan) {
  int64_t most = 0;
  for_calls(plan, [&](const Entry&, const SplitShape& s) { most = std::max(most, 4 * s.counters); });
  return most;
}
int64_t part_bytes(const Plan& plan) {
  int64_t most = 0;
  for_calls(plan, [&](const Entry&, const SplitShape& s) { most = std::max(most, s.bytes); });
  return most;
}
int64_t constant_bytes(const Plan& plan) {
  return static_cast<int64_t>(plan.constants.size() * sizeof(Line));
}
}  // namespace

Pointer CudaExecutable::Addresses::at(const Address& a) const {
  const auto offset = static_cast<Pointer>(a.offset);
  switch (a.base) {
    case Base::arena:
      return arena + offset;
    case Base::input:
      return reinterpret_cast<Pointer>(inputs[a.index]) + offset;
    case Base::output:
      return reinterpret_cast<Pointer>(outputs[a.index]) + offset;
    case Base::constant:
      return constants + offset;
    case Base::none:
      break;
  }
  return 0;
}

CudaExecutable::CudaExecutable(const Plan& plan, Device device, bool graph)
    : plan_(plan),
      device_(Runtime::of(device)),
      functions_(functions_of(device_, plan, false)),
      splits_(functions_of(device_, plan, true)),
      counters_(device_, counter_bytes(plan)),
      parts_(device_, part_bytes(plan)),
      constants_(device_, constant_bytes(plan)) {
  for (const Entry& e : plan.entries) {
    if (e.kind == EntryKind::product) {
      const ProductCallPlan& c = plan.products[static_cast<size_t>(e.index)];
      prepare_cuda_product(device_, c);
      workspace_bytes_ = std::max(workspace_bytes_, cuda_product_workspace(device_, c));
    } else if (e.kind == EntryKind::native) {
      prepare_cuda_native(device_, plan.natives[static_cast<size_t>(e.index)]);
    }
  }
  if (const int64_t nbytes = counter_bytes(plan); nbytes > 0)
    device_.check(
        device_.api().fill_bytes(counters_.memory(), 0, static_cast<size_t>(nbytes), device_.stream()),
        "cuMemsetD8Async");
  if (graph) graph_ = std::make_unique<CudaGraph>(*this);
  device_.copy_in(constants_.memory(), plan.constants.data(), constant_bytes(plan));
}

CudaExecutable::~CudaExecutable() = default;

Pointer CudaExecutable::error_word(const Entry& e) const {
  return e.may_fail ? device_.error_word(e.op + ": index out of range", e.where) : 0;
}

std::vector<Pointer> CudaExecutable::addresses_of(const Entry& e, const Addresses& memory) const {
  if (e.kind == EntryKind::product) {
    const ProductCallPlan& c = plan_.products[static_cast<size_t>(e.index)];
    return {memory.at(c.a), memory.at(c.b), memory.at(c.bias), memory.at(c.c), memory.workspace};
  }
  const NativeCallPlan& c = plan_.natives[static_cast<size_t>(e.index)];
  std::vector<Pointer> out = {memory.at(c.out[0])};
  for (const Address& a : c.in) out.push_back(memory.at(a));
  return out;
}

void CudaExecutable::run_library(const Entry& e, const Addresses& memory, Pointer error,
                                 cuda::Stream stream) const {
  const std::vector<Pointer> at = addresses_of(e, memory);
  if (e.kind == EntryKind::product)
    cuda_product(device_, plan_.products[static_cast<size_t>(e.index)], at[0], at[1], at[2], at[3], at[4],
                 stream);
  else
    cuda_native(device_, plan_.natives[static_cast<size_t>(e.index)], std::span(at).subspan(1), at[0], error,
                stream);
}

// One launch after another; waits for each where that is asked for.
void CudaExecutable::run_entries(const Addresses& memory, const int64_t* numbers, size_t entries) const {
  static constexpr const char* kKinds[] = {"kernel", "product", "native"};
  const bool wait = core::environment().sync || core::profiling();
  for (size_t i = 0; i < entries; ++i) {
    const Entry& e = plan_.entries[i];
    const core::ProfileSpan span(kKinds[static_cast<int>(e.kind)], e.name, e.where,
                                 plan_.notes[i].bytes_read + plan_.notes[i].bytes_written);
    try {
      if (e.kind == EntryKind::kernel)
        for_launches(e, memory, numbers, [&](const Launch& l) {
          void* parameters[] = {l.words};
          device_.check(device_.api().launch(l.function, l.shape.grid, 1, 1, l.shape.block, 1, 1,
                                             l.shape.shared_bytes, device_.stream(), parameters, nullptr),
                        "cuLaunchKernel");
        });
      else
        run_library(e, memory, error_word(e), device_.stream());
      if (wait) [[unlikely]]
        device_.synchronize();
    } catch (const OutOfMemory&) {
      throw;
    } catch (const Error& error) {
      fail_again(error, e.op, e.where);
    }
  }
}

void CudaExecutable::run(void* const* inputs, const int64_t* numbers, void* const* outputs,
                         size_t entries) const {
  device_.use();
  const cuda::Block arena(device_, plan_.arena_bytes), workspace(device_, workspace_bytes_);
  const Addresses memory{arena.memory(), inputs, outputs, constants_.memory(), workspace.memory()};
  if (graph_ && entries && !core::environment().sync && !core::profiling())
    graph_->run(memory, numbers);
  else
    run_entries(memory, numbers, entries);
}

}  // namespace tandem::jit
