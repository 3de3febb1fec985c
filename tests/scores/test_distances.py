"""Distances of features against slow references in float64, and what is refused because it would mislead."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sage_core.bench.watch import MemoryWatch
from sage_core.errors import JudgeError, SettingsError
from sage_core.scores.distances import (
    Distance,
    cmmd,
    distance,
    frechet_distance,
    kernel_distance,
    kernel_distance_with_error,
)
from sage_core.scores.features import Features
from sage_core.scores.statistics import Statistics, read_statistics, write_statistics


def random(count: int, width: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, width)) @ generator.normal(size=(width, width)) + shift


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def features(values: np.ndarray, kind: str = "inception", extractor: str = "Inception, x", resizing: str = "some"):
    return Features(values, kind, extractor, resizing)


# -- references --------------------------------------------------------------------------------------------------------


def slow_frechet(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    means = first.mean(0), second.mean(0)
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(one + other - 2 * np.real(sqrtm(one @ other))))


def slow_kernel(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    m, n = len(first), len(second)
    own = sum(kernel(first[i], first[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    other = sum(kernel(second[i], second[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return own + other - 2 * sum(kernel(x, y) for x in first for y in second) / (m * n)


def slow_cmmd(first: np.ndarray, second: np.ndarray) -> float:
    def mean(one: np.ndarray, other: np.ndarray) -> float:
        total = 0.0
        for x in one:
            for y in other:
                total += np.exp(-sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)) / 200)
        return total / (len(one) * len(other))

    return 1000 * (mean(first, first) + mean(second, second) - 2 * mean(first, second))


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_frechet_is_scipys(shift: float) -> None:
    first, second = random(60), random(40, seed=1, shift=shift)
    found = frechet_distance(Statistics.of(features(first)), Statistics.of(features(second)))
    assert found == pytest.approx(slow_frechet(first, second), rel=1e-9)


def test_frechet_of_singular_covariances_is_exact_and_of_equal_sets_nothing() -> None:
    flat = np.zeros((8, 3))
    flat[:, 0] = np.arange(8)
    # One direction alone: (standard deviations' difference)² + (means' difference)².
    found = frechet_distance(Statistics.of(features(flat)), Statistics.of(features(3 * flat)))
    deviation = np.arange(8).std(ddof=1)
    assert found == pytest.approx((2 * deviation) ** 2 + 7.0**2, rel=1e-12)
    same = Statistics.of(features(random(9)))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("m", "n"), [(9, 9), (7, 12)])
def test_kernel_distance_is_the_double_loops(m: int, n: int) -> None:
    first, second = random(m), random(n, seed=1, shift=0.5)
    expected = slow_kernel(first, second)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)
    value, error = kernel_distance_with_error(first, second)
    assert value == pytest.approx(expected, rel=1e-10)
    # The jackknife by its definition: every set without one picture, from the beginning.
    without = [slow_kernel(np.delete(first, i, 0), second) for i in range(m)]
    other = [slow_kernel(first, np.delete(second, i, 0)) for i in range(n)]
    variance = sum((len(each) - 1) * np.var(each) for each in (without, other))
    assert error == pytest.approx(np.sqrt(variance), rel=1e-8)


def test_the_standard_error_is_the_spread_over_repeated_draws() -> None:
    generator = np.random.default_rng(0)
    draws = [
        kernel_distance_with_error(generator.normal(size=(60, 4)), generator.normal(size=(60, 4)) + 0.5)
        for _ in range(200)
    ]
    values, errors = np.array(draws).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_core.scores import distances

    first, second = unit(random(30)), unit(random(23, seed=1))
    whole = kernel_distance_with_error(first, second), cmmd(first, second)
    monkeypatch.setattr(distances, "_ROWS", 7)
    told: list[tuple[int, int]] = []
    again = kernel_distance_with_error(first, second, lambda *now: told.append(now)), cmmd(first, second)
    assert again[0] == pytest.approx(whole[0], rel=1e-12) and again[1] == pytest.approx(whole[1], rel=1e-12)
    assert told == [(place, 14) for place in range(1, 15)]


def test_cmmd_is_the_double_loops() -> None:
    first, second = unit(random(9)), unit(random(7, seed=1, shift=0.5))
    assert cmmd(first, second) == pytest.approx(slow_cmmd(first, second), rel=1e-9)
    assert cmmd(first, first) == 0


def test_they_are_those_of_torchmetrics() -> None:
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (pip install 'sage-alignment[test]')")
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Pixels(torch.nn.Module):
        num_features = 12

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).double() / 255

    pictures = torch.randint(0, 256, (2, 40, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    fid = FrechetInceptionDistance(feature=Pixels(), normalize=False)
    kid = KernelInceptionDistance(feature=Pixels(), subsets=1, subset_size=40, normalize=False)
    for metric in (fid, kid):
        for real, batch in ((True, pictures[0]), (False, pictures[1])):
            metric.update(batch, real=real)
    first, second = (features(Pixels()(part).numpy()) for part in pictures)
    assert distance("FID", first, second, fewest=2).value == pytest.approx(float(fid.compute()), rel=1e-4)
    assert distance("KID", first, second).value == pytest.approx(float(kid.compute()[0]), rel=1e-4)


# -- what a distance says of itself ------------------------------------------------------------------------------------


def test_fid_says_its_numbers_features_and_resizing() -> None:
    found = distance("FID", features(random(30)), features(random(30, seed=1)), fewest=8)
    assert found.name == "FID" and found.value == pytest.approx(slow_frechet(random(30), random(30, seed=1)))
    for words in ("| FID |", "| pictures | 30 and 30 |", "| features | Inception, x |", "| resizing | some |"):
        assert words in found.to_markdown()
    assert found.to_dict()["pictures"] == [30, 30] and found.to_dict()["value"] == found.value
    other = distance("FID", features(random(30), "dinov2"), features(random(30), "dinov2"), fewest=8)
    assert other.name == "FD-DINOv2"


def test_kid_is_the_mean_of_its_subsets_with_the_error_of_all() -> None:
    first, second = features(random(2500, 3)), features(random(1200, 3, seed=1))
    told: list[tuple[int, int]] = []
    found = distance("KID", first, second, on_step=lambda *now: told.append(now))
    assert (found.details["subsets"], found.details["pictures in a subset"]) == (100, 1000)
    assert found.details["KID of all pictures"] == pytest.approx(kernel_distance(first.values, second.values))
    assert abs(found.value - found.details["KID of all pictures"]) < found.details["deviation of subsets"]
    assert found.details["its standard error"] > 0
    # Parts of 1,024 rows follow the subsets: 3 of the first set, 2 of the second, 3 of the first against the second.
    assert told == [(place, 108) for place in range(1, 109)]
    assert distance("KID", first, second) == found != distance("KID", first, second, seed=1)


def test_kid_of_few_pictures_is_that_of_all_and_claims_no_deviation() -> None:
    first, second = features(random(20)), features(random(20, seed=1))
    found = distance("KID", first, second)
    assert found.value == pytest.approx(kernel_distance(first.values, second.values), rel=1e-10)
    assert found.details["subsets"] == 1 and found.details["deviation of subsets"] is None
    assert "| deviation of subsets | none |" in found.to_markdown()
    few = distance("KID", first, features(random(30, seed=1), "inception"))
    assert (few.details["subsets"], few.details["pictures in a subset"]) == (100, 20)
    assert (
        distance("KID", features(random(9), "dinov2"), features(random(9), "dinov2")).name == "KID on dinov2 features"
    )


def test_what_would_mislead_is_refused() -> None:
    first, second = features(random(30)), features(random(30, seed=1))
    with pytest.raises(JudgeError, match="FID of 30 pictures would mislead: of fewer than 2,048, with 6 features"):
        distance("FID", first, second)
    with pytest.raises(JudgeError, match="FID of 6 pictures would mislead: of fewer than 7"):
        distance("FID", features(random(6)), features(random(6)), fewest=2)
    clip = features(unit(random(30)), "clip"), features(unit(random(20)), "clip")
    for measure, sides in (("FID", (first, features(random(20)))), ("CMMD", clip)):
        with pytest.raises(JudgeError, match=f"{measure} depends on the number of pictures, and the sides have 30 and"):
            distance(measure, *sides, fewest=8)
        allowed = distance(measure, *sides, fewest=8, different_counts=True)
        assert "numbers of pictures differ" in allowed.to_markdown()
    with pytest.raises(JudgeError, match="CMMD is of CLIP's embeddings"):
        distance("CMMD", first, second)
    with pytest.raises(JudgeError, match="The extractor of the two sides differs: Inception, x, and Inception, y"):
        distance("KID", first, features(random(30), extractor="Inception, y"))
    with pytest.raises(JudgeError, match="The resizing of the two sides differs"):
        distance("KID", first, features(random(30), resizing="other"))
    with pytest.raises(JudgeError, match="One side has 6 features a picture, the other 5"):
        distance("FID", first, features(random(30, 5)))
    with pytest.raises(JudgeError, match="KID of 2 pictures has no error"):
        distance("KID", features(random(2)), first)
    with pytest.raises(SettingsError, match="measure is 'IS'"):
        distance("IS", first, second)
    with pytest.raises(SettingsError, match="fewest is 1"):
        distance("FID", first, second, fewest=1)
    bad = random(3)
    bad[1, 2] = np.nan
    with pytest.raises(JudgeError, match="NaN"):
        features(bad)


def test_a_callback_that_raises_stops_it() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for measure in ("KID", "CMMD"):
        with pytest.raises(KeyboardInterrupt):
            distance(measure, features(unit(random(5)), "clip"), features(unit(random(5)), "clip"), on_step=stop)


# -- statistics --------------------------------------------------------------------------------------------------------


def test_statistics_are_numpys_and_come_back(tmp_path) -> None:
    first, second = features(random(40)), features(random(40, seed=1))
    found = Statistics.of(first)
    assert np.allclose(found.mu, first.values.mean(0)) and np.allclose(found.sigma, np.cov(first.values, rowvar=False))
    write_statistics(tmp_path / "base.npz", found)
    again = read_statistics(tmp_path / "base.npz")
    assert (again.count, again.extractor, again.resizing, again.kind) == (40, "Inception, x", "some", "inception")
    whole = distance("FID", first, second, fewest=8)
    assert distance("FID", again, second, fewest=8) == Distance(**{**vars(whole), "value": pytest.approx(whole.value)})
    # What other tools read, and nothing pickled.
    with np.load(tmp_path / "base.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["mu"], found.mu) and np.array_equal(archive["sigma"], found.sigma)
    with pytest.raises(JudgeError, match="KID is of single pictures"):
        distance("KID", again, second)
    with pytest.raises(SettingsError, match=r"ends in \.npz"):
        write_statistics(tmp_path / "base.bin", found)


def test_statistics_of_other_tools_are_read_with_notes(tmp_path) -> None:
    first, second = random(40), features(random(40, seed=1))
    np.savez_compressed(tmp_path / "theirs.npz", mu=first.mean(0), sigma=np.cov(first, rowvar=False))
    found = distance("FID", read_statistics(tmp_path / "theirs.npz"), second, fewest=8)
    assert found.value == pytest.approx(slow_frechet(first, second.values)) and found.counts == (None, 40)
    assert "| pictures | not stated and 40 |" in found.to_markdown()
    for words in ("do not state their extractor", "do not state their resizing", "do not state their number"):
        assert words in found.to_markdown()


def spoiled(path, **arrays: object) -> None:
    good = Statistics.of(features(random(9, 3)))
    values = {"mu": good.mu, "sigma": good.sigma, **arrays}
    np.savez(path, **{name: value for name, value in values.items() if value is not None})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": None}, "lacks 'mu'; found sigma"),
        ({"mu": np.array(["a", "b", "c"])}, "'mu' holds no finite numbers"),
        ({"mu": np.array([1.0, np.nan, 2.0])}, "'mu' holds no finite numbers"),
        ({"mu": np.zeros(4)}, r"'mu' has the shape \(4,\) and 'sigma' \(3, 3\)"),
        ({"sigma": np.arange(9.0).reshape(3, 3)}, "'sigma' is no covariance"),
        ({"sigma": -np.eye(3)}, "'sigma' is no covariance"),
        ({"sigma": np.ones((3, 3)) - np.eye(3)}, "'sigma' is no covariance"),
        ({"count": np.array(1)}, "'count' is 1, expected"),
        ({"count": np.array("many")}, "'count' is many, expected"),
        ({"extractor": np.zeros(3)}, "'extractor' is no text"),
        ({"kind": np.array("vgg")}, "kind is 'vgg', expected"),
        ({"mu": np.array([1, None, "x"], dtype=object)}, "not readable as .npz .*nothing in it was run"),
    ],
)
def test_damaged_statistics_are_refused(tmp_path, arrays: dict, words: str) -> None:
    spoiled(tmp_path / "bad.npz", **arrays)
    with pytest.raises(JudgeError, match=words) as refused:
        read_statistics(tmp_path / "bad.npz")
    assert "bad.npz" in str(refused.value)


def test_files_that_hold_no_statistics_are_refused(tmp_path) -> None:
    (tmp_path / "words.npz").write_text("words")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    spoiled(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-60])
    for name, words in (("words", "not readable"), ("one", "a single array"), ("cut", "not readable"), ("no", "exist")):
        with pytest.raises(JudgeError, match=words):
            read_statistics(tmp_path / f"{name}.npz")


def test_a_damaged_archive_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, mu=np.zeros(3), sigma=np.eye(3))
    content = whole.read_bytes()
    central = content.find(b"PK\x01\x02")
    # The bytes of the two headers that say how the first array is packed, and whether it is encrypted.
    for name, first, second, value in (("packed", 8, central + 10, 99), ("encrypted", 6, central + 8, 1)):
        changed = bytearray(content)
        changed[first] = changed[second] = value
        (tmp_path / f"{name}.npz").write_bytes(changed)
    start = content.find(b"mu.npy") + len("mu.npy") + int.from_bytes(content[28:30], "little")
    (tmp_path / "garbled.npz").write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("mu.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(tmp_path / "words.npz", "w") as archive:
        archive.writestr("mu.npy", b"no array")
    for name in ("packed", "encrypted", "garbled", "claims", "words"):
        with pytest.raises(JudgeError, match=rf"{name}\.npz is not readable as \.npz .*Make or download it again"):
            read_statistics(tmp_path / f"{name}.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(JudgeError, match=r"folder\.npz is a folder, expected an \.npz file"):
        read_statistics(tmp_path / "folder.npz")


def test_no_array_takes_much_more_memory_than_its_file(tmp_path: Path) -> None:
    """2 MB of zeros can claim 2 GB, in an array that is read or in one that nobody asks for."""

    def zeros(path: Path, name: str, shape: tuple[int, ...]) -> Path:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for each, content in (("mu", 3), ("sigma", (3, 3))):
                if each != name:
                    with archive.open(f"{each}.npy", "w") as member:
                        np.lib.format.write_array(member, np.ones(content) if each == "mu" else np.eye(3))
            with archive.open(f"{name}.npy", "w") as member:
                member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
                for _ in range(math.prod(shape) // 2**17):
                    member.write(bytes(2**20))
        return path

    unasked, asked = (zeros(tmp_path / f"{name}.npz", name, (2**12, 2**12)) for name in ("other", "sigma"))
    with MemoryWatch(torch.device("cpu")) as watch:
        assert read_statistics(unasked).mu.shape == (3,)
        with pytest.raises(JudgeError, match=r"sigma\.npy is packed [\d,]+ times smaller"):
            read_statistics(asked)
        assert (watch.peak() or 0) < 0.03


def test_numbers_too_large_for_a_distance_are_refused() -> None:
    large, small = (Statistics(np.full(3, size), size * np.eye(3)) for size in (1e300, 1.0))
    for sides in ((large, large), (large, small), (small, large)):
        with pytest.raises(JudgeError, match="too large to compute a distance of"):
            frechet_distance(*sides)
