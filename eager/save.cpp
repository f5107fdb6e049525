// A checkpoint is one file whose names begin with their part: "model.", "optimizer.", "scheduler.",
// "generator.". A generator is two int64: the bits of its seed and of its offset.
#include "tandem/eager/save.h"

#include <bit>
#include <cstring>
#include <string_view>

#include "tandem/core/io/safetensors.h"
#include "tandem/eager/dispatch.h"

namespace tandem {

namespace {

constexpr std::string_view kReserved = "tandem.";
constexpr const char *kVersionKey = "tandem.version", *kKindKey = "tandem.kind", *kVersion = "1";
constexpr std::string_view kModel = "model.", kOptimizer = "optimizer.", kScheduler = "scheduler.",
                           kScaler = "scaler.", kGenerator = "generator.";

void write(const std::string& path, const char* kind, const std::vector<NamedTensor>& tensors,
           const Metadata& metadata, Location where) {
  std::map<std::string, std::string> texts = {{kVersionKey, kVersion}, {kKindKey, kind}};
  for (const auto& [key, value] : metadata) {
    if (key.starts_with(kReserved))
      fail("save: the metadata's key \"" + key + "\" begins with \"tandem.\", which is reserved", where);
    if (!texts.emplace(key, value).second)
      fail("save: the metadata's key \"" + key + "\" is given twice", where);
  }
  const NoGrad no_grad;
  std::vector<Tensor> packed;
  std::vector<core::SafeTensor> entries;
  for (const NamedTensor& n : tensors) {
    if (!n.tensor.defined()) fail("save: \"" + n.name + "\" is an undefined tensor", where);
    packed.push_back(n.tensor.contiguous(where).to(cpu, where));
    core::TensorImpl* t = packed.back().impl();
    eager::materialize(t, where);
    entries.push_back({n.name, t->dtype, t->sizes, t->data});
  }
  core::write_safetensors(path, entries, texts, where);
}

/// A file's tensors; what has a version must have one that is known.
LoadedFile read(const std::string& path, Location where) {
  const core::SafeTensors file = core::SafeTensors::read(path, where);
  const auto version = file.metadata().find(kVersionKey);
  if (version != file.metadata().end() && version->second != kVersion)
    fail("load: \"" + path + "\" has version " + version->second.substr(0, 20) +
             " of the format, this Tandem reads version " + kVersion,
         where);
  LoadedFile out;
  for (const core::SafeTensor& e : file.entries()) {
    core::Ref<core::TensorImpl> t = core::make_tensor(e.sizes, e.dtype);
    if (const int64_t n = e.nbytes(); n > 0) std::memcpy(t->data, e.data, static_cast<size_t>(n));
    out.tensors.push_back({e.name, Tensor(std::move(t))});
  }
  for (const auto& [key, value] : file.metadata()) out.metadata.emplace_back(key, value);
  return out;
}

/// Runs `f`, and puts the path before the message of an Error.
template <class F>
void naming(const std::string& path, Location where, F f) {
  try {
    f();
  } catch (const Error& e) {
    std::string message = e.what();
    const std::string line = " at " + to_string(e.where());
    if (message.ends_with(line)) message.resize(message.size() - line.size());  // fail() adds it again
    fail("load: \"" + path + "\": " + message, where);
  }
}

Tensor generator_tensor(const Generator& g) {
  return tensor({static_cast<int64_t>(g.seed()), static_cast<int64_t>(g.offset())});
}

std::vector<NamedTensor> generator_state(const Generator& g) { return {{"state", generator_tensor(g)}}; }

void load_generator(Generator& g, const Tensor& state) {
  const std::vector<int64_t> words = state.to_vector<int64_t>();
  g.seed(static_cast<uint64_t>(words[0]));
  g.set_offset(static_cast<uint64_t>(words[1]));
}

void append(std::vector<NamedTensor>& out, std::string_view prefix, std::vector<NamedTensor> part) {
  for (NamedTensor& n : part) out.push_back({std::string(prefix) + n.name, std::move(n.tensor)});
}

/// The tensors whose names begin with `prefix`, without it.
std::vector<NamedTensor> part_of(const std::vector<NamedTensor>& all, std::string_view prefix) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& n : all)
    if (n.name.starts_with(prefix)) out.push_back({n.name.substr(prefix.size()), n.tensor});
  return out;
}

std::vector<NamedTensor> generators_state(const Checkpoint& c, Location where) {
  std::vector<NamedTensor> out;
  for (const auto& [name, generator] : c.generators) {
    if (!generator) fail("checkpoint: generator \"" + name + "\" is null", where);
    out.push_back({name, generator_tensor(*generator)});
  }
  return out;
}

