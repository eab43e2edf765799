"""The same network in PyTorch gives the same logits; its state dicts are read. Skipped where there is no PyTorch.

The modules below have the form, and so the names, that these networks commonly have in PyTorch; ``load_state_dict`` is strict.
"""

import importlib.util
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.export import export_network, import_network, read_tensors, write_tensors

torch = pytest.importorskip("torch")
nn = torch.nn
functional = torch.nn.functional


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, blocks, widths):
        super().__init__()
        self.conv1, self.bn1, before = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), widths[0]
        for stage, (count, channels) in enumerate(zip(blocks, widths, strict=True), 1):
            inputs = [before] + [channels] * (count - 1)
            strides = [1 if stage == 1 else 2] + [1] * (count - 1)
            layer = nn.Sequential(*(Block(i, channels, s) for i, s in zip(inputs, strides, strict=True)))
            setattr(self, f"layer{stage}", layer)
            before = channels
        self.stages, self.linear = len(blocks), nn.Linear(before, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(before, channels, 1, stride, bias=False) if before != channels else None

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(WideBlock(16, 16, 1), WideBlock(16, 16, 1))
        self.block2 = Stage(WideBlock(16, 32, 2), WideBlock(32, 32, 1))
        self.block3 = Stage(WideBlock(32, 64, 2), WideBlock(64, 64, 1))
        self.bn1, self.fc = nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, batch_norm, pools, hidden, inputs):
        super().__init__()
        layers, before = [], 3
        for block, widths in enumerate([(64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3], 1):
            for width in widths:
                norm = [nn.BatchNorm2d(width)] if batch_norm else []
                layers += [nn.Conv2d(before, width, 3, 1, 1), *norm, nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2) if block <= pools else nn.Identity())
        self.features = nn.Sequential(*layers)
        widths = [inputs, *hidden, 10]
        dense = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        self.classifier = nn.Sequential(*dense) if hidden else dense[0]

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 32, 5, 1, 2), nn.Conv2d(32, 64, 5, 1, 2)
        self.fc1, self.head = nn.Linear(64 * 2 * 3, 84), nn.Linear(84, 10)

    def forward(self, x):
        for layer in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(layer(x)), 2)
        return self.head(functional.relu(self.fc1(x.flatten(1))))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(90, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    def forward(self, x):
        return self.head(functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1))))))


class FitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.order, before = [], 3
        for stage, widths in enumerate([(32, 32, 32, 48, 48), (80,) * 5, (128,) * 5], 1):
            for layer, width in enumerate(widths, 1):
                setattr(self, f"conv{stage}_{layer}", nn.Conv2d(before, width, 3, 1, 1))
                self.order.append(f"conv{stage}_{layer}")
                before = width
        self.fc1, self.head = nn.Linear(128, 500), nn.Linear(500, 10)

    def forward(self, x):
        for name in self.order:
            x = functional.relu(getattr(self, name)(x))
            if name in ("conv1_5", "conv2_5"):
                x = functional.max_pool2d(x, 2)
        return self.head(self.fc1(x.amax((2, 3))))


NETWORKS = {
    "resnet18": ("resnet18", (16, 16, 3), {"widths": (8, 16, 32, 64)}, lambda: ResNet((2, 2, 2, 2), (8, 16, 32, 64))),
    "resnet18, normalised": (  # stages of one width are told apart by their shortcuts
        "resnet18",
        (8, 8, 3),
        {"widths": (8, 8, 8, 8), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)},
        lambda: ResNet((2, 2, 2, 2), (8, 8, 8, 8)),
    ),
    "resnet8": ("resnet8", (8, 12, 3), {}, lambda: ResNet((1, 1, 1), (16, 32, 64))),
    "wideresnet": ("wideresnet", (8, 8, 3), {"depth": 16, "width": 1}, WideResNet),
    "vgg16-bn": ("vgg16", (32, 32, 3), {"batch_norm": True, "hidden": ()}, lambda: VGG(True, 5, (), 512)),
    "vgg16, small map": ("vgg16", (8, 8, 3), {"hidden": (20, 10)}, lambda: VGG(False, 3, (20, 10), 512)),
    "vgg16, wide map": ("vgg16", (32, 64, 3), {"hidden": (20,)}, lambda: VGG(False, 5, (20,), 1024)),
    "lenet5": ("lenet5", (8, 12, 2), {}, LeNet),
    "mlp": ("mlp", (6, 5, 3), {}, MLP),
    "fitnet4": ("fitnet4", (8, 8, 3), {}, FitNet),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_the_logits_agree(case, make_network, tmp_path):
    name, image_shape, options, module = NETWORKS[case]
    model, params, masks, model_state = make_network(name, image_shape, **options)
    exported = export_network(params, masks, model_state, layout="torch", architecture=name, image_shape=image_shape)
    write_tensors(tmp_path / "x.safetensors", exported.tensors, {})
    tensors, _ = read_tensors(tmp_path / "x.safetensors")
    network = module().eval()
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}, strict=True)
    images = np.random.default_rng(5).random((3, *image_shape), np.float32)
    given = (images - np.array(options.get("mean", 0), np.float32)) / np.array(options.get("std", 1), np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(given.transpose(0, 3, 1, 2).copy())).numpy()
    pruned = jax.tree.map(lambda leaf, mask: np.where(mask, leaf, np.float32(0)), params, masks)
    ours = np.asarray(jax.jit(lambda *x: model.apply(*x, train=False)[0].logits)(pruned, model_state, images))
    assert ours.std() > 1e-3
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(ours).max())))


