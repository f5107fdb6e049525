#include "tandem/jit/contraction.h"

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem::jit {

using ops::Layout;

namespace {
/// One stride for the axes [0, count) of `l` walked in order; false if there is none.
bool fold(const Layout& l, int count, int64_t& size, int64_t& stride) {
  stride = 0;
  size = numel(Dims(l.sizes.data(), count));
  if (numel(l.sizes) == 0) return true;  // nothing is read
  int64_t walked = 1;
  for (int d = count - 1; d >= 0; --d) {
    if (l.sizes[d] == 1) continue;
    if (walked == 1)
      stride = l.strides[d];
    else if (l.strides[d] != stride * walked)
      return false;
    walked *= l.sizes[d];
  }
  return true;
}
}  // namespace

MatrixPlace matrix_place(const Contraction& c, int64_t outer_index) {
  MatrixPlace p;
  for (int d = c.outer.rank() - 1; d >= 0; --d) {
    const int64_t at = outer_index % c.outer[d];
    outer_index /= c.outer[d];
    p.a += at * c.a_outer[d];
    p.b += at * c.b_outer[d];
    p.c += at * c.c_outer[d];
  }
  return p;
}

// As many rows as leave a block of C in the second-level cache, but enough blocks for the threads; twelve is
// a multiple of every tile's rows.
RowBlocks::RowBlocks(const Contraction& contraction, int threads) : c(&contraction) {
  constexpr int64_t kBlockBytes = 256 << 10, kTile = 12, kLeast = 2 * kTile;
  const ops::ProductCall& s = c->call;
  const int64_t matrices = numel(c->outer) * s.batch,
                row_bytes = std::max<int64_t>(1, s.n) * itemsize(s.dtype);
  rows = std::max(kLeast, kBlockBytes / row_bytes / kTile * kTile);
  if (threads > 1 && matrices > 0) {
    const int64_t wanted = (4 * threads + matrices - 1) / matrices;  // of a matrix
    rows = std::min(rows, std::max(kLeast, (s.m / wanted + kTile - 1) / kTile * kTile));
  }
  rows = std::clamp<int64_t>(s.m, 1, rows);
  per_matrix = (s.m + rows - 1) / rows;
  count = matrices * per_matrix;
}

int64_t RowBlocks::rows_in(int64_t i) const { return std::min(rows, c->call.m - i % per_matrix * rows); }

ops::ProductCall RowBlocks::part(int64_t matrix, int64_t row, int64_t n, ops::ProductCall whole) const {
  const int64_t batch = matrix % whole.batch;
  const MatrixPlace outer = matrix_place(*c, matrix / whole.batch);
  const int64_t size = itemsize(whole.dtype);
  whole.a = static_cast<const char*>(whole.a) + (outer.a + batch * whole.a_batch + row * whole.a_row) * size;
  whole.b = static_cast<const char*>(whole.b) + (outer.b + batch * whole.b_batch) * size;
  whole.c = static_cast<char*>(whole.c) + (outer.c + batch * whole.c_batch + row * whole.c_row) * size;
  whole.batch = 1;
  whole.m = n;
  return whole;
}

int plan_contraction(OpId op, ops::Words words, const Layout& a, const Layout& b, const Layout* bias,
                     DType dtype, Contraction& result, const Layout* to) {
  TANDEM_INTERNAL(op == OpId::matmul || op == OpId::linear, "a contraction that the planner does not know");
  result = {};
  ops::ProductCall& c = result.call;
  c.dtype = dtype;
  c.tf32 = words[0] != 0;
  const int ra = a.sizes.rank(), rb = b.sizes.rank();
  c.k = a.sizes[ra - 1];
  c.a_col = a.strides[ra - 1];
  if (op == OpId::linear) {
    c.n = b.sizes[0];
    c.b_row = b.strides[1];
    c.b_col = b.strides[0];
    if (bias) c.bias_stride = bias->strides[0];
  } else if (rb == 1) {
    c.n = 1;
    c.b_row = b.strides[0];
  } else {
    c.n = b.sizes[rb - 1];
    c.b_row = b.strides[rb - 2];
    c.b_col = b.strides[rb - 1];
  }
  c.c_col = 1;
  c.c_row = c.n;
  if (to && (ra < 2 || rb < 2)) return 2;
  if (to) c.c_col = to->strides[to->sizes.rank() - 1];

  if (rb <= 2) {  // all rows of a, whatever its rank, are one matrix
    if (!fold(a, ra - 1, c.m, c.a_row)) return 0;
    if (to && !fold(*to, ra - 1, c.m, c.c_row)) return 2;
    result.provider = ops::choose_provider(c);
    return -1;
  }

  c.m = ra == 1 ? 1 : a.sizes[ra - 2];
  if (ra > 1) c.a_row = a.strides[ra - 2];
  const int batch_rank = std::max(ra, rb) - 2;
  c.c_batch = c.m * c.n;
  if (to) c.c_row = to->strides[to->sizes.rank() - 2];
  struct Run {
    int64_t size, a, b, c;
  };
  std::vector<Run> runs;  // innermost first
  int64_t c_stride = c.c_batch;
  for (int d = 1; d <= batch_rank; ++d) {
    const auto axis = [&](const Layout& l, int64_t& size, int64_t& stride) {
      const int i = l.sizes.rank() - 2 - d;
      size = i < 0 ? 1 : l.sizes[i];
      stride = size == 1 ? 0 : l.strides[i];
    };
    int64_t sa, sb, ta, tb;
    axis(a, sa, ta);
    axis(b, sb, tb);
    const int64_t size = sa == 1 ? sb : sa;
    const int64_t tc = to ? to->strides[to->sizes.rank() - 2 - d] : c_stride;
    if (size != 1) {
      Run* last = runs.empty() ? nullptr : &runs.back();
      if (last && ta == last->a * last->size && tb == last->b * last->size && tc == last->c * last->size)
        last->size *= size;
      else
        runs.push_back({size, ta, tb, tc});
    }
    c_stride *= size;
  }
  // Batches that share a matrix are more rows of one product.
  while (!runs.empty() && runs[0].b == 0 &&
         (c.m == 1 || (runs[0].a == c.m * c.a_row && runs[0].c == c.m * c.c_row))) {
    if (c.m == 1) c.a_row = runs[0].a, c.c_row = runs[0].c;
    c.m *= runs[0].size;
    runs.erase(runs.begin());
  }
  c.batch = 1;
  for (const Run& r : runs) c.batch *= r.size;
  result.provider = ops::choose_provider(c);
  if (!runs.empty()) {
    c.batch = runs[0].size;
    c.a_batch = runs[0].a;
    c.b_batch = runs[0].b;
    c.c_batch = runs[0].c;
  }
  for (size_t i = runs.size(); i-- > 1;) {
    result.outer.push_back(runs[i].size);
    result.a_outer.push_back(runs[i].a);
    result.b_outer.push_back(runs[i].b);
    result.c_outer.push_back(runs[i].c);
  }
  return -1;
}

}  // namespace tandem::jit
