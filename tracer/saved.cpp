// Saved functions. A file is a safetensors file: captured tensors under "state.", step counts, generator, and
// the description of the function as text in an array of bytes. A digest over everything finds damage; what
// passes it is checked all the same (description_check.cpp).
#include <algorithm>
#include <charconv>
#include <cstring>

#include "tandem/core/io/safetensors.h"
#include "tandem/eager/functions.h"
#include "tandem/jit/sha256.h"
#include "tandem/ops/user_ops.h"
#include "tandem/tracer/description.h"

namespace tandem {

namespace tracer {

// The lines of the nodes stand behind `#` in the text, which the parser passes over.
jit::Graph graph_of(const FrozenSignature& s, FrozenCore& core) {
  jit::Graph g = jit::parse_graph(s.graph);
  const std::string& text = s.graph;
  size_t at = text.find('\n');
  for (jit::Node& n : g.nodes) {
    if (at == std::string::npos) break;
    const size_t end = text.find('\n', at + 1);
    const std::string line = text.substr(at + 1, end == std::string::npos ? end : end - at - 1);
    at = end;
    const size_t mark = line.rfind("  # "), colon = line.rfind(':');
    if (mark == std::string::npos || colon == std::string::npos || colon < mark) continue;
    int number = 0;
    std::from_chars(line.data() + colon + 1, line.data() + line.size(), number);
    n.where = {core.keep(line.substr(mark + 4, colon - mark - 4)), number};
  }
  return g;
}

namespace {

constexpr const char *kVersionKey = "tandem.version", *kKindKey = "tandem.kind",
                     *kFunctionKey = "tandem.function", *kDigestKey = "tandem.digest";
constexpr const char *kVersion = "1", *kKind = "function", *kFunctionVersion = "4";
constexpr const char *kText = "function", *kKernels = "kernels", *kSteps = "steps", *kGenerator = "generator";
const std::string kState = "state.";
constexpr int64_t kMostSteps = int64_t{1} << 53;

std::string digest_of(std::span<const core::SafeTensor> entries) {
  std::vector<const core::SafeTensor*> sorted;
  for (const core::SafeTensor& e : entries) sorted.push_back(&e);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->name < b->name; });
  jit::Sha256 hash;
  for (const core::SafeTensor* e : sorted) {
    hash.update(e->name + '\n' + name(e->dtype) + to_string(e->sizes) + '\n');
    if (const int64_t n = e->nbytes(); n > 0) hash.update(e->data, static_cast<size_t>(n));
  }
  return jit::hex(hash.finish());
}

core::SafeTensor bytes_entry(const char* name, const std::string& text) {
  return {name, DType::uint8, {static_cast<int64_t>(text.size())}, text.data()};
}

// --- Loading ---

void finish(FrozenSignature& s, FrozenCore& core, size_t counters) {
  const jit::Graph g = graph_of(s, core);
  check_description(core, s, g, counters);
  for (const int32_t v : g.outputs)
    s.nbytes.push_back(checked_mul(checked_numel(g.type(v).sizes), itemsize(g.type(v).dtype)));
  for (const jit::Node& n : g.nodes)
    if (n.leaf == jit::Leaf::op) s.calls.emplace_back(n.where, n.op);
  s.executable = jit::Executable::make(g, {.compile = core.compile, .device = s.device});
  check_sizes(s.executable->graph());  // also of what composites have become
  s.list_uses();
  s.keep_values(core, g);
}

const core::SafeTensor& entry(const core::SafeTensors& file, const std::string& name, DType dtype, int rank) {
  const core::SafeTensor* e = file.find(name);
  if (!e || e->dtype != dtype || e->sizes.rank() != rank)
    fail("the entry \"" + name + "\" is missing or of another type");
  return *e;
}

std::vector<int64_t> integers(const core::SafeTensor& e) {
  std::vector<int64_t> out(static_cast<size_t>(numel(e.sizes)));
  if (!out.empty()) std::memcpy(out.data(), e.data, out.size() * sizeof(int64_t));
  return out;
}

std::string text_of(const core::SafeTensor& e) {
  if (e.nbytes() == 0) return {};
  return {static_cast<const char*>(e.data), static_cast<size_t>(e.nbytes())};
}

/// Elements in row-major order, each to its place.
void spread_out(const char* packed, const Dims& sizes, const Dims& strides, int64_t item, char* to) {
  Dims at = Dims::filled(sizes.rank(), 0);
  int64_t place = 0;
  for (int64_t n = numel(sizes); n > 0; --n, packed += item) {
    std::memcpy(to + place * item, packed, static_cast<size_t>(item));
    for (int d = sizes.rank() - 1; d >= 0; --d) {
      place += strides[d];
      if (++at[d] < sizes[d]) break;
      place -= strides[d] * sizes[d];
      at[d] = 0;
    }
  }
}

/// A captured tensor with the strides that it had.
Tensor slot_tensor(const core::SafeTensors& file, const FrozenSlot& s, Spread& spread) {
  const core::SafeTensor& e = entry(file, kState + s.name, s.dtype, s.sizes.rank());
  if (!(e.sizes == s.sizes)) fail("the captured tensor \"" + s.name + "\" has other sizes than described");
  const int64_t reach = extent(s.sizes, s.strides, s.dtype) * itemsize(s.dtype);
  if (!spread.fits(s.sizes, s.strides, s.dtype)) fail("a captured tensor's strides cannot be right");
  Ref<TensorImpl> t(core::new_impl());
  t->dtype = s.dtype;
  t->device = s.device;
  core::set_layout(*t, s.sizes, s.strides);
  core::set_storage(*t, core::make_storage(reach, s.device));
  if (t->has(core::kContiguous)) {
    core::copy_in(*t->storage, e.data, reach);
    return Tensor(std::move(t));
  }
  std::vector<char> bytes(static_cast<size_t>(reach), 0);
  spread_out(static_cast<const char*>(e.data), s.sizes, s.strides, itemsize(s.dtype), bytes.data());
  core::copy_in(*t->storage, bytes.data(), reach);
  return Tensor(std::move(t));
}

/// Before the first call: leaves have the gradients that they had. A gradient of a gradient would keep itself
/// alive.
void set_grads(const std::vector<FrozenSignature>& signatures, const FrozenCore& core) {
  std::vector<char> leaf(core.slots.size(), 0), grad(core.slots.size(), 0);
  const auto each = [&](auto f) {
    for (const FrozenSignature& s : signatures)
      for (const GradWrite& w : s.grads)
        if (w.before == GradWrite::Before::slot && w.leaf.kind == Place::Kind::slot) f(w);
  };
  each([&](const GradWrite& w) { leaf[w.leaf.index] = grad[w.before_slot] = 1; });
  for (size_t i = 0; i < leaf.size(); ++i)
    if (leaf[i] && grad[i]) fail("a captured tensor is the gradient of a gradient");
  each([&](const GradWrite& w) { core.owned[w.leaf.index].set_grad(core.owned[w.before_slot]); });
}

std::shared_ptr<FrozenCore> load(const core::SafeTensors& file, Location where) {
  const auto value = [&](const char* key) {
    const auto at = file.metadata().find(key);
    return at == file.metadata().end() ? std::string() : at->second;
  };
  if (value(kKindKey) != kKind) fail("it is no saved function");
  if (value(kVersionKey) != kVersion || value(kFunctionKey) != kFunctionVersion)
    fail("it has version " + value(kVersionKey).substr(0, 20) + "/" + value(kFunctionKey).substr(0, 20) +
         " of the format, this Tandem reads version " + kVersion + "/" + kFunctionVersion);
  if (value(kDigestKey) != digest_of(file.entries()))
    fail("it is damaged: its digest is not that of its contents");

  auto core = std::make_shared<FrozenCore>("", where, true, kMaxKeptBytes);
  core->made_at.file = core->keep(where.file);
  std::vector<FrozenSignature> signatures;
  uint64_t counters = 0;
  const std::string text = text_of(entry(file, kText, DType::uint8, 1));
  Reader reader(text, *core);
  describe(reader, *core, signatures, counters);
  reader.end();

  auto counts = std::make_shared<eager::StepCounts>();
  counts->count = integers(entry(file, kSteps, DType::int64, 1));
  if (counts->count.size() != counters) fail("the number of step counts cannot be right");
  for (const int64_t n : counts->count)
    if (n < 0 || n > kMostSteps) fail("a step count cannot be right");
  for (size_t i = 0; i < counters; ++i) core->counters.push_back({counts, i});
  core->own_counts.push_back(std::move(counts));

  const std::vector<int64_t> g = integers(entry(file, kGenerator, DType::int64, 1));
  if (g.size() != 2) fail("the generator cannot be right");
  core->own_generator = std::make_unique<Generator>(static_cast<uint64_t>(g[0]));
  core->own_generator->set_offset(static_cast<uint64_t>(g[1]));
  if (file.find(kKernels)) core->kernels = text_of(entry(file, kKernels, DType::uint8, 1));

  std::vector<FrozenSlot> slots = std::move(core->slots);
  core->slots.clear();
  Spread spread;
  for (FrozenSlot& s : slots) {
    if (s.requires_grad && !is_floating(s.dtype))
      fail("a captured tensor that requires grad is not floating");
    const Tensor t = slot_tensor(file, s, spread);
    if (s.requires_grad) t.requires_grad_();
    core->owned.push_back(t);
    core->bind(std::move(s), t.impl());
  }
  for (FrozenSignature& s : signatures) finish(s, *core, counters);
  set_grads(signatures, *core);
  for (FrozenSignature& s : signatures)
    core->signatures.push_back(std::make_unique<const FrozenSignature>(std::move(s)));
  return core;
}

}  // namespace

}  // namespace tracer

