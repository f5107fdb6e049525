// Readers of array and image files against files that others wrote, and against damage.
#include <cstring>

#include "tandem/core/io/file.h"
#include "tandem/eager/data/data.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/eager/numpy_files.h"
#include "tests/error_message.h"

#if TANDEM_HAVE_PNG
#include <png.h>
#endif
#if TANDEM_HAVE_JPEG
#include <cstdio>

#include <jpeglib.h>
#endif

using namespace tandem;
using numpy_files::bytes;

namespace {

using tandem::test::message;

/// A version 1 file with this header and these elements.
std::string npy(const std::string& header, const std::string& elements) {
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) + '\0' + header + elements;
}

}  // namespace

TEST_CASE("npy: what NumPy writes is read", "[data]") {
  const Tensor t = data::parse_npy(bytes(numpy_files::kFortran));
  CHECK(t.sizes() == Dims{2, 3});
  CHECK(t.is_contiguous());
  CHECK(t.to_vector<int32_t>() == std::vector<int32_t>{-3, -2, -1, 0, 1, 2});
  CHECK_THAT(message([] { data::parse_npy(bytes(numpy_files::kObjects), "objects.npy"); }),
             Contains("\"objects.npy\"") && Contains("Python objects"));
}

TEST_CASE("npz: what NumPy writes is read, stored and deflated", "[data]") {
  const ScratchFolder folder;
  const std::vector<NamedTensor> deflated =
      data::read_npz(folder.put("a.npz", bytes(numpy_files::kCompressed)));
  REQUIRE(deflated.size() == 3);
  CHECK(deflated[0].name == "weights");
  CHECK(deflated[0].tensor.sizes() == Dims{2, 2});
  CHECK(deflated[0].tensor.to_vector<float>() == std::vector<float>{0.5f, -1.25f, 3, 1e-3f});
  CHECK(deflated[1].name == "flags");
  CHECK(deflated[1].tensor.to_vector<bool>() == std::vector<bool>{true, false, true});
  CHECK(deflated[2].name == "step");
  CHECK(deflated[2].tensor.item<int64_t>() == 7);
  const std::vector<NamedTensor> stored = data::read_npz(folder.put("b.npz", bytes(numpy_files::kStored)));
  REQUIRE(stored.size() == 2);
  CHECK(stored[0].tensor.dtype() == float16);
  CHECK(stored[0].tensor.to(float32).to_vector<float>() == std::vector<float>{1.5f, -2});
  CHECK(stored[1].tensor.sizes() == Dims{0, 3});
  CHECK(stored[1].tensor.dtype() == float64);
}

