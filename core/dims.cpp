#include "tandem/core/dims.h"

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem {

namespace {
[[gnu::cold]] std::string overflow_text(const char* what, int64_t a, char op, int64_t b) {
  return std::string(what) + " overflows: " + std::to_string(a) + ' ' + op + ' ' + std::to_string(b) +
         " does not fit into 64 bits";
}
}  // namespace

void Dims::fail_rank(int64_t n, Location where) {
  fail("rank " + std::to_string(n) + " is too high; at most " + std::to_string(kMaxRank) + " dimensions",
       where);
}

std::string to_string(const Dims& d) {
  std::string text = "(";
  for (int i = 0; i < d.rank(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(d[i]);
  }
  if (d.rank() == 1) text += ',';
  return text + ')';
}

int64_t checked_mul(int64_t a, int64_t b, const char* what, Location where) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) [[unlikely]]
    fail(overflow_text(what, a, '*', b), where);
  return result;
}

int64_t checked_add(int64_t a, int64_t b, const char* what, Location where) {
  int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) [[unlikely]]
    fail(overflow_text(what, a, '+', b), where);
  return result;
}

int64_t checked_numel(const Dims& sizes, Location where) {
  // Zeros are left out of the product until the end, so that the strides of an empty tensor cannot overflow
  // either.
  int64_t product = 1;
  bool empty = false;
  for (const int64_t size : sizes) {
    if (size < 0) fail("negative size " + std::to_string(size) + " in shape " + to_string(sizes), where);
    empty = empty || size == 0;
    if (size != 0 && __builtin_mul_overflow(product, size, &product))
      fail("size overflows: shape " + to_string(sizes) + " has more elements than fit into 64 bits", where);
  }
  return empty ? 0 : product;
}

int64_t numel(const Dims& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

Dims contiguous_strides(const Dims& sizes) {
  Dims strides = sizes;
  int64_t step = 1;
  for (int i = sizes.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

bool is_contiguous(const Dims& sizes, const Dims& strides) {
  int64_t step = 1;
  bool contiguous = true;
  for (int i = sizes.rank() - 1; i >= 0; --i) {
    if (sizes[i] == 0) return true;
    contiguous = contiguous && (sizes[i] == 1 || strides[i] == step);
    step *= sizes[i];
  }
  return contiguous;
}

// Old axes are merged into runs that lie without gaps in memory; the new axes must cut each run evenly. Axes
// of size 1 have no stride worth keeping.
bool reshape_strides(const Dims& sizes, const Dims& strides, const Dims& wanted, Dims& out) {
  out = contiguous_strides(wanted);
  if (is_contiguous(sizes, strides)) return true;
  int next = wanted.rank() - 1;
  for (int i = sizes.rank() - 1; i >= 0;) {
    if (sizes[i] == 1) {
      --i;
      continue;
    }
    int64_t run = sizes[i];
    const int64_t step = strides[i];
    for (--i; i >= 0; --i) {
      if (sizes[i] == 1) continue;
      if (strides[i] != run * step) break;
      run *= sizes[i];
    }
    int64_t covered = 1;
    for (; next >= 0 && covered < run; --next) {
      out[next] = covered * step;
      covered *= wanted[next];
    }
    if (covered != run) return false;
  }
  return true;
}

Dims broadcast(const Dims& a, const Dims& b, const char* op, Location where) {
  const Dims& longer = a.rank() >= b.rank() ? a : b;
  const Dims& shorter = a.rank() >= b.rank() ? b : a;
  const int skipped = longer.rank() - shorter.rank();
  Dims result = longer;
  for (int i = 0; i < shorter.rank(); ++i) {
    const int64_t x = longer[skipped + i];
    const int64_t y = shorter[i];
    if (x == y || y == 1) continue;
    if (x != 1)
      fail(std::string(op) + ": shapes do not broadcast: " + to_string(a) + " and " + to_string(b), where);
    result[skipped + i] = y;
  }
  return result;
}

void fail_axis(int64_t axis, int limit, int rank, const char* op, Location where) {
  fail(std::string(op) + ": axis " + std::to_string(axis) + " is out of range for rank " +
           std::to_string(rank) + "; expected " + std::to_string(-limit) + " to " + std::to_string(limit - 1),
       where);
}

}  // namespace tandem
