// Bad input in eager mode: every row of bad_calls.h, files, modules and optimizers.
#include "tandem/core/io/file.h"
#include "tandem/core/log.h"
#include "tandem/core/thread_pool.h"
#include "tandem/eager/data/data.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tandem/eager/save.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/eager/bad_calls.h"

using namespace bad_input;

namespace {

struct Uneven : td::data::Dataset {
  int64_t size() const override { return 3; }
  td::data::Example get(int64_t i) const override { return {td::ones({i + 1}), td::ones({1})}; }
};
struct Negative : Uneven {
  int64_t size() const override { return -1; }
};
struct Net : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 3, 2);
};
template <class Dataset>
void one_epoch(const Dataset& d, td::Location where) {
  td::data::DataLoader loader(d, {.batch_size = 3});
  for (auto batch = loader.begin(where); !(batch == loader.end()); ++batch) static_cast<void>(*batch);
}

void check(const std::vector<BadCall>& rows) {
  for (const BadCall& call : rows) {
    INFO(call.name << " at line " << call.where.line);
    CHECK(wrong_failure(call, call.code) == "");
  }
}

}  // namespace

TEST_CASE("bad input: each wrong call is an Error that says what, and where it was called", "[eager]") {
  for (const auto& rows : {bad_calls(), value_rows(), memory_rows()}) check(rows);
}

