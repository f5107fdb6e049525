#include "tests/jit/graph_judge.h"

#include <bit>
#include <random>

#include "tandem/core/error.h"
#include "tandem/jit/expand.h"
#include "tests/jit/program.h"

namespace tandem::test {

using namespace jit;

std::string judge(const Graph& g, const GraphArguments& arguments, bool compile, uint64_t seed,
                  Tally& tally) {
  try {
    check(g, "generating");
    const Judgement judgement = judge_nodes(expand_composites(g), arguments);
    tally.checked += judgement.checked;
    tally.skipped += judgement.skipped;
    if (!judgement.mismatch.empty()) return "against the reference: " + judgement.mismatch;

    const auto run = [&](const ExecutableOptions& options) {
      const auto x = Executable::make(g, options);
      GraphRun result = run_graph(*x, g, arguments);
      if (result.failed)
        return std::pair(std::move(result), "an index out of range in " + x->entry_name(result.failed - 1));
      std::string text = result.guards_hold() ? "" : "memory around inputs or outputs was overwritten";
      if (options.compile) tally.compiled += x->stats().compiled, tally.interpreted += x->stats().interpreted;
      return std::pair(std::move(result), std::move(text));
    };
    const auto [plain, plain_error] = run({.compile = false, .optimize = false, .disabled_passes = {}});
    if (!plain_error.empty()) return "one kernel per node: " + plain_error;

    std::vector<std::pair<std::string, ExecutableOptions>> variants;
    variants.push_back({"fused", {.compile = false, .optimize = true, .disabled_passes = {}}});
    std::mt19937_64 random(seed);
    ExecutableOptions some{.compile = false, .optimize = true, .disabled_passes = {}};
    some.non_temporal_nbytes = 1;
    std::string names;
    for (const Pass& p : passes())
      if (std::string(p.name) != "expand" && random() % 2)
        some.disabled_passes.push_back(p.name), names += std::string(" ") + p.name;
    variants.push_back({"fused without passes" + names, some});
    ExecutableOptions compiled{.compile = true, .optimize = true, .disabled_passes = {}};
    if (random() % 4 == 0) compiled.non_temporal_nbytes = 1;
    if (compile)
      variants.push_back(
          {compiled.non_temporal_nbytes == 1 ? "compiled, past the caches" : "compiled", compiled});
    for (const auto& [what, options] : variants) {
      const auto [result, error] = run(options);
      if (!error.empty()) return what + ": " + error;
      if (std::string d = difference(g, plain, result); !d.empty())
        return what + ", against one kernel per node: " + d;
    }
    return {};
  } catch (const InternalError& e) {
    return e.what();
  } catch (const Error& e) {
    return std::string("an Error: ") + e.what();
  }
}

GraphArguments some_arguments(const Graph& g, uint64_t seed) {
  std::mt19937_64 random(seed);
  GraphArguments a;
  for (const Input& i : g.inputs) {
    const ops::TensorType& t = g.type(i.value);
    a.inputs.emplace_back(static_cast<size_t>(span_of(t.sizes, i.strides) * itemsize(t.dtype)));
    const int64_t n = static_cast<int64_t>(a.inputs.back().size()) / itemsize(t.dtype);
    for (int64_t k = 0; k < n; ++k) {
      const double v = static_cast<double>(random() >> 40) * 0x1p-22 - 2;
      write_element(a.inputs.back().data(), t.dtype, k,
                    is_floating(t.dtype) ? v : static_cast<double>(random() % 3));
    }
  }
  for (const DType t : g.number_types)
    a.numbers.push_back(t == DType::float64
                            ? std::bit_cast<int64_t>(static_cast<double>(1 + random() % 7) / 8)
                            : static_cast<int64_t>(random() % 2));
  return a;
}

}  // namespace tandem::test
