// Readers of data files: CSV, IDX (the format of MNIST) and plain bytes, each perhaps gzipped; NumPy's .npy
// and .npz; PNG and JPEG images; CIFAR-10. Whatever bytes a file holds, the result is a tensor on the CPU or
// an Error that names the file and the place. Free functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/eager/functions.h"
#include "tandem/eager/named_tensor.h"

namespace tandem::data {

struct CsvOptions {
  bool header = false;  // the first line holds the columns' names
  char delimiter = ',';
  DType dtype = float32;  // float32, float64 or int64
};

struct Csv {
  std::vector<std::string> columns;  // the header's names; empty without one
  Tensor values;                     // (rows, columns)
};

/// A table of numbers: as many fields on each line, spaces around a field ignored, LF or CRLF, empty lines
/// only at the end. Errors name file, line and column: text that is no number, a number that the type cannot
/// hold, missing or surplus fields, no rows.
Csv read_csv(const std::string& path, const CsvOptions& options = {}, Location where = Location::here());
/// The same from memory; `name` stands in messages for the path.
Csv parse_csv(std::string_view text, const CsvOptions& options = {}, const std::string& name = "memory",
              Location where = Location::here());

/// An IDX file's array: uint8, int32, float32 and float64 as they are, int8 and int16 as int32. Errors: a
/// wrong magic number, an unknown type, 0 or more than 8 axes, a length other than the sizes say.
Tensor read_idx(const std::string& path, Location where = Location::here());
Tensor parse_idx(std::string_view bytes, const std::string& name = "memory",
                 Location where = Location::here());

/// A file's bytes as uint8 (n): text for models of characters.
Tensor read_bytes(const std::string& path, Location where = Location::here());

/// A NumPy array: bool, uint8, int32, int64, float16, float32, float64 as they are, int8, int16 and uint16 as
/// int32, uint32 as int64; any byte order, C or Fortran order. Errors: other types, objects (which would run
/// code when they are read), a damaged header, a length other than the shape says.
Tensor read_npy(const std::string& path, Location where = Location::here());
Tensor parse_npy(std::string_view bytes, const std::string& name = "memory",
                 Location where = Location::here());
/// The arrays of an .npz archive (np.savez, np.savez_compressed) under their names, in its order.
std::vector<NamedTensor> read_npz(const std::string& path, Location where = Location::here());
/// Replaces `path` by the tensor as a NumPy array in C order; bfloat16, which NumPy lacks, is an Error.
void write_npy(const std::string& path, const Tensor& tensor, Location where = Location::here());

/// What a read image is turned into.
enum class ImageMode : uint8_t { unchanged, gray, rgb };

/// A PNG or JPEG image as uint8 (channels, height, width), torchvision's read_image; 16-bit PNGs are rounded
/// to 8 bits, palettes become colours. Unchanged keeps 1 (gray), 2 (gray, alpha), 3 or 4 channels; gray
/// (ITU-R BT.601) and rgb drop alpha. Errors: other formats, damaged or cut files, more than 2^28 pixels, a
/// format whose library this build lacks.
Tensor read_image(const std::string& path, ImageMode mode = ImageMode::unchanged,
                  Location where = Location::here());
Tensor parse_image(std::string_view bytes, ImageMode mode = ImageMode::unchanged,
                   const std::string& name = "memory", Location where = Location::here());

/// A batch file of CIFAR-10's binary version: images uint8 (n, 3, 32, 32) and labels int64 (n). Errors: a
/// length that is no multiple of 3,073 bytes, a label above 9.
std::pair<Tensor, Tensor> read_cifar10(const std::string& path, Location where = Location::here());

}  // namespace tandem::data
