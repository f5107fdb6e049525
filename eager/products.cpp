// Products of fixed ranks, and einsum: each pair of operands becomes one batched product of (batch, rows,
// inner) and (batch, inner, columns), whatever its letters. The axes of "..." have digits for letters, the
// last one the last of kDigits.
#include <algorithm>
#include <cmath>
#include <map>

#include "tandem/eager/arrange.h"
#include "tandem/eager/call.h"

namespace tandem {

namespace {

void need_ranks(const char* op, const Tensor& a, int rank_a, const Tensor& b, int rank_b, Location where) {
  if (a.dim(where) != rank_a || b.dim(where) != rank_b)
    fail(std::string(op) + ": operands of rank " + std::to_string(rank_a) + " and " + std::to_string(rank_b) +
             " are needed, found " + to_string(a.sizes()) + " and " + to_string(b.sizes()) +
             "; matmul takes any",
         where);
}

/// Whole factors leave integers what they are.
Tensor times(const Tensor& t, double factor, Location where) {
  const bool whole = std::trunc(factor) == factor && std::abs(factor) <= 0x1p53;
  if (!is_floating(t.dtype()) && whole)
    return mul(Operand(t, where), Operand(static_cast<int64_t>(factor), where));
  return mul(Operand(t, where), Operand(factor, where));
}

Tensor weighed_sum(const Tensor& c, const Tensor& product, double beta, double alpha, Location where) {
  const Tensor scaled = alpha == 1 ? product : times(product, alpha, where);
  if (beta == 0) return scaled;  // what c holds does not count, as in PyTorch
  const Tensor kept = beta == 1 ? c : times(c, beta, where);
  return add(Operand(kept, where), Operand(scaled, where));
}

}  // namespace

Tensor mm(const Tensor& a, const Tensor& b, Location where) {
  need_ranks("mm", a, 2, b, 2, where);
  return matmul(a, b, where);
}
Tensor bmm(const Tensor& a, const Tensor& b, Location where) {
  need_ranks("bmm", a, 3, b, 3, where);
  if (a.size(0) != b.size(0))
    fail("bmm: batch sizes differ: " + to_string(a.sizes()) + " x " + to_string(b.sizes()), where);
  return matmul(a, b, where);
}
Tensor mv(const Tensor& a, const Tensor& b, Location where) {
  need_ranks("mv", a, 2, b, 1, where);
  return matmul(a, b, where);
}
Tensor dot(const Tensor& a, const Tensor& b, Location where) {
  need_ranks("dot", a, 1, b, 1, where);
  return matmul(a, b, where);
}
Tensor outer(const Tensor& a, const Tensor& b, Location where) {
  need_ranks("outer", a, 1, b, 1, where);
  return mul(Operand(a.unsqueeze(1, where), where), Operand(b, where));
}
Tensor addmm(const Tensor& c, const Tensor& a, const Tensor& b, double beta, double alpha, Location where) {
  need_ranks("addmm", a, 2, b, 2, where);
  return weighed_sum(c, matmul(a, b, where), beta, alpha, where);
}
Tensor baddbmm(const Tensor& c, const Tensor& a, const Tensor& b, double beta, double alpha, Location where) {
  return weighed_sum(c, bmm(a, b, where), beta, alpha, where);
}

Tensor tensordot(const Tensor& a, const Tensor& b, int64_t axes, Location where) {
  if (axes < 0 || axes > a.dim(where) || axes > b.dim(where))
    fail("tensordot: cannot sum over " + std::to_string(axes) + " axes of " + to_string(a.sizes()) + " and " +
             to_string(b.sizes()),
         where);
  Dims last, first;
  for (int64_t i = 0; i < axes; ++i) last.push_back(a.dim() - axes + i), first.push_back(i);
  return tensordot(a, b, last, first, where);
}

Tensor tensordot(const Tensor& a, const Tensor& b, const Dims& axes_a, const Dims& axes_b, Location where) {
  if (axes_a.rank() != axes_b.rank())
    fail("tensordot: axes " + to_string(axes_a) + " and " + to_string(axes_b) + " must be as many", where);
  int64_t summed = 1;
  // The others in their order, then those summed, as a matrix; `left` takes the sizes of the others.
  const auto matrix = [&](const Tensor& t, const Dims& axes, Dims& left) {
    Dims order, ends;
    for (const int64_t axis : axes) {
      const int at = normalize_axis(axis, t.dim(where), "tensordot", where);
      for (const int64_t other : ends)
        if (other == at) fail("tensordot: axis " + std::to_string(at) + " is listed twice", where);
      ends.push_back(at);
    }
    int64_t rows = 1;
    summed = 1;
    for (int i = 0; i < t.dim(); ++i) {
      bool ends_here = false;
      for (const int64_t end : ends) ends_here = ends_here || end == i;
      if (ends_here) continue;
      order.push_back(i), left.push_back(t.size(i));
      rows *= t.size(i);
    }
    for (const int64_t end : ends) order.push_back(end), summed *= t.size(end);
    return t.permute(order, where).reshape({rows, summed}, where);
  };
  for (int i = 0; i < axes_a.rank(); ++i)
    if (a.size(axes_a[i], where) != b.size(axes_b[i], where))
      fail("tensordot: axis " + std::to_string(axes_a[i]) + " of " + to_string(a.sizes()) + " and axis " +
               std::to_string(axes_b[i]) + " of " + to_string(b.sizes()) + " differ",
           where);
  Dims sizes;
  const Tensor rows = matrix(a, axes_a, sizes), columns = matrix(b, axes_b, sizes);
  return matmul(rows, columns.t(where), where).reshape(sizes, where);
}

Tensor kron(const Tensor& a, const Tensor& b, Location where) {
  const int rank = std::max(a.dim(where), b.dim(where));
  if (2 * rank > kMaxRank)
    fail("kron: at most " + std::to_string(kMaxRank / 2) + " axes are possible, found " +
             to_string(a.sizes()) + " and " + to_string(b.sizes()),
         where);
  Dims outer, inner, joined;
  for (int i = 0; i < rank; ++i) {
    const int in_a = i - (rank - a.dim()), in_b = i - (rank - b.dim());
    const int64_t n = in_a < 0 ? 1 : a.size(in_a), m = in_b < 0 ? 1 : b.size(in_b);
    outer.push_back(n), outer.push_back(1);
    inner.push_back(1), inner.push_back(m);
    joined.push_back(checked_mul(n, m, "kron: size", where));
  }
  const Tensor blocks = mul(Operand(a.reshape(outer, where), where), Operand(b.reshape(inner, where), where));
  return blocks.reshape(joined, where);
}

Tensor cross(const Tensor& a, const Tensor& b, int64_t axis, Location where) {
  const Dims sizes = broadcast(a.sizes(where), b.sizes(where), "cross", where);
  const int at = normalize_axis(axis, sizes.rank(), "cross", where);
  if (sizes.empty() || sizes[at] != 3)
    fail("cross: the axis " + std::to_string(axis) + " must have size 3, found " + to_string(a.sizes()) +
             " and " + to_string(b.sizes()),
         where);
  const Tensor x = a.expand(sizes, where), y = b.expand(sizes, where);
  const auto product = [&](int64_t of_x, int64_t of_y) {
    return x.roll(of_x, at, where).mul(Operand(y.roll(of_y, at, where), where));
  };
  return product(-1, -2).sub(Operand(product(-2, -1), where));
}

Tensor cdist(const Tensor& a, const Tensor& b, double p, Location where) {
  if (a.dim(where) < 2 || b.dim(where) < 2 || a.size(-1) != b.size(-1))
    fail("cdist: (..., P, D) and (..., R, D) are needed, found " + to_string(a.sizes()) + " and " +
             to_string(b.sizes()),
         where);
  if (!(p >= 0)) fail("cdist: p must not be negative, found " + std::to_string(p), where);
  const Tensor rows = a.unsqueeze(-2, where), others = b.unsqueeze(-3, where);
  return rows.sub(Operand(others, where)).norm(p, {-1}, false, where);
}

namespace {

/// A tensor with a letter for each axis, all different.
struct Term {
  Tensor t;
  std::string letters;
};

class Einsum {
 public:
  Einsum(const std::string& equation, std::span<const Tensor> operands, Location where)
      : equation_(equation), where_(where) {
    std::string left;
    for (const char c : equation)
      if (c != ' ') left += c;
    const size_t arrow = left.find("->");
    const bool explicit_result = arrow != std::string::npos;
    if (explicit_result) result_ = left.substr(arrow + 2), left.resize(arrow);
    std::vector<std::string> terms(1);
    for (const char c : left)
      if (c == ',')
        terms.emplace_back();
      else
        terms.back() += c;
    if (terms.size() != operands.size())
      refuse("has " + std::to_string(terms.size()) + " terms for " + std::to_string(operands.size()) +
             " operands");
    std::map<char, int> uses;
    size_t most = 0;  // axes that "..." stands for
    for (size_t i = 0; i < terms.size(); ++i) {
      const size_t letters = terms[i].size() - (terms[i].find("...") == std::string::npos ? 0 : 3);
      const auto rank = static_cast<size_t>(operands[i].dim(where_));
      const size_t further = letters < terms[i].size() && rank > letters ? rank - letters : 0;
      most = std::max(most, further);
      terms[i] = spelled(terms[i], further);
      for (const char c : terms[i]) ++uses[c];
      measure(operands[i], terms[i], i);
    }
    result_ = explicit_result ? spelled(result_, most) : kDigits.substr(kDigits.size() - most);
    if (!explicit_result)
      for (const auto& [c, n] : uses)
        if (n == 1 && !is_digit(c)) result_ += c;
    for (size_t i = 0; i < terms.size(); ++i) add(operands[i], terms[i]);
    for (size_t i = 0; i < result_.size(); ++i) {
      if (!uses.contains(result_[i])) refuse(quoted(result_[i]) + " of the result is in no operand");
      if (result_.find(result_[i]) != i) refuse(quoted(result_[i]) + " is twice in the result");
    }
  }

