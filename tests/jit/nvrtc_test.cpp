// NVRTC compiles what the CUDA printer prints: no warning, no spill, and as many accesses as there are loads
// and stores.
#include <cstdio>
#include <set>

#include "tandem/jit/cuda_native_text.h"
#include "tandem/jit/cuda_product.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/plan.h"
#include "tandem/ops/windows.h"
#include "tests/catch.h"
#include "tests/jit/hand_cases.h"
#include "tests/jit/nvrtc.h"
#include "tests/jit/op_graphs.h"
#include "tests/jit/random_graphs.h"
#include "tests/jit/random_kernels.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::NvrtcResult;
using tandem::jit::samples::S;

namespace {

constexpr uint64_t kGraphs = 300;

// Lines of the log that tell of spilt registers.
std::string spills(const std::string& log) {
  std::string found, function;
  for (size_t i = 0; i < log.size();) {
    const size_t end = std::min(log.find('\n', i), log.size());
    const std::string line = log.substr(i, end - i);
    if (line.find("Function properties") != std::string::npos) function = line;
    if (line.find("spill") != std::string::npos &&
        line.find(" 0 bytes spill stores, 0 bytes spill loads") == std::string::npos)
      found += function + '\n' + line + '\n';
    i = end + 1;
  }
  return found;
}

void check_clean(const NvrtcResult& r) {
  INFO(r.log.substr(0, 6000));
  REQUIRE(r.failed == 0);
  CHECK_THAT(r.log, Contains("ptxas info"));
  CHECK(r.log.find("warning") == std::string::npos);
  CHECK(spills(r.log) == "");
}

}  // namespace

TEST_CASE("NVRTC compiles random kernels without warning or spill", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const KernelKind kind : {KernelKind::pointwise, KernelKind::row, KernelKind::column}) {
    samples::Generator generator(20240 + static_cast<uint64_t>(kind));
    std::string text;
    for (int i = 0; i < 20; ++i) {
      const Kernel k = generator.make(kind).k;
      text += print_cuda(k, "kernel" + std::to_string(i));
      if (cuda_splits(k)) text += print_cuda(k, "split" + std::to_string(i), CudaForm::split);
    }
    check_clean(samples::nvrtc_compile(text));
  }
}

namespace {

/// Loads of packs before the first store, in the order of the text.
int loads_before_stores(const std::string& ptx) {
  return samples::count(ptx.substr(0, ptx.find("st.global")), "ld.global.v");
}

}  // namespace

TEST_CASE("a card converts float16 by its own instructions", "[jit]") {
  if (!samples::has_nvrtc()) return;
  const NvrtcResult r = samples::nvrtc_compile(product_kernel(DType::float16).second);
  check_clean(r);
  CHECK(samples::count(r.ptx, "cvt.f32.f16") > 0);
  CHECK(samples::count(r.ptx, "cvt.rn.f16.f32") == 1);
}

TEST_CASE("a CUDA kernel loads and stores each element once", "[jit]") {
  if (!samples::has_nvrtc()) return;
  struct Golden {
    Kernel k;
    int loads, stores, packs;  // packs: of each operand, under way at once
  };
  for (const Golden& g :
       {Golden{samples::adamw(), 4, 3, 1}, {samples::bias_gelu(), 2, 1, 2}, {samples::dropout(), 1, 1, 1}}) {
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(g.k, "kernel"));
    check_clean(r);
    CAPTURE(g.k.name);
    // Sixteen bytes at a time where the call allows it, else an element.
    CHECK(samples::count(r.ptx, "ld.global.v") == g.loads * g.packs);
    CHECK(samples::count(r.ptx, "st.global.v") == g.stores * g.packs);
    CHECK(samples::count(r.ptx, "ld.global.f32") == g.loads);
    CHECK(samples::count(r.ptx, "st.global.f32") == g.stores);
    CHECK(samples::count(r.ptx, "ld.global") == g.loads * (g.packs + 1));
    CHECK(samples::count(r.ptx, "st.global") == g.stores * (g.packs + 1));
    CHECK(samples::count(r.ptx, "\tld.f32") + samples::count(r.ptx, "\tst.f32") == 0);  // of unknown memory
    CHECK(loads_before_stores(r.ptx) == g.loads * g.packs);
  }
}

