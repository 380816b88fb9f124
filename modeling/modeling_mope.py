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
"""MoPE: Mixture of Prompt Experts (https://arxiv.org/abs/2403.10568).

Two unimodally pretrained, frozen encoders are fused for classification by prompts. The text is encoded first; its
feature `y` then steers, block by block, the prompts of the vision tower. The long prompt of a block is split into

    P_i = [ static_i ; sum_j r_ij(x, y) E_ij ; mapped(y) ]

with `n` static tokens shared by all instances, `n` dynamic tokens mixed from `k` prompt experts `E_ij`, and one token
mapped from the other modality. The router of block `i` (per block, nothing shared) computes

    q = [ W_a mean(x) + b_a ; W_b y + b_b ],    r = softmax(q K / tau + eps),    K frozen and orthogonal.

An importance loss `(std(S) / mean(S))^2` of `S_j = sum_batch r_j` keeps the experts in use.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_mope import MopeConfig
from .base import FusionPreTrainedModel, build_tower
from .missing_modality import MissingType, is_absent, replace_absent
from .outputs import FusionClassifierOutput, FusionModelOutput
from .prompting import (
    NextPrompts,
    masked_mean,
    num_special_tokens,
    remove_after_first,
    run_prompted_swin,
    run_prompted_text,
    run_prompted_vit,
    tower_stages,
)
from .prompts_mope import MopePromptBank, MopePrompts, MopeRouter, MopeStaticPrompts, no_prompts
from .routing import importance_loss


@auto_docstring
class MopePreTrainedModel(FusionPreTrainedModel):
    config: MopeConfig
    base_model_prefix = "mope"
    eval_when_frozen = ("vision_model",)
    _no_split_modules = ["MopePrompts"]
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5  # torch's default, which the official code keeps
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, MopePromptBank):
            for prompts in module:
                self._init_prompts(prompts, module.init_range)
        elif isinstance(module, MopePrompts) and module.arriving is not None:
            self._init_prompts(module.arriving, None)
        elif isinstance(module, MopeRouter):
            bound = module.self_weight.shape[-1] ** -0.5
            init.uniform_(module.self_weight, -bound, bound)
            init.uniform_(module.self_bias, -bound, bound)
            keys = torch.empty(module.keys.shape, device=module.keys.device)
            for block_keys in keys:
                nn.init.orthogonal_(block_keys)
            init.copy_(module.keys, keys)
        elif isinstance(module, MopeModel):
            # Not zeros: the gradient of LayerNorm at a constant token is hundreds of times that of anything else.
            if module.absent_image is not None:
                bound = self._vision_prompt_bound()
                init.uniform_(module.absent_image, -bound, bound)
            if module.absent_text is not None:
                bound = self.config.text_prompt_init_range
                init.uniform_(module.absent_text, -bound, bound)

    def _init_prompts(self, prompts: torch.Tensor, init_range: float | None) -> None:
        """Uniform in plus or minus `init_range`, or as `config.prompt_init` says for vision prompts."""
        if init_range is None and self.config.prompt_init == "normal":
            init.trunc_normal_(prompts, std=1.0, a=-2.0, b=2.0)
        elif init_range is None and self.config.prompt_init == "orthogonal":
            drawn = torch.empty(prompts.shape, device=prompts.device)
            for block in drawn.flatten(0, -3) if drawn.dim() > 2 else drawn.unsqueeze(0):
                nn.init.orthogonal_(block)
            init.copy_(prompts, drawn)
        else:
            bound = self._vision_prompt_bound() if init_range is None else init_range
            init.uniform_(prompts, -bound, bound)

    def _vision_prompt_bound(self) -> float:
        """sqrt(6 / (3 p^2 + E)) for patches of side p embedded in E dimensions, as in visual prompt tuning."""
        vision = self.config.vision_config
        patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
        width = vision.embed_dim if vision.model_type == "swin" else vision.hidden_size
        return (6 / (3 * patch**2 + width)) ** 0.5


@auto_docstring
class MopeModel(MopePreTrainedModel):
    """Both towers and the prompts between them; gives the fused feature."""

    def __init__(self, config: MopeConfig):
        super().__init__(config)
        self.vision_model = self.text_model = None
        self.vision_prompts = self.text_prompts = None
        self.fusion_prompts: MopePrompts | Any = None
        self.absent_image = self.absent_text = None
        if config.uses_vision:
            self.vision_model = build_tower(config.vision_config)
            stages = tower_stages(self.vision_model)
            self.absent_image = nn.Parameter(torch.empty(stages[0][0]))
            if config.prompt_length and not config.vision_is_steered:
                self.vision_prompts = MopeStaticPrompts(config, stages, config.prompt_length, None)
        if config.uses_text:
            self.text_model = build_tower(config.text_config, pooler=config.text_pooling == "pooler")
            self.absent_text = nn.Parameter(torch.empty(config.text_config.hidden_size))
            if config.text_prompt_length and not config.text_is_steered:
                self.text_prompts = MopeStaticPrompts(
                    config, tower_stages(self.text_model), config.text_prompt_length, config.text_prompt_init_range
                )
        if config.vision_is_steered:
            self.fusion_prompts = MopePrompts(
                config, tower_stages(self.vision_model), config.prompt_length, config.text_config.hidden_size
            )
        elif config.text_is_steered:
            self.fusion_prompts = MopePrompts(
                config, tower_stages(self.text_model), config.text_prompt_length, self.vision_feature_size
            )
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        if self.text_prompts is not None and not self.config.train_text_prompts:
            self.text_prompts.requires_grad_(False)
        if self.fusion_prompts is not None:
            self.fusion_prompts.freeze_unused()
        mask_token = getattr(getattr(self.vision_model, "embeddings", None), "mask_token", None)
        if mask_token is not None:  # masked-image pretraining only; never part of our graph
            mask_token.requires_grad_(False)

    @property
    def vision_feature_size(self) -> int:
        return tower_stages(self.vision_model)[-1][0]

    @property
    def feature_size(self) -> int:
        """Width of `pooler_output`."""
        classified = self.config.classified_modalities
        vision = self.vision_feature_size if "vision" in classified else 0
        return vision + (self.config.text_config.hidden_size if "text" in classified else 0)

    def get_input_embeddings(self) -> nn.Module:
        return next(iter(reversed(self.towers().values()))).get_input_embeddings()  # the text's, if there is text

    def set_input_embeddings(self, value: nn.Module) -> None:
        next(iter(reversed(self.towers().values()))).set_input_embeddings(value)

    def encode_text(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        absent: torch.Tensor | None,
        next_prompts: NextPrompts | None,
    ) -> torch.Tensor | None:
        """The text tower's feature, `(batch, text_hidden_size)`; `None` for a method without text.

        Args:
            input_ids, attention_mask, token_type_ids: `(batch, T)`.
            absent: `(batch,)` booleans, samples without text; their tokens become a learned one (the mask should show
                the first alone).
            next_prompts: prompt source, see `prompting`; `None` leaves the tower unprompted.
        """
        if self.text_model is None:
            return None
        embeddings = self.text_model.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        embeddings = replace_absent(embeddings, self.absent_text, absent)
        hidden = run_prompted_text(self.text_model, embeddings, attention_mask, next_prompts or no_prompts)
        if self.config.text_pooling == "pooler":
            return self.text_model.pooler(hidden)
        if self.config.text_pooling == "cls":
            return hidden[:, 0]
        tokens, _ = remove_after_first(hidden, hidden.shape[1] - embeddings.shape[1])
        return masked_mean(tokens, attention_mask)

    def encode_image(
        self, pixel_values: torch.Tensor | None, absent: torch.Tensor | None, next_prompts: NextPrompts | None
    ) -> torch.Tensor | None:
        """The vision tower's feature, `(batch, vision_feature_size)`; `None` for a method without images.

        Args:
            pixel_values: `(batch, 3, height, width)`.
            absent: `(batch,)` booleans, samples without image; each of their patches is one learned token.
            next_prompts: prompt source, see `prompting`; `None` leaves the tower unprompted.
        """
        tower = self.vision_model
        if tower is None:
            return None
        next_prompts = next_prompts or no_prompts
        if self.config.vision_config.model_type == "swin":
            patches, grid = tower.embeddings(pixel_values)
            patches = replace_absent(patches, self.absent_image, absent)
            order = self.config.window_prompt_order
            hidden, num_prompts = run_prompted_swin(tower, patches, grid, None, next_prompts, order)
            return (hidden if self.config.pool_prompts else hidden[:, num_prompts:]).mean(dim=1)
        tokens = tower.embeddings(pixel_values)
        special, patches = tokens.tensor_split([num_special_tokens(tower)], dim=1)
        patches = replace_absent(patches, self.absent_image, absent)
        hidden = run_prompted_vit(tower, torch.cat([special, patches], dim=1), next_prompts)
        if self.config.vision_pooling == "cls":
            return hidden[:, 0]
        pooled = hidden[:, -patches.shape[1] :]
        num_prompts = hidden.shape[1] - tokens.shape[1]
        if self.config.pool_prompts and num_prompts:
            pooled = torch.cat([hidden[:, 1 : 1 + num_prompts], pooled], dim=1)
        return pooled.mean(dim=1)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        missing_type: torch.LongTensor | None = None,
        router_noise: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionModelOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent. The result
            does not depend on the filler that stands in for an absent modality.
        router_noise (`torch.FloatTensor` of shape `(batch_size, routed_blocks, num_experts)`, *optional*):
            Noise to add to the routing logits instead of drawing it.
        """
        text_inputs = (input_ids, attention_mask, token_type_ids)
        pixel_values, text_inputs, missing_type = self._complete_inputs(pixel_values, text_inputs, missing_type)
        read_text = partial(self.encode_text, *text_inputs, is_absent(missing_type, MissingType.TEXT))
        see_image = partial(self.encode_image, pixel_values, is_absent(missing_type, MissingType.IMAGE))

        if self.config.text_is_steered:
            vision = see_image(self.vision_prompts)
            steering = self.fusion_prompts.steer(vision, router_noise, text_inputs[1])
            text = read_text(steering)
        else:
            text = read_text(self.text_prompts)
            steering = self.fusion_prompts and self.fusion_prompts.steer(text, router_noise)
            vision = see_image(steering or self.vision_prompts)

        features = {"vision": vision, "text": text}
        threshold = self.config.importance_threshold or 0.0
        scores = steering and steering.router_scores()
        return FusionModelOutput(
            pooler_output=torch.cat([features[name] for name in self.config.classified_modalities], dim=-1),
            text_feature=text,
            vision_feature=vision,
            router_scores=scores,
            importance_loss=None if scores is None else importance_loss(scores, threshold),
        )

    def _complete_inputs(
        self,
        pixel_values: torch.Tensor | None,
        text_inputs: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
        missing_type: torch.Tensor | None,
    ) -> tuple[
        torch.Tensor | None, tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None], torch.Tensor | None
    ]:
        """Fillers for a modality that the whole batch lacks, and a mask that shows one token of an absent text; the
        result does not depend on fillers."""
        input_ids, attention_mask, token_type_ids = text_inputs
        given = pixel_values if pixel_values is not None else input_ids
        if given is None:
            raise ValueError("Give pixel_values, input_ids, or both; neither was given.")
        lacking = int(MissingType.IMAGE) * (pixel_values is None) | int(MissingType.TEXT) * (input_ids is None)
        if lacking:
            complete = torch.zeros(given.shape[0], dtype=torch.long, device=given.device)
            missing_type = (complete if missing_type is None else missing_type) | lacking
        if pixel_values is None and self.vision_model is not None:
            vision = self.config.vision_config
            side = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
            shape = (given.shape[0], vision.num_channels, side, side)
            pixel_values = torch.zeros(shape, device=given.device, dtype=self.dtype)
        if input_ids is None:
            input_ids = torch.zeros((given.shape[0], 1), dtype=torch.long, device=given.device)
            attention_mask = token_type_ids = None
        absent = is_absent(missing_type, MissingType.TEXT)
        if absent is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            only_first = torch.zeros_like(attention_mask)
            only_first[:, 0] = 1
            attention_mask = torch.where(absent[:, None], only_first, attention_mask)
        return pixel_values, (input_ids, attention_mask, token_type_ids), missing_type


