#include "tandem/jit/kernel_cache.h"

#include <unistd.h>

#include <iterator>
#include <utility>

#include "tandem/core/env.h"
#include "tandem/core/log.h"
#include "tandem/jit/child_process.h"
#include "tandem/jit/sha256.h"

namespace tandem::jit {

namespace {

constexpr char kSection[] = "cpu";

std::string key_text(const KernelCache::Settings& settings) {
  if (settings.compiler == nullptr) return {};
  std::string text = "tandem " + settings.version + "\narguments";
  for (const std::string& argument : HostCompiler::arguments(settings.options)) text += " " + argument;
  return text + "\nprocessor" + host_processor() + "\ncompiler " + settings.compiler->identity() + "\n";
}

}  // namespace

KernelCache::KernelCache(Settings settings)
    : settings_(std::move(settings)),
      key_(key_text(settings_)),
      disk_(settings_.compiler != nullptr ? settings_.folder : "", kSection, settings_.limit_bytes) {}

std::shared_ptr<const Module> KernelCache::get(const std::string& source, std::string* error) {
  static const auto* const nothing = new ProgramStart("");
  const ProgramPart part{source, source.size()};
  return get(*nothing, {&part, 1}, error)[0];
}

std::vector<std::shared_ptr<const Module>> KernelCache::get(const ProgramStart& start,
                                                            std::span<const ProgramPart> parts,
                                                            std::string* error) {
  std::vector<std::shared_ptr<const Module>> modules(parts.size());
  if (settings_.compiler == nullptr) {
    if (error != nullptr) *error = "no host compiler";
    return modules;
  }
  Sha256 key;
  key.update(disk_key(start));
  std::vector<std::string> names;
  for (const ProgramPart& part : parts) {
    Sha256 hash = key;
    hash.update(part.text);
    names.push_back(hex(hash.finish()));
  }

  std::vector<std::shared_ptr<Entry>> entries;
  std::vector<Wanted> ours;  // to be built here; others are, or were
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < parts.size(); ++i) {
      std::shared_ptr<Entry>& slot = entries_[names[i]];
      if (slot != nullptr && (slot->done || slot->process == getpid())) {
        ++stats_.memory_hits;
      } else {
        slot = std::make_shared<Entry>();
        slot->process = getpid();
        ours.push_back({&parts[i], names[i], slot, nullptr, {}});
      }
      entries.push_back(slot);
    }
  }

  try {
    if (!ours.empty()) build(start, ours);
  } catch (...) {  // out of memory, say: whoever waits must not wait for ever
    const std::lock_guard lock(mutex_);
    for (const Wanted& w : ours) {
      w.entry->error = "compilation was interrupted";
      w.entry->done = true;
      entries_.erase(w.name);
    }
    built_.notify_all();
    throw;
  }
  {
    std::unique_lock lock(mutex_);
    for (Wanted& w : ours) {
      w.entry->module = std::move(w.module);
      w.entry->error = std::move(w.error);
      w.entry->done = true;
      if (w.entry->module == nullptr) ++stats_.failures;
    }
    if (!ours.empty()) built_.notify_all();
    for (const std::shared_ptr<Entry>& entry : entries) built_.wait(lock, [&] { return entry->done; });
  }
  for (const Wanted& w : ours)
    if (w.entry->module == nullptr) warn_once(w.entry->error);
  for (size_t i = 0; i < parts.size(); ++i) {
    modules[i] = entries[i]->module;
    if (error != nullptr && modules[i] == nullptr) *error = entries[i]->error;
  }
  return modules;
}

void KernelCache::build(const ProgramStart& start, std::span<Wanted> wanted) {
  bool no_place = no_place_;
  if (!no_place) find_on_disk(start, wanted, &no_place);
  if (!no_place) {
    std::vector<Wanted*> missing;
    std::vector<size_t> costs;
    for (Wanted& w : wanted) {
      if (w.module != nullptr) continue;
      missing.push_back(&w);
      costs.push_back(w.part->cost);
    }
    const std::vector<std::vector<size_t>> programs = share_out(costs);
    side_by_side(programs.size(), [&](size_t i) {
      std::vector<Wanted*> program;
      for (const size_t k : programs[i]) program.push_back(missing[k]);
      compile(start, program);
    });
  }
  if (no_place) no_place_ = true;
  if (!no_place_) return;
  for (Wanted& w : wanted)
    if (w.module == nullptr && w.error.empty()) w.error = "no place from which compiled kernels can be run";
}

