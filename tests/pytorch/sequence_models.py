"""GNMT, NeuMF and GPT-2 in PyTorch, without dropout, from the weights of a case: the losses of some steps of
training and the gradients of the first. Weights have Tandem's names; those of GPT-2 are laid out as in Hugging
Face's files, unless its linear layers are PyTorch's. benchmarks/peers/torch_steps.py trains the same classes."""
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Attention(nn.Module):
    """Additive, normalised."""

    def __init__(self, hidden):
        super().__init__()
        self.linear_q = nn.Linear(hidden, hidden, bias=False)
        self.linear_k = nn.Linear(hidden, hidden, bias=False)
        self.linear_att = nn.Parameter(torch.empty(hidden))
        self.normalize_scalar = nn.Parameter(torch.empty(()))
        self.normalize_bias = nn.Parameter(torch.empty(hidden))

    def forward(self, query, keys, lengths):
        v = self.normalize_scalar * self.linear_att / torch.linalg.vector_norm(self.linear_att)
        pairs = self.linear_q(query)[:, :, None, :] + self.linear_k(keys)[:, None, :, :] + self.normalize_bias
        scores = torch.tanh(pairs) @ v
        if lengths is not None:
            there = torch.arange(keys.shape[1], device=keys.device) < lengths[:, None]
            scores = scores.masked_fill(~there[:, None, :], -math.inf)
        return torch.bmm(torch.softmax(scores, -1), keys)


class Encoder(nn.Module):
    def __init__(self, hidden, layers):
        super().__init__()
        both = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        one = nn.LSTM(2 * hidden, hidden, batch_first=True)
        more = [nn.LSTM(hidden, hidden, batch_first=True) for _ in range(layers - 2)]
        self.rnn_layers = nn.ModuleList([both, one] + more)

    def forward(self, x, lengths):
        if lengths is None:
            x, _ = self.rnn_layers[0](x)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(self.rnn_layers[0](packed)[0], batch_first=True, total_length=x.shape[1])
        x, _ = self.rnn_layers[1](x)
        for layer in self.rnn_layers[2:]:
            x = layer(x)[0] + x
        return x


class Decoder(nn.Module):
    def __init__(self, words, hidden, layers):
        super().__init__()
        self.att_rnn = nn.LSTM(hidden, hidden, batch_first=True)
        self.attention = Attention(hidden)
        self.rnn_layers = nn.ModuleList(nn.LSTM(2 * hidden, hidden, batch_first=True) for _ in range(layers - 1))
        self.classifier = nn.Linear(hidden, words)

    def forward(self, x, keys, lengths):
        x, _ = self.att_rnn(x)
        context = self.attention(x, keys, lengths)
        for i, layer in enumerate(self.rnn_layers):
            y, _ = layer(torch.cat((x, context), 2))
            x = y if i == 0 else y + x
        return self.classifier(x)


class Gnmt(nn.Module):
    """Lengths of None: no source is padded."""

    def __init__(self, vocab_size, hidden_size, num_layers, label_smoothing):
        super().__init__()
        self.smoothing = label_smoothing
        self.embedder = nn.Embedding(vocab_size, hidden_size, padding_idx=0)
        self.encoder = Encoder(hidden_size, num_layers)
        self.decoder = Decoder(vocab_size, hidden_size, num_layers)

    def forward(self, source, lengths, inputs):
        keys = self.encoder(self.embedder(source), lengths)
        return self.decoder(self.embedder(inputs), keys, lengths)

    def loss(self, source, lengths, inputs, targets):
        logits = self(source, lengths, inputs)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=self.smoothing)


class NeuMf(nn.Module):
    def __init__(self, users, items, mf_width, mlp_widths):
        super().__init__()
        self.mf_user_embed = nn.Embedding(users, mf_width)
        self.mf_item_embed = nn.Embedding(items, mf_width)
        self.mlp_user_embed = nn.Embedding(users, mlp_widths[0] // 2)
        self.mlp_item_embed = nn.Embedding(items, mlp_widths[0] // 2)
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in zip(mlp_widths, mlp_widths[1:]))
        self.final = nn.Linear(mlp_widths[-1] + mf_width, 1)

    def forward(self, users, items):
        x = torch.cat((self.mlp_user_embed(users), self.mlp_item_embed(items)), 1)
        for layer in self.mlp:
            x = torch.relu(layer(x))
        return self.final(torch.cat((self.mf_user_embed(users) * self.mf_item_embed(items), x), 1))[:, 0]

    def loss(self, users, items, labels):
        return F.binary_cross_entropy_with_logits(self(users, items), labels)


class Conv1D(nn.Module):
    """A linear layer whose weight is (in, out)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def causal_attention(q, k, v):
    """(B, heads, T, size) each; position i sees 0 to i."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


class Gpt2Attention(nn.Module):
    def __init__(self, width, heads, linear):
        super().__init__()
        self.heads = heads
        self.c_attn = linear(width, 3 * width)
        self.c_proj = linear(width, width)

    def forward(self, x):
        b, t, width = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(x).split(width, 2))
        return self.c_proj(causal_attention(q, k, v).transpose(1, 2).reshape(b, t, width))


class Gpt2Mlp(nn.Module):
    def __init__(self, width, linear):
        super().__init__()
        self.c_fc = linear(width, 4 * width)
        self.c_proj = linear(4 * width, width)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Gpt2Block(nn.Module):
    def __init__(self, width, heads, linear):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Gpt2Attention(width, heads, linear)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Gpt2Mlp(width, linear)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    def __init__(self, n_layer, n_head, n_embd, n_positions, vocab_size, linear=Conv1D):
        super().__init__()
        parts = {"wte": nn.Embedding(vocab_size, n_embd), "wpe": nn.Embedding(n_positions, n_embd),
                 "h": nn.ModuleList(Gpt2Block(n_embd, n_head, linear) for _ in range(n_layer)),
                 "ln_f": nn.LayerNorm(n_embd)}
        self.transformer = nn.ModuleDict(parts)

    def forward(self, ids):
        t = self.transformer
        x = t["wte"](ids) + t["wpe"](torch.arange(ids.shape[1], device=ids.device))
        for block in t["h"]:
            x = block(x)
        return t["ln_f"](x) @ t["wte"].weight.T

    def loss(self, ids, targets):
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten())


def run(case, tensors):
    def of(prefix):
        return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}

    state, batch = of("state."), [v for _, v in sorted(of("batch").items())]
    model = {"gnmt": Gnmt, "ncf": NeuMf, "gpt2": Gpt2}[case["model"]](**case["config"])
    model = model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    optimizer = getattr(torch.optim, case["optimizer"])(model.parameters(), **case["options"])
    answers, losses = {}, []
    with torch.no_grad():
        answers["logits"] = model(*batch[:-1])
    for step in range(case["steps"]):
        loss = model.loss(*batch)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            answers.update(("grad." + name, p.grad.clone()) for name, p in model.named_parameters())
        if case["clip"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), case["clip"])
        optimizer.step()
        losses.append(loss.detach())
    answers["losses"] = torch.stack(losses)
    return answers
