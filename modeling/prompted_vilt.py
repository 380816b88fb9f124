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
"""ViLT, run layer by layer with its own modules, with prompts in front of the sequence or of the keys and values.

transformers' `ViltModel` selects the valid patches of each picture in a loop and in random order, and interpolates
position embeddings picture by picture. Here padded patches stay and are masked, and all position grids are sampled at
once; as attention has no order, the results are the same, but for rounding.
"""

from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .base import build_tower
from .prompting import eager_attention, run_layer


Prefix = tuple[torch.Tensor, torch.Tensor]


def build_vilt(config: PreTrainedConfig, default_attention: str) -> PreTrainedModel:
    """A `ViltModel`. Its own layers know plain attention only, but `vilt_layer` runs them with any.

    Args:
        config: a `ViltConfig`.
        default_attention: the attention implementation for a config that names none.
    """
    wanted, config._attn_implementation = config._attn_implementation or default_attention, "eager"
    tower = build_tower(config, pooler=True)
    tower.config._attn_implementation = wanted
    return tower


def patch_positions(
    tower: PreTrainedModel, rows: torch.Tensor, columns: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """ViLT's position grid, stretched over the valid patches of each picture (bilinear, corners aligned).

    Args:
        rows, columns: `(batch,)`, valid patches of each picture, which lie at the top left.
        height, width: sides of the batch's patch grid.

    Returns:
        `(batch, height * width, dim)`; what lies outside a picture is arbitrary.
    """
    table = tower.embeddings.position_embeddings[:, 1:]  # (1, side * side, dim)
    side = tower.config.image_size // tower.config.patch_size
    grid = table.transpose(1, 2).unflatten(2, (side, side)).float().expand(rows.shape[0], -1, -1, -1)
    y = 2 * torch.arange(height, device=rows.device) / (rows - 1).clamp(min=1)[:, None] - 1  # (batch, height)
    x = 2 * torch.arange(width, device=rows.device) / (columns - 1).clamp(min=1)[:, None] - 1  # (batch, width)
    where = torch.stack(
        [x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1
    )  # (batch, height, width, 2)
    sampled = nn.functional.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled.flatten(2).transpose(1, 2).to(table.dtype)


def embed_image(
    tower: PreTrainedModel, pixel_values: torch.Tensor, pixel_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image [CLS] and patches with positions and modality type.

    Args:
        pixel_values: `(batch, 3, height, width)`, padded at the bottom and right.
        pixel_mask: `(batch, height, width)`, 1 for pixels of the picture.

    Returns:
        Tokens `(batch, 1 + patches, dim)` and their mask `(batch, 1 + patches)`.
    """
    embeddings = tower.embeddings
    patches = embeddings.patch_embeddings(pixel_values)  # (batch, dim, height, width)
    height, width = patches.shape[2:]
    mask = nn.functional.interpolate(pixel_mask[:, None].float(), size=(height, width))[:, 0].long()
    positions = patch_positions(tower, mask[:, :, 0].sum(dim=1), mask[:, 0].sum(dim=1), height, width)
    start = embeddings.cls_token + embeddings.position_embeddings[:, :1]
    tokens = torch.cat([start.expand(patches.shape[0], -1, -1), patches.flatten(2).transpose(1, 2) + positions], dim=1)
    tokens = embeddings.dropout(tokens) + embeddings.token_type_embeddings.weight[1]
    return tokens, nn.functional.pad(mask.flatten(1), (1, 0), value=1)


def embed_text(tower: PreTrainedModel, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
    """Text tokens with positions and modality type, `(batch, T, dim)`."""
    embeddings = tower.embeddings
    tokens = embeddings.text_embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
    return tokens + embeddings.token_type_embeddings.weight[0]


def vilt_layer(
    layer: nn.Module,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    implementation: str,
    prefix: Prefix | None = None,
) -> torch.Tensor:
    """One stock ViLT layer whose keys and values may be preceded by others.

    Args:
        layer: a stock `ViltLayer`.
        hidden: `(batch, T, dim)`.
        mask: as the attention implementation wants it, for all keys; `None`: none is padding.
        implementation: name of the attention, as in `attn_implementation`.
        prefix: keys and values, each `(batch, P, dim)`, in the space after the layer's own projections.
    """
    attention = layer.attention.attention
    normed = layer.layernorm_before(hidden)
    query, key, value = attention.query(normed), attention.key(normed), attention.value(normed)
    if prefix is not None:
        key, value = (torch.cat([new.to(old.dtype), old], dim=1) for new, old in zip(prefix, (key, value)))
    query, key, value = (
        each.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2) for each in (query, key, value)
    )
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
    dropout = attention.dropout.p if attention.training else 0.0
    scaling = attention.attention_head_size**-0.5
    attended, _ = attend(attention, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=False)
    hidden = hidden + layer.attention.output(attended.flatten(2), hidden)
    return layer.output(layer.intermediate(layer.layernorm_after(hidden)), hidden)


def run_prompted_vilt(
    tower: PreTrainedModel,
    hidden: torch.Tensor,
    key_mask: torch.Tensor,
    inputs: dict[int, torch.Tensor],
    prefixes: dict[int, Prefix],
) -> torch.Tensor:
    """ViLT's layers, with prompts.

    Args:
        tower: a `ViltModel`.
        hidden: `(batch, T, dim)`.
        key_mask: `(batch, T)`, 1 for tokens that may be attended to.
        inputs: per layer, `(batch, P, dim)` to put in front of the sequence, where they stay.
        prefixes: per layer, keys and values to put in front of its own, each `(batch, P, dim)`.

    Returns:
        `(batch, P * len(inputs) + T, dim)`, before the final LayerNorm.
    """
    config = tower.config
    for block, layer in enumerate(tower.encoder.layer):
        if block in inputs:
            hidden = torch.cat([inputs[block].to(hidden.dtype), hidden], dim=1)
            key_mask = nn.functional.pad(key_mask, (inputs[block].shape[1], 0), value=1)
        if block == 0 or block in inputs:
            mask = create_bidirectional_mask(config=config, inputs_embeds=hidden, attention_mask=key_mask)
        full, prefix = mask, prefixes.get(block)
        if prefix is not None and mask is not None:  # boolean, or 0 where attention is allowed
            full = nn.functional.pad(mask, (prefix[0].shape[1], 0), value=float(mask.dtype == torch.bool))
        function = partial(vilt_layer, layer)
        hidden = run_layer(layer, function, hidden, full, config._attn_implementation, prefix)
    return hidden
