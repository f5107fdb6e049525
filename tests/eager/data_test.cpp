#include "tandem/eager/data/data.h"

#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <random>

#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

using tandem::test::message;

std::string gzipped(const std::string& bytes) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(bytes.size() + 100, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

data::TensorDataset numbers(int64_t n) {
  return {arange(0, static_cast<double>(2 * n)).view({n, 2}),
          arange(0, static_cast<double>(n), 1, {.dtype = int64})};
}

/// The labels of one epoch, batch by batch.
std::vector<std::vector<int64_t>> epoch(data::DataLoader& loader) {
  std::vector<std::vector<int64_t>> out;
  for (auto [x, y] : loader) {
    out.push_back(y.to_vector<int64_t>());
    const std::vector<float> pixels = x.to_vector<float>();
    REQUIRE(x.sizes() == Dims{y.size(0), 2});
    for (size_t i = 0; i < out.back().size(); ++i)
      REQUIRE(pixels[2 * i] == static_cast<float>(2 * out.back()[i]));
  }
  return out;
}

std::vector<int64_t> flat(const std::vector<std::vector<int64_t>>& batches) {
  std::vector<int64_t> out;
  for (const auto& b : batches) out.insert(out.end(), b.begin(), b.end());
  return out;
}

/// Squares, one example at a time.
struct Squares : data::Dataset {
  int64_t size() const override { return 5; }
  data::Example get(int64_t i) const override {
    return {full({2}, static_cast<double>(i)), scalar_tensor(i * i)};
  }
};

}  // namespace

TEST_CASE("a loader makes batches in order", "[data]") {
  const data::TensorDataset d = numbers(7);
  data::DataLoader loader(d, {.batch_size = 3});
  CHECK(loader.size() == 3);
  CHECK(epoch(loader) == std::vector<std::vector<int64_t>>{{0, 1, 2}, {3, 4, 5}, {6}});
  data::DataLoader full(d, {.batch_size = 3, .drop_last = true});
  CHECK(full.size() == 2);
  CHECK(epoch(full) == std::vector<std::vector<int64_t>>{{0, 1, 2}, {3, 4, 5}});
  data::DataLoader large(d, {.batch_size = 100});
  CHECK(epoch(large).size() == 1);
  data::DataLoader none(numbers(0), {.batch_size = 3});
  CHECK(none.size() == 0);
  CHECK(epoch(none).empty());
}

TEST_CASE("shuffling visits each example once, in a new order each epoch, from its own generator", "[data]") {
  const uint64_t offset = default_generator().offset();
  data::DataLoader loader(numbers(50), {.batch_size = 8, .shuffle = true, .seed = 3});
  data::DataLoader same(numbers(50), {.batch_size = 8, .shuffle = true, .seed = 3});
  data::DataLoader other(numbers(50), {.batch_size = 8, .shuffle = true, .seed = 4});
  std::vector<int64_t> all(50);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int64_t> first = flat(epoch(loader));
  CHECK(first != all);
  CHECK(std::is_permutation(first.begin(), first.end(), all.begin()));
  CHECK(first == flat(epoch(same)));
  CHECK(first != flat(epoch(other)));
  const uint64_t resume = loader.generator().offset();
  const std::vector<int64_t> second = flat(epoch(loader));
  CHECK(second != first);
  loader.generator().set_offset(resume);
  CHECK(flat(epoch(loader)) == second);
  CHECK(default_generator().offset() == offset);
}

TEST_CASE("a user's data set is stacked; references and temporaries both work", "[data]") {
  const Squares squares;
  data::DataLoader loader(squares, {.batch_size = 2});
  CHECK(&loader.dataset() == &squares);
  std::vector<int64_t> seen;
  for (auto [x, y] : loader) {
    CHECK(x.sizes() == Dims{y.size(0), 2});
    for (const int64_t v : y.to_vector<int64_t>()) seen.push_back(v);
  }
  CHECK(seen == std::vector<int64_t>{0, 1, 4, 9, 16});
  data::DataLoader owner(Squares{}, {.batch_size = 5});
  CHECK((*owner.begin()).second.to_vector<int64_t>() == seen);
}

