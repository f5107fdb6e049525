// Losses and normalisations: one op each, or a few lines over others.
#include "tandem/eager/losses.h"

#include <cmath>
#include <numbers>

#include "tandem/eager/arrange.h"
#include "tandem/eager/call.h"
#include "tandem/eager/functions.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

int64_t word_of(Reduction r) { return static_cast<int64_t>(r); }

Tensor pair(OpId op, const Tensor& a, const Tensor& b, Reduction reduction, Location where) {
  return CallBuilder(op, where).in(a).in(b).word(word_of(reduction)).run();
}

/// Of a loss per element.
Tensor reduced(const Tensor& each, Reduction reduction, const char* op, Location where) {
  switch (reduction) {
    case Reduction::none:
      return each;
    case Reduction::mean:
      return each.mean({}, false, where);
    case Reduction::sum:
      return each.sum({}, false, where);
    case Reduction::batchmean:
      break;
  }
  fail(std::string(op) + ": no such reduction: batchmean is kl_div's", where);
}

/// max(0, a)
Tensor above_zero(const Tensor& a, Location where) { return relu(a, where); }

/// The axis of the classes of scores (C), (N, C) or (N, C, d1, ...).
int class_axis(const Dims& scores) { return scores.rank() > 1 ? 1 : 0; }

/// What is left of the sizes of scores without their classes.
Dims without_classes(Dims sizes) {
  sizes.erase(class_axis(sizes));
  return sizes;
}

/// `loss(rows, labels)`, of rows (n, C) and labels (n), for scores of any rank.
template <class Loss>
Tensor by_rows(const char* op, const Tensor& scores, const Tensor& labels, Reduction reduction,
               Location where, Loss loss) {
  if (!scores.defined() || !labels.defined() || scores.dim() == 2) return loss(scores, labels);
  const Dims sizes = scores.sizes();
  if (sizes.empty() || labels.sizes() != without_classes(sizes))
    fail(std::string(op) +
             ": scores (C), (N, C) or (N, C, d1, ...) go with labels (), (N) or (N, d1, ...), " + "found " +
             to_string(sizes) + " and " + to_string(labels.sizes()),
         where);
  const int axis = class_axis(sizes);
  if (sizes[axis] == 0) fail(std::string(op) + ": no classes in " + to_string(sizes), where);
  const Tensor rows = sizes.rank() == 2
                          ? scores
                          : scores.movedim(axis, -1, where).reshape({labels.numel(), sizes[axis]}, where);
  const Tensor out = loss(rows, labels.reshape({labels.numel()}, where));
  return reduction == Reduction::none ? out.reshape(labels.sizes(), where) : out;
}

/// Whether the target of a cross entropy has a probability for each of the logits.
bool has_probabilities(const Tensor& logits, const Tensor& target) {
  return logits.defined() && target.defined() && is_floating(target.dtype()) &&
         target.sizes() == logits.sizes() && !logits.sizes().empty();
}

// -sum over classes of weight * target * logp; a mean divides by the rows, whatever their weights.
Tensor with_probabilities(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& o,
                          Location where) {
  if (o.ignore_index >= 0)
    fail("cross_entropy: ignore_index " + std::to_string(o.ignore_index) +
             " is for labels; the target has class probabilities",
         where);
  const int axis = class_axis(logits.sizes());
  const int64_t classes = logits.size(axis);
  if (classes == 0) fail("cross_entropy: no classes in " + to_string(logits.sizes()), where);
  Tensor parts = neg(log_softmax(logits, axis, where), where);
  if (o.weight.defined()) {
    if (o.weight.sizes() != Dims{classes})
      fail("cross_entropy: weight must be " + to_string(Dims{classes}) + " for logits " +
               to_string(logits.sizes()) + ", found " + to_string(o.weight.sizes()),
           where);
    Dims beside = Dims::filled(logits.dim(), 1);
    beside[axis] = classes;
    parts = mul(Operand(parts, where), Operand(o.weight.reshape(beside, where), where));
  }
  Tensor wanted = target;
  if (o.label_smoothing > 0) {
    const double each = o.label_smoothing / static_cast<double>(classes);
    const Tensor kept = mul(Operand(target, where), Operand(1 - o.label_smoothing, where));
    wanted = add(Operand(kept, where), Operand(each, where));
  }
  const Tensor products = mul(Operand(parts, where), Operand(wanted, where));
  return reduced(products.sum({axis}, false, where), o.reduction, "cross_entropy", where);
}

