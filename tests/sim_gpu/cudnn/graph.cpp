#include "tests/sim_gpu/cudnn/graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "tandem/core/cuda/cudnn_api.h"

namespace sim_gpu {

namespace {

using tandem::cuda::Cudnn;
using K = Cudnn::Kind;
using P = Cudnn::Pointwise;
using R = Cudnn::Reduce;

bool is_half(int type) { return type == Cudnn::kHalf || type == Cudnn::kBrain; }
bool is_number(int type) { return is_half(type) || type == Cudnn::kFloat; }

/// A letter for each operation: what a graph is recognised by.
char letter(const Operation& op) {
  if (op.kind == K::product_operation) return 'M';
  if (op.kind == K::reshape) return 'T';
  if (op.kind == K::reduction_operation) return op.mode == R::max ? '^' : 'S';
  switch (op.mode) {
    case P::add:
      return '+';
    case P::mul:
      return '*';
    case P::sub:
      return '-';
    case P::div:
      return '/';
    case P::exp:
      return 'E';
    case P::log:
      return 'L';
    case P::index:
      return 'I';
    case P::greater_equal:
      return 'G';
    case P::select:
      return '?';
    default:
      return 'x';
  }
}

/// Values where the tensor has them.
struct Values {
  Tensor tensor;
  std::vector<float> data;

