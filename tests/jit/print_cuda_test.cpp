// Printed CUDA kernels, run on a device, give the chunk evaluator's bits.
#include "tandem/jit/print_cuda.h"

#include "tests/catch.h"
#include "tests/elements.h"
#include "tests/jit/device_kernels.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::Case;
using tandem::jit::samples::Outcome;

namespace {

Case whole(samples::Generator& generator, KernelKind kind) {
  Case c = generator.make(kind);
  c.begin = 0;
  c.end = 1;
  for (int d = 0; d < c.k.kept_rank; ++d) c.end *= c.dims[static_cast<size_t>(d)];
  return c;
}

/// A case of `k` over `dims`: row-major operands, broadcast along the dimensions of `still` (a bit each).
Case by_hand(const Kernel& k, std::vector<int64_t> dims, std::vector<unsigned> still = {}) {
  Case c;
  c.k = k;
  c.dims = std::move(dims);
  std::mt19937_64 random(k.scalars.nodes().size() + static_cast<size_t>(c.dims.back()));
  const int rank = k.kept_rank + k.reduced_rank;
  for (size_t s = 0; s < k.loads.size() + k.stores.size(); ++s) {
    const bool is_load = s < k.loads.size();
    const bool row_level = is_load ? k.loads[s].row_level : k.stores[s - k.loads.size()].row_level;
    const DType type = is_load ? k.loads[s].dtype : k.stores[s - k.loads.size()].dtype;
    std::vector<int64_t> strides(static_cast<size_t>(rank), 0);
    int64_t step = 1;
    // In memory a column kernel's columns lie innermost.
    std::vector<int> order;
    for (int d = rank - 1; d >= 0; --d) order.push_back(d);
    if (k.kind == KernelKind::column) {
      order.erase(std::find(order.begin(), order.end(), k.kept_rank - 1));
      order.insert(order.begin(), k.kept_rank - 1);
    }
    for (const int d : order) {
      if (row_level && d >= k.kept_rank) continue;
      if (s < still.size() && (still[s] >> d & 1) != 0) continue;
      strides[static_cast<size_t>(d)] = step;
      step *= c.dims[static_cast<size_t>(d)];
    }
    c.strides.insert(c.strides.end(), strides.begin(), strides.end());
    if (is_load && k.loads[s].index >= 0) {
      c.strides.push_back(3);  // planes of an operand
      c.strides.push_back(step);
      step *= 3;
    }
    c.types.push_back(type);
    step = (step + 15) / 16 * 16;  // so that it begins at an address for 16 bytes
    std::string bytes(static_cast<size_t>(step * itemsize(type)), '\x5a');
    for (int64_t i = 0; is_load && i < step; ++i) {
      const auto u = static_cast<double>(random() >> 11) * 0x1p-53;
      test::write_element(bytes.data(), type, i, is_floating(type) ? 4 * u - 2 : std::floor(3 * u));
    }
    c.buffers.push_back(std::move(bytes));
  }
  for (int i = 0; i < k.numbers; ++i) c.numbers.push_back(i == 0 ? 77 : 1000 + i);
  c.end = 1;
  for (int d = 0; d < k.kept_rank; ++d) c.end *= c.dims[static_cast<size_t>(d)];
  return c;
}

// (kept...; reduced...): sum, argmax and a centred copy.
Kernel several_reductions(KernelKind kind, int kept, int reduced, DType type = DType::float32) {
  samples::Builder b("several", kind, kept, reduced);
  const samples::S x = b.load(type, Inner::contiguous);
  const samples::S sum = b.reduce(ReduceOp::sum, x), most = b.reduce(ReduceOp::argmax, x);
  const samples::S least = b.reduce(ReduceOp::min, x - sum);
  b.store(x - sum, Inner::contiguous);
  const Inner of_row = kind == KernelKind::row ? Inner::constant : Inner::contiguous;
  b.store(sum, of_row, true);
  b.store(most, of_row, true);
  b.store(least, of_row, true);
  return b.k;
}

// The element's number and draws by it, and their sum.
Kernel drawn(KernelKind kind, int kept, int reduced) {
  samples::Builder b("drawn", kind, kept, reduced);
  const samples::S seed = b.number(DType::int64), offset = b.number(DType::int64), index = b.index();
  const samples::S x =
      s_normal(index, seed, offset) + s_uniform(index, seed, offset) + s_uniform16(index, seed, offset);
  b.store(index, Inner::contiguous);
  b.store(x, Inner::contiguous);
  if (kind != KernelKind::pointwise)
    b.store(b.reduce(ReduceOp::sum, x), kind == KernelKind::row ? Inner::constant : Inner::contiguous, true);
  return b.k;
}

// x[index], where an index may be out of range.
Kernel picked(KernelKind kind, bool out_of_range) {
  samples::Builder b("picked", kind, 1, kind == KernelKind::pointwise ? 0 : 1);
  const samples::S index = b.load(DType::int64, Inner::contiguous);
  const samples::S i = out_of_range ? index + b.constant(DType::int64, 1) : index;
  const samples::S x = b.load(DType::float32, Inner::contiguous, false, i);
  b.store(x, Inner::contiguous);
  if (kind != KernelKind::pointwise)
    b.store(b.reduce(ReduceOp::sum, x), kind == KernelKind::row ? Inner::constant : Inner::contiguous, true);
  return b.k;
}

// (a, b): all widths, an operand without its rows, one without its columns, and a draw.
Kernel several_types() {
  samples::Builder b("types", KernelKind::pointwise, 2, 0);
  const samples::S x = cast(b.load(DType::bfloat16, Inner::contiguous), DType::float32);
  const samples::S y = b.load(DType::float32, Inner::constant),
                   flag = b.load(DType::bool_, Inner::contiguous);
  const samples::S h = cast(b.load(DType::float16, Inner::contiguous), DType::float32);
  const samples::S seed = b.number(DType::int64), offset = b.number(DType::int64);
  const samples::S z = select(flag, x * y, h) + s_normal(b.index(), seed, offset);
  b.store(cast(z, DType::float16), Inner::contiguous);
  b.store(s_gt(z, y), Inner::contiguous);
  b.store(z, Inner::contiguous);
  return b.k;
}

std::vector<Case> cases_by_hand() {
  std::vector<Case> cases;
  constexpr auto kPointwise = KernelKind::pointwise;
  constexpr auto kRow = KernelKind::row, kColumn = KernelKind::column;
  for (const int64_t n : {1, 31, 32, 33, 64, 65, 1000, 16384, 16385, 100000, 600000}) {
    cases.push_back(by_hand(several_reductions(kRow, 1, 1), {n > 20000 ? 2 : 5, n}));
    cases.push_back(by_hand(samples::softmax(), {n > 20000 ? 1 : 3, n}));
  }
  cases.push_back(by_hand(several_reductions(kRow, 0, 1), {70001}));
  cases.push_back(by_hand(several_reductions(kRow, 0, 2), {300, 70}));
  cases.push_back(by_hand(several_reductions(kRow, 2, 3), {3, 2, 5, 7, 9}));
  cases.push_back(by_hand(several_reductions(kRow, 1, 2, DType::int64), {3, 11, 17}));
  cases.push_back(by_hand(samples::layer_norm(), {7, 200}, {0, 1, 1}));
  cases.push_back(by_hand(samples::layer_norm(), {2, 20000}, {0, 1, 1}));
  for (const int64_t n : {1, 7, 255, 256, 257, 513, 5000})
    cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {n > 1000 ? 33 : 70, n}));
  cases.push_back(by_hand(several_reductions(kColumn, 2, 1), {3, 40, 300}));
  cases.push_back(by_hand(several_reductions(kColumn, 1, 2), {40, 30, 11}));
  cases.push_back(by_hand(several_reductions(kColumn, 2, 3, DType::float64), {2, 40, 10, 7, 11}));
  cases.push_back(by_hand(samples::relu_backward_bias(), {100, 1000}));
  cases.push_back(by_hand(samples::bias_gelu(), {30, 64}, {0, 1}));
  for (const int64_t n : {1, 3, 4, 1000, 1001}) {
    cases.push_back(by_hand(samples::dropout(), {n}));
    cases.push_back(by_hand(samples::adamw(), {n}));
    cases.push_back(by_hand(several_types(), {7, n}, {0, 2, 1, 0}));
  }
  cases.push_back(by_hand(drawn(kPointwise, 3, 0), {3, 5, 7}));
  cases.push_back(by_hand(drawn(kRow, 2, 1), {3, 5, 70}));
  cases.push_back(by_hand(drawn(kColumn, 1, 1), {50, 300}));
  cases.push_back(by_hand(drawn(kColumn, 2, 2), {3, 5, 20, 30}));
  for (const bool out : {false, true})
    for (const KernelKind kind : {kPointwise, kRow, kColumn})
      cases.push_back(by_hand(picked(kind, out),
                              kind == kPointwise ? std::vector<int64_t>{100} : std::vector<int64_t>{20, 50}));
  // An axis without elements: what is picked is 0.
  cases.push_back(by_hand(picked(kPointwise, false), {100}));
  cases.back().strides[2] = 0;
  cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {300, 2}));
  for (const KernelKind kind : {kRow, kColumn}) {
    samples::Builder b("empty", kind, 1, 1);
    const samples::S x = b.load(DType::float32, Inner::contiguous);
    const Inner of_row = kind == kRow ? Inner::constant : Inner::contiguous;
    b.store(b.reduce(ReduceOp::sum, x), of_row, true);
    b.store(b.reduce(ReduceOp::max, x), of_row, true);
    cases.push_back(by_hand(b.k, {5, 0}));
  }
  return cases;
}

