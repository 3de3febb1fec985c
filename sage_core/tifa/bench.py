"""Batched scoring against the official one-question-at-a-time procedure: same judge, same machine, same answers.

    python -m sage_core.tifa.bench --small            a laptop's CPU, a minute
    python -m sage_core.tifa.bench --device cuda      BLIP-VQA-base and all-mpnet-base sizes, 512×512 images

The judge is a BLIP and the sentence encoder an MPNet with random weights: speed does not depend on their values.
Answers are 3 tokens long in both procedures.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .evaluation import evaluate
from .images import to_bytes
from .judges_blip import BlipJudge
from .questions import Question
from .sentences import SentenceEncoder

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison that the module describes and write its table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="a small judge instead of BLIP-VQA-base's sizes")
    parser.add_argument("--images", type=int, default=0, help="images, 6 questions each (default 16, on CUDA 512)")
    parser.add_argument("--official", type=int, default=4, help="images of those to score one question at a time")
    options = parser.parse_args(arguments)
    count = options.images or (512 if options.device.startswith("cuda") else 16)
    with tempfile.TemporaryDirectory() as name:
        lines = compare(Path(name), options.device, options.small, count, min(options.official, count))
    sys.stdout.write("\n".join(lines) + "\n")


def compare(folder: Path, device: str, small: bool, count: int, official: int) -> list[str]:
    """Time both procedures on `count` random images written to `folder`; returns the lines of a Markdown table.

    The official procedure is timed on the first `official` images only; the last column counts like answers.
    """
    tokenizer = _tokenizer(folder)
    model, processor = random_blip(tokenizer, small)
    sentences = partial(SentenceEncoder, random_mpnet(small).to(device), tokenizer, "random MPNet")
    files = _write_images(folder, count)
    asked = [[_question(str(number), *row) for row in _QUESTIONS] for number in range(count)]
    tensors = [to_bytes(file).permute(1, 2, 0).to(device) / 255 for file in files]

    plain = _Official(model.to(device), processor, sentences)
    plain.score(files[0], asked[0][0])
    rows = [(file, question) for file, some in zip(files[:official], asked, strict=False) for question in some]
    expected, slow = _timed(device, lambda: [plain.score(*row) for row in rows])

    judge = BlipJudge(model, processor, "random BLIP")
    judge.answer_length = 1 + _ANSWER_TOKENS
    sizes = "small" if small else "BLIP-VQA-base"
    lines = [
        f"{_machine(device)}, {sizes} sizes, {count} images of 512x512, 6 questions each",
        "",
        "| procedure | questions/s | times as fast | answers |",
        "| --- | --- | --- | --- |",
        f"| one question at a time, from files | {len(expected) / slow:.2f} | 1 | |",
    ]
    for name, images in (("files", files), ("tensors in memory", tensors)):
        evaluate(images[:1], asked[:1], judge, sentences=sentences(), likelihoods=False)
        # A fresh sentence encoder for each: it knows no text from before.
        score = partial(evaluate, images, asked, judge, sentences=sentences(), likelihoods=False)
        result, fast = _timed(device, score)
        found = [(q.answer, q.chosen) for q in result.questions[: len(expected)]]
        same = sum(pair == other for pair, other in zip(found, expected, strict=True))
        rate = len(result.questions) / fast
        times = rate * slow / len(expected)
        lines.append(f"| batched, from {name} | {rate:.2f} | {times:.1f} | {same} of {len(expected)} identical |")
    return lines


class _Official:
    """The official procedure: open, preprocess and encode the image, for every question anew."""

    def __init__(self, model: Any, processor: Any, sentences: Callable[[], SentenceEncoder]) -> None:
        self.model = model
        self.processor = processor
        self.sentences = sentences

    @torch.no_grad()
    def score(self, file: Path, question: Question) -> tuple[str, str]:
        """Free answer and chosen choice."""
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        inputs = self.processor(images=image, text=question.question, return_tensors="pt").to(self.model.device)
        ids = self.model.generate(**inputs, max_length=1 + _ANSWER_TOKENS)
        answer = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
        if answer in question.choices:
            return answer, answer
        (nearest,) = self.sentences().nearest_choices([answer], [question.choices])
        return answer, question.choices[nearest]


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
    torch.manual_seed(0)
    processor = BlipProcessor(BlipImageProcessor(size={"height": size, "width": size}), tokenizer)
    return BlipForQuestionAnswering(config).eval(), processor


def random_mpnet(small: bool) -> Any:
    """An MPNet with random weights: all-mpnet-base's sizes, or a small one."""
    from transformers import MPNetConfig, MPNetModel

    width: dict[str, Any] = {
        "hidden_size": 192,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
    }
    torch.manual_seed(0)
    return MPNetModel(MPNetConfig(vocab_size=_VOCABULARY, pad_token_id=0, **(width if small else {}))).eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizer

    words = dict.fromkeys(re.findall(r"\w+|\?", " ".join(f"{text} {' '.join(some)}" for text, some in _QUESTIONS)))
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*named, *(f"word{i}" for i in range(_VOCABULARY - len(named)))]) + "\n")
    # MPNet takes no token types, and the names of BERT's special tokens do for it.
    return BertTokenizer(str(vocabulary), model_input_names=["input_ids", "attention_mask"])


def _write_images(folder: Path, count: int) -> list[Path]:
    """PNG files of smooth noise, which decode in about the time of photographs."""
    generator = torch.Generator().manual_seed(0)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files:
        coarse = torch.rand(1, 3, 64, 64, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=512, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
        Image.fromarray((smooth * 255).to(torch.uint8).numpy()).save(file)
    return files


def _question(caption: str, text: str, choices: tuple[str, ...]) -> Question:
    return Question(caption, f"caption {caption}", text, choices, choices[0], "other", "element")


def _timed(device: str, work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _machine(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"


if __name__ == "__main__":
    main()
