// Passes: graph text in, graph text out. What must not be folded because a bit could change stands beside
// what is.
#include <map>
#include <type_traits>

#include "tandem/core/error.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/graph.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

/// Runs one pass and checks the result; the text comes without "graph {" and "}".
std::string run(const std::string& pass, const std::string& body) {
  for (const Pass& p : passes()) {
    if (p.name != pass) continue;
    const Graph g = p.run(parse_graph("graph {" + body + "}"));
    check(g, p.name);
    std::string text = to_string(g);
    text.erase(0, text.find('\n') + 1);
    return text.substr(0, text.size() - 2);
  }
  FAIL("no pass " + pass);
  return "";
}

/// As it is printed when no pass touches it.
std::string untouched(const std::string& body) {
  std::string text = to_string(parse_graph("graph {" + body + "}"));
  text.erase(0, text.find('\n') + 1);
  return text.substr(0, text.size() - 2);
}

int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

const std::string kX = "%x = input float32(3, 4) strides (4, 1)\n";

}  // namespace

TEST_CASE("a type that an emitter gave stays while more is emitted", "[passes]") {
  Graph g;
  GraphEmitter e(g, true);
  const ops::Value x{g.add_input({DType::float32, cpu, false, {3, 5}}, {5, 1}, "x")};
  const ops::TensorType& type = e.type(x);  // of the emitter's own, where it is no copy: freed below
  static_assert(!std::is_reference_v<decltype(e.type(x))>);
  ops::Value y = x;
  for (int i = 0; i < 1000; ++i) y = e.neg(y);
  CHECK(type.sizes == Dims{3, 5});
  CHECK(e.type(e.expand(e.sum(y, {1}, true), e.type(x).sizes)).sizes == Dims{3, 5});
}

TEST_CASE("the passes run in their order", "[passes]") {
  std::vector<std::string> names;
  for (const Pass& p : passes()) names.push_back(p.name);
  CHECK(names == std::vector<std::string>{"expand", "fold", "join_pads", "common_subexpressions", "dead_code",
                                          "relu_behind_pooling", "rematerialise"});
}

TEST_CASE("expand replaces composites to the ground", "[passes]") {
  CHECK(run("expand", kX + "%y = softmax(%x, axis=1) : float32(3, 4)\n return %y") ==
        R"(  %0 = input float32(3, 4) strides (4, 1)
  %1 = amax(%0, keepdim=1, axes=[1]) : float32(3, 1)
  %2 = sub(%0, %1) : float32(3, 4)
  %3 = exp(%2) : float32(3, 4)
  %4 = sum(%3, keepdim=1, axes=[1]) : float32(3, 1)
  %5 = div(%3, %4) : float32(3, 4)
  return %5
)");
  // Bodies that call composites leave none; results, writes and numbers keep their places.
  const std::string text = run("expand", kX + R"(
    %n = number float64
    %i = input int64(3,) strides (1,)
    %m = number int64
    %y, %u, %v = cross_entropy(%x, %i, %m, reduction=1) : float32(), float32(3,), float32(3,)
    %z, %p, %q = layer_norm(%x, _, _, %n, rank=1) : float32(3, 4), float32(3, 1), float32(3, 1)
    return %y
    write %x <- %z)");
  const Graph g = parse_graph("graph {" + text + "}");
  for (const Node& n : g.nodes) CHECK((n.leaf != Leaf::op || ops::def(n.op).kind != ops::OpKind::composite));
  CHECK(g.inputs.size() == 2);
  CHECK(g.number_types == std::vector<DType>{DType::float64, DType::int64});
  CHECK(g.outputs.size() == 1);
  REQUIRE(g.writes.size() == 1);
  CHECK(g.writes[0].input == 0);
}

TEST_CASE("expand leaves a graph of primitives as it is", "[passes]") {
  const std::string body = kX + "%y = neg(%x) : float32(3, 4)\n return %y, %x\n write %x <- %y";
  CHECK(run("expand", body) == untouched(body));
}

