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
"""Towers with prompts in front of the sequence: CLIP, SigLIP, ViT- and BERT-like ones, run layer by layer.

The towers' own modules are used as they are, so their state-dict keys stay stock. Prompts are put in front of the
embedded tokens, where they have no position; a causal mask then lets prompts see the prompts before them, and the text
all prompts.
"""

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_utils import PreTrainedModel

from .prompting import run_layer, tower_layers


CLIP_TEXT, CLIP_VISION = "clip_text_model", "clip_vision_model"
SIGLIP_TEXT, SIGLIP_VISION = "siglip_text_model", "siglip_vision_model"


def final_norm(tower: PreTrainedModel) -> nn.Module | None:
    """The LayerNorm after a tower's last layer; `None` for post-norm towers like BERT, which have none."""
    for name in ("post_layernorm", "final_layer_norm", "layernorm"):
        if isinstance(norm := getattr(tower, name, None), nn.Module):
            return norm
    return None


def embed_image(tower: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """The tokens that the first layer receives: `(batch, 3, height, width)` to `(batch, N, dim)`."""
    tokens = tower.embeddings(pixel_values)
    return tower.pre_layrnorm(tokens) if tower.config.model_type == CLIP_VISION else tokens


def embed_text(
    tower: PreTrainedModel, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """The tokens that the first layer receives: `(batch, T)` to `(batch, T, dim)`."""
    if tower.config.model_type in (CLIP_TEXT, SIGLIP_TEXT):
        return tower.embeddings(input_ids=input_ids)
    return tower.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)


def last_token_that_matters(tower: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor | None:
    """Position that a causal text tower pools, `(batch,)`: CLIP's first end-of-text token. What comes later cannot
    influence it. `None` for towers that read all positions."""
    if tower.config.model_type != CLIP_TEXT:
        return None
    if tower.config.eos_token_id == 2:  # configurations from before transformers knew the id: it is the largest
        return input_ids.argmax(dim=-1)
    return (input_ids == tower.config.eos_token_id).int().argmax(dim=-1)


def run_with_leading_prompts(
    tower: PreTrainedModel,
    tokens: torch.Tensor,
    prompts: list[torch.Tensor],
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The tower's layers over `[prompts[0]; tokens]`, of which block j replaces the first ones by `prompts[j]`.

    Args:
        tower: a supported tower.
        tokens: `(batch, N, dim)`, from `embed_image` or `embed_text`.
        prompts: `(batch, P, dim)` for the first block, then `(batch, K, dim)` with K <= P for each block after it that
            replaces some; may be empty, and more than the tower has layers.
        attention_mask: `(batch, N)`, 1 for real tokens, for BERT-like towers (CLIP and SigLIP read texts of one length).
            Prompts are always attended to.

    Returns:
        `(batch, P + N, dim)`: the last layer's output, before the final LayerNorm.
    """
    num_prompts = prompts[0].shape[1] if prompts else 0
    hidden = torch.cat([prompts[0].to(tokens.dtype), tokens], dim=1) if num_prompts else tokens
    masks: tuple[torch.Tensor | None, ...] = ()  # the positional arguments after the tokens that the layers take
    options = {}
    if tower.config.model_type == CLIP_TEXT:
        options = {"is_causal": True}
        masks = (
            create_causal_mask(config=tower.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None),
        )
    elif tower.config.model_type in (CLIP_VISION, SIGLIP_VISION, SIGLIP_TEXT):
        masks = (None,)
    elif attention_mask is not None:
        seen = nn.functional.pad(attention_mask, (num_prompts, 0), value=1)
        masks = (create_bidirectional_mask(config=tower.config, inputs_embeds=hidden, attention_mask=seen),)
    for block, layer in enumerate(tower_layers(tower)):
        if 0 < block < len(prompts):
            replaced = prompts[block].shape[1]
            hidden = torch.cat([prompts[block].to(hidden.dtype), hidden[:, replaced:]], dim=1)
        hidden = run_layer(layer, layer, hidden, *masks, **options)
    return hidden


def pool_image(tower: PreTrainedModel, hidden: torch.Tensor, num_prompts: int) -> torch.Tensor:
    """The tower's image feature, `(batch, dim)`: its [CLS] token after the final LayerNorm; SigLIP, which has none,
    pools the patches by attention (by their mean without that head)."""
    if tower.config.model_type != SIGLIP_VISION:
        norm = final_norm(tower)
        return hidden[:, num_prompts] if norm is None else norm(hidden[:, num_prompts])
    patches = tower.post_layernorm(hidden[:, num_prompts:])
    return tower.head(patches) if tower.use_head else patches.mean(dim=1)


def pool_text(
    tower: PreTrainedModel, hidden: torch.Tensor, num_prompts: int, position: torch.Tensor | None
) -> torch.Tensor:
    """The tower's text feature, `(batch, dim)`: CLIP's end-of-text token at `position`, SigLIP's last one through its
    head, else [CLS]."""
    if position is not None:
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return tower.final_layer_norm(hidden[rows, num_prompts + position])
    if tower.config.model_type == SIGLIP_TEXT:
        return tower.head(tower.final_layer_norm(hidden[:, -1]))
    norm = final_norm(tower)
    feature = hidden[:, num_prompts]
    return feature if norm is None else norm(feature)
