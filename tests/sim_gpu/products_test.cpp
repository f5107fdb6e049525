// Matrix products against a naive loop in double.
#include <cmath>
#include <random>

#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;
using Lt = tandem::cuda::CublasLt;

namespace {

struct Shape {
  int m, n, k, batch;
  bool transpose_a, transpose_b, rows;  // rows: all matrices lie row by row
  int extra;                            // beyond the least leading dimension
};

template <class T>
constexpr int kType = sizeof(T) == 8 ? Lt::kReal64F : Lt::kReal32F;

struct Side {
  int rows, columns;
  bool by_rows;
  int leading;
  long stride;
  Side(int r, int c, const Shape& s)
      : rows(r),
        columns(c),
        by_rows(s.rows),
        leading((s.rows ? c : r) + s.extra),
        stride(1l * leading * (s.rows ? r : c)) {}
  size_t at(int batch, int row, int column) const {
    return static_cast<size_t>(batch * stride +
                               (by_rows ? 1l * row * leading + column : 1l * column * leading + row));
  }
};

/// Descriptions of one product.
struct Product {
  Lt::Handle handle = nullptr;
  Lt::Description description = nullptr;
  Lt::Layout a = nullptr, b = nullptr, d = nullptr;
  Lt::Preference preference = nullptr;
  Lt::HeuristicResult found{};
  int n_found = 0;

  Product(const Shape& s, const Side& sa, const Side& sb, const Side& sd, int type) {
    const auto& lt = sim().cublaslt;
    REQUIRE(lt.create(&handle) == 0);
    const bool doubles = type == Lt::kReal64F;
    REQUIRE(lt.product_create(&description, doubles ? Lt::kCompute64F : Lt::kCompute32F,
                              doubles ? Lt::kReal64F : Lt::kReal32F) == 0);
    const int yes = Lt::kTranspose;
    if (s.transpose_a) REQUIRE(lt.product_set(description, Lt::kTransposeA, &yes, sizeof yes) == 0);
    if (s.transpose_b) REQUIRE(lt.product_set(description, Lt::kTransposeB, &yes, sizeof yes) == 0);
    a = layout(sa, type, s.batch);
    b = layout(sb, type, s.batch);
    d = layout(sd, type, s.batch);
    REQUIRE(lt.preference_create(&preference) == 0);
    const uint64_t most = 1 << 20;
    REQUIRE(lt.preference_set(preference, Lt::kMaxWorkspace, &most, sizeof most) == 0);
    find();
  }
  ~Product() {
    const auto& lt = sim().cublaslt;
    for (const Lt::Layout l : {a, b, d}) lt.layout_destroy(l);
    lt.preference_destroy(preference);
    lt.product_destroy(description);
    lt.destroy(handle);
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  void find() {
    REQUIRE(sim().cublaslt.heuristic(handle, description, a, b, d, d, preference, 1, &found, &n_found) == 0);
    REQUIRE(n_found == 1);
  }
  static Lt::Layout layout(const Side& side, int type, int batch) {
    const auto& lt = sim().cublaslt;
    Lt::Layout out = nullptr;
    REQUIRE(lt.layout_create(&out, type, static_cast<uint64_t>(side.rows),
                             static_cast<uint64_t>(side.columns), side.leading) == 0);
    const int order = Lt::kRowMajor;
    if (side.by_rows) REQUIRE(lt.layout_set(out, Lt::kOrder, &order, sizeof order) == 0);
    const int64_t stride = side.stride;
    REQUIRE(lt.layout_set(out, Lt::kBatchCount, &batch, sizeof batch) == 0);
    REQUIRE(lt.layout_set(out, Lt::kBatchStride, &stride, sizeof stride) == 0);
    return out;
  }
};

template <class T>
std::vector<T> numbers(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> out(n);
  for (T& x : out) x = static_cast<T>(static_cast<int>(random() % 2001) - 1000) / T{512};
  return out;
}

template <class T>
void check(const Shape& s) {
  CAPTURE(s.m, s.n, s.k, s.batch, s.transpose_a, s.transpose_b, s.rows, s.extra);
  const Side sa(s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s);
  const Side sb(s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s), sd(s.m, s.n, s);
  const auto size = [&](const Side& side) { return static_cast<size_t>(side.stride * s.batch); };
  const auto va = numbers<T>(size(sa), 1), vb = numbers<T>(size(sb), 2), vd = numbers<T>(size(sd), 3);
  const auto bias = numbers<T>(static_cast<size_t>(s.m), 4);
  const Memory<T> a(va), b(vb), d(vd), added(bias);
  Product product(s, sa, sb, sd, kType<T>);
  const int epilogue = Lt::kEpilogueBias;
  const void* pointer = added.pointer();
  REQUIRE(sim().cublaslt.product_set(product.description, Lt::kEpilogue, &epilogue, sizeof epilogue) == 0);
  REQUIRE(sim().cublaslt.product_set(product.description, Lt::kBiasPointer, &pointer, sizeof pointer) == 0);
  product.find();
  const Memory<char> workspace(product.found.workspace_bytes);
  const T alpha = 2, beta = T(0.5);
  REQUIRE(sim().cublaslt.product(product.handle, product.description, &alpha, a.pointer(), product.a,
                                 b.pointer(), product.b, &beta, d.pointer(), product.d, d.pointer(),
                                 product.d, &product.found.algorithm, workspace.pointer(),
                                 product.found.workspace_bytes, nullptr) == 0);
  const auto out = d.get();
  std::vector<T> expected = vd;
  for (int batch = 0; batch < s.batch; ++batch)
    for (int i = 0; i < s.m; ++i)
      for (int j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int k = 0; k < s.k; ++k)
          sum += double(va[s.transpose_a ? sa.at(batch, k, i) : sa.at(batch, i, k)]) *
                 double(vb[s.transpose_b ? sb.at(batch, j, k) : sb.at(batch, k, j)]);
        const size_t at = sd.at(batch, i, j);
        expected[at] = static_cast<T>(2 * sum + 0.5 * double(vd[at]) + double(bias[static_cast<size_t>(i)]));
      }
  for (size_t i = 0; i < out.size(); ++i) {
    CAPTURE(i);
    REQUIRE(out[i] == Approx(expected[i]).epsilon(1e-5).margin(1e-4));
  }
}

}  // namespace

