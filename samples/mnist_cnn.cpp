// Trains a small convolutional network on MNIST's images, each step traced: loss, accuracy on images that it
// never saw, time per step. With --out each epoch is logged and saved, and --resume goes on.
#include <tandem/tandem.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>

#include "samples/cli.h"
#include "samples/run_folder.h"

namespace td = tandem;

namespace {

struct Cnn : td::nn::Module {
  td::nn::Conv2d conv1 = child<td::nn::Conv2d>("conv1", 1, 16, 3, 1, 1);
  td::nn::Conv2d conv2 = child<td::nn::Conv2d>("conv2", 16, 32, 3, 1, 1);
  td::nn::MaxPool2d pool = child<td::nn::MaxPool2d>("pool", 2);
  td::nn::Linear fc1 = child<td::nn::Linear>("fc1", 32 * 7 * 7, 128);
  td::nn::Dropout drop = child<td::nn::Dropout>("drop", 0.3);
  td::nn::Linear fc2 = child<td::nn::Linear>("fc2", 128, 10);

  /// Images (N, 1, 28, 28) to logits (N, 10).
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor h1 = pool(td::relu(conv1(x)));
    const td::Tensor h2 = pool(td::relu(conv2(h1)));
    return fc2(drop(td::relu(fc1(h2.flatten(1)))));
  }
};

struct Images {
  td::Tensor x, y;  // (N, 1, 28, 28) float32 of mean 0 and variance 1, over MNIST; (N) int64
};

/// MNIST's two files whose names begin with `part`, gzipped or not.
Images read_part(const std::string& folder, const std::string& part) {
  const auto file = [&](const std::string& rest) {
    const std::string path = folder + '/' + part + rest;
    return std::filesystem::exists(path) ? path : path + ".gz";
  };
  constexpr double kMean = 0.1307, kDeviation = 0.3081;  // of MNIST's pixels in [0, 1]
  const td::Tensor pixels = td::data::read_idx(file("-images-idx3-ubyte"));
  const td::Tensor scaled = (pixels.to(td::float32) / 255 - kMean) / kDeviation;
  return {scaled.unsqueeze(1), td::data::read_idx(file("-labels-idx1-ubyte")).to(td::int64)};
}

struct Mnist {
  Images train, test;
};

/// MNIST's training and test files; where the first are missing, the first 85 % of the test files train.
Mnist read_mnist(const std::string& folder) {
  Images test = read_part(folder, "t10k");
  for (const char* end : {"", ".gz"})
    if (std::filesystem::exists(folder + "/train-images-idx3-ubyte" + end))
      return {read_part(folder, "train"), test};
  const int64_t n = test.x.size(0), n_train = n * 85 / 100;
  const auto rows = [&](int64_t start, int64_t count) {
    return Images{test.x.narrow(0, start, count).clone(), test.y.narrow(0, start, count).clone()};
  };
  return {rows(0, n_train), rows(n_train, n - n_train)};
}

double accuracy(Cnn& net, const Images& images) {
  const td::NoGrad no_grad;
  net.eval();
  constexpr int64_t kBatch = 500;
  double hits = 0;
  for (int64_t i = 0; i < images.x.size(0); i += kBatch) {
    const int64_t n = std::min(kBatch, images.x.size(0) - i);
    const td::Tensor found = net.forward(images.x.narrow(0, i, n)).argmax(1);
    hits += (found == images.y.narrow(0, i, n)).sum().item<double>();
  }
  net.train();
  return hits / static_cast<double>(images.x.size(0));
}

int run(int argc, char** argv) {
  samples::Options options(argc, argv, "Trains a small convolutional network on MNIST.");
  const std::string data = options.text("data", "", "folder of MNIST's IDX files, gzipped or not");
  const long epochs = options.integer("epochs", 8, "passes over the training images");
  const long batch = options.integer("batch", 64, "images a step");
  const long seed = options.integer("seed", 1, "of weights, dropout and shuffling");
  const double lr =
      options.number("lr", 2e-3, "learning rate of the first epoch; it falls to 0 along a cosine");
  const std::string device = options.text("device", "cpu", "where to train: cpu, cuda or cuda:1");
  const std::string mode = options.text("mode", "traced", "how to run a step: traced or eager");
  const std::string save = options.text("save", "", "write the trained model to this file");
  samples::RunFolder folder(options);
  options.done();
  if (data.empty()) options.stop("--data is needed");
  if (epochs < 1 || batch < 1) options.stop("--epochs and --batch must be at least 1");
  if (mode != "traced" && mode != "eager") options.stop("--mode must be traced or eager, not '" + mode + "'");

  const td::Device on = td::parse_device(device);
  Mnist mnist = read_mnist(data);
  for (td::Tensor* t : {&mnist.train.x, &mnist.train.y, &mnist.test.x, &mnist.test.y}) *t = t->to(on);
  td::set_default_device(on);
  td::manual_seed(static_cast<uint64_t>(seed));
  Cnn net;
  td::optim::AdamW opt(net.parameters(), {.lr = lr});
  td::optim::CosineAnnealingLR schedule(opt, epochs);
  td::data::DataLoader loader(
      td::data::TensorDataset(mnist.train.x, mnist.train.y),
      {.batch_size = batch, .shuffle = true, .drop_last = true, .seed = static_cast<uint64_t>(seed)});
  std::printf("%lld parameters, %lld images to train, %lld to test\n",
              static_cast<long long>(net.num_parameters()), static_cast<long long>(mnist.train.x.size(0)),
              static_cast<long long>(mnist.test.x.size(0)));

  const auto body = [&](const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
  auto traced = td::trace(body, {.name = "train_step"});
  const td::Checkpoint parts{
      .module = &net,
      .optimizer = &opt,
      .scheduler = &schedule,
      .generators = {{"default", &td::default_generator()}, {"loader", &loader.generator()}}};
  const long done = folder.start({{"epochs", std::to_string(epochs)},
                                  {"batch", std::to_string(batch)},
                                  {"seed", std::to_string(seed)},
                                  {"lr", samples::RunFolder::digits(lr)}},
                                 parts);
  samples::Progress progress("mnist_cnn", epochs - done, loader.size());
  const auto start = std::chrono::steady_clock::now();
  for (long epoch = done; epoch < epochs; ++epoch) {
    double sum = 0;
    for (auto [x, y] : loader) {
      sum += (mode == "traced" ? traced(x, y) : body(x, y)).item<double>();
      progress.step();
    }
    const double loss = sum / static_cast<double>(std::max<int64_t>(loader.size(), 1));
    if (folder.active())
      folder.log(epoch + 1, {{"loss", loss}, {"accuracy", accuracy(net, mnist.test)}, {"lr", opt.lr()}});
    schedule.step();
    folder.save(epoch + 1, parts);
    char text[64];
    std::snprintf(text, sizeof text, "loss %.4f", loss);
    progress.epoch(text);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double reached = accuracy(net, mnist.test);
  std::printf("%.1f s, %.2f ms a step\naccuracy %.4f\n", seconds,
              1e3 * seconds / static_cast<double>(std::max<int64_t>((epochs - done) * loader.size(), 1)),
              reached);
  if (!save.empty()) td::save(save, net, {{"accuracy", std::to_string(reached)}});
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return samples::run_program("mnist_cnn", run, argc, argv); }