TEST_CASE("bad input: an index out of range is named", "[eager]") {
  const Tensor a = td::ones({2, 3});
  const auto text = [](auto&& f) {
    try {
      f();
    } catch (const td::Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const Tensor at = td::tensor<int64_t>({0, 1, -4, 9}).view({2, 2}).t();  // in row-major order: 0, -4, 1, 9
  CHECK_THAT(text([&] { td::embedding(at, a); }),
             Contains("embedding: index -4 is out of range for axis 0 of float32(2, 3) at "));
  CHECK_THAT(text([&] {
               a.index_select(-1, td::tensor<int32_t>({0, 3}));
             }),
             Contains("index_select: index 3 is out of range for axis 1 of float32(2, 3) at "));
  CHECK_THAT(text([&] {
               td::cross_entropy(a, td::tensor<int64_t>({-100, 3}));
             }),
             Contains("cross_entropy: label 3 is out of range for axis 1 of float32(2, 3) at "));
}

TEST_CASE("bad input: modules, optimizers, schedulers, loaders, settings", "[eager]") {
  namespace nn = td::nn;
  namespace optim = td::optim;
  auto net = std::make_shared<Net>();
  const auto w = [] { return td::ones({3}).detach().clone().requires_grad_(); };
  const std::vector<Tensor> ws = {w()};
  auto sgd = std::make_shared<optim::SGD>(ws);
  check({
      TANDEM_BAD("linear of negative size", "negative size|-3", nn::Linear(-3, 2)),
      TANDEM_BAD("linear input", "linear|(5, 4)|(2, 3)", net->hidden(td::ones({5, 4}))),
      TANDEM_BAD("linear of undefined", "linear|undefined", net->hidden(Tensor())),
      TANDEM_BAD("linear of integers", "linear|different types|int64",
                 net->hidden(td::zeros({5, 3}, {.dtype = td::int64}))),
      TANDEM_BAD("embedding of negative size", "negative size|-3", nn::Embedding(-3, 2)),
      TANDEM_BAD("embedding of floats", "embedding|int64|float32", nn::Embedding(3, 2)(td::ones({1}))),
      TANDEM_BAD("embedding index", "embedding|index 3|(3, 2)",
                 nn::Embedding(3, 2)(td::tensor<int64_t>({3}))),
      TANDEM_BAD("layer norm without axes", "LayerNorm|axis", nn::LayerNorm(td::Dims{})),
      TANDEM_BAD("layer norm shape", "LayerNorm|(4,)|(2, 3)", nn::LayerNorm(4)(td::ones({2, 3}))),
      TANDEM_BAD("dropout probability", "Dropout|-0.5", nn::Dropout(-0.5)),
      TANDEM_BAD("integer module", "Module::to|floating|int64", net->to(td::int64)),
      TANDEM_BAD("module to another device", "cuda:99|is not there",
                 net->to(td::Device{td::DeviceType::cuda, 99})),
      TANDEM_BAD("missing state", "missing: hidden.weight", net->load_state({})),
      TANDEM_BAD("wrong state", "wrong shape or type: hidden.bias|(2,)|(3,)",
                 net->load_state({{"hidden.weight", td::ones({2, 3})}, {"hidden.bias", td::ones({3})}})),
      TANDEM_BAD("undefined state", "hidden.bias is an undefined tensor",
                 net->load_state({{"hidden.weight", td::ones({2, 3})}, {"hidden.bias", Tensor()}})),
      TANDEM_BAD("position in a container", "modules|position 1 among 1",
                 nn::Sequential([](nn::Sequential& s) { s.emplace<nn::ReLU>(); })[1]),
      TANDEM_BAD("fan of a vector", "axes|(3,)", nn::init::kaiming_normal_(td::ones({3}))),
      TANDEM_BAD("init of undefined", "undefined tensor", nn::init::uniform_(Tensor())),
      TANDEM_BAD("negative learning rate", "SGD|-1", optim::SGD(ws, {.lr = -1})),
      TANDEM_BAD("learning rate that is no number", "AdamW|nan", optim::AdamW(ws, {.lr = NAN})),
      TANDEM_BAD("beta", "AdamW|1.5", optim::AdamW(ws, {.betas = {1.5, 0.9}})),
      TANDEM_BAD("undefined parameter", "undefined tensor", optim::SGD(std::vector<Tensor>{Tensor()})),
      TANDEM_BAD("a parameter twice", "SGD|twice", optim::SGD(std::vector<Tensor>{ws[0], ws[0]})),
      TANDEM_BAD("a parameter that is a result", "SGD|parameter 0|leaf",
                 optim::SGD(std::vector<Tensor>{ws[0] * 2.f})),
      TANDEM_BAD("an integer parameter", "SGD|parameter 0|int64",
                 optim::SGD(std::vector<Tensor>{td::zeros({3}, {.dtype = td::int64})})),
      TANDEM_BAD("no such group", "SGD|no group 3 among 1", sgd->set_lr(1, 3)),
      TANDEM_BAD("rate of no such group", "SGD|no group 3 among 1", sgd->lr(3)),
      TANDEM_BAD("optimizer state", "missing|group.0.lr", sgd->load_state({})),
      TANDEM_BAD("step size", "StepLR|0", optim::StepLR(*sgd, 0)),
      TANDEM_BAD("cosine period", "CosineAnnealingLR|-1", optim::CosineAnnealingLR(*sgd, -1)),
      TANDEM_BAD("batch size", "DataLoader|batch_size|0", td::data::DataLoader(Uneven(), {.batch_size = 0})),
      TANDEM_BAD("rows of a data set", "TensorDataset|(3, 1)|(2, 1)",
                 td::data::TensorDataset(td::ones({3, 1}), td::ones({2, 1}))),
      TANDEM_BAD("undefined data set", "undefined tensor", td::data::TensorDataset(Tensor(), Tensor())),
      TANDEM_BAD("uneven examples", "DataLoader: stack|(1,)|(2,)", one_epoch(Uneven(), td::Location::here())),
      TANDEM_BAD("negative data set", "DataLoader|-1", one_epoch(Negative(), td::Location::here())),
      TANDEM_BAD("device name", "device|gpu|cuda", td::parse_device("gpu")),
      TANDEM_BAD("threads", "set_num_threads|0|256", td::set_num_threads(0)),
      TANDEM_BAD("log specification", "log|loud|debug", td::core::set_log("jit:loud")),
  });
}

TEST_CASE("bad input: files", "[eager]") {
  namespace data = td::data;
  const ScratchFolder folder;
  const std::string gzip_magic = "\x1f\x8b\x08";
  auto net = std::make_shared<Net>();
  const std::string whole = folder / "whole.safetensors";
  td::save(whole, *net);
  std::string bytes = td::core::read_file(whole);
  const std::string csv = folder.put("bad.csv", "1,2\n3,x\n"),
                    cut_gzip = folder.put("cut.csv.gz", gzip_magic + "broken"),
                    cut_idx = folder.put("cut.idx", std::string("\0\0\x08\x01\0\0\0\x09\x01", 9)),
                    idx_gzip = folder.put("cut.idx.gz", gzip_magic),
                    cut = folder.put("cut.safetensors", bytes.substr(0, bytes.size() - 5)),
                    no_header = folder.put("header.safetensors", std::string(100, '\xff')),
                    nothing = folder.put("nothing.safetensors", ""), missing = folder / "no/such/file",
                    here = folder.path(), other = folder / "x";
  const int files = folder.count();
  check({
      TANDEM_BAD("missing csv", missing, data::read_csv(missing)),
      TANDEM_BAD("folder as csv", here, data::read_csv(here)),
      TANDEM_BAD("csv field", csv + "|line 2|column 2|x", data::read_csv(csv)),
      TANDEM_BAD("csv type", "csv|int32", data::read_csv(csv, {.dtype = td::int32})),
      TANDEM_BAD("damaged csv.gz", cut_gzip, data::read_csv(cut_gzip)),
      TANDEM_BAD("missing idx", missing, data::read_idx(missing)),
      TANDEM_BAD("cut idx", cut_idx + "|9 bytes|found 1", data::read_idx(cut_idx)),
      TANDEM_BAD("damaged idx.gz", idx_gzip, data::read_idx(idx_gzip)),
      TANDEM_BAD("missing weights", missing, td::load(missing)),
      TANDEM_BAD("folder as weights", here, td::load(here)),
      TANDEM_BAD("cut weights", cut, td::load(cut)),
      TANDEM_BAD("no header", no_header, td::load(no_header)),
      TANDEM_BAD("empty file", nothing, td::load(nothing)),
      TANDEM_BAD("cut weights into a module", cut, td::load(cut, *net)),
      TANDEM_BAD("module as checkpoint", whole, td::load_checkpoint(whole, {.module = net.get()})),
      TANDEM_BAD("weights of another module", whole + "|missing|unexpected: hidden.weight",
                 td::load(whole, *std::make_unique<td::nn::Linear>(3, 2))),
      TANDEM_BAD("save into a missing folder", "no/such|No such file", td::save(missing, *net)),
      TANDEM_BAD("save over a folder", here, td::save(here, *net)),
      TANDEM_BAD("save an undefined tensor", "save|\"x\"|undefined", td::save(other, {{"x", Tensor()}})),
      TANDEM_BAD("save a name twice", "\"x\"", td::save(other, {{"x", td::ones({1})}, {"x", td::ones({1})}})),
      TANDEM_BAD("reserved metadata", "tandem.kind|reserved",
                 td::save(other, {{"x", td::ones({1})}}, {{"tandem.kind", "mine"}})),
  });
  CHECK(folder.count() == files);  // nothing half-written
}
