# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Tiny tokenizers, image processors and configs for tests, built in memory: no network, no files."""

import string
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors


_WORDS = [
    "a",
    "b",
    "c",
    "the",
    "of",
    "and",
    "in",
    "red",
    "blue",
    "green",
    "cat",
    "dog",
    "lower",
    "newer",
    "upper",
    "older",
    "longer",
    "string",
    "meme",
    "food",
    "good",
    "bad",
    "not",
    "is",
]


def tiny_tokenizer(kind: str = "bert", model_max_length: int = 64) -> Any:
    """A real tokenizer with about 130 tokens.

    Args:
        kind: `"bert"` (WordPiece, token types) or `"roberta"` (byte-level BPE without merges, no token types).
        model_max_length: as stored in the tokenizer.
    """
    from transformers import BertTokenizerFast, RobertaTokenizerFast

    if kind == "roberta":
        characters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *characters])}
        backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        return RobertaTokenizerFast(tokenizer_object=backend, model_max_length=model_max_length)
    if kind != "bert":
        raise ValueError(f"kind={kind!r} must be 'bert' or 'roberta'.")
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    pieces = [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *letters, *pieces])
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return BertTokenizerFast(tokenizer_object=backend, model_max_length=model_max_length)


def tiny_image_processor(size: int = 32, backend: str = "pil") -> Any:
    """ImageNet preprocessing that ends in `size` x `size` pixels."""
    from fusionzoo.processing.image_presets import build_image_processor

    return build_image_processor("imagenet", size=size, backend=backend)


def tiny_processor(size: int = 32, text: str = "bert", **kwargs: Any) -> Any:
    """A `MopeProcessor` of the two."""
    from fusionzoo.processing.processing_mope import MopeProcessor

    return MopeProcessor(image_processor=tiny_image_processor(size), tokenizer=tiny_tokenizer(text), **kwargs)


def tiny_vision_config(vision: str = "vit", image_size: int = 32) -> dict[str, Any]:
    """The config of a two-layer vision tower (Swin: four stages, as its window needs) as a dict."""
    if vision == "swin":
        return {
            "model_type": "swin",
            "image_size": image_size,
            "patch_size": 2,
            "embed_dim": 4,
            "depths": [2, 2, 2, 2],
            "num_heads": [1, 1, 2, 2],
            "window_size": 2,
            "drop_path_rate": 0.0,
        }
    if vision in ("clip", "siglip"):
        config = {
            "model_type": f"{vision}_vision_model",
            "image_size": image_size,
            "patch_size": 8,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
        }
        return config if vision == "siglip" else {**config, "projection_dim": 20}
    if vision not in ("vit", "dinov2"):
        raise ValueError(f"vision={vision!r} must be 'vit', 'dinov2', 'swin', 'clip' or 'siglip'.")
    config = {
        "model_type": vision,
        "image_size": image_size,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return {**config, **({"intermediate_size": 48} if vision == "vit" else {"mlp_ratio": 2})}


def tiny_text_config(text: str = "bert") -> dict[str, Any]:
    """The config of a two-layer text tower that fits `tiny_tokenizer(text)` as a dict."""
    if text in ("clip", "siglip"):
        return {
            "model_type": f"{text}_text_model",
            "vocab_size": len(tiny_tokenizer("bert")),
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "max_position_embeddings": 80,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
            **({"projection_dim": 20} if text == "clip" else {"projection_size": 18}),
        }
    if text not in ("bert", "roberta"):
        raise ValueError(f"text={text!r} must be 'bert', 'roberta', 'clip' or 'siglip'.")
    config = {
        "model_type": text,
        "vocab_size": len(tiny_tokenizer(text)),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 80,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return config if text == "bert" else {**config, "type_vocab_size": 1, "pad_token_id": 1}


def tiny_mope_config(vision: str = "vit", text: str = "bert", image_size: int = 32, **fields: Any) -> Any:
    """A `MopeConfig` with tiny towers; `fields` are its own fields."""
    from fusionzoo.configuration.configuration_mope import MopeConfig

    return MopeConfig(
        vision_config=tiny_vision_config(vision, image_size), text_config=tiny_text_config(text), **fields
    )


def tiny_dcp_config(vision: str = "vit", text: str = "bert", image_size: int = 32, **fields: Any) -> Any:
    """A `DcpConfig` with tiny towers and short prompts; `fields` are its own fields."""
    from fusionzoo.configuration.configuration_dcp import DcpConfig

    # Narrower bottlenecks would be products whose last bit depends on where the weights lie in memory.
    fields = {"prompt_length": 6, "prompt_depth": 2, "reduction_factor": 2, **fields}
    return DcpConfig(
        vision_config=tiny_vision_config(vision, image_size), text_config=tiny_text_config(text), **fields
    )


def tiny_mmp_config(**fields: Any) -> Any:
    """An `MmpConfig` with a tiny ViLT; `fields` are its own fields."""
    from fusionzoo.configuration.configuration_mmp import MmpConfig

    backbone = {
        "model_type": "vilt",
        "vocab_size": len(tiny_tokenizer("bert")),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "image_size": 32,
        "patch_size": 16,
        "max_position_embeddings": 80,
    }
    return MmpConfig(**{"backbone_config": backbone, "prompt_length": 6, "cls_token_id": 2, **fields})
