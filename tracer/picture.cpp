#include "tandem/tracer/picture.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

namespace tandem::tracer {

using jit::Destination;
using jit::EntryKind;
using jit::Leaf;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    out.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return out;
}

void add_once(std::vector<std::string>& list, const std::string& name) {
  if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
}

class Drawer {
 public:
  explicit Drawer(const Plan& plan) : origins_(plan.origins) { p_.plan = plan.executable->describe(); }

  Picture run() {
    texts();
    for (size_t i = 0; i < prepared().g.inputs.size(); ++i) argument(static_cast<int32_t>(i));
    for (size_t e = 0; e < plan().entries.size(); ++e) entry(static_cast<int32_t>(e));
    for (size_t c = 0; c < p_.chips.size(); ++c) connect(static_cast<int32_t>(c));
    for (auto& [key, line] : lines_) p_.lines.push_back(std::move(line));
    return std::move(p_);
  }

 private:
  const jit::Prepared& prepared() const { return p_.plan.prepared; }
  const jit::Plan& plan() const { return p_.plan.plan; }
  const jit::Node& node(int32_t i) const { return prepared().g.nodes[at(i)]; }

  void texts() {
    std::vector<std::string> lines = lines_of(jit::to_string(prepared().g));
    for (size_t i = 0; i < prepared().g.nodes.size(); ++i) {
      TANDEM_INTERNAL(i + 1 < lines.size(), "a graph's text without a line a node");
      p_.node_text.push_back(lines[i + 1].substr(std::min<size_t>(2, lines[i + 1].size())));
    }
    for (std::string& l : lines_of(jit::to_string(plan()))) {
      if (l.empty() || l[0] != ' ')
        p_.entry_text.push_back(std::move(l));
      else
        p_.entry_text.back() += "\n" + l;
    }
    chip_of_node_.assign(prepared().g.nodes.size(), -1);
    for (const jit::EntryNote& n : plan().notes)
      for (const auto& [value, to] : n.copies) copied_.insert({value, to.output, to.index});
  }

  std::string input_name(int32_t i) const {
    const std::string& name = prepared().g.inputs[at(i)].name;
    return name.empty() ? "in" + std::to_string(i) : name;
  }
  bool is_argument(int32_t i) const { return input_name(i).starts_with("arg"); }

  void argument(int32_t i) {
    if (!is_argument(i)) return;
    argument_box_[i] = static_cast<int32_t>(p_.boxes.size());
    const int32_t v = prepared().g.inputs[at(i)].value;
    p_.boxes.push_back({.title = input_name(i), .note = type_text(prepared().g.type(v))});
  }

  std::string destination_name(const Destination& d) const {
    return d.output ? "out" + std::to_string(d.index) : input_name(d.index);
  }

  void entry(int32_t e) {
    const jit::Entry& x = plan().entries[at(e)];
    const jit::EntryNote& note = plan().notes[at(e)];
    static constexpr const char* kKernels[] = {"pointwise", "row", "column"};
    Box box{.entry = e};
    switch (x.kind) {
      case EntryKind::kernel:
        box.title = std::string(kKernels[static_cast<int>(plan().kernels[at(x.index)].kind)]) + " kernel";
        if (x.count > 1) box.title += " x " + std::to_string(x.count);
        break;
      case EntryKind::product:
        box.title = std::string("product, ") + ops::name(plan().products[at(x.index)].shape.provider);
        if (x.count > 0)
          box.title += " + " + std::to_string(x.count) + (x.count > 1 ? " kernels" : " kernel");
        break;
      case EntryKind::native:
        box.title = "native " + x.name;
        break;
    }
    box.title = std::to_string(e) + ": " + box.title;
    box.note = bytes_text(note.bytes_read + note.bytes_written);
    const auto number = static_cast<int32_t>(p_.boxes.size());
    std::map<int32_t, int32_t> chip_of_origin;
    for (const int32_t n : note.nodes) {
      const int32_t origin = node(n).origin;
      int32_t chip = -1;
      if (const auto known = chip_of_origin.find(origin); origin >= 0 && known != chip_of_origin.end())
        chip = known->second;
      if (chip < 0) {
        chip = static_cast<int32_t>(p_.chips.size());
        chip_of_origin[origin] = chip;
        p_.chips.push_back(new_chip(n, number));
        box.chips.push_back(chip);
      }
      p_.chips[at(chip)].nodes.push_back(n);
      chip_of_node_[at(n)] = chip;
    }
    for (const auto& [value, to] : note.copies) {
      box.chips.push_back(static_cast<int32_t>(p_.chips.size()));
      Chip chip = new_chip(prepared().values_node(value), number);
      chip.label = "copy";
      chip.type = type_text(prepared().g.type(value));
      chip.writes = {destination_name(to)};
      copies_[static_cast<int32_t>(p_.chips.size())] = value;
      p_.chips.push_back(std::move(chip));
    }
    // The phase of most of its calls; of equals the later one.
    int counts[3] = {0, 0, 0};
    for (const int32_t c : box.chips) ++counts[static_cast<int>(p_.chips[at(c)].phase)];
    for (int k = 0; k < 3; ++k)
      if (counts[k] >= counts[static_cast<int>(box.phase)]) box.phase = static_cast<Origin::Phase>(k);
    p_.boxes.push_back(std::move(box));
  }

