"""Layers, optimizers and schedulers in PyTorch, from the weights and inputs of a case."""
import torch
import torch.nn.functional as F
from reference import NoAnswer


def run_layer(case, tensors):
    """Results of a layer made with the case's arguments, and the gradients of their weighted sum."""
    if not hasattr(torch.nn, case["layer"]):
        raise NoAnswer(f"PyTorch {torch.__version__} has no {case['layer']}")
    def named(prefix):
        return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}

    inputs = [tensors[k] for k in sorted(t for t in tensors if t.startswith("in"))]
    layer = getattr(torch.nn, case["layer"])(*case["arguments"], **case["options"], **named("made_with."))
    layer = layer.to(torch.float64 if case["double"] else torch.float32)
    layer.load_state_dict({k: v.clone() for k, v in named("state.").items()})
    layer.train(case["training"])
    for x in inputs[:case["leaves"]]:
        if x.is_floating_point():
            x.requires_grad_()
    call = {**case["call"], **named("call.")}
    lengths = call.pop("lengths", None)
    results = layer(*inputs, **call) if lengths is None else padded(layer, inputs[0], lengths)
    results = flatten(results)
    answers = {f"out{j}": y for j, y in enumerate(results)}
    loss = sum((y * tensors[f"weight{j}"]).sum() for j, y in enumerate(results) if f"weight{j}" in tensors)
    if torch.is_tensor(loss) and loss.requires_grad:
        loss.backward()
    answers.update((f"grad{i}", x.grad) for i, x in enumerate(inputs) if x.grad is not None)
    answers.update(("grad." + k, p.grad) for k, p in layer.named_parameters() if p.grad is not None)
    answers.update(("after." + k, b) for k, b in layer.named_buffers())
    return answers


def padded(layer, x, lengths):
    """A recurrent layer over sequences of several lengths."""
    steps = x.shape[1 if layer.batch_first else 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
    output, state = layer(packed)
    return torch.nn.utils.rnn.pad_packed_sequence(output, layer.batch_first, total_length=steps)[0], state


def flatten(results):
    if torch.is_tensor(results):
        return [results]
    return [t for r in results if r is not None for t in flatten(r)]


class Lion(torch.optim.Optimizer):
    """The update of Chen et al., 2023, which PyTorch does not have."""

    def __init__(self, parameters, lr, betas, weight_decay):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(beta1 * m + (1 - beta1) * p.grad))
                m.mul_(beta2).add_((1 - beta2) * p.grad)


def run_training(case, tensors):
    """The losses and learning rates of a small network's training, and its parameters after it."""
    names = sorted(k for k in tensors if k.startswith("p"))
    parameters = [tensors[k].requires_grad_() for k in names]
    options = dict(case["options"])
    if case["optimizer"] == "NAdam":
        options["foreach"] = True  # the other form of PyTorch 1.13 counts a step's momentum twice
    torch.set_default_dtype(tensors["x"].dtype)  # of the products that NAdam keeps
    make = Lion if case["optimizer"] == "Lion" else getattr(torch.optim, case["optimizer"])
    optimizer = make(parameters, **options)
    scheduler = None
    if case["scheduler"]:
        of_scheduler = dict(case["scheduler_options"])
        if "lr_lambda" in of_scheduler:  # a power of this base
            base = of_scheduler["lr_lambda"]
            of_scheduler["lr_lambda"] = lambda epoch: base ** epoch
        scheduler = getattr(torch.optim.lr_scheduler, case["scheduler"])(optimizer, **of_scheduler)
    losses, rates = [], []
    for t in range(case["steps"]):
        w1, b1, w2, b2 = parameters
        y = F.linear(torch.tanh(F.linear(tensors["x"], w1, b1)), w2, b2)
        loss = F.mse_loss(y, tensors["target"])
        optimizer.zero_grad()
        loss.backward()
        if case["clip"] == "norm":
            torch.nn.utils.clip_grad_norm_(parameters, case["clip_at"])
        if case["clip"] == "value":
            torch.nn.utils.clip_grad_value_(parameters, case["clip_at"])
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler:
            plateau = case["scheduler"] == "ReduceLROnPlateau"
            scheduler.step(*([case["watched"][t]] if plateau else []))
        losses.append(loss.detach())
    answers = {"losses": torch.stack(losses), "rates": torch.tensor(rates, dtype=torch.float64)}
    answers.update((name, p) for name, p in zip(names, parameters))
    torch.set_default_dtype(torch.float32)
    return answers
