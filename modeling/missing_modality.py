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
"""One vocabulary for absent modalities, and what models do with it.

A modality is *absent* when a row has `None` for it; an empty string or a black picture is present. Processors emit
`missing_type`, a bit mask per sample; models replace what an absent modality would have produced by a learned vector,
so that the result does not depend on the filler that stands in the batch.
"""

import enum

import torch
from torch import nn


class MissingType(enum.IntEnum):
    """Values of `missing_type`; with more than two modalities they combine as bits."""

    COMPLETE = 0
    TEXT = 1
    IMAGE = 2


def is_absent(missing_type: torch.Tensor | None, modality: MissingType) -> torch.Tensor | None:
    """Which samples lack `modality`.

    Args:
        missing_type: `(batch,)` integers, or `None` when nothing is absent.
        modality: `MissingType.TEXT` or `MissingType.IMAGE`.

    Returns:
        `(batch,)` booleans, or `None` when nothing is absent.
    """
    return None if missing_type is None else lacks(missing_type, modality)


def lacks(missing_type: torch.Tensor, modality: MissingType) -> torch.Tensor:
    """Which samples lack `modality`: `(batch,)` integers to `(batch,)` booleans."""
    return (missing_type & int(modality)) != 0


def replace_absent(features: torch.Tensor, substitute: nn.Parameter, absent: torch.Tensor | None) -> torch.Tensor:
    """Puts `substitute` in place of the features of samples that lack the modality.

    Args:
        features: `(batch, ..., dim)`.
        substitute: `(dim,)`, learned.
        absent: `(batch,)` booleans, or `None` for a batch in which nothing is absent.

    Returns:
        `(batch, ..., dim)`; rows of samples that are not absent are returned bit for bit. The substitute takes part
        in the graph even if nothing is absent, so that distributed training sees no unused parameter.
    """
    if absent is None:
        absent = torch.zeros(features.shape[0], dtype=torch.bool, device=features.device)
    return torch.where(absent.view(-1, *[1] * (features.dim() - 1)), substitute.to(features.dtype), features)
