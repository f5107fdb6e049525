// Attribute words: where an attribute stands among structural words or numbers, and how a call's words split.
// Lists are the last attributes of their op, so every other attribute stands at a fixed place.
#include "tandem/core/error.h"
#include "tandem/ops/emitter.h"

namespace tandem::ops {

namespace {

int64_t integer_word(const OpDef& op, Words words, int attr) {
  const auto at = static_cast<size_t>(op.structural_index(attr));
  TANDEM_INTERNAL(at < words.size(),
                  std::string(op.name) + ": the word of attribute " + op.attrs[attr].name + " is missing");
  return words[at];
}

Dims list_words(const OpDef& op, Words words, int attr) {
  int first = attr;
  while (first > 0 && op.attrs[first - 1].type == AttrType::list) --first;
  auto at = static_cast<size_t>(op.structural_index(first));
  for (int k = first;; ++k) {
    const bool counted = at < words.size() && words[at] >= 0;
    TANDEM_INTERNAL(
        counted && at + 1 + static_cast<size_t>(words[at]) <= words.size(),
        std::string(op.name) + ": the list " + op.attrs[k].name + " is longer than the words given");
    if (k == attr) return Dims(words.data() + at + 1, words[at]);
    at += 1 + static_cast<size_t>(words[at]);
  }
}

Value number_operand(const OpDef& op, std::span<const Value> operands, int attr) {
  const size_t first = operands.size() - static_cast<size_t>(op.n_numbers());
  return operands[first + static_cast<size_t>(op.number_index(attr))];
}

/// Calls `visit(word, run_time)` for each attribute word in declared order.
template <class Visit>
void walk_attributes(const OpDef& op, Words words, size_t at, Visit visit) {
  for (int k = 0; k < op.n_attrs; ++k) {
    size_t n = 1;
    if (op.attrs[k].type == AttrType::list) {
      TANDEM_INTERNAL(at < words.size() && words[at] >= 0,
                      std::string(op.name) + ": a list without its length");
      n += static_cast<size_t>(words[at]);
    }
    for (; n > 0; --n, ++at) visit(at, op.attrs[k].run_time());
  }
  TANDEM_INTERNAL(at == words.size(), std::string(op.name) + ": expected " + std::to_string(at) +
                                          " attribute words, found " + std::to_string(words.size()));
}

}  // namespace

int OpDef::n_numbers() const {
  int n = 0;
  for (int k = 0; k < n_attrs; ++k) n += attrs[k].run_time();
  return n;
}

int OpDef::structural_index(int attr) const {
  int n = 0;
  for (int k = 0; k < attr; ++k) n += !attrs[k].run_time();
  return n;
}

int OpDef::number_index(int attr) const { return attr - structural_index(attr); }

int64_t InferCall::integer(int attr) const { return integer_word(op, words, attr); }
Dims InferCall::list(int attr) const { return list_words(op, words, attr); }
int64_t Body::integer(int attr) const { return integer_word(op, words, attr); }
Dims Body::list(int attr) const { return list_words(op, words, attr); }
Value Body::number(int attr) const { return number_operand(op, operands, attr); }
int64_t Gradient::integer(int attr) const { return integer_word(op, words, attr); }
Dims Gradient::list(int attr) const { return list_words(op, words, attr); }
Value Gradient::number(int attr) const { return number_operand(op, operands, attr); }

SplitWords split_words(const OpDef& op, Words words, int n_number_operands) {
  SplitWords split;
  for (int i = 0; i < n_number_operands; ++i) split.run_time.push_back(2 * i + 1);
  walk_attributes(op, words, 2 * static_cast<size_t>(n_number_operands), [&](size_t at, bool run_time) {
    TANDEM_INTERNAL(at < words.size(), std::string(op.name) + ": attribute words are missing");
    if (run_time) {
      split.run_time.push_back(static_cast<int>(at));
    } else {
      split.structural.push_back(words[at]);
    }
  });
  return split;
}

uint64_t run_time_mask(const OpDef& op, int n_number_operands) {
  uint64_t mask = 0;
  for (int i = 0; i < n_number_operands; ++i) mask |= uint64_t{1} << (2 * i + 1);
  const int first = 2 * n_number_operands;
  for (int k = 0; k < op.n_attrs; ++k)  // lists are last, so attribute k is word first + k
    if (op.attrs[k].run_time()) mask |= uint64_t{1} << (first + k);
  return mask;
}

Dims normalize_axes(const Dims& listed, int rank, const char* op, Location where) {
  bool chosen[kMaxRank] = {};
  for (const int64_t axis : listed) {
    const int a = normalize_axis(axis, rank, op, where);
    if (chosen[a])
      fail(std::string(op) + ": axis " + std::to_string(axis) + " is listed twice in " + to_string(listed),
           where);
    chosen[a] = true;
  }
  Dims axes;
  for (int a = 0; a < rank; ++a)
    if (listed.empty() || chosen[a]) axes.push_back(a);
  return axes;
}

}  // namespace tandem::ops
