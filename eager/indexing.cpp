// Access by mixed indices: numbers, slices and new axes make a view; the axes that tensors index are then
// moved side by side, and the ops index and index_put take their positions stacked in one tensor.
#include "tandem/eager/indexing.h"

#include <algorithm>

#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

using Indices = std::span<const Index>;

bool is_mask(const Tensor& t) { return t.dtype() == bool_ || t.dtype() == uint8; }

/// Where the elements lie that the indices name.
struct Selection {
  Tensor view;   // of the tensor, the indexed axes side by side
  Dims axes;     // of the view before they were moved
  Tensor at;     // (K, ...) positions, undefined if no tensor indexes
  int axis = 0;  // the first of the K indexed axes
  Tensor mask;   // instead of `at`, if a mask is the only tensor and was not to be read
  Dims sizes;    // of what is selected
};

class Selecting {
 public:
  /// `keep_mask`: a single mask is not read.
  Selecting(const Tensor& t, Indices indices, const char* op, bool keep_mask, Location where)
      : op_(op), where_(where), keep_mask_(keep_mask), out_(t) {
    const int rank = t.dim(where);
    int64_t taken = 0, ellipses = 0;
    for (const Index& i : indices) {
      if (i.kind == Index::Kind::tensor) taken += mask(i) ? i.tensor.dim() : 1;
      taken += i.kind == Index::Kind::position || i.kind == Index::Kind::range;
      ellipses += i.kind == Index::Kind::ellipsis;
    }
    if (taken > rank)
      refuse(std::to_string(taken) + " indices for a tensor of shape " + to_string(t.sizes()));
    if (ellipses > 1) refuse("only one Ellipsis is possible");
    for (const Index& i : indices) take(i, rank - static_cast<int>(taken));
  }

  Selection selection() {
    Selection s{out_, {}, {}, 0, {}, {}};
    if (tensors_.empty()) {
      s.sizes = out_.sizes();
      return s;
    }
    if (keep_mask_ && tensors_.size() == 1 && is_mask(tensors_[0].t)) {
      s.mask = spread(tensors_[0]);
      s.sizes = out_.sizes();
      return s;
    }
    std::vector<Indexed> all;
    for (const Indexed& i : tensors_) expand(i, all);
    // Tensors of rank 0 are numbers: they have no part in where the common sizes stand.
    std::vector<Indexed> scalars, others;
    Dims common;
    for (const Indexed& i : all) {
      (i.t.dim() == 0 ? scalars : others).push_back(i);
      common = broadcast(common, i.t.sizes(), op_, where_);
    }
    const int first = others.empty() ? 0 : others[0].axis;
    Dims before, after;
    bool adjacent = !others.empty();
    for (int axis = 0; axis < out_.dim(); ++axis) {
      if (std::any_of(all.begin(), all.end(), [&](const Indexed& i) { return i.axis == axis; })) continue;
      (axis < first ? before : after).push_back(axis);
      adjacent = adjacent && (axis < first || axis > others.back().axis);
    }
    if (!adjacent) {
      for (const int64_t axis : after) before.push_back(axis);
      after = before;
      before = {};
    }
    s.axis = before.rank();
    s.axes = before;
    std::vector<Tensor> rows;
    for (const std::vector<Indexed>& part : {scalars, others})
      for (const Indexed& i : part) {
        s.axes.push_back(i.axis);
        rows.push_back(positions(i.t).expand(common, where_));
      }
    for (const int64_t axis : after) s.axes.push_back(axis);
    s.at = rows.size() == 1 ? rows[0].unsqueeze(0, where_) : stack(rows, 0, where_);
    for (const int64_t axis : before) s.sizes.push_back(out_.size(axis));
    for (const int64_t n : common) s.sizes.push_back(n);
    for (const int64_t axis : after) s.sizes.push_back(out_.size(axis));
    if (!std::is_sorted(s.axes.begin(), s.axes.end())) s.view = out_.permute(s.axes, where_);
    return s;
  }

 private:
  struct Indexed {
    Tensor t;
    int axis;  // of out_; of a mask the first one
  };

  [[noreturn]] void refuse(const std::string& what) const { fail(std::string(op_) + ": " + what, where_); }

