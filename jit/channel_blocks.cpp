// A value begins to lie in blocks where a convolution that computes so gives it to readers that all take
// blocks. From there on pooling, pointwise ops and sums over positions go on in blocks; what cannot read them
// is given a copy in row-major order, and a row-major operand that is met on the way one in blocks.
#include "tandem/jit/channel_blocks.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/grouping.h"
#include "tandem/jit/rewrite.h"
#include "tandem/ops/convolutions/convolutions.h"
#include "tandem/ops/windows.h"

namespace tandem::jit {

using ops::OpKind;
using ops::Value;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

bool is_convolution(const Node& n) {
  return n.leaf == Leaf::op && ops::def(n.op).kind == OpKind::convolution;
}

/// Why a call's operands may not lie in blocks; empty if they may, or do not.
std::string refused_blocks(const Graph& g, const Node& n, Device device) {
  const bool pools = n.op == OpId::max_pool || n.op == OpId::max_pool_backward;
  const bool convolves = is_convolution(n), moves = ops::is_user(n.op) && lays_out_channels(n.op);
  if (!pools && !convolves && !moves) return {};
  ops::ConvolutionShape shape;
  if (pools) {
    const Dims& x = g.type(n.in[0]).sizes;
    if (x.rank() != ops::windows_of(ops::def(n.op), x, n.words).rank + 3) return {};
  } else if (convolves) {
    const TensorType in[] = {g.type(n.in[0]), g.type(n.in[1])};
    shape = ops::convolution_shape(ops::def(n.op), in, g.type(n.out[0]), n.words);
    if (shape.x_block == 0 && shape.y_block == 0) return {};
  }
  if (device.type != DeviceType::cpu) return "are for the CPU, not for " + to_string(device);
  if (convolves && !ops::takes_blocks(ops::choose_provider(shape)))
    return "are for shapes that oneDNN computes, and here it does not compute this one";
  return {};
}

class Blocker {
 public:
  explicit Blocker(const Graph& g)
      : g_(g), r_(g), blocked_(g.values.size(), -1), users_(g.values.size()), wanted_(g.values.size(), 0) {
    for (size_t i = 0; i < g.nodes.size(); ++i)
      for (const int32_t v : g.nodes[i].in)
        if (v >= 0) users_[at(v)].push_back(static_cast<int32_t>(i));
    lasting_.assign(g.values.size(), 0);
    for (const int32_t v : g.outputs) lasting_[at(v)] = 1;
    for (const Write& w : g.writes) lasting_[at(w.value)] = 1;
  }

  Graph run() {
    find_wanted();
    for (const Node& n : g_.nodes) {
      if ((n.leaf == Leaf::op && in_blocks(n)) || (n.leaf == Leaf::count && counted(n))) continue;
      for (const int32_t v : n.in) plain(v);
      r_.name(n, r_.copy(n));
    }
    for (size_t v = 0; v < lasting_.size(); ++v)
      if (lasting_[v])
        TANDEM_INTERNAL(r_.to.type(plain(static_cast<int32_t>(v))).sizes == g_.values[v].type.sizes,
                        "blocks of channels changed a result's sizes");
    return dead_code(r_.finish());
  }

 private:
  const TensorType& type(int32_t v) const { return g_.type(v); }
  bool float32(int32_t v) const { return type(v).dtype == DType::float32 && !type(v).number; }

  GraphEmitter emitter(const Node& like) {
    GraphEmitter e(r_.to, false);
    e.location = like.where;
    e.origin = like.origin;
    return e;
  }

