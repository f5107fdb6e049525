// Where the boxes of a drawing lie: layers from left to right, edges that pass through the gaps of the layers
// between. Deterministic; values; any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::tracer {

struct Point {
  double x = 0, y = 0;
};

/// A node: its size is given, its place is the result. Nodes are in topological order.
struct LayoutNode {
  double width = 0, height = 0;
  double x = 0, y = 0;  // the result: upper left corner
};

/// From one node to others that read the same value. Ports are heights below the nodes' upper edges.
struct LayoutTarget {
  int32_t node = 0;
  double port = 0;
  std::vector<Point> route;  // the result: pairs of points; between pairs the line may bend
};
struct LayoutEdge {
  int32_t from = 0;
  double port = 0;
  std::vector<LayoutTarget> targets;
};

struct Layout {
  std::vector<LayoutNode> nodes;
  std::vector<LayoutEdge> edges;
  double width = 0, height = 0;  // the result
};

/// Fills the results. Targets lie later than the node that they read from.
void lay_out(Layout& layout);

}  // namespace tandem::tracer
