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

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_mope import ROUTED_METHODS, MopeConfig
from .base import FusionPreTrainedModel, build_tower
from .missing_modality import MissingType, is_absent, replace_absent
from .outputs import FusionClassifierOutput, FusionModelOutput
from .prompting import run_prompted_swin, run_prompted_text, run_prompted_vit, tower_stages
from .routing import importance_loss, routing_weights


class MopePromptBank(nn.ParameterList):
    """Prompt tokens, one tensor per stage.

    Args:
        shapes: shape of each stage's tensor, `(..., blocks, length, width)`.
        init_range: draw uniformly from plus or minus this; `None` leaves it to `config.prompt_init`.
    """

    def __init__(self, shapes: list[tuple[int, ...]], init_range: float | None = None):
        super().__init__([torch.empty(shape) for shape in shapes])
        self.init_range = init_range


class MopeStaticPrompts(nn.Module):
    """Prompts shared by all instances, one set per block (visual prompt tuning, "deep")."""

    def __init__(self, config: MopeConfig, stages: list[tuple[int, int]], length: int, init_range: float | None):
        super().__init__()
        self.dropout = nn.Dropout(config.prompt_dropout)
        self.prompts = MopePromptBank([(depth, length, width) for width, depth in stages], init_range)

    def forward(self, stage: int, block: int, prompts: torch.Tensor | None, tokens: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.prompts[stage][block]).expand(tokens.shape[0], -1, -1)  # (batch, n, width)