void compare(const std::vector<Case>& all, size_t skew = 0) {
  std::vector<Case> cases;
  for (const Case& c : all)
    if (!samples::is_card() || !samples::calls_double_functions(c.k)) cases.push_back(c);
  const std::vector<cuda::Function> functions = samples::device_functions(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const Evaluator evaluator(c.k);
    const auto expected = samples::run_case(c, [&](const KernelArgs& a) { evaluator.run(a); });
    const std::string difference =
        samples::difference(c, expected, samples::run_on_device(c, functions[i], skew));
    CAPTURE(i, c.dims);
    if (!difference.empty()) FAIL_CHECK(difference << '\n' << print_cuda(c.k, "kernel"));
  }
}

// Rows shorter than a warp, more of them than a block has; halves in pairs; few long columns.
std::vector<Case> cases_of_parts() {
  std::vector<Case> cases;
  constexpr auto kRow = KernelKind::row, kColumn = KernelKind::column;
  for (const int64_t n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 62, 63, 130})
    cases.push_back(by_hand(several_reductions(kRow, 1, 1), {300, n}));
  for (const int64_t n : {2, 6, 64, 254, 256, 258, 1024, 1100})
    cases.push_back(by_hand(samples::layer_norm(), {9, n}, {0, 1, 1}));
  cases.push_back(by_hand(several_reductions(kRow, 2, 2), {3, 50, 2, 3}));
  cases.push_back(by_hand(drawn(kRow, 1, 1), {77, 6}));
  cases.push_back(by_hand(picked(kRow, true), {70, 7}));
  for (const int64_t columns : {1, 8, 9, 70})
    for (const int64_t n : {1025, 2000, 17000})
      cases.push_back(by_hand(several_reductions(kColumn, 1, 1), {columns, n}));
  samples::Builder narrow("narrow", kColumn, 1, 1);
  narrow.store(
      narrow.reduce(ReduceOp::sum, cast(narrow.load(DType::bfloat16, Inner::contiguous), DType::float32)),
      Inner::contiguous, true);
  for (const int64_t columns : {16, 35}) cases.push_back(by_hand(narrow.k, {columns, 3000}));
  samples::Builder b("halves", kRow, 1, 1);
  const samples::S x = cast(b.load(DType::bfloat16, Inner::contiguous), DType::float32);
  const samples::S y = b.load(DType::int64, Inner::contiguous);
  const samples::S sum = b.reduce(ReduceOp::sum, x * cast(y, DType::float32));
  b.store(cast(x - sum, DType::float16), Inner::contiguous);
  b.store(s_gt(x, sum), Inner::contiguous);
  for (const int64_t n : {2, 63, 64, 514, 900}) cases.push_back(by_hand(b.k, {11, n}));
  return cases;
}