  /// The value in row-major order in the new graph; -1 for an absent operand.
  int32_t plain(int32_t v) {
    if (v >= 0 && r_[v] < 0)
      r_.name(v, emitter(g_.node_of(v)).call(from_blocks(), {Value{blocked_[at(v)]}}).id);
    return r_[v];
  }
  /// The value in blocks of `block` channels in the new graph.
  int32_t blocked(int32_t v, int64_t block) {
    if (block_of(v) == block) return blocked_[at(v)];
    const int32_t row_major = plain(v);
    return blocked_[at(v)] = emitter(g_.node_of(v)).call(to_blocks(block), {Value{row_major}}).id;
  }
  /// The block of a value that lies in blocks; 0: none.
  int64_t block_of(int32_t v) const {
    if (v < 0 || blocked_[at(v)] < 0) return 0;
    const Dims& sizes = r_.to.type(blocked_[at(v)]).sizes;
    return sizes[sizes.rank() - 1];
  }
  /// As it lies in blocks of `block` channels, if it does, else in row-major order.
  int32_t either(int32_t v, int64_t block) {
    return block != 0 && block_of(v) == block ? blocked_[at(v)] : plain(v);
  }

  /// Appends the node with these operands, whose types decide about the results'.
  std::vector<Value> append(const Node& n, const std::vector<int32_t>& in) {
    std::vector<Value> operands, out(n.out.size());
    for (const int32_t v : in) operands.push_back(Value{v});
    emitter(n).emit(n.op, operands, n.words, out.data());
    r_.to.nodes.back().again = n.again;
    return out;
  }
  /// The same where the results lie in blocks.
  void give_blocks(const Node& n, const std::vector<int32_t>& in) {
    const std::vector<Value> out = append(n, in);
    for (size_t j = 0; j < n.out.size(); ++j) blocked_[at(n.out[j])] = out[j].id;
  }

  /// Appends the node if it reads or gives blocks.
  bool in_blocks(const Node& n) {
    switch (ops::def(n.op).kind) {
      case OpKind::convolution:
        return convolution(n);
      case OpKind::pointwise:
        return pointwise(n);
      case OpKind::scan:
        return pooling(n);
      case OpKind::reduction:
        return sum(n);
      case OpKind::view:
        return joined_positions(n);
      default:
        return false;
    }
  }

  ops::ConvolutionBlocks own_blocks(const Node& n) const {
    std::vector<TensorType> in(n.in.size());
    for (size_t i = 0; i < in.size(); ++i)
      if (n.in[i] >= 0) in[i] = type(n.in[i]);
    return ops::own_blocks(ops::convolution_shape(ops::def(n.op), in, type(n.out[0]), n.words));
  }

  bool convolution(const Node& n) {
    const ops::ConvolutionBlocks own = own_blocks(n);
    const bool input = n.op == OpId::convolution_input;
    const bool gives = input ? block_of(n.in[0]) == own.y && gives_blocks(n, own)
                             : n.op == OpId::convolution && own.y != 0 && wanted_[at(n.out[0])];
    std::vector<int32_t> in;
    const int64_t blocks[] = {!input  ? own.x
                              : gives ? own.y
                                      : 0,
                              n.op == OpId::convolution_weight ? own.y : 0, 0};
    for (size_t i = 0; i < n.in.size(); ++i) in.push_back(either(n.in[i], blocks[i]));
    if (!gives) {
      r_.name(n, append(n, in)[0].id);
      return true;
    }
    if (!input) {
      Dims split = type(n.in[1]).sizes;
      split[0] /= own.y;
      split.insert(1, own.y);
      in[1] = emitter(n).reshape(Value{in[1]}, split).id;
    }
    give_blocks(n, in);
    return true;
  }

  /// Users come behind makers, so that what is made of a value is known before it.
  void find_wanted() {
    for (auto n = g_.nodes.rbegin(); n != g_.nodes.rend(); ++n)
      for (const int32_t v : n->out)
        wanted_[at(v)] =
            !lasting_[at(v)] && std::all_of(users_[at(v)].begin(), users_[at(v)].end(),
                                            [&](int32_t u) { return reads_blocks(g_.nodes[at(u)], v); });
  }

  bool reads_blocks(const Node& n, int32_t v) const {
    if (n.leaf == Leaf::count) return true;
    if (n.leaf != Leaf::op) return false;
    if (!is_convolution(n))
      return takes_blocks(n) || sums_positions(n) ||
             (((of_blocks(n) && whole(n, v)) || joins_positions(n)) && wanted_[at(n.out[0])]);
    const ops::ConvolutionBlocks own = own_blocks(n);
    if (n.op == OpId::convolution_weight) return (n.in[0] != v || own.x != 0) && (n.in[1] != v || own.y != 0);
    return n.in[1] != v && (n.op == OpId::convolution ? own.x != 0 : gives_blocks(n, own));
  }
  /// Of a gradient of the input.
  bool gives_blocks(const Node& n, const ops::ConvolutionBlocks& own) const {
    return own.y != 0 && own.x == own.y && n.in[2] < 0 && wanted_[at(n.out[0])];
  }

