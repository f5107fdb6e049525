"""Tandem's ops in PyTorch: by name, or by a function here where names, arguments or results differ.

Each function takes the operands in order and the attributes by name. `None`: PyTorch has no counterpart.
"""
import math

import torch
import torch.nn.functional as F
from reference import DTYPES, NoAnswer

REDUCTIONS = ("none", "mean", "sum")
OTHER_DRAWS = "draws of another generator"
BY_TRAINING = "compared as a step of its optimizer"


def like(a, number):
    """Numbers of attributes take the tensor's type."""
    return number if a.is_floating_point() else int(number)


def axes_of(a, axes):
    return axes if axes else list(range(a.dim()))


def over(function):
    """A reduction over several axes, all of them if none is listed."""
    return lambda a, keepdim, axes: function(a, axes_of(a, axes), keepdim) if a.dim() else function(a, (), keepdim)


def one_by_one(function):
    """The same for functions of one axis."""
    def run(a, keepdim, axes):
        for axis in sorted((x % a.dim() for x in axes_of(a, axes)), reverse=True):
            a = function(a, axis, keepdim)
        return a
    return run


def arg(function):
    def run(a, keepdim, axes):
        if axes:
            return function(a, axes[0], keepdim)
        found = function(a)
        return found.reshape([1] * a.dim()) if keepdim else found
    return run


def loss(function, **names):
    """A loss whose attribute `reduction` is a number; `names`: attributes by PyTorch's names."""
    def run(*operands, reduction, **attributes):
        attributes = {names.get(k, k): v for k, v in attributes.items()}
        return function(*operands, reduction=REDUCTIONS[reduction], **attributes)
    return run


def slice_axis(a, axis, start, end, step):
    at = [slice(None)] * a.dim()
    at[axis] = slice(start, end, step)
    return a[tuple(at)]


def pad_axis(a, axis, before, after):
    behind = a.dim() - 1 - axis % a.dim()
    return F.pad(a, [0, 0] * behind + [before, after])


def index_add(x, index, src, axis):
    return x.index_add(axis, index, src)


def copy(a, b):
    return torch.as_tensor(b).to(a.dtype).expand(a.shape) + 0 * a


def squeeze(a, axes):
    for axis in sorted((x % a.dim() for x in axes_of(a, axes)), reverse=True):
        a = a.squeeze(axis)
    return a


def flip(a, axes):
    return torch.flip(a, axes_of(a, axes))


def last_axes(x, rank):
    return list(x.shape[x.dim() - rank:])


def rms_norm(x, weight, eps, rank):
    y = x * torch.rsqrt(x.pow(2).mean(list(range(x.dim() - rank, x.dim())), keepdim=True) + eps)
    return y if weight is None else y * weight


def masked_fill(x, mask, value):
    return x.masked_fill(mask, value)


def norm(a, axes, keepdim, p=2):
    return torch.linalg.vector_norm(a, p, axes or None, keepdim)


def bce_with_logits(a, b, pos_weight, reduction):
    return F.binary_cross_entropy_with_logits(a, b, pos_weight=pos_weight, reduction=REDUCTIONS[reduction])


def prelu(a, weight):
    return torch.where(a > 0, a, weight * a)


def cumsum(a, axis, reverse):
    return a.flip(axis).cumsum(axis).flip(axis) if reverse else a.cumsum(axis)


def argsort(a, axis, descending, count):
    order = torch.sort(a, dim=axis, descending=bool(descending), stable=True)[1]
    return order if count < 0 or a.dim() == 0 else order.narrow(axis, 0, count)


def linspace(dtype, size, start, end, gap, last):
    return torch.linspace(start, end, size, dtype=DTYPES[dtype])


def convolution(x, weight, bias, groups, tf32, stride, padding, dilation):
    function = (F.conv1d, F.conv2d, F.conv3d)[len(stride) - 1]
    return function(x, weight, bias, stride, padding, dilation, groups)


def padded(x, before, sizes):
    """x with zeros in front and behind its last axes, or cut behind, so that these have the sizes given."""
    both = [(p, n - p - x.shape[d - len(sizes)]) for d, (p, n) in enumerate(zip(before, sizes))]
    return F.pad(x, [n for pair in reversed(both) for n in pair])


def convolution_input(y, weight, bias, groups, tf32, stride, padding, dilation, output_padding):
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(stride) - 1]
    whole = function(y, weight, None, stride, 0, 0, groups, dilation)  # PyTorch wants output_padding below the stride
    x = padded(whole, [-p for p in padding], [n - 2 * p + e for n, p, e in zip(whole.shape[2:], padding, output_padding)])
    return x if bias is None else x + bias.reshape([-1] + [1] * len(stride))