TEST_CASE("workers make the same batches in the same order, random augmentations too", "[data]") {
  const auto noisy = std::make_shared<data::TransformedDataset>(
      std::make_shared<data::TensorDataset>(numbers(37)), [](data::Example e) {
        const Tensor noise = rand({2}, {}, &data::generator());
        return data::Example{e.first + noise, e.second};
      });
  const uint64_t offset = default_generator().offset();
  std::vector<std::vector<float>> expected;
  for (const int64_t workers : {0, 1, 3, 40}) {
    data::DataLoader loader(noisy, {.batch_size = 5, .shuffle = true, .seed = 9, .workers = workers});
    std::vector<std::vector<float>> found;
    for (int epoch = 0; epoch < 2; ++epoch)
      for (auto [x, y] : loader) found.push_back((x + y.view({-1, 1})).to_vector<float>());
    INFO(workers);
    REQUIRE(found.size() == 16);
    CHECK(found[0] != found[8]);
    if (expected.empty())
      expected = found;
    else
      CHECK(found == expected);
  }
  CHECK(default_generator().offset() == offset);
}

namespace {
/// Says which examples were made, and how many at once at most.
struct Watched : data::Dataset {
  mutable std::atomic<int> made{0};
  int64_t throws_at = -1;
  int64_t size() const override { return 12; }
  data::Example get(int64_t i) const override {
    ++made;
    if (i == throws_at) fail("example " + std::to_string(i) + " is not there");
    return {full({1}, static_cast<double>(i)), scalar_tensor(i)};
  }
};
}  // namespace

