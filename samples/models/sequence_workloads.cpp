#include "samples/models/sequence_workloads.h"

#include <algorithm>

#include "samples/models/gpt2.h"
#include "samples/models/neumf.h"

namespace samples {
namespace td = tandem;
using td::Tensor;

namespace {

/// Words of GNMT below the first are marks: padding, unknown, begin, end.
constexpr int64_t kBegin = 2, kEnd = 3, kFirstWord = 4;

void check_batch(const WorkloadSize& size) {
  if (size.batch < 1) td::fail("batch: " + std::to_string(size.batch) + "; at least 1 is needed");
}

double dropout(double p, const WorkloadSize& size) { return size.dropout ? p : 0; }

/// Integers 1 to `length`, the first being `length`.
Tensor random_lengths(int64_t batch, int64_t length) {
  Tensor n = td::randint(1, length + 1, {batch});
  n.narrow(0, 0, 1).fill_(length);
  return n;
}

}  // namespace

GnmtBatch random_sentences(const GnmtConfig& config, int64_t batch, int64_t length) {
  const Tensor lengths = random_lengths(batch, length);
  const Tensor last = (random_lengths(batch, length) - 1).unsqueeze(1);  // the target's last word is its end
  const Tensor words = td::randint(kFirstWord, config.vocab_size, {2, batch, length});
  const Tensor at = td::arange(0, static_cast<double>(length), 1, {.dtype = td::int64});
  const Tensor source = words.select(0, 0).masked_fill(at >= lengths.unsqueeze(1), config.padding);
  const Tensor beyond = at > last;
  const Tensor target = words.select(0, 1).masked_fill(at == last, kEnd).masked_fill(beyond, config.padding);
  // What goes in is the target one word later, behind a begin in place of its end.
  const Tensor begin = td::full({batch, 1}, static_cast<double>(kBegin), {.dtype = td::int64});
  const Tensor moved = td::cat({begin, target.narrow(1, 0, length - 1)}, 1);
  return {source, lengths, moved.masked_fill(beyond, config.padding), target};
}

Workload make_gnmt(const WorkloadSize& size) {
  check_batch(size);
  const GnmtConfig config{.vocab_size = scaled(32320, size.scale, 32),
                          .hidden_size = scaled(1024, size.scale, 8),
                          .dropout = dropout(0.2, size)};
  auto net = std::make_unique<Gnmt>(config);
  const GnmtBatch b = random_sentences(config, size.batch, std::max<int64_t>(scaled(50, size.scale), 4));
  Workload w;
  w.optimizer = std::make_unique<td::optim::Adam>(net->parameters(), td::optim::AdamOptions{.lr = 2e-3});
  w.batch = {b.source, b.lengths, b.input, b.target};
  w.units = b.lengths.sum().item<double>() + (b.target != config.padding).sum().item<double>();
  w.max_norm = 5;
  w.loss = [n = net.get()](const std::vector<Tensor>& t) { return n->loss({t[0], t[1], t[2], t[3]}); };
  w.model = std::move(net);
  return w;
}

Workload make_ncf(const WorkloadSize& size) {
  check_batch(size);
  NeuMfConfig config;
  config.users = scaled(config.users, size.scale);
  config.items = scaled(config.items, size.scale);
  config.mf_width = scaled(config.mf_width, size.scale, 8);
  for (int64_t& n : config.mlp_widths) n = scaled(n, size.scale, 8);
  config.dropout = dropout(config.dropout, size);
  auto net = std::make_unique<NeuMf>(config);
  Workload w;
  w.optimizer = std::make_unique<td::optim::Adam>(net->parameters(),
                                                  td::optim::AdamOptions{.lr = 4.5e-3, .betas = {0.25, 0.5}});
  w.batch = {td::randint(0, config.users, {size.batch})};
  w.batch.push_back(td::randint(0, config.items, {size.batch}));
  // Four items that a user does not know for each one that he likes.
  w.batch.push_back((td::rand({size.batch}) < 0.2).to(td::float32));
  w.units = static_cast<double>(size.batch);
  w.loss = [n = net.get()](const std::vector<Tensor>& t) { return n->loss(t[0], t[1], t[2]); };
  w.model = std::move(net);
  return w;
}

Workload make_gpt2(const WorkloadSize& size) {
  check_batch(size);
  Gpt2Config config;
  config.n_layer = scaled(config.n_layer, size.scale);
  config.n_head = scaled(config.n_head, size.scale);
  config.n_embd = 64 * config.n_head;
  config.n_positions = scaled(config.n_positions, size.scale, 8);
  config.vocab_size = scaled(config.vocab_size, size.scale);
  for (double* p : {&config.embd_pdrop, &config.resid_pdrop, &config.attn_pdrop}) *p = dropout(*p, size);
  auto net = std::make_unique<Gpt2>(config);
  Workload w;
  w.optimizer = std::make_unique<td::optim::AdamW>(
      net->parameters(), td::optim::AdamWOptions{.lr = 6e-4, .betas = {0.9, 0.95}, .weight_decay = 0.1});
  const Tensor text = td::randint(0, config.vocab_size, {size.batch, config.n_positions + 1});
  w.batch = {text.narrow(1, 0, config.n_positions).contiguous()};
  w.batch.push_back(text.narrow(1, 1, config.n_positions).contiguous());
  w.units = static_cast<double>(size.batch * config.n_positions);
  w.max_norm = 1;
  w.loss = [n = net.get()](const std::vector<Tensor>& t) { return n->loss(t[0], t[1]); };
  w.model = std::move(net);
  return w;
}

}  // namespace samples
