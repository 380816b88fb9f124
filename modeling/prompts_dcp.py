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
"""The prompts of DCP: correlated over depth and modalities, common to both modalities, and made from the input.

Which prompts a sample gets depends on its missing type T alone (0 complete, 1 text absent, 2 image absent). The
correlated prompts of block j are generated from those of the block before, of both modalities (d = d_v + d_t):

    (V, S) := initial image and text prompt of T                            (K, d_v), (K, d_t)
    u := [V ; S]     V := F_v^j(LN_v^j(u))     S := F_t^j(LN_t^j(u))         for j = 0 .. J-1
    F = Linear(d, d // r), GELU, Linear(d // r, d_m)

The first block also receives the common prompts `G_m(c_T)` and the dynamic prompts `D = Attention(q_T, X, X)` of the
tower's embedded tokens X. Only three chains exist, so `DcpPromptLearner` computes them once per forward pass, and
samples gather theirs by type.
"""

import torch
from torch import nn

from ..configuration.configuration_dcp import DcpConfig


# Row of the initial prompts for T = 0, 1, 2, where a modality has one prompt if present (0) and one if absent (1).
PRESENT_ABSENT = {"vision": (0, 0, 1), "text": (0, 1, 0)}
PER_TYPE = (0, 1, 2)


class DcpBottleneck(nn.Module):
    """`Linear -> GELU -> Linear` through a width of `width // reduction_factor`."""

    def __init__(self, width: int, out_width: int, reduction_factor: int):
        super().__init__()
        hidden_size = max(width // reduction_factor, 1)
        self.down = nn.Linear(width, hidden_size)
        self.activation = nn.GELU()
        self.up = nn.Linear(hidden_size, out_width)

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        return self.up(self.activation(self.down(prompts)))


class DcpGenerator(nn.Module):
    """One step of the chain for one modality, `F(LN(u))`, or `LN(F(u))` with `correlated_norm="post"`."""

    def __init__(self, config: DcpConfig, width: int, out_width: int):
        super().__init__()
        self.norm_first = config.correlated_norm == "pre"
        self.norm = nn.LayerNorm(width if self.norm_first else out_width)
        self.bottleneck = DcpBottleneck(width, out_width, config.reduction_factor)

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        return self.bottleneck(self.norm(prompts)) if self.norm_first else self.norm(self.bottleneck(prompts))


class DcpPromptLearner(nn.Module):
    """Everything that depends on the missing type alone: correlated (or independent) and common prompts."""

    def __init__(self, config: DcpConfig):
        super().__init__()
        self.kinds, self.bimodal = config.prompt_kinds, config.correlated_bimodal
        self.depth, self.independent = config.prompt_depth, config.prompt_type == "independent"
        self.generate_first = config.generate_first_prompt
        widths, length = config.widths, config.length_per_kind
        per_type = config.prompt_sharing == "per_type"
        self.initial_rows = {name: PER_TYPE if per_type else PRESENT_ABSENT[name] for name in widths}
        if "correlated" in self.kinds:
            shape = (3 if per_type else 2, *((self.depth,) if self.independent else ()), length)
            self.vision_prompts = nn.Parameter(torch.empty(*shape, widths["vision"]))
            self.text_prompts = nn.Parameter(torch.empty(*shape, widths["text"]))
            if not self.independent:
                steps = self.depth if self.generate_first else self.depth - 1
                both = sum(widths.values())
                for name, width in widths.items():
                    generators = [DcpGenerator(config, both if self.bimodal else width, width) for _ in range(steps)]
                    setattr(self, f"{name}_generators", nn.ModuleList(generators))
        if "common" in self.kinds:
            self.common_prompts = nn.Parameter(torch.empty(3, length, widths["text"]))
            self.common_to_vision = DcpBottleneck(widths["text"], widths["vision"], config.reduction_factor)
            self.common_to_text = DcpBottleneck(widths["text"], widths["text"], config.reduction_factor)

    def correlated(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The image and text prompts of the blocks, each `(3, K, width)`, one row per missing type."""
        vision, text = (
            torch.stack([prompts[row] for row in self.initial_rows[name]])
            for name, prompts in (("vision", self.vision_prompts), ("text", self.text_prompts))
        )
        if self.independent:
            return list(vision.unbind(dim=1)), list(text.unbind(dim=1))
        visions, texts = ([], []) if self.generate_first else ([vision], [text])
        for to_vision, to_text in zip(self.vision_generators, self.text_generators):
            both = torch.cat([vision, text], dim=-1) if self.bimodal else None  # (3, K, d_v + d_t)
            vision, text = to_vision(vision if both is None else both), to_text(text if both is None else both)
            visions.append(vision)
            texts.append(text)
        return visions, texts

    def forward(self) -> dict[str, list[torch.Tensor]]:
        """For each tower the prompts of its blocks: `(3, 2K, width)` for the first, `[correlated; common]`, then
        `(3, K, width)` each; rows are missing types. Empty without prompts of these kinds."""
        chains: dict[str, list[torch.Tensor]] = {"vision": [], "text": []}
        if "correlated" in self.kinds:
            chains["vision"], chains["text"] = self.correlated()
        if "common" in self.kinds:
            for name, project in (("vision", self.common_to_vision), ("text", self.common_to_text)):
                common = project(self.common_prompts)
                chains[name][:1] = [torch.cat([*chains[name][:1], common], dim=1)]
        return chains


class DcpDynamicPrompts(nn.Module):
    """Prompts from a tower's input: one head of attention, queries per missing type, over all embedded tokens.

    `softmax((q W_q + b_q)(X W_k)^T / sqrt(d)) (X W_v + b_v) W_o + b_o`. The few queries are projected to the keys'
    side, and what they gather to the values', instead of projecting every token; the result is the same. A bias of
    the keys would cancel in the softmax, so there is none.
    """

    def __init__(self, config: DcpConfig, width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.empty(3, config.length_per_kind, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.scale = width**-0.5
        self.refine: nn.Module | None = None
        if config.dynamic_generator == "attention_mlp":
            self.refine = nn.Sequential(
                nn.LayerNorm(width), DcpBottleneck(width, width, config.reduction_factor), nn.LayerNorm(width)
            )

    def forward(
        self, tokens: torch.Tensor, missing_type: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(batch, N, width)` tokens to `(batch, K, width)` prompts.

        Args:
            missing_type: `(batch,)`, which queries each sample uses.
            attention_mask: `(batch, N)`, 1 for tokens to attend to; `None`: all.
        """
        queries = self.q_proj(self.queries) @ self.k_proj.weight  # (3, K, width)
        queries = queries.index_select(0, missing_type).unsqueeze(1)  # (batch, 1, K, width)
        tokens = tokens.to(queries.dtype).unsqueeze(1)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        gathered = nn.functional.scaled_dot_product_attention(queries, tokens, tokens, mask, scale=self.scale)
        prompts = self.out_proj(self.v_proj(gathered.squeeze(1)))
        return prompts if self.refine is None else self.refine(prompts)


__all__ = ["DcpBottleneck", "DcpDynamicPrompts", "DcpPromptLearner"]