TEST_CASE("composites that somebody wants kept stay nodes, wherever they come from", "[passes]") {
  const Graph g = parse_graph("graph {" + kX + R"(
    %n = number float64
    %s = softmax(%x, axis=1) : float32(3, 4)
    %y, %p, %q = layer_norm(%s, _, _, %n, rank=1) : float32(3, 4), float32(3, 1), float32(3, 1)
    return %y})");
  const auto kept = [&](auto... ops) {
    const Graph expanded =
        expand_composites(g, [&](const Graph&, const Node& n) { return ((n.op == ops) || ...); });
    check(expanded, "expand");
    std::vector<OpId> composites;
    for (const Node& n : expanded.nodes)
      if (n.leaf == Leaf::op && ops::def(n.op).kind == ops::OpKind::composite) composites.push_back(n.op);
    return composites;
  };
  CHECK(kept(OpId::softmax, OpId::mean) == std::vector{OpId::softmax, OpId::mean});
  CHECK(kept(OpId::mean) == std::vector{OpId::mean});
  CHECK(kept(OpId::layer_norm) == std::vector{OpId::layer_norm});
}

TEST_CASE("fold computes numbers that are known", "[passes]") {
  CHECK(run("fold", kX + R"(
    %a = constant 3
    %b = constant 2
    %c = number_op div(%a, %b)
    %d = number_op neg(%c)
    %e = number_op sub(%d, %b)
    %f = number_op max(%e, %a)
    %g = number_op min(%e, %a)
    %h = number_op mul(%f, %g)
    %i = number_op add(%h, %a)
    %j = constant 16
    %k = number_op sqrt(%j)
    return %x)") == R"(  %0 = input float32(3, 4) strides (4, 1)
  %1 = constant 0x1.8p+1
  %2 = constant 0x1p+1
  %3 = constant 0x1.8p+0
  %4 = constant -0x1.8p+0
  %5 = constant -0x1.cp+1
  %6 = constant 0x1.8p+1
  %7 = constant -0x1.cp+1
  %8 = constant -0x1.5p+3
  %9 = constant -0x1.ep+2
  %10 = constant 0x1p+4
  %11 = constant 0x1p+2
  return %0
)");
}

TEST_CASE("fold looks at no run-time number and at no count", "[passes]") {
  const std::string body = kX + R"(
    %n = number float64
    %c = count(%x, axes=[0])
    %one = constant 1
    %a = number_op mul(%n, %one)
    %b = number_op div(%c, %one)
    %y = mul(%x, %n) : float32(3, 4)
    %z = div(%y, %c) : float32(3, 4)
    return %z)";
  CHECK(run("fold", body) == untouched(body));
}

TEST_CASE("fold removes what gives back its operand", "[passes]") {
  for (const std::string line : {
           "%y = mul(%x, %one) : float32(3, 4)",
           "%y = mul(%one, %x) : float32(3, 4)",
           "%y = div(%x, %one) : float32(3, 4)",
           "%f = full(%one, dtype=float32, sizes=[]) : float32()\n %g = expand(%f, sizes=[3, 4]) : "
           "float32(3, 4)\n"
           "%y = mul(%g, %x) : float32(3, 4)",
           "%f = full(%one, dtype=float32, sizes=[4]) : float32(4)\n %y = mul(%x, %f) : float32(3, 4)",
           "%y = cast(%x, dtype=float32) : float32(3, 4)",
           "%y = clone(%x) : float32(3, 4)",
           "%y = expand(%x, sizes=[3, -1]) : float32(3, 4)",
           "%y = reshape(%x, sizes=[-1, 4]) : float32(3, 4)",
           "%y = squeeze(%x, axes=[]) : float32(3, 4)",
           "%y = permute(%x, axes=[0, -1]) : float32(3, 4)",
           "%y = slice(%x, axis=-1, start=-4, end=99, step=1) : float32(3, 4)",
           "%y = pad(%x, axis=0, before=0, after=0) : float32(3, 4)",
           "%y = cat(%x, axis=0) : float32(3, 4)",
           "%e = slice(%x, axis=0, start=1, end=1, step=1) : float32(0, 4)\n %y = cat(%e, %x, %e, axis=0) : "
           "float32(3, 4)",
           "%a = permute(%x, axes=[1, 0]) : float32(4, 3)\n %y = permute(%a, axes=[1, 0]) : float32(3, 4)",
           "%a = reshape(%x, sizes=[12]) : float32(12,)\n %b = unsqueeze(%a, axis=0) : float32(1, 12)\n"
           "%c = reshape(%b, sizes=[2, 6]) : float32(2, 6)\n %y = reshape(%c, sizes=[3, 4]) : float32(3, 4)",
           "%a = unsqueeze(%x, axis=1) : float32(3, 1, 4)\n %y = squeeze(%a, axes=[1]) : float32(3, 4)",
           "%a = cast(%x, dtype=float64) : float64(3, 4)\n %y = cast(%a, dtype=float32) : float32(3, 4)",
       }) {
    CAPTURE(line);
    const std::string text =
        run("fold", kX + "%one = constant 1\n" + line + "\n %z = exp(%y) : float32(3, 4)\n return %y, %z");
    CHECK_THAT(text, Contains(" = exp(%0)"));
    CHECK_THAT(text, Contains("return %0, %"));
  }
}