// (1 - s) * nll + s * mean over classes of -weight * logp; a mean over rows divides by the weights of their
// labels.
Tensor rows_cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& o,
                          Location where) {
  if (!o.weight.defined() && o.label_smoothing == 0)
    return CallBuilder(OpId::cross_entropy, where)
        .in(logits)
        .in(labels)
        .word(word_of(o.reduction))
        .word(o.ignore_index)
        .run_first();
  const Tensor logp = log_softmax(logits, -1, where);
  const Tensor nll = nll_loss(logp, labels, o.weight, o.reduction, o.ignore_index, where);
  if (o.label_smoothing == 0) return nll;
  Tensor spread = neg(logp, where);
  if (o.weight.defined()) spread = mul(Operand(spread, where), Operand(o.weight, where));
  const Tensor ignored = eq(Operand(labels, where), Operand(o.ignore_index, where));
  Tensor rows = spread.mean({1}, false, where).masked_fill(ignored, Operand(0.0, where));
  if (o.reduction == Reduction::sum) rows = rows.sum({}, false, where);
  if (o.reduction == Reduction::mean) {
    Tensor counts = o.weight.defined()
                        ? o.weight.index_select(0, labels.masked_fill(ignored, Operand(0, where)), where)
                        : ones_like(rows, where);
    counts = counts.masked_fill(ignored, Operand(0.0, where)).sum({}, false, where);
    rows = div(Operand(rows.sum({}, false, where), where), Operand(counts, where));
  }
  const Tensor smooth = mul(Operand(rows, where), Operand(o.label_smoothing, where));
  const Tensor kept = mul(Operand(nll, where), Operand(1 - o.label_smoothing, where));
  return add(Operand(kept, where), Operand(smooth, where));
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& target, Reduction reduction, int64_t ignore_index,
                     Location where) {
  return cross_entropy(logits, target, {.reduction = reduction, .ignore_index = ignore_index}, where);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& o,
                     Location where) {
  if (!(o.label_smoothing >= 0 && o.label_smoothing <= 1))
    fail("cross_entropy: label_smoothing must lie in [0, 1], found " + std::to_string(o.label_smoothing),
         where);
  if (has_probabilities(logits, target)) return with_probabilities(logits, target, o, where);
  return by_rows(
      "cross_entropy", logits, target, o.reduction, where,
      [&](const Tensor& rows, const Tensor& labels) { return rows_cross_entropy(rows, labels, o, where); });
}

Tensor nll_loss(const Tensor& logp, const Tensor& labels, const Tensor& weight, Reduction reduction,
                int64_t ignore_index, Location where) {
  return by_rows("nll_loss", logp, labels, reduction, where, [&](const Tensor& rows, const Tensor& flat) {
    return CallBuilder(OpId::nll_loss, where)
        .in(rows)
        .in(flat)
        .in(weight)
        .word(word_of(reduction))
        .word(ignore_index)
        .run();
  });
}

Tensor mse_loss(const Tensor& a, const Tensor& b, Reduction reduction, Location where) {
  return pair(OpId::mse_loss, a, b, reduction, where);
}
Tensor l1_loss(const Tensor& a, const Tensor& b, Reduction reduction, Location where) {
  return pair(OpId::l1_loss, a, b, reduction, where);
}
Tensor smooth_l1_loss(const Tensor& a, const Tensor& b, Reduction reduction, double beta, Location where) {
  if (!(beta >= 0)) fail("smooth_l1_loss: beta must not be negative, found " + std::to_string(beta), where);
  if (beta == 0) return l1_loss(a, b, reduction, where);
  return CallBuilder(OpId::smooth_l1_loss, where).in(a).in(b).word(word_of(reduction)).floating(beta).run();
}
Tensor huber_loss(const Tensor& a, const Tensor& b, Reduction reduction, double delta, Location where) {
  if (!(delta > 0)) fail("huber_loss: delta must be positive, found " + std::to_string(delta), where);
  return CallBuilder(OpId::huber_loss, where).in(a).in(b).word(word_of(reduction)).floating(delta).run();
}