// (n): y = x * 2 from one type to another.
TEST_CASE("a CUDA kernel moves sixteen bytes of the widest operand at a time, four under way", "[jit]") {
  if (!samples::has_nvrtc()) return;
  struct Golden {
    DType from, to;
    int loads, stores;  // vectors of a pack; what is narrower is one word
  };
  for (const Golden& g : {Golden{DType::float32, DType::float32, 1, 1},
                          {DType::float64, DType::float64, 1, 1},
                          {DType::int64, DType::int64, 1, 1},
                          {DType::int32, DType::int32, 1, 1},
                          {DType::uint8, DType::uint8, 1, 1},
                          {DType::bfloat16, DType::bfloat16, 1, 1},
                          {DType::float16, DType::float16, 1, 1},
                          {DType::bfloat16, DType::float32, 0, 1},
                          {DType::float32, DType::float16, 1, 0}}) {
    CAPTURE(static_cast<int>(g.from), static_cast<int>(g.to));
    samples::Builder b("twice", KernelKind::pointwise, 1, 0);
    const bool half = g.from != g.to || itemsize(g.from) == 2;
    const S x =
        half ? cast(b.load(g.from, Inner::contiguous), DType::float32) : b.load(g.from, Inner::contiguous);
    b.store(half ? cast(x + x, g.to) : x + x, Inner::contiguous);
    const int elements = 16 / static_cast<int>(std::max(itemsize(g.from), itemsize(g.to)));
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(b.k, "kernel"));
    check_clean(r);
    constexpr int kPacks = 4;
    const auto packs = [&](const std::string& access) {
      int n = samples::count(r.ptx, access + ".global.v4");
      for (const char* type : {"u64", "f64", "b64", "s64"})
        n += samples::count(r.ptx, access + ".global.v2." + type);
      return n;
    };
    CHECK(packs("ld") == g.loads * kPacks);
    CHECK(packs("st") == g.stores * kPacks);
    CHECK(samples::count(r.ptx, "ld.global") == kPacks + 1);  // packs, or one element
    CHECK(samples::count(r.ptx, "st.global") == kPacks + 1);
    if (g.loads == 1) CHECK(loads_before_stores(r.ptx) == kPacks);
    // A thread has all of its packs where there is work for all multiprocessors, else one.
    const int64_t n = int64_t{1} << 24, few = int64_t{1} << 16;
    CHECK(launch_shape(b.k, &n, n).grid == n / elements / 256 / kPacks);
    CHECK(launch_shape(b.k, &few, few).grid == few / elements / 256);
  }
}

TEST_CASE("a CUDA kernel of few operands has at least four loads of sixteen bytes under way", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const DType type : {DType::float32, DType::bfloat16}) {
    for (const int operands : {1, 2, 3, 5}) {
      CAPTURE(static_cast<int>(type), operands);
      samples::Builder b("sum", KernelKind::pointwise, 1, 0);
      S sum = cast(b.load(type, Inner::contiguous), DType::float32);
      for (int i = 1; i < operands; ++i) sum = sum + cast(b.load(type, Inner::contiguous), DType::float32);
      b.store(cast(sum, type), Inner::contiguous);
      const NvrtcResult r = samples::nvrtc_compile(print_cuda(b.k, "kernel"));
      check_clean(r);
      CHECK(loads_before_stores(r.ptx) >= 4);
      CHECK(loads_before_stores(r.ptx) == samples::count(r.ptx, "ld.global.v"));
    }
  }
}

