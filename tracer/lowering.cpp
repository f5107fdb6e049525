#include "tandem/tracer/lowering.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "tandem/eager/compiled.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using ops::OpId;
using ops::Value;

Value Lowering::input(uint32_t handle) {
  const auto known = input_value_.find(handle);
  if (known != input_value_.end()) return known->second;
  const HandleInfo& h = info(handle);
  std::string name;
  for (size_t a = 0; a < r_.arguments.size(); ++a)
    if (r_.arguments[a] == handle) name = "arg" + std::to_string(a);
  if (name.empty()) name = (h.kind == HandleInfo::Kind::slot ? "slot" : "value") + std::to_string(handle);
  const Value v{graph_.add_input({h.dtype, cpu, false, h.sizes}, h.strides, name)};
  inputs_.push_back(handle);
  input_value_[handle] = v;
  return v;
}

Value Lowering::number(const Entry& e, const eager::Call& call, int word) {
  const NumberKind kind =
      eager::number_kind(ops::def(call.op), __builtin_popcount(e.numbers), {call.words, call.n_words}, word);
  if (word < 64 && !((e.run_time >> word) & 1)) {
    const int64_t bits = call.words[word];
    return emitter_.number(kind == NumberKind::floating ? std::bit_cast<double>(bits)
                                                        : static_cast<double>(bits));
  }
  uint32_t at = e.words + static_cast<uint32_t>(word);
  for (auto source = r_.word_source.find(at); source != r_.word_source.end();
       source = r_.word_source.find(at))
    at = source->second;
  const auto [known, fresh] = number_value_.try_emplace(at);
  if (!fresh) return known->second;
  DType type = DType::float64;
  switch (kind) {
    case NumberKind::bool_:
      type = DType::bool_;
      break;
    case NumberKind::integer:
      type = DType::int64;
      break;
    case NumberKind::floating:
      break;
  }
  numbers_.push_back(at);
  known->second = {graph_.add_number(type)};
  return known->second;
}

Value Lowering::view_of(const Entry& view, Value base) {
  const ops::OpDef& op = ops::def(static_cast<OpId>(view.op));
  const std::span<const int64_t> words{r_.words.data() + view.words, view.n_words};
  const ops::SplitWords split = ops::split_words(op, words, 0);
  if (!split.run_time.empty()) throw NotAGraph(std::string("a view with run-time attributes: ") + op.name);
  Value out;
  emitter_.emit(op.id, std::span<const Value>(&base, 1), split.structural, &out);
  return out;
}

Value Lowering::value_of(uint32_t handle) {
  const HandleInfo& h = info(handle);
  const uint32_t changes = changes_[h.cell];
  const bool external = !made_[handle];
  if (h.moves) {
    if (changes > 0) throw NotAGraph("a slice whose position changes shows memory that the call changes");
    moving_.push_back(h.cell);
    return input(handle);
  }
  // A view from an earlier stretch is an input of its own only if nothing writes under it: the plan knows
  // inputs as memories apart.
  const bool apart = !h.view || std::find(changing_.begin(), changing_.end(), h.cell) == changing_.end();
  if (external && changes == 0 && apart) return input(handle);
  if (h.view) {
    const auto known = views_.find(handle);
    if (known != views_.end() && (known->second.changes == changes || !on(Mechanism::cell_values)))
      return known->second.value;
    const Value v = view_of(*h.view, value_of(h.base));
    views_[handle] = {v, changes};
    return v;
  }
  const Cell& cell = r_.cells[h.cell];
  if (cell.members > 1) throw NotAGraph("two tensors from outside share memory that the call changes");
  const auto v = cell_value_.find(h.cell);
  TANDEM_INTERNAL(v != cell_value_.end(), "a cell without a value");
  return v->second;
}

