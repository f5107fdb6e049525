// PackedSequences that a program made itself: what does not fit together is refused before it is used.
// tests/pytorch/indexing_test.cpp compares packing and padding with PyTorch's.
#include "tandem/eager/nn/packed.h"
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using tandem::test::message;
using td::Tensor;
using td::nn::PackedSequence;
using namespace td::nn::utils::rnn;

namespace {

Tensor numbers(const std::vector<int64_t>& values) {
  return td::tensor(std::span<const int64_t>(values), {static_cast<int64_t>(values.size())});
}

std::string refused(const std::vector<int64_t>& sizes, const std::vector<int64_t>& order = {}) {
  PackedSequence p;
  p.data = td::ones({3, 2});
  p.batch_sizes = numbers(sizes);
  if (!order.empty()) p.sorted_indices = p.unsorted_indices = numbers(order);
  return message([&] { pad_packed_sequence(p); });
}

}  // namespace

TEST_CASE("packed sequences: parts that do not fit are refused", "[eager]") {
  CHECK_THAT(refused({1, 2}), Contains("must be positive and not rise, found 2 at step 1"));
  CHECK_THAT(refused({-1, 4}), Contains("must be positive and not rise, found -1 at step 0"));
  CHECK_THAT(refused({3, 0}), Contains("found 0 at step 1"));
  CHECK_THAT(refused({2}), Contains("batch_sizes do not make up data of shape (3, 2)"));
  for (const std::vector<int64_t>& order :
       {std::vector<int64_t>{0, 7}, std::vector<int64_t>{0, -1}, std::vector<int64_t>{0, 0},
        std::vector<int64_t>{0}, std::vector<int64_t>{0, 1, 2}})
    CHECK_THAT(refused({2, 1}, order), Contains("sorted_indices must hold each of 0 to 1 once"));
  CHECK_THAT(message([] { pad_packed_sequence({}); }), Contains("undefined"));
}

TEST_CASE("packed_like wants the sizes of the padded sequence", "[eager]") {
  const PackedSequence p = pack_sequence({td::ones({3, 2}), td::ones({1, 2})});
  CHECK(packed_like(p, td::ones({3, 2, 5})).data.sizes() == td::Dims{4, 5});
  CHECK(packed_like(p, td::ones({2, 3, 5}), true).data.sizes() == td::Dims{4, 5});
  CHECK_THAT(message([&] {
               packed_like(p, td::ones({2, 3, 5}));
             }),
             Contains("packed_like: x must begin with the sizes (3, 2)"));
  CHECK_THAT(message([&] { packed_like(p, td::ones({4, 2})); }), Contains("found (4, 2)"));
  CHECK_THAT(message([&] { packed_like(p, td::ones({3})); }), Contains("found (3,)"));
}

TEST_CASE("pad_sequence pads empty sequences, and empty ones alone", "[eager]") {
  const Tensor two = td::tensor<float>({1, 2, 3, 4}).view({2, 2}), none = td::ones({0, 2});
  CHECK(pad_sequence({none, two}, true, 9).to_vector<float>() == std::vector<float>{9, 9, 9, 9, 1, 2, 3, 4});
  CHECK(pad_sequence({two, none}).to_vector<float>() == std::vector<float>{1, 2, 0, 0, 3, 4, 0, 0});
  CHECK(pad_sequence({none, none, none}).sizes() == td::Dims{0, 3, 2});
  CHECK_THAT(message([&] { pack_sequence({two, none}); }), Contains("lengths must be at least 1"));
  CHECK_THAT(message([] { pad_sequence({}); }), Contains("pad_sequence: at least one sequence"));
}