Tensor binary_cross_entropy(const Tensor& p, const Tensor& target, const Tensor& weight, Reduction reduction,
                            Location where) {
  if (!weight.defined()) return pair(OpId::binary_cross_entropy, p, target, reduction, where);
  const Tensor each = pair(OpId::binary_cross_entropy, p, target, Reduction::none, where);
  return reduced(mul(Operand(each, where), Operand(weight, where)), reduction, "binary_cross_entropy", where);
}

Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& target, const Tensor& weight,
                                        Reduction reduction, const Tensor& pos_weight, Location where) {
  const Tensor each = CallBuilder(OpId::binary_cross_entropy_with_logits, where)
                          .in(logits)
                          .in(target)
                          .in(pos_weight)
                          .word(word_of(weight.defined() ? Reduction::none : reduction))
                          .run();
  if (!weight.defined()) return each;
  return reduced(mul(Operand(each, where), Operand(weight, where)), reduction,
                 "binary_cross_entropy_with_logits", where);
}

Tensor kl_div(const Tensor& logp, const Tensor& target, Reduction reduction, bool log_target,
              Location where) {
  const bool batch = reduction == Reduction::batchmean;
  if (batch && logp.dim(where) == 0) fail("kl_div: batchmean needs a first axis, found shape ()", where);
  const Tensor loss = CallBuilder(OpId::kl_div, where)
                          .in(logp)
                          .in(target)
                          .word(word_of(batch ? Reduction::none : reduction))
                          .word(log_target)
                          .run();
  if (!batch) return loss;
  Dims rest;
  for (int i = 1; i < loss.dim(where); ++i) rest.push_back(i);
  return (rest.empty() ? loss : loss.sum(rest, false, where)).mean({}, false, where);
}

Tensor soft_margin_loss(const Tensor& a, const Tensor& target, Reduction reduction, Location where) {
  return pair(OpId::soft_margin_loss, a, target, reduction, where);
}

Tensor hinge_embedding_loss(const Tensor& a, const Tensor& target, double margin, Reduction reduction,
                            Location where) {
  const Tensor missing = above_zero(sub(Operand(margin, where), Operand(a, where)), where);
  const Tensor alike = eq(Operand(target, where), Operand(1, where));
  return reduced(tandem::where(Operand(alike, where), Operand(a, where), Operand(missing, where)), reduction,
                 "hinge_embedding_loss", where);
}

namespace {
/// Operands that broadcast have as many axes, so that a column beside a row is not taken for a table.
void need_one_rank(const char* op, std::initializer_list<const Tensor*> operands, Location where) {
  std::string found;
  bool alike = true;
  for (const Tensor* t : operands) {
    alike = alike && t->dim(where) == (*operands.begin())->dim(where);
    found += (found.empty() ? "" : ", ") + to_string(t->sizes());
  }
  if (!alike) fail(std::string(op) + ": operands must have as many axes each, found " + found, where);
}
}  // namespace

Tensor margin_ranking_loss(const Tensor& a, const Tensor& b, const Tensor& target, double margin,
                           Reduction reduction, Location where) {
  need_one_rank("margin_ranking_loss", {&a, &b, &target}, where);
  const Tensor ahead = sub(Operand(b, where), Operand(a, where));
  const Tensor wrong = mul(Operand(ahead, where), Operand(target, where));
  return reduced(above_zero(add(Operand(wrong, where), Operand(margin, where)), where), reduction,
                 "margin_ranking_loss", where);
}

Tensor cosine_similarity(const Tensor& a, const Tensor& b, int64_t axis, double eps, Location where) {
  return CallBuilder(OpId::cosine_similarity, where).in(a).in(b).word(axis).floating(eps).run();
}

