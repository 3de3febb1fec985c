"""The contrastive model: CLIP's loss, padding that does not matter, and a model that learns what belongs together."""

from __future__ import annotations

import pytest
import torch

from sage_core.encoders.tokens import tokenize
from sage_core.shapes.captions import write_captions
from sage_core.shapes.networks.contrast import ContrastModel, contrastive_loss, load_contrast, restore_contrast
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes

PROMPTS = ["two red stars on the grass", "a plain blue ring at night", "a dog"]


@pytest.fixture(scope="module")
def model() -> ContrastModel:
    torch.manual_seed(0)
    return ContrastModel(tokenize(PROMPTS[:2]).unique(), width=32, layers=1).eval()


def test_the_loss_is_clips():
    generator = torch.Generator().manual_seed(0)
    shown, told = (torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=-1) for _ in range(2))
    scale = torch.tensor(1.5)
    logits = (scale.exp() * shown @ told.T).double()
    rows = [-(logits[i, i] - logits[i].exp().sum().log()) for i in range(5)]
    columns = [-(logits[i, i] - logits[:, i].exp().sum().log()) for i in range(5)]
    assert contrastive_loss(shown, told, scale).item() == pytest.approx(float(sum(rows + columns)) / 10, rel=1e-5)


def test_embeddings_are_unit_vectors_and_padding_is_not_seen(model):
    tokens = tokenize(PROMPTS)
    embedded = model.embed_tokens(tokens)
    assert embedded.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert torch.allclose(model.embed_tokens(tokens[:, :12]), embedded, atol=1e-5)
    assert model.embed_pictures(torch.rand(2, 3, 64, 64)).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_similarity_is_of_each_pair_and_batches_do_not_matter(model):
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    similarity = model.similarity(pictures, PROMPTS)
    pairs = [model.similarity(pictures[i : i + 1], PROMPTS[i : i + 1]).item() for i in range(3)]
    assert similarity.tolist() == pytest.approx(pairs, abs=1e-5)
    assert torch.allclose(model.similarity(pictures, PROMPTS, batch_size=2), similarity, atol=1e-5)


def test_restored_it_is_the_same(model):
    again = restore_contrast(model.state_dict())
    assert torch.equal(again.embed_tokens(tokenize(PROMPTS)), model.embed_tokens(tokenize(PROMPTS)))


def test_the_shipped_model_knows_which_caption_is_whose():
    scenes = sample_scenes(100, seed=71, unsafe=None, split="any")
    pictures, captions = render(scenes, seed=72), write_captions(scenes, seed=73, names="all")
    model = load_contrast()
    with torch.no_grad():
        cosines = model.embed_pictures(pictures) @ model.embed_tokens(tokenize(captions)).T
    assert (cosines.argmax(1) == torch.arange(100)).float().mean() > 0.9
    assert cosines.diagonal().mean() > 0.8 > 0.5 > cosines.mean()
