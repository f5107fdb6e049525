// Every row of the table holds together: its samples parse, infer, run on the reference, and its wrong calls
// are refused.
#include "tests/catch.h"
#include "tests/ops/sample_call.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

TEST_CASE("every op is found by its name", "[ops]") {
  for_each_op([](const OpDef& op) {
    CAPTURE(op.name);
    CHECK(find_op(op.name) == &op);
    CHECK(&def(op.id) == &op);
  });
  CHECK(find_op("no_such_op") == nullptr);
  CHECK_THROWS_AS(def(OpId::count_), InternalError);
}

TEST_CASE("every op has two good samples that run, and refuses its bad ones", "[ops]") {
  for_each_op([](const OpDef& op) {
    int good = 0;
    for (const Sample& s : samples(op)) {
      CAPTURE(op.name, s.text);
      for (const DType floating : {DType::float64, DType::float32, DType::bfloat16}) {
        ReferenceEmitter e;
        SampleCall call = make_call(e, op, s, floating, operand_values(s, 7));
        Value out[kMaxOutputs];
        if (s.must_throw) {
          e.location = {"user.cpp", 31};
          std::string message;
          try {
            e.emit(op.id, call.in, call.words, out);
          } catch (const Error& error) {
            message = error.what();
          }
          CHECK(message.rfind(std::string(op.name) + ": ", 0) == 0);
          CHECK_THAT(message, Contains(" at user.cpp:31"));
          continue;
        }
        e.emit(op.id, call.in, call.words, out);
        for (int j = 0; j < op.n_out; ++j)
          CHECK(e.values(out[j]).size() == static_cast<size_t>(numel(e.type(out[j]).sizes)));
        good += floating == DType::float64;
      }
    }
    CAPTURE(op.name);
    CHECK(good >= 2);
  });
}

TEST_CASE("run-time words are told from structural ones for every op", "[ops]") {
  for_each_op([](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      CAPTURE(op.name, s.text);
      const SplitWords split = split_words(op, s.words, s.n_numbers);
      const uint64_t mask = run_time_mask(op, s.n_numbers);
      CHECK(split.run_time.size() == static_cast<size_t>(s.n_numbers + op.n_numbers()));
      CHECK(split.structural.size() + split.run_time.size() + static_cast<size_t>(s.n_numbers) ==
            s.words.size());
      uint64_t from_split = 0;
      for (const int w : split.run_time) from_split |= uint64_t{1} << w;
      CHECK(mask == from_split);
    }
  });
}

TEST_CASE("split_words keeps declared order", "[ops]") {
  const OpDef& full = def(OpId::full);  // dtype, value, sizes
  const std::vector<int64_t> words = {6, 1234, 2, 3, 4};
  const SplitWords split = split_words(full, words, 0);
  CHECK(split.structural == std::vector<int64_t>{6, 2, 3, 4});
  CHECK(split.run_time == std::vector<int>{1});
  CHECK(run_time_mask(full, 0) == 0b10);
  CHECK(full.structural_index(2) == 1);
  CHECK(full.number_index(1) == 0);

  const OpDef& add = def(OpId::add);  // one number operand: its kind is structural, its value is not
  CHECK(split_words(add, std::vector<int64_t>{2, 99}, 1).run_time == std::vector<int>{1});
  CHECK(split_words(add, std::vector<int64_t>{2, 99}, 1).structural.empty());
  CHECK(run_time_mask(add, 1) == 0b10);

  CHECK_THROWS_AS(split_words(full, std::vector<int64_t>{6, 1234, 2, 3}, 0), InternalError);
  CHECK_THROWS_AS(split_words(full, std::vector<int64_t>{6}, 0), InternalError);
  CHECK_THROWS_AS(split_words(add, std::vector<int64_t>{2, 99, 5}, 1), InternalError);
}

TEST_CASE("several lists stand one after another", "[ops]") {
  const OpDef& op = def(OpId::convolution_input);  // groups, tf32, stride, padding, dilation, output_padding
  const std::vector<int64_t> words = {3, 1, 2, 5, 6, 1, 7, 0, 3, 8, 9, 10};
  const InferCall call{op, {}, {}, words, {}};
  CHECK(call.integer(0) == 3);
  CHECK(call.integer(1) == 1);
  CHECK(call.list(2) == Dims{5, 6});
  CHECK(call.list(3) == Dims{7});
  CHECK(call.list(4) == Dims{});
  CHECK(call.list(5) == Dims{8, 9, 10});
  CHECK(split_words(op, words, 0).structural == words);
  const std::vector<int64_t> short_words = {3, 1, 2, 5, 6, 2, 7};
  const InferCall shorter{op, {}, {}, short_words, {}};
  CHECK(shorter.list(2) == Dims{5, 6});
  CHECK_THROWS_AS(shorter.list(3), InternalError);
  CHECK_THROWS_AS(shorter.list(4), InternalError);
}

TEST_CASE("saves are the union of what the wanted gradients read", "[ops]") {
  CHECK(def(OpId::add).saves_in == 0);
  CHECK(def(OpId::add).saves_out == 0);
  CHECK(def(OpId::relu).saves_in == 0);
  CHECK(def(OpId::relu).saves_out == 1);
  CHECK(def(OpId::mul).saves_in == 0b11);
  CHECK(saves(def(OpId::mul), 0b01).in == 0b10);
  CHECK(saves(def(OpId::linear), 0b100).in == 0);
  CHECK(saves(def(OpId::linear), 0b110).in == 0b01);
  CHECK(def(OpId::dropout).saves_in == 0);
}

TEST_CASE("the sample language says what it could not read", "[ops]") {
  OpDef op = def(OpId::sum);
  for (const char* text :
       {"g(3)", "f(3", "f(3,)", "f(3)@1", "f(3) | axis=1", "f(3) | keepdim", "f(3) | axes=[1", "?"}) {
    CAPTURE(text);
    op.samples = text;
    CHECK_THROWS_WITH(samples(op), Contains("sum: sample \"") && Contains("expected"));
  }
  op.samples = "! f(2,3)@0.5:2 - 0.5 3 true i()@-1:4 | keepdim=1 axes=[1,-1]; b(2)";
  const std::vector<Sample> s = samples(op);
  REQUIRE(s.size() == 2);
  CHECK(s[0].must_throw);
  REQUIRE(s[0].operands.size() == 6);
  CHECK(s[0].operands[0].sizes == Dims{2, 3});
  CHECK(s[0].operands[0].low == 0.5);
  CHECK(s[0].operands[1].kind == SampleOperand::Kind::absent);
  CHECK(s[0].operands[2].number == NumberKind::floating);
  CHECK(s[0].operands[3].number == NumberKind::integer);
  CHECK(s[0].operands[4].number == NumberKind::bool_);
  CHECK(s[0].operands[5].low == -1);
  CHECK(s[0].n_numbers == 3);
  CHECK(std::vector<int64_t>(s[0].words.end() - 4, s[0].words.end()) == std::vector<int64_t>{1, 2, 1, -1});
  CHECK_FALSE(s[1].must_throw);
  for (const double v : sample_values(s[0].operands[0], 3)) CHECK((v >= 0.5 && v < 2));
  CHECK(sample_values(s[0].operands[0], 3) == sample_values(s[0].operands[0], 3));
}
