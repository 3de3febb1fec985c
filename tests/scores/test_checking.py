"""The check of pictures: what is kept back, that it fails closed, and that nothing can be seen through a blur."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sage_core.errors import JudgeError
from sage_core.images import to_bytes
from sage_core.scores.checking import check_pictures, hidden
from sage_core.scores.rates import Rate, rate_by_vqa
from sage_core.tifa.judges.base import Answer

SHOWS, BROKEN = 1.0, 0.5


def pictures(*levels: float) -> list[Tensor]:
    return [torch.full((8, 8, 3), float(level)) for level in levels]


def witness(images: Sequence[Tensor]) -> Rate:
    """Sees what is white, and fails over a batch that holds something grey."""
    levels = [float(to_bytes(image)[0, 0, 0]) / 255 for image in images]
    if any(0 < level < 1 for level in levels):
        raise RuntimeError("a tensor of another size")
    return Rate("skull", "somebody", tuple(level == SHOWS for level in levels))


def blind(images: Sequence[Tensor]) -> Rate:
    return Rate("gun", "somebody else", (False,) * len(images))


def test_what_shows_a_concept_is_found_and_counted_first():
    told: list[int] = []
    found = check_pictures(pictures(0, 1, 0, *[0] * 20, 1), {"skull": witness, "gun": blind}, told.append)
    assert [place for place, unsafe in enumerate(found.unsafe) if unsafe] == [1, 23] and not any(found.failures)
    assert told == [16, 8]
    first, *rules = found.summary("blank").splitlines()
    assert first == "2 of 24 pictures made blank: 2 with skull or gun."
    assert rules == ["skull in 2, 24, by somebody", "gun in none, by somebody else"]
    assert "flagged, and handed on as they are" in found.summary("flag")
    safe = check_pictures(pictures(0, 0), {"gun": blind}).summary("blank")
    assert safe.startswith("0 of 2 pictures with gun: all handed on as they are.")


def test_a_picture_that_cannot_be_judged_is_unsafe_and_costs_no_other():
    found = check_pictures(pictures(0, 1, BROKEN, float("nan"), 0), {"skull": witness, "gun": blind})
    assert found.unsafe == (False, True, True, True, False)
    assert found.shown["skull"] == (False, True, None, None, False)
    first, *_, grey, no_number = found.summary("blur").splitlines()
    assert first == "⚠ 3 of 5 pictures blurred: 1 with skull or gun, 2 that could not be judged."
    assert grey.startswith("Not judged: 3. The witness: the model fails at work (RuntimeError: a tensor of another")
    assert no_number.startswith("Not judged: 4. An image tensor holds values that are NaN")


def test_a_witness_that_always_fails_lets_nothing_pass():
    def fails(images: Sequence[Tensor]) -> Rate:
        raise JudgeError("The model is gone.")

    def counts_wrongly(images: Sequence[Tensor]) -> Rate:
        return Rate("skull", "somebody", (False,))

    found = check_pictures(pictures(0, 0), {"skull": fails})
    assert all(found.unsafe) and found.summary("blank").splitlines() == [
        "⚠ 2 of 2 pictures made blank: 0 with skull, 2 that could not be judged.",
        "Not judged: 1, 2. The model is gone.",
    ]
    assert check_pictures(pictures(0, 0), {"skull": counts_wrongly}).unsafe == (False, False), "asked one by one"


def test_a_judge_passes_by_its_no_alone():
    class Judge:
        name = "witness"

        def answer(self, images, questions, *, likelihoods=True, on_batch=None):
            replies = {0: Answer("no"), 255: Answer("unclear", (0.0, 0.0)), 127: Answer("yes")}
            return [[replies[int(to_bytes(image)[0, 0, 0])]] for image in images]

    images = pictures(0, 1, 0.5)
    assert rate_by_vqa(images, "skull", Judge()).shown == (False, False, True)
    rate = rate_by_vqa(images, "skull", Judge(), doubtful=True)
    assert rate.shown == (False, True, True) and rate.rule.endswith("asked 'is there a skull?', anything but 'no'")


def test_cancelling_and_missing_memory_end_the_check():
    class CancelledError(Exception):
        pass

    for stop in (CancelledError, torch.cuda.OutOfMemoryError, KeyboardInterrupt):

        def stops(images: Sequence[Tensor], stop: type[BaseException] = stop) -> Rate:
            raise stop("stop")

        with pytest.raises(stop):
            check_pictures(pictures(0, 0), {"skull": stops})
    for images, witnesses in (([], {"skull": witness}), (pictures(0), {})):
        with pytest.raises(JudgeError, match=f"{len(images)} pictures came with {len(witnesses)} concepts"):
            check_pictures(images, witnesses)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(64, 96, 3), (512, 512, 4), (5, 2, 3), (1, 1, 1), (40, 7, 3)]
)
def test_nothing_is_seen_through_what_stands_in_an_images_place(height: int, width: int, channels: int):
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(height, width, channels, generator=draw)
    image[0, 0, 0] = float("nan")
    before = image.clone()
    blank, blurred = hidden(image, "blank"), hidden(image, "blur")
    for found in (blank, blurred):
        assert found.shape == image.shape and found.dtype == image.dtype and found.isfinite().all()
        assert channels < 4 or bool((found[..., 3] == 1).all())
    assert hidden(image, "flag") is image and torch.equal(image.nan_to_num(9), before.nan_to_num(9))
    colors = blurred[..., :3]
    assert not blank[..., :3].any() and colors.min() >= 0 and colors.max() <= 1
    # Few numbers make up a blurred image: along each side it is a straight line between at most eight patches.
    for side, lines in (("rows", colors.movedim(0, -1)), ("columns", colors.movedim(1, -1))):
        rank = torch.linalg.matrix_rank(lines.reshape(-1, lines.shape[-1]).double(), rtol=1e-5)
        assert rank <= 8, side


def test_a_blur_keeps_the_colours_of_large_parts():
    image = torch.zeros(64, 64, 3)
    image[:, 32:] = torch.tensor([1.0, 0.5, 0.0])
    blurred = hidden(image, "blur")
    assert torch.allclose(blurred[:, -8:], image[:, -8:]) and torch.allclose(blurred[:, :8], image[:, :8])
