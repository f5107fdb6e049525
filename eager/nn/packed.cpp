// Packing is a look-up of rows at positions that the host computes from the lengths, padding its reverse.
#include "tandem/eager/nn/packed.h"

#include <algorithm>
#include <numeric>

#include "tandem/eager/functions.h"

namespace tandem::nn::utils::rnn {

namespace {

using Numbers = std::vector<int64_t>;

/// What the host knows of a packed sequence: the lengths of the sequences as given, and their order.
struct Layout {
  Numbers lengths, order;
  int64_t steps() const { return lengths[static_cast<size_t>(order[0])]; }
  auto batch() const { return static_cast<int64_t>(lengths.size()); }
};

Tensor on_host(const Numbers& values, Location where) {
  return tensor(std::span<const int64_t>(values), {static_cast<int64_t>(values.size())},
                {.dtype = int64, .device = cpu}, where);
}

Layout layout_of(Numbers lengths, bool enforce_sorted, const char* op, Location where) {
  if (lengths.empty()) fail(std::string(op) + ": at least one sequence is needed", where);
  for (const int64_t n : lengths)
    if (n < 1) fail(std::string(op) + ": lengths must be at least 1, found " + std::to_string(n), where);
  Numbers order(lengths.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto longer = [&](int64_t a, int64_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  };
  if (!enforce_sorted)
    std::stable_sort(order.begin(), order.end(), longer);
  else if (!std::is_sorted(order.begin(), order.end(), longer))
    fail(std::string(op) + ": lengths must not rise; pass enforce_sorted = false to have them sorted", where);
  return {std::move(lengths), std::move(order)};
}

Layout layout_of(const PackedSequence& p, Location where) {
  const Numbers sizes = p.batch_sizes.to_vector<int64_t>(where);
  int64_t steps = 0;
  for (size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] < 1 || (t > 0 && sizes[t] > sizes[t - 1]))
      fail("PackedSequence: batch_sizes must be positive and not rise, found " + std::to_string(sizes[t]) +
               " at step " + std::to_string(t),
           where);
    steps = checked_add(steps, sizes[t], "PackedSequence: sum of batch_sizes", where);
  }
  if (steps == 0 || steps != p.data.size(0, where))
    fail("PackedSequence: batch_sizes do not make up data of shape " + to_string(p.data.sizes(where)), where);
  const auto n = static_cast<size_t>(sizes[0]);
  Layout l;
  l.order.resize(n);
  std::iota(l.order.begin(), l.order.end(), int64_t{0});
  if (p.sorted_indices.defined()) {
    const Numbers every = l.order;
    l.order = p.sorted_indices.to_vector<int64_t>(where);
    Numbers rising = l.order;
    std::sort(rising.begin(), rising.end());
    if (rising != every)
      fail("PackedSequence: sorted_indices must hold each of 0 to " + std::to_string(n - 1) +
               " once, found " + to_string(p.sorted_indices.sizes()),
           where);
  }
  l.lengths.resize(n);
  for (const int64_t size : sizes)
    for (size_t i = 0; i < static_cast<size_t>(size); ++i) ++l.lengths[static_cast<size_t>(l.order[i])];
  return l;
}

/// `row(t, n)` of each step t of sequence n, in packed order.
template <class Row>
Numbers rows(const Layout& l, Row row) {
  Numbers all;
  for (int64_t t = 0; t < l.steps(); ++t)
    for (const int64_t n : l.order)
      if (t < l.lengths[static_cast<size_t>(n)]) all.push_back(row(t, n));
  return all;
}

PackedSequence packed(const Layout& l, const Tensor& table, const Numbers& at, bool sorted, Location where) {
  PackedSequence p;
  p.data = table.index_select(0, on_host(at, where).to(table.device(), where), where);
  Numbers sizes(static_cast<size_t>(l.steps()));
  for (const int64_t length : l.lengths)
    for (int64_t t = 0; t < length; ++t) ++sizes[static_cast<size_t>(t)];
  p.batch_sizes = on_host(sizes, where);
  if (sorted) return p;
  Numbers back(l.order.size());
  for (size_t i = 0; i < l.order.size(); ++i) back[static_cast<size_t>(l.order[i])] = static_cast<int64_t>(i);
  p.sorted_indices = on_host(l.order, where);
  p.unsorted_indices = on_host(back, where);
  return p;
}

/// x as (T * N, ...).
Tensor table_of(const Tensor& x, bool batch_first, Location where) {
  return (batch_first ? x.transpose(0, 1, where) : x).flatten(0, 1, where);
}

/// The rows of `data` at positions `at` of (T * N, ...).
Tensor padded(const Tensor& data, const Numbers& at, int64_t steps, int64_t batch, bool batch_first,
              double padding_value, Location where) {
  Dims flat = data.sizes();
  flat[0] = checked_mul(steps, batch, "padded sequences: size", where);
  const Tensor none = full(flat, padding_value, {.dtype = data.dtype(), .device = data.device()}, where);
  Dims sizes = flat;
  sizes[0] = batch;
  sizes.insert(0, steps);
  const Tensor out =
      none.index_copy(0, on_host(at, where).to(data.device(), where), data, where).reshape(sizes, where);
  return batch_first ? out.transpose(0, 1, where) : out;
}

/// The sequences one after another, and where each begins.
std::pair<Tensor, Numbers> joined(const std::vector<Tensor>& sequences, Numbers& lengths, const char* op,
                                  Location where) {
  Numbers starts;
  int64_t total = 0;
  for (const Tensor& s : sequences) {
    if (s.dim(where) == 0) fail(std::string(op) + ": a sequence has no axis", where);
    starts.push_back(total);
    lengths.push_back(s.size(0));
    total += s.size(0);
  }
  if (sequences.empty()) fail(std::string(op) + ": at least one sequence is needed", where);
  return {cat(sequences, 0, where), starts};
}

}  // namespace

