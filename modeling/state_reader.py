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
"""Official state dicts, read by converters that must account for every number."""

from collections.abc import Mapping
from typing import Any

import torch


class StateReader:
    """An official state dict that remembers which of its numbers were used."""

    def __init__(self, state: Mapping[str, torch.Tensor]):
        self.state = dict(state)
        self.used = {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in self.state.items()}

    def has(self, name: str) -> bool:
        return name in self.state

    def take(self, name: str, *index: Any) -> torch.Tensor:
        self.used[name][index] = True
        return self.state[name][index]

    def unused(self) -> dict[str, torch.Tensor]:
        return {name: self.state[name][~used] for name, used in self.used.items() if not used.all()}