@auto_docstring(custom_intro="MoPE with a linear classifier on the fused feature.")
class MopeForSequenceClassification(MopePreTrainedModel):
    def __init__(self, config: MopeConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.mope = MopeModel(config)
        if config.fuse_method == "ensemble":  # one head per tower; the logits are averaged
            self.vision_classifier = nn.Linear(self.mope.vision_feature_size, config.num_labels)
            self.text_classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)
        else:
            self.classifier = nn.Linear(self.mope.feature_size, config.num_labels)
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        self.mope.freeze_parts()

    def parameter_group(self, name: str) -> str:
        """The official groups: what lies inside a tower learns with it, and so does its classifier; a mapper or router
        between the towers, and the head on both, are `"fusion"`."""
        group, classified = super().parameter_group(name), self.config.classified_modalities
        if group != "fusion" or len(classified) == 2:
            return group
        between = ".mapper." in name or ".router." in name
        if between and not (self.config.fuse_method == "mope" and self.config.vision_is_steered):
            return "fusion"
        return classified[0]

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        missing_type: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        router_noise: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionClassifierOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent.
        labels (`torch.Tensor`, *optional*):
            `(batch_size,)` class ids, `(batch_size, num_labels)` floats for multi-label problems, or `(batch_size,)`
            floats for regression.
        router_noise (`torch.FloatTensor` of shape `(batch_size, routed_blocks, num_experts)`, *optional*):
            Noise to add to the routing logits instead of drawing it.
        """
        outputs: FusionModelOutput = self.mope(
            pixel_values, input_ids, attention_mask, token_type_ids, missing_type, router_noise, **kwargs
        )
        if self.config.fuse_method == "ensemble":
            logits = self.vision_classifier(outputs.vision_feature) + self.text_classifier(outputs.text_feature)
            logits = logits / 2
        else:
            logits = self.classifier(outputs.pooler_output)

        loss = task_loss = None
        if labels is not None:
            loss = task_loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
            if outputs.importance_loss is not None:
                loss = task_loss + self.config.importance_loss_weight * outputs.importance_loss
        return FusionClassifierOutput(
            loss=loss,
            logits=logits,
            task_loss=None if task_loss is None else task_loss.detach(),
            importance_loss=None if outputs.importance_loss is None else outputs.importance_loss.detach(),
            router_scores=outputs.router_scores,
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["MopeForSequenceClassification", "MopeModel", "MopePreTrainedModel"]
