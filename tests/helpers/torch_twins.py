"""Networks in PyTorch, in the form and with the names that they have in public code; written here, from the papers.

Run with PyTorch, this file writes the logits that the tests hold our networks to; no test needs PyTorch:

    python tests/helpers/torch_twins.py            # writes tests/export/recorded/twins.json

Weights are drawn by numpy from each tensor's name, here and there, so that only logits are kept.
"""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).parent.parent / "export" / "recorded" / "twins.json"
BATCH = 2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)

SMALL = {"widths": (4, 6, 8, 10)}
# name of the case: (network, image's side, options of ours, long)
CASES = {
    "resnet18, imagenet stem": ("resnet18", 32, {"stem": "imagenet", **SMALL}, False),
    "resnet34": ("resnet34", 8, {"blocks": (1, 2, 1, 1), **SMALL}, False),
    "resnet50": ("resnet50", 8, {"blocks": (1, 2, 1, 1), **SMALL}, False),
    "resnet50, imagenet stem": ("resnet50", 33, {"blocks": (1, 1, 1, 1), "stem": "imagenet", **SMALL}, False),
    "preactresnet18": ("preactresnet18", 8, {"blocks": (1, 2, 1, 1), **SMALL}, False),
    "preactresnet18, plain": (
        "preactresnet18",
        8,
        {"blocks": (1, 1, 1, 1), "final_norm": False, "shortcut": "input", **SMALL},
        False,
    ),
    "wideresnet": ("wideresnet", 8, {"depth": 16, "width": 1}, False),
    "dm_wideresnet": ("dm_wideresnet", 8, {"depth": 28, "width": 1, "mean": MEAN, "std": STD}, False),
    "vgg16_bn": ("vgg16_bn", 32, {}, False),
    "vgg16_survey": ("vgg16_survey", 32, {}, False),
    "resnet18, whole": ("resnet18", 32, {}, True),
    "resnet34, whole": ("resnet34", 32, {}, True),
    "resnet50, whole": ("resnet50", 32, {}, True),
    "resnet50, whole, imagenet stem": ("resnet50", 64, {"stem": "imagenet"}, True),
    "preactresnet18, whole": ("preactresnet18", 32, {}, True),
    "wideresnet-28-10": ("wideresnet", 32, {}, True),
    "wideresnet-34-10": ("wideresnet", 32, {"depth": 34}, True),
    "dm_wideresnet-28-10": ("dm_wideresnet", 32, {"mean": MEAN, "std": STD}, True),
}


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of one tensor, whichever side asks."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return ((name.endswith("weight")) + 0.1 * generator.standard_normal(shape)).astype(np.float32)
    scale = np.float32((1.0 / np.prod(shape[1:])) ** 0.5)
    return scale * generator.standard_normal(shape, np.float32)


def pictures(side: int) -> np.ndarray:
    """[B, side, side, 3] in [0, 1]."""
    return np.random.default_rng(5).random((BATCH, side, side, 3), np.float32)


