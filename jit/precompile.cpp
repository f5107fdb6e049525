#include "tandem/jit/precompile.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tandem/jit/cuda_program.h"
#include "tandem/jit/kernel_table.h"
#include "tandem/jit/make_plan.h"

namespace tandem::jit {

int precompile(std::span<const Graph> graphs, Device device) {
  std::map<std::string, Kernel> kernels;  // by text
  std::vector<Plan> plans;
  for (const Graph& g : graphs) {
    Graph ready = optimize(for_device(g, device));
    plans.push_back(make_plan(ready, true, device).plan);
    const Plan& plan = plans.back();
    for (size_t i = 0; i < plan.kernels.size(); ++i)
      kernels.try_emplace(plan.kernel_texts[i], plan.kernels[i]);
  }
  if (device.type == DeviceType::cuda) {
    std::vector<CudaKernel> wanted;
    for (const auto& [text, kernel] : kernels) wanted.push_back({&kernel, &text});
    for (const Plan& plan : plans)
      for (const Entry& e : plan.entries)
        if (e.chain) wanted.push_back(chain_of(plan, e));
    cuda_kernels(cuda::Runtime::of(device), wanted);
  } else {
    std::vector<KernelText> wanted;
    for (const auto& [text, kernel] : kernels) wanted.push_back({&kernel, &text});
    known_kernels(wanted, true);
  }
  return static_cast<int>(kernels.size());
}

}  // namespace tandem::jit