void FrozenFunction::save(const std::string& path, const SaveOptions& options, Location where) const {
  using namespace tracer;
  FrozenCore& core = *core_;
  const std::lock_guard lock(core.mutex);
  const auto refuse = [&](const std::string& why) { fail("save: " + core.name + ": " + why, where); };
  std::vector<FrozenSlot> slots = core.slots;
  std::vector<Tensor> packed;
  std::vector<core::SafeTensor> entries;
  Spread spread;
  const NoGrad no_grad;
  for (size_t i = 0; i < slots.size(); ++i) {
    const Ref<TensorImpl> held = core.hold(i);
    TensorImpl* t = held.get();
    if (!t) refuse("captured tensor \"" + slots[i].name + "\" is gone");
    if (slots[i].shares >= 0)
      refuse("captured tensor \"" + slots[i].name + "\" shares memory with \"" +
             slots[static_cast<size_t>(slots[i].shares)].name + "\", which a file cannot keep");
    if (!(t->sizes == slots[i].sizes) || t->dtype != slots[i].dtype)
      refuse("captured tensor \"" + slots[i].name + "\" has changed its type");
    if (!spread.fits(slots[i].sizes, slots[i].strides, slots[i].dtype))
      refuse("captured tensor \"" + slots[i].name +
             "\" shows few elements of a large memory, which a file does not keep; capture its contiguous() "
             "copy");
    for (const NamedTensor& n : options.names)
      if (n.tensor.impl() == t) slots[i].name = n.name;
    for (size_t j = 0; j < i; ++j)
      if (slots[j].name == slots[i].name) refuse("two captured tensors are named \"" + slots[i].name + "\"");
    packed.push_back(Tensor(Ref<TensorImpl>(t)).contiguous(where).to(cpu, where));
    TensorImpl* p = packed.back().impl();
    eager::materialize(p, where);
    entries.push_back({kState + slots[i].name, p->dtype, p->sizes, p->data});
  }
  std::vector<int64_t> steps;
  for (const FrozenCore::Counter& c : core.counters) {
    const auto counts = c.counts.lock();
    if (!counts) refuse("the optimizer whose steps it makes is gone");
    steps.push_back(counts->count[c.index]);
  }
  entries.push_back({kSteps, DType::int64, {static_cast<int64_t>(steps.size())}, steps.data()});
  const int64_t generator[2] = {static_cast<int64_t>(core.generator().seed()),
                                static_cast<int64_t>(core.generator().offset())};
  entries.push_back({kGenerator, DType::int64, {2}, generator});

  Writer writer;
  std::vector<FrozenSignature> signatures;
  for (const auto& s : core.signatures) {
    for (const auto& [line, op] : s->calls)
      if (ops::user_kernel(op))
        refuse("\"" + std::string(ops::def(op).name) + "\" is a kernel of this program's own, called at " +
               to_string(line) + ", which another program does not have");
    signatures.push_back(*s);
    // What other programs cannot name; of a used-up history only messages ask.
    for (MadeTensor& m : signatures.back().made)
      if (ops::is_user(m.op)) m.op = ops::OpId::clone;
  }
  uint64_t counters = steps.size();
  std::swap(core.slots, slots);
  describe(writer, core, signatures, counters);
  std::swap(core.slots, slots);
  entries.push_back(bytes_entry(kText, writer.out));
  std::string kernels;
  for (const auto& s : core.signatures)
    if (options.kernels) kernels += s->executable->code() + "\n";
  if (options.kernels) entries.push_back(bytes_entry(kKernels, kernels));
  core::write_safetensors(path, entries,
                          {{kVersionKey, kVersion},
                           {kKindKey, kKind},
                           {kFunctionKey, kFunctionVersion},
                           {kDigestKey, digest_of(entries)}},
                          where);
}

FrozenFunction load_function(const std::string& path, Location where) {
  const core::SafeTensors file = core::SafeTensors::read(path, where);
  try {
    return FrozenFunction(tracer::load(file, where));
  } catch (const Error& e) {
    fail("load_function: \"" + path + "\": " + e.what(), where);
  }
}

}  // namespace tandem
