// Sequences of different lengths as one tensor without padding, in PyTorch's layout and with its names.
// Lengths and orders are the host's; in a traced call each set of lengths is a path of its own. Values; any
// thread.
#pragma once

#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem::nn::utils::rnn {

/// The first steps of all sequences, then the second ones of those that have one, and so on: data (sum of the
/// lengths, ...), sequences by falling length. batch_sizes (T): how many have a step t. sorted_indices (N):
/// which of the sequences given is n-th, unsorted_indices the reverse; undefined if they were given in order.
/// The last three are int64 on the host.
struct PackedSequence {
  Tensor data, batch_sizes, sorted_indices, unsorted_indices;
};

/// Of x (T, N, ...), or (N, T, ...) with batch_first, and lengths (N), which are read on the host. Errors: a
/// length below 1 or above T; lengths that rise, unless enforce_sorted is off.
PackedSequence pack_padded_sequence(const Tensor& x, const Tensor& lengths, bool batch_first = false,
                                    bool enforce_sorted = true, Location where = Location::here());
/// Back to (T, N, ...), or (N, T, ...), in the order in which the sequences were given, and their lengths
/// (N), int64 on the host. T is the longest length, or total_length.
std::pair<Tensor, Tensor> pad_packed_sequence(const PackedSequence& sequence, bool batch_first = false,
                                              double padding_value = 0,
                                              std::optional<int64_t> total_length = {},
                                              Location where = Location::here());
/// Of tensors (length, ...) that agree but for their lengths.
PackedSequence pack_sequence(const std::vector<Tensor>& sequences, bool enforce_sorted = true,
                             Location where = Location::here());
/// The same, of which any may be empty, padded to the longest: (T, N, ...), or (N, T, ...).
Tensor pad_sequence(const std::vector<Tensor>& sequences, bool batch_first = false, double padding_value = 0,
                    Location where = Location::here());
/// x (T, N, ...), or (N, T, ...), packed as `like` is; T and N are those of its padded form.
PackedSequence packed_like(const PackedSequence& like, const Tensor& x, bool batch_first = false,
                           Location where = Location::here());

}  // namespace tandem::nn::utils::rnn

namespace tandem::nn {
using utils::rnn::PackedSequence;
}