// A stored source ends with the key of its program's module.
void KernelCache::find_on_disk(const ProgramStart& start, std::span<Wanted> wanted, bool* no_place) {
  for (size_t i = 0; i < wanted.size() && !*no_place; ++i) {
    Wanted& w = wanted[i];
    if (w.module != nullptr) continue;
    std::optional<DiskCache::Stored> stored = disk_.find(w.name, disk_key(start), w.part->text);
    if (!stored || stored->source.size() < w.name.size()) continue;
    const std::string key = stored->source.substr(stored->source.size() - w.name.size());
    stored->source.resize(stored->source.size() - w.name.size());
    std::shared_ptr<const Module> module = loaded(key);
    if (module == nullptr)
      module = Module::load(stored->object, start.text + stored->source, key, settings_.places, &w.error,
                            no_place);
    if (module == nullptr) continue;
    int64_t found = 0;
    for (Wanted& other : wanted.subspan(i)) {
      if (other.module != nullptr || stored->source.find(other.part->text) == std::string::npos) continue;
      other.module = module;
      ++found;
    }
    const std::lock_guard lock(mutex_);
    stats_.disk_hits += found;
    programs_[key] = module;
  }
}

std::shared_ptr<const Module> KernelCache::loaded(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = programs_.find(key);
  return it == programs_.end() ? nullptr : it->second.lock();
}

void KernelCache::compile(const ProgramStart& start, std::span<Wanted* const> program) {
  if (no_place_) return;
  std::string source, key = program[0]->name;
  std::vector<std::string> names;
  for (const Wanted* w : program) {
    source += w->part->text;
    names.push_back(w->name);
  }
  if (program.size() > 1) {
    Sha256 all;
    for (const std::string& name : names) all.update(name);
    key = hex(all.finish());
  }
  const std::string text = start.text + source;
  CompileResult compiled = settings_.compiler->compile(module_source(text, key), settings_.options);
  {
    const std::lock_guard lock(mutex_);
    stats_.compile_ms += compiled.time_ms;
    if (compiled.ok()) ++stats_.compiles;
  }
  if (!compiled.ok() && program.size() > 1) {  // one kernel must not cost the others their code
    for (Wanted* const& w : program) compile(start, {&w, 1});
    return;
  }
  std::shared_ptr<const Module> module;
  bool no_place = false;
  if (compiled.ok())
    module = Module::load(compiled.object, text, key, settings_.places, &compiled.error, &no_place);
  if (no_place) no_place_ = true;
  if (module != nullptr) {
    const std::lock_guard lock(mutex_);
    programs_[key] = module;
  }
  if (module != nullptr) disk_.store(names, disk_key(start), source + key, compiled.object);
  for (Wanted* w : program) {
    w->module = module;
    w->error = module != nullptr ? std::string() : compiled.error;
  }
}

void KernelCache::warn_once(const std::string& message) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = !std::exchange(warned_, true);
  }
  // Later ones are still to be found by whoever looks for them.
  core::log(core::LogArea::jit, first ? core::LogLevel::warn : core::LogLevel::info,
            "a kernel is interpreted, which is slower: " + message);
}

void KernelCache::forget() {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& item) { return item.second->done; });
}

CacheStats KernelCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

KernelCache& KernelCache::of_process() {
  static KernelCache& cache = *[] {
    Settings settings;
    settings.folder = core::environment().cache_dir;
    settings.compiler = HostCompiler::of_process();
    settings.places.folders = temporary_folders();
    auto* made = new KernelCache(std::move(settings));
    return made;
  }();
  return cache;
}

CacheStats cache_stats() { return KernelCache::of_process().stats(); }

}  // namespace tandem::jit
