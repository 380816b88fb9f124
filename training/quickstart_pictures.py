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
"""The demo's two pictures: predictions on held-out rows, and which experts serve which classes."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .data.registry import DatasetSpec


SHOWN_CLASSES = 5


def draw_predictions(
    path: Path, rows: list[dict[str, Any]], predictions: list[dict[str, Any]], spec: DatasetSpec
) -> None:
    """Each row with its picture, text, truth and the most probable classes."""
    figure = Figure(figsize=(9, 2.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=[1, 2])
    for (left, right), row, prediction in zip(axes, rows, predictions):
        left.imshow(row[spec.image_column])
        left.set_axis_off()
        left.set_title(f"“{row[spec.text_column]}”", fontsize=10)
        top = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])[:SHOWN_CLASSES][::-1]
        truth = spec.label_names[row[spec.label_column]]
        colours = ["tab:green" if name == truth else "tab:gray" for name, _ in top]
        right.barh([name for name, _ in top], [share for _, share in top], color=colours)
        right.set_xlim(0, 1)
        right.set_xlabel("probability")
        right.set_title(f"truth: {truth}   predicted: {prediction['label']}", fontsize=10)
    _save(figure, path)


def draw_routing(path: Path, scores: torch.Tensor, labels: list[int], spec: DatasetSpec) -> None:
    """Mean routing weights: of every block, and by class in the block whose weights differ most between classes.

    Args:
        scores: `(samples, routed_blocks, num_experts)`.
        labels: class of each sample.
    """
    label_of = torch.tensor(labels)
    present = sorted(set(labels))
    by_class = torch.stack([scores[label_of == label].mean(0) for label in present])  # (classes, blocks, experts)
    block = int(by_class.var(0).sum(-1).argmax()) if len(present) > 1 else 0
    figure = Figure(figsize=(10, 1.5 + 0.28 * max(len(present), scores.shape[1])), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, scores.mean(0), [f"block {number}" for number in range(scores.shape[1])], "mean over the test rows"),
        (right, by_class[:, block], [spec.label_names[label] for label in present], f"by class, routed block {block}"),
    )
    for axes, values, names, title in panels:
        image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(values.shape[1]), [f"expert {number}" for number in range(values.shape[1])])
        axes.set_yticks(range(len(names)), names)
        axes.set_title(title)
    figure.colorbar(image, ax=[left, right], label="routing weight")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=110)
