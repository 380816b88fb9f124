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
"""Tiny models with random weights for the tuner's tests, their inputs, and MixLoRA configurations for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from fusionzoo import MixLoraConfig


IMAGE_TOKEN = 39
_LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_VISION = {
    "hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def _llava_config() -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**_VISION), text_config=LlamaConfig(**_LLAMA), image_token_index=IMAGE_TOKEN
    )


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_LLAMA)),
    "llava": lambda: LlavaForConditionalGeneration(_llava_config()),
    "bert": lambda: BertForSequenceClassification(
        BertConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40,
            num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    ),
    "vit": lambda: ViTForImageClassification(ViTConfig(**_VISION, num_labels=3)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    ),
}  # fmt: skip
MODELS = tuple(_BUILDERS)
_TARGETS = {
    "bert": ["query", "value", "dense"],  # the pooler among them, whose input has no positions
    "vit": ["q_proj", "v_proj", "query", "value", "fc1", "fc2"],
    "gpt2": ["c_attn", "c_fc"],  # Conv1D
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The model in eval mode; every call with one seed gives the same weights, spread wide enough to matter."""
    torch.manual_seed(seed)
    model = _BUILDERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def configure(name: str, **fields: Any) -> MixLoraConfig:
    """A configuration whose update is not zero."""
    values = {"r": 2, "num_experts": 6, "lora_dropout": 0.0, "init_weights": False, "lora_alpha": 4.0, **fields}
    return MixLoraConfig(**{"target_modules": _TARGETS.get(name), **values})


def inputs(name: str, labels: bool = True) -> dict[str, torch.Tensor]:
    """Three samples, the second of which ends in padding."""
    generator = torch.Generator().manual_seed(5)
    if name == "vit":
        batch = {"pixel_values": torch.randn(3, 3, 28, 28, generator=generator)}
        return batch | {"labels": torch.tensor([0, 2, 1])} if labels else batch
    ids = torch.randint(3, IMAGE_TOKEN, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    if name == "llava":
        batch["input_ids"][:, 1:5] = IMAGE_TOKEN
        batch["pixel_values"] = torch.randn(3, 3, 28, 28, generator=generator)
    if labels:
        answers = batch["input_ids"].masked_fill(mask == 0, -100)
        answers[:, :5] = -100
        batch["labels"] = torch.tensor([0, 2, 1]) if name == "bert" else answers
    return batch
