#include <bit>
#include <map>
#include <thread>

#include "tandem/jit/compiler.h"
#include "tandem/jit/kernel_cache.h"
#include "tests/catch.h"
#include "tests/jit/hand_cases.h"
#include "tests/jit/plain_kernel.h"
#include "tests/jit/random_kernels.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::Case;
using tandem::ops::ScalarOp;

namespace {

// -O1 halves the time to compile and may not change a bit.
std::shared_ptr<const Module> compile(const std::string& text) {
  KernelCache::Settings settings;
  settings.compiler = HostCompiler::of_process();
  settings.options = {"-O1", "-march=native"};
  KernelCache cache(settings);
  std::string error;
  auto module = cache.get(c_prelude() + text, &error);
  if (module == nullptr) std::fprintf(stderr, "%s\n", error.c_str());
  return module;
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t i = text.find(part); i != std::string::npos; i = text.find(part, i + part.size())) ++n;
  return n;
}

KernelFunction function(const Module& m, const std::string& name) {
  return std::bit_cast<KernelFunction>(m.symbol(name.c_str()));
}

samples::Outcome evaluate(const Case& c) {
  const Evaluator evaluator(c.k);
  return samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
}

void count_ops(const Kernel& k, std::map<ScalarOp, int>& ops,
               std::map<std::pair<KernelKind, Inner>, int>& accesses) {
  for (const ops::ScalarNode& n : k.scalars.nodes()) ++ops[n.op];
  for (const Load& l : k.loads) ++accesses[{k.kind, l.inner}];
}

}  // namespace

TEST_CASE("a pointwise kernel reads numbers once and walks its range in vectors", "[jit]") {
  const std::string text = print_c(samples::adamw(), "step");
  CHECK_THAT(text, Contains("// adamw\n") && Contains("extern \"C\" void step(const td_args* a) {"));
  const size_t loop = text.find("for (");
  CHECK(text.rfind("a->numbers[") < loop);
  CHECK(count(text, "a->numbers[") == 7);
  CHECK(count(text, "td_f64_to_f32(") == 8);
  CHECK(text.rfind("td_f64_to_f32(") < loop);  // arithmetic on numbers is not repeated for each element
  CHECK(count(text, "td_load_f32(") == 4);
  CHECK(count(text, "td_store_f32(") == 3);
  CHECK(count(text, "body(j, ") == 2);
  CHECK(count(text, "#include") == 0);
}

TEST_CASE("a row kernel makes one walk for each reduction that waits for another", "[jit]") {
  const std::string text = print_c(samples::layer_norm(), "f");
  CHECK(count(text, "const auto walk") == 3);
  CHECK(count(text, "td_lanes_sum(") == 4);  // the first block's, and the others'
  CHECK(text.find("td_store_f32(") > text.find("const auto walk2"));
  CHECK(count(text, "keep") == 0);            // nothing costly to keep
  CHECK(count(text, "td_load_f32(p1") == 1);  // gamma: in the last walk only
}

TEST_CASE("a costly value is kept for the next walk", "[jit]") {
  const std::string text = print_c(samples::softmax(), "f");
  CHECK_THAT(text, Contains("if (keep) k3[r / 16] = v3;") && Contains("v3 = k3[r / 16];"));
  CHECK(count(text, "td_exp(") == 2);
}

TEST_CASE("a column kernel stores its elements in the walk that sums them", "[jit]") {
  const std::string text = print_c(samples::relu_backward_bias(), "f");
  CHECK(count(text, "const auto tile") == 1);
  CHECK(count(text, "td_load_f32(") == 2);
  CHECK(text.find("td_store_f32(o0") < text.find("td_store_f32(o1"));
}

TEST_CASE("draws in logical order share their words between vectors", "[jit]") {
  const std::string text = print_c(samples::dropout(), "f");
  CHECK_THAT(text, Contains("td_draws<td_u16> g") && Contains("td_uniform16_run(g"));
}

TEST_CASE("what the printer does not cover is refused with a reason", "[jit]") {
  std::string why;
  Kernel k = samples::softmax();
  k.reduced_rank = 2;
  CHECK_FALSE(print_c(k, "f", &why).empty());
  k.loads[0].index = 0;
  CHECK(print_c(k, "f", &why).empty());
  CHECK_THAT(why, Contains("looks up along several reduced dimensions"));
  CHECK_FALSE(print_c(samples::softmax(), "f", &why).empty());
  CHECK(why.empty());
}

