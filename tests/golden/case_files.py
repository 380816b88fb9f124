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
"""Reading golden cases and comparing with them."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file


HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "golden"


def roots() -> list[Path]:
    """Where cases lie: the folder named by FUSIONZOO_GOLDEN, else the shared one if it stands beside the checkout;
    and the few that are part of this repository."""
    named = os.environ.get("FUSIONZOO_GOLDEN")
    outside = [Path(named)] if named else [SHARED] if SHARED.parent.is_dir() else []
    return [*outside, HERE / "cases"]


@dataclass
class Case:
    """One folder: official configuration, weights, inputs and outputs, and what was compared."""

    path: Path
    config: dict = field(init=False)
    worst: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        self.weights, self.inputs, self.outputs = (
            load_file(self.path / f"{name}.safetensors") if (self.path / f"{name}.safetensors").is_file() else {}
            for name in ("weights", "inputs", "outputs")
        )
        self.open = set(self.outputs)

    def compare(self, name: str, ours: torch.Tensor, atol: float = 1e-5, rtol: float = 1e-5) -> None:
        """Checks one quantity and ticks it off."""
        expected = self.outputs[name]
        ours = ours.detach().to(expected.dtype)
        assert ours.shape == expected.shape, f"{name}: {tuple(ours.shape)} instead of {tuple(expected.shape)}"
        self.worst[name] = (ours.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
        torch.testing.assert_close(ours, expected, atol=atol, rtol=rtol, msg=lambda text: f"{name}: {text}")
        self.open.discard(name)

    def finish(self) -> None:
        """Fails if the case holds something that nobody compared."""
        assert not self.open, f"{self.path.name} holds outputs that were not compared: {sorted(self.open)}"