  Tensor run() {
    Term sum = terms_[0];
    for (size_t i = 1; i < terms_.size(); ++i) {
      std::string needed = result_;
      for (size_t k = i + 1; k < terms_.size(); ++k) needed += terms_[k].letters;
      sum = product(sum, terms_[i], needed);
    }
    return ordered(without(sum, [&](char c) { return has(result_, c); }), result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail("einsum: \"" + equation_ + "\" " + what, where_);
  }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static std::string quoted(char c) {
    return is_digit(c) ? std::string("an axis of '...'") : std::string("letter '") + c + "'";
  }
  static bool has(const std::string& letters, char c) { return letters.find(c) != std::string::npos; }

  /// The letters of a term, "..." as so many digits.
  std::string spelled(const std::string& term, size_t further) const {
    const size_t dots = term.find("...");
    std::string letters;
    for (size_t i = 0; i < term.size(); ++i) {
      const char c = term[i];
      if (i == dots) {
        letters += kDigits.substr(kDigits.size() - further);
        i += 2;
        continue;
      }
      if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z'))
        refuse(std::string("holds '") + c + "', which is no letter" +
               (c == '.' ? " and not one \"...\" a term" : ""));
      letters += c;
    }
    return letters;
  }

  /// The size of each letter: that of all axes that it names, but for those of size 1.
  void measure(const Tensor& t, const std::string& letters, size_t i) {
    if (t.dim(where_) != static_cast<int>(letters.size()))
      refuse("has " + std::to_string(letters.size()) + " letters for operand " + std::to_string(i) +
             " of shape " + to_string(t.sizes()));
    for (size_t k = 0; k < letters.size(); ++k) {
      const int64_t size = t.sizes()[static_cast<int>(k)];
      const auto [known, fresh] = sizes_.try_emplace(letters[k], size);
      const size_t before = letters.find(letters[k]);
      const bool repeated = before < k && t.sizes()[static_cast<int>(before)] != size;
      if (known->second == 1 && !repeated) known->second = size;
      if (repeated || (known->second != size && size != 1))
        refuse("gives " + quoted(letters[k]) + " sizes " + std::to_string(known->second) + " and " +
               std::to_string(size) + ", in operand " + std::to_string(i) + " of shape " +
               to_string(t.sizes()));
    }
  }

  /// Letters that occur twice name a diagonal; axes of size 1 whose letter has another size are dropped: what
  /// does not depend on a letter broadcasts over it.
  void add(Tensor t, std::string letters) {
    for (size_t k = letters.size(); k-- > 0;) {
      if (t.sizes()[static_cast<int>(k)] != 1 || sizes_.at(letters[k]) == 1) continue;
      t = t.squeeze(static_cast<int64_t>(k), where_);
      letters.erase(k, 1);
    }
    for (size_t k = 0; k < letters.size();) {
      const size_t again = letters.find(letters[k], k + 1);
      if (again == std::string::npos) {
        ++k;
        continue;
      }
      t = t.diagonal(0, static_cast<int64_t>(k), static_cast<int64_t>(again), where_);
      letters += letters[k];
      letters.erase(again, 1);
      letters.erase(k, 1);
      k = 0;
    }
    terms_.push_back({std::move(t), std::move(letters)});
  }

  /// Summed over the letters for which `kept` does not hold.
  template <class Kept>
  Term without(const Term& x, Kept kept) const {
    Dims axes;
    Term out = x;
    out.letters.clear();
    for (size_t i = 0; i < x.letters.size(); ++i)
      if (kept(x.letters[i]))
        out.letters += x.letters[i];
      else
        axes.push_back(static_cast<int64_t>(i));
    if (!axes.empty()) out.t = x.t.sum(axes, false, where_);
    return out;
  }

  Tensor ordered(const Term& x, const std::string& letters) const {
    if (x.letters == letters) return x.t;
    Dims axes;
    for (const char c : letters) axes.push_back(static_cast<int64_t>(x.letters.find(c)));
    return x.t.permute(axes, where_);
  }

  int64_t extent(const std::string& letters) const {
    int64_t n = 1;
    for (const char c : letters) n = checked_mul(n, sizes_.at(c), "einsum: size", where_);
    return n;
  }

  Term product(const Term& left, const Term& right, const std::string& needed) const {
    const Term a = without(left, [&](char c) { return has(right.letters, c) || has(needed, c); });
    const Term b = without(right, [&](char c) { return has(left.letters, c) || has(needed, c); });
    std::string batch, inner, rows, columns;
    for (const char c : a.letters) (!has(b.letters, c) ? rows : has(needed, c) ? batch : inner) += c;
    for (const char c : b.letters)
      if (!has(a.letters, c)) columns += c;
    const int64_t n = extent(batch), k = extent(inner);
    const Tensor x = ordered(a, batch + rows + inner).reshape({n, extent(rows), k}, where_);
    const Tensor y = ordered(b, batch + inner + columns).reshape({n, k, extent(columns)}, where_);
    Term out{matmul(x, y, where_), batch + rows + columns};
    Dims sizes;
    for (const char c : out.letters) sizes.push_back(sizes_.at(c));
    out.t = out.t.reshape(sizes, where_);
    return out;
  }

  static inline const std::string kDigits = "01234567";  // kMaxRank of them
  std::string equation_, result_;
  Location where_;
  std::vector<Term> terms_;
  std::map<char, int64_t> sizes_;
};

}  // namespace

Tensor einsum(const std::string& equation, TensorSpan operands, Location where) {
  if (operands.empty()) fail("einsum: at least one operand is needed", where);
  return Einsum(equation, operands, where).run();
}

}  // namespace tandem
