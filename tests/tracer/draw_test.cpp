// Drawings: the page is whole and well-formed, every op and kernel of the plan is on it, nothing overlaps.
#include <cstdlib>
#include <random>
#include <set>
#include <sstream>

#include "tandem/core/io/file.h"
#include "tandem/tandem.h"
#include "tandem/tracer/layout.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/xml.h"

namespace td = tandem;
using td::tracer::Layout;
using td::tracer::LayoutEdge;
using td::tracer::LayoutNode;
using td::tracer::LayoutTarget;
using td::tracer::Point;

namespace {

struct Net : td::nn::Module {
  td::nn::Linear a = child<td::nn::Linear>("a", 12, 20);
  td::nn::LayerNorm norm = child<td::nn::LayerNorm>("norm", 20);
  td::nn::Linear b = child<td::nn::Linear>("b", 20, 5);
  td::Tensor forward(const td::Tensor& x) { return b(td::gelu(norm(a(x)))); }
};

const char* const kName = "a <b> & \"c\" 'd'\x01";

struct Drawn {
  std::string text, code;
  td::TraceReport report;
  int line = 0;
};

/// A training step with a cumulative sum (a native), drawn.
Drawn drawn_step(const std::string& path) {
  td::manual_seed(1);
  Net net;
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
  Drawn out;
  auto step = td::trace(
      [&](const td::Tensor& x, const td::Tensor& y) {
        const td::Tensor z = net.forward(x).cumsum(1);
        out.line = __LINE__ + 1;
        td::Tensor loss = td::cross_entropy(z, y);
        opt.zero_grad();
        loss.backward();
        opt.step();
        return loss;
      },
      {.name = kName});
  const td::Tensor x = td::randn({8, 12}), y = td::randint(0, 5, {8}, {.dtype = td::int64});
  for (int i = 0; i < 2; ++i) step(x, y);
  step.draw(path);
  out.text = td::core::read_file(path);
  out.code = step.code();
  out.report = step.report();
  return out;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> out;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) out.push_back(part);
  return out;
}

struct Rect {
  double x = 0, y = 0, w = 0, h = 0;
  bool meets(const Rect& o) const { return x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h; }
  bool holds(const Rect& o) const { return x <= o.x && y <= o.y && o.x + o.w <= x + w && o.y + o.h <= y + h; }
};
Rect rect_of(const xml::Element& e) {
  const auto number = [&](const char* key) { return std::strtod(e[key].c_str(), nullptr); };
  return {number("x"), number("y"), number("width"), number("height")};
}
Point shift_of(const xml::Element& e) {
  Point p;
  REQUIRE(std::sscanf(e["transform"].c_str(), "translate(%lf %lf)", &p.x, &p.y) == 2);
  return p;
}

std::map<std::string, const xml::Element*> by_id(const xml::Element& page) {
  std::map<std::string, const xml::Element*> out;
  page.each([&](const xml::Element& e) {
    if (e["id"].empty()) return;
    CHECK(out.emplace(e["id"], &e).second);
  });
  return out;
}

}  // namespace

