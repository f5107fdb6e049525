// The text around a program's own kernels: NVRTC compiles it for every type and rank, and it depends on these
// alone.
#include "tandem/jit/own_kernel.h"

#include "tests/catch.h"
#include "tests/jit/nvrtc.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

ops::KernelDef definition() {
  return {
      .name = "a kernel: of \"any\" name",
      .inputs = {"x", "x_size0"},  // a name that could meet one of ours
      .outputs = {"y", "z"},
      .cuda = "y[thread] = helper(x[thread]);\nz[0] = x_sizes[0] + x_size0[0] + x_count; // the last line",
      .header = "template <class T> static __device__ T helper(T v) { return v; }",
      .cpu = [](const ops::NativeCall&) {}};
}

NativeCallPlan call(DType dtype, const Dims& sizes) {
  NativeCallPlan c;
  const TensorType integer{DType::int64, {}, false, {}};
  c.in.resize(2), c.out.resize(2);
  c.in_types = {{dtype, {}, false, sizes}, integer};
  c.out_types = {{dtype, {}, false, sizes}, integer};
  return c;
}

}  // namespace

TEST_CASE("own kernels: NVRTC compiles the text around a body, for each type", "[jit]") {
  if (!samples::has_nvrtc()) return;
  std::string all;
  for (int i = 0; i < kDTypeCount; ++i) {
    ops::KernelDef d = definition();
    d.header = i == 0 ? d.header : "";  // one program
    all += own_kernel(call(static_cast<DType>(i), i % 2 ? Dims{2, 3, 4} : Dims{}), d).source;
  }
  const samples::NvrtcResult r = samples::nvrtc_compile(all);
  INFO(r.log);
  CHECK(r.failed == 0);
}

TEST_CASE("own kernels: text and symbol depend on types and ranks, words on sizes", "[jit]") {
  const OwnKernel a = own_kernel(call(DType::float32, {2, 3}), definition()),
                  b = own_kernel(call(DType::float32, {7, 5}), definition()),
                  rank = own_kernel(call(DType::float32, {6}), definition()),
                  type = own_kernel(call(DType::float64, {2, 3}), definition());
  CHECK(a.symbol == b.symbol);
  CHECK(a.source == b.source);
  CHECK(a.symbol != rank.symbol);
  CHECK(a.symbol != type.symbol);
  ops::KernelDef other = definition();
  other.cuda += " ";
  CHECK(own_kernel(call(DType::float32, {2, 3}), other).symbol != a.symbol);
  REQUIRE(a.words.size() == b.words.size());
  CHECK(a.words[0].operand == NativeWord::kInput);
  CHECK(a.words[1].value == 6);
  CHECK(a.words[2].value == 2);
  CHECK(a.words[3].value == 3);
  CHECK(b.words[1].value == 35);
  CHECK(a.words.back().value == 6);
  CHECK(own_kernel(call(DType::float32, {0, 3}), definition()).count == 0);
}
