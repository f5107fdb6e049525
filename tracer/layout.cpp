// Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures (1981): longest
// paths give layers, long edges get a waypoint in each layer that they cross, orders are improved by
// barycenters, heights by pulling every item towards its neighbours.
#include "tandem/tracer/layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tandem::tracer {

namespace {

constexpr double kGapX = 44, kGapY = 22, kWaypointGap = 9;
constexpr int kSweeps = 24;

/// What lies in a layer: a node, or the waypoint of an edge.
struct Item {
  int32_t node = -1;  // -1: a waypoint
  int32_t layer = 0;
  double height = 0, y = 0;
  double order = 0;
};
struct Link {
  int32_t from, to;  // items, of neighbouring layers
  double from_port, to_port;
};

class LayeredLayout {
 public:
  explicit LayeredLayout(Layout& layout) : l_(layout) {}

  void run() {
    assign_layers();
    make_items();
    for (int i = 0; i < kSweeps; ++i) improve_order(i % 2 == 0);
    stack();
    for (int i = 0; i < kSweeps; ++i) pull(i % 2 == 0);
    place();
  }

 private:
  static constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

  void assign_layers() {
    layer_of_.assign(l_.nodes.size(), 0);
    std::vector<std::vector<int32_t>> after(l_.nodes.size());
    for (const LayoutEdge& e : l_.edges)
      for (const LayoutTarget& t : e.targets) after[at(e.from)].push_back(t.node);
    for (size_t n = 0; n < after.size(); ++n)
      for (const int32_t t : after[n]) layer_of_[at(t)] = std::max(layer_of_[at(t)], layer_of_[n] + 1);
    // What nothing leads to stands beside its first reader.
    std::vector<char> read(l_.nodes.size(), 0);
    for (const LayoutEdge& e : l_.edges)
      for (const LayoutTarget& t : e.targets) read[at(t.node)] = 1;
    for (size_t n = 0; n < after.size(); ++n) {
      if (read[n] || after[n].empty()) continue;
      int32_t first = layer_of_[at(after[n][0])];
      for (const int32_t t : after[n]) first = std::min(first, layer_of_[at(t)]);
      layer_of_[n] = first - 1;
    }
    int32_t layers = 0;
    for (const int32_t l : layer_of_) layers = std::max(layers, l + 1);
    layers_.resize(at(layers));
  }

  int32_t add(Item item) {
    item.order = static_cast<double>(layers_[at(item.layer)].size());
    layers_[at(item.layer)].push_back(static_cast<int32_t>(items_.size()));
    items_.push_back(item);
    return static_cast<int32_t>(items_.size()) - 1;
  }

  void make_items() {
    for (size_t n = 0; n < l_.nodes.size(); ++n)
      add({.node = static_cast<int32_t>(n), .layer = layer_of_[n], .height = l_.nodes[n].height});
    for (LayoutEdge& e : l_.edges) {
      // The waypoints of an edge are shared by its targets.
      std::vector<int32_t>& way = ways_.emplace_back();
      int32_t last = layer_of_[at(e.from)];
      for (const LayoutTarget& t : e.targets) last = std::max(last, layer_of_[at(t.node)]);
      int32_t previous = e.from;
      for (int32_t l = layer_of_[at(e.from)] + 1; l < last; ++l) {
        const int32_t w = add({.layer = l});
        links_.push_back({previous, w, previous == e.from ? e.port : 0, 0});
        way.push_back(previous = w);
      }
      for (const LayoutTarget& t : e.targets) {
        const int32_t before = layer_of_[at(t.node)] - layer_of_[at(e.from)] - 2;
        if (before < -1) continue;
        const int32_t from = before < 0 ? e.from : way[at(before)];
        links_.push_back({from, t.node, before < 0 ? e.port : 0, t.port});
      }
    }
    left_.resize(items_.size());
    right_.resize(items_.size());
    for (size_t k = 0; k < links_.size(); ++k) {
      right_[at(links_[k].from)].push_back(static_cast<int32_t>(k));
      left_[at(links_[k].to)].push_back(static_cast<int32_t>(k));
    }
  }

  void improve_order(bool rightwards) {
    const auto layers = static_cast<int32_t>(layers_.size());
    for (int32_t i = 0; i < layers; ++i) {
      std::vector<int32_t>& layer = layers_[at(rightwards ? i : layers - 1 - i)];
      std::vector<double> wish(layer.size());
      for (size_t k = 0; k < layer.size(); ++k) {
        const auto& links = rightwards ? left_[at(layer[k])] : right_[at(layer[k])];
        double sum = 0;
        for (const int32_t link : links) {
          const Link& x = links_[at(link)];
          // The port breaks ties between links of one node.
          sum += rightwards ? items_[at(x.from)].order + x.from_port * 1e-4
                            : items_[at(x.to)].order + x.to_port * 1e-4;
        }
        wish[k] = links.empty() ? items_[at(layer[k])].order : sum / static_cast<double>(links.size());
      }
      std::vector<size_t> order(layer.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return wish[a] < wish[b]; });
      std::vector<int32_t> sorted;
      for (const size_t k : order) sorted.push_back(layer[k]);
      layer = std::move(sorted);
      for (size_t k = 0; k < layer.size(); ++k) items_[at(layer[k])].order = static_cast<double>(k);
    }
  }

