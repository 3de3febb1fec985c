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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from .runner import Bench, Columns, Report, column, measured_on, table_of
from .watch import Clock

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


@dataclass(frozen=True)
class Timing:
    """One procedure at one precision.

    Attributes:
        precision: of the judge.
        procedure: its name.
        questions: how many were answered.
        seconds: that they took.
        times: how many times as many questions a second as the official procedure answers at the same precision.
        compared: answers that the official procedure gave as well.
        identical: of those, the ones that equal its answer letter for letter, and its choice.
        distinct: how many of the answers differ from each other.
    """

    precision: str
    procedure: str
    questions: int
    seconds: float
    times: float
    compared: int
    identical: int
    distinct: int

    @property
    def rate(self) -> float:
        """Questions a second."""
        return self.questions / self.seconds


def _answers(row: Mapping[str, Any]) -> str:
    """How many answers are the official procedure's; of that one itself, how many differ from each other."""
    if row["compared"]:
        return f"{row['identical']} of {row['compared']} identical"
    return f"{row['distinct']} different ones"


_COLUMNS: Columns = {
    "precision": column("precision", "s"),
    "procedure": column("procedure", "s"),
    "questions/s": column("questions_per_second", ".2f"),
    "times as fast": column("times", ".1f"),
    "answers": _answers,
}


def to_markdown(report: Report) -> str:
    """What was measured on, and a table with a row for each procedure and precision."""
    each = f"{report['images']} images of 512×512, {len(_QUESTIONS)} questions each"
    where = measured_on(report["machine"])
    return f"Judge of {report['judge']} sizes, {each}. {where}.\n\n{table_of(report['timings'], _COLUMNS)}"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--small", action="store_true", help="a small judge instead of BLIP-VQA-base's sizes")
    parser.add_argument(
        "--images", type=count(1, 1_000_000), help="images, 6 questions each (default 512 on CUDA, else 16)"
    )
    parser.add_argument(
        "--official",
        type=count(1, 1_000_000),
        help="of those, to score one question at a time (default 16 on CUDA, else 4)",
    )
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
            report["timings"].append({**asdict(row), "questions_per_second": row.rate})
            yield f"{row.precision}, {row.procedure}: {row.rate:.2f} questions/s"


def compare(
    folder: Path, device: torch.device, small: bool, count: int, official: int, precisions: Sequence[str] = ("fp32",)
) -> Iterator[Timing]:
    """Time both procedures on `count` random images written to `folder`, at each precision of the judge.

    The official procedure is timed on the first `official` images only; equal answers are counted among theirs.
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
        plain = _Official(placed, processor, sentences, tokenizer)
        rows = [(file, question) for file, some in zip(files[:official], asked, strict=False) for question in some]
        plain.score(*rows[0])
        taken = Clock(device).timed(partial(plain.all, rows))
        expected, slow = taken.result, taken.seconds
        answers = len(set(expected))
        yield Timing(precision, "one question at a time, from files", len(rows), slow, 1.0, 0, 0, answers)

        judge = BlipJudge(placed, processor, "random BLIP")
        judge.answer_length = 1 + _ANSWER_TOKENS
        encoder = partial(SentenceEncoder, sentences, tokenizer, "random MPNet")
        sources: tuple[tuple[str, Sequence[ImageLike]], ...] = (
            ("files", files),
            (f"tensors in {memory} memory", tensors),
        )
        for name, images in sources:
            evaluate(images[:official], asked[:official], judge, sentences=encoder(), likelihoods=False)
            # A fresh sentence encoder for each: it knows no text from before.
            score = partial(evaluate, images, asked, judge, sentences=encoder(), likelihoods=False)
            taken = Clock(device).timed(score)
            fast, found = taken.seconds, [(scored.answer, scored.chosen) for scored in taken.result.questions]
            same = sum(pair == other for pair, other in zip(found, expected, strict=False))
            times = len(found) / fast * slow / len(rows)
            yield Timing(
                precision, f"batched, from {name}", len(found), fast, times, len(expected), same, len(set(found))
            )


class _Official:
    """The official procedure, as tifascore's classes BLIP and SBERTModel have it.

    For every question it opens, preprocesses and encodes the image again, and embeds answer and choices again.
    """

    def __init__(self, model: Any, processor: Any, sentences: Any, tokenizer: Any) -> None:
        self.model = model
        self.processor = processor
        self.sentences = sentences
        self.tokenizer = tokenizer

    def all(self, rows: Sequence[tuple[Path, Question]]) -> list[tuple[str, str]]:
        """Score the rows one after another."""
        return [self.score(*row) for row in rows]

    @torch.no_grad()
    def score(self, file: Path, question: Question) -> tuple[str, str]:
        """The judge's free answer, and the choice that it stands for."""
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        inputs = self.processor(images=image, text=question.question, return_tensors="pt")
        ids = self.model.generate(**inputs.to(self.model.device, self.model.dtype), max_length=1 + _ANSWER_TOKENS)
        answer = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
        if answer in question.choices:
            return answer, answer
        nearness = self._embed(question.choices) @ self._embed([answer]).T
        return answer, question.choices[int(nearness.argmax())]

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        words = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(
            self.sentences.device
        )
        states = self.sentences(**words).last_hidden_state
        mask = words.attention_mask.unsqueeze(-1)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu()


def random_blip(tokenizer: Any, small: bool) -> tuple[Any, Any]:
    """A BLIP for questions with random weights and its processor: BLIP-VQA-base's sizes, or a small one."""
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    size = 192 if small else 384
    width: dict[str, Any] = {
        "hidden_size": 192,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
    }
    text: dict[str, Any] = {
        "vocab_size": _VOCABULARY,
        "encoder_hidden_size": 192 if small else 768,
        "max_position_embeddings": 512,
    }
    special: dict[str, Any] = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**text, **special, **(width if small else {})},
        vision_config={"image_size": size, "patch_size": 16, **(width if small else {})},
    )
    processor = BlipProcessor(BlipImageProcessor(size={"height": size, "width": size}), tokenizer)
    return _spread(BlipForQuestionAnswering(config)), processor


def random_mpnet(small: bool) -> Any:
    """An MPNet with random weights: all-mpnet-base's sizes, or a small one."""
    from transformers import MPNetConfig, MPNetModel

    width: dict[str, Any] = {
        "hidden_size": 192,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
    }
    return _spread(MPNetModel(MPNetConfig(vocab_size=_VOCABULARY, pad_token_id=0, **(width if small else {}))))


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
    to_markdown=to_markdown,
    quick="8 images, 2 of them one question at a time",
    packages=("transformers",),
)
main = BENCH.main

if __name__ == "__main__":
    sys.exit(BENCH.run())
