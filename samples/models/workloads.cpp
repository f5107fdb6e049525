#include "samples/models/workloads.h"

#include "samples/models/alexnet.h"
#include "samples/models/mobilenet.h"
#include "samples/models/resnet.h"
#include "samples/models/sequence_workloads.h"
#include "samples/models/vgg.h"

namespace samples {
namespace td = tandem;

namespace {

/// What a scale does to all image models and to their images.
constexpr const char* kImageScale =
    "channels (multiples of 8), blocks or convolutions of a stage (at least 1), the image's side of 224 "
    "(multiples of "
    "32, at least 64) and the 1000 classes (at least 10)";

int64_t image_side(double scale) { return std::max<int64_t>(64, scaled(224, scale, 32)); }
int64_t image_classes(double scale) { return std::max<int64_t>(10, scaled(1000, scale)); }

/// Random images with random labels, cross-entropy, and SGD with momentum 0.9 and weight decay 1e-4.
template <class Net>
Workload classify(std::unique_ptr<Net> net, const WorkloadSize& size) {
  if (size.batch < 1) td::fail("batch: " + std::to_string(size.batch) + " images; at least 1 is needed");
  const int64_t side = image_side(size.scale);
  Workload w;
  w.optimizer = std::make_unique<td::optim::SGD>(
      net->parameters(), td::optim::SGDOptions{.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
  w.batch = {td::randn({size.batch, 3, side, side})};
  w.batch.push_back(td::randint(0, image_classes(size.scale), {size.batch}));
  w.loss = [n = net.get()](const std::vector<td::Tensor>& batch) {
    return td::cross_entropy(n->forward(batch[0]), batch[1]);
  };
  w.units = static_cast<double>(size.batch);
  w.model = std::move(net);
  return w;
}

double probability(double p, const WorkloadSize& size) { return size.dropout ? p : 0; }

Workload make_alexnet(const WorkloadSize& s) {
  return classify(std::make_unique<AlexNet>(image_classes(s.scale), probability(0.5, s), s.scale), s);
}
Workload make_vgg19(const WorkloadSize& s) {
  return classify(std::make_unique<Vgg>(19, image_classes(s.scale), probability(0.5, s), s.scale), s);
}
Workload make_resnet50(const WorkloadSize& s) {
  return classify(std::make_unique<ResNet>(50, image_classes(s.scale), s.scale), s);
}
Workload make_mobilenet_v1(const WorkloadSize& s) {
  return classify(std::make_unique<MobileNetV1>(image_classes(s.scale), s.scale), s);
}
Workload make_mobilenet_v2(const WorkloadSize& s) {
  return classify(std::make_unique<MobileNetV2>(image_classes(s.scale), probability(0.2, s), s.scale), s);
}

constexpr WorkloadRecipe kRecipes[] = {
    {"alexnet", "images", 32, kImageScale, make_alexnet},
    {"vgg19", "images", 32, kImageScale, make_vgg19},
    {"resnet50", "images", 32, kImageScale, make_resnet50},
    {"mobilenet_v1", "images", 32, kImageScale, make_mobilenet_v1},
    {"mobilenet_v2", "images", 32, kImageScale, make_mobilenet_v2},
    kGnmtRecipe,
    kNcfRecipe,
    kGpt2Recipe,
};

}  // namespace

std::span<const WorkloadRecipe> workload_recipes() { return kRecipes; }

const WorkloadRecipe& workload_recipe(const std::string& name) {
  std::string names;
  for (const WorkloadRecipe& r : kRecipes) {
    if (name == r.name) return r;
    names += std::string(names.empty() ? "" : ", ") + r.name;
  }
  td::fail("model: there is no '" + name + "'; there are " + names);
}

}  // namespace samples
