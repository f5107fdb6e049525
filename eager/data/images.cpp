// Images: PNG through libpng, JPEG through libjpeg-turbo, each where the build found it; CIFAR-10's batches.
#include <algorithm>
#include <csetjmp>
#include <cstdio>

#include "tandem/core/io/file.h"
#include "tandem/core/io/gzip.h"
#include "tandem/eager/data/elements.h"
#include "tandem/eager/data/readers.h"

#if TANDEM_HAVE_PNG
#include <png.h>
#endif
#if TANDEM_HAVE_JPEG
#include <jpeglib.h>
#endif

namespace tandem::data {

namespace {

struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;  // row by row, the channels of a pixel together
};

constexpr int64_t kMostPixels = int64_t{1} << 28;
constexpr const char kTooLarge[] = "it has more than 2^28 pixels";

/// Decodes into `image`, which has no memory yet, with the file's channels or those of `mode`; what is wrong,
/// or "".
using Decode = std::string (*)(std::string_view bytes, ImageMode mode, Image& image);

#if TANDEM_HAVE_PNG
std::string decode_png(std::string_view bytes, ImageMode, Image& image) {
  struct Control {
    png_image png{};
    ~Control() { png_image_free(&png); }
  } control;
  png_image& p = control.png;
  p.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&p, bytes.data(), bytes.size())) return p.message;
  p.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;  // 16 bits are as 8 are, only finer
  p.format &= PNG_FORMAT_FLAG_COLOR | PNG_FORMAT_FLAG_ALPHA;
  image = {PNG_IMAGE_SAMPLE_CHANNELS(p.format), p.height, p.width, {}};
  if (image.height * image.width > kMostPixels) return kTooLarge;
  image.pixels.resize(PNG_IMAGE_SIZE(p));
  return png_image_finish_read(&p, nullptr, image.pixels.data(), 0, nullptr) ? "" : p.message;
}
#endif

#if TANDEM_HAVE_JPEG
struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_failed(j_common_ptr info) {
  auto* const errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->manager.format_message(info, errors->message);
  std::longjmp(errors->back, 1);
}

// No object with a destructor is made between setjmp and the end: the library leaves by longjmp.
std::string decode_jpeg(std::string_view bytes, ImageMode mode, Image& image) {
  jpeg_decompress_struct info{};
  JpegErrors errors{};
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = jpeg_failed;
  errors.manager.output_message = [](j_common_ptr) {};
  if (setjmp(errors.back)) {
    jpeg_destroy_decompress(&info);
    return errors.message;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  if (mode != ImageMode::unchanged || info.num_components == 3)
    info.out_color_space = mode == ImageMode::gray ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  image.channels = info.output_components;
  image.height = info.output_height;
  image.width = info.output_width;
  if (image.height * image.width > kMostPixels) {
    jpeg_destroy_decompress(&info);
    return kTooLarge;
  }
  image.pixels.resize(static_cast<size_t>(image.channels * image.height * image.width));
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.pixels.data() + static_cast<size_t>(info.output_scanline) *
                                             static_cast<size_t>(image.channels * image.width);
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  const bool damaged = errors.manager.num_warnings > 0;
  jpeg_destroy_decompress(&info);
  return damaged ? "it is damaged or cut off" : "";
}
#endif

/// Brightness of a colour (ITU-R BT.601), rounded.
uint8_t luma(const uint8_t* rgb) {
  return static_cast<uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
}

struct Format {
  const char *name, *library;
  std::string_view start;
  Decode decode;  // null: not in this build
};
constexpr Format kFormats[] = {
    {"PNG", "libpng", "\x89PNG\r\n\x1a\n",
#if TANDEM_HAVE_PNG
     decode_png},
#else
     nullptr},
#endif
    {"JPEG", "libjpeg", "\xff\xd8\xff",
#if TANDEM_HAVE_JPEG
     decode_jpeg},
#else
     nullptr},
#endif
};

}  // namespace

Tensor parse_image(std::string_view bytes, ImageMode mode, const std::string& name, Location where) {
  const auto refuse = [&](const std::string& message) { fail("image: \"" + name + "\": " + message, where); };
  const Format* format = nullptr;
  for (const Format& f : kFormats)
    if (bytes.starts_with(f.start)) format = &f;
  if (!format) refuse("neither a PNG nor a JPEG image");
  if (!format->decode)
    refuse(std::string("this build of Tandem was made without ") + format->library + ", which reads " +
           format->name);
  Image image;
  if (const std::string wrong = format->decode(bytes, mode, image); !wrong.empty())
    refuse(std::string(format->name) + ": " + wrong);
  const bool colour = image.channels >= 3;
  const int64_t pixels = image.height * image.width, channels = mode == ImageMode::unchanged ? image.channels
                                                                : mode == ImageMode::gray    ? 1
                                                                                             : 3;
  core::Ref<core::TensorImpl> t = core::make_tensor({channels, image.height, image.width}, uint8);
  auto* out = static_cast<uint8_t*>(t->data);
  for (int64_t c = 0; c < channels; ++c) {
    const uint8_t* in = image.pixels.data();
    const int64_t from = c < image.channels && (colour || channels != 3) ? c : 0;
    for (int64_t i = 0; i < pixels; ++i, in += image.channels)
      *out++ = mode == ImageMode::gray && colour ? luma(in) : in[from];
  }
  return Tensor(std::move(t));
}

Tensor read_image(const std::string& path, ImageMode mode, Location where) {
  return parse_image(core::read_file(path, int64_t{1} << 30, where), mode, path, where);
}

std::pair<Tensor, Tensor> read_cifar10(const std::string& path, Location where) {
  constexpr int64_t kPixels = 3 * 32 * 32, kRecord = 1 + kPixels;
  const std::string bytes = core::read_maybe_gzip(path, int64_t{8} << 30, where);
  const auto size = static_cast<int64_t>(bytes.size());
  const auto refuse = [&](const std::string& message) {
    fail("cifar10: \"" + path + "\": " + message, where);
  };
  if (size == 0 || size % kRecord != 0)
    refuse(std::to_string(size) + " bytes are no multiple of " + std::to_string(kRecord) +
           ", a label and an image of 3 x 32 x 32");
  const int64_t n = size / kRecord;
  core::Ref<core::TensorImpl> images = core::make_tensor({n, 3, 32, 32}, uint8),
                              labels = core::make_tensor({n}, int64);
  for (int64_t i = 0; i < n; ++i) {
    const char* const record = bytes.data() + i * kRecord;
    const auto label = static_cast<uint8_t>(record[0]);
    if (label > 9)
      refuse("image " + std::to_string(i) + " has label " + std::to_string(label) + ", 0 to 9 are possible");
    static_cast<int64_t*>(labels->data)[i] = label;
    std::copy_n(record + 1, kPixels, static_cast<char*>(images->data) + i * kPixels);
  }
  return {Tensor(std::move(images)), Tensor(std::move(labels))};
}

}  // namespace tandem::data
