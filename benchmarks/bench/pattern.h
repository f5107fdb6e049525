// Numbers that every contestant can make for itself, so that all begin with the same weights and batches: a
// hash of the element's index and a seed. Plain functions; any thread. The peers hold the same few lines.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace bench {

/// Mixes the bits of a 32-bit word (multiplications by odd constants and shifts: a bijection).
inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du;
  x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ x >> 16;
}
/// The word of element `i` under a seed.
inline uint32_t word(int64_t i, uint32_t seed) {
  return mixed(static_cast<uint32_t>(i) + seed * 0x9e3779b9u);
}
/// Uniform in [-scale, scale), on a grid of 2^-23 times scale.
inline float value(int64_t i, uint32_t seed, double scale) {
  return static_cast<float>(((word(i, seed) >> 8) * 0x1p-23 - 1) * scale);
}
inline std::vector<float> values(int64_t n, uint32_t seed, double scale) {
  std::vector<float> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = value(i, seed, scale);
  return v;
}
/// In [0, classes).
inline std::vector<int64_t> labels(int64_t n, uint32_t seed, uint32_t classes) {
  std::vector<int64_t> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = word(i, seed) % classes;
  return v;
}

// A parameter of two or more axes is uniform up to 1 / sqrt(elements per output), times the recipe's gain.
// One without axes, and one of one axis whose name ends in "weight", is 1; one whose name holds "bias", 0;
// another of one axis is uniform in [-1, 1). The k-th of named_parameters() has the seed k + 1.
inline double weight_scale(int64_t elements, int64_t outputs) {
  return std::sqrt(static_cast<double>(outputs) / static_cast<double>(elements));
}
// Batch r of a ring of kBatches: its first tensor has the seed kInputs + r, the second, labels, kLabels + r,
// and so on.
inline constexpr uint32_t kInputs = 1000, kLabels = 2000;
inline constexpr int kBatches = 4;
inline uint32_t batch_seed(size_t tensor, uint32_t r) {
  return kInputs + static_cast<uint32_t>(tensor) * (kLabels - kInputs) + r;
}
/// Steps whose losses are compared, and a learning rate for the timed ones, at which nothing converges (and
/// no moment becomes denormal).
inline constexpr int kGateSteps = 20;
inline constexpr double kTimedLr = 1e-7;
/// Whether the gradients of step `i` of the gate are compared, too: those of the first, and, of small
/// networks in float32, of the first one that a frozen function takes. Later on rounding has led to other
/// weights, with halves and over few images at once. A part of the answer is a parameter's: its norm, and
/// samples times the root of its elements' number, so that these weigh as much.
inline constexpr bool compares_gradients(int64_t i, bool small_and_exact) {
  return i == 0 || (i == 2 && small_and_exact);
}
/// Sampled elements of a large result that are compared.
inline constexpr int64_t kSamples = 64;
inline int64_t sample(int64_t i, int64_t n) { return i * (n / kSamples) + i % (n / kSamples); }

}  // namespace bench
