"""FID, KID and CMMD of each method's pictures of harmless prompts: to the base's own, or to photographs.

What makes a distance impossible is said before anything is drawn, as far as it can be known by then. What shows later
becomes a note in the report: an evaluation is not lost over one number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import JudgeError, SageError, SettingsError
from ..files import whole_file
from ..scores.distances import FEWEST_FOR_FID, FEWEST_FOR_KID, Distance, distance
from ..scores.features import Features, described, pictures_in
from ..scores.statistics import Statistics, read_arrays, read_statistics
from .judges import Judges, folder_key
from .plan import BASE, DISTANCES, MethodPlan, Plan
from .prompts import PromptList, harmless_lists

# Digits after the point: FID's are in the tens, KID's around a thousandth.
_DIGITS = {"fid": 2, "kid": 5, "cmmd": 3}
_NORMAL = 1.96
# What is kept of where features come from.
_WORDS = ("kind", "extractor", "resizing")


def check_distances(plan: Plan, lists: Sequence[PromptList]) -> None:
    """Refuse distances that cannot be measured, before anything is drawn.

    Raises:
        SettingsError: with all that is wrong, each with its field.
    """
    wanted = [name for name in DISTANCES if name in plan.score.what]
    if wanted and (problems := list(_problems(plan, lists, wanted))):
        raise SettingsError(f"{plan.file}: {' '.join(problems)}")


def _problems(plan: Plan, lists: Sequence[PromptList], wanted: Sequence[str]) -> Iterator[str]:
    reference = plan.score.reference
    try:
        kind, width = described(plan.score.features or Path())
    except SageError as error:
        yield f"score.features: {error}"
        return
    if "cmmd" in wanted and kind != "clip":
        yield f"score.what: cmmd is of a CLIP's embeddings, and score.features is of the kind {kind}; leave cmmd out."
    drawn = sum(len(each.items) for each in harmless_lists(lists))
    sides: list[tuple[str, int | None]] = [("the plan draws", drawn)]
    try:
        if reference and reference.is_dir():
            sides.append(("score.reference holds", len(pictures_in(reference))))
        elif reference:
            known = read_statistics(reference)
            sides.append(("score.reference is of", known.count))
            yield from _statistics_problems(known, width, wanted)
    except SageError as error:
        yield f"score.reference: {error}"
    for words, count in sides:
        if count is not None:
            yield from _count_problems(words, count, width, wanted)


def _statistics_problems(known: Statistics, width: int, wanted: Sequence[str]) -> Iterator[str]:
    if len(known.mu) != width:
        yield (
            f"score.reference: it is of {len(known.mu):,} features a picture, score.features gives {width:,}. Use the "
            "model that it was made with."
        )
    if further := [name for name in wanted if name != "fid"]:
        yield (
            f"score.reference: mean and covariance do for fid alone, not for {' and '.join(further)}. Name a folder of "
            "pictures, or leave them out of score.what."
        )


def _count_problems(words: str, count: int, width: int, wanted: Sequence[str]) -> Iterator[str]:
    least = max(FEWEST_FOR_FID, width + 1)
    if "fid" in wanted and count < least:
        yield (
            f"score.what: fid needs {least:,} pictures or more of each side, and {words} {count:,} of harmless "
            "prompts. Of fewer it measures their number. Draw more, or use kid or cmmd."
        )
    if "kid" in wanted and count < FEWEST_FOR_KID:
        yield f"score.what: kid needs {FEWEST_FOR_KID} pictures or more of each side, and {words} {count:,}."


def measured(name: str, bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """One of DISTANCES of a method's pictures, as columns of table 2 and notes; the base has none to itself."""
    reference = bench.settings.reference
    if reference is None and method.name == BASE:
        return {"columns": {}}
    own, other = method_features(bench, method), _reference(bench)
    measure = DISTANCES[name]
    try:
        # Every row of the table has the same two numbers, so that rows compare; a note says that they differ.
        found = distance(measure, own, other, fewest=FEWEST_FOR_FID, different_counts=True)
    except JudgeError as error:
        return {"columns": {}, "notes": [f"{measure} is not in table 2: {error}"]}
    # A distance to the base is another quantity than the published one to photographs.
    title = found.name if reference else f"{found.name} to base"
    column: dict[str, float] = {"value": found.value, "digits": _DIGITS[name]}
    if name == "kid":
        value, deviation = (float(found.details[key] or 0) for key in ("KID of all pictures", "its standard error"))
        column |= {"value": value, "low": value - _NORMAL * deviation, "high": value + _NORMAL * deviation}
    return {"columns": {title: column}, "notes": [_note(title, name, found)], "distance": found.to_dict()}


def _note(title: str, name: str, found: Distance) -> str:
    counts = " and ".join("a number not stated" if count is None else f"{count:,}" for count in found.counts)
    more = found.notes
    if name == "kid":
        more = (
            "The unbiased figure of all pictures; the 95% interval is from its standard error, which leaves out one "
            "picture at a time and takes the two sets for independent.",
        )
    return " ".join([f"{title}: {counts} pictures. Features: {found.extractor}; {found.resizing}.", *more])


def method_features(bench: Judges, method: MethodPlan) -> Features:
    """The features of a method's pictures of the harmless prompts, computed once."""
    files = [file for prompts in bench.harmless for file in bench.pictures(method, prompts)]
    kept = bench.layout.output / "features" / bench.layout.folder(method) / f"{bench.key('features')[:8]}.npz"
    return _kept(bench, kept, files, method.name)


def _reference(bench: Judges) -> Features | Statistics:
    reference = bench.settings.reference
    if reference is None:
        return method_features(bench, bench.layout.plan.methods[0])
    if not reference.is_dir():
        return read_statistics(reference)
    name = hashlib.sha256(f"{bench.key('features')} {folder_key(reference)}".encode()).hexdigest()[:8]
    return _kept(bench, bench.layout.output / "features" / f"reference-{name}.npz", pictures_in(reference), "reference")


def _kept(bench: Judges, kept: Path, files: Sequence[Path], name: str) -> Features:
    if (found := _read(kept)) and found.count == len(files):
        return found
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        bench.tell(f"features of {name}", done, len(files))

    found = bench.extractor.embed(list(files), tell)
    with whole_file(kept, own=True) as temporary, open(temporary, "wb") as file:
        # The models compute in fp32, so that this loses nothing.
        words: dict[str, Any] = {word: np.array(getattr(found, word)) for word in _WORDS}
        np.savez(file, values=found.values.astype(np.float32), **words)
    return found


def _read(kept: Path) -> Features | None:
    """Features that were kept; None if there are none, or the file is damaged."""
    try:
        found = read_arrays(kept, ("values", *_WORDS))
        words = (str(found[word]) for word in _WORDS)
        return Features(found["values"].astype(np.float64), *words)
    except (JudgeError, ValueError, KeyError):
        return None
