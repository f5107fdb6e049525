"""Networks of the literature in PyTorch, under torchvision's parameter names: ten steps of training from the
weights of a case. `scale` shrinks them as samples/models does. benchmarks/peers/torch_steps.py trains the same classes."""
import torch
import torch.nn.functional as F
from torch import nn


def scaled(n, scale, multiple=1):
    return min(n, max(1, int(n * scale / multiple + 0.5)) * multiple)


class Shrunk(nn.Module):
    """Channels and repetitions at a scale."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def channels(self, n):
        return scaled(n, self.scale, 8)

    def repeats(self, n):
        return scaled(n, self.scale)


class AlexNet(Shrunk):
    def __init__(self, classes, scale):
        super().__init__(scale)
        a, b, c, d, wide = (self.channels(n) for n in (64, 192, 384, 256, 4096))
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(d, d, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
        self.classifier = nn.Sequential(
            nn.Dropout(0), nn.Linear(d * 36, wide), nn.ReLU(inplace=True),
            nn.Dropout(0), nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Linear(wide, classes))

    def forward(self, x):
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 6), 1))


class Vgg19(Shrunk):
    def __init__(self, classes, scale):
        super().__init__(scale)
        layers, last = [], 3
        for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(self.repeats(count)):
                layers += [nn.Conv2d(last, self.channels(width), 3, padding=1), nn.ReLU(inplace=True)]
                last = self.channels(width)
            layers.append(nn.MaxPool2d(2, 2))
        wide = self.channels(4096)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(last * 49, wide), nn.ReLU(inplace=True), nn.Dropout(0),
            nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Dropout(0), nn.Linear(wide, classes))

    def forward(self, x):
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 7), 1))


class Residual(nn.Module):
    """Convolutions (channels, kernel, stride) with batch norm, and a shortcut."""

    def __init__(self, last, convolutions, stride):
        super().__init__()
        self.count, first = len(convolutions), last
        for i, (out, kernel, step) in enumerate(convolutions, 1):
            setattr(self, f"conv{i}", nn.Conv2d(last, out, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            last = out
        self.downsample = None
        if first != last or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(first, last, 1, stride, bias=False), nn.BatchNorm2d(last))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Shrunk):
    def __init__(self, classes, scale, blocks, bottleneck):
        super().__init__(scale)
        last = self.channels(64)
        self.conv1 = nn.Conv2d(3, last, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(last)
        for stage, count in enumerate(blocks):
            width, layers = self.channels(64 * 2 ** stage), []
            for i in range(self.repeats(count)):
                stride = 2 if stage > 0 and i == 0 else 1
                if bottleneck:
                    convolutions = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
                else:
                    convolutions = [(width, 3, stride), (width, 3, 1)]
                layers.append(Residual(last, convolutions, stride))
                last = convolutions[-1][0]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def unit(last, out, kernel, stride, groups, activation):
    layers = [nn.Conv2d(last, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return layers + ([activation()] if activation else [])


class MobileNetV1(Shrunk):
    def __init__(self, classes, scale):
        super().__init__(scale)
        last = self.channels(32)
        layers = [nn.Sequential(*unit(3, last, 3, 2, 1, nn.ReLU))]
        for width, stride, count in ((64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (512, 2, 1),
                                     (512, 1, 5), (1024, 2, 1), (1024, 1, 1)):
            for _ in range(self.repeats(count)):
                out = self.channels(width)
                layers.append(nn.Sequential(*unit(last, last, 3, stride, last, nn.ReLU),
                                            *unit(last, out, 1, 1, 1, nn.ReLU)))
                last = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, last, out, stride, expand):
        super().__init__()
        hidden, layers = last * expand, []
        if expand != 1:
            layers.append(nn.Sequential(*unit(last, hidden, 1, 1, 1, nn.ReLU6)))
        layers.append(nn.Sequential(*unit(hidden, hidden, 3, stride, hidden, nn.ReLU6)))
        self.conv = nn.Sequential(*layers, *unit(hidden, out, 1, 1, 1, None))
        self.residual = stride == 1 and last == out

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Shrunk):
    def __init__(self, classes, scale):
        super().__init__(scale)
        last = self.channels(32)
        layers = [nn.Sequential(*unit(3, last, 3, 2, 1, nn.ReLU6))]
        for expand, width, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                             (6, 160, 3, 2), (6, 320, 1, 1)):
            for i in range(self.repeats(count)):
                layers.append(Inverted(last, self.channels(width), stride if i == 0 else 1, expand))
                last = self.channels(width)
        wide = self.channels(1280)
        self.features = nn.Sequential(*layers, nn.Sequential(*unit(last, wide, 1, 1, 1, nn.ReLU6)))
        self.classifier = nn.Sequential(nn.Dropout(0), nn.Linear(wide, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


MODELS = {
    "alexnet": AlexNet, "vgg19": Vgg19, "mobilenet_v1": MobileNetV1, "mobilenet_v2": MobileNetV2,
    "resnet18": lambda *a: ResNet(*a, (2, 2, 2, 2), False), "resnet50": lambda *a: ResNet(*a, (3, 4, 6, 3), True)}


def run(case, tensors):
    """The losses of ten steps of SGD, the gradients of the first, and the buffers after the last."""
    model = MODELS[case["model"]](case["classes"], case["scale"]).to(tensors["x"].dtype)
    model.load_state_dict({k[len("state."):]: v.clone() for k, v in tensors.items() if k.startswith("state.")})
    optimizer = torch.optim.SGD(model.parameters(), lr=case["lr"], momentum=0.9, weight_decay=1e-4)
    losses, answers = [], {}
    for t in range(10):
        loss = F.cross_entropy(model(tensors["x"]), tensors["y"])
        optimizer.zero_grad()
        loss.backward()
        if t == 0:
            answers.update(("grad." + k, p.grad.clone()) for k, p in model.named_parameters())
        optimizer.step()
        losses.append(loss.detach())
    answers["losses"] = torch.stack(losses)
    answers.update(("after." + k, b) for k, b in model.named_buffers())
    return answers
