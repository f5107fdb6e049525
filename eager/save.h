// Saving and loading of weights and checkpoints as safetensors files under PyTorch's names. A file is
// replaced in one step: a reader or a crash sees the old one or the new one. Loading checks everything before
// it changes anything. Free functions; one thread at a time per object saved or loaded.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tandem/eager/nn/module.h"
#include "tandem/eager/optim/grad_scaler.h"
#include "tandem/eager/optim/schedulers.h"

namespace tandem {

/// Texts kept with the tensors. Keys that begin with "tandem." are Tandem's own.
using Metadata = std::vector<std::pair<std::string, std::string>>;
/// The value of a key, or `otherwise`.
std::string find_metadata(const Metadata& metadata, const std::string& key,
                          const std::string& otherwise = "");

void save(const std::string& path, const std::vector<NamedTensor>& tensors, const Metadata& metadata = {},
          Location where = Location::here());
void save(const std::string& path, const nn::Module& module, const Metadata& metadata = {},
          Location where = Location::here());
void save(const std::string& path, const optim::Optimizer& optimizer, const Metadata& metadata = {},
          Location where = Location::here());
void save(const std::string& path, const Generator& generator, const Metadata& metadata = {},
          Location where = Location::here());

struct LoadedFile {
  std::vector<NamedTensor> tensors;  // in the order of the file
  Metadata metadata;
};
/// All tensors of a safetensors file, whoever wrote it, on the CPU.
LoadedFile load(const std::string& path, Location where = Location::here());
/// Into an object of the same structure; returns the metadata. Errors as load_state's, naming the file;
/// nothing is changed then.
Metadata load(const std::string& path, nn::Module& module, bool strict = true,
              Location where = Location::here());
Metadata load(const std::string& path, optim::Optimizer& optimizer, Location where = Location::here());
Metadata load(const std::string& path, Generator& generator, Location where = Location::here());

/// What a checkpoint holds: whatever is not null or empty. A training run that is resumed from one continues
/// bit for bit if all that it draws from and changes is named here:
///   save_checkpoint(path, {.module = &net, .optimizer = &opt, .generators = {{"default",
///   &default_generator()}}});
struct Checkpoint {
  nn::Module* module = nullptr;
  optim::Optimizer* optimizer = nullptr;
  optim::Scheduler* scheduler = nullptr;
  optim::GradScaler* scaler = nullptr;
  std::vector<std::pair<std::string, Generator*>> generators = {};
  Metadata metadata = {};  // saved; a load returns the file's
};
void save_checkpoint(const std::string& path, const Checkpoint& checkpoint,
                     Location where = Location::here());
/// Into the named parts, which must be those that were saved. All or nothing.
Metadata load_checkpoint(const std::string& path, const Checkpoint& checkpoint,
                         Location where = Location::here());

}  // namespace tandem
