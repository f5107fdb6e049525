// Field numbers are those of onnx.proto (ONNX 1.12).
#include "tandem/io/onnx_model.h"

#include <bit>
#include <cstring>
#include <set>

#include "tandem/core/error.h"
#include "tandem/core/version.h"
#include "tandem/io/wire.h"

namespace tandem::io {

namespace {

void append(std::string& bytes, DType t, double floating, int64_t integer) {
  const auto put = [&](auto x) {
    char raw[sizeof x];
    std::memcpy(raw, &x, sizeof x);
    bytes.append(raw, sizeof x);
  };
  switch (t) {
    case DType::bool_:
      return put(static_cast<uint8_t>(integer != 0));
    case DType::uint8:
      return put(static_cast<uint8_t>(integer));
    case DType::int32:
      return put(static_cast<int32_t>(integer));
    case DType::int64:
      return put(integer);
    case DType::float16:
      return put(float_to_half(static_cast<float>(floating)));
    case DType::bfloat16:
      return put(float_to_bfloat(static_cast<float>(floating)));
    case DType::float32:
      return put(static_cast<float>(floating));
    case DType::float64:
      return put(floating);
  }
}

Wire attribute_text(const OnnxAttribute& a) {
  enum { kFloat = 1, kInt = 2, kString = 3, kInts = 7 };
  Wire text;
  text.bytes(1, a.name);
  if (const auto* i = std::get_if<int64_t>(&a.value)) {
    text.integer(3, *i).integer(20, kInt);
  } else if (const auto* f = std::get_if<float>(&a.value)) {
    text.number(2, *f).integer(20, kFloat);
  } else if (const auto* s = std::get_if<std::string>(&a.value)) {
    text.bytes(4, *s).integer(20, kString);
  } else {
    for (const int64_t v : std::get<std::vector<int64_t>>(a.value)) text.integer(8, v);
    text.integer(20, kInts);
  }
  return text;
}

/// For people: what is no UTF-8 is left out.
std::string as_utf8(std::string text) {
  if (!is_utf8(text)) std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  return text;
}

}  // namespace

int onnx_dtype(DType t) {
  switch (t) {
    case DType::bool_:
      return 9;
    case DType::uint8:
      return 2;
    case DType::int32:
      return 6;
    case DType::int64:
      return 7;
    case DType::float16:
      return 10;
    case DType::bfloat16:
      return 16;
    case DType::float32:
      return 1;
    case DType::float64:
      return 11;
  }
  internal_error("a dtype that ONNX has no number for");
}

OnnxValue OnnxModel::add(OnnxType type, std::string name, int32_t node) {
  values_.push_back({type, std::move(name), node});
  return {static_cast<int32_t>(values_.size()) - 1};
}

OnnxValue OnnxModel::input(const std::string& name, OnnxType type) {
  inputs_.push_back(add(type, name));
  return inputs_.back();
}

OnnxValue OnnxModel::tensor(const std::string& name, const Tensor& t) {
  const core::TensorImpl& impl = *t.impl();
  TANDEM_INTERNAL(impl.has(core::kContiguous) && impl.device == cpu, "a weight in another layout");
  const OnnxValue v = tensor(
      name, {impl.dtype, impl.sizes},
      {static_cast<const std::byte*>(impl.data), static_cast<size_t>(impl.numel * itemsize(impl.dtype))});
  constants_.back().held = t;
  return v;
}

OnnxValue OnnxModel::tensor(const std::string& name, OnnxType type, core::ByteSpan bytes) {
  constants_.push_back({add(type, name), bytes, {}, {}});
  return constants_.back().value;
}

OnnxValue OnnxModel::own_constant(OnnxType type, std::string bytes) {
  constants_.push_back({add(type, {}), {}, std::move(bytes), {}});
  return constants_.back().value;
}

OnnxValue OnnxModel::constant(OnnxType type, const std::vector<double>& values) {
  std::string bytes;
  for (const double v : values)
    append(bytes, type.dtype, v, is_floating(type.dtype) ? 0 : static_cast<int64_t>(v));
  return own_constant(type, std::move(bytes));
}

OnnxValue OnnxModel::integers(const std::vector<int64_t>& values) {
  const auto [known, fresh] = integers_.try_emplace(values);
  if (!fresh) return known->second;
  std::string bytes;
  for (const int64_t v : values) append(bytes, DType::int64, 0, v);
  return known->second =
             own_constant({DType::int64, {static_cast<int64_t>(values.size())}}, std::move(bytes));
}

OnnxValue OnnxModel::scalar(DType t, int64_t bits) {
  const auto [known, fresh] = scalars_.try_emplace({t, bits});
  if (!fresh) return known->second;
  std::string bytes;
  append(bytes, t, is_floating(t) ? std::bit_cast<double>(bits) : 0, bits);
  known->second = own_constant({t, {}}, std::move(bytes));
  scalar_bits_[known->second.id] = bits;
  return known->second;
}

OnnxValue OnnxModel::scalar(DType t, double value) {
  return scalar(t, is_floating(t) ? std::bit_cast<int64_t>(value) : static_cast<int64_t>(value));
}

bool OnnxModel::is_scalar(OnnxValue v, int64_t* bits) const {
  const auto known = scalar_bits_.find(v.id);
  if (known == scalar_bits_.end()) return false;
  *bits = known->second;
  return true;
}

void OnnxModel::nodes(const char* op, const std::vector<OnnxValue>& in, const std::vector<OnnxType>& types,
                      OnnxValue* out, OnnxAttributes attributes, int needed) {
  const auto index = static_cast<int32_t>(nodes_.size());
  Node n{op, in, {}, std::move(attributes), origin, needed < 0 ? types.size() : static_cast<size_t>(needed)};
  for (const OnnxType& t : types) n.out.push_back(add(t, {}, index));
  std::copy(n.out.begin(), n.out.end(), out);
  nodes_.push_back(std::move(n));
}

OnnxValue OnnxModel::node(const char* op, const std::vector<OnnxValue>& in, OnnxType type,
                          OnnxAttributes attributes) {
  OnnxValue out;
  nodes(op, in, {type}, &out, std::move(attributes));
  return out;
}

void OnnxModel::output(OnnxValue v, const std::string& name) {
  // Values that have a name already stay what they are.
  if (!values_[static_cast<size_t>(v.id)].name.empty() || values_[static_cast<size_t>(v.id)].node < 0)
    v = node("Identity", {v}, type(v));
  values_[static_cast<size_t>(v.id)].name = name;
  values_[static_cast<size_t>(v.id)].output = true;
  outputs_.push_back(v);
}

std::vector<char> OnnxModel::used() const {
  std::vector<char> used(values_.size(), 0);
  for (const OnnxValue v : outputs_) used[static_cast<size_t>(v.id)] = 1;
  for (size_t i = nodes_.size(); i-- > 0;) {
    bool wanted = false;
    for (const OnnxValue v : nodes_[i].out) wanted = wanted || used[static_cast<size_t>(v.id)];
    for (const OnnxValue v : nodes_[i].in)
      if (wanted && v) used[static_cast<size_t>(v.id)] = 1;
  }
  return used;
}

void OnnxModel::name_values(const std::vector<char>& used, const std::string& path, Location where) {
  std::set<std::string> taken;
  const auto take = [&](OnnxValue v) {
    const std::string& name = values_[static_cast<size_t>(v.id)].name;
    const auto refuse = [&](const std::string& why) { fail("onnx: \"" + path + "\": " + why, where); };
    if (name.empty()) refuse("an input, output or captured tensor has an empty name");
    if (!is_utf8(name)) refuse("the name of an input, output or captured tensor is not UTF-8");
    if (!taken.insert(name).second)
      refuse("two inputs, outputs or captured tensors are named \"" + name + "\"");
  };
  for (const OnnxValue v : inputs_) take(v);
  for (const OnnxValue v : outputs_) take(v);
  for (const Constant& c : constants_)
    if (used[static_cast<size_t>(c.value.id)] && !values_[static_cast<size_t>(c.value.id)].name.empty())
      take(c.value);
  const auto invent = [&](OnnxValue v, std::string name) {
    if (!values_[static_cast<size_t>(v.id)].name.empty()) return;
    while (!taken.insert(name).second) name += "_";
    values_[static_cast<size_t>(v.id)].name = std::move(name);
  };
  for (size_t i = 0; i < nodes_.size(); ++i)
    for (size_t j = 0; j < nodes_[i].out.size(); ++j)
      invent(nodes_[i].out[j],
             std::string("/") + nodes_[i].op + "_" + std::to_string(i) + (j ? "." + std::to_string(j) : ""));
  for (size_t i = 0; i < constants_.size(); ++i)
    invent(constants_[i].value, "/constant_" + std::to_string(i));
}

std::string OnnxModel::node_text(const Node& n, size_t index, const std::vector<char>& used) const {
  Wire text;
  for (const OnnxValue v : n.in) text.bytes(1, v ? values_[static_cast<size_t>(v.id)].name : "");
  size_t n_out = n.out.size();
  while (n_out > n.needed && !used[static_cast<size_t>(n.out[n_out - 1].id)]) --n_out;
  for (size_t j = 0; j < n_out; ++j) text.bytes(2, values_[static_cast<size_t>(n.out[j].id)].name);
  text.bytes(3, std::string(n.op) + "_" + std::to_string(index)).bytes(4, n.op);
  for (const OnnxAttribute& a : n.attributes) text.message(5, attribute_text(a));
  if (!n.origin.empty()) text.bytes(6, as_utf8(n.origin));
  return text.text();
}

std::string OnnxModel::value_text(OnnxValue v) const {
  const Value& value = values_[static_cast<size_t>(v.id)];
  Wire shape;
  for (const int64_t n : value.type.sizes) shape.message(1, Wire().integer(1, n));
  const Wire tensor = Wire().integer(1, onnx_dtype(value.type.dtype)).message(2, shape);
  return Wire().bytes(1, value.name).message(2, Wire().message(1, tensor)).text();
}

// The bytes themselves are not copied: they stand between the texts of their heads. Large weights may lie in
// a file beside the model's (onnx.proto: external data), each at a page's start.
OnnxModel::Weights OnnxModel::weights(const std::vector<char>& used, const std::string& beside) const {
  constexpr int64_t kPage = 4096, kLarge = 1024;
  static const std::string zeros(kPage, '\0');
  Weights w;
  int64_t at = 0;
  for (const Constant& c : constants_) {
    if (!used[static_cast<size_t>(c.value.id)]) continue;
    const OnnxType& t = type(c.value);
    const core::ByteSpan bytes = c.own.empty() ? c.bytes : core::bytes_of(c.own);
    const auto n = static_cast<int64_t>(bytes.size());
    Wire tensor, head;
    for (const int64_t d : t.sizes) tensor.integer(1, d);
    tensor.integer(2, onnx_dtype(t.dtype)).bytes(8, values_[static_cast<size_t>(c.value.id)].name);
    if (!beside.empty() && n >= kLarge) {
      const auto entry = [&](const char* key, const std::string& value) {
        tensor.message(13, Wire().bytes(1, key).bytes(2, value));
      };
      const int64_t gap = (kPage - at % kPage) % kPage;
      if (gap) w.beside.push_back(core::bytes_of(zeros).first(static_cast<size_t>(gap)));
      w.beside.push_back(bytes);
      at += gap;
      entry("location", beside), entry("offset", std::to_string(at)), entry("length", std::to_string(n));
      at = checked_add(at, n);
      head.message(5, tensor.integer(14, 1));
      w.heads.push_back(head.text());
      w.inside.push_back(core::bytes_of(w.heads.back()));
    } else {
      tensor.head(9, bytes.size());
      head.head(5, tensor.text().size() + bytes.size());
      w.heads.push_back(head.text() + tensor.text());
      w.inside.push_back(core::bytes_of(w.heads.back()));
      if (n > 0) w.inside.push_back(bytes);
      w.nbytes = checked_add(w.nbytes, n);
    }
    w.nbytes += static_cast<int64_t>(w.heads.back().size());
  }
  return w;
}

void OnnxModel::write(const std::string& path, Location where, int64_t most, Put* put) {
  const std::vector<char> used = this->used();
  name_values(used, path, where);
  const auto is_used = [&](OnnxValue v) { return used[static_cast<size_t>(v.id)] != 0; };

  Wire graph;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    bool wanted = false;
    for (const OnnxValue v : nodes_[i].out) wanted = wanted || is_used(v);
    if (wanted) graph.bytes(1, node_text(nodes_[i], i, used));
  }
  graph.bytes(2, as_utf8(name_));
  for (const OnnxValue v : inputs_) graph.bytes(11, value_text(v));
  for (const OnnxValue v : outputs_) graph.bytes(12, value_text(v));
  for (const Node& n : nodes_)
    for (const OnnxValue v : n.out)
      if (is_used(v) && !values_[static_cast<size_t>(v.id)].output) graph.bytes(13, value_text(v));