Tensor cosine_embedding_loss(const Tensor& a, const Tensor& b, const Tensor& target, double margin,
                             Reduction reduction, Location where) {
  if (target.dim(where) > 1 || a.dim(where) != target.dim() + 1)
    fail("cosine_embedding_loss: rows (N, D) go with a target (N), or a row (D) with a target (), found " +
             to_string(a.sizes()) + " and " + to_string(target.sizes()),
         where);
  const Tensor cosine = cosine_similarity(a, b, -1, 1e-8, where);
  const Tensor apart = sub(Operand(1.0, where), Operand(cosine, where));
  const Tensor close = above_zero(sub(Operand(cosine, where), Operand(margin, where)), where);
  const Tensor alike = eq(Operand(target, where), Operand(1, where));
  return reduced(tandem::where(Operand(alike, where), Operand(apart, where), Operand(close, where)),
                 reduction, "cosine_embedding_loss", where);
}

Tensor pairwise_distance(const Tensor& a, const Tensor& b, double p, double eps, bool keepdim,
                         Location where) {
  const Tensor way = a.sub(Operand(b, where));
  return way.add(Operand(eps, where)).norm(p, {-1}, keepdim, where);
}

Tensor triplet_margin_loss(const Tensor& anchor, const Tensor& positive, const Tensor& negative,
                           double margin, double p, double eps, Reduction reduction, Location where) {
  need_one_rank("triplet_margin_loss", {&anchor, &positive, &negative}, where);
  const Tensor near = pairwise_distance(anchor, positive, p, eps, false, where);
  const Tensor far = pairwise_distance(anchor, negative, p, eps, false, where);
  const Tensor ahead = sub(Operand(near, where), Operand(far, where));
  return reduced(above_zero(add(Operand(ahead, where), Operand(margin, where)), where), reduction,
                 "triplet_margin_loss", where);
}

Tensor poisson_nll_loss(const Tensor& a, const Tensor& target, bool log_input, bool full, double eps,
                        Reduction reduction, Location where) {
  const Tensor rate = log_input ? a.exp(where) : a;
  const Tensor log_rate = log_input ? a : a.add(Operand(eps, where)).log(where);
  Tensor each = rate.sub(Operand(target.mul(Operand(log_rate, where)), where));
  if (full) {  // log(n!) is about n log(n) - n + log(2 pi n) / 2
    const Tensor half = target.mul(Operand(2 * std::numbers::pi, where)).log(where).mul(Operand(0.5, where));
    const Tensor power = target.mul(Operand(target.log(where), where)).sub(Operand(target, where));
    const Tensor few = target.le(Operand(1, where));
    each = each.add(Operand(power.add(Operand(half, where)).masked_fill(few, Operand(0.0, where)), where));
  }
  return reduced(each, reduction, "poisson_nll_loss", where);
}

Tensor gaussian_nll_loss(const Tensor& a, const Tensor& target, const Tensor& var, bool full, double eps,
                         Reduction reduction, Location where) {
  if (!(eps > 0)) fail("gaussian_nll_loss: eps must be positive, found " + std::to_string(eps), where);
  Dims wanted = a.sizes(where);
  Tensor spread = var;
  if (var.dim(where) + 1 == wanted.rank()) spread = var.unsqueeze(-1, where);
  if (!wanted.empty() && spread.sizes() != wanted) wanted[wanted.rank() - 1] = 1;
  if (spread.sizes() != wanted)
    fail("gaussian_nll_loss: var must be as the input " + to_string(a.sizes()) +
             ", with or without a last axis of size 1 in the place of its last, found " +
             to_string(var.sizes()),
         where);
  // The bound has no gradient, so that a variance below it learns.
  const Tensor raised = spread.detach(where).clamp(eps, {}, where).sub(Operand(spread.detach(where), where));
  const Tensor v = spread.add(Operand(raised, where));
  const Tensor squares = a.sub(Operand(target, where)).square(where).div(Operand(v, where));
  Tensor each = v.log(where).add(Operand(squares, where)).mul(Operand(0.5, where));
  if (full) each = each.add(Operand(0.5 * std::log(2 * std::numbers::pi), where));
  return reduced(each, reduction, "gaussian_nll_loss", where);
}