  bool takes_blocks(const Node& n) const {
    if (!is_op(n, OpId::max_pool) && !is_op(n, OpId::max_pool_backward)) return false;
    const int32_t places = n.op == OpId::max_pool ? n.out[1] : n.in[1];
    const auto in_gradient = [&](int32_t u) {
      return is_op(g_.nodes[at(u)], OpId::max_pool_backward) && g_.nodes[at(u)].in[0] != places;
    };
    // Pooling over (C, *in) would take blocks for (N, C, *in).
    const Dims& sizes = type(n.out[0]).sizes;
    const bool batched = ops::windows_of(ops::def(n.op), sizes, n.words).rank + 2 == sizes.rank();
    return batched && float32(n.out[0]) && type(places).dtype == DType::uint8 && !lasting_[at(places)] &&
           std::all_of(users_[at(places)].begin(), users_[at(places)].end(), in_gradient);
  }

  bool pooling(const Node& n) {
    if (!takes_blocks(n)) return false;
    const bool forward = n.op == OpId::max_pool;
    const int64_t block = block_of(n.in[forward ? 0 : 1]);
    if (block == 0) return false;
    if (forward)
      give_blocks(n, {blocked_[at(n.in[0])]});
    else
      give_blocks(n, {blocked(n.in[0], block), blocked_[at(n.in[1])]});
    return true;
  }

  bool whole(const Node& n, int32_t v) const { return type(v).sizes == type(n.out[0]).sizes; }
  /// What an operand is made of that is the same at all positions: (N or 1, C or 1, 1...), or the last of
  /// these; -1 for others.
  int32_t per_channel(const Node& n, int32_t v) const {
    const Dims& all = type(n.out[0]).sizes;
    if (is_op(g_.node_of(v), OpId::expand)) v = g_.node_of(v).in[0];
    const Dims& sizes = type(v).sizes;
    const int missing = all.rank() - sizes.rank();
    for (int d = 0; d < sizes.rank(); ++d)
      if (sizes[d] != 1 && (d + missing > 1 || sizes[d] != all[d + missing])) return -1;
    return v;
  }
  /// Whether a pointwise op's tensors have the sizes of its result, or are the same at all positions.
  bool of_blocks(const Node& n) const {
    if (ops::def(n.op).kind != OpKind::pointwise || type(n.out[0]).sizes.rank() < 3) return false;
    const auto fits = [&](int32_t v) {
      const int64_t size = itemsize(type(v).dtype);
      return whole(n, v) && (size == 1 || size == 4);
    };
    return fits(n.out[0]) && std::all_of(n.in.begin(), n.in.end(), [&](int32_t v) {
             return v < 0 || type(v).number || per_channel(n, v) >= 0 || fits(v);
           });
  }

  bool pointwise(const Node& n) {
    int64_t block = 0;
    for (const int32_t v : n.in) block = std::max(block, block_of(v));
    if (block == 0 || !of_blocks(n)) return false;
    std::vector<int32_t> in;
    for (const int32_t v : n.in) {
      const int32_t same = v < 0 || type(v).number || block_of(v) != 0 ? -1 : per_channel(n, v);
      in.push_back(v < 0 || type(v).number ? r_[v]
                   : same >= 0             ? channels(n, same, block)
                                           : blocked(v, block));
    }
    give_blocks(n, in);
    return true;
  }
  /// Beside values in blocks: what is the same at all positions.
  int32_t channels(const Node& n, int32_t v, int64_t block) {
    const Dims &from = type(v).sizes, &all = type(n.out[0]).sizes;
    const int d = 1 - (all.rank() - from.rank());  // of the channels
    if (d < 0 || from[d] == 1) return numel(from) == 1 ? plain(v) : images(n, v);
    Dims split;
    if (d > 0) split.push_back(from[0]);
    split.push_back(from[d] / block);
    for (int p = 2; p < all.rank(); ++p) split.push_back(1);
    split.push_back(block);
    return emitter(n).reshape(Value{plain(v)}, split).id;
  }
  /// One number an image.
  int32_t images(const Node& n, int32_t v) {
    Dims sizes = type(v).sizes;
    sizes.push_back(1);
    return emitter(n).reshape(Value{plain(v)}, sizes).id;
  }

