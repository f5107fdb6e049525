// Graphs on a CUDA device as tests run them: operands go there and come back with the results. One thread.
#pragma once

#include "tests/jit/device_kernels.h"
#include "tests/jit/graph_runner.h"

namespace tandem::jit::samples {

inline constexpr Device kCuda{DeviceType::cuda, 0};

inline std::string bytes_of(const test::GuardedBytes& b) { return {b.data(), b.size()}; }

inline test::GraphRun run_on_device(const Executable& x, const Graph& g,
                                    const test::GraphArguments& arguments) {
  cuda::Runtime& device = test_device();
  test::GraphRun r;
  r.inputs.reserve(arguments.inputs.size());
  std::vector<DeviceBytes> inputs, outputs;
  std::vector<void*> in, out;
  for (const test::GuardedBytes& b : arguments.inputs) {
    r.inputs.push_back(b);
    inputs.emplace_back(device, bytes_of(b));
    in.push_back(reinterpret_cast<void*>(inputs.back().at()));
  }
  for (const int32_t v : g.outputs) {
    const ops::TensorType& t = g.type(v);
    r.outputs.emplace_back(static_cast<size_t>(numel(t.sizes) * itemsize(t.dtype)));
    outputs.emplace_back(device, bytes_of(r.outputs.back()));
    out.push_back(reinterpret_cast<void*>(outputs.back().at()));
  }
  try {
    x.run(in.data(), arguments.numbers.data(), out.data());
    device.synchronize();
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    CHECK_THAT(e.what(), Contains("out of range"));
    r.failed = 1;
  }
  const auto back = [](std::vector<DeviceBytes>& from, std::vector<test::GuardedBytes>& to) {
    for (size_t i = 0; i < from.size(); ++i) {
      const std::string bytes = from[i].read();
      std::copy(bytes.begin(), bytes.end(), to[i].data());
    }
  };
  back(inputs, r.inputs);
  back(outputs, r.outputs);
  return r;
}

}  // namespace tandem::jit::samples