TEST_CASE("products in all transposes, orders and batches") {
  const Device device;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const bool rows : {false, true})
        for (const auto& [batch, extra] : {std::pair{1, 0}, {3, 2}}) {
          check<float>({5, 7, 9, batch, ta, tb, rows, extra});
          check<double>({4, 3, 6, batch, ta, tb, rows, extra});
        }
  check<float>({64, 33, 100, 2, false, true, true, 0});
}

TEST_CASE("halves are read and rounded") {
  const Device device;
  const Shape s{1, 1, 2, 1, false, false, true, 0};
  for (const int type : {Lt::kReal16F, Lt::kReal16BF}) {
    const bool brain = type == Lt::kReal16BF;
    const Product product(s, Side(1, 2, s), Side(2, 1, s), Side(1, 1, s), type);
    // 1 and 2^-9 (f16) or 2^-7 (bf16); 1.5 and 1: the sum rounds to even at the type's last place
    const Memory<uint16_t> a(brain ? std::vector<uint16_t>{0x3f80, 0x3b80}
                                   : std::vector<uint16_t>{0x3c00, 0x1000});
    const Memory<uint16_t> b(brain ? std::vector<uint16_t>{0x3fc0, 0x3f80}
                                   : std::vector<uint16_t>{0x3e00, 0x3c00});
    const Memory<uint16_t> d(1);
    const float alpha = 1, beta = 0;
    REQUIRE(sim().cublaslt.product(product.handle, product.description, &alpha, a.pointer(), product.a,
                                   b.pointer(), product.b, &beta, d.pointer(), product.d, d.pointer(),
                                   product.d, nullptr, nullptr, 0, nullptr) == 0);
    CHECK(d.get()[0] == (brain ? 0x3fc0 : 0x3e00));
  }
}

TEST_CASE("a captured product is run again with the values of the day") {
  const auto& driver = sim().driver;
  const Device device;
  const Shape s{2, 2, 2, 1, false, false, true, 0};
  const Side side(2, 2, s);
  const Product product(s, side, side, side, Lt::kReal32F);
  const Memory<float> a(std::vector<float>{1, 2, 3, 4}), b(std::vector<float>{1, 0, 0, 1}), d(4);
  tandem::cuda::StreamHandle stream = nullptr;
  tandem::cuda::Graph graph = nullptr;
  tandem::cuda::GraphExec exec = nullptr;
  REQUIRE(driver.stream_create(&stream, 1) == Result::success);
  REQUIRE(driver.capture_begin(stream, tandem::cuda::kCaptureThreadLocal) == Result::success);
  {
    const float alpha = 1, beta = 0;
    REQUIRE(sim().cublaslt.product(product.handle, product.description, &alpha, a.pointer(), product.a,
                                   b.pointer(), product.b, &beta, d.pointer(), product.d, d.pointer(),
                                   product.d, nullptr, nullptr, 0, stream) == 0);
  }
  REQUIRE(driver.capture_end(stream, &graph) == Result::success);
  REQUIRE(driver.graph_instantiate(&exec, graph, 0) == Result::success);
  CHECK(std::isnan(d.get()[0]));
  REQUIRE(driver.graph_launch(exec, stream) == Result::success);
  CHECK(d.get() == std::vector<float>{1, 2, 3, 4});
  REQUIRE(driver.fill_bytes(b.address(), 0, 16, nullptr) == Result::success);
  REQUIRE(driver.graph_launch(exec, stream) == Result::success);
  CHECK(d.get() == std::vector<float>{0, 0, 0, 0});
  driver.graph_destroy(graph);
  driver.graph_exec_destroy(exec);
  driver.stream_destroy(stream);
}

TEST_CASE("products that are refused") {
  const auto& lt = sim().cublaslt;
  const Device device;
  const Shape s{2, 2, 2, 1, false, false, true, 0};
  const Side side(2, 2, s);
  Product product(s, side, side, side, Lt::kReal32F);
  const Memory<float> a(std::vector<float>(4)), small(std::vector<float>(3));
  const float alpha = 1, beta = 0;
  const auto run = [&](const Memory<float>& left, const Lt::Algorithm* algorithm, size_t workspace) {
    return lt.product(product.handle, product.description, &alpha, left.pointer(), product.a, a.pointer(),
                      product.b, &beta, a.pointer(), product.d, a.pointer(), product.d, algorithm, nullptr,
                      workspace, nullptr);
  };
  CHECK(run(small, nullptr, 0) == 7);               // reaches past its memory
  CHECK(run(a, &product.found.algorithm, 0) == 7);  // asks for a workspace
  Lt::Algorithm other = product.found.algorithm;
  other.data[1] ^= 1;
  CHECK(run(a, &other, 0) == 7);
  sim().sim_gpu_fail_call(1);
  CHECK(run(a, nullptr, 0) == 13);
  CHECK(run(a, nullptr, 0) == 0);
}
