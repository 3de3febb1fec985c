"""Pictures are read as they are meant to be seen, and what is not a whole picture is named."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from sage_core.errors import JudgeError
from sage_core.images import all_to_bytes, fingerprint, open_picture, to_bytes, to_pil

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def near(picture, expected, tolerance=1):
    found = np.asarray(picture).astype(int)
    assert found.shape == (*expected.shape, 3)
    assert np.abs(found - expected[..., None]).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("16.png", (RAMP * 65535).astype(np.uint16)),
        ("16.tiff", (RAMP * 65535).astype(np.uint16)),
        ("32.tiff", (RAMP * (2**31 - 1)).astype(np.int32)),
        ("float.tiff", RAMP.astype(np.float32)),
        ("8.png", (RAMP * 255).astype(np.uint8)),
    ],
)
def test_grey_of_every_depth_is_scaled(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    near(open_picture(tmp_path / name), RAMP * 255)
    near(to_pil(Image.open(tmp_path / name)), RAMP * 255)


@pytest.mark.parametrize("kind", ["signed 16", "unsigned 32"])
def test_tiff_numbers_are_scaled_from_the_range_that_the_file_says(tmp_path, kind):
    """PIL does not write these: a TIFF by hand."""
    bits, sample, top, letter = (16, 2, 2**15 - 1, "h") if kind == "signed 16" else (32, 1, 2**32 - 1, "I")
    data = struct.pack(f"<64{letter}", *(int(value * top) for value in RAMP.flatten()))
    tags = [
        (256, 8), (257, 8), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, 8),
        (279, len(data)), (339, sample),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "a.tiff").write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data)
    near(open_picture(tmp_path / "a.tiff"), RAMP * 255)


@pytest.mark.parametrize("values", [RAMP * 255, RAMP - 7, np.full((4, 4), np.nan)])
def test_floats_of_another_scale_are_refused(tmp_path, values):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(JudgeError, match=r"a\.tiff: A picture of floats holds values from .* expected 0 to 1"):
        open_picture(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_the_camera_was_held(tmp_path, suffix, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8], upright[:8, 24:], upright[8:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    # How the sensor saw it: the inverse of what the tag asks for.
    seen = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright, 1), 7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(seen)).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    for found in (open_picture(tmp_path / f"a.{suffix}"), to_pil(Image.open(tmp_path / f"a.{suffix}"))):
        assert found.size == (32, 16)
        assert np.abs(np.asarray(found).astype(int) - upright).max() < 12


def test_grey_of_16_bits_stands_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = (np.linspace(0, 1, 32).reshape(4, 8) * 65535).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    near(open_picture(tmp_path / "a.png"), np.rot90(values, -1) // 256)


def test_what_is_transparent_lies_on_white(tmp_path):
    colour = np.zeros((2, 2, 4), np.uint8)
    colour[0, 0], colour[0, 1], colour[1, 0] = (200, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 51)
    expected = [[200, 0, 0], [255, 255, 255], [204, 204, 204], [255, 255, 255]]
    Image.fromarray(colour).save(tmp_path / "rgba.png")
    assert np.asarray(open_picture(tmp_path / "rgba.png")).reshape(4, 3).tolist() == expected
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert np.asarray(open_picture(tmp_path / "p.png")).tolist() == [[[9, 8, 7], [255, 255, 255]]]
    palette.save(tmp_path / "plain.png")
    assert np.asarray(open_picture(tmp_path / "plain.png")).tolist() == [[[9, 8, 7], [0, 0, 0]]]
    grey = Image.fromarray(np.array([[[100, 255], [0, 0]]], np.uint8), "LA")
    grey.save(tmp_path / "la.png")
    assert np.asarray(open_picture(tmp_path / "la.png")).tolist() == [[[100] * 3, [255] * 3]]


def test_cmyk_is_the_colour_that_is_printed(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(open_picture(tmp_path / "a.jpg")).astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_animated_pictures_the_first_frame_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert open_picture(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (255, 0, 0)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(JudgeError, match=r"bomb\.png"):
        open_picture(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(JudgeError, match=r"bomb\.png has 20000 x 10000 pixels, expected 178,956,970 at most"):
        open_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["EPS", "PPM", "PCX", "ICO", "PDF"])
def test_foreign_formats_under_a_known_name_are_refused(tmp_path, kind):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png", format=kind)
    with pytest.raises(JudgeError, match=r"a\.png is not a readable picture .*expected PNG, JPEG"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_cut_pictures_are_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(file)
    content = file.read_bytes()
    for kept in (0, 5, len(content) // 2):
        file.write_bytes(content[:kept])
        for read in (open_picture, lambda path: all_to_bytes([path])):
            with pytest.raises(JudgeError, match=rf"a\.{suffix} is not a readable picture"):
                read(file)


def test_a_lazily_opened_picture_is_named_too(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(JudgeError, match=r"a\.png is not a readable picture"):
        to_bytes(Image.open(tmp_path / "a.png"))


def test_what_is_not_a_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.png"):
        with pytest.raises(JudgeError, match="is not a picture file"):
            open_picture(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_refused(value):
    image = torch.zeros(4, 4, 3)
    image[1, 2, 0] = value
    for given in (image, image.numpy(), image.half()):
        with pytest.raises(JudgeError, match="NaN or infinite"):
            to_bytes(given)


def test_arrays_are_read_as_tensors_are():
    values = np.random.default_rng(0).random((5, 6, 4)).astype(np.float32)
    assert torch.equal(to_bytes(values), to_bytes(torch.from_numpy(values)))
    assert torch.equal(to_bytes(values[::-1]), to_bytes(torch.from_numpy(values).flip(0)))
    with pytest.raises(JudgeError, match="complex"):
        to_bytes(values.astype(np.complex64))


def test_files_pil_and_tensors_of_one_image_are_the_same_bytes(tmp_path):
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(16, 16, 3)
    picture = Image.fromarray(levels.numpy())
    picture.save(tmp_path / "p.png")
    kinds = [
        picture,
        picture.convert("RGBA"),
        tmp_path / "p.png",
        str(tmp_path / "p.png"),
        levels,
        levels.float() / 255,
    ]
    assert all(torch.equal(to_bytes(kind).permute(1, 2, 0), levels) for kind in kinds)
    assert len({fingerprint(to_bytes(kind)) for kind in kinds}) == 1
    assert fingerprint(to_bytes(levels.flip(0))) != fingerprint(to_bytes(levels))
    assert fingerprint(to_bytes(levels.reshape(8, 32, 3))) != fingerprint(to_bytes(levels))
    assert to_pil(levels.float() / 255).tobytes() == picture.tobytes()
    assert torch.equal(to_bytes(levels[..., :1]), levels[..., :1].permute(2, 0, 1).expand(3, -1, -1))


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (3, 4, 5), (0, 4, 3), (4, 4)])
def test_wrong_image_shapes_are_named(shape):
    with pytest.raises(JudgeError, match="shape"):
        to_bytes(torch.zeros(shape))


def test_unreadable_image_file_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(JudgeError, match=r"broken\.png"):
        to_bytes(tmp_path / "broken.png")


@pytest.mark.parametrize(
    "value", [None, 3, [1], b"x", torch.zeros(2, 2, 3, device="meta"), torch.ones(2, 2, 3).to_sparse()]
)
def test_what_is_no_image_is_refused(value):
    with pytest.raises(JudgeError, match=r"An image is a .*expected a file, a picture of PIL"):
        to_bytes(value)


def test_names_that_no_file_can_have_are_refused(tmp_path):
    for name in ("x" * 300, "a\0.png", "half \ud83d.png"):
        with pytest.raises(JudgeError, match=r"cannot be read|not a picture file"):
            open_picture(tmp_path / name)
