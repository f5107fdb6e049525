// Hostile calls of an op, made from its samples: operands that are undefined, of other ranks, sizes and
// types, empty beside huge, with NaN or indices out of range; attributes and numbers at and beyond their
// ends. Values only.
#pragma once

#include <limits>

#include "tests/op_calls.h"

namespace tandem::test {

struct HostileCall {
  std::string what;
  ops::Sample sample;
  std::vector<Tensor> in;
};

class HostileCalls {
 public:
  explicit HostileCalls(const ops::OpDef& op) : op_(op) {
    for (const ops::Sample& s : ops::samples(op)) {
      if (s.must_throw) continue;
      base_ = s;
      values_ = rounded(s, DType::float32, operand_values(s, 3));
      in_ = operand_tensors(s, DType::float32, values_);
      for (size_t i = 0; i < s.operands.size(); ++i) {
        if (s.operands[i].is_tensor())
          tensor_operand(i);
        else if (s.operands[i].kind == ops::SampleOperand::Kind::number)
          number_operand(i);
      }
      attributes();
      count_operands();
    }
  }
  const std::vector<HostileCall>& calls() const { return calls_; }

 private:
  static constexpr int64_t kLeast = std::numeric_limits<int64_t>::min(),
                           kMost = std::numeric_limits<int64_t>::max(), kHuge = int64_t{1} << 62;

  void add(const std::string& what, ops::Sample s, std::vector<Tensor> in) {
    calls_.push_back({base_.text + ": " + what, std::move(s), std::move(in)});
  }
  void with_tensor(size_t i, const std::string& what, Tensor t) {
    std::vector<Tensor> in = in_;
    in[i] = std::move(t);
    add("operand " + std::to_string(i) + ' ' + what, base_, std::move(in));
  }

  void tensor_operand(size_t i) {
    const ops::TensorType type = ops::sample_type(base_.operands[i], DType::float32);
    const TensorOptions o{.dtype = type.dtype};
    with_tensor(i, "undefined", Tensor());
    for (const Dims& sizes :
         {Dims{}, Dims{0}, Dims{1}, Dims{3, 0, 2}, Dims{1, 1, 0}, Dims{0, 0}, Dims{5, 1, 3}, Dims{2, 1, 1, 1},
          Dims::filled(kMaxRank, 1), Dims::filled(kMaxRank, 2)})
      with_tensor(i, "of sizes " + to_string(sizes), zeros(sizes, o));
    with_tensor(i, "empty beside 2^62", zeros({0, 1}, o).expand({0, kHuge}));
    for (int d = 0; d < type.sizes.rank(); ++d)
      for (const int64_t by : {-1, 1}) {
        Dims sizes = type.sizes;
        sizes[d] = std::max<int64_t>(0, sizes[d] + by);
        with_tensor(i, "of sizes " + to_string(sizes), zeros(sizes, o));
      }
    with_tensor(i, "without strides", zeros(Dims::filled(type.sizes.rank(), 1), o).expand(type.sizes));
    if (op_.kind == ops::OpKind::pointwise || op_.kind == ops::OpKind::view) {
      with_tensor(i, "2^62 long", zeros({1}, o).expand({kHuge}));
      with_tensor(i, "of 2^31 by 2^31", zeros({1}, o).expand({int64_t{1} << 31, int64_t{1} << 31}));
    }
    for (int t = 0; t < kDTypeCount; ++t)
      if (static_cast<DType>(t) != type.dtype)
        with_tensor(i, std::string("of type ") + tandem::name(static_cast<DType>(t)),
                    in_[i].to(static_cast<DType>(t)));
    if (is_floating(type.dtype)) {
      for (const double v : {std::nan(""), HUGE_VAL, -HUGE_VAL, 3e38, 1e-42, -0.0})
        with_tensor(i, "full of " + std::to_string(v), full(type.sizes, v, o));
    } else if (type.dtype == DType::int64) {
      for (const int64_t v : {int64_t{-1}, int64_t{1} << 31, kLeast, kMost, kHuge})
        with_tensor(i, "full of " + std::to_string(v), full(type.sizes, v, o));
    }
  }

  void with_word(size_t at, const std::string& what, std::initializer_list<int64_t> words,
                 size_t replaced = 1) {
    ops::Sample s = base_;
    const auto first = s.words.begin() + static_cast<int64_t>(at);
    s.words.erase(first, first + static_cast<int64_t>(replaced));
    s.words.insert(s.words.begin() + static_cast<int64_t>(at), words);
    add(what, std::move(s), in_);
  }

  void number_operand(size_t i) {
    size_t at = 1;
    for (size_t k = 0; k < i; ++k)
      if (base_.operands[k].kind == ops::SampleOperand::Kind::number) at += 2;
    if (base_.operands[i].number != NumberKind::floating) return;
    for (const double v : {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e308, 0.0})
      with_word(at, "number " + std::to_string(v), {std::bit_cast<int64_t>(v)});
  }

  void attributes() {
    size_t at = 2 * static_cast<size_t>(base_.n_numbers);
    for (int k = 0; k < op_.n_attrs; ++k) {
      const std::string name = op_.attrs[k].name;
      switch (op_.attrs[k].type) {
        case ops::AttrType::integer:
        case ops::AttrType::dynamic:
          for (const int64_t v : {kLeast, kLeast + 1, kMost, kHuge, -kHuge, int64_t{1} << 50, int64_t{-1},
                                  int64_t{0}, int64_t{9}, int64_t{-9}})
            with_word(at, name + '=' + std::to_string(v), {v});
          break;
        case ops::AttrType::floating:
          for (const double v : {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e308, -1e308, 1e-320, -1.0, 0.0})
            with_word(at, name + '=' + std::to_string(v), {std::bit_cast<int64_t>(v)});
          break;
        case ops::AttrType::list:
          lists(at, name);
          at += static_cast<size_t>(base_.words[at]);
          break;
        case ops::AttrType::boolean:
        case ops::AttrType::dtype:
          break;
      }
      ++at;
    }
  }
  void lists(size_t at, const std::string& name) {
    const size_t old = 1 + static_cast<size_t>(base_.words[at]);
    with_word(at, name + " empty", {0}, old);
    for (const int64_t v : {kLeast, kMost, kHuge, int64_t{-1}, int64_t{0}, int64_t{9}, int64_t{-9}}) {
      with_word(at, name + '=' + std::to_string(v), {1, v}, old);
      with_word(at, name + " twice " + std::to_string(v), {2, v, v}, old);
      if (v != 9)  // 43 million elements
        with_word(at, name + " eight times " + std::to_string(v), {8, v, v, v, v, v, v, v, v}, old);
    }
    with_word(at, name + " 2^32 and 2^32", {2, int64_t{1} << 32, int64_t{1} << 32}, old);
    with_word(at, name + " 0 and 2^62", {2, 0, kHuge}, old);
    with_word(at, name + " 2^62, 4, 0", {3, kHuge, 4, 0}, old);
  }

  /// One operand too few, one too many.
  void count_operands() {
    if (in_.empty() || base_.n_numbers > 0) return;
    ops::Sample s = base_;
    std::vector<Tensor> in = in_;
    s.operands.pop_back(), in.pop_back();
    if (op_.n_in < 0 || static_cast<int>(in.size()) >= op_.n_in - op_.n_optional)
      add("without the last operand", s, in);
    if (op_.n_in < 0) add("without any operand", {.text = s.text, .words = s.words}, {});
  }

  const ops::OpDef& op_;
  ops::Sample base_;
  Lists values_;
  std::vector<Tensor> in_;
  std::vector<HostileCall> calls_;
};

}  // namespace tandem::test