PackedSequence pack_padded_sequence(const Tensor& x, const Tensor& lengths, bool batch_first,
                                    bool enforce_sorted, Location where) {
  const char* op = "pack_padded_sequence";
  if (x.dim(where) < 2)
    fail(std::string(op) + ": x must have axes for steps and sequences, found shape " + to_string(x.sizes()),
         where);
  const int64_t steps = x.size(batch_first ? 1 : 0), batch = x.size(batch_first ? 0 : 1);
  if (lengths.sizes(where) != Dims{batch} || is_floating(lengths.dtype()))
    fail(std::string(op) + ": lengths must be integers of shape " + to_string(Dims{batch}) + ", found " +
             name(lengths.dtype()) + to_string(lengths.sizes()),
         where);
  const Layout l = layout_of(lengths.to_vector<int64_t>(where), enforce_sorted, op, where);
  if (l.steps() > steps)
    fail(std::string(op) + ": a length of " + std::to_string(l.steps()) + " for " + std::to_string(steps) +
             " steps",
         where);
  const Numbers at = rows(l, [&](int64_t t, int64_t n) { return t * batch + n; });
  return packed(l, table_of(x, batch_first, where), at, enforce_sorted, where);
}

std::pair<Tensor, Tensor> pad_packed_sequence(const PackedSequence& sequence, bool batch_first,
                                              double padding_value, std::optional<int64_t> total_length,
                                              Location where) {
  const Layout l = layout_of(sequence, where);
  if (total_length && *total_length < l.steps())
    fail("pad_packed_sequence: total_length " + std::to_string(*total_length) +
             " is below the longest sequence, " + std::to_string(l.steps()),
         where);
  const int64_t steps = total_length.value_or(l.steps());
  const Numbers at = rows(l, [&](int64_t t, int64_t n) { return t * l.batch() + n; });
  return {padded(sequence.data, at, steps, l.batch(), batch_first, padding_value, where),
          on_host(l.lengths, where)};
}

PackedSequence pack_sequence(const std::vector<Tensor>& sequences, bool enforce_sorted, Location where) {
  Numbers lengths;
  const auto [table, starts] = joined(sequences, lengths, "pack_sequence", where);
  const Layout l = layout_of(std::move(lengths), enforce_sorted, "pack_sequence", where);
  const Numbers& from = starts;
  const Numbers at = rows(l, [&](int64_t t, int64_t n) { return from[static_cast<size_t>(n)] + t; });
  return packed(l, table, at, enforce_sorted, where);
}

Tensor pad_sequence(const std::vector<Tensor>& sequences, bool batch_first, double padding_value,
                    Location where) {
  Numbers lengths, at;
  const auto [table, starts] = joined(sequences, lengths, "pad_sequence", where);
  const auto batch = static_cast<int64_t>(lengths.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t t = 0; t < lengths[static_cast<size_t>(n)]; ++t) at.push_back(t * batch + n);
  const int64_t steps = *std::max_element(lengths.begin(), lengths.end());
  return padded(table, at, steps, batch, batch_first, padding_value, where);
}

PackedSequence packed_like(const PackedSequence& like, const Tensor& x, bool batch_first, Location where) {
  const Layout l = layout_of(like, where);
  const Dims wanted = batch_first ? Dims{l.batch(), l.steps()} : Dims{l.steps(), l.batch()};
  if (x.dim(where) < 2 || x.size(0) != wanted[0] || x.size(1) != wanted[1])
    fail("packed_like: x must begin with the sizes " + to_string(wanted) + " of the padded sequence, found " +
             to_string(x.sizes()),
         where);
  const Numbers at = rows(l, [&](int64_t t, int64_t n) { return t * l.batch() + n; });
  PackedSequence p = like;
  const Tensor table = table_of(x, batch_first, where);
  p.data = table.index_select(0, on_host(at, where).to(table.device(), where), where);
  return p;
}

}  // namespace tandem::nn::utils::rnn