  const std::string model_head = Wire()
                                     .integer(1, kOnnxIrVersion)
                                     .bytes(2, "tandem")
                                     .bytes(3, core::version())
                                     .message(8, Wire().bytes(1, "").integer(2, kOnnxOpset))
                                     .text();
  const std::string data_path = path + ".data", location = data_path.substr(data_path.rfind('/') + 1);
  Weights weights;
  for (const bool beside : {false, true}) {
    weights = this->weights(used, beside ? location : "");
    const int64_t graph_bytes = static_cast<int64_t>(graph.text().size()) + weights.nbytes;
    const std::string head = model_head + Wire().head(7, static_cast<uint64_t>(graph_bytes)).text();
    if (static_cast<int64_t>(head.size()) + graph_bytes > most) continue;
    // The model is replaced when its weights are there.
    if (!weights.beside.empty()) {
      if (!is_utf8(location)) fail("onnx: \"" + path + "\": the name of a file must be UTF-8", where);
      put(data_path, weights.beside, where);
    }
    std::vector<core::ByteSpan> pieces = {core::bytes_of(head), core::bytes_of(graph.text())};
    pieces.insert(pieces.end(), weights.inside.begin(), weights.inside.end());
    return put(path, pieces, where);
  }
  fail("onnx: \"" + path + "\": the model has " + std::to_string((graph.text().size()) >> 20) +
           " MiB without its weights, and a file of this format at most 2 GiB; export parts",
       where);
}

}  // namespace tandem::io
