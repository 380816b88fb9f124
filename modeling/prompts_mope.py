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
"""The prompts of MoPE: static tokens, prompt experts with their routers, and tokens mapped from the other modality.

The long prompt of a block `i` of the steered tower is split into

    P_i = [ static_i ; sum_j r_ij(x, y) E_ij ; mapped(y) ]

with `n` static tokens shared by all instances, `n` dynamic tokens mixed from `k` prompt experts `E_ij`, and one token
mapped from the other modality's feature `y`. The router of a block (per block, nothing shared) computes

    q = [ W_a mean(x) + b_a ; W_b y + b_b ],    r = softmax(q K / tau + eps),    K frozen and orthogonal.

`MopePrompts` owns the parameters; `MopePrompts.steer(y)` gives the prompt source of one forward pass, which the loops
of `prompting` ask for the prompts of each block.
"""

import torch
from torch import nn

from ..configuration.configuration_mope import ROUTED_METHODS, MopeConfig
from .prompting import masked_mean
from .routing import routing_weights


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

    def pooled(
        self, prompts: torch.Tensor | None, tokens: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over the incoming tokens, arriving prompts included unless `router_pool="patches"`.

        Args:
            prompts: `(batch, P, width)`, or `None`.
            tokens: `(batch, T, width)`.
            mask: `(batch, T)`, 1 for the tokens that count; `None` counts all.
        """
        if prompts is not None and self.pool == "all":
            tokens = torch.cat([prompts, tokens], dim=1)
            mask = mask if mask is None else nn.functional.pad(mask, (prompts.shape[1], 0), value=1)
        return masked_mean(tokens, mask)  # (batch, width)

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
        if max(self.depths) <= self.first_block:
            raise ValueError(
                f'fuse_method="mope" leaves the first block of each stage without prompts, and the steered tower has '
                f"{self.depths} blocks; use a deeper tower, or prompt_first_block=True."
            )
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

    def freeze_unused(self) -> None:
        """Fixes what belongs to a stage whose only block takes the arriving prompts."""
        unused = [f".{stage}." for stage, depth in enumerate(self.depths) if depth <= self.first_block]
        for name, parameter in self.named_parameters():
            if any(stage in f".{name}." for stage in unused):
                parameter.requires_grad_(False)

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

    def steer(
        self, feature: torch.Tensor, noise: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> "MopeSteering":
        """The prompt source of one forward pass.

        Args:
            feature: `(batch, feature_size)` of the other modality.
            noise: `(batch, routed_blocks, num_experts)`, added to the routing logits; `None` draws it if it is due.
            mask: `(batch, T)`, 1 for the real tokens of the steered tower; `None` where none is padding.
        """
        return MopeSteering(self, feature, self.draw_noise(feature) if noise is None else noise, mask)


class MopeSteering:
    """What one forward pass needs of `MopePrompts`: mapped tokens, routing queries, and the scores as they arise."""

    def __init__(
        self, prompts: MopePrompts, feature: torch.Tensor, noise: torch.Tensor | None, mask: torch.Tensor | None
    ):
        self.bank, self.noise, self.mask, self.batch = prompts, noise, mask, feature.shape[0]
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
        pooled = router.pooled(prompts, tokens, self.mask)
        self.scores.append(router(index, pooled, self.cross_queries[stage][:, index], noise))
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


__all__ = [
    "MopeFeatureRouter", "MopeMapper", "MopePromptBank", "MopePrompts", "MopeRouter", "MopeStaticPrompts", "MopeSteering",
    "no_prompts",
]  # fmt: skip