TEST_CASE("a CUDA kernel for several calls reads its words where they are", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const Kernel& k : {samples::adamw(), samples::softmax(), samples::relu_backward_bias()}) {
    CAPTURE(k.name);
    const NvrtcResult one = samples::nvrtc_compile(print_cuda(k, "kernel"));
    for (const CudaForm form : {CudaForm::several, CudaForm::many}) {
      const NvrtcResult calls = samples::nvrtc_compile(print_cuda(k, "kernel", form));
      check_clean(calls);
      CHECK(samples::count(calls.ptx, ".local") == 0);  // no copy of the parameter
      CHECK(samples::count(calls.ptx, "ld.global") == samples::count(one.ptx, "ld.global"));
      CHECK(samples::count(calls.ptx, "st.global") == samples::count(one.ptx, "st.global"));
    }
  }
}

TEST_CASE("a CUDA kernel that splits rows reads parts past the caches", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::argmax}) {
    samples::Builder b("long row", KernelKind::row, 1, 1);
    b.store(b.reduce(op, b.load(DType::float32, Inner::contiguous)), Inner::constant, true);
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(b.k, "kernel", CudaForm::split));
    check_clean(r);
    CHECK(samples::count(r.ptx, "ld.global.cg") > 0);
    CHECK(samples::count(r.ptx, "atom") == 1);
    CHECK(samples::count(r.ptx, "ld.global.v2.u64") >= 4);  // 16 bytes
  }
}

// Sixteen bytes of the widest operand at a time; what several walks read comes from global memory in the
// first.
TEST_CASE("a CUDA kernel of rows moves sixteen bytes at a time, and reads short rows once", "[jit]") {
  if (!samples::has_nvrtc()) return;
  const auto row_sum = [](DType type) {
    samples::Builder b("sum", KernelKind::row, 1, 1);
    b.store(b.reduce(ReduceOp::sum, cast(b.load(type, Inner::contiguous), DType::float32)), Inner::constant,
            true);
    return b.k;
  };
  for (const DType type : {DType::float16, DType::bfloat16, DType::float32, DType::int64}) {
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(row_sum(type), "kernel"));
    check_clean(r);
    CAPTURE(static_cast<int>(type));
    const int bytes = static_cast<int>(itemsize(type)), lanes = 16 / bytes, packs = bytes == 2 ? 4 : 8;
    CHECK(samples::count(r.ptx, "ld.global.v2.u64") == packs + 1);  // under way at once, and what is left
    // At addresses for one element a lane each.
    CHECK(samples::count(r.ptx, "ld.global") == packs + 1 + lanes);
  }
  const NvrtcResult softmax = samples::nvrtc_compile(print_cuda(samples::softmax(), "kernel"));
  check_clean(softmax);
  CHECK(samples::count(softmax.ptx, "cp.async.cg.shared.global") == 1);
  CHECK(samples::count(softmax.ptx, "cp.async.wait_all") == 1);
  // From where the row is: the maximum's walk and two dearer ones, several packs under way, and what is left.
  CHECK(samples::count(softmax.ptx, "ld.v2.u64") == 4 + 1 + 2 * (2 + 1));
  CHECK(samples::count(softmax.ptx, "ld.global.v") == 0);
  const auto older = samples::nvrtc_compile(print_cuda(samples::softmax(), "kernel"), 75);
  CHECK(older.failed == 0);
  CHECK(samples::count(older.ptx, "cp.async") == 0);
  CHECK(samples::count(softmax.ptx, "st.global.v4.u32") == 2 + 1);
  const NvrtcResult norm = samples::nvrtc_compile(print_cuda(samples::layer_norm(), "kernel"));
  check_clean(norm);
  // Gamma and beta in the last walk.
  CHECK(samples::count(norm.ptx, "ld.global.v2.u64") == 2 * (2 + 1));
  const NvrtcResult backward = samples::nvrtc_compile(print_cuda(samples::layer_norm_backward(), "kernel"));
  check_clean(backward);
  // Of a block's first row and of the next one; a result, and two sums across the rows.
  CHECK(samples::count(backward.ptx, "ld.global.v") == 2 * 3);
  CHECK(samples::count(backward.ptx, "st.global.v") == 1 + 2);
}

