// Chains: the kernels' texts one behind the other, each for a grid of one block, which waits for all its
// threads in between: so a kernel sees what those before it stored.
#include <algorithm>

#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

namespace {

template <class I>
std::string num(I v) {
  return std::to_string(v);
}

/// Dynamic shared memory of a block: what rows keep, where it lets them keep anything.
int64_t chain_bytes(std::span<const ChainKernel> chain) {
  int64_t most = 0;
  for (const ChainKernel& c : chain) {
    if (c.kernel->kind != KernelKind::row) continue;
    const int64_t n = reduced_elements(*c.kernel, c.dims);
    const int64_t bytes = CudaPrinter(*c.kernel, plan_cuda(*c.kernel)).kept_bytes(n) * kCudaThreads;
    if (bytes <= kCudaKeptBytes) most = std::max(most, bytes);
  }
  return most;
}

}  // namespace

bool cuda_takes_chain(std::span<const ChainKernel> chain) {
  int words = 0;
  int64_t bytes = 0;
  for (const ChainKernel& c : chain) {
    words += cuda_words(*c.kernel), bytes += cuda_team_bytes(*c.kernel);
    if (words > kMaxCudaWords || !c.kernel->across.empty()) return false;
    if (c.kernel->kind != KernelKind::pointwise && 32 * cuda_team(*c.kernel) < kCudaThreads) return false;
  }
  return bytes + chain_bytes(chain) <= kCudaKeptBytes;
}

LaunchShape chain_shape(std::span<const ChainKernel> chain) {
  return {1, kCudaThreads, static_cast<unsigned>(chain_bytes(chain))};
}

CudaPrinter::Part CudaPrinter::print_part(const std::string& symbol, const std::string& args) {
  Part part;
  parameter(symbol);
  part.parameter = std::move(t_.out);
  t_ = {};
  t_.out = kernel_comment(k_);
  line("{");
  line("const td_args_" + symbol + "& a = " + args + ";");
  line("const td_u32 block = 0, blocks = 1;");
  work();
  line("}");
  part.work = std::move(t_.out);
  return part;
}

std::string print_cuda_chain(std::span<const Kernel* const> kernels, const std::string& symbol) {
  std::string parameters, members, work;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const CudaPlan plan = plan_cuda(*kernels[i]);
    const std::string name = symbol + "_" + num(i), member = "call" + num(i);
    CudaPrinter::Part part = CudaPrinter(*kernels[i], plan).print_part(name, "all." + member);
    parameters += part.parameter;
    members += " td_args_" + name + " " + member + ";";
    work += (i ? "__syncthreads();\n" : "") + part.work;
  }
  return parameters + "struct td_chain_" + symbol + " {" + members + " };\nextern \"C\" __global__ void " +
         "__launch_bounds__(" + num(kCudaThreads) + ", 1) " + symbol + "(const __grid_constant__ td_chain_" +
         symbol + " all) {\n" + work + "}\n";
}

}  // namespace tandem::jit
