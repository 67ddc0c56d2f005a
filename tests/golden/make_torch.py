#!/usr/bin/env python3
"""Writes tests/core/golden/torch.hpp: small networks, their losses and gradients, and optimizer steps by PyTorch.

    python3 tests/golden/make_torch.py > tests/core/golden/torch.hpp     (Debian: python3-torch)

An independent second opinion on Program::backward and on the optimizers. The tests read the header only; Python is needed
to make it anew, not to run them. Parameters and their gradients are written in ONNX's layout (gates of LSTM in the
order i o f c, of GRU z r h, weights of MatMul as [in, out]), which is what PyTorch's own exporter would write.
"""
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(20240607)
torch.set_num_threads(1)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(F.relu(self.conv2(x)).flatten(1))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(7, 11)
        self.fc2 = nn.Linear(11, 6)
        self.fc3 = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc3(torch.sigmoid(self.fc2(torch.tanh(self.fc1(x)))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(2, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        y = F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x))))
        return self.fc(y.mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Recurrent(nn.Module):
    """All states of both directions, their mean over time, and a dense layer."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(5, 4, bidirectional=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0].mean(0))


class Block(nn.Module):
    """A transformer block as in make_architecture("transformer"), and a dense layer on the mean of the tokens."""

    def __init__(self, width=8, heads=2, hidden=12):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.mlp1, self.mlp2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.fc = nn.Linear(width, 3)

    def forward(self, x):
        n, t, w = x.shape
        split = lambda y: y.reshape(n, t, self.heads, w // self.heads).transpose(1, 2)
        y = self.norm1(x)
        q, k, v = split(self.query(y)), split(self.key(y)), split(self.value(y))
        a = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(w // self.heads), -1)
        x = x + self.project((a @ v).transpose(1, 2).reshape(n, t, w))
        x = x + self.mlp2(F.gelu(self.mlp1(self.norm2(x))))
        return self.fc(x.mean(1))


def perturb(net):
    """Away from the initial ones and zeros, which would hide errors."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.3)
    return net


GATES = {"rnn_lstm": [0, 3, 1, 2], "rnn_gru": [1, 0, 2]}  # PyTorch: i f g o, and r z n


def onnx_arrays(case, pairs):
    """(name, array) pairs of PyTorch's parameters (or gradients) in ONNX's layout."""
    out, parts = [], {}
    for name, array in pairs:
        if name.startswith("rnn."):
            parts[name[4:]] = array
        elif case == "block" and name.endswith("weight") and array.ndim == 2 and not name.startswith("fc."):
            out.append((name, array.T))
        else:
            out.append((name, array))
    if parts:
        order = GATES[case]
        swap = lambda a: np.concatenate([np.split(a, len(order))[i] for i in order])
        both = lambda what: [swap(parts[what + "_l0" + end]) for end in ("", "_reverse")]
        out.append(("rnn.W", np.stack(both("weight_ih"))))
        out.append(("rnn.R", np.stack(both("weight_hh"))))
        out.append(("rnn.B", np.concatenate([np.stack(both("bias_ih")), np.stack(both("bias_hh"))], 1)))
    return out


arrays, lines = [], []


def array(values):
    values = np.ascontiguousarray(values, dtype=np.float32)
    arrays.append(values)
    shape = ", ".join(str(n) for n in values.shape)
    return "{{%s}, kData%d}" % (shape, len(arrays) - 1)


def named(pairs):
    return "{%s}" % ",\n      ".join('{"%s", %s}' % (name, array(values)) for name, values in pairs)


def parameters(case, net, what=lambda p: p):
    return onnx_arrays(case, [(n, what(p).detach().numpy().copy()) for n, p in net.named_parameters()])


def write_case(case, net, x, classes):
    batch = x.shape[1] if case in GATES else x.shape[0]
    labels = torch.randint(0, classes, (batch,))
    net.train()
    x.requires_grad_(True)
    before = named(parameters(case, net))
    logits = net(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    running = [(n, b.numpy()) for n, b in net.named_buffers() if n.endswith("running_mean")]
    lines.append('    {"%s",\n      %s,\n      {%s},\n      %s,' % (
        case, array(x.detach().numpy()), ", ".join(str(int(i)) for i in labels), before))
    lines.append("      %s, %r,\n      %s,\n      %s,\n      %s}," % (
        array(logits.detach().numpy()), float(loss), array(x.grad.numpy()),
        named(parameters(case, net, lambda p: p.grad)), named(running) if running else "{}"))


write_case("cnn", perturb(Cnn()), torch.randn(3, 1, 10, 10), 5)
write_case("mlp", perturb(Mlp()), torch.randn(6, 7), 4)
write_case("residual", perturb(Residual()), torch.randn(2, 2, 6, 6), 3)
write_case("depthwise", perturb(Depthwise()), torch.randn(3, 4, 5, 5), 3)
write_case("rnn_lstm", perturb(Recurrent(nn.LSTM)), torch.randn(6, 3, 5), 3)
write_case("rnn_gru", perturb(Recurrent(nn.GRU)), torch.randn(6, 3, 5), 3)
write_case("block", perturb(Block()), torch.randn(2, 5, 8), 3)

STEPS = 5
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.05),
}
start = perturb(Mlp())
state = {k: v.clone() for k, v in start.state_dict().items()}
batches = torch.randn(STEPS, 6, 7)
labels = torch.randint(0, 4, (STEPS, 6))
runs = []
for name, make in OPTIMIZERS.items():
    net = Mlp()
    net.load_state_dict(state)
    optimizer = make(net.parameters())
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(batches[step]), labels[step])
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    runs.append('    {"%s", {%s},\n      %s},' % (name, ", ".join(map(repr, losses)), named(parameters("mlp", net))))
start_text = named([(k, v.numpy()) for k, v in state.items()])
batch_text = array(batches.numpy())

