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
"""Model outputs shared by the zoo's methods."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput, auto_docstring


@auto_docstring
@dataclass
class FusionModelOutput(ModelOutput):
    r"""
    pooler_output (`torch.FloatTensor` of shape `(batch_size, feature_size)`):
        The fused feature that a head classifies.
    text_feature (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, *optional*):
        Feature of the text tower.
    vision_feature (`torch.FloatTensor` of shape `(batch_size, vision_hidden_size)`, *optional*):
        Feature of the vision tower.
    router_scores (`torch.FloatTensor` of shape `(batch_size, routed_blocks, num_experts)`, *optional*):
        Routing weights of each routed block.
    importance_loss (`torch.FloatTensor` of shape `()`, *optional*):
        Balance loss of the routers, unweighted.
    """

    pooler_output: torch.FloatTensor | None = None
    text_feature: torch.FloatTensor | None = None
    vision_feature: torch.FloatTensor | None = None
    router_scores: torch.FloatTensor | None = None
    importance_loss: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@auto_docstring
@dataclass
class FusionClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Task loss plus the weighted auxiliary losses.
    logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
        Scores before softmax (or sigmoid, for multi-label problems).
    task_loss (`torch.FloatTensor` of shape `()`, *optional*):
        The task's part of the loss, detached.
    importance_loss (`torch.FloatTensor` of shape `()`, *optional*):
        Balance loss of the routers, unweighted and detached.
    router_scores (`torch.FloatTensor` of shape `(batch_size, routed_blocks, num_experts)`, *optional*):
        Routing weights of each routed block.
    pooler_output (`torch.FloatTensor` of shape `(batch_size, feature_size)`):
        The fused feature that the head classified.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    task_loss: torch.FloatTensor | None = None
    importance_loss: torch.FloatTensor | None = None
    router_scores: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


__all__ = ["FusionClassifierOutput", "FusionModelOutput"]
