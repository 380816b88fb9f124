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
"""Prompt tokens inside stock transformers towers.

Each function here runs a tower layer by layer, with the tower's own modules, and asks a callback for the prompt
tokens of the next layer: `next_prompts(stage, block, prompts, tokens)` gets the prompts that arrived (or `None`) and
the other tokens and returns the new prompts `(batch, num_prompts, width)`, or `None` to let the arriving ones go on.
The towers' state-dict keys stay stock, and attention goes through transformers' attention interface.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel


NextPrompts = Callable[[int, int, torch.Tensor | None, torch.Tensor], torch.Tensor | None]


def tower_stages(tower: PreTrainedModel) -> list[tuple[int, int]]:
    """`(width, number of blocks)` of each stage: one stage for BERT- and ViT-like towers, several for Swin."""
    if tower.config.model_type == "swin":
        return [(tower.config.embed_dim * 2**i, depth) for i, depth in enumerate(tower.config.depths)]
    return [(tower.config.hidden_size, tower.config.num_hidden_layers)]


def tower_layers(tower: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers of a BERT- or ViT-like tower."""
    owner = getattr(tower, "encoder", tower)
    return getattr(owner, "layers", None) or owner.layer


def num_special_tokens(tower: PreTrainedModel) -> int:
    """Tokens in front of a ViT-like tower's patches: [CLS], DeiT's distillation token, DINOv2's registers."""
    return 1 + (tower.config.model_type == "deit") + getattr(tower.config, "num_register_tokens", 0)