TEST_CASE("a drawing holds every op and kernel of its plan") {
  const ScratchFolder scratch;
  const Drawn d = drawn_step(scratch / "step.html");
  const xml::Element page = xml::parse(d.text);
  const auto ids = by_id(page);
  CHECK(page.name == "html");

  // Nothing from elsewhere.
  for (const char* outside : {"http:", "https:", "//www", "src=", "href=", "@import", "url("})
    CHECK(d.text.find(outside) == std::string::npos);

  int boxes = 0, sources = 0;
  std::set<std::string> phases;
  page.each([&](const xml::Element& e) {
    boxes += e.is("box") && !e.is("argument");
    sources += e.is("source");
    for (const char* p : {"forward", "backward", "update"})
      if (e.name == "rect" && e.is(p)) phases.insert(p);
    std::string refs = e["data-show"] + " " + e["data-from"] + " " + e["data-to"];
    for (const std::string& ref : split(refs, ' ')) {
      if (ref.empty()) continue;
      INFO(ref);
      CHECK(ids.contains(ref));
    }
  });
  CHECK(boxes == d.report.entries);
  CHECK(d.report.natives > 0);
  CHECK(sources == d.report.distinct_kernels);
  CHECK(phases.size() == 3);

  // The plan's text names every entry's ops, the kernels' in order and joined by +.
  int entries = 0;
  for (const std::string& line : split(d.code, '\n')) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos || line.find_first_not_of("0123456789") != colon) continue;
    const std::vector<std::string> words = split(line, ' ');
    const bool kernel = words.at(2) == "kernel";
    const std::vector<std::string> ops = split(words.at(kernel ? 4 : 2), '+');
    const std::string entry = words[0];  // "3:"
    const xml::Element* box = nullptr;
    page.each([&](const xml::Element& e) {
      if (e.is("box") && !e.is("argument") && e.all_text().find("\n" + entry + " ") != std::string::npos)
        box = &e;
    });
    INFO(line);
    REQUIRE(box);
    ++entries;
    std::string text;
    box->each([&](const xml::Element& e) {
      if (e.is("chip")) text += ids.at("d-" + e["id"])->all_text();
    });
    std::map<std::string, size_t> wanted;
    for (const std::string& op : ops) ++wanted[op];
    for (const auto& [op, n] : wanted) {
      INFO(op);
      size_t found = 0;
      for (size_t at = text.find(" = " + op + "("); at != std::string::npos;
           at = text.find(" = " + op + "(", at + 1))
        ++found;
      CHECK(found >= n);
    }
  }
  CHECK(entries == d.report.entries);

  // What is asked of a click: shapes, dtypes, bytes, the user's line, source.
  bool loss = false;
  for (const auto& [id, e] : ids) {
    if (id.rfind("d-p0chip", 0) != 0) continue;
    const std::string text = e->all_text();
    loss |= text.find("cross_entropy") != std::string::npos &&
            text.find("draw_test.cpp:" + std::to_string(d.line)) != std::string::npos &&
            text.find("float32 (8, 5)") != std::string::npos && text.find("160 B") != std::string::npos;
  }
  CHECK(loss);
  CHECK(d.text.find("extern &quot;C&quot; void tandem_") != std::string::npos);
  // Names are text, not markup.
  CHECK(d.text.find("a &lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; ") != std::string::npos);
  CHECK(page.children.at(1).all_text().find("a <b> & \"c\" 'd' ") != std::string::npos);
}

TEST_CASE("boxes, ops and their texts do not overlap") {
  const ScratchFolder scratch;
  const xml::Element page = xml::parse(drawn_step(scratch / "step.html").text);
  std::vector<Rect> frames;
  page.each([&](const xml::Element& box) {
    if (!box.is("box")) return;
    const Point shift = shift_of(box);
    Rect frame = rect_of(box.children.at(0));
    std::vector<Rect> chips;
    for (const xml::Element& c : box.children) {
      if (!c.is("chip")) continue;
      const Rect r = rect_of(c.children.at(0));
      CHECK(frame.holds(r));
      for (const Rect& other : chips) CHECK_FALSE(r.meets(other));
      chips.push_back(r);
      double above = r.y;
      for (const xml::Element& t : c.children) {
        if (t.name != "text") continue;
        size_t letters = 0;
        for (const char ch : t.text) letters += (static_cast<unsigned char>(ch) & 0xC0) != 0x80;
        const double x = std::strtod(t["x"].c_str(), nullptr), y = std::strtod(t["y"].c_str(), nullptr);
        CHECK(x + 6.0 * static_cast<double>(letters) <= r.x + r.w);  // monospace at 10 pixels
        CHECK(y - 10 > above - 1);
        CHECK(y < r.y + r.h);
        above = y;
      }
    }
    frame.x += shift.x, frame.y += shift.y;
    for (const Rect& other : frames) CHECK_FALSE(frame.meets(other));
    frames.push_back(frame);
  });
  CHECK(frames.size() > 10);
}

TEST_CASE("lines of a layout pass between its nodes") {
  std::mt19937 random(5);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 40; ++round) {
    Layout l;
    const size_t n = 2 + below(30);
    for (size_t i = 0; i < n; ++i)
      l.nodes.push_back({20.0 + static_cast<double>(below(100)), 20.0 + static_cast<double>(below(80))});
    for (size_t i = 0; i + 1 < n; ++i) {
      LayoutEdge e{static_cast<int32_t>(i), l.nodes[i].height / 2, {}};
      for (size_t k = below(4); k > 0; --k) {
        const size_t to = i + 1 + below(n - i - 1);
        e.targets.push_back({static_cast<int32_t>(to), l.nodes[to].height / 3, {}});
      }
      if (!e.targets.empty()) l.edges.push_back(e);
    }
    td::tracer::lay_out(l);
    for (size_t i = 0; i < n; ++i) {
      const Rect a{l.nodes[i].x, l.nodes[i].y, l.nodes[i].width, l.nodes[i].height};
      CHECK((Rect{-0.01, -0.01, l.width + 0.02, l.height + 0.02}.holds(a)));
      for (size_t k = 0; k < i; ++k)
        CHECK_FALSE(a.meets({l.nodes[k].x, l.nodes[k].y, l.nodes[k].width, l.nodes[k].height}));
    }
    for (const LayoutEdge& e : l.edges)
      for (const LayoutTarget& t : e.targets) {
        const LayoutNode& from = l.nodes[static_cast<size_t>(e.from)];
        const LayoutNode& to = l.nodes[static_cast<size_t>(t.node)];
        CHECK(from.x + from.width < to.x);
        CHECK(t.route.front().x == from.x + from.width);
        CHECK(t.route.back().x == to.x);
        CHECK(t.route.size() % 2 == 1);
        // Level stretches cross layers; what lies between two of them is a gap.
        for (size_t k = 0; k + 1 < t.route.size(); k += 2)
          for (const LayoutNode& node : l.nodes) {
            const Rect r{node.x, node.y, node.width, node.height};
            const Rect way{t.route[k].x, t.route[k].y, t.route[k + 1].x - t.route[k].x, 0.001};
            CHECK(way.w >= 0);
            if (&node != &from) CHECK_FALSE(r.meets(way));
          }
      }
  }
}

