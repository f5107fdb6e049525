// Readers of numeric files, plain or gzipped: CSV, and IDX (the format of MNIST). Whatever bytes a file
// holds, the result is a tensor on the CPU or an Error that names the file and the place. Free functions, any
// thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/eager/functions.h"

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

}  // namespace tandem::data
