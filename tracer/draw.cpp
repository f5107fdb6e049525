// A trace as one HTML page: each plan a picture of inline SVG, what a click shows as hidden sections beside
// it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "tandem/core/io/file.h"
#include "tandem/tracer/inspect.h"
#include "tandem/tracer/layout.h"
#include "tandem/tracer/page.h"
#include "tandem/tracer/picture.h"

namespace tandem::tracer {

using jit::EntryKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

constexpr double kPad = 8, kHead = 32, kLineHeight = 13, kChipGap = 10, kLane = 7, kMargin = 24;
constexpr double kLetter = 6.1, kNameLetter = 7.3;  // widths, with room for fonts that are wider
constexpr size_t kMostLetters = 26;

constexpr const char* kPhases[] = {"forward", "backward", "update"};
const char* phase_name(Origin::Phase p) { return kPhases[static_cast<int>(p)]; }

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t' ? c : ' ';
    }
  return out;
}

std::string cut(const std::string& text, size_t most = kMostLetters) {
  return text.size() <= most ? text : text.substr(0, most - 1) + "…";
}

std::string joined(const std::vector<std::string>& list) {
  std::string out;
  for (const std::string& s : list) out += (out.empty() ? "" : " ") + s;
  return out;
}

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", v);
  return text;
}

std::string line_of(Location where) { return where.known() ? to_string(where) : "no line"; }

