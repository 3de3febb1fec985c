"""Damaged and hostile encoder files: an error at once, or the right weights; never another exception, never a hang."""

from __future__ import annotations

import time
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_encoders import TINY, assert_same, random_state

from sage_core.encoders.layouts import EncoderConfig, canonical_state, read_encoder
from sage_core.errors import EncoderError

TOKENS = "text_model.embeddings.token_embedding.weight"
# One of a few hundred bytes: every byte of its file matters.
SMALLEST = EncoderConfig(layers=2, width=4, heads=1, mlp_width=4, vocabulary=8, positions=3)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("100000000", "layer of number 100000000, expected fewer than 10,000"),
        ("9" * 5000, "layer of number 999999999999…, expected fewer than 10,000"),
        ("\u0661", None),
        ("7", r"has a layer 7, and layer 2 \(text_model\.encoder\.layers\.2\.\*\) is missing"),
        ("9999", "has a layer 9999, and layer 2 "),
    ],
)
def test_numbers_of_layers_cost_no_time(tmp_path, number, message):
    state = random_state(TINY) | {f"text_model.encoder.layers.{number}.mlp.fc1.bias": torch.zeros(24)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    start = time.perf_counter()
    for file in ("a.safetensors", "a.pt"):
        if message is None:
            # Not a number in any file that a program wrote: a foreign tensor.
            assert_same(read_encoder(tmp_path / file)[0], random_state(TINY))
            continue
        with pytest.raises(EncoderError, match=f"{file}.*{message}"):
            read_encoder(tmp_path / file)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1, 16).expand(10**9, 16), r"64 bytes spread to shape \(1000000000, 16\), expected an array"),
        (torch.zeros(50, 16).to_sparse(), "sparse or nested tensor, expected an array"),
        (torch.zeros(50, 16).to_sparse_csr(), "sparse or nested tensor, expected an array"),
        (torch.zeros(50, 16, device="meta"), r"without values \(meta\), expected an array"),
        (torch.quantize_per_tensor(torch.zeros(50, 16), 0.1, 0, torch.qint8), "qint8, expected fp32.*quantised"),
        (torch.zeros(50, 16).to(torch.float8_e4m3fn), "float8_e4m3fn, expected fp32, fp16, bf16 or fp64"),
        (torch.zeros(50, 16, dtype=torch.complex64), "complex64, expected fp32"),
        (torch.zeros(0, 16), "vocabulary=0.* is empty"),
    ],
    ids=["expanded", "sparse", "compressed rows", "meta", "quantised", "float8", "complex", "empty"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_an_array_of_floats_is_refused_at_once(tmp_path, tensor, message):
    state = random_state(TINY) | {TOKENS: tensor}
    start = time.perf_counter()
    with pytest.raises(EncoderError, match=message):
        canonical_state(state, "a.pt")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match=r"a\.pt.*" + message):
        read_encoder(tmp_path / "a.pt")
    assert time.perf_counter() - start < 2


def test_tensors_that_share_their_values_do_not_fill_the_memory(tmp_path):
    """A thousand layers of one matrix: copied, 400 times the file."""
    config = EncoderConfig(layers=1000, width=64, heads=1, mlp_width=64, vocabulary=50, positions=77)
    shared = {shape: torch.zeros(shape) for shape in set(config.shapes().values())}
    torch.save({name: shared[shape] for name, shape in config.shapes().items()}, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match="its tensors share their values"):
        read_encoder(tmp_path / "a.pt")


def test_a_lack_of_memory_is_named(tmp_path, monkeypatch):
    save_file(random_state(TINY), tmp_path / "a.safetensors")

    def no_room(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:122] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(torch.Tensor, "clone", no_room)
    with pytest.raises(EncoderError, match=r"a\.safetensors takes 0 MB, which do not fit into memory"):
        read_encoder(tmp_path / "a.safetensors")


