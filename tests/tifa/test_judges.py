"""Batched judges against the official procedure: one image and one question at a time, written naively."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sage_core.errors import JudgeError
from sage_core.tifa.judges.base import Answer, ModelJudge, load_judge
from tiny_judges import (
    PER_IMAGE,
    QUESTIONS,
    ask,
    make_blip,
    make_blip2,
    make_git,
    make_llava,
    make_qwen,
    make_vilt,
    pictures,
)


def vilt_one(folder: Path):
    from transformers import ViltForQuestionAnswering, ViltProcessor

    processor = ViltProcessor.from_pretrained(folder)
    model = ViltForQuestionAnswering.from_pretrained(folder)

    def answer(image, question):
        made = processor(images=image, text=question.question, truncation=True, max_length=16, return_tensors="pt")
        logits = model(**made).logits[0]
        known = [model.config.label2id.get(choice) for choice in question.choices]
        odds = None if None in known else [logits[k].double().exp().item() for k in known]
        return model.config.id2label[logits.argmax().item()], odds and [o / sum(odds) for o in odds]

    return answer


def blip_one(folder: Path):
    from transformers import BlipForQuestionAnswering, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForQuestionAnswering.from_pretrained(folder)

    def answer(image, question):
        made = processor(images=image, text=question.question, return_tensors="pt")
        text = processor.batch_decode(model.generate(**made, max_length=50), skip_special_tokens=True)[0]
        likelihoods = []
        for choice in question.choices:
            target = processor.tokenizer(choice, return_tensors="pt").input_ids
            target[0, 0] = model.config.text_config.bos_token_id
            seen = model.vision_model(made.pixel_values)[0]
            read = model.text_encoder(made.input_ids, made.attention_mask, encoder_hidden_states=seen)[0]
            logits = model.text_decoder(target, encoder_hidden_states=read).logits[0].double()
            likelihoods.append(follow(logits, target[0].tolist()))
        return text, shares(likelihoods)

    return answer


def blip2_one(folder: Path):
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder)

    def answer(image, question):
        prompt = (
            f"Answer the multiple-choice question. Question: {question.question} "
            f"Choices: {', '.join(question.choices)} Answer:"
        )
        made = processor(images=image, text=prompt, return_tensors="pt")
        ids = model.generate(**made, num_beams=5, max_length=30, min_length=1)
        text = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        likelihoods = []
        for choice in question.choices:
            target = processor.tokenizer(choice, return_tensors="pt").input_ids
            decoded = torch.cat([torch.tensor([[1]]), target], 1)
            logits = model(**made, decoder_input_ids=decoded).logits[0].double()
            likelihoods.append(follow(logits, decoded[0].tolist()))
        return text, shares(likelihoods)

    return answer


def git_one(folder: Path):
    from transformers import AutoProcessor, GitForCausalLM

    processor = AutoProcessor.from_pretrained(folder)
    model = GitForCausalLM.from_pretrained(folder)

    def answer(image, question):
        pixels = processor(images=image, return_tensors="pt").pixel_values
        ids = [processor.tokenizer.cls_token_id, *processor(text=question.question, add_special_tokens=False).input_ids]
        written = model.generate(pixel_values=pixels, input_ids=torch.tensor([ids]), max_length=50)[:, len(ids) :]
        likelihoods = []
        for choice in question.choices:
            target = [*ids, *processor(text=choice, add_special_tokens=False).input_ids, 3]
            logits = model(input_ids=torch.tensor([target]), pixel_values=pixels).logits[0, -len(target) :].double()
            likelihoods.append(follow(logits, target) - follow(logits, ids))
        return processor.batch_decode(written, skip_special_tokens=True)[0], shares(likelihoods)

    return answer


def chat_one(folder: Path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    end = model.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end

    def answer(image, question):
        prompt = (
            f"{question.question}\nChoices: {', '.join(question.choices)}.\n"
            f"Answer with one of the choices and nothing else."
        )
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
        text = processor.apply_chat_template([turn], add_generation_prompt=True)
        made = processor(text=[text], images=[image], return_tensors="pt")
        start = made.input_ids.shape[1]
        ids = model.generate(**made, max_new_tokens=20, do_sample=False)[:, start:]
        likelihoods = []
        for choice in question.choices:
            tail = torch.tensor([[*processor.tokenizer(choice, add_special_tokens=False).input_ids, end]])
            longer = {**made, "input_ids": torch.cat([made.input_ids, tail], 1)}
            longer["attention_mask"] = torch.ones_like(longer["input_ids"])
            if "mm_token_type_ids" in longer:
                longer["mm_token_type_ids"] = torch.cat([made["mm_token_type_ids"], torch.zeros_like(tail)], 1)
            logits = model(**longer).logits[0].double()
            likelihoods.append(follow(logits[start - 1 :], [0, *tail[0].tolist()]))
        return processor.batch_decode(ids, skip_special_tokens=True)[0].strip(), shares(likelihoods)

    return answer


def follow(logits: torch.Tensor, ids: list[int]) -> float:
    """Log-probability of ids[1:], each after those before it; logits (T, V) with T = len(ids) or more."""
    return sum(logits[t].log_softmax(-1)[ids[t + 1]].item() for t in range(len(ids) - 1))


def shares(likelihoods: list[float]) -> list[float]:
    odds = [torch.tensor(value, dtype=torch.double).exp().item() for value in likelihoods]
    return [o / sum(odds) for o in odds]


KINDS = {
    "vilt": (make_vilt, vilt_one),
    "blip": (make_blip, blip_one),
    "blip2": (make_blip2, blip2_one),
    "git": (make_git, git_one),
    "llava": (make_llava, chat_one),
    "qwen": (make_qwen, chat_one),
}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request, tmp_path_factory):
    make, one = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make(folder)
    return request.param, folder, one


def test_batched_answers_are_those_of_one_at_a_time(kind):
    name, folder, one = kind
    with torch.no_grad():
        reference = one(folder)
        expected = [[reference(image, q) for q in asked] for image, asked in zip(pictures(), PER_IMAGE, strict=True)]
    judge = load_judge(folder)
    done = []
    answers = judge.answer(pictures(), PER_IMAGE, on_batch=done.append)
    assert sum(done) == 9
    assert [[a.text for a in asked] for asked in answers] == [[text for text, _ in asked] for asked in expected]
    for asked, reference_asked in zip(answers, expected, strict=True):
        for found, (_, probabilities) in zip(asked, reference_asked, strict=True):
            assert (found.probabilities is None) == (probabilities is None)
            if probabilities is not None:
                assert found.probabilities == pytest.approx(probabilities, rel=2e-3, abs=1e-5)
    texts = {text for asked in expected for text, _ in asked}
    assert len(texts) > 1, f"{name}: the tiny model says the same to everything, so this test sees nothing: {texts}"


def test_batch_sizes_and_missing_likelihoods_change_no_answer(kind):
    _, folder, _ = kind
    judge = load_judge(folder)
    whole = judge.answer(pictures(), PER_IMAGE)
    judge.images_per_batch, judge.questions_per_batch, judge.images_held = 1, 2, 2
    parts = judge.answer(pictures(), PER_IMAGE, likelihoods=False)
    assert [[a.text for a in asked] for asked in parts] == [[a.text for a in asked] for asked in whole]
    assert all(a.probabilities is None for asked in parts for a in asked)


def count_images_read(judge: ModelJudge) -> list[int]:
    """Filled with the number of images of each pass of a chat model's vision tower."""
    counts = []
    inner = judge.model.model

    def count(_module, args, kwargs):
        pixels = kwargs.get("pixel_values", args[0] if args else None)
        counts.append(len(kwargs["grid_thw"]) if "grid_thw" in kwargs else len(pixels))

    getattr(inner, "vision_tower", getattr(inner, "visual", None)).register_forward_pre_hook(count, with_kwargs=True)
    return counts