  double gap(const Item& above, const Item& below) const {
    return above.node < 0 || below.node < 0 ? kWaypointGap : kGapY;
  }

  void stack() {
    for (const std::vector<int32_t>& layer : layers_) {
      double y = 0;
      for (size_t k = 0; k < layer.size(); ++k) {
        Item& item = items_[at(layer[k])];
        if (k) y += gap(items_[at(layer[k - 1])], item);
        item.y = y;
        y += item.height;
      }
    }
  }

  /// Each item of each layer wishes to lie level with its neighbours on both sides; the order stays.
  void pull(bool rightwards) {
    const auto layers = static_cast<int32_t>(layers_.size());
    for (int32_t i = 0; i < layers; ++i) {
      const std::vector<int32_t>& layer = layers_[at(rightwards ? i : layers - 1 - i)];
      const size_t n = layer.size();
      std::vector<double> wish(n), up(n), down(n);
      for (size_t k = 0; k < n; ++k) {
        const Item& item = items_[at(layer[k])];
        double sum = 0, count = 0;
        for (const int32_t link : left_[at(layer[k])]) {
          const Link& x = links_[at(link)];
          sum += items_[at(x.from)].y + x.from_port - x.to_port, ++count;
        }
        for (const int32_t link : right_[at(layer[k])]) {
          const Link& x = links_[at(link)];
          sum += items_[at(x.to)].y + x.to_port - x.from_port, ++count;
        }
        wish[k] = count == 0 ? item.y : sum / count;
      }
      // Pushed apart downwards and upwards; the mean of the two keeps all gaps.
      for (size_t k = 0; k < n; ++k) {
        down[k] = wish[k];
        if (k) {
          const Item& above = items_[at(layer[k - 1])];
          down[k] = std::max(down[k], down[k - 1] + above.height + gap(above, items_[at(layer[k])]));
        }
      }
      for (size_t k = n; k-- > 0;) {
        up[k] = wish[k];
        if (k + 1 < n) {
          const Item& item = items_[at(layer[k])];
          up[k] = std::min(up[k], up[k + 1] - item.height - gap(item, items_[at(layer[k + 1])]));
        }
      }
      for (size_t k = 0; k < n; ++k) items_[at(layer[k])].y = (up[k] + down[k]) / 2;
    }
  }

  void place() {
    double top = 0, bottom = 0;
    for (const Item& i : items_) top = std::min(top, i.y), bottom = std::max(bottom, i.y + i.height);
    std::vector<double> x(layers_.size()), width(layers_.size(), 0);
    for (const Item& i : items_)
      if (i.node >= 0) width[at(i.layer)] = std::max(width[at(i.layer)], l_.nodes[at(i.node)].width);
    double next = 0;
    for (size_t l = 0; l < layers_.size(); ++l) {
      x[l] = next;
      // Many lines need room to cross.
      double lines = 0;
      for (const int32_t i : layers_[l]) lines += static_cast<double>(right_[at(i)].size());
      next += width[l] + kGapX + std::min(100.0, 2.5 * lines);
    }
    for (Item& i : items_) {
      i.y -= top;
      if (i.node < 0) continue;
      LayoutNode& n = l_.nodes[at(i.node)];
      n.x = x[at(i.layer)];
      n.y = i.y;
    }
    l_.width = layers_.empty() ? 0 : x.back() + width.back();
    l_.height = bottom - top;
    for (size_t k = 0; k < l_.edges.size(); ++k) {
      LayoutEdge& e = l_.edges[k];
      const LayoutNode& from = l_.nodes[at(e.from)];
      for (LayoutTarget& t : e.targets) {
        const LayoutNode& to = l_.nodes[at(t.node)];
        t.route = {{from.x + from.width, from.y + e.port}};
        // Out of narrow boxes of a wide layer, and across the layers between.
        t.route.push_back({x[at(layer_of_[at(e.from)])] + width[at(layer_of_[at(e.from)])], from.y + e.port});
        for (const int32_t w : ways_[k]) {
          const Item& item = items_[at(w)];
          if (item.layer >= layer_of_[at(t.node)]) break;
          t.route.push_back({x[at(item.layer)], item.y});
          t.route.push_back({x[at(item.layer)] + width[at(item.layer)], item.y});
        }
        t.route.push_back({to.x, to.y + t.port});
      }
    }
  }

  Layout& l_;
  std::vector<int32_t> layer_of_;             // per node
  std::vector<Item> items_;                   // nodes first
  std::vector<std::vector<int32_t>> layers_;  // items, from above
  std::vector<std::vector<int32_t>> ways_;    // per edge: waypoints, by layer
  std::vector<Link> links_;
  std::vector<std::vector<int32_t>> left_, right_;  // per item: links
};

}  // namespace

void lay_out(Layout& layout) { LayeredLayout(layout).run(); }

}  // namespace tandem::tracer