print("// Written by tests/golden/make_torch.py with PyTorch %s. Do not edit." % torch.__version__.split("+")[0])
print("#pragma once\n\n#include <cstdint>\n#include <span>\n#include <vector>\n\nnamespace nibble::golden {\n")
for i, values in enumerate(arrays):
    text, line = [], ""
    for v in values.ravel():
        number = np.format_float_scientific(v, unique=True, trim="-", exp_digits=1) + "f, "
        if len(line) + len(number) > 118:
            text.append(line.rstrip())
            line = ""
        line += number
    text.append(line.rstrip(", "))
    print("inline constexpr float kData%d[] = {\n    %s};" % (i, "\n    ".join(text)))
print("""
struct Array {
  std::vector<int64_t> shape;
  std::span<const float> values;
};
struct Named {
  const char* name;
  Array array;
};
/// One network, one batch: the loss is the mean cross-entropy.
struct Network {
  const char* name;
  Array input;
  std::vector<int> labels;
  std::vector<Named> params;
  Array logits;
  double loss;
  Array input_grad;
  std::vector<Named> grads;
  std::vector<Named> running;  ///< running means after the pass
};
inline const std::vector<Network> kNetworks = {""")
print("\n".join(lines))
print("};\n\n/// The same network as \"mlp\" after a step on each of kBatches.")
print("struct Optimized {\n  const char* name;\n  std::vector<double> losses;\n  std::vector<Named> params;\n};")
print("inline const std::vector<Named> kStart = %s;" % start_text)
print("inline const Array kBatches = %s;" % batch_text)
print("inline const std::vector<std::vector<int>> kBatchLabels = {%s};" % ", ".join(
    "{%s}" % ", ".join(str(int(i)) for i in row) for row in labels))
print("inline const std::vector<Optimized> kOptimized = {\n%s\n};\n\n}  // namespace nibble::golden" % "\n".join(runs))
