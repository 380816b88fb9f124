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
"""MMP, multimodal prompting with missing modalities (https://arxiv.org/abs/2303.03369), on ViLT.

ViLT reads text and picture as one sequence x = [text ; image]. At some layers it gets prompts P that depend on what is
absent (0 nothing, 1 the text, 2 the picture):

    input       x <- [P_i ; x], where the prompts stay          so the sequence grows by L at each prompted layer
    attention   softmax(q [P_i^k ; k]^T / sqrt(d)) [P_i^v ; v]   P_i = [P_i^k ; P_i^v], keys and values only

The pooler reads the text's [CLS]. Prompts, pooler and classifier train.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_mmp import MmpConfig
from .base import FusionPreTrainedModel
from .missing_modality import MissingType, lacks
from .outputs import FusionClassifierOutput, FusionModelOutput
from .prompted_vilt import Prefix, build_vilt, embed_image, embed_text, run_prompted_vilt


POSITIONS = "embeddings.text_embeddings.position_embeddings.weight"


@auto_docstring
class MmpPreTrainedModel(FusionPreTrainedModel):
    config: MmpConfig
    base_model_prefix = "mmp"
    tower_configs = {"backbone_model": "backbone_config"}
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MmpModel):
            init.copy_(module.prompts, self._first_prompts(module.prompts))
        elif isinstance(module, nn.Linear):  # ViLT initialises its own
            init.normal_(module.weight, std=self.config.classifier_initializer_range)
            init.zeros_(module.bias)

    def _first_prompts(self, like: torch.Tensor) -> torch.Tensor:
        """Zeros, with ones in the token that marks the missing type: 0, 2 and 1 (of each half for attention)."""
        prompts = torch.zeros(like.shape, device=like.device)
        halves = (0, self.config.prompt_length // 2) if self.config.prompt_type == "attention" else (0,)
        for kind, token in ((MissingType.COMPLETE, 0), (MissingType.TEXT, 2), (MissingType.IMAGE, 1)):
            for start in halves:
                if start + token < prompts.shape[2]:
                    prompts[kind, :, start + token] = 1
        return prompts

    def trained_parts(self, name: str, tower: nn.Module) -> list[nn.Module]:
        return [tower.pooler] if self.config.train_pooler else []

    @classmethod
    def tower_sources(
        cls, vision: str | Path | None, text: str | Path | None, hub_kwargs: dict[str, Any]
    ) -> dict[str, str | Path | None]:
        """ViLT is one model for both modalities: `vision` names it, `text` is `None` or the same."""
        if text is not None and vision is not None and str(text) != str(vision):
            raise ValueError(
                f"MMP has one ViLT for both modalities, but vision={str(vision)!r} and text={str(text)!r} differ; give "
                "vision alone."
            )
        return {"backbone_model": text if vision is None else vision}

    def fit_tower_state(
        self, name: str, state: dict[str, torch.Tensor], tower: PreTrainedModel
    ) -> dict[str, torch.Tensor]:
        """Stretches ViLT's table of text positions to `config.max_text_length`, as the official code does."""
        length = tower.config.max_position_embeddings
        if POSITIONS in state and state[POSITIONS].shape[0] != length:
            table = state[POSITIONS].float()[None, None]
            table = nn.functional.interpolate(table, size=(length, table.shape[-1]), mode="bilinear")[0, 0]
            state = {**state, POSITIONS: table.to(state[POSITIONS].dtype)}
        return state