@pytest.mark.parametrize("make", [make_llava, make_qwen])
def test_a_chat_model_reads_each_image_once_at_any_batch_size(tmp_path, make):
    make(tmp_path)
    judge = load_judge(tmp_path)
    judge.answer_length = 2
    counts = count_images_read(judge)
    expected = judge.answer(pictures(), [QUESTIONS] * 3)
    assert sum(counts) == 3
    for size in (1, 3, 5):
        judge.questions_per_batch = size
        counts.clear()
        answers = judge.answer(pictures(), [QUESTIONS] * 3)
        assert sum(counts) == 3, f"batches of {size}: {counts}"
        for found, wanted in zip(chain(*answers), chain(*expected), strict=True):
            assert found.text == wanted.text and found.probabilities == pytest.approx(wanted.probabilities, rel=2e-3)


def test_a_chat_model_without_an_end_token_takes_its_tokenizers_or_is_named(tmp_path):
    make_llava(tmp_path)
    expected = load_judge(tmp_path)
    processor, model = expected.processor, expected.model
    model.generation_config.eos_token_id = None
    judge = type(expected)(model, processor, "nameless")
    assert judge.answer(pictures(), PER_IMAGE) == expected.answer(pictures(), PER_IMAGE)
    processor.tokenizer.eos_token = None
    with pytest.raises(JudgeError, match="nameless: neither generation_config"):
        type(expected)(model, processor, "nameless")