TEST_CASE("npy: every type and shape that is written is read back", "[data]") {
  const ScratchFolder folder;
  for (const DType t : {bool_, uint8, int32, int64, float16, float32, float64})
    for (const Dims& sizes : {Dims{}, Dims{0}, Dims{5}, Dims{2, 3}, Dims{2, 1, 3, 2}}) {
      const Tensor x = (randn(sizes) * 3 + 4).abs().to(t);
      data::write_npy(folder / "x.npy", x);
      const Tensor y = data::read_npy(folder / "x.npy");
      CHECK(y.dtype() == t);
      CHECK(y.sizes() == sizes);
      CHECK(y.to(float64).to_vector<double>() == x.to(float64).to_vector<double>());
    }
  const Tensor view = arange(0.f, 6).view({2, 3}).transpose(0, 1);
  data::write_npy(folder / "x.npy", view);
  const std::string file = core::read_file(folder / "x.npy");
  CHECK(file.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  CHECK_THAT(file, Contains("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"));
  CHECK(file.size() == 128 + 24);
  CHECK(data::read_npy(folder / "x.npy").to_vector<float>() == view.contiguous().to_vector<float>());
  CHECK_THAT(message([&] { data::write_npy(folder / "y.npy", zeros({2}, {.dtype = bfloat16})); }),
             Contains("no bfloat16"));
  CHECK(folder.count() == 1);
}

TEST_CASE("npy: headers that are wrong are refused, with what was found", "[data]") {
  const auto refused = [](const std::string& header, const std::string& elements = "12345678") {
    return message([&] { data::parse_npy(npy(header, elements), "x"); });
  };
  CHECK(refused("{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}") == "no error");
  CHECK(refused("{\"shape\":(2,),\"fortran_order\":True,\"descr\":\"<i4\",} \n") == "no error");
  for (const char* header : {"", "{", "{}", "{'descr': '<i4', 'fortran_order': False}",
                             "{'descr': '<i4', 'descr': '<i4', 'shape': (2,)}",
                             "{'descr': '<i4', 'fortran_order': Falsch, 'shape': (2,)}",
                             "{'descr': '<i4', 'fortran_order': False, 'shape': (2 3)}",
                             "{'descr': '<i4', 'fortran_order': False, 'shape': (-2,)}",
                             "{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                             "{'descr': '<i4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2)}",
                             "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,)}"}) {
    INFO(header);
    CHECK_THAT(refused(header), Contains("its header is not"));
  }
  CHECK_THAT(refused("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), Contains("type '<c8'"));
  CHECK_THAT(refused("{'descr': '<i4', 'fortran_order': False, 'shape': (3,)}"),
             Contains("needs 12 bytes, found 8"));
  CHECK_THAT(refused("{'descr': '<i4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 2)}"),
             Contains("too large"));
  CHECK_THAT(message([] { data::parse_npy(std::string("\x93NUMPY\x04\x00\x00\x00", 10)); }),
             Contains("version 4"));
}

TEST_CASE("no damage to an array file crashes its reader", "[data]") {
  const ScratchFolder folder;
  int errors = 0;
  const auto attempt = [&](const std::string& file, bool zip) {
    try {
      zip ? (void)data::read_npz(folder.put("x", file)) : (void)data::parse_npy(file);
    } catch (const Error&) {
      ++errors;
    }
  };
  for (const char* digits : {numpy_files::kFortran, numpy_files::kCompressed, numpy_files::kStored}) {
    const std::string file = bytes(digits);
    const bool zip = file[0] == 'P';
    for (size_t i = 0; i < file.size(); ++i) {
      attempt(file.substr(0, i), zip);
      for (const int flip : {0x01, 0x80, 0xff}) {
        std::string damaged = file;
        damaged[i] = static_cast<char>(damaged[i] ^ flip);
        attempt(damaged, zip);
      }
    }
  }
  CHECK(errors > 2000);
}

TEST_CASE("a ZIP member that is not what its directory says is refused", "[data]") {
  const ScratchFolder folder;
  const std::string file = bytes(numpy_files::kStored);
  const auto refused = [&](const std::string& damaged) {
    return message([&] { data::read_npz(folder.put("x.npz", damaged)); });
  };
  std::string other = file;
  other[file.find("half.npy") + 40] ^= 1;
  CHECK_THAT(refused(other), Contains("\"half.npy\" is damaged: its checksum is another"));
  CHECK_THAT(refused(file.substr(0, file.size() - 1)), Contains("not a ZIP archive"));
  CHECK_THAT(refused(""), Contains("not a ZIP archive"));
  other = file;
  other[file.find("PK\x01\x02") + 8] |= 1;
  CHECK_THAT(refused(other), Contains("is encrypted"));
}

TEST_CASE("bytes and CIFAR-10's batches are read", "[data]") {
  const ScratchFolder folder;
  CHECK(data::read_bytes(folder.put("t", "Az\n")).to_vector<uint8_t>() == std::vector<uint8_t>{65, 122, 10});
  CHECK(data::read_bytes(folder.put("t", "")).sizes() == Dims{0});
  std::string batch;
  for (int i = 0; i < 2; ++i) {
    batch += static_cast<char>(9 - i);
    for (int k = 0; k < 3072; ++k) batch += static_cast<char>((i + k) % 251);
  }
  const auto [images, labels] = data::read_cifar10(folder.put("c", batch));
  CHECK(images.sizes() == Dims{2, 3, 32, 32});
  CHECK(labels.to_vector<int64_t>() == std::vector<int64_t>{9, 8});
  CHECK(images[1][2][31][31].item<uint8_t>() == (1 + 3071) % 251);
  CHECK_THAT(message([&] { data::read_cifar10(folder.put("c", batch.substr(1))); }), Contains("6145 bytes"));
  batch[3073] = 10;
  CHECK_THAT(message([&] { data::read_cifar10(folder.put("c", batch)); }), Contains("image 1 has label 10"));
}

#if TANDEM_HAVE_PNG
TEST_CASE("PNG images are read in every form", "[data]") {
  struct Form {
    png_uint_32 format;
    std::vector<uint8_t> row;  // two pixels
    std::vector<uint8_t> unchanged, gray, rgb;
  };
  const Form forms[] = {
      {PNG_FORMAT_GRAY, {10, 200}, {10, 200}, {10, 200}, {10, 200, 10, 200, 10, 200}},
      {PNG_FORMAT_GA, {10, 255, 200, 255}, {10, 200, 255, 255}, {10, 200}, {10, 200, 10, 200, 10, 200}},
      {PNG_FORMAT_RGB, {255, 0, 0, 0, 0, 255}, {255, 0, 0, 0, 0, 255}, {76, 29}, {255, 0, 0, 0, 0, 255}},
      {PNG_FORMAT_RGBA,
       {255, 0, 0, 255, 0, 0, 255, 255},
       {255, 0, 0, 0, 0, 255, 255, 255},
       {76, 29},
       {255, 0, 0, 0, 0, 255}},
  };
  for (const Form& f : forms) {
    png_image p{};
    p.version = PNG_IMAGE_VERSION;
    p.width = 2;
    p.height = 1;
    p.format = f.format;
    png_alloc_size_t size = 10000;
    std::string file(size, '\0');
    REQUIRE(png_image_write_to_memory(&p, file.data(), &size, 0, f.row.data(), 0, nullptr));
    file.resize(size);
    const auto read = [&](data::ImageMode mode) { return data::parse_image(file, mode); };
    INFO(f.format);
    const Tensor unchanged = read(data::ImageMode::unchanged);
    CHECK(unchanged.sizes() == Dims{PNG_IMAGE_SAMPLE_CHANNELS(f.format), 1, 2});
    CHECK(unchanged.to_vector<uint8_t>() == f.unchanged);
    CHECK(read(data::ImageMode::gray).to_vector<uint8_t>() == f.gray);
    CHECK(read(data::ImageMode::rgb).to_vector<uint8_t>() == f.rgb);
    for (size_t cut = 0; cut < file.size() - 12; ++cut)
      CHECK(message([&] { data::parse_image(file.substr(0, cut)); }) != "no error");
    for (size_t i = 0; i < file.size(); ++i) {
      std::string damaged = file;
      damaged[i] = static_cast<char>(~damaged[i]);
      message([&] { data::parse_image(damaged); });
    }
  }
}
#endif

#if TANDEM_HAVE_JPEG
TEST_CASE("JPEG images are read, gray and in colour", "[data]") {
  for (const int channels : {1, 3}) {
    jpeg_compress_struct info{};
    jpeg_error_mgr errors{};
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* memory = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &memory, &size);
    info.image_width = 16;
    info.image_height = 8;
    info.input_components = channels;
    info.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 100, TRUE);
    jpeg_start_compress(&info, TRUE);
    std::vector<uint8_t> row;
    for (int i = 0; i < 16; ++i)
      for (int c = 0; c < channels; ++c)
        row.push_back(static_cast<uint8_t>(channels == 1 ? 90 : 60 * (c + 1)));
    for (int i = 0; i < 8; ++i) {
      JSAMPROW rows[] = {row.data()};
      jpeg_write_scanlines(&info, rows, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    const std::string file(reinterpret_cast<const char*>(memory), size);
    free(memory);

    const Tensor image = data::parse_image(file);
    CHECK(image.sizes() == Dims{channels, 8, 16});
    for (int c = 0; c < channels; ++c)
      CHECK(std::abs(static_cast<int>(image[c][7][15].item<uint8_t>()) -
                     (channels == 1 ? 90 : 60 * (c + 1))) <= 2);
    CHECK(data::parse_image(file, data::ImageMode::rgb).sizes() == Dims{3, 8, 16});
    CHECK(data::parse_image(file, data::ImageMode::gray).sizes() == Dims{1, 8, 16});
    for (size_t cut = 0; cut < file.size(); ++cut)
      CHECK(message([&] { data::parse_image(file.substr(0, cut), data::ImageMode::unchanged, "x.jpg"); }) !=
            "no error");
    for (size_t i = 0; i < file.size(); ++i) {
      std::string damaged = file;
      damaged[i] = static_cast<char>(~damaged[i]);
      message([&] { data::parse_image(damaged); });
    }
  }
}
#endif

TEST_CASE("an image of another format is refused with its file", "[data]") {
  const ScratchFolder folder;
  CHECK_THAT(message([&] { data::read_image(folder.put("a.gif", "GIF89a")); }),
             Contains("a.gif") && Contains("neither a PNG nor a JPEG"));
  CHECK_THAT(message([&] { data::read_image(folder / "none.png"); }), Contains("none.png"));
}
