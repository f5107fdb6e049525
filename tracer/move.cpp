// R8: the position of a slice of memory that enters the call is a run-time value. It is compared like any
// other attribute until it differs for the first time; from then on the view's place is taken from each call
// and the plans read it as an input of their own. Slices that gradients flow through, of memory that the
// call changes, and of values that it makes, stay structural: another position is another branch.
// Where in its memory an argument or a slot itself begins is no attribute: its views move with it.
#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using eager::Call;
using ops::OpId;

namespace {
/// The view that `call` makes has these sizes and strides, wherever it begins.
bool same_layout(const Call& call, const HandleInfo& info) {
  const ops::Layout layout = eager::infer_view(call);
  return layout.sizes == info.sizes && layout.strides == info.strides;
}
}  // namespace

bool Frame::fits(const Entry& e, const Call& call) const {
  // Plans read such a word where it came from. An equal op of a hook has a number of its own.
  for (uint32_t w = 0; w < e.n_words; ++w) {
    const auto first = r_.word_source.find(e.words + w);
    if (first == r_.word_source.end()) continue;
    uint32_t at = first->second;
    for (auto next = r_.word_source.find(at); next != r_.word_source.end(); next = r_.word_source.find(at))
      at = next->second;
    if (r_.words[at] != call.words[w]) return false;
  }
  return !e.moves || same_layout(call, r_.infos[e.out]);
}

bool Frame::move_view(const Entry& e, const Call& call) {
  const auto op = static_cast<OpId>(e.op);
  if (e.kind != EventKind::op || e.moves || e.tape || op != call.op || !on(Mechanism::moving_slices) ||
      (op != OpId::slice && op != OpId::select) || r_.handles[e.in[0]] != call.in[0] ||
      r_.modes[e.modes] != modes_word(modes()) || e.n_words != call.n_words)
    return false;
  const uint32_t cell = r_.infos[e.out].cell;
  if (!r_.cells[cell].external) return false;
  const uint64_t positions = op == OpId::slice ? 0b110 : 0b10;  // start and end; index
  for (uint32_t w = 0; w < e.n_words; ++w)
    if (!((positions >> w) & 1) && r_.words[e.words + w] != call.words[w]) return false;
  for (const std::unique_ptr<Branch>& branch : r_.branches)
    for (const Entry& other : branch->entries)
      if (other.kind == EventKind::op && other.in_place)
        for (const int w : ops::written(ops::def(static_cast<OpId>(other.op))))
          if (r_.infos[r_.operand(other, static_cast<uint32_t>(w))].cell == cell) return false;
  if (!same_layout(call, r_.infos[e.out])) return false;

  // Bases come before their views.
  r_.infos[e.out].moves = true;
  for (HandleInfo& info : r_.infos)
    if (info.view && r_.infos[info.base].moves) info.moves = true;
  for (const std::unique_ptr<Branch>& branch : r_.branches) {
    for (Entry& other : branch->entries) {
      if (other.kind != EventKind::op || other.n_out != 1) continue;
      other.moves = r_.infos[other.out].moves;
      other.more_to_fit |= other.moves;
      other.set_plain();
      if (other.out == e.out) other.run_time |= positions;
    }
  }
  for (SegmentEnd& segment : r_.segments) segment.stale = true;
  return true;
}

void Frame::rebase(uint32_t handle, int64_t offset) {
  const int64_t by = offset - r_.infos[handle].offset;
  r_.infos[handle].offset = offset;
  for (const uint32_t v : r_.outer_views) {
    uint32_t base = v;
    while (r_.infos[base].view) base = r_.infos[base].base;
    if (base != handle) continue;
    r_.infos[v].offset += by;
    if (r_.handles[v]) r_.handles[v]->offset += by;
  }
}

}  // namespace tandem::tracer