Tensor multi_margin_loss(const Tensor& a, const Tensor& labels, int64_t p, double margin,
                         const Tensor& weight, Reduction reduction, Location where) {
  if (p != 1 && p != 2) fail("multi_margin_loss: p must be 1 or 2, found " + std::to_string(p), where);
  if (a.dim(where) < 1 || a.dim() > 2 || labels.dim(where) != a.dim() - 1)
    fail("multi_margin_loss: scores (N, C) or (C) go with labels (N) or (), found " + to_string(a.sizes()) +
             " and " + to_string(labels.sizes()),
         where);
  if (weight.defined() && weight.sizes() != Dims{a.size(-1)})
    fail("multi_margin_loss: weight must be " + to_string(Dims{a.size(-1)}) + ", found " +
             to_string(weight.sizes()),
         where);
  const Tensor index = labels.unsqueeze(-1, where);
  const Tensor ahead = a.sub(Operand(a.gather(-1, index, where), where)).add(Operand(margin, where));
  Tensor parts = above_zero(ahead, where);
  if (p == 2) parts = parts.square(where);
  if (weight.defined()) {
    const Tensor of_rows = weight.index_select(0, labels.reshape({labels.numel()}, where), where);
    parts = parts.mul(Operand(of_rows.reshape(index.sizes(), where), where));
  }
  const Tensor own = one_hot(labels, a.size(-1), where).to(bool_, where);
  return reduced(parts.masked_fill(own, Operand(0.0, where)).mean({-1}, false, where), reduction,
                 "multi_margin_loss", where);
}

Tensor multilabel_soft_margin_loss(const Tensor& a, const Tensor& target, const Tensor& weight,
                                   Reduction reduction, Location where) {
  const Tensor parts = binary_cross_entropy_with_logits(a, target, weight, Reduction::none, {}, where);
  return reduced(parts.mean({-1}, false, where), reduction, "multilabel_soft_margin_loss", where);
}

Tensor gumbel_softmax(const Tensor& logits, double tau, bool hard, int64_t axis, Generator* generator,
                      Location where) {
  if (!(tau > 0)) fail("gumbel_softmax: tau must be positive, found " + std::to_string(tau), where);
  if (logits.dim(where) == 0) fail("gumbel_softmax: a tensor of rank 0 has no classes", where);
  const int at = normalize_axis(axis, logits.dim(), "gumbel_softmax", where);
  const double tiny = logits.dtype() == float64 ? 0x1p-1022 : 0x1p-126;
  const Tensor u = rand(logits.sizes(),
                        {.dtype = logits.dtype() == float64 ? float64 : float32, .device = logits.device()},
                        generator, where);
  const Tensor waits = u.clamp(tiny, {}, where).log(where).neg(where);
  const Tensor drawn = waits.clamp(tiny, {}, where).log(where).to(logits.dtype(), where);
  const Tensor soft = softmax(logits.sub(Operand(drawn, where)).div(Operand(tau, where)), at, where);
  if (!hard) return soft;
  const Tensor chosen = one_hot(soft.argmax(at, false, where), logits.size(at), where);
  const Tensor whole = chosen.movedim(-1, at, where).to(soft.dtype(), where);
  return whole.sub(Operand(soft.detach(where), where)).add(Operand(soft, where));
}

Tensor layer_norm(const Tensor& x, int normalized_rank, const Tensor& weight, const Tensor& bias, double eps,
                  Location where) {
  return CallBuilder(OpId::layer_norm, where)
      .in(x)
      .in(weight)
      .in(bias)
      .floating(eps)
      .word(normalized_rank)
      .run_first();
}

Tensor rms_norm(const Tensor& x, int normalized_rank, const Tensor& weight, std::optional<double> eps,
                Location where) {
  const double least = x.dtype(where) == float64 ? 0x1p-52 : 0x1p-23;
  return CallBuilder(OpId::rms_norm, where)
      .in(x)
      .in(weight)
      .floating(eps.value_or(least))
      .word(normalized_rank)
      .run();
}

Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                  Location where) {
  return CallBuilder(OpId::group_norm, where)
      .in(x)
      .in(weight)
      .in(bias)
      .floating(eps)
      .word(groups)
      .run_first();
}

Tensor normalize(const Tensor& x, double p, int64_t axis, double eps, Location where) {
  const Tensor length = x.norm(p, {axis}, true, where);
  return div(Operand(x, where), Operand(maximum(Operand(length, where), Operand(eps, where)), where));
}

}  // namespace tandem