class MopeMapper(nn.Module):
    """The other modality's feature, mapped to one token per stage: `GELU(V_s GELU(norm(W y + b)) + c_s)`."""

    def __init__(self, config: MopeConfig, feature_size: int, widths: list[int]):
        super().__init__()
        hidden_size = config.mapper_hidden_size
        self.always_use_statistics = config.mapper_norm == "affine"
        self.down = nn.Linear(feature_size, hidden_size)
        self.norm: nn.Module
        if config.mapper_norm in ("affine", "batch_norm"):
            self.norm = nn.BatchNorm1d(hidden_size)
        elif config.mapper_norm == "layer_norm":
            self.norm = nn.LayerNorm(hidden_size)
        else:
            self.norm = nn.Identity()
        self.up = nn.ModuleList([nn.Linear(hidden_size, width) for width in widths])
        self.activation = nn.GELU()

    def train(self, mode: bool = True) -> "MopeMapper":
        super().train(mode)
        if self.always_use_statistics:
            self.norm.eval()
        return self

    def encode(self, feature: torch.Tensor) -> torch.Tensor:
        """`(batch, feature_size)` to the shared hidden layer `(batch, mapper_hidden_size)`."""
        return self.activation(self.norm(self.down(feature)))

    def forward(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        """The hidden layer to one `(batch, width)` token per stage."""
        return [self.activation(up(hidden)) for up in self.up]


class MopeRouter(nn.Module):
    """Routers of one stage's blocks: `r = softmax([W_a mean(x) + b_a ; W_b y + b_b] K / tau + eps)`."""

    def __init__(self, config: MopeConfig, blocks: int, width: int, feature_size: int):
        super().__init__()
        self.blocks, self.cross_dim = blocks, config.router_cross_dim
        self.temperature, self.top_k, self.pool = config.router_temperature, config.router_top_k, config.router_pool
        self.cross_proj = nn.Linear(feature_size, blocks * config.router_cross_dim)  # all blocks in one product
        self.self_weight = nn.Parameter(torch.empty(blocks, config.router_self_dim, width))
        self.self_bias = nn.Parameter(torch.empty(blocks, config.router_self_dim))
        keys = torch.empty(blocks, config.router_self_dim + config.router_cross_dim, config.num_experts)
        self.keys = nn.Parameter(keys) if config.train_router_keys else nn.Buffer(keys)

    def cross_query(self, feature: torch.Tensor) -> torch.Tensor:
        """`W_b y + b_b` of all blocks: `(batch, feature_size)` to `(batch, blocks, router_cross_dim)`."""
        return self.cross_proj(feature).unflatten(-1, (self.blocks, self.cross_dim))

    def pooled(self, prompts: torch.Tensor | None, tokens: torch.Tensor) -> torch.Tensor:
        """The mean over the incoming tokens, arriving prompts included unless `router_pool="patches"`."""
        if prompts is not None and self.pool == "all":
            tokens = torch.cat([prompts, tokens], dim=1)
        return tokens.mean(dim=1)  # (batch, width)

    def self_query(self, block: int, pooled: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(pooled, self.self_weight[block], self.self_bias[block])

    def logits(self, block: int, self_query: torch.Tensor, cross_query: torch.Tensor) -> torch.Tensor:
        query = torch.cat([self_query, cross_query], dim=-1)  # (batch, router_self_dim + router_cross_dim)
        return query @ self.keys[block].to(query.dtype) / self.temperature  # (batch, experts)

    def forward(
        self, block: int, pooled: torch.Tensor, cross_query: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor:
        logits = self.logits(block, self.self_query(block, pooled), cross_query)
        return routing_weights(logits if noise is None else logits + noise, self.top_k)


class MopeFeatureRouter(nn.Module):
    """Routers that see the other modality alone: `r = softmax((W_i y + b_i) / tau + eps)` for every row `i`."""

    def __init__(self, config: MopeConfig, rows: int, feature_size: int):
        super().__init__()
        self.rows, self.temperature, self.top_k = rows, config.router_temperature, config.router_top_k
        self.proj = nn.Linear(feature_size, rows * config.num_experts)

    def forward(self, feature: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        logits = self.proj(feature).unflatten(-1, (self.rows, -1)) / self.temperature
        return routing_weights(logits if noise is None else logits + noise, self.top_k)  # (batch, rows, experts)


class MopePrompts(nn.Module):
    """The prompts of the steered tower: static tokens, prompt experts with their routers, and mapped tokens.

    Args:
        config: the model's configuration.
        stages: `(width, blocks)` of each stage of the steered tower.
        length: tokens of a static prompt and of an expert.
        feature_size: width of the steering feature.
    """

    def __init__(self, config: MopeConfig, stages: list[tuple[int, int]], length: int, feature_size: int):
        super().__init__()
        text = config.text_is_steered
        self.kinds = config.prompt_kinds
        self.depths = [depth for _, depth in stages]
        self.noise_std, self.noise_in_eval = config.router_noise_std, config.router_noise_in_eval
        self.num_experts = config.num_experts
        self.self_routed = config.fuse_method == "mope"
        # The paper's method leaves the first block of each stage to the prompts that arrive.
        every_block = text or config.fuse_method != "mope" or config.prompt_first_block
        self.first_block = 0 if every_block else 1
        init_range = config.text_prompt_init_range if text else None
        # The official code drops out the prompts themselves everywhere but in the paper's own method.
        self.drop_prompts = config.fuse_method == "text_router" or (text and config.fuse_method in ROUTED_METHODS)
        self.dropout = nn.Dropout(config.prompt_dropout)

        prompted = [(width, depth - self.first_block) for width, depth in stages]
        if "static" in self.kinds:
            self.static = MopePromptBank([(depth, length, width) for width, depth in prompted], init_range)
        if "dynamic" in self.kinds:
            self.experts = MopePromptBank(
                [(config.num_experts, depth, length, width) for width, depth in prompted], init_range
            )
            if self.self_routed:
                self.routers = nn.ModuleList(
                    [MopeRouter(config, depth, width, feature_size) for width, depth in prompted]
                )
            else:
                self.router = MopeFeatureRouter(config, self.feature_router_rows(config), feature_size)
        if "mapped" in self.kinds:
            self.mapper_groups = self.mapper_groups_of(config)
            widths = [stages[0][0]] * (max(self.mapper_groups) + 1) if text else [width for width, _ in stages]
            self.mapper = MopeMapper(config, feature_size, widths)
        self.arriving = None
        if not every_block:
            num_prompts = length * (len(self.kinds) - ("mapped" in self.kinds)) + ("mapped" in self.kinds)
            self.arriving = nn.Parameter(torch.empty(num_prompts, stages[0][0]))

    def feature_router_rows(self, config: MopeConfig) -> int:
        """Rows of the router that sees the other modality alone: one a layer for text; for vision the official code
        has one less than blocks, and lets the first two blocks share a row."""
        return sum(self.depths) if config.text_is_steered else max(sum(self.depths) - 1, 1)

    def mapper_groups_of(self, config: MopeConfig) -> list[int]:
        """Which output layer of the mapper serves which text layer: four layers share one, at most three outputs."""
        if config.text_is_steered and config.fuse_method in (*ROUTED_METHODS, "mapped"):
            return [min(layer // 4, 2) for layer in range(sum(self.depths))]
        return [0] * sum(self.depths) if config.text_is_steered else []

    def router_row(self, stage: int, block: int) -> int:
        """The routing row of a block: for text its layer, for vision see `feature_router_rows`."""
        row = sum(self.depths[:stage]) + block
        return row if self.router.rows == sum(self.depths) else max(row - 1, 0)

    def num_routed_blocks(self) -> int:
        if "dynamic" not in self.kinds:
            return 0
        return sum(router.blocks for router in self.routers) if self.self_routed else self.router.rows

    def draw_noise(self, feature: torch.Tensor) -> torch.Tensor | None:
        """Routing noise `eps ~ N(0, std^2)` of all blocks, `(batch, routed_blocks, num_experts)`; `None` without."""
        if not self.noise_std or not (self.training or self.noise_in_eval) or not self.num_routed_blocks():
            return None
        shape = (feature.shape[0], self.num_routed_blocks(), self.num_experts)
        return torch.randn(shape, device=feature.device, dtype=feature.dtype) * self.noise_std

    def mixed(self, stage: int, index: int, scores: torch.Tensor) -> torch.Tensor:
        """Dynamic prompts `sum_j r_j E_j`: `(batch, num_experts)` to `(batch, length, width)`."""
        return torch.einsum("bk,knc->bnc", scores, self.experts[stage][:, index].to(scores.dtype))

    def join(
        self, stage: int, index: int, batch: int, dynamic: torch.Tensor | None, mapped: torch.Tensor | None
    ) -> torch.Tensor:
        """`[static; dynamic; mapped]` of one block, in the method's order: `(batch, P, width)`."""
        parts = {"mapped": mapped}
        if "static" in self.kinds:
            parts["static"] = self.static[stage][index].expand(batch, -1, -1)
        if dynamic is not None:
            parts["dynamic"] = dynamic
        if self.drop_prompts:
            parts |= {kind: self.dropout(part) for kind, part in parts.items() if kind != "mapped"}
        return torch.cat([parts[kind] for kind in self.kinds], dim=1)

    def steer(self, feature: torch.Tensor, noise: torch.Tensor | None = None) -> "MopeSteering":
        """The prompt source of one forward pass.

        Args:
            feature: `(batch, feature_size)` of the other modality.
            noise: `(batch, routed_blocks, num_experts)`, added to the routing logits; `None` draws it if it is due.
        """
        return MopeSteering(self, feature, self.draw_noise(feature) if noise is None else noise)


class MopeSteering:
    """What one forward pass needs of `MopePrompts`: mapped tokens, routing queries, and the scores as they arise."""

    def __init__(self, prompts: MopePrompts, feature: torch.Tensor, noise: torch.Tensor | None):
        self.bank, self.noise, self.batch = prompts, noise, feature.shape[0]
        self.scores: list[torch.Tensor] = []
        self.mapped: list[torch.Tensor] = []
        if "mapped" in prompts.kinds:
            self.mapped = [
                prompts.dropout(token).unsqueeze(1) for token in prompts.mapper(prompts.mapper.encode(feature))
            ]
        if "dynamic" in prompts.kinds:
            if prompts.self_routed:
                self.cross_queries = [router.cross_query(feature) for router in prompts.routers]
            else:
                self.feature_scores = prompts.router(feature, noise)

    def route(
        self, stage: int, block: int, index: int, prompts: torch.Tensor | None, tokens: torch.Tensor
    ) -> torch.Tensor:
        bank = self.bank
        if not bank.self_routed:
            return self.feature_scores[:, bank.router_row(stage, block)]
        router = bank.routers[stage]
        noise = None if self.noise is None else self.noise[:, len(self.scores)]
        self.scores.append(router(index, router.pooled(prompts, tokens), self.cross_queries[stage][:, index], noise))
        return self.scores[-1]

    def __call__(
        self, stage: int, block: int, prompts: torch.Tensor | None, tokens: torch.Tensor
    ) -> torch.Tensor | None:
        bank = self.bank
        if block < bank.first_block:
            if prompts is None:  # the tower's very first block
                return bank.dropout(bank.arriving).expand(self.batch, -1, -1)
            return None
        index = block - bank.first_block
        dynamic = None
        if "dynamic" in bank.kinds:
            dynamic = bank.mixed(stage, index, self.route(stage, block, index, prompts, tokens))
        mapped = None
        if self.mapped:
            mapped = self.mapped[bank.mapper_groups[block] if bank.mapper_groups else stage]
        return bank.join(stage, index, self.batch, dynamic, mapped)

    def router_scores(self) -> torch.Tensor | None:
        """`(batch, routed_blocks, num_experts)`, or `None` without routing."""
        if "dynamic" not in self.bank.kinds:
            return None
        if not self.bank.self_routed:
            return self.feature_scores
        return torch.stack(self.scores, dim=1) if self.scores else None


def no_prompts(stage: int, block: int, prompts: torch.Tensor | None, tokens: torch.Tensor) -> None:
    """The prompt source of an unprompted tower."""
    return


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
            for substitute in (module.absent_image, module.absent_text):
                if substitute is not None:
                    init.zeros_(substitute)

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
        self.vision_prompts = self.text_prompts = self.fusion_prompts = self.text_mapper = None
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
        mask_token = getattr(getattr(self.vision_model, "embeddings", None), "mask_token", None)
        if mask_token is not None:  # masked-image pretraining only; never part of our graph
            mask_token.requires_grad_(False)

    @property
    def vision_feature_size(self) -> int:
        return tower_stages(self.vision_model)[-1][0]

    @property
    def feature_size(self) -> int:
        """Width of `pooler_output`."""
        text, vision = self.config.text_config.hidden_size, 0
        if self.config.uses_vision:
            vision = self.vision_feature_size
        if self.config.fuse_method in ("late_concat", "ensemble"):
            return vision + text
        return text if self.config.text_is_steered or not self.config.uses_vision else vision

    def get_input_embeddings(self) -> nn.Module:
        return (self.text_model or self.vision_model).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        (self.text_model or self.vision_model).set_input_embeddings(value)

    def encode_text(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        absent: torch.Tensor | None,
        next_prompts: Any,
        num_prompts: int,
    ) -> torch.Tensor:
        """The text tower's feature, `(batch, text_hidden_size)`.

        Args:
            input_ids, attention_mask, token_type_ids: `(batch, T)`.
            absent: `(batch,)` booleans, samples without text; they are read as one learned token.
            next_prompts: prompt source, see `prompting`.
            num_prompts: prompts per layer.
        """
        embeddings = self.text_model.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        embeddings = replace_absent(embeddings, self.absent_text, absent)
        if absent is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            first = torch.arange(input_ids.shape[1], device=input_ids.device) == 0
            attention_mask = attention_mask * (~absent[:, None] | first)
        hidden = run_prompted_text(self.text_model, embeddings, attention_mask, next_prompts)
        if self.config.text_pooling == "pooler":
            return self.text_model.pooler(hidden)
        if self.config.text_pooling == "cls":
            return hidden[:, 0]
        tokens = torch.cat([hidden[:, :1], hidden[:, 1 + num_prompts :]], dim=1)
        if attention_mask is None:
            return tokens.mean(dim=1)
        weights = attention_mask.to(tokens.dtype).unsqueeze(-1)
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)

    def encode_image(self, pixel_values: torch.Tensor, absent: torch.Tensor | None, next_prompts: Any) -> torch.Tensor:
        """The vision tower's feature, `(batch, vision_feature_size)`.

        Args:
            pixel_values: `(batch, 3, height, width)`.
            absent: `(batch,)` booleans, samples without image; each of their patches is one learned token.
            next_prompts: prompt source, see `prompting`.
        """
        tower = self.vision_model
        if self.config.vision_config.model_type == "swin":
            patches, grid = tower.embeddings(pixel_values)
            patches = replace_absent(patches, self.absent_image, absent)
            order = self.config.window_prompt_order
            hidden, num_prompts = run_prompted_swin(tower, patches, grid, None, next_prompts, order)
            return (hidden if self.config.pool_prompts else hidden[:, num_prompts:]).mean(dim=1)
        tokens = tower.embeddings(pixel_values)
        patches = replace_absent(tokens[:, 1:], self.absent_image, absent)
        hidden = run_prompted_vit(tower, torch.cat([tokens[:, :1], patches], dim=1), next_prompts)
        if self.config.vision_pooling == "cls":
            return hidden[:, 0]
        return hidden[:, -patches.shape[1] :].mean(dim=1)

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
        pixel_values, input_ids, missing_type = self._complete_inputs(pixel_values, input_ids, missing_type)
        text_absent = is_absent(missing_type, MissingType.TEXT)
        image_absent = is_absent(missing_type, MissingType.IMAGE)
        text_inputs = (input_ids, attention_mask, token_type_ids)

        text = vision = steering = None
        if self.text_prompts is not None:
            text_source, num_text_prompts = self.text_prompts, self.config.text_prompt_length
        else:
            text_source, num_text_prompts = no_prompts, 0
        vision_source = self.vision_prompts if self.vision_prompts is not None else no_prompts

        if self.config.text_is_steered:  # the image is encoded first and steers the text tower
            vision = self.encode_image(pixel_values, image_absent, vision_source)
            steering = self.fusion_prompts.steer(vision, router_noise)
            num_text_prompts = self.num_text_fusion_prompts
            text = self.encode_text(*text_inputs, text_absent, steering, num_text_prompts)
        else:
            if self.text_model is not None:
                text = self.encode_text(*text_inputs, text_absent, text_source, num_text_prompts)
            if self.config.vision_is_steered:
                steering = self.fusion_prompts.steer(text, router_noise)
                vision_source = steering
            if self.vision_model is not None:
                vision = self.encode_image(pixel_values, image_absent, vision_source)

        if self.config.fuse_method in ("late_concat", "ensemble"):
            pooled = torch.cat([vision, text], dim=-1)
        else:
            pooled = text if self.config.text_is_steered or vision is None else vision
        scores = steering.router_scores() if steering is not None else None
        return FusionModelOutput(
            pooler_output=pooled,
            text_feature=text,
            vision_feature=vision,
            router_scores=scores,
            importance_loss=None if scores is None else importance_loss(scores, self.config.importance_threshold),
        )

    @property
    def num_text_fusion_prompts(self) -> int:
        kinds, length = self.config.prompt_kinds, self.config.text_prompt_length
        return sum(1 if kind == "mapped" else length for kind in kinds)

    def _complete_inputs(
        self,
        pixel_values: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        missing_type: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Fillers for a modality that the whole batch lacks; the result does not depend on them."""
        if pixel_values is None and input_ids is None:
            raise ValueError("Give pixel_values, input_ids, or both; neither was given.")
        given = pixel_values if pixel_values is not None else input_ids
        if missing_type is None and (pixel_values is None or input_ids is None):
            missing_type = torch.zeros(given.shape[0], dtype=torch.long, device=given.device)
        if pixel_values is None:
            missing_type = missing_type | int(MissingType.IMAGE)
            if self.config.uses_vision:
                vision = self.config.vision_config
                side = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
                shape = (given.shape[0], vision.num_channels, side, side)
                pixel_values = torch.zeros(shape, device=given.device, dtype=self.dtype)
        if input_ids is None:
            missing_type = missing_type | int(MissingType.TEXT)
            if self.config.uses_text:
                input_ids = torch.zeros((given.shape[0], 1), dtype=torch.long, device=given.device)
        return pixel_values, input_ids, missing_type


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
        """Official groups: the classifier and the fusion prompts learn with the tower that they belong to."""
        group = super().parameter_group(name)
        if group == "fusion" and "mapper" not in name and ".router." not in name:
            return "text" if self.config.text_is_steered or not self.config.uses_vision else "vision"
        return group

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