  bool mask(const Index& i) const {
    const DType t = i.tensor.dtype(where_);
    if (t != int64 && t != int32 && !is_mask(i.tensor))
      refuse(std::string("tensors of positions must be int64 or int32, masks bool; found ") + name(t));
    return is_mask(i.tensor);
  }

  void take(const Index& i, int skipped) {
    switch (i.kind) {
      case Index::Kind::position:
        out_ = out_.select(axis_, i.position, where_);
        return;
      case Index::Kind::range: {
        const int64_t n = out_.size(axis_, where_);
        const int64_t start = i.range.start == Slice::kNone ? 0 : i.range.start,
                      stop = i.range.stop == Slice::kNone ? n : i.range.stop;
        if (start != 0 || stop < n || i.range.step != 1)
          out_ = out_.slice(axis_, start, stop, i.range.step, where_);
        ++axis_;
        return;
      }
      case Index::Kind::new_axis:
        out_ = out_.unsqueeze(axis_++, where_);
        return;
      case Index::Kind::ellipsis:
        axis_ += skipped;
        return;
      case Index::Kind::boolean:
        return take_bool(i.position != 0);
      case Index::Kind::tensor:
        if (mask(i) && i.tensor.dim() == 0) return take_bool(i.tensor.item<int64_t>(where_) != 0);
        if (mask(i)) check_mask(i.tensor);
        tensors_.push_back({i.tensor, axis_});
        axis_ += mask(i) ? i.tensor.dim() : 1;
        return;
    }
  }

  /// A new axis with one position or none.
  void take_bool(bool holds) {
    out_ = out_.unsqueeze(axis_, where_);
    tensors_.push_back({zeros({holds ? 1 : 0}, {.dtype = int64, .device = out_.device()}, where_), axis_++});
  }

  void check_mask(const Tensor& mask) const {
    for (int d = 0; d < mask.dim(); ++d)
      if (mask.size(d) != out_.size(axis_ + d))
        refuse("a mask of shape " + to_string(mask.sizes()) + " does not fit the axes from " +
               std::to_string(axis_) + " on of " + to_string(out_.sizes()));
  }

  /// A mask over all axes from its first on.
  Tensor spread(const Indexed& i) const {
    Dims sizes = i.t.sizes();
    while (sizes.rank() < out_.dim() - i.axis) sizes.push_back(1);
    return i.t.to(bool_, where_).reshape(sizes, where_);
  }

  /// Positions along each axis that a mask covers.
  void expand(const Indexed& i, std::vector<Indexed>& all) const {
    if (!is_mask(i.t)) return all.push_back(i);
    const Tensor found = nonzero(i.t, where_);
    for (int d = 0; d < i.t.dim(); ++d) all.push_back({found.select(1, d, where_), i.axis + d});
  }

  /// In one type, since they are stacked.
  Tensor positions(const Tensor& t) const { return tensors_.size() == 1 ? t : t.to(int64, where_); }

  const char* op_;
  Location where_;
  bool keep_mask_;
  Tensor out_;
  int axis_ = 0;
  std::vector<Indexed> tensors_;
};

Selection selection(const Tensor& t, Indices indices, const char* op, bool keep_mask, Location where) {
  return Selecting(t, indices, op, keep_mask, where).selection();
}

void need_indices(const Tensor& t, size_t n, Location where) {
  if (n == 0)
    fail("index_put: at least one index is needed, found 0 for shape " + to_string(t.sizes(where)), where);
}

/// The values as a tensor of the sizes that are replaced.
Tensor put_values(const Selection& s, const Operand& values, Location where) {
  if (!values.impl) {
    const AnyNumber number = values.number();
    if (values.kind == NumberKind::floating && !is_floating(s.view.dtype()))
      fail("index_put: the number " + std::to_string(number.to_double()) + " does not fit into " +
               std::string(name(s.view.dtype())) + "; cast the tensor first",
           where);
    const TensorOptions options{.dtype = s.view.dtype(), .device = s.view.device()};
    return full({}, number, options, where).expand(s.sizes, where);
  }
  const Tensor t((core::Ref<core::TensorImpl>(values.impl)));
  Dims fits = t.sizes();
  bool possible = fits.rank() <= s.sizes.rank();
  for (int i = 0; possible && i < fits.rank(); ++i) {
    const int64_t wanted = s.sizes[s.sizes.rank() - fits.rank() + i];
    possible = fits[i] == wanted || fits[i] == 1;
  }
  if (!possible)
    fail("index_put: values of shape " + to_string(fits) + " do not broadcast to " + to_string(s.sizes) +
             ", the shape of what the indices name",
         where);
  return fits == s.sizes ? t : t.expand(s.sizes, where);
}