namespace {

/// Distinct kernels, some to a program.
class Programs {
 public:
  void add(const Graph& g, bool fused) {
    const Prepared p = prepare(fused ? optimize(g) : expand_composites(g), Device{DeviceType::cuda}, true);
    const Plan plan = build_plan(p, group(p, fused, false), fused);
    for (size_t i = 0; i < plan.kernels.size(); ++i) {
      if (!seen_.insert(plan.kernel_texts[i]).second) continue;
      if (seen_.size() % 32 == 1) texts_.emplace_back();
      texts_.back() += print_cuda(plan.kernels[i], "kernel" + std::to_string(seen_.size()));
      words_ = std::max(words_, cuda_words(plan.kernels[i]));
    }
  }
  void compile(int capability, size_t step) const {
    CAPTURE(capability);
    CHECK(words_ <= kMaxCudaWords);
    for (size_t i = 0; i < texts_.size(); i += step)
      check_clean(samples::nvrtc_compile(texts_[i], capability));
  }
  size_t size() const { return seen_.size(); }

 private:
  std::set<std::string> seen_;
  std::vector<std::string> texts_;
  int words_ = 0;
};

void add_random_graphs(Programs& programs, uint64_t step) {
  for (uint64_t seed = 1; seed <= kGraphs; seed += step)
    for (const bool fused : {false, true}) programs.add(test::random_graph(seed).graph, fused);
}

// Every op of the table with each of its samples.
void add_op_table(Programs& programs) {
  test::for_each_op([&](const ops::OpDef& op) {
    for (const ops::Sample& s : ops::samples(op))
      if (!s.must_throw) programs.add(samples::graph_of(op, s), true);
  });
}

}  // namespace

TEST_CASE("NVRTC compiles the kernels of random graphs, fused and not", "[jit]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_random_graphs(programs, 24);
  CHECK(programs.size() > 60);
  programs.compile(90, 1);
}

TEST_CASE("NVRTC compiles kernels of the op table", "[jit]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_op_table(programs);
  CHECK(programs.size() > 150);
  programs.compile(90, 5);
}

TEST_CASE("NVRTC compiles the op table and random graphs for three generations of devices", "[jit][full]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_op_table(programs);
  add_random_graphs(programs, 3);
  std::printf("%zu kernels of the op table and of random graphs\n", programs.size());
  for (const int capability : {80, 90, 120}) programs.compile(capability, 1);
}

