#include "tandem/jit/attention_call.h"

#include <bit>
#include <cmath>
#include <limits>

#include "tandem/core/error.h"

namespace tandem::jit {

using cuda::Pointer;
using ops::Layout;

namespace {

enum : size_t { kCausal, kScaled, kTf32, kWhole };      // structural words of both ops (ops/fused.def)
constexpr int64_t kElements = kAttentionAlignment / 2;  // halves in an aligned piece
constexpr int64_t kWidest = 256;

/// Strides of (..., H, L, E) as (B, H, L, E); false if the library does not read such memory.
bool four_strides(const Layout& x, Dims* out) {
  const int rank = x.sizes.rank();
  if (rank < 2 || x.strides[rank - 1] != 1 || x.offset % kElements != 0) return false;
  const int64_t width = x.sizes[rank - 1];
  const auto fits = [](int64_t stride) { return stride > 0 && stride % kElements == 0; };
  const auto of = [&](int axis, int64_t packed) {  // an axis of size 1 has the stride that it likes
    return axis < 0 || x.sizes[axis] == 1 ? packed : x.strides[axis];
  };
  const int64_t rows = of(rank - 2, width);
  const int64_t heads = of(rank - 3, x.sizes[rank - 2] * rows);
  int64_t batch = rank < 3 ? heads : x.sizes[rank - 3] * heads;
  int64_t next = 0;  // stride of the leading axis before the last one seen, if they are one
  bool seen = false;
  for (int axis = rank - 4; axis >= 0; --axis) {
    if (x.sizes[axis] == 1) continue;
    if (seen && x.strides[axis] != next) return false;
    if (!seen) batch = x.strides[axis];
    seen = true;
    next = x.strides[axis] * x.sizes[axis];
  }
  *out = {batch, heads, rows, 1};
  return fits(rows) && fits(heads) && fits(batch);
}

/// Sizes (..., H, L, E) as (B, H, L, E).
Dims four_sizes(const Dims& x) {
  const int rank = x.rank();
  int64_t batch = 1;
  for (int d = 0; d < rank - 3; ++d) batch = checked_mul(batch, x[d], "a batch of attention");
  return {batch, rank < 3 ? 1 : x[rank - 3], x[rank - 2], x[rank - 1]};
}

/// The call with contiguous operands.
CudnnAttention packed_shape(bool backward, std::span<const int64_t> words, DType dtype, const Dims& q_sizes,
                            const Dims& k_sizes, const Dims& v_sizes) {
  CudnnAttention s;
  const Dims q = four_sizes(q_sizes), k = four_sizes(k_sizes), v = four_sizes(v_sizes);
  s.dtype = dtype;
  s.backward = backward;
  s.causal = words[kCausal] != 0;
  s.batch = q[0], s.heads = q[1], s.rows = q[2], s.width = q[3];
  s.shared = k[1], s.columns = k[2], s.out_width = v[3];
  s.q_strides = contiguous_strides(s.q()), s.k_strides = contiguous_strides(s.k());
  s.v_strides = contiguous_strides(s.v()), s.grad_strides = contiguous_strides(s.y());
  return s;
}

bool is_backward(OpId op) { return op == OpId::attention_backward; }

/// Where the strides of operand `i` stand; null for those that are contiguous.
Dims* strides_of(CudnnAttention& s, int i) {
  switch (i) {
    case 0:
      return &s.q_strides;
    case 1:
      return &s.k_strides;
    case 2:
      return &s.v_strides;
    case 5:
      return &s.grad_strides;
    default:
      return nullptr;
  }
}

bool could_be(const Graph& g, const Node& n) {
  if (n.leaf != Leaf::op || (n.op != OpId::attention_forward && !is_backward(n.op))) return false;
  const DType dtype = g.type(n.in[0]).dtype;
  if (dtype != DType::float16 && dtype != DType::bfloat16) return false;
  if (is_backward(n.op)) {
    const bool usual = g.type(n.in[3]).dtype == dtype && g.type(n.in[4]).dtype == DType::float32 &&
                       g.type(n.in[5]).dtype == dtype && n.in[6] < 0;
    if (!usual) return false;
  }
  const Leaf scale = g.node_of(n.in.back()).leaf;
  return scale == Leaf::number || scale == Leaf::constant;
}

CudnnAttention packed_shape(const Graph& g, const Node& n) {
  return packed_shape(is_backward(n.op), n.words, g.type(n.in[0]).dtype, g.type(n.in[0]).sizes,
                      g.type(n.in[1]).sizes, g.type(n.in[2]).sizes);
}

bool pays(const CudnnAttention& s) {
  return s.width % kElements == 0 && s.out_width % kElements == 0 && s.width <= kWidest &&
         s.out_width <= kWidest && s.rows * s.columns >= kLeastScores;
}

}  // namespace

Graph with_library_calls(const Graph& g, Device device) {
  Graph out = g;
  for (Node& n : out.nodes) {
    if (by_library(n)) n.words[kWhole] = 0;  // of a graph from elsewhere
    if (device.type != DeviceType::cuda || !could_be(g, n)) continue;
    const CudnnAttention shape = packed_shape(g, n);
    if (pays(shape) && cudnn_attention(cuda::Runtime::of(device), shape)) n.words[kWhole] = 1;
  }
  return out;
}

bool library_reads(const Node& n, int i, const Layout& layout) {
  CudnnAttention any;
  Dims strides;
  if ((is_backward(n.op) || i < 3) && strides_of(any, i)) return four_strides(layout, &strides);
  return is_contiguous(layout.sizes, layout.strides) && layout.offset % kElements == 0;
}

bool library_takes(const Prepared& p, Device device) {
  for (const Node& n : p.g.nodes) {
    if (!by_library(n)) continue;
    CudnnAttention shape = packed_shape(p.g, n);
    for (int i = 0; i < 6 && i < static_cast<int>(n.in.size()) - 1; ++i)
      if (Dims* const strides = strides_of(shape, i)) {
        const bool reads = four_strides(p.layout(n.in[static_cast<size_t>(i)]), strides);
        TANDEM_INTERNAL(reads, "an operand of attention was not made ready");
      }
    if (!cudnn_attention(cuda::Runtime::of(device), shape)) return false;
  }
  return true;
}

std::shared_ptr<const AttentionCall> attention_call(cuda::Runtime& device, const NativeCallPlan& c) {
  auto call = std::make_shared<AttentionCall>();
  CudnnAttention& s = call->shape;
  const bool backward = is_backward(c.op->id);
  s = packed_shape(backward, c.words, c.in_types[0].dtype, c.in_types[0].sizes, c.in_types[1].sizes,
                   c.in_types[2].sizes);
  const size_t n_in = backward ? 6 : 3;
  const auto add = [&](const Address& at, const TensorType& type, const Dims& strides) {
    int64_t last = 0;
    for (int d = 0; d < type.sizes.rank(); ++d) last += (type.sizes[d] - 1) * strides[d];
    call->operands.push_back(at);
    call->bytes.push_back((last + 1) * itemsize(type.dtype));
  };
  for (size_t i = 0; i < n_in; ++i) {
    if (Dims* const strides = strides_of(s, static_cast<int>(i))) {
      const bool reads = four_strides({c.in_types[i].sizes, c.in_strides[i], 0}, strides);
      TANDEM_INTERNAL(reads, "an operand of attention was not made ready");
    }
    add(c.in[i], c.in_types[i], c.in_strides[i]);
  }
  for (size_t i = 0; i < c.out.size(); ++i)
    add(c.out[i], c.out_types[i], contiguous_strides(c.out_types[i].sizes));
  std::string why;
  call->plan = cudnn_attention(device, s, &why);
  TANDEM_INTERNAL(call->plan, "no plan of cuDNN's for " + to_string(s) + " any more: " + why);
  call->scale = c.words[kScaled] ? c.numbers.at(0)
                                 : NumberWord{-1, std::bit_cast<int64_t>(1 / std::sqrt(double(s.width)))};
  const auto take = [&](int64_t bytes) {
    constexpr int64_t kPiece = 256;
    const int64_t at = call->workspace_bytes;
    call->workspace_bytes += (bytes + kPiece - 1) / kPiece * kPiece;
    return at;
  };
  take(call->plan->workspace_bytes());
  if (backward) take(4 * s.batch * s.heads * s.rows);  // a number a row, see run_attention
  // Only a caller's memory may lie anywhere.
  for (size_t i = 0; i < call->operands.size(); ++i)
    call->spares.push_back(call->operands[i].base == Base::input ? take(call->bytes[i]) : -1);
  return call;
}

void run_attention(cuda::Runtime& device, const AttentionCall& call, std::span<const Pointer> memory,
                   int64_t scale, Pointer workspace, cuda::StreamHandle stream) {
  const CudnnAttention& s = call.shape;
  std::vector<Pointer> at(memory.begin(), memory.end());
  const auto copy = [&](Pointer to, Pointer from, size_t i) {
    device.check(device.api().copy_on_device(to, from, static_cast<size_t>(call.bytes[i]), stream),
                 "cuMemcpyDtoDAsync");
  };
  device.use();
  for (size_t i = 0; i < at.size(); ++i) {
    if (at[i] % kAttentionAlignment == 0) continue;
    TANDEM_INTERNAL(call.spares[i] >= 0, "memory of our own that is not aligned");
    at[i] = workspace + static_cast<Pointer>(call.spares[i]);
    if (!call.computed(i)) copy(at[i], memory[i], i);
  }
  const auto data = [](Pointer p) { return reinterpret_cast<const void*>(p); };
  const auto factor = static_cast<float>(std::bit_cast<double>(scale));
  const float one = 1, lowest = cudnn_lowest();
  using A = CudnnAttention;
  std::vector<CudnnPlan::Operand> operands = {{A::kQ, data(at[0])}, {A::kK, data(at[1])},
                                              {A::kV, data(at[2])}, {A::kScale, &factor},
                                              {A::kY, data(at[3])}, {A::kStats, data(at[4])}};
  if (s.backward) {
    constexpr int64_t kPiece = 256;
    const int64_t sums = (call.plan->workspace_bytes() + kPiece - 1) / kPiece * kPiece;
    operands.insert(operands.end(), {{A::kGrad, data(at[5])},
                                     {A::kDq, data(at[6])},
                                     {A::kDk, data(at[7])},
                                     {A::kDv, data(at[8])},
                                     {A::kOne, &one},
                                     {A::kRowSums, data(workspace + static_cast<Pointer>(sums))}});
  }
  if (s.causal) operands.push_back({s.backward ? A::kLowestBackward : A::kLowest, &lowest});
  run_plan(device, *call.plan, operands, workspace, stream);
  for (size_t i = 0; i < at.size(); ++i)
    if (at[i] != memory[i] && call.computed(i)) copy(memory[i], at[i], i);
}

}  // namespace tandem::jit
