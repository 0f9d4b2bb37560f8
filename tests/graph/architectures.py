"""Small networks of every family that people prune: plain modules, no weights from anywhere."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---------------------------------------------------------------- convolutional networks


class ProjectionBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNetProjection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(ProjectionBlock(8, 8, 1), ProjectionBlock(8, 12, 2), ProjectionBlock(12, 12, 1))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.max_pool2d(x, 2)
        return self.fc(F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


class PadShortcut(nn.Module):
    """Option A of He et al. 2015: every second pixel, new channels are zeros on both sides, so channels shift."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.width = outputs // 4

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.width, self.width))


class PadBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = PadShortcut(outputs) if inputs != outputs else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNetPadding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(
            PadBlock(8, 8, 1), PadBlock(8, 16, 2), PadBlock(16, 16, 1), PadBlock(16, 32, 2), PadBlock(32, 32, 1)
        )
        self.linear = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


class AsymmetricBlock(nn.Module):
    """Keras' "same" padding at stride 2: one pixel on one side only."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, outputs, 3, 2))
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.short(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.block1 = AsymmetricBlock(6, 8)
        self.block2 = AsymmetricBlock(8, 10)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block2(self.block1(F.relu(self.bn(self.conv(x))))).mean((2, 3)))


class DSCNN(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, width, (10, 4), 2), nn.BatchNorm2d(width)]
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)]
        self.features = nn.Sequential(*layers, nn.ReLU())
        self.pool = nn.AvgPool2d((25, 5))
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(x)).flatten(1))


class MobileNetV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()]
        for inputs, outputs, stride in ((8, 12, 1), (12, 16, 2), (16, 16, 1)):
            layers += [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU()]
            layers += [nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, inner, 1)
        self.expand = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish()),
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.Hardswish()),
            SqueezeExcite(inner, 4),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(6, 6, 2, 1), InvertedResidual(6, 8, 2, 2), InvertedResidual(8, 8, 2, 1)
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6 + 4 * i), nn.ReLU(), nn.Conv2d(6 + 4 * i, 4, 3, padding=1)) for i in range(3)
        )
        self.transition = nn.Conv2d(18, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return self.fc(F.avg_pool2d(F.relu(self.transition(x)), 8).flatten(1))


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Linear(8 * 2 * 2, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class GroupedConvolution(nn.Module):
    """A ResNeXt-like block with 3 groups, and a depth multiplier of 2 after it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.depthwise = nn.Conv2d(18, 36, 3, padding=1, groups=18)
        self.leave = nn.Conv2d(36, 12, 1)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.enter(x))
        return self.fc((x + self.leave(F.relu(self.depthwise(F.relu(self.grouped(x)))))).amax((2, 3)))


class TwoBranch(nn.Module):
    """Two inputs, two encoders, one head."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.sound = nn.Sequential(nn.Conv1d(2, 5, 3), nn.PReLU(5), nn.AdaptiveAvgPool1d(3), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(24 + 15, 10), nn.GELU(), nn.Linear(10, 3))

    def forward(self, image: Tensor, sound: Tensor) -> Tensor:
        return self.head(torch.cat([self.image(image), self.sound(sound)], dim=-1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(2, 6, 3, padding=1)
        self.down2 = nn.Conv2d(6, 8, 3, padding=1)
        self.bottom = nn.Conv2d(8, 10, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(10, 8, 2, 2)
        self.merge2 = nn.Conv2d(16, 8, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(8, 6, 2, 2)
        self.merge1 = nn.Conv2d(12, 6, 3, padding=1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        c = F.relu(self.bottom(F.max_pool2d(b, 2)))
        b = F.relu(self.merge2(torch.cat([b, self.up2(c)], 1)))
        a = F.relu(self.merge1(torch.cat([a, self.up1(b)], 1)))
        return self.out(a) + F.interpolate(x, scale_factor=1.0)


class GatedLinearUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 10)
        self.gate = nn.Linear(10, 24)
        self.leave = nn.Linear(12, 10)
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        a, b = self.gate(F.silu(x)).chunk(2, dim=-1)
        x = x + self.leave(a * torch.sigmoid(b))
        return self.out(F.relu(x))


class SharedWeights(nn.Module):
    """The same convolution twice, and one bias-free matrix read in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.left = nn.Linear(8, 6)
        self.right = nn.Linear(8, 6)
        self.right.weight = self.left.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(self.stem(x))))).mean((2, 3))
        return self.out(torch.tanh(self.left(x)) * self.right(x))


class LayerScale(nn.Module):
    """Bare parameters: a scale per channel, a gain of one number, a bias along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 16, 1)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.gamma = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.shift = nn.Parameter(torch.rand(1, 16, 1, 1))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.gelu(self.wide(self.depthwise(x)) + self.shift)
        return self.fc((x + self.gain * self.gamma * self.narrow(y)).mean((-2, -1)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [20, 16, 12, 4, 12, 16]
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.net = nn.Sequential(*layers, nn.Linear(16, 20))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


CONVOLUTIONAL = {
    "resnet-projection": (ResNetProjection, [(2, 3, 16, 16)]),
    "resnet-padding": (ResNetPadding, [(2, 3, 8, 8)]),
    "resnet8-asymmetric": (ResNet8, [(2, 3, 8, 8)]),
    "ds-cnn": (DSCNN, [(2, 1, 49, 10)]),
    "mobilenet-v1": (MobileNetV1, [(2, 3, 16, 16)]),
    "mobilenet-v2-se": (MobileNetV2, [(2, 3, 16, 16)]),
    "densenet": (DenseNet, [(2, 3, 8, 8)]),
    "vgg": (VGG, [(2, 3, 8, 8)]),
    "grouped": (GroupedConvolution, [(2, 3, 6, 6)]),
    "two-branch": (TwoBranch, [(2, 3, 8, 8), (2, 2, 12)]),
    "u-net": (UNet, [(2, 2, 8, 8)]),
    "gated-linear": (GatedLinearUnit, [(3, 6)]),
    "shared-weights": (SharedWeights, [(2, 3, 5, 5)]),
    "layer-scale": (LayerScale, [(2, 3, 8, 8)]),
    "autoencoder": (Autoencoder, [(3, 20)]),
}
"""Name to (class, shapes of its inputs)."""


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Fill every parameter and statistic with random numbers, so that nothing is 0 or 1 by chance."""
    for value in model.parameters():
        spread = value[0].numel() ** -0.5 if value.dim() > 1 else 0.3
        value.copy_(torch.randn_like(value) * spread + (0.4 if value.dim() < 2 else 0))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model
