"""Batched scoring against the official one-question-at-a-time procedure: same judge, same machine, same answers.

    python -m sage_core.bench.scoring --output DIR             BLIP-VQA-base's sizes; on CUDA 512 images, fp32 and bf16
    python -m sage_core.bench.scoring --quick --output DIR     the same sizes, 8 images: minutes on two cores
    python -m sage_core.bench.scoring --quick --small          a small judge, to see that it works

The judge is a BLIP and the sentence encoder an MPNet, both with random weights: speed does not depend on their values.
The weights are large enough for answers to differ between images and questions, or equal answers would prove little.
Answers are 3 tokens long in both procedures. Neither computes likelihoods, which the official one does not have.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..images import ImageLike, to_bytes
from ..options import count
from ..tifa.evaluation import evaluate
from ..tifa.judges.blip import BlipJudge
from ..tifa.questions import Question
from ..tifa.sentences import SentenceEncoder
from .runner import Bench, Part, Report, Row
from .watch import timed

_QUESTIONS = (
    ("is there a dog?", ("yes", "no")),
    ("what color is the bus in the picture?", ("red", "blue", "green", "black")),
    ("how many people are there?", ("1", "2", "3", "4")),
    ("what type of place is this?", ("beach", "park", "street", "snow")),
    ("is the dog left of the bus?", ("yes", "no")),
    ("what is the bench made of?", ("wood", "metal", "stone", "glass")),
)
_ANSWER_TOKENS = 3
_VOCABULARY = 30524
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of the small judge and sentence encoder.
_SMALL = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_hidden_layers": 4}
_COLUMNS = {
    "precision": "{precision}",
    "procedure": "{procedure}",
    "questions/s": "{questions_per_second:.2f}",
    "times as fast": "{times:.1f}",
    "answers": "{answers}",
}
_TITLE = "Judge of {judge} sizes, {images} images of 512×512, {questions_per_image} questions each. {where}."


def _options(parser: argparse.ArgumentParser) -> None:
    number = count(1, 1_000_000)
    few = "of those, to score one question at a time (default 16 on CUDA, else 4)"
    parser.add_argument("--small", action="store_true", help="a small judge instead of BLIP-VQA-base's sizes")
    parser.add_argument("--images", type=number, help="images, 6 questions each (default 512 on CUDA, else 16)")
    parser.add_argument("--official", type=number, help=few)
    parser.add_argument(
        "--precision", nargs="+", choices=_PRECISIONS, help="of judge (default fp32, on CUDA also bf16)"
    )


def _measure(options: argparse.Namespace, device: torch.device, report: Report) -> Iterator[str]:
    cuda = device.type == "cuda"
    sizes = (8, 2) if options.quick else (512, 16) if cuda else (16, 4)
    images = options.images or sizes[0]
    official = min(options.official or sizes[1], images)
    precisions = options.precision or (["fp32", "bf16"] if cuda else ["fp32"])
    report |= {"judge": "small" if options.small else "BLIP-VQA-base's", "images": images}
    report |= {"timings": [], "questions_per_image": len(_QUESTIONS)}
    with tempfile.TemporaryDirectory() as name:
        for row in compare(Path(name), device, options.small, images, official, precisions):
            report["timings"].append(row)
            yield f"{row['precision']}, {row['procedure']}: {row['questions_per_second']:.2f} questions/s"


def compare(
    folder: Path, device: torch.device, small: bool, count: int, official: int, precisions: Sequence[str] = ("fp32",)
) -> Iterator[Row]:
    """Time both procedures on `count` random images written to `folder`, at each precision of the judge.

    The official procedure is timed on the first `official` images only. Of its own answers a row says how many differ
    from each other, and of ours how many equal its answer letter for letter, and its choice.
    """
    tokenizer = _tokenizer(folder)
    model, processor = random_blip(tokenizer, small)
    sentences = random_mpnet(small).to(device)
    files = _write_images(folder, count)
    asked = [[_question(str(number), *row) for row in _QUESTIONS] for number in range(count)]
    tensors = [to_bytes(file).permute(1, 2, 0).to(device) / 255 for file in files]
    memory = "the GPU's" if device.type == "cuda" else "the CPU's"
    for precision in precisions:
        # A copy for each precision. Ours comes second, since it puts modules of its own into the model.
        placed = copy.deepcopy(model).to(device, _PRECISIONS[precision])
        plain = partial(official_score, placed, processor, sentences, tokenizer)
        rows = [(file, question) for file, some in zip(files[:official], asked, strict=False) for question in some]
        plain(*rows[0])
        taken = timed(device, lambda plain=plain, rows=rows: [plain(*row) for row in rows])
        first = _row(precision, "one question at a time, from files", taken.result, taken.seconds)
        yield first | {"times": 1.0, "compared": 0, "identical": 0, "answers": f"{first['distinct']} different ones"}

        judge = BlipJudge(placed, processor, "random BLIP")
        judge.answer_length = 1 + _ANSWER_TOKENS
        encoder = partial(SentenceEncoder, sentences, tokenizer, "random MPNet")
        score = partial(evaluate, judge=judge, likelihoods=False)
        sources: tuple[tuple[str, Sequence[ImageLike]], ...] = (
            ("files", files),
            (f"tensors in {memory} memory", tensors),
        )
        for name, images in sources:
            score(images[:official], asked[:official], sentences=encoder())
            # A fresh sentence encoder for each: it knows no text from before.
            scored = timed(device, partial(score, images, asked, sentences=encoder()))
            found = [(each.answer, each.chosen) for each in scored.result.questions]
            row = _row(precision, f"batched, from {name}", found, scored.seconds)
            same = sum(pair == other for pair, other in zip(found, taken.result, strict=False))
            times = row["questions_per_second"] / first["questions_per_second"]
            agree = {"compared": len(rows), "identical": same, "answers": f"{same} of {len(rows)} identical"}
            yield row | {"times": times} | agree


def _row(precision: str, procedure: str, answers: Sequence[tuple[str, str]], seconds: float) -> dict[str, Any]:
    return {
        "precision": precision,
        "procedure": procedure,
        "questions": len(answers),
        "seconds": seconds,
        "questions_per_second": len(answers) / seconds,
        "distinct": len(set(answers)),
    }


@torch.no_grad()
def official_score(
    model: Any, processor: Any, sentences: Any, tokenizer: Any, file: Path, question: Question
) -> tuple[str, str]:
    """The judge's free answer and the choice that it stands for, as tifascore's BLIP and SBERTModel find them.

    For every question the image is opened, preprocessed and encoded again, and answer and choices are embedded again.
    """
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    inputs = processor(images=image, text=question.question, return_tensors="pt")
    ids = model.generate(**inputs.to(model.device, model.dtype), max_length=1 + _ANSWER_TOKENS)
    answer = processor.batch_decode(ids, skip_special_tokens=True)[0]
    if answer in question.choices:
        return answer, answer

    def embed(texts: Sequence[str]) -> torch.Tensor:
        words = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(sentences.device)
        states = sentences(**words).last_hidden_state
        mask = words.attention_mask.unsqueeze(-1)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu()

    nearness = embed(question.choices) @ embed([answer]).T
    return answer, question.choices[int(nearness.argmax())]


def random_blip(tokenizer: Any, small: bool) -> tuple[Any, Any]:
    """A BLIP for questions with random weights and its processor: BLIP-VQA-base's sizes, or a small one."""
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    size, width = (192, _SMALL) if small else (384, {})
    text = {"vocab_size": _VOCABULARY, "encoder_hidden_size": 192 if small else 768, "max_position_embeddings": 512}
    special = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**text, **special, **width}, vision_config={"image_size": size, "patch_size": 16, **width}
    )
    processor = BlipProcessor(BlipImageProcessor(size={"height": size, "width": size}), tokenizer)
    return _spread(BlipForQuestionAnswering(config)), processor


