// Rows and columns that are split over the grid give the chunk evaluator's bits.
#include "tests/catch.h"
#include "tests/jit/device_kernels.h"
#include "tests/jit/hand_cases.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::by_hand;
using tandem::jit::samples::Case;
using tandem::jit::samples::Outcome;
using tandem::jit::samples::S;

namespace {

constexpr auto kRow = KernelKind::row, kColumn = KernelKind::column;

SplitShape shape_of(const Case& c) { return split_shape(c.k, c.dims.data(), c.end); }

Outcome expected_of(const Case& c) {
  const Evaluator evaluator(c.k);
  return samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
}

// (kept...; reduced...): sum, argmax and product of a mixture, and what was summed.
Kernel mixed(KernelKind kind, int kept, int reduced, DType type, bool stores = false) {
  samples::Builder b("mixed", kind, kept, reduced);
  const S x = b.load(type, Inner::contiguous), y = b.load(DType::float32, Inner::contiguous);
  const S z = cast(x, DType::float32) * y;
  const Inner of_row = kind == kRow ? Inner::constant : Inner::contiguous;
  if (stores) b.store(z, Inner::contiguous);
  b.store(b.reduce(ReduceOp::argmax, z), of_row, true);
  b.store(b.reduce(ReduceOp::sum, z) + b.reduce(ReduceOp::sum, y), of_row, true);
  b.store(cast(b.reduce(ReduceOp::min, cast(x, DType::float64)), type), of_row, true);
  return b.k;
}

// (n; rows): gradients of a layer norm's weight and bias from dy, x, and each row's mean and rstd.
Kernel norm_backward() {
  samples::Builder b("norm backward", kColumn, 1, 1);
  const S dy = b.load(DType::float32, Inner::contiguous), x = b.load(DType::float32, Inner::contiguous);
  const S mean = b.load(DType::float32, Inner::constant), rstd = b.load(DType::float32, Inner::constant);
  b.store(b.reduce(ReduceOp::sum, dy * ((x - mean) * rstd)), Inner::contiguous, true);
  b.store(b.reduce(ReduceOp::sum, dy), Inner::contiguous, true);
  return b.k;
}

// Positions in the reduced dimensions and a draw by them.
Kernel numbered(KernelKind kind, int kept, int reduced) {
  samples::Builder b("numbered", kind, kept, reduced);
  const S seed = b.number(DType::int64), offset = b.number(DType::int64), index = b.index();
  const Inner of_row = kind == kRow ? Inner::constant : Inner::contiguous;
  b.store(b.reduce(ReduceOp::sum, s_uniform(index, seed, offset)), of_row, true);
  b.store(b.reduce(ReduceOp::sum, index), of_row, true);
  return b.k;
}

std::vector<Case> split_cases() {
  std::vector<Case> cases;
  for (const int64_t columns : {1, 7, 8, 9, 33, 64})
    for (const int64_t n : {2000, 2048, 2049, 5003})
      cases.push_back(by_hand(mixed(kColumn, 1, 1, DType::float32), {columns, n}));
  cases.push_back(by_hand(norm_backward(), {70, 3001}, {0, 0, 1, 1}));
  cases.push_back(by_hand(mixed(kColumn, 1, 1, DType::bfloat16, true), {35, 2500}));
  cases.push_back(by_hand(mixed(kColumn, 2, 2, DType::float16), {3, 21, 50, 47}));
  cases.push_back(by_hand(samples::relu_backward_bias(), {100, 2300}));
  cases.push_back(by_hand(samples::picked(kColumn, false), {20, 2100}));
  cases.push_back(by_hand(samples::picked(kColumn, true), {20, 2100}));
  cases.push_back(by_hand(numbered(kColumn, 1, 1), {10, 2100}));
  cases.push_back(by_hand(numbered(kColumn, 2, 2), {2, 9, 60, 40}));
  for (const int64_t n : {40000, 49152, 49153, 70001, 70002}) {
    cases.push_back(by_hand(mixed(kRow, 1, 1, DType::float32), {3, n}));
    cases.push_back(by_hand(mixed(kRow, 1, 1, DType::bfloat16, true), {2, n}));
  }
  samples::Builder narrow("narrow", kRow, 1, 1);
  narrow.store(
      narrow.reduce(ReduceOp::max, cast(narrow.load(DType::float16, Inner::contiguous), DType::float32)),
      Inner::constant, true);
  for (const int64_t n : {40000, 100003}) cases.push_back(by_hand(narrow.k, {2, n}));
  cases.push_back(by_hand(mixed(kRow, 1, 2, DType::float64), {2, 300, 211}));
  cases.push_back(by_hand(numbered(kRow, 1, 1), {2, 40001}));
  return cases;
}

void compare(const std::vector<Case>& cases, size_t skew) {
  const std::vector<cuda::Function> functions = samples::device_functions(cases, CudaForm::split);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    CAPTURE(i, c.dims);
    const SplitShape shape = shape_of(c);
    REQUIRE(shape.launch.grid > 1);
    for (const unsigned most : {~0u, 3u}) {
      const std::string difference =
          samples::difference(c, expected_of(c), samples::run_on_device(c, functions[i], skew, most, shape));
      if (!difference.empty()) FAIL_CHECK(difference << '\n' << print_cuda(c.k, "kernel", CudaForm::split));
    }
  }
}

}  // namespace