def convolution_weight(x, y, groups, tf32, stride, padding, dilation, kernel):
    used = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(y.shape[2:], stride, dilation, kernel)]
    weight = x.new_zeros([y.shape[1], x.shape[1] // groups] + kernel, requires_grad=True)
    function = (F.conv1d, F.conv2d, F.conv3d)[len(stride) - 1]
    found = function(padded(x, padding, used), weight, None, stride, 0, dilation, groups)
    return torch.autograd.grad(found, weight, y, create_graph=True)[0]


def per_axis(windows, numbers):
    """windows holds so many numbers for each axis: those of all axes, one list each."""
    return [windows[i::numbers] for i in range(numbers)]


def max_pool(x, ceil, adaptive, positions, windows):
    own, x = x.dtype, x if x.is_floating_point() else x.double()
    if adaptive:
        function = (F.adaptive_max_pool1d, F.adaptive_max_pool2d)[len(windows) - 1]
        y, at = function(x, windows, return_indices=True)
    else:
        kernel, stride, padding, dilation = per_axis(windows, 4)
        function = (F.max_pool1d, F.max_pool2d)[len(kernel) - 1]
        y, at = function(x, kernel, stride, padding, dilation, ceil, return_indices=True)
    return y.to(own), at if positions else in_window(at, x, adaptive, windows)


def in_window(at, x, adaptive, windows):
    """Positions in the plane as row * width + column of the window, from its first position in the plane."""
    axes = len(windows) // (1 if adaptive else 4)
    place, widths, rest = torch.zeros_like(at), 1, at
    for axis in range(axes - 1, -1, -1):
        size, count = x.shape[axis - axes], at.shape[axis - axes]
        o = torch.arange(count)
        if adaptive:
            first, dilation = o * size // count, 1
            width = size // count if size % count == 0 else size // count + 2
        else:
            width, stride, padding, dilation = windows[4 * axis:4 * axis + 4]
            first = o * stride - padding
            first = torch.where(first < 0, first + (dilation - 1 - first) // dilation * dilation, first)
        first = first.reshape([count] + [1] * (axes - 1 - axis))
        place = place + (rest % size - first) // dilation * widths
        rest, widths = rest // size, widths * width
    return place.to(torch.uint8) if widths <= 256 else at


def max_pool_backward(g, at, ceil, adaptive, windows, sizes):
    axes = len(sizes)
    zeros = g.new_zeros(list(g.shape[:-axes]) + [math.prod(sizes)])
    return zeros.scatter_add(-1, at.flatten(-axes), g.flatten(-axes)).reshape(list(g.shape[:-axes]) + sizes)


def max_pool_pick(x, at, ceil, adaptive, windows):
    axes = len(windows) // (1 if adaptive else 4)
    return x.flatten(-axes).gather(-1, at.flatten(-axes)).reshape(at.shape)


def avg_pool(x, ceil, adaptive, count_include_pad, divisor, windows):
    if adaptive:
        return (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)[len(windows) - 1](x, windows)
    kernel, stride, padding = per_axis(windows, 3)
    if len(kernel) == 1:
        return F.avg_pool1d(x, kernel, stride, padding, ceil, count_include_pad)
    return F.avg_pool2d(x, kernel, stride, padding, ceil, count_include_pad, divisor or None)


def avg_pool_backward(g, ceil, adaptive, count_include_pad, divisor, windows):
    axes = len(windows) // (2 if adaptive else 4)
    windows, sizes = windows[:-axes], windows[-axes:]
    x = g.new_zeros(list(g.shape[:-axes]) + sizes, requires_grad=True)
    y = avg_pool(x, ceil, adaptive, count_include_pad, divisor, windows)
    return torch.autograd.grad(y, x, g, create_graph=True)[0]


def interpolate(x, linear, cubic, align_corners, scaled, scale, scale2, scale3, sizes):
    axes = x.dim() - 2
    mode = ("linear", "bilinear", "trilinear")[axes - 1] if linear else "bicubic" if cubic else "nearest"
    how = {"mode": mode, "align_corners": align_corners if linear or cubic else None}
    if scaled:
        return F.interpolate(x, scale_factor=(scale, scale2, scale3)[:axes], recompute_scale_factor=False, **how)
    return F.interpolate(x, sizes, **how)


class Digamma(torch.autograd.Function):
    """With another derivative: PyTorch's trigamma is good to ten digits."""

    @staticmethod
    def forward(context, a):
        context.save_for_backward(a)
        return torch.digamma(a)

    @staticmethod
    def backward(context, g):
        return g * torch.special.zeta(2.0, *context.saved_tensors)


def sinc(a):
    return torch.sinc(a.double()).to(a.dtype)  # its gradient near 0 loses all digits of float32


def stacked(x, at, axis):
    return (slice(None),) * (axis % x.dim()) + tuple(at.long())


def index(x, at, axis):
    return x[stacked(x, at, axis)]


def index_put(x, at, values, axis, accumulate):
    y = x.clone()
    if accumulate:  # PyTorch's own index_put_ has an index per leading axis
        order = list(range(axis, x.dim())) + list(range(axis))
        back = sorted(range(x.dim()), key=lambda i: order[i])
        others = list(range(axis, values.dim())) + list(range(axis))
        return y.permute(order).index_put(tuple(at.long()), values.permute(others), accumulate=True).permute(back)
    y[stacked(x, at, axis)] = values
    return y


def batch_norm_train(x, weight, bias, eps):
    axes = [i for i in range(x.dim()) if i != 1]
    y = F.batch_norm(x, None, None, weight, bias, True, 0, eps)
    return y, x.mean(axes), x.var(axes, unbiased=False), x.var(axes)


def with_statistics(y, rows, eps):
    return y, rows.mean(-1), (rows.var(-1, unbiased=False) + eps).rsqrt()


def layer_norm(x, weight, bias, eps, rank):
    y, mean, rstd = with_statistics(F.layer_norm(x, last_axes(x, rank), weight, bias, eps), x.flatten(-rank), eps)
    ones = (1,) * rank
    return y, mean.reshape(mean.shape + ones), rstd.reshape(rstd.shape + ones)


def group_norm(x, weight, bias, eps, groups):
    return with_statistics(F.group_norm(x, groups, weight, bias, eps), x.reshape(x.shape[0], groups, -1), eps)


def cross_entropy(logits, labels, reduction, ignore_index):
    largest = logits.amax(1)
    powers = (logits - largest.unsqueeze(1)).exp()
    return F.cross_entropy(logits, labels, reduction=REDUCTIONS[reduction], ignore_index=ignore_index), largest, 1 / powers.sum(1)


def attention(q, k, v, mask, causal, scaled, tf32, scale):
    if q.dim() > 2 and q.shape[-3] != k.shape[-3]:
        k, v = (t.repeat_interleave(q.shape[-3] // k.shape[-3], -3) for t in (k, v))
    scores = q @ k.transpose(-2, -1) * (scale if scaled else q.shape[-1] ** -0.5)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril() == 0, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    unseeing = (scores == -torch.inf).all(-1, keepdim=True)  # such rows are zeros, as in PyTorch 2.5
    p = scores.masked_fill(unseeing, 0).softmax(-1).masked_fill(unseeing, 0)
    return p @ v, p


def attention_scores(q, k, causal, scaled, scale):
    x = q @ k.transpose(-2, -1) * (scale if scaled else q.shape[-1] ** -0.5)
    return x.masked_fill(torch.ones(x.shape[-2:]).tril() == 0, -torch.inf) if causal else x


def for_queries(q, t):
    return t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) if q.dim() > 2 else t


def attention_forward(q, k, v, causal, scaled, tf32, whole, scale):
    x = attention_scores(q, for_queries(q, k), causal, scaled, scale)
    return x.softmax(-1) @ for_queries(q, v), x.logsumexp(-1)


def attention_backward(q, k, v, y, stats, grad_y, grad_stats, causal, scaled, tf32, whole, scale):
    """From y and stats as they are given, whatever they belong to."""
    many_k, many_v = for_queries(q, k), for_queries(q, v)
    p = (attention_scores(q, many_k, causal, scaled, scale) - stats.unsqueeze(-1)).exp()
    along = (grad_y * y).sum(-1) - (0 if grad_stats is None else grad_stats)
    factor = scale if scaled else q.shape[-1] ** -0.5
    grad_x = p * (grad_y @ many_v.transpose(-2, -1) - along.unsqueeze(-1)) * factor

    def shared(t, like):
        return t.unflatten(-3, (like.shape[-3], -1)).sum(-3) if q.dim() > 2 else t
    return grad_x @ many_k, shared(grad_x.transpose(-2, -1) @ q, k), shared(p.transpose(-2, -1) @ grad_y, v)


def lstm_gates(a, b, c):
    i, f, g, o = (a + b).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_gates(a, b, h):
    (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
    n, z = torch.tanh(an + (ar + br).sigmoid() * bn), (az + bz).sigmoid()
    return (1 - z) * n + z * h


def split(a, axis, sizes):
    return tuple(a.split(sizes, axis))


TABLE = {
    "cast": lambda a, dtype: a.to(DTYPES[dtype]),
    "clamp": lambda a, low, high: torch.clamp(a, like(a, low), like(a, high)),
    "hardsigmoid": lambda a: F.relu6(a + 3) / 6,  # PyTorch's own gradient in float64 is rounded to float32
    "add_scaled": lambda a, b, alpha: torch.add(a, b, alpha=like(a, alpha)),
    "prelu": prelu,
    "sum": over(torch.sum), "prod": one_by_one(torch.prod), "amax": over(torch.amax), "amin": over(torch.amin),
    "mean": over(torch.mean), "logsumexp": over(torch.logsumexp), "nansum": over(torch.nansum),
    "argmax": arg(torch.argmax), "argmin": arg(torch.argmin),
    "any": one_by_one(torch.any), "all": one_by_one(torch.all),
    "var": lambda a, correction, keepdim, axes: torch.var(a, axes_of(a, axes), correction=correction, keepdim=keepdim),
    "std": lambda a, correction, keepdim, axes: torch.std(a, axes_of(a, axes), correction=correction, keepdim=keepdim),
    "norm": lambda a, keepdim, axes: norm(a, axes, keepdim),
    "norm_p": lambda a, p, keepdim, axes: norm(a, axes, keepdim, p),
    "count_nonzero": lambda a, axes: torch.count_nonzero(a, axes_of(a, axes)),
    "reshape": lambda a, sizes: a.reshape(sizes), "permute": lambda a, axes: a.permute(axes),
    "expand": lambda a, sizes: a.expand(sizes), "slice": slice_axis, "squeeze": squeeze,
    "select": lambda a, axis, index: a.select(axis, index), "unsqueeze": lambda a, axis: a.unsqueeze(axis),
    "diagonal": lambda a, offset, axis, axis2: torch.diagonal(a, offset, axis, axis2),
    "unfold": lambda a, axis, size, step: a.unfold(axis, size, step),
    "cat": lambda *a, axis: torch.cat(a, axis), "pad": pad_axis,
    "index_select": lambda x, index, axis: x.index_select(axis, index),
    "gather": lambda x, index, axis: x.gather(axis, index),
    "index_add": index_add, "scatter_add": lambda x, index, src, axis: x.scatter_add(axis, index, src),
    "scatter": lambda x, index, src, axis: x.scatter(axis, index, src),
    "index_copy": lambda x, index, src, axis: x.index_copy(axis, index, src),
    "index_fill": lambda x, index, axis, value: x.index_fill(axis, index, value),
    "cumsum": cumsum, "cumprod": lambda a, axis: a.cumprod(axis),
    "cummax": lambda a, axis: tuple(a.cummax(axis)), "cummin": lambda a, axis: tuple(a.cummin(axis)),
    "logcumsumexp": lambda a, axis: a.logcumsumexp(axis),
    "argsort": argsort,
    "embedding": lambda weight, index: F.embedding(index, weight),
    "masked_fill": masked_fill, "one_hot": lambda a, classes: F.one_hot(a, classes), "flip": flip,
    "roll": lambda a, shift, axis: a.roll(shift, axis), "repeat": lambda a, repeats: a.repeat(repeats),
    "tril": lambda a, diagonal: a.tril(diagonal), "triu": lambda a, diagonal: a.triu(diagonal),
    "diag_embed": lambda a, offset, axis, axis2: torch.diag_embed(a, offset, axis, axis2),
    "full": lambda dtype, value, sizes: torch.full(sizes, value, dtype=DTYPES[dtype]),
    "arange": lambda dtype, size, start, step: (start + step * torch.arange(size)).to(DTYPES[dtype]),
    "linspace": linspace, "full_like": lambda a, value: 0 * a + like(a, value), "copy": copy,
    "matmul": lambda a, b, tf32: torch.matmul(a, b), "linear": lambda a, b, c, tf32: F.linear(a, b, c),
    "softmax": lambda a, axis: F.softmax(a, axis), "log_softmax": lambda a, axis: F.log_softmax(a, axis),
    "layer_norm": layer_norm, "rms_norm": rms_norm, "group_norm": group_norm,
    "batch_norm": lambda x, m, v, w, b, eps: F.batch_norm(x, m.detach(), v.detach(), w, b, False, 0, eps),
    "glu": lambda a, axis: F.glu(a, axis), "gelu": lambda a, tanh: F.gelu(a, approximate="tanh" if tanh else "none"),
    "leaky_relu": lambda a, slope: F.leaky_relu(a, slope), "softplus": lambda a, beta, threshold: F.softplus(a, beta, threshold),
    "hardtanh": lambda a, low, high: F.hardtanh(a, low, high), "softshrink": lambda a, **p: F.softshrink(a, p["lambda"]),
    "hardshrink": lambda a, **p: F.hardshrink(a, p["lambda"]),
    "nll_loss": lambda x, i, w, reduction, ignore_index: F.nll_loss(
        x, i, w, ignore_index=ignore_index, reduction=REDUCTIONS[reduction]),
    "cross_entropy": cross_entropy, "mse_loss": loss(F.mse_loss), "l1_loss": loss(F.l1_loss),
    "smooth_l1_loss": loss(F.smooth_l1_loss), "huber_loss": loss(F.huber_loss),
    "binary_cross_entropy": loss(F.binary_cross_entropy), "binary_cross_entropy_with_logits": bce_with_logits,
    "kl_div": loss(F.kl_div), "soft_margin_loss": loss(F.soft_margin_loss),
    "cosine_similarity": lambda a, b, axis, eps: F.cosine_similarity(a, b, axis, eps),
    "convolution": convolution, "convolution_input": convolution_input, "convolution_weight": convolution_weight,
    "max_pool": max_pool, "max_pool_backward": max_pool_backward, "max_pool_pick": max_pool_pick,
    "avg_pool": avg_pool, "avg_pool_backward": avg_pool_backward,
    "interpolate": interpolate, "index": index, "index_put": index_put,
    "digamma": Digamma.apply, "sinc": sinc, "batch_norm_train": batch_norm_train, "scaled_dot_product_attention": attention,
    "scaled_dot_product_attention_dropout": OTHER_DRAWS,
    "attention_forward": attention_forward, "attention_backward": attention_backward,
    "lstm_gates": lstm_gates, "gru_gates": gru_gates, "split2": split, "split3": split, "split4": split,
    "rand": OTHER_DRAWS, "randn": OTHER_DRAWS, "bernoulli_mask": OTHER_DRAWS, "dropout": OTHER_DRAWS,
}
# Operands by which PyTorch has no derivative.
NOT_DIFFERENTIABLE = {"batch_norm": (1, 2), "heaviside": (0, 1), "floor_divide": (0, 1), "zeta": (0,), "nll_loss": (2,),
                      "binary_cross_entropy_with_logits": (2,), "soft_margin_loss": (1,)}


def find(name):
    if name in TABLE:
        return TABLE[name]
    if name.endswith("_update"):
        return BY_TRAINING
    for place in (torch, F, torch.special):
        if hasattr(place, name):
            return getattr(place, name)
    raise KeyError(f"the op '{name}' has no counterpart in tests/pytorch/ops.py")


def run(case, tensors):
    function = find(case["op"])
    if isinstance(function, str):
        raise NoAnswer(function)
    operands = []
    for i, operand in enumerate(case["operands"]):
        operands.append(tensors[f"in{i}"] if operand == "tensor" else operand)
    numbers = [i for i, x in enumerate(operands) if isinstance(x, (bool, int, float))]
    if numbers and case["op"] not in ("copy", "masked_fill", "lerp"):
        for i in numbers:  # of rank 0, which is a number in promotion, too
            exact = torch.float64 if isinstance(operands[i], float) else None
            operands[i] = torch.tensor(operands[i], dtype=exact)
    leaves = [i for i, x in enumerate(operands) if case["operands"][i] == "tensor" and x.is_floating_point()
              and i not in NOT_DIFFERENTIABLE.get(case["op"], ())]
    for i in leaves:
        operands[i].requires_grad_()
    results = function(*operands, **case["attributes"])
    results = results if isinstance(results, tuple) else (results,)
    answers = {f"out{j}": y for j, y in enumerate(results)}
    loss = sum((y * tensors[f"weight{j}"]).sum() for j, y in enumerate(results) if f"weight{j}" in tensors)
    if torch.is_tensor(loss) and case["gradients"]:
        found = torch.autograd.grad(loss, [operands[i] for i in leaves], allow_unused=True) if leaves else []
        answers.update((f"grad{i}", g) for i, g in zip(leaves, found) if g is not None)
    return answers