std::vector<Case> random_cases(int cases, uint64_t seed) {
  std::vector<Case> out;
  for (const KernelKind kind : {KernelKind::pointwise, KernelKind::row, KernelKind::column}) {
    samples::Generator generator(seed + static_cast<uint64_t>(kind));
    for (int i = 0; i < cases; ++i) out.push_back(whole(generator, kind));
  }
  return out;
}

}  // namespace

TEST_CASE("random CUDA kernels give the evaluator's bits", "[jit]") { compare(random_cases(20, 20240)); }
TEST_CASE("many random CUDA kernels give the evaluator's bits", "[jit][simulator]") {
  compare(random_cases(150, 31000));
}

TEST_CASE("CUDA kernels of all sizes and shapes give the evaluator's bits", "[jit]") {
  compare(cases_by_hand());
}

TEST_CASE("CUDA kernels of short rows and few columns give the evaluator's bits", "[jit]") {
  compare(cases_of_parts());
}

TEST_CASE("CUDA kernels at addresses for one element give the evaluator's bits", "[jit]") {
  std::vector<Case> floats;
  for (const Case& c : cases_of_parts())
    if (std::all_of(c.types.begin(), c.types.end(), [](DType t) { return t == DType::float32; }))
      floats.push_back(c);
  for (const int64_t n : {4, 1000, 1001}) floats.push_back(by_hand(samples::adamw(), {n}));
  compare(floats, sizeof(float));
}

