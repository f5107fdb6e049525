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
constexpr size_t kKeyLength = 64;  // of a module's key

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

  std::vector<std::shared_ptr<Entry>> entries, ours;  // ours: to be built here; others are, or were
  std::vector<WantedPart> wanted;                     // of ours
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < parts.size(); ++i) {
      std::shared_ptr<Entry>& slot = entries_[names[i]];
      if (slot != nullptr && (slot->done || slot->process == getpid())) {
        ++stats_.memory_hits;
      } else {
        slot = std::make_shared<Entry>();
        slot->process = getpid();
        ours.push_back(slot);
        wanted.push_back({parts[i].text, parts[i].cost, names[i]});
      }
      entries.push_back(slot);
    }
  }

  std::vector<Built> built;
  try {
    if (!ours.empty()) built = build(start, wanted);
  } catch (...) {  // out of memory, say: whoever waits must not wait for ever
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < ours.size(); ++i) {
      ours[i]->error = "compilation was interrupted";
      ours[i]->done = true;
      entries_.erase(wanted[i].name);
    }
    built_.notify_all();
    throw;
  }
  {
    std::unique_lock lock(mutex_);
    for (size_t i = 0; i < ours.size(); ++i) {
      ours[i]->module = std::move(built[i].module);
      ours[i]->error = std::move(built[i].error);
      ours[i]->done = true;
      if (ours[i]->module == nullptr) ++stats_.failures;
    }
    if (!ours.empty()) built_.notify_all();
    for (const std::shared_ptr<Entry>& entry : entries) built_.wait(lock, [&] { return entry->done; });
  }
  for (const std::shared_ptr<Entry>& entry : ours)
    if (entry->module == nullptr) warn_once(entry->error);
  for (size_t i = 0; i < parts.size(); ++i) {
    modules[i] = entries[i]->module;
    if (error != nullptr && modules[i] == nullptr) *error = entries[i]->error;
  }
  return modules;
}

std::vector<KernelCache::Built> KernelCache::build(const ProgramStart& start,
                                                   std::span<const WantedPart> wanted) {
  std::vector<Built> built(wanted.size());
  if (!no_place_) {
    const auto compiled = [&](std::span<const size_t> parts, std::string source) {
      if (no_place_) return std::optional<DiskCache::Stored>();
      std::string key = wanted[parts[0]].name, error;
      if (parts.size() > 1) {
        Sha256 all;
        for (const size_t i : parts) all.update(wanted[i].name);
        key = hex(all.finish());
      }
      auto program = compile(start, std::move(source), key, &error);
      for (const size_t i : parts) built[i].error = error;
      return program;
    };
    const auto loaded = [&](const DiskCache::Stored& program, std::span<const size_t> parts) {
      if (no_place_) return false;
      Built all;
      all.module = load(start, program, &all.error);
      for (const size_t i : parts) built[i] = all;
      return all.module != nullptr;
    };
    const int64_t hits = load_programs(wanted, {disk_, disk_key(start), compiled, loaded});
    const std::lock_guard lock(mutex_);
    stats_.disk_hits += hits;
  }
  if (no_place_)
    for (Built& b : built)
      if (b.module == nullptr && b.error.empty()) b.error = "no place from which compiled kernels can be run";
  return built;
}

std::optional<DiskCache::Stored> KernelCache::compile(const ProgramStart& start, std::string source,
                                                      const std::string& key, std::string* error) {
  CompileResult compiled =
      settings_.compiler->compile(module_source(start.text + source, key), settings_.options);
  const std::lock_guard lock(mutex_);
  stats_.compile_ms += compiled.time_ms;
  *error = std::move(compiled.error);
  if (!error->empty()) return {};
  ++stats_.compiles;
  return DiskCache::Stored{std::move(source) + key, std::move(compiled.object)};
}

std::shared_ptr<const Module> KernelCache::load(const ProgramStart& start, const DiskCache::Stored& program,
                                                std::string* error) {
  if (program.source.size() < kKeyLength) return nullptr;
  const size_t end = program.source.size() - kKeyLength;
  const std::string key = program.source.substr(end);
  {
    const std::lock_guard lock(mutex_);
    const auto it = programs_.find(key);
    if (it != programs_.end())
      if (std::shared_ptr<const Module> module = it->second.lock()) return module;
  }
  bool no_place = false;
  std::shared_ptr<const Module> module = Module::load(
      program.object, start.text + program.source.substr(0, end), key, settings_.places, error, &no_place);
  if (no_place) no_place_ = true;
  if (module != nullptr) {
    const std::lock_guard lock(mutex_);
    programs_[key] = module;
  }
  return module;
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