TEST_CASE("split rows and columns give the evaluator's bits", "[jit]") { compare(split_cases(), 0); }

TEST_CASE("split rows and columns at addresses for one element give the evaluator's bits", "[jit]") {
  std::vector<Case> floats;
  for (const Case& c : split_cases())
    if (std::all_of(c.types.begin(), c.types.end(), [](DType t) { return t == DType::float32; }))
      floats.push_back(c);
  CHECK(floats.size() >= 2);
  compare(floats, sizeof(float));
}

TEST_CASE("long columns fill a card", "[jit]") {
  const Kernel k = samples::relu_backward_bias();
  for (const std::vector<int64_t>& dims : std::vector<std::vector<int64_t>>{
           {64, 65536}, {1, 1 << 20}, {10, 500000}, {768, 8192}, {4096, 8192}}) {
    CAPTURE(dims);
    const SplitShape shape = split_shape(k, dims.data(), dims[0]);
    const LaunchShape whole = launch_shape(k, dims.data(), dims[0]);
    CHECK(std::max(shape.launch.grid, whole.grid) >= 2 * 132);
    const int64_t operand = 4 * dims[0] * dims[1];
    CHECK(shape.bytes * 31 <= operand);
  }
  // What is short or wide enough is not split.
  for (const std::vector<int64_t>& dims :
       std::vector<std::vector<int64_t>>{{64, 1024}, {20000, 65536}, {0, 9999}}) {
    CAPTURE(dims);
    CHECK(split_shape(k, dims.data(), dims[0]).launch.grid == 0);
  }
}

// Bugs written into the printed text, each of which some case must show.
TEST_CASE("bugs in how parts are joined are found", "[jit]") {
  struct Bug {
    const char *right, *wrong;
    Case c;
  };
  const Case column = by_hand(mixed(kColumn, 1, 1, DType::float32), {9, 5003});
  const Case row = by_hand(mixed(kRow, 1, 1, DType::float32), {2, 70001});
  const Bug bugs[] = {
      {"w < parts;", "w < parts - 1;", column},
      {"w = 1;", "w = 2;", column},
      {"(b + 1) * 32", "(b + 1) * 32 - 1", column},
      {"w * count", "(parts - w) * count", column},
      {"w < parts;", "w < parts - 1;", row},
      {"(b + 1) * 16384", "(b + 1) * 16384 - 1", row},
      {"b * 16384 + start", "b * 16384 + 64 + start", row},
  };
  int number = 0;
  for (const Bug& bug : bugs) {
    CAPTURE(bug.right, bug.wrong);
    const std::string symbol = "tandem_planted_" + std::to_string(number++);
    std::string text = print_cuda(bug.c.k, symbol, CudaForm::split);
    size_t found = text.find(bug.right);
    REQUIRE(found != std::string::npos);
    for (const std::string right = bug.right; found != std::string::npos;
         found = text.find(right, found + std::string(bug.wrong).size()))
      text.replace(found, right.size(), bug.wrong);
    const cuda::Function function = cuda_function(samples::test_device(), symbol, text);
    const Outcome outcome = samples::run_on_device(bug.c, function, 0, ~0u, shape_of(bug.c));
    CHECK(!samples::difference(bug.c, expected_of(bug.c), outcome).empty());
  }
}