TEST_CASE("NVRTC compiles poolings without warning or spill", "[jit]") {
  if (!samples::has_nvrtc()) return;
  std::string text;
  const auto add = [&](ops::OpId op, DType type, const Dims& sizes, const std::vector<int64_t>& words,
                       const Dims& places = {}, DType place = DType::int64) {
    NativeCallPlan c;
    c.op = &ops::def(op);
    c.words = words;
    c.in_types = {{type, cpu, false, sizes}};
    if (!places.empty()) c.in_types.push_back({place, cpu, false, places});
    const bool present[2] = {true, true};
    ops::infer({*c.op, c.in_types, {present, c.in_types.size()}, c.words, {}}, c.out_types);
    text += (ops::pools_maxima(op) ? max_pool_text(c) : avg_pool_text(c)).source;
  };
  const Dims x = {2, 3, 9, 9}, z = {2, 3, 4, 7};
  for (const DType type : {DType::float32, DType::float16, DType::bfloat16, DType::float64}) {
    for (const int64_t positions : {0, 1}) {
      add(ops::OpId::max_pool, type, x, {0, 0, positions, 8, 3, 2, 1, 1, 2, 3, 0, 2});
      add(ops::OpId::max_pool, type, x, {0, 1, positions, 2, 4, 7});
    }
    for (const DType place : {DType::uint8, DType::int64}) {
      add(ops::OpId::max_pool_backward, type, {2, 3, 5, 3}, {0, 0, 8, 3, 2, 1, 1, 2, 3, 0, 2, 2, 9, 9},
          {2, 3, 5, 3}, place);
      add(ops::OpId::max_pool_backward, type, z, {0, 1, 2, 4, 7, 2, 9, 9}, z, place);
      add(ops::OpId::max_pool_pick, type, x, {0, 0, 8, 3, 2, 1, 1, 2, 3, 0, 2}, {2, 3, 5, 3}, place);
      add(ops::OpId::max_pool_pick, type, x, {0, 1, 2, 4, 7}, z, place);
    }
    add(ops::OpId::avg_pool, type, x, {0, 0, 1, 0, 6, 3, 2, 1, 3, 1, 1});
    add(ops::OpId::avg_pool, type, x, {0, 1, 0, 0, 2, 4, 7});
    add(ops::OpId::avg_pool_backward, type, {2, 3, 5, 9}, {0, 0, 1, 0, 8, 3, 2, 1, 3, 1, 1, 9, 9});
    add(ops::OpId::avg_pool_backward, type, z, {0, 1, 0, 0, 4, 4, 7, 9, 9});
  }
  add(ops::OpId::max_pool, DType::int64, {2, 9}, {0, 0, 0, 4, 3, 2, 1, 1});
  add(ops::OpId::max_pool, DType::bool_, {2, 9}, {0, 0, 1, 4, 3, 2, 1, 1});
  check_clean(samples::nvrtc_compile(text));
}

TEST_CASE("NVRTC compiles scatters of few and of many indices without warning or spill", "[jit]") {
  if (!samples::has_nvrtc()) return;
  std::string text;
  std::set<std::string> symbols;
  for (const DType type : {DType::float32, DType::bfloat16, DType::bool_, DType::float64})
    for (const DType index : {DType::int64, DType::int32})
      for (const ops::OpId op :
           {ops::OpId::index_add, ops::OpId::index_copy, ops::OpId::scatter_add, ops::OpId::scatter})
        for (const int64_t n : {50, 60000}) {
          const bool along = op == ops::OpId::index_add || op == ops::OpId::index_copy;
          NativeCallPlan c;
          c.op = &ops::def(op);
          c.words = {0};
          const ops::TensorType result{type, cpu, false, {100000, 3}};
          c.in_types = {
              result, {index, cpu, false, along ? Dims{n} : Dims{n, 3}}, {type, cpu, false, {n, 3}}};
          c.out_types = {result};
          for (const NativeText& t : scatter_texts(c))
            if (symbols.insert(t.symbol).second) text += t.source;
        }
  CHECK(symbols.count("tandem_sort_move_sorted") == 1);
  check_clean(samples::nvrtc_compile(text));
}

TEST_CASE("nvrtc: for a card that it does not know yet it makes PTX of the newest that it knows", "[nvrtc]") {
  if (!samples::has_nvrtc()) return;
  CHECK(cuda_target(90).architecture == 90);
  CHECK_FALSE(cuda_target(90).ptx);
  const CudaTarget newest = cuda_target(9990);
  CHECK(newest.ptx);
  CHECK(newest.architecture >= 90);
  CHECK(cuda_target(newest.architecture).ptx == false);
  const NvrtcResult r = samples::nvrtc_compile(
      "extern \"C\" __global__ void td_empty(td_i64* to) { to[threadIdx.x] = 1; }\n", newest.options());
  INFO(r.log);
  CHECK(r.failed == 0);
  CHECK(r.cubin_bytes == 0);
  CHECK_THAT(r.ptx,
             Contains(".target sm_" + std::to_string(newest.architecture)) && Contains(".entry td_empty"));
  CHECK_THROWS_WITH(cuda_target(30), Contains("compute capability") && Contains("this device has 30"));
}