LONG = " ".join(["is there a dog to the left of the red bus"] * 8)


def test_questions_that_git_cannot_answer_are_named(tmp_path):
    make_git(tmp_path)
    with pytest.raises(JudgeError, match=r"question 'is there a dog .*' of caption 'c1' has 89 tokens, .* than 50"):
        load_judge(tmp_path).answer(pictures()[:1], [[QUESTIONS[0], ask(LONG, "yes", "no")]])


def test_blip_reads_as_much_of_a_long_question_or_choice_as_it_can(tmp_path):
    make_blip(tmp_path)
    judge = load_judge(tmp_path)
    room = judge.model.config.text_config.max_position_embeddings - 2
    cut = " ".join(LONG.split()[:room])
    asked = [[ask(LONG, "yes", LONG), QUESTIONS[0]], [ask(cut, "yes", cut)]]
    (found, _), (expected,) = judge.answer(pictures()[:1] * 2, asked)
    assert found.text == expected.text and found.probabilities == pytest.approx(expected.probabilities, rel=1e-4)


class CountingJudge(ModelJudge):
    """Answers how bright an image is; remembers its batches, and runs out of memory above `room`."""

    def __init__(self, room: int) -> None:
        super().__init__(torch.nn.Linear(1, 1), None, "counting")
        self.room = room
        self.encoded: list[int] = []
        self.asked: list[int] = []

    def fit(self, batch) -> None:
        if len(batch) > self.room:
            raise torch.cuda.OutOfMemoryError("injected")

    def encode(self, images):
        self.fit(images)
        self.encoded.append(len(images))
        return [image.float().mean() for image in images]

    def ask(self, features, questions, likelihoods):
        self.fit(questions)
        self.asked.append(len(questions))
        return [
            Answer(f"{feature:.0f} {question.question}") for feature, question in zip(features, questions, strict=True)
        ]


def grey(*levels: int) -> list[torch.Tensor]:
    return [torch.full((4, 4, 3), level, dtype=torch.uint8) for level in levels]


def test_each_image_is_encoded_once_and_questions_share_batches():
    judge = CountingJudge(room=100)
    answers = judge.answer(grey(*range(10)), [QUESTIONS] * 10)
    assert judge.encoded == [10] and judge.asked == [40]
    assert answers[7][2].text == "7 how many ?"


def test_out_of_memory_halves_the_batch_and_loses_nothing():
    judge = CountingJudge(room=3)
    answers = judge.answer(grey(*range(10)), [QUESTIONS] * 10)
    assert [[a.text for a in asked] for asked in answers] == [
        [f"{level} {q.question}" for q in QUESTIONS] for level in range(10)
    ]
    assert sum(judge.encoded) == 10 and sum(judge.asked) == 40 and max(judge.encoded + judge.asked) <= 3
    assert judge.questions_per_batch <= 3, "the size that fits is remembered for the next images"


def test_out_of_memory_with_one_item_says_what_to_do():
    with pytest.raises(JudgeError, match="half precision"):
        CountingJudge(room=0).answer(grey(1), [QUESTIONS])


def test_images_and_questions_must_match():
    with pytest.raises(JudgeError, match="2 images came with 1 lists"):
        CountingJudge(9).answer(grey(1, 2), [QUESTIONS])


def test_a_missing_model_says_what_to_download_and_where(tmp_path):
    with pytest.raises(JudgeError, match=r"Salesforce/blip-vqa-base.*--local-dir .*nowhere"):
        load_judge(tmp_path / "nowhere")


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vilt"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(JudgeError, match="safetensors"):
        load_judge(tmp_path)


def test_a_model_of_another_kind_is_refused_with_its_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(JudgeError, match="'bert'"):
        load_judge(tmp_path)