TEST_CASE("fold keeps whatever could change a bit", "[passes]") {
  for (const std::string line : {
           "%y = add(%x, %zero) : float32(3, 4)",  // -0 + 0 is 0
           "%y = add(%zero, %x) : float32(3, 4)",
           "%y = sub(%zero, %x) : float32(3, 4)",
           "%y = mul(%x, %zero) : float32(3, 4)",  // NaN, infinity, -0
           "%y = sub(%x, %x) : float32(3, 4)",     // NaN, infinity
           "%y = div(%x, %x) : float32(3, 4)",
           "%y = div(%one, %x) : float32(3, 4)",
           "%y = mul(%x, %half) : float32(3, 4)",
           "%y = pow(%x, %one) : float32(3, 4)",
           "%y = maximum(%x, %x) : float32(3, 4)",
           "%y = reshape(%x, sizes=[4, 3]) : float32(4, 3)",
           "%y = reshape(%x, sizes=[1, 3, 4]) : float32(1, 3, 4)",
           "%y = permute(%x, axes=[1, 0]) : float32(4, 3)",
           "%y = expand(%x, sizes=[2, 3, 4]) : float32(2, 3, 4)",
           "%y = slice(%x, axis=0, start=0, end=2, step=1) : float32(2, 4)",
           "%y = slice(%x, axis=1, start=0, end=4, step=2) : float32(3, 2)",
           "%y = pad(%x, axis=0, before=1, after=0) : float32(4, 4)",
           "%y = cat(%x, %x, axis=0) : float32(6, 4)",
           "%s = slice(%x, axis=0, start=0, end=1, step=1) : float32(1, 4)\n %y = cat(%s, %s, %s, axis=0) : "
           "float32(3, 4)",
           "%a = permute(%x, axes=[1, 0]) : float32(4, 3)\n %y = reshape(%a, sizes=[3, 4]) : float32(3, 4)",
           "%a = cast(%x, dtype=bfloat16) : bfloat16(3, 4)\n %y = cast(%a, dtype=float32) : float32(3, 4)",
           "%a = cast(%x, dtype=float16) : float16(3, 4)\n %y = cast(%a, dtype=bfloat16) : bfloat16(3, 4)",
           "%a = cast(%x, dtype=int64) : int64(3, 4)\n %y = cast(%a, dtype=float32) : float32(3, 4)",
           "%a = cast(%x, dtype=bool) : bool(3, 4)\n %y = cast(%a, dtype=float32) : float32(3, 4)",
           "%a = cast(%x, dtype=int64) : int64(3, 4)\n %b = cast(%a, dtype=float64) : float64(3, 4)\n"
           "%y = cast(%b, dtype=int64) : int64(3, 4)",
           "%a = cast(%x, dtype=int32) : int32(3, 4)\n %b = cast(%a, dtype=float32) : float32(3, 4)\n"
           "%y = cast(%b, dtype=int32) : int32(3, 4)",
           // Integers wrap, floating values saturate.
           "%a = cast(%x, dtype=int32) : int32(3, 4)\n %b = cast(%a, dtype=float64) : float64(3, 4)\n"
           "%y = cast(%b, dtype=uint8) : uint8(3, 4)",
           "%a = cast(%x, dtype=uint8) : uint8(3, 4)\n %b = cast(%a, dtype=bool) : bool(3, 4)\n"
           "%y = cast(%b, dtype=uint8) : uint8(3, 4)",
           "%a = expand(%x, sizes=[2, 3, 4]) : float32(2, 3, 4)\n %y = sum(%a, keepdim=0, axes=[0]) : "
           "float32(3, 4)",
           "%y = clamp(%x, %zero, %one) : float32(3, 4)",
           "%y = floor(%x) : float32(3, 4)",
       }) {
    CAPTURE(line);
    const std::string body =
        kX + "%zero = constant 0\n %one = constant 1\n %half = constant 0x1p-1\n" + line + "\n return %y";
    CHECK(run("fold", body) == untouched(body));
  }
  // x * 1 that promotes or repeats x is more than x.
  const std::string promoted =
      "%i = input int64(3,) strides (1,)\n %one = constant 1\n %y = mul(%i, %one) : float32(3,)\n return %y";
  CHECK(run("fold", promoted) == untouched(promoted));
  const std::string repeated = kX + R"(%one = constant 1
    %f = full(%one, dtype=float32, sizes=[2, 1, 1]) : float32(2, 1, 1)
    %y = mul(%x, %f) : float32(2, 3, 4)
    return %y)";
  CHECK(run("fold", repeated) == untouched(repeated));
}