@pytest.mark.parametrize("nested", ["", "state_dict", "net", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_read_and_gives_the_same_logits(nested, prefix, make_network, tmp_path):
    torch.manual_seed(0)
    network = ResNet((1, 1, 1), (16, 32, 64))
    network(torch.rand(8, 3, 8, 8))  # moves the BatchNorm statistics and their counters
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    assert any(name.endswith("num_batches_tracked") for name in state)
    torch.save({nested: state, "epoch": 3} if nested else state, tmp_path / "x.pth")
    model, params, _, model_state = make_network("resnet8", (8, 8, 3))
    tensors, _ = read_tensors(tmp_path / "x.pth")
    imported = import_network(tensors, params, model_state, architecture="resnet8", image_shape=(8, 8, 3))
    assert imported.layout == "torch" and all(np.all(mask) for mask in jax.tree.leaves(imported.masks))
    if nested or prefix:
        return
    images = np.random.default_rng(5).random((3, 8, 8, 3), np.float32)
    with torch.no_grad():
        theirs = network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    ours = model.apply(imported.params, imported.model_state, images, train=False)[0].logits
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_types_and_pruning_of_torch(make_network, tmp_path):
    import torch.nn.utils.prune as prune

    network = MLP().to(torch.bfloat16)
    prune.l1_unstructured(network.fc1, "weight", amount=0.75)
    torch.save(network.state_dict(), tmp_path / "x.pt")
    tensors, _ = read_tensors(tmp_path / "x.pt")
    _, params, _, _ = make_network("mlp", (6, 5, 3))
    imported = import_network(tensors, params, {}, architecture="mlp", image_shape=(6, 5, 3))
    assert set(imported.converted.values()) == {"bfloat16"}
    assert imported.masks["fc1"]["kernel"].mean() == pytest.approx(0.25, abs=1e-4)
    assert np.count_nonzero(imported.params["fc1"]["kernel"]) <= imported.masks["fc1"]["kernel"].sum()
    assert imported.masks["fc2"]["kernel"].all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_torch_saves_is_what_was_recorded(tmp_path, monkeypatch):
    """The files of ``recorded/`` come from one PyTorch; the one that is here writes such files too."""
    path = Path(__file__).parent / "recorded"
    spec = importlib.util.spec_from_file_location("record_for_test", path / "record.py")
    record = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record)
    monkeypatch.setattr(record, "HERE", tmp_path)
    record.record(torch)
    for name in ("plain.pt", "plain_old.pt", "checkpoint.pt", "checkpoint_old.pt"):
        now, then = read_tensors(tmp_path / name)[0], read_tensors(path / name)[0]
        loaded = torch.load(tmp_path / name, weights_only=True)
        loaded = loaded.get("state_dict", loaded)
        assert now.keys() == then.keys() == loaded.keys()
        for key, tensor in loaded.items():
            theirs = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
            theirs = theirs.resolve_neg()
            assert str(theirs.dtype) == f"torch.{now[key].dtype.name}"
            assert np.array_equal(theirs.to(torch.float64).numpy(), now[key].astype(np.float64))
            assert now[key].dtype == then[key].dtype and now[key].shape == then[key].shape


class Thing:
    pass


def test_what_is_no_state_dict_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(Thing(), tmp_path / "object.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": torch.ones(1), "note": "x"}, tmp_path / "mixed.pt")
    for name, expected in [
        ("text", "neither safetensors nor what torch.save writes"),
        ("object", r"the object .*\.Thing,.*torch.save\(state"),
        ("list", "not a list"),
        ("mixed", "'note' is a str"),
    ]:
        with pytest.raises(SettingError, match=expected):
            read_tensors(tmp_path / f"{name}.pt")
