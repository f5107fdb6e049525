#include "tandem/jit/cuda_steps.h"

#include <algorithm>
#include <array>

#include "tandem/core/error.h"
#include "tandem/jit/attention_call.h"
#include "tandem/jit/convolution_call.h"
#include "tandem/jit/cuda_native.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using cuda::Pointer;
using cuda::Runtime;

namespace {

constexpr int64_t kAlignment = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Calls of one kernel, in one launch if there is room; or the first of a chain.
struct Calls {
  int32_t entry = 0, kernel = 0, first = 0, count = 0;
  bool chain = false;
};

/// Of the plan's entries, in order: an entry's own, and then those that join what they left.
std::vector<Calls> calls_of(const Plan& plan) {
  std::vector<Calls> all;
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const Entry& e = plan.entries[i];
    if (e.kind != EntryKind::kernel) continue;
    const auto entry = static_cast<int32_t>(i);
    all.push_back({entry, e.index, e.first, e.count, e.chain});
    if (e.chain) continue;
    const auto joins = plan.joins_of(e);
    for (const Join& join : joins) {
      if (&join != joins.data() && all.back().kernel == join.kernel)
        ++all.back().count;
      else
        all.push_back({entry, join.kernel, join.call, 1});
    }
  }
  return all;
}

/// Calls `f(which of all, the call's split shape)`; those of a chain are not split.
template <class F>
void for_calls(const Plan& plan, const std::vector<Calls>& all, F&& f) {
  for (size_t c = 0; c < all.size(); ++c) {
    const Kernel& kernel = plan.kernels[static_cast<size_t>(all[c].kernel)];
    const bool splits = !all[c].chain && cuda_splits(kernel);
    for (int32_t i = all[c].first; i < all[c].first + all[c].count; ++i) {
      const KernelCall& call = plan.calls[static_cast<size_t>(i)];
      f(c, splits ? split_shape(kernel, plan.words.data() + call.dims, call.range) : SplitShape{});
    }
  }
}

CudaForm form_of(const Runtime& device, const Kernel& kernel, int32_t calls) {
  if (calls <= 1) return CudaForm::one;
  if (calls > cuda_calls(kernel) && takes_many_calls(device)) return CudaForm::many;
  return cuda_calls(kernel) > 1 ? CudaForm::several : CudaForm::one;
}

/// Of each of them, or null: that for its calls, or that for those whose rows are split.
std::vector<cuda::Function> functions_of(Runtime& device, const Plan& plan, const std::vector<Calls>& all,
                                         bool split) {
  std::vector<CudaForm> forms(all.size(), CudaForm::one);
  std::vector<bool> used(all.size(), false);
  for_calls(plan, all, [&](size_t i, const SplitShape& s) {
    if ((s.launch.grid > 0) != split) return;
    used[i] = true;
    forms[i] = split ? CudaForm::split
                     : form_of(device, plan.kernels[static_cast<size_t>(all[i].kernel)], all[i].count);
  });
  std::vector<CudaKernel> wanted;
  for (size_t i = 0; i < used.size(); ++i) {
    const auto k = static_cast<size_t>(all[i].kernel);
    if (!used[i]) continue;
    if (all[i].chain)
      wanted.push_back(chain_of(plan, plan.entries[static_cast<size_t>(all[i].entry)]));
    else
      wanted.push_back({&plan.kernels[k], &plan.kernel_texts[k], forms[i]});
  }
  const std::vector<cuda::Function> found = cuda_kernels(device, wanted);
  std::vector<cuda::Function> out;
  auto next = found.begin();
  for (size_t i = 0; i < used.size(); ++i) out.push_back(used[i] ? *next++ : nullptr);
  return out;
}

int64_t counter_bytes(const Plan& plan, const std::vector<Calls>& all) {
  int64_t most = 0;
  for_calls(plan, all, [&](size_t, const SplitShape& s) { most = std::max(most, 4 * s.counters); });
  return most;
}

