// Freezing a plan's run-time numbers: constants, what follows the generator or an optimizer's step counts,
// and what changed between the observed calls, which is refused.
#include <algorithm>
#include <bit>

#include "tandem/tracer/freezer.h"

namespace tandem::tracer {

// Each update op of an optimizer that said so moves a count of its parameter; Adam's corrections follow it.
void Freezer::count_steps() {
  const Branch& b = path();
  for (size_t i = 0; i < b.entries.size(); ++i) {
    const Entry& e = b.entries[i];
    if (e.kind != EventKind::op || !def(e).update) continue;
    if (r_.operand(e, e.n_in - 1u)) continue;  // guarded: the device counts
    const auto step = std::find_if(seen().steps.begin(), seen().steps.end(),
                                   [&](const auto& s) { return s.position > static_cast<int32_t>(i); });
    if (step == seen().steps.end()) continue;
    const std::shared_ptr<eager::StepCounts> counts = step->counts.lock();
    if (!counts) refuse(std::string(def(e).name) + ": its optimizer is gone", b.where[i]);
    const auto& of = counts->of;
    const auto parameter = std::find(of.begin(), of.end(), r_.handles[e.in[0]]);
    if (parameter == of.end()) continue;
    const uint32_t counter = core_.counter(counts, static_cast<size_t>(parameter - of.begin()));
    auto known = std::find_if(out_->steps.begin(), out_->steps.end(),
                              [&](const auto& s) { return s.first == counter; });
    if (known == out_->steps.end()) known = out_->steps.insert(known, {counter, 0});
    ++known->second;
    for (const auto& [bias, beta] : {std::pair("bias1", "beta1"), std::pair("bias2", "beta2")}) {
      const uint32_t corrected = attribute(e, bias), by = attribute(e, beta);
      if (corrected == kNoWord || by == kNoWord) continue;
      if (word_changed(e, by)) refuse_change(e, by, b.where[i]);
      corrections_[corrected] = {.kind = NumberRule::Kind::correction,
                                 .counter = counter,
                                 .ahead = known->second,
                                 .beta = std::bit_cast<double>(r_.words[by])};
    }
  }
}

/// The word of an attribute of an op without lists; kNoWord if it has none of this name.
uint32_t Freezer::attribute(const Entry& e, std::string_view name) {
  const ops::OpDef& op = def(e);
  for (int k = 0; k < op.n_attrs; ++k)
    if (op.attrs[k].name == name) return e.first_attr() + static_cast<uint32_t>(k);
  return kNoWord;
}

const Entry& Freezer::entry_of(uint32_t word, Location& where) const {
  for (size_t i = 0; i < path().entries.size(); ++i) {
    const Entry& e = path().entries[i];
    where = path().where[i];
    if (e.kind == EventKind::op && word >= e.words && word < e.words + e.n_words) return e;
  }
  internal_error("a number of no op");
}

std::string Freezer::word_name(const Entry& e, uint32_t word, const ops::Attr** attr) {
  const ops::OpDef& op = def(e);
  *attr = nullptr;
  if (word < e.first_attr()) return "number " + std::to_string((word - e.words) / 2);
  *attr = &op.attrs[std::min<uint32_t>(word - e.first_attr(), static_cast<uint32_t>(op.n_attrs) - 1)];
  return (*attr)->name;
}

void Freezer::refuse_change(const Entry& e, uint32_t word, Location where) const {
  const ops::Attr* attr = nullptr;
  const std::string what = word_name(e, word, &attr);
  refuse(std::string(def(e).name) + ": " + what +
             " changed between the observed calls, and would be a constant in a frozen one; pass it as a "
             "tensor",
         where);
}

void Freezer::words_of(const eager::NumberSource& s, std::vector<uint32_t>& out) {
  if (s.word >= 0) out.push_back(static_cast<uint32_t>(s.word));
  if (s.a) words_of(*s.a, out);
  if (s.b) words_of(*s.b, out);
}

NumberRule Freezer::number(uint32_t word) {
  if (const auto c = corrections_.find(word); c != corrections_.end()) return c->second;
  for (const BackwardRecord& b : r_.backwards)
    for (const FollowedWord& f : b.followed) {
      if (f.word != word) continue;
      std::vector<uint32_t> from;
      words_of(*f.source, from);
      for (const uint32_t w : from)
        if (number(w).kind != NumberRule::Kind::constant) {
          if (f.source->word >= 0 && f.source->kind == f.kind) return number(w);
          Location where;
          refuse_change(entry_of(w, where), w, where);
        }
      return {.kind = NumberRule::Kind::constant, .bits = f.source->bits(r_.words.data(), f.kind)};
    }
  Location where;
  const Entry& e = entry_of(word, where);
  const ops::Attr* attr = nullptr;
  const std::string what = word_name(e, word, &attr);
  const bool random = attr && attr->type == ops::AttrType::dynamic;
  if (random && (what == "seed" || what == "offset")) {
    const auto draw = std::find_if(seen().draws.begin(), seen().draws.end(),
                                   [&](const auto& d) { return d.first == word + (what == "seed" ? 1 : 0); });
    const bool ours = draw != seen().draws.end() && draw->second >= 0 && draw->second < seen().drawn;
    if (!ours || (what == "seed" && static_cast<uint64_t>(r_.words[word]) != seen().seed))
      refuse(
          std::string(def(e).name) + ": the random numbers come from another generator than the default one",
          where);
    if (what == "seed") return {.kind = NumberRule::Kind::seed};
    return {.kind = NumberRule::Kind::offset, .bits = draw->second};
  }
  if (word_changed(e, word)) refuse_change(e, word, where);
  note_constant(e, word, what, attr, where);
  return {.kind = NumberRule::Kind::constant, .bits = r_.words[word]};
}

void Freezer::note_constant(const Entry& e, uint32_t word, const std::string& what, const ops::Attr* attr,
                            Location where) {
  const int64_t bits = r_.words[word];
  const bool floating = attr ? attr->type == ops::AttrType::floating
                             : r_.words[word - 1] == static_cast<int64_t>(NumberKind::floating);
  const double value = floating ? std::bit_cast<double>(bits) : static_cast<double>(bits);
  for (const FrozenConstant& c : out_->constants)
    if (c.op == def(e).name && c.attribute == what && c.line == where.line && c.file == where.file &&
        std::bit_cast<int64_t>(c.value) == std::bit_cast<int64_t>(value))
      return;
  out_->constants.push_back({def(e).name, what, value, where.file, where.line});
}

}  // namespace tandem::tracer