// A row of more elements than 32 bits count, over memory of one: what does not move stays.
TEST_CASE("CUDA rows are counted beyond 32 bits", "[jit][simulator]") {
  constexpr int64_t kN = (int64_t{1} << 31) + 77;
  samples::test_device();
  using Orders = void (*)(int);
  const auto set_orders = reinterpret_cast<Orders>(samples::simulator_function("sim_gpu_set_orders"));
  if (set_orders) set_orders(1);
  samples::Builder b("long", KernelKind::row, 1, 1);
  const samples::S x = b.load(DType::int64, Inner::strided) + b.index();
  b.store(b.reduce(ReduceOp::max, x), Inner::constant, true);
  Case c{b.k, {1, kN}, {0, 0, 0, 0}, {}, {std::string(8, '\0'), std::string(8, '\x5a')}, {}, 0, 1};
  const Outcome found = samples::run_on_device(c, samples::device_functions({c})[0]);
  if (set_orders) set_orders(3);
  int64_t most = 0;
  std::memcpy(&most, found.buffers[1].data(), 8);
  CHECK(most == kN - 1);
}

// The last of more elements than 32 bits count: a launch of several calls is told that the blocks of those
// before have run.
TEST_CASE("CUDA elements are counted beyond 32 bits", "[jit]") {
  constexpr int64_t kRow = 1024, kRows = (int64_t{1} << 33) / kRow + 1, kBlocks = kRow / 256;
  cuda::Runtime& device = samples::test_device();
  samples::Builder b("wide", KernelKind::pointwise, 2, 0);
  b.store(b.index(), Inner::strided);
  Case c{b.k, {kRows, kRow}, {0, 1}, {}, {std::string(kRow * 8, '\x5a')}, {}, 0, kRows * kRow};
  const cuda::Function function = samples::device_functions({c}, CudaForm::several)[0];
  const samples::DeviceBytes out(device, c.buffers[0]);
  const int calls = cuda_calls(c.k), n = cuda_words(c.k);
  std::vector<int64_t> words(static_cast<size_t>(calls * (n + 1)));
  const int64_t call[] = {static_cast<int64_t>(out.at()), kRows, kRow, 0, 1, kRows * kRow, 0};
  REQUIRE(n == std::ssize(call));
  std::copy_n(call, n, words.begin() + n);  // the second call
  words[static_cast<size_t>(calls * n)] = -(kRows - 1) * kBlocks;
  words[static_cast<size_t>(calls * n) + 1] = kBlocks;
  void* parameters[] = {words.data()};
  device.check(
      device.api().launch(function, kBlocks, 1, 1, 256, 1, 1, 0, device.stream(), parameters, nullptr),
      "cuLaunchKernel");
  const std::string found = out.read();
  for (int64_t i = 0; i < kRow; i += 255) {
    int64_t index = 0;
    std::memcpy(&index, found.data() + 8 * i, 8);
    CHECK(index == (kRows - 1) * kRow + i);
  }
}