TEST_CASE("several plans, none, and a path that cannot be written") {
  const ScratchFolder scratch;
  auto f = td::trace([](const td::Tensor& x) { return x.sum().item<float>() > 0 ? x * 2 : x - 1; });
  f.draw(scratch / "none.html");
  CHECK(xml::parse(td::core::read_file(scratch / "none.html")).all_text().find("No graph yet") !=
        std::string::npos);
  for (int i = 0; i < 3; ++i) {
    f(td::ones({4}));
    f(-td::ones({4}));
  }
  f.draw(scratch / "some.html");
  const std::string text = td::core::read_file(scratch / "some.html");
  const xml::Element page = xml::parse(text);
  int stages = 0, tabs = 0;
  page.each([&](const xml::Element& e) {
    stages += e.is("stage");
    tabs += e.is("plan");
  });
  CHECK(stages == f.report().plans);
  CHECK(tabs == stages);
  CHECK(stages == 3);
  try {
    f.draw(scratch / "no/such/folder/x.html");
    FAIL("no error");
  } catch (const td::Error& e) {
    CHECK(std::string(e.what()).find("no/such/folder") != std::string::npos);
    CHECK(std::string(e.what()).find("draw_test.cpp:" + std::to_string(__LINE__ - 4)) != std::string::npos);
  }
}

TEST_CASE("copies, constants, views and empty results have their place") {
  const ScratchFolder scratch;
  const auto page = [&](auto f, const std::vector<td::Tensor>& args) {
    auto traced = td::trace(f, {.compile = false});
    for (int i = 0; i < 2; ++i) traced(args);
    traced.draw(scratch / "p.html");
    return xml::parse(td::core::read_file(scratch / "p.html"));
  };
  const auto boxes_with = [](const xml::Element& p, const std::string& text) {
    int n = 0;
    p.each([&](const xml::Element& e) { n += e.is("box") && e.all_text().find(text) != std::string::npos; });
    return n;
  };
  using List = std::vector<td::Tensor>;
  td::Tensor a = td::ones({6}), b = td::zeros({6});
  // Each takes the other's old value: one of them waits in memory of its own.
  const auto swap = [&](const List& l) {
    const td::NoGrad no_grad;
    const td::Tensor old = a.clone();
    a.copy_(b);
    b.copy_(old);
    return l[0] + 1;
  };
  CHECK(boxes_with(page(swap, {td::ones({2})}), "copy") == 3);
  const auto viewed = [](const List& l) {
    return td::matmul(l[0].transpose(0, 1), l[1].narrow(0, 1, 3)).reshape({-1});
  };
  const xml::Element views = page(viewed, {td::ones({3, 4}), td::ones({5, 2})});
  CHECK(boxes_with(views, "arg1") >= 1);
  // Views are listed with the op that reads them.
  CHECK(views.all_text().find("= permute(") != std::string::npos);
  CHECK(views.all_text().find("= slice(") != std::string::npos);
  CHECK(boxes_with(page([](const List&) { return td::arange(0.f, 5) * 2; }, {}), "mul") == 1);
  CHECK(boxes_with(page([](const List& l) { return l[0] + l[0].sum({0}); }, {td::ones({0, 3})}), "arg0") ==
        1);
  CHECK(boxes_with(page(
                       [](const List& l) {
                         return td::cat({l[0], l[0]}, 0);
                       },
                       {td::ones({3})}),
                   "cat") == 1);
  CHECK(boxes_with(page(
                       [](const List& l) {
                         return l[0].reshape({3, 2}).clone();
                       },
                       {td::ones({6})}),
                   "out0") == 1);
}