CallBuilder put_call(const Selection& s, const Tensor& values, bool accumulate, Location where) {
  return CallBuilder(OpId::index_put, where).in(s.view).in(s.at).in(values).word(s.axis).word(accumulate);
}

/// A single mask and one value for all: no position has to be known.
bool fills(const Operand& values, bool accumulate) {
  return !accumulate && (!values.impl || values.impl->numel == 1);
}

/// A value of rank 0, which masked_fill and fill_ take.
Operand one_value(const Operand& values, Tensor& holder, Location where) {
  if (!values.impl || values.impl->sizes.empty()) return values;
  holder = Tensor(core::Ref<core::TensorImpl>(values.impl)).reshape({}, where);
  return Operand(holder, where);
}

}  // namespace

Tensor Tensor::index(Indices indices, Location where) const {
  const Selection s = tandem::selection(*this, indices, "index", false, where);
  if (!s.at.defined()) return s.view;
  return CallBuilder(OpId::index, where).in(s.view).in(s.at).word(s.axis).run();
}
Tensor Tensor::index(std::initializer_list<Index> indices, Location where) const {
  return index(Indices(indices.begin(), indices.size()), where);
}

Tensor Tensor::operator[](const Position& i) const {
  if (!i.tensor) return select(0, i.index, i.where);
  const Index one(Tensor(core::Ref<core::TensorImpl>(i.tensor)));
  return index(Indices(&one, 1), i.where);
}

const Tensor& Tensor::index_put_(Indices indices, const Operand& values, bool accumulate,
                                 Location where) const {
  need_indices(*this, indices.size(), where);
  const Selection s = tandem::selection(*this, indices, "index_put", fills(values, accumulate), where);
  if (s.mask.defined()) {
    Tensor holder;
    s.view.masked_fill_(s.mask, one_value(values, holder, where));
    return *this;
  }
  const Tensor put = put_values(s, values, where);
  if (s.at.defined())
    put_call(s, put, accumulate, where).run_in_place();
  else if (accumulate)
    s.view.add_(Operand(put, where));
  else
    s.view.copy_(put, where);
  return *this;
}
const Tensor& Tensor::index_put_(std::initializer_list<Index> indices, const Operand& values, bool accumulate,
                                 Location where) const {
  return index_put_(Indices(indices.begin(), indices.size()), values, accumulate, where);
}

// Where all of the tensor is looked at, out of place; else a copy is changed through its view.
Tensor Tensor::index_put(Indices indices, const Operand& values, bool accumulate, Location where) const {
  need_indices(*this, indices.size(), where);
  const bool tensors_alone = std::all_of(indices.begin(), indices.end(), [](const Index& i) {
    return i.kind == Index::Kind::tensor && i.tensor.defined() && !is_mask(i.tensor);
  });
  if (!tensors_alone) {
    const Tensor copy = clone(where);
    copy.index_put_(indices, values, accumulate, where);
    return copy;
  }
  const Selection s = tandem::selection(*this, indices, "index_put", false, where);
  const Tensor out = put_call(s, put_values(s, values, where), accumulate, where).run();
  Dims back = s.axes;
  for (int i = 0; i < s.axes.rank(); ++i) back[static_cast<int>(s.axes[i])] = i;
  return std::is_sorted(back.begin(), back.end()) ? out : out.permute(back, where);
}
Tensor Tensor::index_put(std::initializer_list<Index> indices, const Operand& values, bool accumulate,
                         Location where) const {
  return index_put(Indices(indices.begin(), indices.size()), values, accumulate, where);
}
Tensor Tensor::index_put(std::span<const Tensor> indices, const Tensor& values, bool accumulate,
                         Location where) const {
  const std::vector<Index> all(indices.begin(), indices.end());
  return index_put(Indices(all), Operand(values, where), accumulate, where);
}

}  // namespace tandem
