"""VQA models that answer TIFA's questions, behind one protocol.

Each image is preprocessed and encoded once for all of its questions, and the questions of many images share a batch.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch

from ...batches import in_batches
from ...errors import JudgeError
from ...images import ImageLike, all_to_bytes
from ...lazy import installed
from ...model_folders import load_model, load_processor, loading, read_model_config, running
from ..questions import Question

# What a judge knows of one image, as its `encode` makes it: for most a tensor (tokens, width).
Features: TypeAlias = Any


@dataclass(frozen=True)
class Answer:
    """A judge's answer: free text, and the probability of each choice, or None if the judge cannot tell."""

    text: str
    probabilities: tuple[float, ...] | None = None


class Judge(Protocol):
    """Anything that answers questions about images; `name` appears in results."""

    name: str

    def answer(
        self,
        images: Sequence[ImageLike],
        questions: Sequence[Sequence[Question]],
        *,
        likelihoods: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """Answer `questions[i]`, all of them, about `images[i]`.

        `likelihoods=False` leaves out the probabilities, which cost generating judges a second pass.
        `on_batch(n)` is told after each batch how many more questions are answered; what it raises ends the work.

        Raises:
            JudgeError: a question cannot be asked or answered.
        """
        ...


class ModelJudge(ABC):
    """A judge around one transformers model and its processor.

    `images_per_batch` are encoded together and `questions_per_batch` answered together; both halve when memory runs
    out. Features of at most `images_held` images are kept at a time.
    """

    # The classes of transformers that a folder's model and processor are of.
    model_kind: str
    processor_kind = "AutoProcessor"
    images_per_batch = 16
    questions_per_batch = 64
    images_held = 64
    # Questions of similar length share a batch, so that it has little padding.
    sort_by_length = True

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name

    @property
    def device(self) -> torch.device:
        """Where the model is now; it may be moved between calls."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the image features are computed."""
        return next(self.model.parameters()).dtype

    @abstractmethod
    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """Features of uint8 images (3, H, W), whose sizes may differ."""

    @abstractmethod
    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer `questions[i]` about the image with `features[i]`, all in one batch."""

    def answer(
        self,
        images: Sequence[ImageLike],
        questions: Sequence[Sequence[Question]],
        *,
        likelihoods: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """See Judge."""
        if len(images) != len(questions):
            raise JudgeError(
                f"{len(images)} images came with {len(questions)} lists of questions, expected one for each."
            )
        answers: list[list[Answer]] = []
        for start in range(0, len(images), self.images_held):
            part = slice(start, start + self.images_held)
            answers += self._answer_part(images[part], questions[part], likelihoods, on_batch)
        return answers

    @torch.inference_mode()
    def _answer_part(
        self,
        images: Sequence[ImageLike],
        questions: Sequence[Sequence[Question]],
        likelihoods: bool,
        on_batch: Callable[[int], None] | None,
    ) -> list[list[Answer]]:
        def encode(batch: Sequence[torch.Tensor]) -> list[Features]:
            with running(self.name):
                return self.encode(batch)

        features, self.images_per_batch = in_batches(encode, all_to_bytes(images), self.images_per_batch)
        rows = [(i, j) for i, asked in enumerate(questions) for j in range(len(asked))]
        if self.sort_by_length:
            rows.sort(key=lambda row: len(questions[row[0]][row[1]].question))

        def ask(batch: Sequence[tuple[int, int]]) -> list[Answer]:
            asked = [questions[i][j] for i, j in batch]
            with running(self.name):
                replies = self.ask([features[i] for i, _ in batch], asked, likelihoods)
            self._require_numbers(replies, asked)
            if on_batch is not None:
                on_batch(len(batch))
            return replies

        replies, self.questions_per_batch = in_batches(ask, rows, self.questions_per_batch)
        by_row = dict(zip(rows, replies, strict=True))
        return [[by_row[i, j] for j in range(len(asked))] for i, asked in enumerate(questions)]

    def _require_numbers(self, answers: Sequence[Answer], questions: Sequence[Question]) -> None:
        for answer, question in zip(answers, questions, strict=True):
            if not all(math.isfinite(share) for share in answer.probabilities or ()):
                raise JudgeError(
                    f"{self.name}: the probabilities of the choices of {question.question!r} (caption {question.id!r}) "
                    f"are {answer.probabilities}, expected numbers. Its precision does not hold its values: load it in "
                    "fp32."
                )

    def pixels(self, images: Sequence[torch.Tensor]) -> Any:
        """The image processor's output for uint8 images (3, H, W), on the model's device and in its type."""
        processor = self.processor.image_processor
        # Processors based on torchvision work where they are told to; those on PIL or numpy know no device.
        on_device = getattr(processor, "backend", "") == "torchvision" or type(processor).__name__.endswith("Fast")
        made = processor(list(images), return_tensors="pt", **({"device": self.device} if on_device else {}))
        return made.to(self.device, dtype=self.dtype)

    def tokens(self, texts: Sequence[str], **settings: Any) -> Any:
        """The tokenizer's output for `texts`, padded, on the model's device."""
        return self.processor.tokenizer(list(texts), padding=True, return_tensors="pt", **settings).to(self.device)


def grouped(rows: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Groups of `rows` with equal keys, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def sequence_log_likelihoods(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the targets' log-probabilities, (N,): logits (N, T, V), targets (N, T) with -100 where there is none."""
    losses = torch.nn.functional.cross_entropy(
        logits.float().transpose(1, 2), targets, ignore_index=-100, reduction="none"
    )
    return -losses.sum(1)


def choice_probabilities(log_likelihoods: torch.Tensor, questions: Sequence[Question]) -> list[tuple[float, ...]]:
    """Softmax over each question's choices; `log_likelihoods` holds those of all questions one after another."""
    # On the CPU: Apple's GPUs have no double precision.
    parts = log_likelihoods.cpu().double().split([len(question.choices) for question in questions])
    return [tuple(part.softmax(0).tolist()) for part in parts]


_KINDS = {
    "vilt": ("vilt", "ViltJudge", "dandelin/vilt-b32-finetuned-vqa"),
    "blip": ("blip", "BlipJudge", "Salesforce/blip-vqa-base"),
    "blip-2": ("blip2", "Blip2Judge", "Salesforce/blip2-flan-t5-xl"),
    "git": ("git", "GitJudge", "microsoft/git-large-vqav2"),
}
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_CHAT = ("chat", "ChatJudge", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct")


def load_judge(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> ModelJudge:
    """The judge for the model in a local folder: ViLT, BLIP, BLIP-2, GIT, or any AutoModelForImageTextToText.

    A package of its own adds one by an entry point in the group `sage_core.judges`: the model's type, and a subclass of
    `ModelJudge`.

    Nothing is downloaded, no code of the folder is run and no pickle is read. In results and logs it has `name`, by
    default the folder's, and its precision, which can change an answer.

    Raises:
        JudgeError: the model is not there or damaged; the message says what to download and where to put it.
    """
    import transformers

    folder = Path(folder)
    config = read_model_config(folder, "judge", [kind[2] for kind in (*_KINDS.values(), _CHAT)])
    kind, others = config.get("model_type", ""), installed("sage_core.judges")
    module, class_name, _ = _KINDS.get(kind, _CHAT)
    if kind in others and kind not in _KINDS:
        judge_class = others[kind].load()
    else:
        judge_class = getattr(importlib.import_module(f".{module}", __package__), class_name)
    kinds = ", ".join([*_KINDS, *others])
    what = f"a judge of type {config.get('model_type')!r}; judges are {kinds} and any of AutoModelForImageTextToText"
    with loading(folder, what):
        processor = load_processor(getattr(transformers, judge_class.processor_kind), folder)
        model = load_model(getattr(transformers, judge_class.model_kind), folder, dtype)
        return judge_class(model.to(device), processor, f"{name or folder.name}, {_PRECISIONS.get(dtype, dtype)}")