/// Throws if the file has a part that is not asked for: it would be lost silently.
void check_parts(const LoadedFile& file, const Checkpoint& c) {
  const struct {
    std::string_view prefix;
    bool wanted;
  } parts[] = {{kModel, c.module != nullptr},
               {kOptimizer, c.optimizer != nullptr},
               {kScheduler, c.scheduler != nullptr},
               {kScaler, c.scaler != nullptr},
               {kGenerator, !c.generators.empty()}};
  for (const NamedTensor& n : file.tensors) {
    bool wanted = false;
    for (const auto& p : parts) wanted |= p.wanted && n.name.starts_with(p.prefix);
    if (!wanted) fail("checkpoint: the file also holds \"" + n.name + "\", which no part was given for");
  }
}

}  // namespace

std::string find_metadata(const Metadata& metadata, const std::string& key, const std::string& otherwise) {
  for (const auto& [k, value] : metadata)
    if (k == key) return value;
  return otherwise;
}

void save(const std::string& path, const std::vector<NamedTensor>& tensors, const Metadata& metadata,
          Location where) {
  write(path, "tensors", tensors, metadata, where);
}
void save(const std::string& path, const nn::Module& module, const Metadata& metadata, Location where) {
  write(path, "module", module.state(), metadata, where);
}
void save(const std::string& path, const optim::Optimizer& optimizer, const Metadata& metadata,
          Location where) {
  write(path, "optimizer", optimizer.state(), metadata, where);
}
void save(const std::string& path, const Generator& generator, const Metadata& metadata, Location where) {
  write(path, "generator", generator_state(generator), metadata, where);
}

LoadedFile load(const std::string& path, Location where) { return read(path, where); }

Metadata load(const std::string& path, nn::Module& module, bool strict, Location where) {
  LoadedFile file = read(path, where);
  naming(path, where, [&] { module.load_state(file.tensors, strict, where); });
  return std::move(file.metadata);
}
Metadata load(const std::string& path, optim::Optimizer& optimizer, Location where) {
  LoadedFile file = read(path, where);
  naming(path, where, [&] { optimizer.load_state(file.tensors, where); });
  return std::move(file.metadata);
}
Metadata load(const std::string& path, Generator& generator, Location where) {
  LoadedFile file = read(path, where);
  naming(path, where,
         [&] { eager::match_names(generator_state(generator), file.tensors, true, "Generator", where); });
  load_generator(generator, file.tensors[0].tensor);
  return std::move(file.metadata);
}

void save_checkpoint(const std::string& path, const Checkpoint& c, Location where) {
  std::vector<NamedTensor> all;
  if (c.module) append(all, kModel, c.module->state());
  if (c.optimizer) append(all, kOptimizer, c.optimizer->state());
  if (c.scheduler) append(all, kScheduler, c.scheduler->state());
  if (c.scaler) append(all, kScaler, c.scaler->state());
  append(all, kGenerator, generators_state(c, where));
  write(path, "checkpoint", all, c.metadata, where);
}

Metadata load_checkpoint(const std::string& path, const Checkpoint& c, Location where) {
  LoadedFile file = read(path, where);
  const std::vector<NamedTensor> model = part_of(file.tensors, kModel),
                                 optimizer = part_of(file.tensors, kOptimizer),
                                 scheduler = part_of(file.tensors, kScheduler),
                                 scaler = part_of(file.tensors, kScaler),
                                 generators = part_of(file.tensors, kGenerator);
  std::vector<int64_t> found;
  naming(path, where, [&] {
    check_parts(file, c);
    if (c.module) c.module->check_state(model, true, where);
    if (c.optimizer) c.optimizer->check_state(optimizer, where);
    if (c.scheduler) c.scheduler->check_state(scheduler, where);
    if (c.scaler) c.scaler->check_state(scaler, where);
    found = eager::match_names(generators_state(c, where), generators, true, "checkpoint: generators", where);
  });
  if (c.module) c.module->load_state(model, true, where);
  if (c.optimizer) c.optimizer->load_state(optimizer, where);
  if (c.scheduler) c.scheduler->load_state(scheduler, where);
  if (c.scaler) c.scaler->load_state(scaler, where);
  for (size_t i = 0; i < found.size(); ++i)
    load_generator(*c.generators[i].second, generators[static_cast<size_t>(found[i])].tensor);
  return std::move(file.metadata);
}

}  // namespace tandem