  Chip new_chip(int32_t n, int32_t box) const {
    const jit::Node& x = node(n);
    Chip chip;
    chip.box = box;
    chip.where = x.where;
    if (x.origin >= 0 && at(x.origin) < origins_.size()) {
      const Origin& o = origins_[at(x.origin)];
      chip.label = ops::def(o.op).name;
      chip.phase = o.phase;
      if (o.where.known()) chip.where = o.where;
    } else {
      // The planner's own: a copy for a reader that needs contiguous memory, or for an output.
      const bool copy = x.op == ops::OpId::cast && x.in[0] >= 0 &&
                        prepared().g.type(x.in[0]).dtype == prepared().g.type(x.out[0]).dtype;
      chip.label = copy ? "copy" : x.leaf == Leaf::op ? ops::def(x.op).name : "value";
      chip.phase = phase_of_reader(x);
    }
    return chip;
  }

  Origin::Phase phase_of_reader(const jit::Node& x) const {
    for (const int32_t v : x.out)
      for (const int32_t reader : prepared().users[at(v)])
        if (const int32_t o = node(reader).origin; o >= 0 && at(o) < origins_.size())
          return origins_[at(o)].phase;
    for (const Destination& d : destinations(x.out[0]))
      if (!d.output) return Origin::Phase::update;
    return Origin::Phase::forward;
  }

  // --- Lines ---

  void connect(int32_t c) {
    if (const auto copy = copies_.find(c); copy != copies_.end()) return reads(c, copy->second);
    Chip& chip = p_.chips[at(c)];
    int32_t shown = -1;  // the result whose type the chip shows: the last one that others or memory take
    for (const int32_t n : chip.nodes) {
      for (const int32_t v : node(n).in)
        if (v >= 0 && prepared().value_class(v) == jit::ValueClass::memory) reads(c, prepared().root(v));
      for (const int32_t v : node(n).out) {
        if (shown < 0 || leaves(c, v) || !leaves(c, shown)) shown = v;
        for (const Destination& d : destinations(v))
          if (!copied_.contains({v, d.output, d.index})) add_once(chip.writes, destination_name(d));
      }
    }
    if (shown >= 0) chip.type = type_text(prepared().g.type(shown));
  }

  std::span<const Destination> destinations(int32_t v) const {
    return at(v) < prepared().destinations.size()
               ? std::span<const Destination>(prepared().destinations[at(v)])
               : std::span<const Destination>();
  }
  bool leaves(int32_t c, int32_t v) const {
    if (!destinations(v).empty()) return true;
    for (const int32_t n : prepared().users[at(v)])
      if (chip_of_node_[at(n)] != c) return true;
    return false;
  }

  void reads(int32_t c, int32_t root) {
    const jit::Node& maker = prepared().g.node_of(root);
    Chip& chip = p_.chips[at(c)];
    if (maker.leaf == Leaf::input) {
      if (is_argument(maker.index))
        join(root, true, argument_box_[maker.index], c);
      else
        add_once(chip.reads, input_name(maker.index));
      return;
    }
    const int32_t from = chip_of_node_[at(prepared().values_node(root))];
    if (from < 0)
      add_once(chip.reads, std::string("constant ") + ops::def(maker.op).name);
    else if (from != c)
      join(root, false, from, c);
  }

  void join(int32_t value, bool argument, int32_t from, int32_t to) {
    Line& line = lines_[{from, value, argument}];
    line.value = value;
    line.argument = argument;
    line.from = from;
    if (std::find(line.to.begin(), line.to.end(), to) == line.to.end()) line.to.push_back(to);
  }

  const std::vector<Origin>& origins_;
  Picture p_;
  std::vector<int32_t> chip_of_node_;
  std::map<int32_t, int32_t> argument_box_;              // by input
  std::map<int32_t, int32_t> copies_;                    // chip -> value
  std::set<std::tuple<int32_t, bool, int32_t>> copied_;  // value and destination: a copy's work
  std::map<std::tuple<int32_t, int32_t, bool>, Line> lines_;
};

}  // namespace

std::string bytes_text(int64_t n) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(n);
  int unit = 0;
  while (value >= 1024 && unit < 4) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string type_text(const ops::TensorType& type) {
  return std::string(name(type.dtype)) + " " + to_string(type.sizes);
}

Picture picture_of(const Plan& plan) { return Drawer(plan).run(); }

}  // namespace tandem::tracer
