// Graphs of attention and the vendor's own cuDNN, where it is installed, for an H100 that is described and
// not there: that the library takes our descriptions, and, where it finds a driver to compile with, that it
// has engines that we take. Nothing is executed. Elsewhere the test says that it was skipped.
#include "tandem/jit/cudnn_attention.h"

#include <algorithm>

#include "tests/catch.h"
#include "tests/jit/cudnn_device.h"

using tandem::DType;
using namespace tandem::jit;
using namespace tandem::test;

namespace {

CudnnAttention attention(int64_t heads, int64_t shared, int64_t rows, int64_t columns, int64_t width) {
  CudnnAttention s;
  s.dtype = DType::bfloat16;
  s.batch = 2, s.heads = heads, s.shared = shared, s.rows = rows, s.columns = columns;
  s.width = s.out_width = width;
  s.q_strides = contiguous_strides(s.q()), s.k_strides = contiguous_strides(s.k());
  s.v_strides = contiguous_strides(s.v()), s.grad_strides = contiguous_strides(s.y());
  return s;
}

/// Of parts of a packed projection (B, L, heads, width).
CudnnAttention packed(CudnnAttention s) {
  const int64_t all = 3 * s.heads * s.width;
  s.q_strides = {s.rows * all, s.width, all, 1};
  s.k_strides = s.v_strides = {s.columns * all, s.width, all, 1};
  s.grad_strides = {s.rows * s.heads * s.width, s.width, s.heads * s.width, 1};
  return s;
}

}  // namespace

TEST_CASE("cudnn plans: attention, forward and backward", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  bool compiler = true;
  for (const CudnnAttention& one :
       {attention(4, 4, 256, 256, 64), attention(4, 2, 77, 50, 128), packed(attention(2, 2, 128, 128, 40))})
    for (const bool backward : {false, true})
      for (const bool causal : {false, true}) {
        CudnnAttention s = one;
        s.backward = backward, s.causal = causal;
        CAPTURE(to_string(s));
        std::string why;
        const auto plan = CudnnPlan::make(target, attention_graph(*target.api, s), attention_terms(s), &why);
        CAPTURE(why);
        if (!plan &&
            why.find("none of 0 proposals") == 0) {  // its engines are compiled, with the driver's help
          compiler = false;
          continue;
        }
        REQUIRE(plan);
        CHECK(plan->workspace_bytes() <= attention_terms(s).workspace_bytes);
        CHECK(std::count(plan->notes().begin(), plan->notes().end(), Cudnn::Note::nondeterministic) == 0);
      }
  if (!compiler) skipped("cuDNN found no driver: our graphs of attention were taken, but not planned");
}

TEST_CASE("cudnn plans: attention whose widths do not fit is refused in the library's words", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  CudnnGraph graph(*target.api);
  const auto memory = [&](const tandem::Dims& sizes) {
    return graph.memory(Cudnn::kHalf, sizes, contiguous_strides(sizes), 16);
  };
  const auto a = memory({1, 2, 8, 16}), b = memory({1, 2, 24, 8}), c = memory({1, 2, 8, 8});
  CHECK_THROWS_WITH(graph.product(a, b, c), Contains("CUDNN_STATUS"));
}
