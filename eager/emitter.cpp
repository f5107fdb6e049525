#include "tandem/eager/emitter.h"

#include <cmath>

namespace tandem::eager {

double NumberSource::value(const int64_t* words) const {
  if (word >= 0)
    return kind == NumberKind::floating ? std::bit_cast<double>(words[word])
                                        : static_cast<double>(words[word]);
  if (op == ops::ScalarOp::count_) return constant;
  return ops::number_arithmetic(op, a->value(words), b ? b->value(words) : 0);
}

int64_t NumberSource::bits(const int64_t* words, NumberKind as) const {
  if (word >= 0 && (kind == NumberKind::floating) == (as == NumberKind::floating)) return words[word];
  const double v = value(words);
  return as == NumberKind::floating ? std::bit_cast<int64_t>(v) : static_cast<int64_t>(v);
}

namespace {

/// A list attribute's words: how many, and the values.
Dims listed(ops::Words words) {
  Dims out;
  for (int64_t i = 1; i <= words[0]; ++i) out.push_back(words[static_cast<size_t>(i)]);
  return out;
}

}  // namespace

ops::Value EagerEmitter::add(Ref<TensorImpl> tensor) {
  Item item;
  item.type = {tensor->dtype, tensor->device, false, tensor->sizes};
  item.tensor = std::move(tensor);
  items_.push_back(std::move(item));
  return {static_cast<int32_t>(items_.size()) - 1};
}

ops::Value EagerEmitter::number_bits(int64_t bits, NumberKind kind,
                                     std::shared_ptr<const NumberSource> source) {
  Item item;
  item.bits = bits;
  item.kind = kind;
  item.source = std::move(source);
  item.type.number = true;
  item.type.dtype = kind == NumberKind::bool_     ? DType::bool_
                    : kind == NumberKind::integer ? DType::int64
                                                  : DType::float64;
  items_.push_back(std::move(item));
  return {static_cast<int32_t>(items_.size()) - 1};
}

ops::Value EagerEmitter::count(ops::Value v, const Dims& axes) {
  const Dims& sizes = type(v).sizes;
  int64_t n = axes.empty() ? tandem::numel(sizes) : 1;
  for (const int64_t a : axes) n *= sizes[normalize_axis(a, sizes.rank(), "count", location)];
  return number(static_cast<double>(n));
}

ops::Value EagerEmitter::number_op(ops::ScalarOp op, ops::Value a, ops::Value b) {
  const auto value = [&](ops::Value v) {
    const Item& item = at(v);
    return item.kind == NumberKind::floating ? std::bit_cast<double>(item.bits)
                                             : static_cast<double>(item.bits);
  };
  const double result = ops::number_arithmetic(op, value(a), b ? value(b) : 0);
  std::shared_ptr<NumberSource> source;
  if (at(a).source || (b && at(b).source)) {
    const auto operand = [&](ops::Value v) {
      if (!v || at(v).source) return v ? at(v).source : nullptr;
      auto constant = std::make_shared<NumberSource>();
      constant->constant = value(v);
      return std::shared_ptr<const NumberSource>(std::move(constant));
    };
    source = std::make_shared<NumberSource>();
    source->op = op;
    source->a = operand(a);
    source->b = operand(b);
  }
  return number_bits(std::bit_cast<int64_t>(result), NumberKind::floating, std::move(source));
}

void EagerEmitter::emit(ops::OpId id, std::span<const ops::Value> in, ops::Words structural,
                        ops::Value* out) {
  const ops::OpDef& op = ops::def(id);
  if (id == ops::OpId::reshape && !viewable(*at(in[0]).tensor, listed(structural))) {
    ops::Value copied;
    emit(ops::OpId::clone, in, {}, &copied);
    return emit(id, {&copied, 1}, structural, out);
  }
  const size_t n_in = in.size() - static_cast<size_t>(op.n_numbers());
  std::vector<TensorImpl*> operands;
  std::vector<int64_t> words;
  std::vector<std::shared_ptr<const NumberSource>> sources;
  const auto push = [&](int64_t word, const std::shared_ptr<const NumberSource>& source = {}) {
    words.push_back(word);
    sources.push_back(source);
  };
  Call call{.op = id, .where = location};
  for (size_t i = 0; i < n_in; ++i) {
    operands.push_back(in[i] ? at(in[i]).tensor.get() : nullptr);
    if (in[i] && !operands.back()) {
      call.numbers |= 1u << i;
      push(static_cast<int64_t>(at(in[i]).kind));
      push(at(in[i]).bits, at(in[i]).source);
    }
  }
  // Words in declared order: structural ones from the caller, run-time ones from the numbers behind the
  // operands.
  size_t next_structural = 0, next_number = n_in;
  for (int k = 0; k < op.n_attrs; ++k) {
    if (op.attrs[k].run_time()) {
      const Item& item = at(in[next_number++]);
      const bool floating = op.attrs[k].type == ops::AttrType::floating;
      int64_t bits = item.bits;
      if (floating && item.kind != NumberKind::floating)
        bits = std::bit_cast<int64_t>(static_cast<double>(item.bits));
      if (!floating && item.kind == NumberKind::floating)
        bits = static_cast<int64_t>(std::bit_cast<double>(item.bits));
      push(bits, item.source);
    } else {
      const size_t n =
          op.attrs[k].type == ops::AttrType::list ? static_cast<size_t>(structural[next_structural]) + 1 : 1;
      for (size_t w = next_structural; w < next_structural + n; ++w) push(structural[w]);
      next_structural += n;
    }
  }
  call.n_in = static_cast<uint32_t>(operands.size());
  call.in = operands.data();
  call.n_words = static_cast<uint32_t>(words.size());
  call.words = words.data();
  call.sources = sources.data();
  Ref<TensorImpl> results[ops::kMaxOutputs];
  call_into(call, results);
  for (int j = 0; j < op.n_out; ++j) {
    out[j] = add(std::move(results[j]));
    items_.back().view = op.kind == ops::OpKind::view;
  }
}

}  // namespace tandem::eager