def modules(torch):
    """The networks by their names here: each a function of the options that gives a module."""
    nn, functional = torch.nn, torch.nn.functional

    def conv(before, after, size, stride=1, padding=None, bias=False):
        return nn.Conv2d(before, after, size, stride, size // 2 if padding is None else padding, bias=bias)

    def shortcut(before, after, stride):
        return nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    class Basic(nn.Module):
        expansion = 1

        def __init__(self, before, width, stride, name):
            super().__init__()
            self.conv1, self.bn1 = conv(before, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
            self.name = name if stride != 1 or before != width else None
            if self.name:
                setattr(self, name, shortcut(before, width, stride))

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            return functional.relu(y + (getattr(self, self.name)(x) if self.name else x))

    class Bottleneck(nn.Module):
        expansion = 4

        def __init__(self, before, width, stride, name):
            super().__init__()
            self.conv1, self.bn1 = conv(before, width, 1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
            self.name = name if stride != 1 or before != 4 * width else None
            if self.name:
                setattr(self, name, shortcut(before, 4 * width, stride))

        def forward(self, x):
            y = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
            return functional.relu(self.bn3(self.conv3(y)) + (getattr(self, self.name)(x) if self.name else x))

    class PreAct(nn.Module):
        expansion = 1

        def __init__(self, before, width, stride, sees):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, width, 3, stride)
            self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
            self.sees = sees
            if stride != 1 or before != width:
                self.shortcut = nn.Sequential(conv(before, width, 1, stride))

        def forward(self, x):
            active = functional.relu(self.bn1(x))
            y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
            return y + (self.shortcut(active if self.sees == "active" else x) if hasattr(self, "shortcut") else x)

    def stages(module, block, blocks, widths, *rest):
        """Sets layer1, layer2, ...; returns the channels at the end."""
        before = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
            layers = []
            for place in range(count):
                layers.append(block(before, width, 2 if place == 0 and number > 1 else 1, *rest))
                before = width * block.expansion
            setattr(module, f"layer{number}", nn.Sequential(*layers))
        return before

    class ResNet(nn.Module):
        def __init__(self, block, blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), stem="cifar"):
            super().__init__()
            self.large = stem == "imagenet"
            self.conv1 = conv(3, widths[0], 7, 2) if self.large else conv(3, widths[0], 3)
            self.bn1 = nn.BatchNorm2d(widths[0])
            channels = stages(self, block, blocks, widths, "downsample" if self.large else "shortcut")
            setattr(self, "fc" if self.large else "linear", nn.Linear(channels, 10))

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)))
            x = functional.max_pool2d(x, 3, 2, 1) if self.large else x
            x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
            return self.fc(x) if self.large else self.linear(x)

    class PreActResNet(nn.Module):
        def __init__(self, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), final_norm=True, shortcut="active"):
            super().__init__()
            self.conv1 = conv(3, widths[0], 3)
            channels = stages(self, PreAct, blocks, widths, shortcut)
            if final_norm:
                self.bn = nn.BatchNorm2d(channels)
            self.linear = nn.Linear(channels, 10)

        def forward(self, x):
            x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
            return self.linear((functional.relu(self.bn(x)) if hasattr(self, "bn") else x).mean((2, 3)))

    class WideBlock(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, width, 3, stride)
            self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
            self.convShortcut = conv(before, width, 1, stride) if before != width else None

        def forward(self, x):
            active = functional.relu(self.bn1(x))
            y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
            return y + (x if self.convShortcut is None else self.convShortcut(active))

    class DMBlock(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(before), conv(before, width, 3, stride, padding=0)
            self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(width), conv(width, width, 3)
            self.shortcut = conv(before, width, 1, stride) if before != width else None
            self.border = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

        def forward(self, x):
            active = functional.silu(self.batchnorm_0(x))
            y = self.conv_1(functional.silu(self.batchnorm_1(self.conv_0(functional.pad(active, self.border)))))
            return y + (x if self.shortcut is None else self.shortcut(active))

    class Group(nn.Module):
        def __init__(self, name, block, count, before, width, stride):
            super().__init__()
            layers = [block(before if i == 0 else width, width, stride if i == 0 else 1) for i in range(count)]
            self.name = name
            setattr(self, name, nn.Sequential(*layers))

        def forward(self, x):
            return getattr(self, self.name)(x)

    def groups(name, block, depth, width):
        widths = [16, 16 * width, 32 * width, 64 * width]
        count = (depth - 4) // 6
        pairs = zip(itertools.pairwise(widths), (1, 2, 2), strict=True)
        return [Group(name, block, count, before, after, stride) for (before, after), stride in pairs]

    class WideResNet(nn.Module):
        def __init__(self, depth=28, width=10):
            super().__init__()
            self.conv1 = conv(3, 16, 3)
            self.block1, self.block2, self.block3 = groups("layer", WideBlock, depth, width)
            self.sub_block1 = groups("layer", WideBlock, depth, width)[0]  # never used
            self.bn1, self.fc = nn.BatchNorm2d(64 * width), nn.Linear(64 * width, 10)

        def forward(self, x):
            x = self.block3(self.block2(self.block1(self.conv1(x))))
            return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))

    class DMWideResNet(nn.Module):
        def __init__(self, depth=28, width=10, mean=MEAN, std=STD):
            super().__init__()
            self.init_conv = conv(3, 16, 3)
            self.layer = nn.Sequential(*groups("block", DMBlock, depth, width))
            self.batchnorm, self.logits = nn.BatchNorm2d(64 * width), nn.Linear(64 * width, 10)
            self.center, self.scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))

        def forward(self, x):
            x = self.layer(self.init_conv((x - self.center) / self.scale))
            return self.logits(functional.silu(self.batchnorm(x)).mean((2, 3)))

    class VGG(nn.Module):
        def __init__(self, survey):
            super().__init__()
            layers, before = [], 3
            for number, widths in enumerate([(64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3], 1):
                for width in widths:
                    layers += [conv(before, width, 3, bias=not survey), nn.BatchNorm2d(width), nn.ReLU()]
                    before = width
                if not survey or number < 5:
                    layers.append(nn.MaxPool2d(2))
            self.features, self.survey = nn.Sequential(*layers), survey
            dense = [nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
            self.classifier = nn.Sequential(*dense) if survey else nn.Linear(512, 10)

        def forward(self, x):
            x = self.features(x)
            return self.classifier((functional.adaptive_avg_pool2d(x, 2) if self.survey else x).flatten(1))

    return {
        "resnet18": lambda **options: ResNet(Basic, **{"blocks": (2, 2, 2, 2)} | options),
        "resnet34": lambda **options: ResNet(Basic, **options),
        "resnet50": lambda **options: ResNet(Bottleneck, **options),
        "preactresnet18": PreActResNet,
        "wideresnet": WideResNet,
        "dm_wideresnet": DMWideResNet,
        "vgg16_bn": lambda: VGG(survey=False),
        "vgg16_survey": lambda: VGG(survey=True),
    }


def record(torch, cases=CASES):
    """{case: logits} of the twins."""
    made, found = modules(torch), {}
    for case in cases:
        name, side, options, _ = CASES[case]
        network = made[name](**options).eval()
        state = network.state_dict()
        counters = {key: value for key, value in state.items() if key.endswith("num_batches_tracked")}
        weights = {key: torch.from_numpy(drawn(key, tuple(state[key].shape))) for key in state.keys() - counters.keys()}
        network.load_state_dict(counters | weights, strict=True)
        with torch.no_grad():
            logits = network(torch.from_numpy(pictures(side).transpose(0, 3, 1, 2).copy()))
        found[case] = [[float(f"{value:.8g}") for value in row] for row in logits.numpy().tolist()]
    return found


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    lines = [f" {json.dumps(case)}: {json.dumps(logits)}" for case, logits in record(torch).items()]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