def rewrite(source, target, change=lambda name, content: content, compress=zipfile.ZIP_STORED):
    """An archive with new sums, so that only its content can give it away."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for entry in old.infolist():
            if (content := change(entry.filename, old.read(entry))) is not None:
                new.writestr(entry.filename, content)


@pytest.mark.parametrize("kept", [None, 0, 4, -4])
def test_an_entry_without_all_values_is_refused(tmp_path, kept):
    """PyTorch reads on in the bytes that follow, whatever they are."""
    torch.save(random_state(TINY), tmp_path / "whole.pt")

    def change(name, content):
        if not name.endswith("/data/0"):
            return content
        return None if kept is None else content[:kept]

    rewrite(tmp_path / "whole.pt", tmp_path / "a.pt", change)
    with pytest.raises(EncoderError, match=r"a\.pt is not a whole PyTorch file"):
        read_encoder(tmp_path / "a.pt")
    # The entries lie elsewhere then, not at multiples of 64 bytes.
    rewrite(tmp_path / "whole.pt", tmp_path / "b.pt")
    assert_same(read_encoder(tmp_path / "b.pt")[0], random_state(TINY))


def test_a_flipped_bit_is_found(tmp_path):
    file = tmp_path / "a.pt"
    torch.save(random_state(TINY), file)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = max(archive.infolist(), key=lambda one: one.file_size)
    content[entry.header_offset + 100 + entry.file_size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(EncoderError, match=f"The entry {entry.filename} has changed since it was written|not a whole"):
        read_encoder(file)


@pytest.mark.parametrize("kind", ["compressed", "twice", "in parts", "bomb"])
def test_archives_that_torch_save_does_not_write(tmp_path, kind):
    def grow(name, content):
        return bytes(10**8) if name.endswith("/0") else content

    file = tmp_path / "a.pt"
    torch.save(random_state(TINY), tmp_path / "whole.pt")
    if kind == "compressed":
        rewrite(tmp_path / "whole.pt", file, compress=zipfile.ZIP_DEFLATED)
    elif kind == "twice":
        rewrite(tmp_path / "whole.pt", file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(archive.infolist()[0].filename.upper(), b"")
    elif kind == "in parts":
        content = bytearray((tmp_path / "whole.pt").read_bytes())
        # The zip64 locator's count of disks, in front of the end record.
        place = content.rfind(b"PK\x06\x07")
        if place < 0:
            content[-18:-16] = b"\x02\x00"
        else:
            content[place + 16 : place + 20] = (3).to_bytes(4, "little")
        file.write_bytes(content)
    else:
        rewrite(tmp_path / "whole.pt", file, grow, zipfile.ZIP_DEFLATED)
    start = time.perf_counter()
    with pytest.raises(EncoderError, match=r"a\.pt is not a whole PyTorch file"):
        read_encoder(file)
    assert time.perf_counter() - start < 2


def test_sizes_are_known_in_every_protocol_that_pytorch_reads(tmp_path):
    for protocol in (2, 3):
        torch.save(random_state(TINY), tmp_path / "a.pt", pickle_protocol=protocol)
        assert_same(read_encoder(tmp_path / "a.pt")[0], random_state(TINY))


@pytest.fixture(scope="module", params=["safetensors", "zip", "old"])
def whole(request, tmp_path_factory):
    """A small file of each kind: its kind, a path to write changed bytes to, and its bytes."""
    file = tmp_path_factory.mktemp("damaged") / "a"
    if request.param == "safetensors":
        save_file(random_state(SMALLEST), file)
    else:
        content = {"model_state_dict": random_state(SMALLEST), "epoch": 2}
        torch.save(content, file, _use_new_zipfile_serialization=request.param == "zip")
    return request.param, file, file.read_bytes()


def damage(content, edits):
    content = bytearray(content)
    for place, what, value in edits:
        place = place * len(content) // 10_000
        if what == "set":
            content[place : place + 1] = bytes([value])
        elif what == "flip":
            content[place : place + 1] = bytes([byte ^ 1 << value % 8 for byte in content[place : place + 1]])
        elif what == "cut":
            del content[place : place + value]
        else:
            content[place:place] = bytes([value]) * (1 + value % 16)
    return bytes(content)


KINDS_OF_DAMAGE = st.sampled_from(["set", "set", "flip", "flip", "cut", "add"])
EDITS = st.lists(st.tuples(st.integers(0, 9_999), KINDS_OF_DAMAGE, st.integers(0, 255)), min_size=1, max_size=4)


@settings(derandomize=True, max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck), database=None)
@given(edits=EDITS)
def test_damaged_bytes_end_in_an_error_or_in_the_right_weights(whole, edits):
    """Of what carries a sum every value must be right; without one a value may be wrong, never a name or a shape."""
    kind, file, content = whole
    file.write_bytes(damage(content, edits))
    try:
        found, _ = read_encoder(file)
    except EncoderError:
        return
    assert all(value.isfinite().all() for value in found.values())
    assert {name: tuple(value.shape) for name, value in found.items()} == EncoderConfig.of(found).shapes()
    if kind == "zip":
        assert_same(found, random_state(SMALLEST))


def test_most_flips_of_an_archive_are_refused_and_some_do_not_matter(whole):
    """The test above would see nothing if every file were refused, or none."""
    kind, file, content = whole
    refused = 0
    for place in range(0, 10_000, 200):
        file.write_bytes(damage(content, [(place, "flip", place)]))
        try:
            read_encoder(file)
        except EncoderError:
            refused += 1
    assert 2 < refused < 48, f"{kind}: {refused} of 50"


@pytest.mark.parametrize("value", [1e39, -1e300])
@pytest.mark.parametrize("name", [TOKENS, "text_model.encoder.layers.1.mlp.fc2.bias"])
def test_numbers_of_fp64_that_fp32_does_not_hold_are_refused(tmp_path, name, value):
    state = {key: tensor.double() for key, tensor in random_state(TINY).items()}
    state[name].view(-1)[3] = value
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for file in ("a.safetensors", "a.pt"):
        with pytest.raises(EncoderError, match=f"{file}: {name} holds 1 values that are NaN or infinite in fp32"):
            read_encoder(tmp_path / file)


@pytest.mark.parametrize("name", ["x" * 300, "a\0", "half \ud83d"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(EncoderError, match=r"cannot be read|does not exist"):
        read_encoder(tmp_path / name)
