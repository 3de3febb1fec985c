"""What a file changes: how much, where, and by which method."""

from __future__ import annotations

import json
import math

import pytest
import torch
from edited_unets import BASE, CONFIG, DELTAS, EDITED, KEYS, NAMES, edited, read, sort

from sage_core.errors import UnetError
from sage_core.unet.changes import changes, save_changes
from sage_core.unet.names import in_cross_attention, is_value, kind_of, reads_prompt

MAKERS = {
    "SPEED": is_value,
    "UCE, RECE, CURE, MACE or ESD-x-strict": reads_prompt,
    "ESD-x or the SAGE U-Net (all of cross-attention)": in_cross_attention,
    "AlignGuard, or another LoRA of all attention, merged": lambda name: ".attn" in name and name.endswith(".weight"),
    "ESD-u": lambda name: not in_cross_attention(name) and kind_of(name) != "norms" and ".norm" not in name,
    "ESD-u of 2023, STEREO or RACE": lambda name: not in_cross_attention(name) and not name.startswith("time_emb"),
    "ESD-all": lambda name: kind_of(name) != "norms",
    "a full edit, as by SalUn, RACE or fine-tuning": lambda name: True,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_what_changed_tells_the_method(maker: str) -> None:
    report = read(edited(MAKERS[maker])).report
    assert report.maker == maker
    assert report.changed == sum(map(MAKERS[maker], NAMES.shapes)) == sum(report.by_block.values())
    assert sum(report.by_kind.values()) == report.changed
    assert any("another base" in warning for warning in report.warnings) == maker.startswith("a full")
    assert json.loads(json.dumps(report.to_dict()))["maker"] == maker
    assert maker in report.summary()


def test_a_rotation_of_the_values_is_told_from_other_edits() -> None:
    turned = {}
    for name in filter(is_value, BASE):
        turn = torch.linalg.qr(torch.randn(len(BASE[name]), len(BASE[name])))[0]
        turned[name] = (turn @ BASE[name]).half()
    assert read(turned).report.maker == "OCE (a rotation of the values)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_not_a_change(dtype: torch.dtype) -> None:
    stored = {name: value.to(dtype) for name, value in EDITED.items()}
    found = read(stored)
    assert set(found.deltas) == set(KEYS)
    for name, delta in found.deltas.items():
        assert torch.equal(delta, stored[name].float() - BASE[name].to(dtype).float())
    # Nor is it when the base is the coarser one.
    found = changes(sort(EDITED), {name: value.to(dtype) for name, value in BASE.items()})
    assert set(found.deltas) == set(KEYS)


def test_a_change_whose_square_is_beyond_fp32_has_a_finite_size() -> None:
    huge = {KEYS[0]: torch.full(NAMES.shapes[KEYS[0]], 1e30)}
    report = changes(sort(huge), BASE).report
    length = 1e30 * math.sqrt(huge[KEYS[0]].numel())
    assert report.relative == pytest.approx(length / float(BASE[KEYS[0]].norm()), rel=1e-4)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["changed"] == 1


def test_relative_size_and_where() -> None:
    report = read(EDITED).report
    wanted = torch.cat([delta.flatten() for delta in DELTAS.values()]).norm()
    wanted /= torch.cat([BASE[name].flatten() for name in KEYS]).norm()
    assert report.relative == pytest.approx(float(wanted), rel=1e-5)
    assert report.by_block == {"down 0": 2, "middle": 2, "up 1": 4}
    assert report.by_kind == {"cross-attention keys and values": 8}


def test_keys_that_were_not_applied_are_named() -> None:
    extra = {"down_blocks.9.resnets.0.conv1.weight": torch.ones(2), "mid_block.gadget.alpha": torch.ones(1)}
    report = read({**EDITED, **extra}).report
    assert report.not_applied == tuple(extra)
    assert "2 keys fit no tensor" in report.warnings[-1]


def test_a_file_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UnetError, match="changes nothing: its"):
        read(BASE)
    with pytest.raises(UnetError, match="changes nothing"):
        read({name: value.half() for name, value in BASE.items()})
    with pytest.raises(UnetError, match="changes nothing"):
        save_changes("never.safetensors", {KEYS[0]: torch.zeros(NAMES.shapes[KEYS[0]])}, {}, config=CONFIG)


def test_a_base_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UnetError, match="The base lacks"):
        changes(sort(EDITED), {name: value for name, value in BASE.items() if name != KEYS[0]})
    with pytest.raises(UnetError, match=r"shape \(1, 2\) in the base"):
        changes(sort(EDITED), {**BASE, KEYS[0]: torch.ones(1, 2)})