// The base's value with the part that `view` shows replaced by v.
Value Lowering::unview(const Entry& view, uint32_t handle, Value base, Value v) {
  const Dims base_sizes = graph_.type(base.id).sizes;
  const int64_t* words = r_.words.data() + view.words;
  const int rank = base_sizes.rank();
  const auto part = [&](int axis, int64_t start, int64_t end) {
    return emitter_.call(OpId::slice, {base}, {axis, start, end, 1});
  };
  const auto joined = [&](int axis, int64_t start, int64_t end, Value middle) {
    std::vector<Value> parts;
    if (start > 0) parts.push_back(part(axis, 0, start));
    parts.push_back(middle);
    if (end < base_sizes[axis]) parts.push_back(part(axis, end, base_sizes[axis]));
    if (parts.size() == 1) return middle;
    const int64_t word = axis;
    Value out;
    emitter_.emit(OpId::cat, parts, std::span<const int64_t>(&word, 1), &out);
    return out;
  };
  switch (static_cast<OpId>(view.op)) {
    case OpId::reshape:
    case OpId::unsqueeze:
    case OpId::squeeze:
      return emitter_.reshape(v, base_sizes);
    case OpId::permute: {
      Dims inverse = Dims::filled(rank, 0);
      for (int i = 0; i < rank; ++i) inverse[normalize_axis(words[1 + i], rank, "permute")] = i;
      return emitter_.permute(v, inverse);
    }
    case OpId::select: {
      const int axis = normalize_axis(words[0], rank, "select");
      const int64_t index = words[1] < 0 ? words[1] + base_sizes[axis] : words[1];
      Dims one = base_sizes;
      one[axis] = 1;
      return joined(axis, index, index + 1, emitter_.reshape(v, one));
    }
    case OpId::slice: {
      const int axis = normalize_axis(words[0], rank, "slice");
      if (words[3] != 1) throw NotAGraph("a slice with a step is changed in place");
      int64_t start = words[1] < 0 ? words[1] + base_sizes[axis] : words[1];
      start = std::clamp<int64_t>(start, 0, base_sizes[axis]);
      return joined(axis, start, start + info(handle).sizes[axis], v);
    }
    default:
      throw NotAGraph(std::string("a view by ") + ops::def(static_cast<OpId>(view.op)).name +
                      " is changed in place");
  }
}

void Lowering::set_value(uint32_t handle, Value v) {
  const HandleInfo& h = info(handle);
  if (std::find(moving_.begin(), moving_.end(), h.cell) != moving_.end() || h.moves)
    throw NotAGraph("a slice whose position changes shows memory that the call changes");
  if (h.view) {
    const Value base = value_of(h.base);
    set_value(h.base, unview(*h.view, handle, base, v));
    return;
  }
  const Cell& cell = r_.cells[h.cell];
  if (cell.members > 1) throw NotAGraph("two tensors from outside share memory that the call changes");
  if (!made_[handle] && std::find(written_.begin(), written_.end(), handle) == written_.end()) {
    input(handle);
    written_.push_back(handle);
  }
  cell_value_[h.cell] = v;
  ++changes_[h.cell];
}

void Lowering::announce(const Entry& e) {
  if (e.kind != EventKind::op || !e.in_place) return;
  for (const int w : ops::written(ops::def(static_cast<OpId>(e.op))))
    changing_.push_back(info(r_.operand(e, static_cast<uint32_t>(w))).cell);
}

void Lowering::op(const Entry& e, const eager::Call& call, int32_t origin) {
  const ops::OpDef& op = ops::def(call.op);
  emitter_.location = call.where;
  emitter_.origin = origin;
  if (op.kind == ops::OpKind::view) return;  // taken when its value is needed
  Value out[ops::kMaxOutputs];
  eager::emit_call(
      emitter_, call, [&](int i) { return value_of(r_.operand(e, static_cast<uint32_t>(i))); },
      [&](int w) { return number(e, call, w); }, out);
  if (!e.in_place) {
    for (uint32_t j = 0; j < e.n_out; ++j) cell_value_[info(e.out + j).cell] = out[j];
    return;
  }
  for (int j = 0; j < op.n_out; ++j) {
    if (op.writes[j] < 0) continue;
    const uint32_t target = r_.operand(e, static_cast<uint32_t>(op.writes[j]));
    Value v = emitter_.cast(out[j], info(target).dtype);
    if (!(graph_.type(v.id).sizes == info(target).sizes)) v = emitter_.expand(v, info(target).sizes);
    set_value(target, v);
  }
}

void Lowering::finish(const std::vector<uint32_t>& output_cells) {
  for (const uint32_t c : output_cells) {
    const auto v = cell_value_.find(c);
    TANDEM_INTERNAL(v != cell_value_.end(), "a live cell without a value");
    graph_.outputs.push_back(v->second.id);
  }
  for (const uint32_t h : written_) {
    if (!on(Mechanism::slot_writes)) break;
    const auto at = std::find(inputs_.begin(), inputs_.end(), h);
    graph_.writes.push_back({static_cast<int32_t>(at - inputs_.begin()), cell_value_[info(h).cell].id});
  }
}

// A plan runs on one device.
Device Frame::device_of_segment() {
  std::optional<Device> device;
  const auto see = [&](uint32_t handle) {
    const Device d = r_.infos[handle].device;
    if (handle && !(device.value_or(d) == d))
      throw NotAGraph("ops on " + to_string(*device) + " and " + to_string(d) +
                      " without a read between them");
    if (handle) device = d;
  };
  for_path(segment_start_, [&](const Entry& e, Location) {
    if (e.kind != EventKind::op) return;
    for (uint32_t i = 0; i < e.n_in; ++i) see(r_.operand(e, i));
    for (uint32_t h = e.out; h < e.out + e.n_out; ++h) see(h);
  });
  return device.value_or(cpu);
}

}  // namespace tandem::tracer