TEST_CASE("fold joins permutations, expansions and exact casts", "[passes]") {
  CHECK(run("fold", R"(%x = input bfloat16(2, 3, 1) strides (3, 1, 1)
    %a = permute(%x, axes=[2, 0, 1]) : bfloat16(1, 2, 3)
    %b = permute(%a, axes=[-1, 0, 1]) : bfloat16(3, 1, 2)
    %c = expand(%x, sizes=[2, 3, 5]) : bfloat16(2, 3, 5)
    %d = expand(%c, sizes=[7, -1, 3, 5]) : bfloat16(7, 2, 3, 5)
    %e = cast(%x, dtype=float32) : float32(2, 3, 1)
    %f = cast(%e, dtype=float64) : float64(2, 3, 1)
    %g = cast(%e, dtype=float16) : float16(2, 3, 1)
    %h = cast(%f, dtype=bfloat16) : bfloat16(2, 3, 1)
    return %b, %d, %f, %g, %h)") == R"(  %0 = input bfloat16(2, 3, 1) strides (3, 1, 1)
  %1 = permute(%0, axes=[2, 0, 1]) : bfloat16(1, 2, 3)
  %2 = permute(%0, axes=[1, 2, 0]) : bfloat16(3, 1, 2)
  %3 = expand(%0, sizes=[2, 3, 5]) : bfloat16(2, 3, 5)
  %4 = expand(%0, sizes=[7, 2, 3, 5]) : bfloat16(7, 2, 3, 5)
  %5 = cast(%0, dtype=float32) : float32(2, 3, 1)
  %6 = cast(%0, dtype=float64) : float64(2, 3, 1)
  %7 = cast(%0, dtype=float16) : float16(2, 3, 1)
  return %2, %4, %6, %7, %0
)");
}

TEST_CASE("common subexpressions become one", "[passes]") {
  CHECK(run("common_subexpressions", kX + R"(
    %w = input float32(3, 4) strides (4, 1)
    %n = number float64
    %m = number float64
    %c = constant 2
    %d = constant 2
    %a = mul(%x, %c) : float32(3, 4)
    %b = mul(%x, %d) : float32(3, 4)
    %e = exp(%a) : float32(3, 4)
    %f = exp(%b) : float32(3, 4)
    %s = mul(%x, %n) : float32(3, 4)
    %t = mul(%x, %n) : float32(3, 4)
    return %e, %f, %t
    write %w <- %f)") == R"(  %0 = input float32(3, 4) strides (4, 1)
  %1 = input float32(3, 4) strides (4, 1)
  %2 = number float64
  %3 = number float64
  %4 = constant 0x1p+1
  %5 = mul(%0, %4) : float32(3, 4)
  %6 = exp(%5) : float32(3, 4)
  %7 = mul(%0, %2) : float32(3, 4)
  return %6, %6, %7
  write %1 <- %6
)");
}

TEST_CASE("a constant that is what a count says gives the same value", "[passes]") {
  // The mean of a composite, and that of its gradient's rule, which knows the size.
  const std::string text = run("common_subexpressions", R"(%x = input float32(3, 4) strides (4, 1)
    %n = count(%x, axes=[1])
    %c = constant 4
    %d = constant 3
    %a = div(%x, %n) : float32(3, 4)
    %b = div(%x, %c) : float32(3, 4)
    %e = div(%x, %d) : float32(3, 4)
    return %a, %b, %e)");
  CHECK(count(text, "div(") == 2);
  CHECK_THAT(text, Contains("div(%0, %1)") && Contains("return %4, %4, %5"));
}

TEST_CASE("random draws of equal seed, offset and sizes are one value", "[passes]") {
  const std::string text = run("common_subexpressions", R"(%seed = number int64
    %offset = number int64
    %a = rand(%seed, %offset, dtype=float32, sizes=[4]) : float32(4,)
    %b = rand(%seed, %offset, dtype=float32, sizes=[4]) : float32(4,)
    %c = rand(%offset, %seed, dtype=float32, sizes=[4]) : float32(4,)
    return %a, %b, %c)");
  CHECK(count(text, "rand(") == 2);
  CHECK_THAT(text, Contains("return %2, %2, %3"));
}

TEST_CASE("nodes that differ in op, operands, order, attributes or constants stay apart", "[passes]") {
  const std::string body = R"(%x = input float32(4, 4) strides (4, 1)
    %w = input float32(4, 4) strides (4, 1)
    %n = number float64
    %m = number float64
    %p = constant 0
    %q = constant -0
    %a = sub(%x, %w) : float32(4, 4)
    %b = sub(%w, %x) : float32(4, 4)
    %c = sum(%x, keepdim=0, axes=[0]) : float32(4,)
    %d = sum(%x, keepdim=0, axes=[1]) : float32(4,)
    %e = amax(%x, keepdim=0, axes=[1]) : float32(4,)
    %f = slice(%x, axis=0, start=0, end=2, step=1) : float32(2, 4)
    %g = slice(%x, axis=0, start=2, end=4, step=1) : float32(2, 4)
    %h = mul(%x, %n) : float32(4, 4)
    %i = mul(%x, %m) : float32(4, 4)
    %j = mul(%x, %p) : float32(4, 4)
    %k = mul(%x, %q) : float32(4, 4)
    %l = count(%x, axes=[0])
    %o = count(%x, axes=[1])
    return %a, %b, %c, %d, %e, %f, %g, %h, %i, %j, %k)";
  CHECK(run("common_subexpressions", body) == untouched(body));
}

TEST_CASE("nodes with several results become one, too", "[passes]") {
  const std::string text = run("common_subexpressions", kX + R"(%n = number float64
    %a, %b = sgd_momentum_update(%x, %x, %x, _, %n, %n, %n, %n, nesterov=0, first=0) : float32(3, 4), float32(3, 4)
    %c, %d = sgd_momentum_update(%x, %x, %x, _, %n, %n, %n, %n, nesterov=0, first=0) : float32(3, 4), float32(3, 4)
    return %a, %b, %c, %d)");
  CHECK_THAT(text, Contains("return %2, %3, %2, %3"));
}

TEST_CASE("dead code goes, inputs and numbers stay", "[passes]") {
  CHECK(run("dead_code", R"(%unused = input float32(2,) strides (1,)
    %x = input float32(3, 4) strides (4, 1)
    %n = number float64
    %m = number int64
    %one = constant 1
    %c = count(%x, axes=[0])
    %half = number_op div(%one, %c)
    %a = exp(%x) : float32(3, 4)
    %b = neg(%a) : float32(3, 4)
    %d = mul(%x, %half) : float32(3, 4)
    %e = log(%d) : float32(3, 4)
    %f = sqrt(%d) : float32(3, 4)
    return %d
    write %x <- %f)") == R"(  %0 = input float32(2,) strides (1,)
  %1 = input float32(3, 4) strides (4, 1)
  %2 = number float64
  %3 = number int64
  %4 = constant 0x1p+0
  %5 = count(%1, axes=[0])
  %6 = number_op div(%4, %5)
  %7 = mul(%1, %6) : float32(3, 4)
  %8 = sqrt(%7) : float32(3, 4)
  return %7
  write %1 <- %8
)");
}

TEST_CASE("a node lives if one of its results does", "[passes]") {
  const std::string text = run("dead_code", kX + R"(%n = number float64
    %a, %b = sgd_momentum_update(%x, %x, %x, _, %n, %n, %n, %n, nesterov=0, first=0) : float32(3, 4), float32(3, 4)
    return %b)");
  CHECK_THAT(text, Contains("%2, %3 = sgd_momentum_update"));
  CHECK_THAT(text, Contains("return %3"));
}

TEST_CASE("what a forward and its gradient share is computed once", "[passes]") {
  // The gradient of log_softmax recomputes nothing that the loss has; two losses of one input share all of
  // it.
  Graph g = parse_graph("graph {" + kX + R"(%i = input int64(3,) strides (1,)
    %m = number int64
    %a, %u, %v = cross_entropy(%x, %i, %m, reduction=1) : float32(), float32(3,), float32(3,)
    %b, %s, %t = cross_entropy(%x, %i, %m, reduction=2) : float32(), float32(3,), float32(3,)
    %c = log_softmax(%x, axis=1) : float32(3, 4)
    return %a, %b, %c})");
  g = optimize(g);
  const std::string text = to_string(g);
  CHECK(count(text, " exp(") == 1);
  CHECK(count(text, " amax(") == 1);
}

namespace {
/// The optimised graph of cross_entropy's gradient, from what a forward kept or behind that forward.
std::string gradient_of_cross_entropy(bool with_forward) {
  Graph g;
  GraphEmitter e(g, false);
  const auto input = [&](const Dims& sizes, DType type) {
    return ops::Value{g.add_input({type, cpu, false, sizes}, contiguous_strides(sizes))};
  };
  const ops::Value in[] = {input({3, 4}, DType::float32), input({3}, DType::int64), e.number(-100)};
  ops::Value out[3] = {{}, {}, {}};
  const int64_t sum = 2;
  if (with_forward)
    e.emit(ops::OpId::cross_entropy, in, {&sum, 1}, out);
  else
    out[1] = input({3}, DType::float32), out[2] = input({3}, DType::float32);
  const ops::TensorType types[] = {e.type(in[0]), e.type(in[1])};
  const ops::Value grads[] = {input({}, DType::float32), {}, {}};
  const bool needed[] = {true, false};
  ops::Value result[3];
  ops::Gradient r{e, ops::def(ops::OpId::cross_entropy), in, types, out, grads, {&sum, 1}, needed, result};
  ops::emit_gradient(r);
  if (with_forward) g.outputs.push_back(out[0].id);
  g.outputs.push_back(result[0].id);
  return to_string(optimize(g));
}
}  // namespace

TEST_CASE("cross_entropy's gradient reads the logits once, and with its forward computes nothing again",
          "[passes]") {
  const std::string alone = gradient_of_cross_entropy(false);
  CHECK(count(alone, " amax(") + count(alone, " sum(") + count(alone, " div(") == 0);
  CHECK(count(alone, " exp(") == 1);
  const std::string both = gradient_of_cross_entropy(true);
  CHECK(count(both, " amax(") == 1);
  CHECK(count(both, " sum(") == 2);  // of powers, and of losses
  CHECK(count(both, " exp(") == 1);
}

TEST_CASE("optimize runs all passes but those left out, and again changes nothing", "[passes]") {
  const Graph g = parse_graph("graph {" + kX + R"(%one = constant 1
    %a = mul(%x, %one) : float32(3, 4)
    %b = exp(%x) : float32(3, 4)
    %c = exp(%a) : float32(3, 4)
    %d = softmax(%b, axis=1) : float32(3, 4)
    return %b, %c})");
  const std::string once = to_string(optimize(g));
  CHECK(once == R"(graph {
  %0 = input float32(3, 4) strides (4, 1)
  %1 = exp(%0) : float32(3, 4)
  return %1, %1
}
)");
  CHECK(to_string(optimize(parse_graph(once))) == once);
  CHECK(count(to_string(optimize(g, {"fold"})), "exp(") == 2);
  CHECK(count(to_string(optimize(g, {"common_subexpressions"})), "exp(") == 2);
  CHECK_THAT(to_string(optimize(g, {"dead_code"})), Contains("amax("));
  CHECK_THAT(to_string(optimize(g, {"expand", "dead_code"})), Contains("softmax("));
  CHECK(to_string(optimize(g, {"expand", "fold", "common_subexpressions", "dead_code", "rematerialise"})) ==
        to_string(g));
}