class Builder {
 public:
  Builder(Runtime& device, const Graph& graph, const Plan& plan, Pointer constants)
      : device_(device),
        plan_(plan),
        constants_(constants),
        calls_(calls_of(plan)),
        functions_(functions_of(device, plan, calls_, false)),
        splits_(functions_of(device, plan, calls_, true)) {
    s_.n_inputs = static_cast<int32_t>(graph.inputs.size());
    s_.n_outputs = static_cast<int32_t>(graph.outputs.size());
    s_.n_numbers = static_cast<int32_t>(graph.number_types.size());
    for (const Input& in : graph.inputs) {
      const TensorType& type = graph.type(in.value);
      int64_t reach = numel(type.sizes) == 0 ? 0 : 1;
      for (int d = 0; reach && d < type.sizes.rank(); ++d) reach += (type.sizes[d] - 1) * in.strides[d];
      s_.operands.push_back({type.dtype, reach});
    }
    for (const int32_t v : graph.outputs) {
      const TensorType& type = graph.type(v);
      s_.operands.push_back({type.dtype, numel(type.sizes), true});
    }
    for (const Write& w : graph.writes) s_.operands[static_cast<size_t>(w.input)].written = true;
    workspace_ = aligned(plan.arena_bytes);
    s_.arena_bytes = plan.arena_bytes;
    if (const int64_t nbytes = counter_bytes(plan, calls_); nbytes > 0) {
      s_.counters = std::make_unique<cuda::Block>(device, nbytes);
      device.fill(s_.counters->memory(), 0, nbytes);
    }
  }

  CudaSteps build() {
    size_t next = 0;  // of the calls
    for (size_t i = 0; i < plan_.entries.size(); ++i) {
      const Entry& e = plan_.entries[i];
      entry_ = static_cast<int32_t>(i);
      switch (e.kind) {
        case EntryKind::kernel:
          for (; next < calls_.size() && calls_[next].entry == entry_; ++next)
            e.chain ? chain(e, functions_[next]) : kernel(e, calls_[next], functions_[next], splits_[next]);
          break;
        case EntryKind::product:
          product(plan_.products[static_cast<size_t>(e.index)]);
          break;
        case EntryKind::native:
          native(plan_.natives[static_cast<size_t>(e.index)]);
          break;
      }
    }
    return std::move(s_);
  }

 private:
  CudaValue at(const Address& a) const {
    switch (a.base) {
      case Base::arena:
        return {CudaSteps::kArena, a.offset};
      case Base::input:
        return {CudaSteps::kFirst + a.index, a.offset};
      case Base::output:
        return {CudaSteps::kFirst + s_.n_inputs + a.index, a.offset};
      case Base::constant:
        return {-1, static_cast<int64_t>(constants_) + a.offset};
      case Base::none:
        break;
    }
    return {};
  }
  CudaValue number(const NumberWord& word) const {
    if (word.index < 0) return {-1, word.bits};
    return {CudaSteps::kFirst + s_.n_inputs + s_.n_outputs + word.index, 0};
  }
  void begin(cuda::Function function, const LaunchShape& shape) {
    CudaStep step;
    step.entry = entry_;
    step.function = function;
    step.shape = shape;
    step.first_word = static_cast<int32_t>(s_.words.size());
    step.first_patch = static_cast<int32_t>(s_.patches.size());
    s_.steps.push_back(step);
    ++s_.launches;
  }
  void word(const CudaValue& value) {
    CudaStep& step = s_.steps.back();
    if (value.source >= 0) {
      s_.patches.push_back({step.n_words, value});
      ++step.n_patches;
    }
    s_.words.push_back(value.source < 0 ? value.offset : 0);
    ++step.n_words;
    TANDEM_INTERNAL(step.n_words <= kManyCudaWords, "a launch of too many words");
  }

  // Several calls go into one launch as long as their blocks have one shape and there is room.
  void kernel(const Entry& e, const Calls& calls, cuda::Function function, cuda::Function split_function) {
    constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
    const Kernel& kernel = plan_.kernels[static_cast<size_t>(calls.kernel)];
    const CudaForm form = form_of(device_, kernel, calls.count);
    const int room = form == CudaForm::one ? 1 : cuda_calls(kernel, form);
    std::vector<int64_t> ends;  // of the calls' blocks
    LaunchShape all;
    const auto close = [&] {
      if (room == 1 || ends.empty()) return;
      for (int i = static_cast<int>(ends.size()) * cuda_words(kernel); i < room * cuda_words(kernel); ++i)
        word({-1, 0});
      ends.resize(static_cast<size_t>(room), kMostBlocks + 1);  // no block is behind the last
      for (const int64_t end : ends) word({-1, end});
      ends.clear();
    };
    for (int32_t i = calls.first; i < calls.first + calls.count; ++i) {
      const KernelCall& call = plan_.calls[static_cast<size_t>(i)];
      const LaunchShape shape =
          launch_shape(kernel, plan_.words.data() + call.dims, call.range, device_.shared_bytes());
      if (shape.grid == 0) continue;
      if (split_function) {
        const SplitShape split = split_shape(kernel, plan_.words.data() + call.dims, call.range);
        if (split.launch.grid > 0) {
          close();
          begin(split_function, split.launch);
          call_words(e, kernel, call);
          word({-1, static_cast<int64_t>(s_.counters->memory())});
          word({CudaSteps::kArena, workspace_});
          s_.arena_bytes = std::max(s_.arena_bytes, workspace_ + split.bytes);
          continue;
        }
      }
      if (ends.size() == static_cast<size_t>(room) || shape.block != all.block ||
          all.grid + int64_t{shape.grid} > kMostBlocks)
        close();
      if (ends.empty() || room == 1) {
        begin(function, all = shape);
      } else {
        s_.steps.back().shape.grid = all.grid += shape.grid;
        s_.steps.back().shape.shared_bytes = all.shared_bytes =
            std::max(all.shared_bytes, shape.shared_bytes);
      }
      // What a kernel declares counts, too.
      if (shape.shared_bytes + cuda_team_bytes(kernel) > kCudaUnasked) ask_for_shared(function, kernel);
      if (room > 1) ends.push_back(all.grid);
      call_words(e, kernel, call);
    }
    close();
  }

