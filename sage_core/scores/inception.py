"""The Inception of FID: the network of 2015 whose weights every FID tool takes, which is not torchvision's.

Both have the same layers by the same names (Szegedy et al., 2016). FID's was trained elsewhere, knows 1,008 classes
instead of 1,000, leaves the border out of its averages, and takes a maximum in its last block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..encoders.pickles import read_pickle
from ..errors import EncoderError, JudgeError

WIDTH = 2048
SIZE = 299
# Of the published state dict: its name, and the classes of its last layer, by which it is told from torchvision's.
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
_CLASSES = 1008
# What the pixels are before the first layer: (x - 128) / 128.
_MIDDLE = 128.0


class _Convolution(nn.Module):
    """A convolution without bias, its normalisation, and a ReLU."""

    def __init__(
        self, come: int, go: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(come, go, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(go, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


def _same(come: int, go: int, kernel: int | tuple[int, int]) -> _Convolution:
    """A convolution that keeps the size."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return _Convolution(come, go, kernel, padding=(sides[0] // 2, sides[1] // 2))


# Chains of layers, each of them a name, outputs and kernel, and a stride where it makes the picture smaller.
_Branches = Sequence[Sequence[tuple[Any, ...] | list[tuple[Any, ...]]]]


class _Block(nn.Module):
    """Branches side by side, whose outputs are joined.

    Args:
        come: channels of the input.
        branches: chains of layers, each of which reads what the one before it gives. A chain may end in a list of two
            layers, which both read what comes before them.
        pool: "average" or "maximum" over 3 x 3, or "reduce": the maximum at every second place.
        pooled: outputs of the layer behind the pool; 0 for none.
    """

    def __init__(self, come: int, branches: _Branches, pool: str, pooled: int = 0):
        super().__init__()
        self._chains: list[list[list[str]]] = []
        for chain in branches:
            links = [link if isinstance(link, list) else [link] for link in chain]
            width = come
            for link in links:
                for name, *sizes in link:
                    self.add_module(name, (_same if len(sizes) == 2 else _Convolution)(width, *sizes))
                width = link[0][1]
            self._chains.append([[layer[0] for layer in link] for link in links])
        self._pool = pool
        if pooled:
            self.branch_pool = _same(come, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain in self._chains:
            part = x
            for names in chain:
                part = torch.cat([self.get_submodule(name)(part) for name in names], 1)
            parts.append(part)
        return torch.cat([*parts, self._pooled(x)], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "reduce":
            return nn.functional.max_pool2d(x, 3, 2)
        if self._pool == "maximum":
            return self.branch_pool(nn.functional.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


def _block_a(come: int, pooled: int) -> _Block:
    branches: _Branches = (
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    )
    return _Block(come, branches, "average", pooled)


def _block_b(come: int) -> _Block:
    branches: _Branches = (
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
    )
    return _Block(come, branches, "reduce")


def _block_c(come: int, middle: int) -> _Block:
    across, down = (1, 7), (7, 1)
    branches: _Branches = (
        [("branch1x1", 192, 1)],
        [("branch7x7_1", middle, 1), ("branch7x7_2", middle, across), ("branch7x7_3", 192, down)],
        [
            ("branch7x7dbl_1", middle, 1),
            ("branch7x7dbl_2", middle, down),
            ("branch7x7dbl_3", middle, across),
            ("branch7x7dbl_4", middle, down),
            ("branch7x7dbl_5", 192, across),
        ],
    )
    return _Block(come, branches, "average", 192)


def _block_d(come: int) -> _Block:
    across, down = (1, 7), (7, 1)
    branches: _Branches = (
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, across),
            ("branch7x7x3_3", 192, down),
            ("branch7x7x3_4", 192, 3, 2),
        ],
    )
    return _Block(come, branches, "reduce")


def _block_e(come: int, pool: str) -> _Block:
    across, down = (1, 3), (3, 1)
    branches: _Branches = (
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, across), ("branch3x3_2b", 384, down)]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, across), ("branch3x3dbl_3b", 384, down)],
        ],
    )
    return _Block(come, branches, pool, 192)


class Inception(nn.Module):
    """(B, 3, 299, 299) pixels of 0..255 to the (B, 2048) features of FID; names as in its published state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _same(32, 64, 3)
        self.Conv2d_3b_1x1 = _same(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b, self.Mixed_6c = _block_c(768, 128), _block_c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _block_c(768, 160), _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, "average"), _block_e(2048, "maximum")

    def forward(self, pixels: Tensor) -> Tensor:
        """Mean over the places of the last block's output."""
        x = (pixels - _MIDDLE) / _MIDDLE
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = nn.functional.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = nn.functional.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def read_inception(path: Path) -> Inception:
    """FID's Inception from its published state dict, a pickle or safetensors.

    Raises:
        JudgeError: the file holds another network, such as torchvision's, or is damaged.
    """
    state = _read_state(path)
    classes = state["fc.weight"].shape[0] if "fc.weight" in state else None
    if classes not in (None, _CLASSES):
        raise JudgeError(
            f"{path} is an Inception of {classes:,} classes, expected FID's, which has {_CLASSES:,}. torchvision's "
            f"inception_v3 has other weights and gives figures that compare with no published FID. Use {PUBLISHED}."
        )
    with torch.device("meta"):
        network = Inception()
    wanted = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    kept = {name: state[name] for name in wanted if name in state}
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    wrong = sorted(wanted - kept.keys()) + sorted(name for name, found in kept.items() if found.shape != shapes[name])
    foreign = sorted(
        name
        for name in state.keys() - wanted
        if not name.endswith("num_batches_tracked") and not name.startswith(("fc.", "AuxLogits."))
    )
    if wrong or foreign:
        raise JudgeError(
            f"{path} is not FID's Inception: {len(wrong)} of its {len(wanted)} tensors are missing or of another "
            f"shape ({', '.join(wrong[:3]) or 'none'}), {len(foreign)} are foreign ({', '.join(foreign[:3]) or 'none'})"
            f". Expected the state dict {PUBLISHED}, or the TorchScript inception-2015-12-05.pt."
        )
    for name, tensor in kept.items():
        if not tensor.isfinite().all():
            raise JudgeError(f"{path}: {name} holds values that are NaN or infinite. Download it again.")
    network = network.to_empty(device="cpu")
    # Counters of training, which some files leave out: without values they would change the network's fingerprint.
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    network.load_state_dict({name: tensor.float() for name, tensor in kept.items()} | counters)
    return network.eval().requires_grad_(False)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        state = load_file(path) if path.suffix.lower() == ".safetensors" else read_pickle(path)
    except EncoderError as error:
        raise JudgeError(str(error)) from error
    except (OSError, SafetensorError) as error:
        raise JudgeError(f"{path}: damaged or cut short ({error}). Download it again.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise JudgeError(f"{path} holds no state dict, expected that of FID's Inception, {PUBLISHED}.")
    return state
