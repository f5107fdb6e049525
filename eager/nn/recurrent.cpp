// A layer multiplies the inputs of all steps by its weights in one product, then goes from step to step: a
// product of the state, and one kernel from the gates' sums to the new state.
#include "tandem/eager/nn/recurrent.h"

#include <cmath>

#include "tandem/eager/attention.h"
#include "tandem/eager/call.h"
#include "tandem/eager/nn/init.h"

namespace tandem::nn {

namespace {

using eager::CallBuilder;
using ops::OpId;

int64_t gates_of(RecurrentKind kind) {
  switch (kind) {
    case RecurrentKind::rnn_tanh:
    case RecurrentKind::rnn_relu:
      return 1;
    case RecurrentKind::lstm:
      return 4;
    case RecurrentKind::gru:
      return 3;
  }
  internal_error("gates of an unknown recurrent layer");
}

const char* name_of(RecurrentKind kind) {
  switch (kind) {
    case RecurrentKind::rnn_tanh:
    case RecurrentKind::rnn_relu:
      return "RNN";
    case RecurrentKind::lstm:
      return "LSTM";
    case RecurrentKind::gru:
      return "GRU";
  }
  internal_error("name of an unknown recurrent layer");
}

/// The new state from the gates' two sums.
LstmState stepped(RecurrentKind kind, const Tensor& from_input, const Tensor& from_state,
                  const LstmState& state, Location where) {
  switch (kind) {
    case RecurrentKind::rnn_tanh:
      return {tanh(add(Operand(from_input, where), Operand(from_state, where)), where), {}};
    case RecurrentKind::rnn_relu:
      return {relu(add(Operand(from_input, where), Operand(from_state, where)), where), {}};
    case RecurrentKind::lstm: {
      ValuesIndices r = CallBuilder(OpId::lstm_gates, where).in(from_input).in(from_state).in(state.c).run2();
      return {std::move(r.values), std::move(r.indices)};
    }
    case RecurrentKind::gru:
      return {CallBuilder(OpId::gru_gates, where).in(from_input).in(from_state).in(state.h).run(), {}};
  }
  internal_error("step of an unknown recurrent layer");
}

void check_widths(RecurrentKind kind, int64_t input, int64_t hidden, Location where) {
  if (input < 1 || hidden < 1)
    fail(std::string(name_of(kind)) + ": input_size and hidden_size must be at least 1, found " +
             std::to_string(input) + " and " + std::to_string(hidden),
         where);
}

/// Fresh values, in the order in which PyTorch draws them.
RecurrentWeights drawn(RecurrentKind kind, int64_t input, int64_t hidden, bool bias, TensorOptions options,
                       Location where) {
  options.requires_grad = false;
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  const auto uniform = [&](const Dims& sizes) {
    Tensor t = empty(sizes, options, where);
    init::uniform_(t, -bound, bound, nullptr, where);
    return t;
  };
  const std::string what = std::string(name_of(kind)) + ": gates * hidden_size";
  const int64_t rows = checked_mul(gates_of(kind), hidden, what.c_str(), where);
  RecurrentWeights w;
  w.weight_ih = uniform({rows, input});
  w.weight_hh = uniform({rows, hidden});
  if (bias) w.bias_ih = uniform({rows});
  if (bias) w.bias_hh = uniform({rows});
  return w;
}

/// The state `next` where the mask (N, 1) holds, else `old`, in the type of `next`: under autocast the first
/// state has another.
Tensor chosen(const Tensor& mask, const Tensor& next, const Tensor& old, Location where) {
  const Tensor kept = old.to(next.dtype(), where);
  return tandem::where(Operand(mask, where), Operand(next, where), Operand(kept, where));
}

/// Refuses a given state of another shape. `who` with `what`, as in "LSTM: the initial cell".
void need_state(const Tensor& state, const Dims& wanted, const std::string& who, const char* what,
                Location where) {
  if (state.defined() && state.sizes() != wanted)
    fail(who + ": the " + what + " must have shape " + to_string(wanted) + ", found " +
             to_string(state.sizes()),
         where);
}

std::vector<Tensor> positions(const Tensor& t, Location where) {
  const std::vector<int64_t> ones(static_cast<size_t>(t.size(0)), 1);
  std::vector<Tensor> out = eager::parts(t, ones, 0, where);
  for (Tensor& part : out) part = part.squeeze(0, where);
  return out;
}

}  // namespace

RecurrentCell::RecurrentCell(RecurrentKind kind, int64_t input_size, int64_t hidden_size, bool bias,
                             TensorOptions options, Location where)
    : input_size(input_size),
      hidden_size(hidden_size),
      weights([&] {
        const Location at = made_at(where);
        check_widths(kind, input_size, hidden_size, at);
        RecurrentWeights w = drawn(kind, input_size, hidden_size, bias, options, at);
        w.weight_ih = parameter("weight_ih", w.weight_ih, at);
        w.weight_hh = parameter("weight_hh", w.weight_hh, at);
        if (bias) w.bias_ih = parameter("bias_ih", w.bias_ih, at);
        if (bias) w.bias_hh = parameter("bias_hh", w.bias_hh, at);
        return w;
      }()),
      kind_(kind) {}

LstmState RecurrentCell::step(const Tensor& x, LstmState state, Location where) const {
  Dims sizes = x.sizes(where);
  const std::string name = std::string(name_of(kind_)) + "Cell";
  if (sizes.empty() || sizes.rank() > 2 || sizes.back() != input_size)
    fail(name + ": input (N, " + std::to_string(input_size) + ") is needed, found " + to_string(sizes),
         where);
  sizes[sizes.rank() - 1] = hidden_size;
  need_state(state.h, sizes, name, "state", where);  // or the sum of its product would broadcast
  if (kind_ == RecurrentKind::lstm) need_state(state.c, sizes, name, "cell", where);
  const TensorOptions like{.dtype = x.dtype(), .device = x.device()};
  if (!state.h.defined()) state.h = zeros(sizes, like, where);
  if (kind_ == RecurrentKind::lstm && !state.c.defined()) state.c = zeros(sizes, like, where);
  const Tensor from_input = linear(x, weights.weight_ih, weights.bias_ih, where);
  const Tensor from_state = linear(state.h, weights.weight_hh, weights.bias_hh, where);
  return stepped(kind_, from_input, from_state, state, where);
}

namespace {
RecurrentKind rnn_kind(Nonlinearity n) {
  return n == Nonlinearity::tanh ? RecurrentKind::rnn_tanh : RecurrentKind::rnn_relu;
}
}  // namespace

RNNCell::RNNCell(int64_t input_size, int64_t hidden_size, bool bias, Nonlinearity nonlinearity,
                 TensorOptions options, Location where)
    : RecurrentCell(rnn_kind(nonlinearity), input_size, hidden_size, bias, options, where) {}
LSTMCell::LSTMCell(int64_t input_size, int64_t hidden_size, bool bias, TensorOptions options, Location where)
    : RecurrentCell(RecurrentKind::lstm, input_size, hidden_size, bias, options, where) {}
GRUCell::GRUCell(int64_t input_size, int64_t hidden_size, bool bias, TensorOptions options, Location where)
    : RecurrentCell(RecurrentKind::gru, input_size, hidden_size, bias, options, where) {}

RecurrentLayers::RecurrentLayers(RecurrentKind kind, int64_t input_size, int64_t hidden_size,
                                 RecurrentOptions options, TensorOptions tensors, Location where)
    : input_size(input_size),
      hidden_size(hidden_size),
      options(options),
      weights(
          (check_widths(kind, input_size, hidden_size, made_at(where)), made(kind, tensors, made_at(where)))),
      kind_(kind) {}

std::vector<RecurrentWeights> RecurrentLayers::made(RecurrentKind kind, const TensorOptions& tensors,
                                                    Location where) {
  if (options.num_layers < 1)
    fail(std::string(name_of(kind)) + ": num_layers must be at least 1, found " +
             std::to_string(options.num_layers),
         where);
  if (!(options.dropout >= 0 && options.dropout <= 1))
    fail(
        std::string(name_of(kind)) + ": dropout must lie in [0, 1], found " + std::to_string(options.dropout),
        where);
  const int64_t directions = options.bidirectional ? 2 : 1;
  std::vector<RecurrentWeights> all;
  for (int64_t layer = 0; layer < options.num_layers; ++layer)
    for (int64_t d = 0; d < directions; ++d) {
      const int64_t width = layer == 0 ? input_size : directions * hidden_size;
      const std::string suffix = "_l" + std::to_string(layer) + (d == 1 ? "_reverse" : "");
      RecurrentWeights w = drawn(kind, width, hidden_size, options.bias, tensors, where);
      w.weight_ih = parameter("weight_ih" + suffix, w.weight_ih, where);
      w.weight_hh = parameter("weight_hh" + suffix, w.weight_hh, where);
      if (options.bias) w.bias_ih = parameter("bias_ih" + suffix, w.bias_ih, where);
      if (options.bias) w.bias_hh = parameter("bias_hh" + suffix, w.bias_hh, where);
      all.push_back(std::move(w));
    }
  return all;
}

RecurrentLayers::Result RecurrentLayers::run(const Tensor& input, const LstmState& initial,
                                             const Tensor& lengths, Location where) const {
  const char* name = name_of(kind_);
  const int64_t directions = options.bidirectional ? 2 : 1, stacks = options.num_layers * directions;
  const Dims& given = input.sizes(where);
  if (given.rank() == 2) {  // one sequence without a batch
    if (given[1] != input_size || given[0] == 0)
      fail(std::string(name) + ": input (T, " + std::to_string(input_size) +
               "), not empty, is needed, found " + to_string(given),
           where);
    const Dims wanted = {stacks, hidden_size};
    need_state(initial.h, wanted, name, "initial state", where);
    if (kind_ == RecurrentKind::lstm) need_state(initial.c, wanted, name, "initial cell", where);
    const int axis = options.batch_first ? 0 : 1;
    const auto batched = [&](const Tensor& t) { return t.defined() ? t.unsqueeze(1, where) : t; };
    const Tensor h = batched(initial.h);
    Result r = run(input.unsqueeze(axis, where), {h, batched(initial.c)}, lengths, where);
    r.output = r.output.squeeze(axis, where);
    r.state.h = r.state.h.squeeze(1, where);
    if (r.state.c.defined()) r.state.c = r.state.c.squeeze(1, where);
    return r;
  }
  if (given.rank() != 3 || given[2] != input_size || given[0] == 0 || given[1] == 0)
    fail(std::string(name) + ": input (" + (options.batch_first ? "N, T, " : "T, N, ") +
             std::to_string(input_size) + "), not empty, is needed, found " + to_string(given),
         where);
  Tensor x = options.batch_first ? input.transpose(0, 1, where) : input;
  const int64_t steps = x.size(0), batch = x.size(1);
  const bool cells = kind_ == RecurrentKind::lstm;
  const TensorOptions like{.dtype = x.dtype(), .device = x.device()};

  // Per layer and direction.
  const auto states = [&](const Tensor& t, const char* what) {
    if (!t.defined())
      return std::vector<Tensor>(static_cast<size_t>(stacks), zeros({batch, hidden_size}, like, where));
    need_state(t, {stacks, batch, hidden_size}, name, what, where);
    return positions(t, where);
  };
  std::vector<Tensor> hs = states(initial.h, "initial state"), cs(hs.size());
  if (cells) cs = states(initial.c, "initial cell");

  std::vector<Tensor> within;  // per step (N, 1): the sequence has it
  if (lengths.defined()) {
    if (lengths.sizes(where) != Dims{batch} || (lengths.dtype() != int64 && lengths.dtype() != int32))
      fail(std::string(name) + ": lengths must be integers of shape " + to_string(Dims{batch}) +
               ", int64 or int32, found " + to_string(lengths.sizes()) + " of type " +
               tandem::name(lengths.dtype()),
           where);
    const Tensor at = arange(0, static_cast<double>(steps), 1, {.dtype = int64, .device = x.device()}, where);
    const Tensor all = lt(Operand(at.reshape({steps, 1, 1}, where), where),
                          Operand(lengths.reshape({batch, 1}, where), where));
    within = positions(all, where);
    // The padding's own gradient is zero, but zero times NaN or infinity there would spoil the weights'. The
    // number is an integer so that it changes no type.
    x = tandem::where(Operand(all, where), Operand(x, where), Operand(0, where));
  }

  for (int64_t layer = 0; layer < options.num_layers; ++layer) {
    std::vector<Tensor> sides;
    for (int64_t d = 0; d < directions; ++d) {
      const auto at = static_cast<size_t>(layer * directions + d);
      const RecurrentWeights& w = weights[at];
      const std::vector<Tensor> from_input = positions(linear(x, w.weight_ih, w.bias_ih, where), where);
      LstmState state{hs[at], cs[at]};
      std::vector<Tensor> outputs(from_input.size());
      for (size_t k = 0; k < outputs.size(); ++k) {
        const size_t t = d == 0 ? k : outputs.size() - 1 - k;
        const Tensor from_state = linear(state.h, w.weight_hh, w.bias_hh, where);
        LstmState next = stepped(kind_, from_input[t], from_state, state, where);
        outputs[t] = next.h;
        if (!within.empty()) {
          outputs[t] = tandem::where(Operand(within[t], where), Operand(next.h, where), Operand(0.0, where));
          next.h = chosen(within[t], next.h, state.h, where);
          if (cells) next.c = chosen(within[t], next.c, state.c, where);
        }
        state = std::move(next);
      }
      hs[at] = state.h;
      cs[at] = state.c;
      sides.push_back(stack(outputs, 0, where));
    }
    x = directions == 1 ? sides[0] : cat(sides, 2, where);
    if (layer + 1 < options.num_layers) x = dropout(x, options.dropout, is_training(), where);
  }
  Result r{options.batch_first ? x.transpose(0, 1, where) : x, {stack(hs, 0, where), {}}};
  if (cells) r.state.c = stack(cs, 0, where);
  return r;
}

RNN::RNN(int64_t input_size, int64_t hidden_size, RecurrentOptions options, Nonlinearity nonlinearity,
         TensorOptions tensors, Location where)
    : RecurrentLayers(rnn_kind(nonlinearity), input_size, hidden_size, options, tensors, where) {}
std::pair<Tensor, Tensor> RNN::forward(const Tensor& x, const Tensor& h, const Tensor& lengths,
                                       Location where) const {
  Result r = run(x, {h, {}}, lengths, where);
  return {std::move(r.output), std::move(r.state.h)};
}

LSTM::LSTM(int64_t input_size, int64_t hidden_size, RecurrentOptions options, TensorOptions tensors,
           Location where)
    : RecurrentLayers(RecurrentKind::lstm, input_size, hidden_size, options, tensors, where) {}
std::pair<Tensor, LstmState> LSTM::forward(const Tensor& x, const LstmState& state, const Tensor& lengths,
                                           Location where) const {
  Result r = run(x, state, lengths, where);
  return {std::move(r.output), std::move(r.state)};
}

GRU::GRU(int64_t input_size, int64_t hidden_size, RecurrentOptions options, TensorOptions tensors,
         Location where)
    : RecurrentLayers(RecurrentKind::gru, input_size, hidden_size, options, tensors, where) {}
std::pair<Tensor, Tensor> GRU::forward(const Tensor& x, const Tensor& h, const Tensor& lengths,
                                       Location where) const {
  Result r = run(x, {h, {}}, lengths, where);
  return {std::move(r.output), std::move(r.state.h)};
}

namespace {

/// A layer's results for a packed sequence, from those for the padded one.
template <class State, class Layer>
std::pair<PackedSequence, State> run_packed(const Layer& layer, const PackedSequence& x, const State& state,
                                            Location where) {
  const bool batch_first = layer.options.batch_first;
  const auto [padded, lengths] = utils::rnn::pad_packed_sequence(x, batch_first, 0, {}, where);
  auto [output, last] = layer.forward(padded, state, lengths.to(padded.device(), where), where);
  return {utils::rnn::packed_like(x, output, batch_first, where), std::move(last)};
}

}  // namespace

std::pair<PackedSequence, Tensor> RNN::forward(const PackedSequence& x, const Tensor& state,
                                               Location where) const {
  return run_packed(*this, x, state, where);
}
std::pair<PackedSequence, LstmState> LSTM::forward(const PackedSequence& x, const LstmState& state,
                                                   Location where) const {
  return run_packed(*this, x, state, where);
}
std::pair<PackedSequence, Tensor> GRU::forward(const PackedSequence& x, const Tensor& state,
                                               Location where) const {
  return run_packed(*this, x, state, where);
}

}  // namespace tandem::nn