def insert_after_first(tokens: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """`[first token; prompts; other tokens]`: `(batch, T, dim)` and `(batch, P, dim)` to `(batch, T + P, dim)`."""
    return torch.cat([tokens[:, :1], prompts.to(tokens.dtype), tokens[:, 1:]], dim=1)


def remove_after_first(tokens: torch.Tensor, num_prompts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of `insert_after_first`: `(tokens, prompts)`."""
    return torch.cat([tokens[:, :1], tokens[:, 1 + num_prompts :]], dim=1), tokens[:, 1 : 1 + num_prompts]


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over the tokens whose mask is 1: `(batch, T, dim)` and `(batch, T)` (`None` counts all) to `(batch, dim)`."""
    if mask is None:
        return tokens.mean(dim=1)
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


def run_layer(layer: nn.Module, function: Any, *args: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
    """Calls `function`, under activation checkpointing if the layer has it switched on.

    Stock layers checkpoint themselves in training mode (twice would recompute twice), but skip it outside; a frozen
    tower is always outside it, yet activations are kept for the prompts' gradients.
    """
    checkpoints_itself = layer.training and function is layer
    if getattr(layer, "gradient_checkpointing", False) and torch.is_grad_enabled() and not checkpoints_itself:
        return layer._gradient_checkpointing_func(partial(function, **kwargs), *args)
    return function(*args, **kwargs)


def _run_single_stage(
    layers: nn.ModuleList, tokens: torch.Tensor, next_prompts: NextPrompts, mask_for: Callable | None = None
) -> torch.Tensor:
    prompts = None
    for block, layer in enumerate(layers):
        new_prompts = next_prompts(0, block, prompts, tokens)
        prompts = prompts if new_prompts is None else new_prompts
        num_prompts = 0 if prompts is None else prompts.shape[1]
        hidden = tokens if prompts is None else insert_after_first(tokens, prompts)
        masks = () if mask_for is None else (mask_for(hidden, num_prompts),)
        hidden = run_layer(layer, layer, hidden, *masks)
        tokens, prompts = remove_after_first(hidden, num_prompts) if num_prompts else (hidden, None)
    return tokens if prompts is None else insert_after_first(tokens, prompts)


def run_prompted_text(
    tower: PreTrainedModel,
    embeddings: torch.Tensor,
    attention_mask: torch.Tensor | None,
    next_prompts: NextPrompts,
) -> torch.Tensor:
    """A BERT-like encoder with prompts after [CLS] (MoPE spec; P-tuning v2 without its prefix keys).

    Args:
        tower: a BERT-like model.
        embeddings: `(batch, T, dim)`, output of the tower's embedding layer; prompts get no position embedding.
        attention_mask: `(batch, T)`, 1 for real tokens; prompts are always attended to. `None`: no padding.
        next_prompts: see the module's docstring.

    Returns:
        `(batch, T + P, dim)`: the last layer's output, prompts after the first token.
    """
    masks: dict[int, torch.Tensor | None] = {}  # built once per number of prompts, not per layer

    def mask_for(hidden: torch.Tensor, num_prompts: int) -> torch.Tensor | None:
        if num_prompts not in masks:
            extended = attention_mask
            if attention_mask is not None and num_prompts:
                ones = attention_mask.new_ones(attention_mask.shape[0], num_prompts)
                extended = torch.cat([attention_mask[:, :1], ones, attention_mask[:, 1:]], dim=1)
            masks[num_prompts] = create_bidirectional_mask(
                config=tower.config, inputs_embeds=hidden, attention_mask=extended
            )
        return masks[num_prompts]

    return _run_single_stage(tower_layers(tower), embeddings, next_prompts, mask_for)


def run_prompted_vit(tower: PreTrainedModel, embeddings: torch.Tensor, next_prompts: NextPrompts) -> torch.Tensor:
    """A ViT-like encoder with prompts after [CLS].

    Args:
        tower: a ViT, DeiT or DINOv2 model.
        embeddings: `(batch, 1 + patches, dim)`, output of the tower's embedding layer.
        next_prompts: see the module's docstring.

    Returns:
        `(batch, 1 + P + patches, dim)`, after the tower's last LayerNorm.
    """
    hidden = _run_single_stage(tower_layers(tower), embeddings, next_prompts)
    return tower.layernorm(hidden)


def to_windows(
    prompts: torch.Tensor, patches: torch.Tensor, window: int, order: str = "sample"
) -> tuple[torch.Tensor, int]:
    """Cuts a patch grid into windows and puts the prompts in front of each.

    Args:
        prompts: `(batch, P, dim)`.
        patches: `(batch, height, width, dim)`, sides divisible by `window`.
        window: side of a window.
        order: `"sample"` gives each window the prompts of its own sample. `"official"` reproduces the official code,
            which lays the prompts out window by window but the windows sample by sample: window `v` of sample `b`
            gets the prompts of sample `(b * windows + v) % batch`.

    Returns:
        `(batch * windows, P + window * window, dim)`, sample-major, and the number of windows of a sample.
    """
    batch, height, width, dim = patches.shape
    rows, columns = height // window, width // window
    grid = patches.view(batch, rows, window, columns, window, dim).transpose(2, 3)
    grid = grid.reshape(batch * rows * columns, window * window, dim)
    windows = rows * columns
    copies = prompts.repeat_interleave(windows, 0) if order == "sample" else prompts.repeat(windows, 1, 1)
    return torch.cat([copies, grid], dim=1), windows


def from_windows(
    tokens: torch.Tensor, num_prompts: int, grid: tuple[int, int], window: int, order: str = "sample"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of `to_windows`: prompts `(batch, P, dim)` averaged over the windows, patches `(batch, H, W, dim)`."""
    rows, columns = grid[0] // window, grid[1] // window
    windows, dim = rows * columns, tokens.shape[-1]
    batch = tokens.shape[0] // windows
    prompts, patches = tokens[:, :num_prompts], tokens[:, num_prompts:]
    if order == "sample":
        prompts = prompts.view(batch, windows, num_prompts, dim).mean(1)
    else:
        prompts = prompts.reshape(windows, batch, num_prompts, dim).mean(0)
    patches = patches.reshape(batch, rows, columns, window, window, dim).transpose(2, 3)
    return prompts, patches.reshape(batch, *grid, dim)


def window_bias(
    layer: nn.Module, grid: tuple[int, int], window: int, shift: int, num_prompts: int, like: torch.Tensor
) -> torch.Tensor:
    """Additive attention bias of one Swin block: relative positions and shift mask, zero wherever a prompt takes part.

    Args:
        layer: a stock `SwinLayer`.
        grid: height and width of the (padded) patch grid.
        window, shift: sides in patches, as this grid uses them.
        num_prompts: prompt tokens in front of each window.
        like: a tensor of the dtype and device that attention runs in.

    Returns:
        `(1 or windows, heads, P + window^2, P + window^2)`.
    """
    full = layer.attention.relative_position_bias()  # (1, heads, area, area) for the configured window
    side = layer.attention.relative_position_bias.window_size[0]
    if window < side:  # the grid is smaller than the configured window: keep the offsets that occur
        full = full.view(1, -1, side, side, side, side)[:, :, :window, :window, :window, :window]
        full = full.reshape(1, -1, window * window, window * window)
    if shift > 0:
        mask = layer.get_attn_mask(*grid, dtype=like.dtype, device=like.device)  # (windows, area, area)
        full = full + mask.unsqueeze(1)
    return nn.functional.pad(full, (num_prompts, 0, num_prompts, 0)).to(like.dtype)


def window_attention(attention: nn.Module, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Stock Swin attention over windows that carry prompts.

    Args:
        attention: a stock `SwinAttention`.
        tokens: `(batch * windows, length, dim)`, sample-major.
        bias: `(1 or windows, heads, length, length)`, from `window_bias`.

    Returns:
        `(batch * windows, length, dim)`.
    """
    shape = (*tokens.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        projection(tokens).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if bias.shape[0] > 1:
        bias = bias.repeat(tokens.shape[0] // bias.shape[0], 1, 1, 1)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention)
    dropout = attention.attention_dropout if attention.training else 0.0
    output, _ = attend(attention, query, key, value, bias, dropout=dropout, scaling=attention.scaling)
    return attention.o_proj(output.reshape(tokens.shape))


def eager_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float, scaling: float, **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention in plain operations, with the signature of transformers' attention functions."""
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def swin_block(
    layer: nn.Module, prompts: torch.Tensor, patches: torch.Tensor, grid: tuple[int, int], order: str = "sample"
) -> tuple[torch.Tensor, torch.Tensor]:
    """One stock Swin block over `[prompts; patches]`; prompts join every window and are averaged over the windows.

    Args:
        layer: a stock `SwinLayer`.
        prompts: `(batch, P, dim)`.
        patches: `(batch, height * width, dim)`.
        grid: `(height, width)`.
        order: see `to_windows`.

    Returns:
        Prompts and patches, shaped as they came.
    """
    num_prompts, (height, width) = prompts.shape[1], grid
    whole = min(grid) <= layer.window_size  # one window covers the grid: no shift
    window, shift = (min(grid), 0) if whole else (layer.window_size, layer.shift_size)

    tokens = torch.cat([prompts, patches], dim=1)
    normed = layer.layernorm_before(tokens)
    image = normed[:, num_prompts:].reshape(-1, height, width, tokens.shape[-1])
    image = nn.functional.pad(image, (0, 0, 0, -width % window, 0, -height % window))
    padded = (image.shape[1], image.shape[2])
    if shift > 0:
        image = image.roll((-shift, -shift), dims=(1, 2))
    windows, _ = to_windows(normed[:, :num_prompts], image, window, order)
    bias = window_bias(layer, padded, window, shift, num_prompts, windows)
    attended = window_attention(layer.attention, windows, bias)
    new_prompts, image = from_windows(attended, num_prompts, padded, window, order)
    if shift > 0:
        image = image.roll((shift, shift), dims=(1, 2))
    image = image[:, :height, :width].flatten(1, 2)

    tokens = tokens + layer.drop_path(layer.dropout(torch.cat([new_prompts, image], dim=1)))
    tokens = tokens + layer.dropout(layer.mlp(layer.layernorm_after(tokens)))
    return tokens[:, :num_prompts], tokens[:, num_prompts:]


def run_prompted_swin(
    tower: PreTrainedModel,
    patches: torch.Tensor,
    grid: tuple[int, int],
    prompts: torch.Tensor | None,
    next_prompts: NextPrompts,
    order: str = "sample",
    stage_outputs: list[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, int]:
    """A Swin encoder whose windows all see the prompts.

    Args:
        tower: a `SwinModel`.
        patches: `(batch, height * width, embed_dim)`, output of the tower's embedding layer.
        grid: `(height, width)` of the patches.
        prompts: `(batch, P, embed_dim)` that enter the first block, or `None`.
        next_prompts: see the module's docstring; it gets the prompts that arrived from the previous block.
        order: see `to_windows`.
        stage_outputs: if given, `[prompts; patches]` after each stage (and its merging) is appended.

    Returns:
        `(batch, P + patches, width)` after the last LayerNorm, and P.
    """
    if prompts is None:
        prompts = patches[:, :0]
    for stage, swin_stage in enumerate(tower.encoder.layers):
        for block, layer in enumerate(swin_stage.blocks):
            new_prompts = next_prompts(stage, block, prompts if prompts.shape[1] else None, patches)
            prompts = prompts if new_prompts is None else new_prompts.to(patches.dtype)
            prompts, patches = run_layer(layer, partial(swin_block, layer, grid=grid, order=order), prompts, patches)
        if swin_stage.downsample is not None:
            prompts, patches = merge_prompts(swin_stage.downsample, prompts), swin_stage.downsample(patches, grid)
            grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
        if stage_outputs is not None:
            stage_outputs.append(torch.cat([prompts, patches], dim=1))
    return tower.layernorm(torch.cat([prompts, patches], dim=1)), prompts.shape[1]


def merge_prompts(downsample: nn.Module, prompts: torch.Tensor) -> torch.Tensor:
    """Patch merging for prompts: each is its own four neighbours. `(batch, P, C)` to `(batch, P, 2C)`."""
    return downsample.reduction(downsample.norm(prompts.repeat(1, 1, 4)))