/// A chip's text: its name, then smaller lines.
std::vector<std::string> chip_text(const Chip& c) {
  std::vector<std::string> out = {cut(c.label, 22), cut(c.type)};
  if (!c.reads.empty()) out.push_back("← " + cut(joined(c.reads), kMostLetters - 2));
  if (!c.writes.empty()) out.push_back("→ " + cut(joined(c.writes), kMostLetters - 2));
  return out;
}
double letters(const std::string& text) {
  return static_cast<double>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

class PlanPage {
 public:
  PlanPage(const Plan& plan, int index)
      : p_(picture_of(plan)), key_("p" + std::to_string(index)), index_(index) {}

  std::string stage() {
    arrange();
    std::string out = "<div class=\"stage\" id=\"stage-" + std::to_string(index_) + "\"><svg data-w=\"" +
                      number(layout_.width + 2 * kMargin) + "\" data-h=\"" +
                      number(layout_.height + 2 * kMargin) +
                      "\"><g class=\"world\"><g transform=\"translate(" + number(kMargin) + " " +
                      number(kMargin) + ")\">\n";
    for (size_t b = 0; b < p_.boxes.size(); ++b) out += frame(static_cast<int32_t>(b));
    out += lines();
    return out + "</g></g></svg></div>\n";
  }

  /// What clicks show.
  std::string details() const {
    std::string out;
    for (size_t b = 0; b < p_.boxes.size(); ++b)
      out += p_.boxes[b].entry < 0 ? argument_detail(b) : box_detail(b);
    for (size_t c = 0; c < p_.chips.size(); ++c) out += chip_detail(c);
    for (size_t k = 0; k < p_.plan.sources.size(); ++k) {
      out += section(id("source", k), p_.plan.compiled[k] ? "Kernel source" : "Kernel, interpreted");
      out += "<pre class=\"source\">" + escape(p_.plan.sources[k]) + "</pre></section>\n";
    }
    return out;
  }

 private:
  /// Where a chip lies in its box.
  struct Place {
    double y = 0, height = 0;
  };

  std::string id(const char* what, size_t i) const { return key_ + what + std::to_string(i); }
  std::string id(const char* what, int32_t i) const { return id(what, at(i)); }

  static std::string section(const std::string& id, const std::string& title, const char* kind = "") {
    return "<section class=\"detail" + std::string(kind) + "\" hidden=\"hidden\" id=\"d-" + id + "\"><h2>" +
           escape(title) + "</h2>";
  }

  // --- Places ---

  void arrange() {
    places_.resize(p_.chips.size());
    lanes_.resize(p_.boxes.size());
    widths_.resize(p_.boxes.size());
    for (const Line& l : p_.lines)
      for (const int32_t t : l.to)
        if (!l.argument && p_.chips[at(t)].box == p_.chips[at(l.from)].box)
          lanes_[at(p_.chips[at(t)].box)].push_back({l.from, t, 0});
    for (size_t b = 0; b < p_.boxes.size(); ++b) arrange_box(b);
    for (const Line& l : p_.lines) {
      const int32_t from = l.argument ? l.from : p_.chips[at(l.from)].box;
      LayoutEdge e{from, l.argument ? layout_.nodes[at(from)].height / 2 : port(l.from), {}};
      std::vector<int32_t> to;
      for (const int32_t t : l.to) {
        const int32_t box = p_.chips[at(t)].box;
        if (!l.argument && box == from) continue;
        e.targets.push_back({box, port(t), {}});
        to.push_back(t);
      }
      if (e.targets.empty()) continue;
      layout_.edges.push_back(std::move(e));
      targets_.emplace_back(&l, std::move(to));
    }
    lay_out(layout_);
  }

  double port(int32_t chip) const { return places_[at(chip)].y + places_[at(chip)].height / 2; }

  void arrange_box(size_t b) {
    const Box& box = p_.boxes[b];
    double width = std::max(letters(box.title), letters(box.note)) * kLetter;
    double y = kHead;
    for (const int32_t c : box.chips) {
      const std::vector<std::string> text = chip_text(p_.chips[at(c)]);
      for (size_t i = 0; i < text.size(); ++i)
        width = std::max(width, letters(text[i]) * (i ? kLetter : kNameLetter) + 12);
      places_[at(c)] = {y, static_cast<double>(text.size()) * kLineHeight + 8};
      y += places_[at(c)].height + kChipGap;
    }
    widths_[b] = width;
    layout_.nodes.push_back(
        {width + 2 * kPad + assign_lanes(b) * kLane, y - (box.chips.empty() ? 0 : kChipGap) + kPad});
  }

  /// Lines inside a box that pass over chips run beside them, short ones inside.
  int assign_lanes(size_t b) {
    std::vector<Inner>& inner = lanes_[b];
    std::stable_sort(inner.begin(), inner.end(), [&](const Inner& x, const Inner& y) {
      return std::abs(port(x.to) - port(x.from)) < std::abs(port(y.to) - port(y.from));
    });
    std::vector<std::vector<std::pair<double, double>>> taken;
    for (Inner& i : inner) {
      if (next_to(i)) continue;
      const double low = std::min(port(i.from), port(i.to)), high = std::max(port(i.from), port(i.to));
      size_t lane = 0;
      const auto meets = [&](const std::pair<double, double>& t) { return low < t.second && t.first < high; };
      while (lane < taken.size() && std::any_of(taken[lane].begin(), taken[lane].end(), meets)) ++lane;
      if (lane == taken.size()) taken.emplace_back();
      taken[lane].emplace_back(low, high);
      i.lane = static_cast<int>(lane) + 1;
    }
    return static_cast<int>(taken.size()) + (taken.empty() ? 0 : 1);
  }

  struct Inner {
    int32_t from, to;
    int lane;  // 0: straight, between neighbours
  };
  bool next_to(const Inner& i) const {
    const std::vector<int32_t>& chips = p_.boxes[at(p_.chips[at(i.from)].box)].chips;
    const auto from = std::find(chips.begin(), chips.end(), i.from);
    return from + 1 != chips.end() && from[1] == i.to;
  }

  // --- Drawing ---

  static std::string rect(const std::string& kind, double x, double y, double w, double h, double r) {
    return "<rect class=\"" + kind + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" +
           number(w) + "\" height=\"" + number(h) + "\" rx=\"" + number(r) + "\"/>";
  }
  static std::string text(const char* kind, double x, double y, const std::string& what) {
    return "<text class=\"" + std::string(kind) + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\">" +
           escape(what) + "</text>";
  }

  std::string frame(int32_t b) {
    const Box& box = p_.boxes[at(b)];
    const LayoutNode& n = layout_.nodes[at(b)];
    std::string show = "d-" + id("box", b), kind = "argument";
    if (box.entry >= 0) {
      const jit::Entry& e = p_.plan.plan.entries[at(box.entry)];
      kind = e.kind == EntryKind::kernel ? "kernel" : e.kind == EntryKind::product ? "product" : "native";
      if (e.kind == EntryKind::kernel) show += " d-" + id("source", e.index);
      if (e.kind == EntryKind::product)
        for (int32_t t = e.first; t < e.first + e.count; ++t)
          show += " d-" + id("source", p_.plan.plan.tails[at(t)].kernel);
      for (int32_t j = e.first_join; j < e.first_join + e.joins; ++j)
        show += " d-" + id("source", p_.plan.plan.joins[at(j)].kernel);
    }
    std::string out = "<g class=\"box " + kind + "\" id=\"" + id("box", b) + "\" data-show=\"" + show +
                      "\" transform=\"translate(" + number(n.x) + " " + number(n.y) + ")\">";
    out += rect("frame", 0, 0, n.width, n.height, 7);
    out += text("title", kPad, 14, box.title) + text("", kPad, 26, box.note);
    for (const int32_t c : box.chips) {
      const Chip& chip = p_.chips[at(c)];
      const Place& place = places_[at(c)];
      out += "\n<g class=\"chip\" id=\"" + id("chip", c) + "\" data-show=\"d-" + id("chip", c) + " " + show +
             "\">" + rect(phase_name(chip.phase), kPad, place.y, widths_[at(b)], place.height, 4);
      const std::vector<std::string> lines = chip_text(chip);
      for (size_t i = 0; i < lines.size(); ++i)
        out += text(i ? "" : "name", kPad + 6, place.y + 14 + static_cast<double>(i) * kLineHeight, lines[i]);
      out += "</g>";
    }
    for (const Inner& i : lanes_[at(b)]) out += inner_line(i, widths_[at(b)]);
    return out + "</g>\n";
  }

  static std::string ends(const std::string& from, const std::string& to) {
    return " data-from=\"" + from + "\" data-to=\"" + to + "\"";
  }

  std::string inner_line(const Inner& i, double width) const {
    const Place &a = places_[at(i.from)], &b = places_[at(i.to)];
    const std::string who = ends(id("chip", i.from), id("chip", i.to));
    if (i.lane == 0) {
      const double x = kPad + width / 2, y = b.y;
      return "<path class=\"line\"" + who + " d=\"M " + number(x) + " " + number(a.y + a.height) + " V " +
             number(y - 4) + "\"/><path class=\"head\"" + who + " d=\"M " + number(x) + " " + number(y) +
             " l -3.5 -6 h 7 z\"/>";
    }
    const double x = kPad + width, lane = x + kLane * i.lane + 2, y0 = port(i.from) + 5, y1 = port(i.to) - 5;
    return "<path class=\"line\"" + who + " d=\"M " + number(x) + " " + number(y0) + " H " + number(lane) +
           " V " + number(y1) + " H " + number(x + 5) + "\"/><path class=\"head\"" + who + " d=\"M " +
           number(x) + " " + number(y1) + " l 6 -3.5 v 7 z\"/>";
  }

  std::string lines() const {
    std::string out;
    for (size_t e = 0; e < layout_.edges.size(); ++e) {
      const Line& line = *targets_[e].first;
      const std::string from = line.argument ? id("box", line.from) : id("chip", line.from);
      // From the chip through its box's edge lane, and from the other box's edge to the chip.
      const double inside = line.argument ? 0
                                          : layout_.nodes[at(p_.chips[at(line.from)].box)].width - kPad -
                                                widths_[at(p_.chips[at(line.from)].box)];
      for (size_t t = 0; t < layout_.edges[e].targets.size(); ++t) {
        const std::string who = ends(from, id("chip", targets_[e].second[t]));
        const std::vector<Point>& r = layout_.edges[e].targets[t].route;
        const Point end{r.back().x + kPad, r.back().y};
        std::string path = "M " + number(r[0].x - inside) + " " + number(r[0].y);
        for (size_t k = 1; k < r.size(); ++k) {
          if (k % 2 == 1) {
            path += " H " + number(r[k].x);
          } else {
            const double middle = (r[k - 1].x + r[k].x) / 2;
            path += " C " + number(middle) + " " + number(r[k - 1].y) + " " + number(middle) + " " +
                    number(r[k].y) + " " + number(r[k].x) + " " + number(r[k].y);
          }
        }
        out += "<path class=\"line\"" + who + " d=\"" + path + " H " + number(end.x - 5) +
               "\"/><path class=\"head\"" + who + " d=\"M " + number(end.x) + " " + number(end.y) +
               " l -6.5 -3.5 v 7 z\"/>\n";
      }
    }
    return out;
  }

  // --- Details ---

  using Row = std::array<std::string, 3>;
  static std::string table(const std::vector<Row>& rows) {
    std::string out = "<table>";
    for (const Row& r : rows) {
      out +=
          "<tr><th>" + escape(r[0]) + "</th><td>" + escape(r[1]) + "</td><td>" + escape(r[2]) + "</td></tr>";
    }
    return out + "</table>";
  }
  Row value_row(const std::string& what, int32_t v) const {
    const ops::TensorType& t = p_.plan.prepared.g.type(v);
    return {what + " %" + std::to_string(v), type_text(t), bytes_text(numel(t.sizes) * itemsize(t.dtype))};
  }

  std::string argument_detail(size_t b) const {
    return section(id("box", b), p_.boxes[b].title + ": an argument") + "<p>" + escape(p_.boxes[b].note) +
           "</p></section>\n";
  }

  std::string box_detail(size_t b) const {
    const Box& box = p_.boxes[b];
    const jit::Entry& e = p_.plan.plan.entries[at(box.entry)];
    const jit::EntryNote& note = p_.plan.plan.notes[at(box.entry)];
    std::vector<Row> rows = {{"reads", bytes_text(note.bytes_read), ""},
                             {"writes", bytes_text(note.bytes_written), ""},
                             {"calls", std::to_string(box.chips.size()), ""},
                             {"ops", std::to_string(note.nodes.size()), ""}};
    if (e.kind == EntryKind::kernel)
      rows.push_back({"code", p_.plan.compiled[at(e.index)] ? "compiled" : "interpreted", ""});
    return section(id("box", b), box.title) + "<p>" + escape(e.name) + "</p><p>" + escape(line_of(e.where)) +
           "</p>" + table(rows) + "<pre>" + escape(p_.entry_text[at(box.entry)]) + "</pre></section>\n";
  }

  /// The node, and before it the numbers and views that it reads, which are part of nothing else.
  void list_node(int32_t n, std::vector<char>& listed, std::string& out) const {
    if (listed[at(n)]) return;
    listed[at(n)] = 1;
    const jit::Prepared& p = p_.plan.prepared;
    for (const int32_t v : p.g.nodes[at(n)].in) {
      if (v < 0) continue;
      const jit::Node& m = p.g.node_of(v);
      const bool free =
          p.value_class(v) != jit::ValueClass::memory || p.root(v) != v || m.leaf == jit::Leaf::input;
      if (free) list_node(p.values_node(v), listed, out);
    }
    out += escape(p_.node_text[at(n)]) + "\n";
  }

  std::string chip_detail(size_t c) const {
    const Chip& chip = p_.chips[c];
    const jit::Prepared& p = p_.plan.prepared;
    std::vector<Row> rows;
    std::vector<char> listed(p.g.nodes.size(), 0);
    std::string text;
    std::vector<int32_t> read;
    for (const int32_t n : chip.nodes) {
      list_node(n, listed, text);
      for (const int32_t v : p.g.nodes[at(n)].in) {
        if (v < 0 || p.value_class(v) != jit::ValueClass::memory) continue;
        const int32_t root = p.root(v);
        const bool own =
            std::find(chip.nodes.begin(), chip.nodes.end(), p.values_node(root)) != chip.nodes.end();
        if (!own && std::find(read.begin(), read.end(), root) == read.end()) read.push_back(root);
      }
    }
    for (const int32_t v : read) {
      const int32_t input = p.input_of(v);
      rows.push_back(value_row(input < 0 ? "reads" : "reads " + p.g.inputs[at(input)].name, v));
    }
    for (const int32_t n : chip.nodes)
      for (const int32_t v : p.g.nodes[at(n)].out) rows.push_back(value_row("makes", v));
    for (const std::string& w : chip.writes) rows.push_back({"stored in", w, ""});
    return section(id("chip", c), chip.label, " op") + "<p>" + phase_name(chip.phase) + "</p><p>" +
           escape(line_of(chip.where)) + "</p>" + table(rows) + "<pre>" + text + "</pre></section>\n";
  }

  Picture p_;
  std::string key_;
  int index_;
  Layout layout_;                                                      // a node a box
  std::vector<std::pair<const Line*, std::vector<int32_t>>> targets_;  // per edge of the layout
  std::vector<Place> places_;                                          // per chip
  std::vector<std::vector<Inner>> lanes_;                              // per box: lines inside it
  std::vector<double> widths_;                                         // per box: of its chips
};

std::string arguments_text(const Record& r) {
  std::string out;
  for (const ArgumentType& a : r.key)
    out += (out.empty() ? "" : ", ") + std::string(name(a.dtype)) + " " + to_string(a.sizes);
  return out.empty() ? "no arguments" : out;
}

constexpr const char* kKeys =
    "<span class=\"key\"><i class=\"argument-key\"></i>argument</span>"
    "<span class=\"key\"><i class=\"forward\"></i>forward</span>"
    "<span class=\"key\"><i class=\"backward\"></i>backward</span>"
    "<span class=\"key\"><i class=\"update\"></i>update</span>"
    "<span><button id=\"closer\">+</button> <button id=\"farther\">-</button> "
    "<button id=\"fit\">fit</button></span>";

std::string draw_page(const Trace& trace) {
  const Inspected seen = inspect(trace);
  std::string tabs, stages, details;
  int plans = 0;
  for (size_t s = 0; s < seen.records.size(); ++s) {
    const Record& r = *seen.records[s];
    for (size_t k = 0; k < r.segments.size(); ++k) {
      if (!r.segments[k].plan) continue;
      const std::string name = "signature " + std::to_string(s) + ", segment " + std::to_string(k);
      PlanPage page(*r.segments[k].plan, plans);
      tabs += "<button class=\"plan\" data-plan=\"" + std::to_string(plans) + "\">" + name + "</button> ";
      stages += page.stage();
      details +=
          "<section class=\"detail\" id=\"about-" + std::to_string(plans) + "\"><h2>" + name + "</h2><p>" +
          escape(arguments_text(r)) +
          "</p><p>A box is one launch: the ops in it run together. Click a box or an op; drag to move, turn "
          "the wheel to zoom. &#8592; reads and &#8594; writes what was captured or is a result.</p><pre>" +
          escape(to_string(report(seen))) + "</pre></section>\n" + page.details();
      ++plans;
    }
  }
  if (plans == 0)
    stages =
        "<div class=\"empty\"><p>No graph yet.</p><pre>" + escape(to_string(report(seen))) + "</pre></div>";
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>" +
         escape(seen.options.name) + "</title><style>" + kPageStyle + "</style></head>\n<body><header><h1>" +
         escape(seen.options.name) + "</h1>" + kKeys + "<span>" + (plans > 1 ? tabs : "") +
         "</span></header>\n<main>" + stages + "<aside>" + details + "</aside></main>\n<script>" +
         kPageScript + "</script></body></html>\n";
}

}  // namespace

void draw(const Trace& trace, const std::string& path, Location where) {
  try {
    core::write_file_atomic(path, draw_page(trace));
  } catch (const Error& e) {
    fail_again(e, "draw", where);
  }
}

}  // namespace tandem::tracer
