"""Tiny random models of every family of judges, and questions and pictures for them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from PIL import Image

from sage_core.tifa.questions import Question

WORDS = re.split(
    " ",
    "is there a an the how many what color are in image to left of right dog cat red blue green bus yes no one two "
    "three four ? , : . answer question choices multiple choice - with and nothing else user assistant",
)


def ask(text: str, *choices: str) -> Question:
    return Question("c1", "a dog left of a red bus", text, choices, choices[0], "object", "dog")


QUESTIONS = [
    ask("is there a dog ?", "yes", "no"),
    ask("what color is the bus in the image ?", "red", "blue", "green", "red bus"),
    ask("how many ?", "one", "two", "three four"),
    ask("is there a bus to the left of the dog ?", "no", "yes"),
]


def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(5)
    sizes = [(40, 40), (40, 40), (56, 34)]
    return [
        Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())
        for width, height in sizes
    ]


PER_IMAGE = [QUESTIONS, QUESTIONS[1:], QUESTIONS[:2]]


def bert_tokenizer(folder: Path):
    from transformers import BertTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(specials + WORDS) + "\n")
    return BertTokenizerFast(str(vocabulary))


def word_tokenizer(specials: dict[str, str], template: str | None = None, **settings):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [name for values in specials.values() for name in ([values] if isinstance(values, str) else values)]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *names, *WORDS])}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if template:
        inner.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(n, inner.token_to_id(n)) for n in names if n in template]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **specials, **settings)


def spread(model):
    """Large random weights, so that a tiny model's answers differ between images and questions."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 2.0 if "crossattention" in name else 0.3
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def make_vilt(folder: Path) -> None:
    from transformers import ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

    labels = [w for w in WORDS if w.isalpha()]
    tokenizer = bert_tokenizer(folder)
    config = ViltConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=64, patch_size=16, max_position_embeddings=16, num_labels=len(labels), max_image_length=-1,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    spread(ViltForQuestionAnswering(config)).save_pretrained(folder)
    ViltProcessor(ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16), tokenizer).save_pretrained(folder)


def make_blip(folder: Path) -> None:
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    tokenizer = bert_tokenizer(folder)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 32,
        "projection_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "projection_dim": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=8)
    spread(BlipForQuestionAnswering(config)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def make_blip2(folder: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    tokenizer = word_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, "$A </s>")
    image = BlipImageProcessor(size={"height": 32, "width": 32})
    processor = Blip2Processor(image, tokenizer, num_query_tokens=4)
    config = Blip2Config(
        vision_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 32, "patch_size": 8},
        qformer_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "encoder_hidden_size": 16, "vocab_size": 10, "max_position_embeddings": 8},
        text_config={"model_type": "t5", "vocab_size": len(tokenizer), "d_model": 16, "d_kv": 8, "d_ff": 32,
                     "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 1, "pad_token_id": 1,
                     "eos_token_id": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        num_query_tokens=4, image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    spread(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)


def make_git(folder: Path) -> None:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = bert_tokenizer(folder)
    config = GitConfig(
        vision_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 32, "patch_size": 8},
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    spread(GitForCausalLM(config)).save_pretrained(folder)
    image = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(image, tokenizer).save_pretrained(folder)


CHAT = (
    "{% for m in messages %}{{ m.role }} : {% for c in m.content %}"
    "{% if c.type == 'image' %}<image> {% else %}{{ c.text }} {% endif %}{% endfor %}<end> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


def make_llava(folder: Path) -> None:
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "<end>"}
    tokenizer = word_tokenizer({**specials, "additional_special_tokens": ["<image>"]}, "<s> $A")
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32,
                       "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
                       "projection_dim": 16},
        text_config={"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                     "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
                     "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = spread(LlavaForConditionalGeneration(config))
    model.generation_config.eos_token_id = 3
    model.save_pretrained(folder)
    image = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=CHAT,
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


def make_qwen(folder: Path) -> None:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor

    names = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    specials = {"pad_token": "<pad>", "eos_token": "<end>", "additional_special_tokens": names}
    tokenizer = word_tokenizer(specials)
    tokenizer.image_token, tokenizer.video_token = names[:2]
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2},
        text_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "num_key_value_heads": 2, "vocab_size": len(tokenizer), "eos_token_id": 2, "bos_token_id": None,
                     "pad_token_id": 1, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1],
                                                            "rope_theta": 10000.0}},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    model = spread(Qwen2VLForConditionalGeneration(config))
    model.generation_config.eos_token_id = [2, 1]
    model.save_pretrained(folder)
    image = Qwen2VLImageProcessor(patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=256, max_pixels=4096)
    chat = CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    try:
        from transformers import Qwen2VLVideoProcessor

        processor = Qwen2VLProcessor(image, tokenizer, Qwen2VLVideoProcessor(patch_size=8), chat_template=chat)
    except ImportError:
        processor = Qwen2VLProcessor(image, tokenizer, chat_template=chat)
    processor.save_pretrained(folder)