TEST_CASE("any split of the range gives the same bits", "[jit]") {
  if (HostCompiler::of_process() == nullptr) return;
  samples::Generator generator(77);
  std::vector<Case> cases;
  std::string text;
  for (int i = 0; i < 15; ++i) {
    Case c = generator.make(static_cast<KernelKind>(i % 3));
    c.begin = 0;
    c.end = 1;
    for (int d = 0; d < c.k.kept_rank; ++d) c.end *= c.dims[static_cast<size_t>(d)];
    text += print_c(c.k, "kernel" + std::to_string(i));
    cases.push_back(std::move(c));
  }
  const auto module = compile(text);
  REQUIRE(module != nullptr);
  for (size_t i = 0; i < cases.size(); ++i) {
    const KernelFunction f = function(*module, "kernel" + std::to_string(i));
    REQUIRE(f != nullptr);
    const auto whole = samples::run_case(cases[i], [&](const KernelArgs& a) { f(&a); });
    const auto parts = samples::run_case(cases[i], [&](KernelArgs a) {
      const int64_t end = a.end, step = std::max<int64_t>(end / 3, 1) + 1;
      for (a.begin = 0; a.begin < end; a.begin = a.end) {
        a.end = std::min(a.begin + step, end);
        f(&a);
      }
    });
    CAPTURE(i, print_c(cases[i].k, "kernel"));
    CHECK(samples::difference(cases[i], whole, parts).empty());
  }
}

TEST_CASE("rows around a walk's four vectors, the row's buffer and a block of the tree", "[jit]") {
  if (HostCompiler::of_process() == nullptr) return;
  const auto module =
      compile(print_c(samples::softmax(), "softmax") + print_c(samples::dropout(), "dropout"));
  REQUIRE(module != nullptr);
  const auto check = [&](const char* name, const Case& c) {
    const KernelFunction f = function(*module, name);
    REQUIRE(f != nullptr);
    CAPTURE(name, c.dims.back());
    CHECK(samples::difference(c, evaluate(c), samples::run_case(c, [&](const KernelArgs& a) { f(&a); }))
              .empty());
  };
  for (const int64_t n :
       {1, 10, 16, 63, 64, 65, 80, 1000, 4095, 4096, 4097, 4112, 4160, 5000, 16384, 16500, 40001})
    check("softmax", samples::by_hand(samples::softmax(), {3, n}));
  for (const int64_t n : {1, 16, 127, 128, 129, 1000, 5000})
    check("dropout", samples::by_hand(samples::dropout(), {n}));
}

TEST_CASE("printed kernels give the evaluator's bits", "[jit]") {
  if (HostCompiler::of_process() == nullptr) return;
  constexpr int kCases = 60;
  std::vector<Case> cases;
  std::map<ScalarOp, int> ops;
  std::map<std::pair<KernelKind, Inner>, int> accesses;
  std::string texts[2];
  constexpr auto kRow = KernelKind::row;
  for (const auto& [kind, side_by_side] :
       {std::pair(KernelKind::pointwise, false), {kRow, false}, {kRow, true}, {KernelKind::column, false}}) {
    samples::Generator generator(20240 + static_cast<uint64_t>(kind) + (side_by_side ? 10 : 0));
    for (int i = 0; i < kCases; ++i) {
      cases.push_back(generator.make(kind, side_by_side));
      std::string why;
      const std::string printed = print_c(cases.back().k, "kernel" + std::to_string(cases.size() - 1), &why);
      INFO(why << '\n' << to_string(cases.back().k));
      REQUIRE_FALSE(printed.empty());
      texts[(cases.size() - 1) % 2] += printed;
      count_ops(cases.back().k, ops, accesses);
    }
  }
  // Two translation units at a time.
  std::shared_ptr<const Module> modules[2];
  std::thread other([&] { modules[1] = compile(texts[1]); });
  modules[0] = compile(texts[0]);
  other.join();
  REQUIRE((modules[0] != nullptr && modules[1] != nullptr));
  for (size_t i = 0; i < cases.size(); ++i) {
    const KernelFunction f = function(*modules[i % 2], "kernel" + std::to_string(i));
    REQUIRE(f != nullptr);
    const auto compiled = samples::run_case(cases[i], [&](const KernelArgs& a) { f(&a); });
    const auto plain =
        samples::run_case(cases[i], [&](const KernelArgs& a) { samples::PlainKernel(cases[i].k, a).run(); });
    std::string found = samples::difference(cases[i], evaluate(cases[i]), compiled);
    if (found.empty()) found = samples::difference(cases[i], plain, compiled);
    CAPTURE(i);
    if (!found.empty()) FAIL_CHECK(found << '\n' << print_c(cases[i].k, "kernel"));
  }
  for (int op = 0; op < static_cast<int>(ScalarOp::count_); ++op) {
    CAPTURE(ops::name(static_cast<ScalarOp>(op)));
    CHECK(ops[static_cast<ScalarOp>(op)] > 0);
  }
  for (const KernelKind kind : {KernelKind::pointwise, KernelKind::row, KernelKind::column})
    for (const Inner inner : {Inner::constant, Inner::contiguous, Inner::strided})
      CHECK(accesses[{kind, inner}] > 0);
}