  explicit Values(const Tensor& t)
      : tensor(t), data(t.span_bytes() / static_cast<size_t>(t.element_bytes())) {}
  /// With an axis of size 1, or of a divisor, that is repeated.
  float& at(const int64_t (&i)[4], const Tensor& of) {
    int64_t place = 0;
    for (int d = 0; d < 4; ++d) place += i[d] * tensor.sizes[d] / of.sizes[d] * tensor.strides[d];
    return data[static_cast<size_t>(place)];
  }
};

template <class F>
void for_all(const Tensor& t, F&& f) {
  int64_t i[4];
  for (i[0] = 0; i[0] < t.sizes[0]; ++i[0])
    for (i[1] = 0; i[1] < t.sizes[1]; ++i[1])
      for (i[2] = 0; i[2] < t.sizes[2]; ++i[2])
        for (i[3] = 0; i[3] < t.sizes[3]; ++i[3]) f(i);
}

float compute(const Operation& op, std::vector<Values*>& in, const int64_t (&i)[4]) {
  const Tensor& y = op.out;
  const auto value = [&](size_t k) { return in[k]->at(i, y); };
  switch (op.mode) {
    case P::add:
      return value(0) + value(1);
    case P::mul:
      return value(0) * value(1);
    case P::sub:
      return value(0) - value(1);
    case P::div:
      return value(0) / value(1);
    case P::exp:
      return std::exp(value(0));
    case P::log:
      return std::log(value(0));
    case P::index:
      return static_cast<float>(i[op.axis]);
    case P::greater_equal:
      return value(0) >= value(1) ? 1.0f : 0.0f;
    case P::select:
      return value(2) != 0 ? value(0) : value(1);
    default:
      return value(0);
  }
}

void run_operation(const Operation& op, std::vector<Values*>& in, Values& out) {
  if (op.kind == K::reshape) {
    out.data = in[0]->data;
    for (float& v : out.data) v = rounded(v, op.out.type);
    return;
  }
  if (op.kind == K::product_operation) {
    const int64_t depth = op.in[0].sizes[3];
    for_all(op.out, [&](const int64_t(&i)[4]) {
      float sum = 0;
      Tensor a_like = op.out, b_like = op.out;
      a_like.sizes[3] = b_like.sizes[2] = depth;
      for (int64_t k = 0; k < depth; ++k) {
        const int64_t a[4] = {i[0], i[1], i[2], k}, b[4] = {i[0], i[1], k, i[3]};
        sum += in[0]->at(a, a_like) * in[1]->at(b, b_like);
      }
      out.at(i, op.out) = rounded(sum, op.out.type);
    });
    return;
  }
  if (op.kind == K::reduction_operation) {
    std::fill(out.data.begin(), out.data.end(), op.mode == R::max ? -INFINITY : 0.0f);
    for_all(op.in[0], [&](const int64_t(&i)[4]) {
      float& to = out.at(i, op.in[0]);
      const float v = in[0]->at(i, op.in[0]);
      to = op.mode == R::max ? std::max(to, v) : to + v;
    });
    for (float& v : out.data) v = rounded(v, op.out.type);
    return;
  }
  for_all(op.out, [&](const int64_t(&i)[4]) {
    const float v = compute(op, in, i);
    out.at(i, op.out) = is_number(op.out.type) ? rounded(v, op.out.type) : v;
  });
}

bool divides(const Tensor& t, const Tensor& by) {
  for (int d = 0; d < t.rank; ++d)
    if (by.sizes[d] == 0 || t.sizes[d] % by.sizes[d] != 0) return false;
  return true;
}

}  // namespace

std::vector<Tensor> GraphData::tensors() const {
  std::vector<Tensor> all;
  std::set<int64_t> seen;
  const auto add = [&](const Tensor& t) {
    if (!t.is_virtual && seen.insert(t.id).second) all.push_back(t);
  };
  for (const Operation& op : operations) {
    for (const Tensor& t : op.in) add(t);
    add(op.out);
  }
  return all;
}

std::string check_operation(const Operation& op) {
  const Tensor &x = op.in[0], &y = op.out;
  for (const Tensor& t : op.in)
    if (t.rank != y.rank) return "tensors of different ranks";
  if (y.by_value) return "a result by value";
  if (op.kind == K::product_operation) {
    const Tensor& b = op.in[1];
    if (x.by_value || b.by_value) return "a product of a number";
    if (x.rank != 4) return "a product of another rank";
    if (x.sizes[3] != b.sizes[2] || x.sizes[2] != y.sizes[2] || b.sizes[3] != y.sizes[3] ||
        x.sizes[0] != y.sizes[0] || x.sizes[1] != y.sizes[1] || b.sizes[0] != y.sizes[0] ||
        y.sizes[1] % b.sizes[1] != 0)
      return "a product whose sizes do not fit";
    return "";
  }
  if (op.kind == K::reshape) {
    int64_t from = 1, to = 1;
    for (int d = 0; d < x.rank; ++d) from *= x.sizes[d], to *= y.sizes[d];
    if (from != to || x.span_bytes() / static_cast<size_t>(x.element_bytes()) !=
                          y.span_bytes() / static_cast<size_t>(y.element_bytes()))
      return "a reshape to another number of elements";
    return "";
  }
  if (op.kind == K::reduction_operation) {
    if (op.mode != R::add && op.mode != R::max) return "this reduction";
    return divides(x, y) ? "" : "a reduction whose sizes do not fit";
  }
  size_t operands = 2;
  if (op.mode == P::exp || op.mode == P::log || op.mode == P::identity || op.mode == P::index) operands = 1;
  if (op.mode == P::select) operands = 3;
  if (op.in.size() != operands) return "another number of operands";
  for (const Tensor& t : op.in)
    for (int d = 0; d < t.rank; ++d)
      if (t.sizes[d] != y.sizes[d] && t.sizes[d] != 1) return "an operand that does not broadcast";
  if (op.mode == P::index)
    return y.type == Cudnn::kInt32 && op.axis >= 0 && op.axis < y.rank ? "" : "an index";
  if (op.mode == P::greater_equal)
    return y.type == Cudnn::kBoolean && x.type == op.in[1].type ? "" : "a comparison of other types";
  if (op.mode == P::select && op.in[2].type != Cudnn::kBoolean) return "a choice by another type";
  return is_number(y.type) ? "" : "a result of this type";
}

std::string check_attention(const std::vector<Operation>& all) {
  std::string letters;
  for (const Operation& op : all) letters += letter(op);
  static const char* const kForward[] = {"M*^-ES L+/M", "M*IIG?^-ES L+/M"};
  static const char* const kBackward[] = {"*S*M*-ETMM-**TMTM", "*S*M*-IIG?ETMM-**TMTM", "*S*M*-ETMSM-**TMSTM",
                                          "*S*M*-IIG?ETMSM-**TMSTM"};
  const auto same = [&](std::string pattern) {
    pattern.erase(std::remove(pattern.begin(), pattern.end(), ' '), pattern.end());
    return pattern == letters;
  };
  const bool forward = std::any_of(std::begin(kForward), std::end(kForward), same);
  if (!forward && !std::any_of(std::begin(kBackward), std::end(kBackward), same))
    return "no engine knows the pattern " + letters;
  std::set<int64_t> made, used;
  for (const Operation& op : all) {
    for (const Tensor& t : op.in) {
      if (t.is_virtual && made.count(t.id) == 0) return "a value between operations that none has made";
      if (!t.is_virtual && !t.by_value && t.type != Cudnn::kFloat && !is_half(t.type))
        return "memory of this type";
      used.insert(t.id);
    }
    if (!made.insert(op.out.id).second) return "a tensor that two operations make";
  }
  for (const Operation& op : all)
    if (op.out.is_virtual && used.count(op.out.id) == 0) return "a value that nothing reads";
  int type = -1, products = 0;
  for (const Operation& op : all) {
    const bool product = op.kind == K::product_operation;
    // The second operand of the scores, and of their gradient, stands on its head.
    const bool turned = product && (products == 0 || (!forward && products == 2));
    products += product ? 1 : 0;
    std::vector<Tensor> both = op.in;
    both.push_back(op.out);
    for (size_t k = 0; k < both.size(); ++k) {
      const Tensor& t = both[k];
      if (t.rank != 4) return "attention of another rank";
      if (t.is_virtual || t.by_value) continue;
      if (t.alignment % 16 != 0) return "memory that is not aligned to 16 bytes";
      if (!is_half(t.type)) {
        if (product) return "a product of memory of this type";
        continue;
      }
      if (type >= 0 && t.type != type) return "several types of halves";
      type = t.type;
      const int last = op.kind == K::reshape || (turned && k == 1) ? 2 : 3;
      if (t.strides[last] != 1) return "rows that are not one after another";
      if (t.sizes[last] % 8 != 0 || t.sizes[last] > 256) return "this width of a head";
      for (int d = 0; d < 4; ++d)
        if (d != last && t.strides[d] % 8 != 0) return "a stride that is no multiple of 16 bytes";
    }
  }
  // Tensor cores multiply halves: what comes out of the softmax must be one.
  const Operation& last = all.back();
  if (forward && !is_half(last.in[0].type)) return "a softmax that is multiplied in float32";
  return "";
}

void run_graph(const GraphData& g) {
  if (g.workspace != nullptr) std::memset(g.workspace, 0xFF, g.workspace_bytes);
  std::map<int64_t, Values> values;
  for (const Operation& op : g.operations) {
    std::vector<Values*> in;
    for (const Tensor& t : op.in) {
      auto at = values.find(t.id);
      if (at == values.end()) {
        at = values.emplace(t.id, Values(t)).first;
        if (t.by_value)
          at->second.data[0] = g.numbers.at(t.id);
        else
          for_all(t, [&](const int64_t(&i)[4]) {
            int64_t place = 0;
            for (int d = 0; d < 4; ++d) place += i[d] * t.strides[d];
            at->second.data[static_cast<size_t>(place)] = load(g.memory.at(t.id), t.type, place);
          });
      }
      in.push_back(&at->second);
    }
    Values& out = values.emplace(op.out.id, Values(op.out)).first->second;
    run_operation(op, in, out);
    if (op.out.is_virtual) continue;
    for_all(op.out, [&](const int64_t(&i)[4]) {
      int64_t place = 0;
      for (int d = 0; d < 4; ++d) place += i[d] * op.out.strides[d];
      store(g.memory.at(op.out.id), op.out.type, place,
            out.data[static_cast<size_t>(place)] + (g.spoiled ? 1.0f : 0.0f));
    });
  }
}

}  // namespace sim_gpu