@auto_docstring
class MmpModel(MmpPreTrainedModel):
    """ViLT with missing-aware prompts; gives the pooled feature of the text's [CLS]."""

    def __init__(self, config: MmpConfig):
        super().__init__(config)
        self.backbone_model = build_vilt(config.backbone_config, config._attn_implementation)
        shape = (
            len(MissingType),
            len(config.prompted_layers),
            config.prompt_length,
            config.backbone_config.hidden_size,
        )
        self.prompts = nn.Parameter(torch.empty(shape))
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        self.prompts.requires_grad_(self.config.learn_prompts)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone_model.set_input_embeddings(value)

    def prompts_of(self, types: torch.Tensor) -> tuple[dict[int, torch.Tensor], dict[int, Prefix]]:
        """Per prompted layer the input prompts, or the keys and values, of samples with these missing types."""
        chosen = self.prompts.index_select(0, types).unbind(dim=1)  # per layer (batch, L, dim)
        per_layer = dict(zip(self.config.prompted_layers, chosen))
        if self.config.prompt_type == "input":
            return per_layer, {}
        if not self.config.learn_prompts:
            return {}, {layer: (each, each) for layer, each in per_layer.items()}
        return {}, {layer: tuple(each.chunk(2, dim=1)) for layer, each in per_layer.items()}

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        missing_type: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionModelOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent. The result
            does not depend on the filler that stands in for an absent modality, unless
            `config.absent_inputs="filler"`.
        """
        given = pixel_values if pixel_values is not None else input_ids
        if given is None:
            raise ValueError("Give pixel_values, input_ids, or both; neither was given.")
        batch, device = given.shape[0], given.device
        types = torch.zeros(batch, dtype=torch.long, device=device)
        if missing_type is not None:
            types = missing_type.to(device, torch.long)
        if pixel_values is None:
            types = types | int(MissingType.IMAGE)
            side = self.config.backbone_config.image_size
            pixel_values, pixel_mask = torch.ones(batch, 3, side, side, device=device, dtype=self.dtype), None
        if input_ids is None:
            types = types | int(MissingType.TEXT)
            input_ids = torch.full((batch, 1), self.config.cls_token_id, dtype=torch.long, device=device)
            attention_mask = token_type_ids = None
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if pixel_mask is None:
            pixel_mask = torch.ones_like(pixel_values[:, 0], dtype=torch.long)
        if self.config.absent_inputs == "masked":
            no_image = lacks(types, MissingType.IMAGE)[:, None, None]
            no_text = lacks(types, MissingType.TEXT)[:, None]
            pixel_values = pixel_values.masked_fill(no_image[:, None], 0.0)
            pixel_mask = pixel_mask.masked_fill(no_image, 0)
            first = torch.arange(input_ids.shape[1], device=device) == 0
            input_ids = input_ids.masked_fill(no_text, self.config.cls_token_id)
            attention_mask = torch.where(no_text, first.to(attention_mask.dtype), attention_mask)
            if token_type_ids is not None:
                token_type_ids = token_type_ids.masked_fill(no_text, 0)

        tower = self.backbone_model
        text = embed_text(tower, input_ids, token_type_ids)
        image, image_mask = embed_image(tower, pixel_values, pixel_mask)
        hidden = torch.cat([text, image.to(text.dtype)], dim=1)
        key_mask = torch.cat([attention_mask.long(), image_mask], dim=1)
        inputs, prefixes = self.prompts_of(types.clamp(max=int(MissingType.IMAGE)))
        output = run_prompted_vilt(tower, hidden, key_mask, inputs, prefixes)
        num_prompts = output.shape[1] - hidden.shape[1]
        return FusionModelOutput(pooler_output=tower.pooler(tower.layernorm(output[:, num_prompts:])))


class MmpClassificationHead(nn.Module):
    """`Linear -> LayerNorm -> GELU -> Linear`."""

    def __init__(self, config: MmpConfig):
        super().__init__()
        hidden_size = config.backbone_config.hidden_size
        self.dense = nn.Linear(hidden_size, hidden_size * config.classifier_factor)
        self.norm = nn.LayerNorm(hidden_size * config.classifier_factor)
        self.activation = nn.GELU()
        self.out_proj = nn.Linear(hidden_size * config.classifier_factor, config.num_labels)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.activation(self.norm(self.dense(feature))))


@auto_docstring(custom_intro="MMP with a two-layer classifier on the pooled feature.")
class MmpForSequenceClassification(MmpPreTrainedModel):
    def __init__(self, config: MmpConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.mmp = MmpModel(config)
        self.classifier = MmpClassificationHead(config)
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        self.mmp.freeze_parts()

    def parameter_group(self, name: str) -> str:
        """`"head"` for the classifier; the rest learns alike."""
        return "head" if name.startswith("classifier.") else "fusion"

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        missing_type: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionClassifierOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent.
        labels (`torch.Tensor`, *optional*):
            `(batch_size,)` class ids, `(batch_size, num_labels)` floats for multi-label problems, or `(batch_size,)`
            floats for regression.
        """
        outputs: FusionModelOutput = self.mmp(
            pixel_values, input_ids, attention_mask, token_type_ids, pixel_mask, missing_type, **kwargs
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return FusionClassifierOutput(
            loss=loss,
            logits=logits,
            task_loss=None if loss is None else loss.detach(),
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["MmpForSequenceClassification", "MmpModel", "MmpPreTrainedModel"]