  Dims positions(const Dims& x) const {
    Dims all;
    for (int d = 2; d < x.rank(); ++d) all.push_back(d);
    return all;
  }
  bool sums_positions(const Node& n) const {
    return is_op(n, OpId::sum) && float32(n.in[0]) && float32(n.out[0]) &&
           reduced_axes(g_, n) == positions(type(n.in[0]).sizes);
  }

  /// As the sums over positions of (N, C / b, b, *in), whose tree is that of (N, C, *in).
  bool sum(const Node& n) {
    if (block_of(n.in[0]) == 0 || !sums_positions(n)) return false;
    int32_t x = n.in[0];
    if (const Node& view = g_.node_of(x); joins_positions(view) && block_of(view.in[0]) == block_of(x))
      x = view.in[0];  // which the kernel that sums can make, too
    const int rank = type(x).sizes.rank();
    Dims order = {0, 1, rank}, last;
    for (int d = 2; d < rank; ++d) order.push_back(d), last.push_back(d + 1);
    GraphEmitter e = emitter(n);
    const Value sums = e.sum(e.permute(Value{blocked_[at(x)]}, order), last, false);
    r_.name(n, e.reshape(sums, type(n.out[0]).sizes).id);
    return true;
  }

  /// The number of elements along axes: the channels lie along two.
  bool counted(const Node& n) {
    if (block_of(n.in[0]) == 0) return false;
    Dims axes;
    for (const int64_t a : n.words) axes.push_back(a);
    if (std::find(axes.begin(), axes.end(), 1) != axes.end()) axes.push_back(type(n.in[0]).sizes.rank());
    r_.name(n, emitter(n).count(Value{blocked_[at(n.in[0])]}, axes).id);
    return true;
  }

  /// (N, C, *in) as (N, C, positions).
  bool joins_positions(const Node& n) const {
    if (!is_op(n, OpId::reshape)) return false;
    const Dims &from = type(n.in[0]).sizes, &to = type(n.out[0]).sizes;
    return from.rank() > 3 && to.rank() == 3 && to[0] == from[0] && to[1] == from[1];
  }
  bool joined_positions(const Node& n) {
    const int64_t block = block_of(n.in[0]);
    if (block == 0 || !joins_positions(n)) return false;
    const Dims& to = type(n.out[0]).sizes;
    blocked_[at(n.out[0])] =
        emitter(n).reshape(Value{blocked_[at(n.in[0])]}, {to[0], to[1] / block, to[2], block}).id;
    return true;
  }

  const Graph& g_;
  Rewrite r_;
  std::vector<int32_t> blocked_;             // per value: in blocks, in the new graph
  std::vector<std::vector<int32_t>> users_;  // per value: nodes
  std::vector<char> lasting_;                // per value: an output, or written in the end
  std::vector<char> wanted_;                 // per value: all that read it take blocks
};

}  // namespace

void check_channel_blocks(const Graph& g, Device device) {
  for (const Node& n : g.nodes) {
    if (n.leaf != Leaf::op) continue;
    const std::string why = refused_blocks(g, n, device);
    if (!why.empty())
      fail(std::string(ops::def(n.op).name) + ": operands with their channels in blocks, as " +
               to_string(g.type(n.in[0])) + ", " + why + "; give them as (N, C, ...)",
           n.where);
  }
}

Graph with_channel_blocks(const Graph& g) {
  return std::any_of(g.nodes.begin(), g.nodes.end(), is_convolution) ? Blocker(g).run() : g;
}

}  // namespace tandem::jit