TEST_CASE("workers go ahead so far and no further, and stop with the loop", "[data]") {
  const Watched d;
  data::DataLoader loader(d, {.batch_size = 1, .workers = 2, .prefetch_factor = 2});
  {
    const data::DataLoader::Iterator it = loader.begin();
    CHECK((*it).second.to_vector<int64_t>()[0] == 0);
    CHECK((*it).second.to_vector<int64_t>()[0] == 0);  // reading twice gives the same batch
    CHECK(d.made <= 4);
  }
  const int made = d.made;
  CHECK(made <= 4);
  data::DataLoader::Iterator first = loader.begin(), second = first;
  ++first;
  CHECK_THAT(message([&] { *second; }), Contains("batch 0 was passed by another iterator"));
  std::vector<int64_t> rest;
  for (; first != loader.end(); ++first) rest.push_back((*first).second.item<int64_t>());
  CHECK(rest == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}

TEST_CASE("an error in a worker is thrown by the reading of its batch", "[data]") {
  Watched d;
  d.throws_at = 5;
  data::DataLoader loader(d, {.batch_size = 2, .workers = 2});
  int batches = 0;
  const std::string text = message([&] {
    for (auto [x, y] : loader) ++batches;
  });
  CHECK(batches == 2);
  CHECK_THAT(text, Contains("example 5 is not there") && Contains("data_test.cpp"));
}

TEST_CASE("samplers decide the epoch", "[data]") {
  using Labels = std::vector<int64_t>;
  const auto labels = [](const std::shared_ptr<data::Sampler>& sampler) {
    data::DataLoader loader(numbers(6), {.batch_size = 4, .seed = 2, .sampler = sampler});
    const Labels out = flat(epoch(loader));
    CHECK(loader.size() == (static_cast<int64_t>(out.size()) + 3) / 4);
    return out;
  };
  Labels subset = labels(std::make_shared<data::SubsetRandomSampler>(Labels{5, 1, 3}));
  std::sort(subset.begin(), subset.end());
  CHECK(subset == Labels{1, 3, 5});
  const std::vector<double> weights = {0, 1, 3, 0, 0, 0};
  const Labels drawn = labels(std::make_shared<data::WeightedRandomSampler>(weights, 4000));
  CHECK(drawn.size() == 4000);
  const auto twos = std::count(drawn.begin(), drawn.end(), 2);
  CHECK(std::count(drawn.begin(), drawn.end(), 1) + twos == 4000);
  CHECK(std::abs(static_cast<double>(twos) - 3000) < 5 * std::sqrt(4000 * 0.75 * 0.25));
  int first_is_two = 0;
  data::WeightedRandomSampler without(weights, 2, false);
  Generator g(1);
  for (int i = 0; i < 4000; ++i) {
    Labels both = without.order(6, g);
    first_is_two += both[0] == 2;
    std::sort(both.begin(), both.end());
    REQUIRE(both == Labels{1, 2});
  }
  CHECK(std::abs(first_is_two - 3000.0) < 5 * std::sqrt(4000 * 0.75 * 0.25));
}

TEST_CASE("impossible loaders and data sets are refused", "[data]") {
  CHECK_THAT(message([] { data::DataLoader(numbers(3), {.workers = -1}); }),
             Contains("workers must be at least 0"));
  CHECK_THAT(message([] { data::DataLoader(numbers(3), {.prefetch_factor = 0}); }),
             Contains("prefetch_factor"));
  CHECK_THAT(message([] {
               data::WeightedRandomSampler({1, 0}, 2, false);
             }),
             Contains("2 draws of 1 examples"));
  CHECK_THAT(message([] { data::WeightedRandomSampler({1, -1}, 2); }), Contains("must be 0 or more"));
  const auto outside = std::make_shared<data::SubsetRandomSampler>(std::vector<int64_t>{1, 3});
  CHECK_THAT(message([&] { data::DataLoader(numbers(3), {.sampler = outside}).begin(); }),
             Contains("example 3 of 3"));
  CHECK_THAT(message([&] { data::DataLoader(numbers(3), {.shuffle = true, .sampler = outside}); }),
             Contains("leave shuffle out"));
  CHECK_THAT(message([&] {
               data::DataLoader(numbers(3), {.sampler = std::make_shared<data::WeightedRandomSampler>(
                                                 std::vector<double>{1, 1}, 2)})
                   .begin();
             }),
             Contains("2 weights for 3 examples"));
  CHECK_THAT(message([] { data::DataLoader(numbers(3), {.batch_size = 0}); }),
             Contains("at least 1, found 0") && Contains("data_test.cpp"));
  CHECK_THAT(message([] { data::TensorDataset(ones({3, 2}), ones({4})); }), Contains("(3, 2) and (4,)"));
  CHECK_THROWS_AS(data::TensorDataset(ones({}), ones({})), Error);
  CHECK_THROWS_AS(data::TensorDataset(Tensor(), ones({1})), Error);
}

TEST_CASE("CSV is read with or without a header, plain or gzipped", "[data]") {
  const ScratchFolder folder;
  const std::string text = "1,2.5,-3e2\n 4 ,+5,\t6\r\n";
  for (const std::string& bytes : {text, gzipped(text)}) {
    const data::Csv csv = data::read_csv(folder.put("a.csv", bytes));
    CHECK(csv.columns.empty());
    CHECK(csv.values.sizes() == Dims{2, 3});
    CHECK(csv.values.dtype() == float32);
    CHECK(csv.values.to_vector<double>() == std::vector<double>{1, 2.5, -300, 4, 5, 6});
  }
  const data::Csv named = data::parse_csv("\xef\xbb\xbf\"a b\"; c\n1;9007199254740993\n\n\n",
                                          {.header = true, .delimiter = ';', .dtype = int64});
  CHECK(named.columns == std::vector<std::string>{"a b", "c"});
  CHECK(named.values.to_vector<int64_t>() == std::vector<int64_t>{1, 9007199254740993});
  CHECK(data::parse_csv("0.1", {.dtype = float64}).values.to_vector<double>() == std::vector<double>{0.1});
  CHECK(data::parse_csv("1\n2").values.sizes() == Dims{2, 1});
}

TEST_CASE("CSV mistakes are named with line and column", "[data]") {
  const auto parse = [](const std::string& text, data::CsvOptions options = {}) {
    return message([&] { data::parse_csv(text, options, "t.csv"); });
  };
  CHECK_THAT(parse("1,2\n3,x\n"), Contains("\"t.csv\", line 2: column 2: \"x\" is no number"));
  CHECK_THAT(parse("a,b\n1,2\n"), Contains("line 1") && Contains(".header = true"));
  CHECK_THAT(parse("1,2\n3\n"), Contains("line 2: 1 fields, but 2 are expected"));
  CHECK_THAT(parse("1,2\n3,4,5\n"), Contains("line 2: more than 2 fields"));
  CHECK_THAT(parse("a,b\n1\n", {.header = true}), Contains("line 2: 1 fields, but 2 are expected"));
  CHECK_THAT(parse("1,\n"), Contains("column 2: an empty field is no number"));
  CHECK_THAT(parse("1\n\n2\n"), Contains("line 2: an empty line between rows"));
  CHECK_THAT(parse("1e999\n"), Contains("out of the range of float32"));
  CHECK_THAT(parse("1.5\n", {.dtype = int64}), Contains("\"1.5\" is no number"));
  CHECK_THAT(parse("99999999999999999999\n", {.dtype = int64}), Contains("out of the range of int64"));
  CHECK_THAT(parse(""), Contains("no rows"));
  CHECK_THAT(parse("a\n", {.header = true}), Contains("no rows"));
  CHECK_THAT(parse("1\x01\x02\n"), Contains("\"1\?\?\" is no number"));
  CHECK_THAT(parse(std::string(500, '7') + "x"), Contains("...\""));
  CHECK_THAT(parse("1", {.dtype = int32}), Contains("asked for int32"));
  CHECK_THAT(parse("1", {.delimiter = '5'}), Contains("delimiter"));
  CHECK_THAT(message([] { data::read_csv("/no/such/file.csv"); }), Contains("/no/such/file.csv"));
  CHECK_THAT(parse("+-1"), Contains("no number"));
  CHECK_THAT(parse("--1"), Contains("no number"));
}

TEST_CASE("IDX of every type is read, plain or gzipped", "[data]") {
  const ScratchFolder folder;
  using namespace std::string_literals;
  const std::string bytes = "\0\0\x08\x02\0\0\0\x02\0\0\0\x03"s + "\x01\x02\x03\x04\x05\xff"s;
  for (const std::string& b : {bytes, gzipped(bytes)}) {
    const Tensor t = data::read_idx(folder.put("a.idx", b));
    CHECK(t.dtype() == uint8);
    CHECK(t.sizes() == Dims{2, 3});
    CHECK(t.to_vector<int64_t>() == std::vector<int64_t>{1, 2, 3, 4, 5, 255});
  }
  const auto one = [](uint8_t code, const std::string& element) {
    return data::parse_idx("\0\0"s + static_cast<char>(code) + "\x01\0\0\0\x01"s + element);
  };
  CHECK(one(0x09, "\xfe"s).item<int>() == -2);
  CHECK(one(0x09, "\xfe"s).dtype() == int32);
  CHECK(one(0x0b, "\xff\x01"s).item<int>() == -255);
  CHECK(one(0x0c, "\x80\0\0\x01"s).item<int>() == -2147483647);
  CHECK(one(0x0d, "\x3f\xc0\0\0"s).item<float>() == 1.5f);
  CHECK(one(0x0e, "\xbf\xf8\0\0\0\0\0\0"s).item<double>() == -1.5);
  CHECK(data::parse_idx("\0\0\x08\x01\0\0\0\0"s).sizes() == Dims{0});
}

TEST_CASE("damaged IDX files are refused", "[data]") {
  using namespace std::string_literals;
  const auto parse = [](const std::string& bytes) {
    return message([&] { data::parse_idx(bytes, "t.idx"); });
  };
  CHECK_THAT(parse("\0\0\x08"s), Contains("\"t.idx\"") && Contains("3 bytes"));
  CHECK_THAT(parse("\x01\0\x08\x01\0\0\0\0"s), Contains("not an IDX file"));
  CHECK_THAT(parse("\0\0\x0a\x01\0\0\0\0"s), Contains("unknown element type 10"));
  CHECK_THAT(parse("\0\0\x08\0"s), Contains("0 axes"));
  CHECK_THAT(parse("\0\0\x08\x09"s), Contains("9 axes"));
  CHECK_THAT(parse("\0\0\x08\x02\0\0\0\x01"s), Contains("cut off"));
  CHECK_THAT(parse("\0\0\x08\x01\0\0\0\x02\x01"s), Contains("needs 2 bytes, found 1"));
  CHECK_THAT(parse("\0\0\x08\x01\0\0\0\x01\x01\x01"s), Contains("needs 1 bytes, found 2"));
  CHECK_THAT(parse("\0\0\x0e\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s), Contains("too large"));
}

TEST_CASE("no bytes crash the readers", "[data]") {
  std::mt19937 random(5);
  const std::string csv_letters = "0123456789,,,\n\n\r.-+eEinfxa\" \t\xff";
  int read = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text(random() % 40, '\0'), idx(random() % 40, '\0');
    for (char& c : text) c = csv_letters[random() % csv_letters.size()];
    for (char& c : idx) c = static_cast<char>(random() % 3 ? random() % 4 : random());
    if (idx.size() > 3)
      idx[0] = idx[1] = 0, idx[2] = static_cast<char>(8 + random() % 7),
      idx[3] = static_cast<char>(random() % 4);
    try {
      data::parse_csv(text, {.header = random() % 2 == 0, .dtype = random() % 2 ? float32 : int64});
      ++read;
    } catch (const Error&) {
    }
    try {
      data::parse_idx(idx);
      ++read;
    } catch (const Error&) {
    }
  }
  CHECK(read > 10);  // some of them are whole files
}