  // As much as any plan may: the function is everybody's.
  void ask_for_shared(cuda::Function function, const Kernel& kernel) {
    device_.use();
    device_.check(device_.api().function_set(function, cuda::kMostDynamicShared,
                                             static_cast<int>(most_shared(kernel, device_.shared_bytes()))),
                  "cuFuncSetAttribute");
  }

  void chain(const Entry& e, cuda::Function function) {
    std::vector<Join> all = {{e.index, e.first}};
    const auto behind = plan_.joins_of(e);
    all.insert(all.end(), behind.begin(), behind.end());
    std::vector<ChainKernel> kernels;
    for (const auto& [k, c] : all) {
      const KernelCall& call = plan_.calls[static_cast<size_t>(c)];
      kernels.push_back({&plan_.kernels[static_cast<size_t>(k)], plan_.words.data() + call.dims, call.range});
    }
    begin(function, chain_shape(kernels));
    for (const auto& [k, c] : all)
      call_words(e, plan_.kernels[static_cast<size_t>(k)], plan_.calls[static_cast<size_t>(c)]);
  }

  void call_words(const Entry& e, const Kernel& kernel, const KernelCall& call) {
    const int64_t rank = kernel.kept_rank + kernel.reduced_rank;
    const int64_t n_strides = cuda_words(kernel) - kernel.buffers - rank - kernel.numbers - 2;
    const int64_t *const dims = plan_.words.data() + call.dims, *const strides =
                                                                    plan_.words.data() + call.strides;
    for (int b = 0; b < kernel.buffers; ++b) word(at(plan_.buffers[static_cast<size_t>(call.buffers + b)]));
    for (int64_t d = 0; d < rank; ++d) word({-1, dims[d]});
    for (int64_t d = 0; d < n_strides; ++d) word({-1, strides[d]});
    for (int k = 0; k < kernel.numbers; ++k)
      word(number(plan_.numbers[static_cast<size_t>(call.numbers + k)]));
    word({-1, call.range});
    word(error(e));
  }

  static CudaValue error(const Entry& e) { return {e.may_fail ? CudaSteps::kError : -1, 0}; }

  void threads(const NativeLaunch& l, const std::vector<CudaValue>& words) {
    begin(l.function, l.shape());
    for (const CudaValue& w : words) word(w);
  }

  void mark(const CudaValue& value) {
    const int32_t operand = value.source - CudaSteps::kFirst;
    if (operand >= 0 && operand < s_.n_inputs + s_.n_outputs)
      s_.operands[static_cast<size_t>(operand)].in_products = true;
  }

  /// `p` without its workspace, of `bytes`; it counts as `launches`.
  void library_step(CudaProductStep p, int64_t bytes, int64_t launches) {
    CudaStep step;
    step.entry = entry_;
    step.product = static_cast<int32_t>(s_.products.size());
    s_.steps.push_back(step);
    s_.launches += static_cast<int32_t>(launches);
    if (bytes > 0) {
      p.workspace = {CudaSteps::kArena, workspace_};
      s_.arena_bytes = std::max(s_.arena_bytes, workspace_ + bytes);
    }
    p.for_values([&](const CudaValue& v) { mark(v); });
    s_.products.push_back(std::move(p));
  }