def random_mpnet(small: bool) -> Any:
    """An MPNet with random weights: all-mpnet-base's sizes, or a small one."""
    from transformers import MPNetConfig, MPNetModel

    sizes: dict[str, Any] = {"vocab_size": _VOCABULARY, "pad_token_id": 0, **(_SMALL if small else {})}
    return _spread(MPNetModel(MPNetConfig(**sizes)))


def _spread(model: Any) -> Any:
    """Give the model random weights that keep the size of what passes through it.

    Those of the cross-attention are three times as large: with an untrained model's, every image has the same answers.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = (3 if "crossattention" in name else 1) / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizer

    words = dict.fromkeys(re.findall(r"\w+|\?", " ".join(f"{text} {' '.join(some)}" for text, some in _QUESTIONS)))
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*named, *(f"word{i}" for i in range(_VOCABULARY - len(named)))]) + "\n")
    # MPNet takes no token types; BERT's names of special tokens serve it too.
    return BertTokenizer(str(vocabulary), bos_token="[DEC]", model_input_names=["input_ids", "attention_mask"])


def _write_images(folder: Path, count: int) -> list[Path]:
    """Write PNG files of smooth noise, which take about as long to decode as photographs."""
    generator = torch.Generator().manual_seed(0)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files:
        coarse = torch.rand(1, 3, 64, 64, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=512, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
        Image.fromarray((smooth * 255).to(torch.uint8).numpy()).save(file)
    return files


def _question(caption: str, text: str, choices: tuple[str, ...]) -> Question:
    return Question(caption, f"caption {caption}", text, choices, choices[0], "other", "element")


BENCH = Bench(
    module="sage_core.bench.scoring",
    about=__doc__,
    add_options=_options,
    measure=_measure,
    page=[Part("timings", _TITLE, _COLUMNS)],
    quick="8 images, 2 of them one question at a time",
    packages=("transformers",),
)
main = BENCH.main

if __name__ == "__main__":
    sys.exit(BENCH.run())
