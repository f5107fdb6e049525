#include "tandem/io/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tandem/eager/functions.h"

namespace tandem::io {

namespace {

constexpr double kFirst = 1e-12, kLast = 1e20, kRatio = 1.1;

/// The i for which limits[i] <= value < limits[i + 1]. A logarithm comes within a bin or two of it; a search
/// would take six times as long, and a model's weights are many.
size_t bin_of(double value, const std::vector<double>& limits) {
  static const double scale = 1 / std::log(kRatio), first = std::log(kFirst);
  const auto zero = static_cast<int64_t>(limits.size() / 2);
  const double magnitude = std::abs(value);
  int64_t i = zero;
  if (magnitude >= kFirst) {
    const auto steps = static_cast<int64_t>((std::log(magnitude) - first) * scale) + 1;
    i = value > 0 ? zero + steps : zero - steps;
  }
  i = std::clamp<int64_t>(i, 0, static_cast<int64_t>(limits.size()) - 2);
  while (i > 0 && value < limits[static_cast<size_t>(i)]) --i;
  while (i + 2 < static_cast<int64_t>(limits.size()) && value >= limits[static_cast<size_t>(i) + 1]) ++i;
  return static_cast<size_t>(i);
}

template <class T>
Histogram histogram_of(std::span<const T> values) {
  const std::vector<double>& limits = histogram_limits();
  std::vector<double> counts(limits.size() - 1);
  Histogram h;
  h.min = std::numeric_limits<double>::infinity(), h.max = -h.min;
  for (const T element : values) {
    const auto v = static_cast<double>(element);
    if (!std::isfinite(v)) {
      ++h.not_finite;
      continue;
    }
    ++h.count;
    h.min = std::min(h.min, v), h.max = std::max(h.max, v);
    h.sum += v, h.sum_squares += v * v;
    ++counts[bin_of(v, limits)];
  }
  if (h.count == 0) return h.min = h.max = 0, h;
  // A bin is written under its upper limit alone, so an empty one before the first tells where that begins.
  const auto filled = [](double n) { return n > 0; };
  const auto first = std::find_if(counts.begin(), counts.end(), filled) - counts.begin();
  const auto end = counts.rend() - std::find_if(counts.rbegin(), counts.rend(), filled);
  h.limits.assign(limits.begin() + first, limits.begin() + end + 1);
  h.counts.assign(1, 0);
  h.counts.insert(h.counts.end(), counts.begin() + first, counts.begin() + end);
  return h;
}

}  // namespace

const std::vector<double>& histogram_limits() {
  static const std::vector<double> all = [] {
    std::vector<double> positive;
    for (double v = kFirst; v < kLast; v *= kRatio) positive.push_back(v);
    positive.push_back(std::numeric_limits<double>::max());
    std::vector<double> limits;
    for (auto v = positive.rbegin(); v != positive.rend(); ++v) limits.push_back(-*v);
    limits.push_back(0);
    limits.insert(limits.end(), positive.begin(), positive.end());
    return limits;
  }();
  return all;
}

Histogram histogram(const Tensor& values, Location where) {
  const DType dtype = values.dtype(where);
  // float32 holds the halves, and a model's weights take half the memory in it.
  if (dtype == DType::float32 || dtype == DType::float16 || dtype == DType::bfloat16)
    return histogram_of<float>(values.to_vector<float>(where));
  return histogram_of<double>(values.to_vector<double>(where));
}

}  // namespace tandem::io