  void product(const ProductCallPlan& c) {
    if (const LibraryProduct* const library = library_product(device_, c))
      return library_step({&c, library, {}, {}, at(c.a), at(c.b), at(c.bias), at(c.c), {}, {}},
                          workspace_bytes(*library), library_calls(c));
    const std::vector<int64_t> more = product_words(c.shape.call);
    if (more.back() == 0) return;
    const auto [symbol, text] = product_kernel(c.shape.call.dtype);
    const cuda::Function function = cuda_function(device_, symbol, text);
    for_products(c, [&](int64_t a, int64_t b, int64_t to) {
      std::vector<CudaValue> words = {at(c.a), at(c.b), at(c.bias), at(c.c)};
      words[0].offset += a;
      words[1].offset += b;
      words[3].offset += to;
      for (const int64_t w : more) words.push_back({-1, w});
      threads({function, {}, more.back(), {}}, words);
    });
  }

  /// By cuDNN, if it takes it: operands in the order of x, w and y, of which the call makes one. The op
  /// rounds a half with its bias once, so the library must add that; another bias is an op of its own here
  /// (with_bias_apart).
  bool convolution(const NativeCallPlan& c) {
    const auto [shape, biased, fused] =
        convolution_call_shape(*c.op, c.in_types, c.in.size() > 2 && c.in[2].base != Base::none,
                               c.out_types[0], c.words, c.in_strides);
    if (biased && !fused) return false;
    std::shared_ptr<const CudnnConvolution> found = cudnn_convolution(device_, shape);
    if (!found) return false;
    const CudaValue first = at(c.in[0]), second = at(c.in[1]), made = at(c.out[0]);
    const int64_t bytes = workspace_bytes(*found);
    CudaProductStep p;
    p.convolution = std::move(found);
    if (fused) p.bias = at(c.in[2]);
    switch (shape.direction) {
      case CudnnDirection::forward:
        p.a = first, p.b = second, p.c = made;
        break;
      case CudnnDirection::input:
        p.a = made, p.b = second, p.c = first;
        break;
      case CudnnDirection::weight:
        p.a = first, p.b = made, p.c = second;
        break;
    }
    library_step(std::move(p), bytes, 1);
    return true;
  }

  void attention(const NativeCallPlan& c) {
    CudaProductStep p;
    p.attention = attention_call(device_, c);
    for (const Address& a : p.attention->operands) p.values.push_back(at(a));
    p.values.push_back(number(p.attention->scale));
    const int64_t bytes = p.attention->workspace_bytes;
    library_step(std::move(p), bytes, 1);
  }

  void native(const NativeCallPlan& c) {
    if (c.op->library >= 0) return attention(c);
    if (c.op->kind == ops::OpKind::convolution && convolution(c)) return;
    for (size_t i = 0; i < c.in_strides.size(); ++i)  // which only the library reads
      TANDEM_INTERNAL(c.in_strides[i].empty() || is_contiguous(c.in_types[i].sizes, c.in_strides[i]),
                      "no plan of cuDNN's any more for operands that are not contiguous");
    launches(c, cuda_native(device_, c));
  }

  void launches(const NativeCallPlan& c, const std::vector<NativeLaunch>& all) {
    const Entry& e = plan_.entries[static_cast<size_t>(entry_)];
    for (const NativeLaunch& l : all) {
      std::vector<CudaValue> words;
      for (const NativeWord& w : l.words) {
        CudaValue v{-1, 0};
        if (w.operand == NativeWord::kError)
          v = error(e);
        else if (w.operand == NativeWord::kWorkspace)
          v = {CudaSteps::kArena, workspace_};
        else if (w.operand <= NativeWord::kOutputs)
          v = at(c.out[static_cast<size_t>(NativeWord::kOutputs - w.operand)]);
        else if (w.operand != NativeWord::kNone)
          v = at(w.operand == NativeWord::kOut ? c.out[0]
                                               : c.in[static_cast<size_t>(w.operand - NativeWord::kInput)]);
        v.offset += w.value;
        words.push_back(v);
      }
      if (l.workspace_bytes > 0) s_.arena_bytes = std::max(s_.arena_bytes, workspace_ + l.workspace_bytes);
      threads(l, words);
    }
  }

  Runtime& device_;
  const Plan& plan_;
  const Pointer constants_;
  const std::vector<Calls> calls_;
  const std::vector<cuda::Function> functions_, splits_;  // of these; for rows that are split
  int64_t workspace_ = 0;
  int32_t entry_ = 0;
  CudaSteps s_;
};

}  // namespace

CudaSteps cuda_steps(Runtime& device, const Graph& graph, const Plan& plan, Pointer constants) {
  return Builder(device, graph, plan, constants).build();
}

}  // namespace tandem::jit
