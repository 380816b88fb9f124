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
"""A small real task for the tests of the training code: coloured squares with a word, in memory and as files."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from fixtures_tiny import tiny_image_processor, tiny_mope_config, tiny_text_config, tiny_tokenizer, tiny_vision_config
from PIL import Image
from transformers import AutoConfig, AutoModel

from fusionzoo.training.data.registry import DatasetSpec


COLOURS = ("red", "green", "blue")
_RGB = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def toy_features() -> datasets.Features:
    return datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(COLOURS)),
        }
    )


def toy_spec(**changes: Any) -> DatasetSpec:
    fields = {
        "name": "toy",
        "title": "Toy",
        "image_column": "image",
        "text_column": "text",
        "label_column": "label",
        "problem_type": "single_label_classification",
        "metrics": ("accuracy", "f1_macro"),
        "main_metric": "accuracy",
        "licence": "none",
        "redistributable": True,
        "where": "",
        "build_features": toy_features,
        "label_names": COLOURS,
    }
    return DatasetSpec(**{**fields, **changes})


def toy_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Noisy squares of one colour with a word that names the colour in two of three rows."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = int(generator.integers(3))
        pixels = np.array(_RGB[COLOURS[label]]) + generator.integers(-30, 30, (32, 32, 3))
        words = COLOURS[label] if number % 3 else "cat"
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        rows.append({"id": f"s{number:03d}", "image": image, "text": f"the {words} food", "label": label})
    return rows


def toy_dataset(count: int, seed: int = 0) -> datasets.Dataset:
    return datasets.Dataset.from_list(toy_rows(count, seed), features=toy_features())


def toy_model(**fields: Any) -> Any:
    """A tiny MoPE with fixed weights; no dropout and no routing noise, so that a step depends on the data alone."""
    from fusionzoo.modeling.modeling_mope import MopeForSequenceClassification

    torch.manual_seed(0)
    quiet = {"prompt_dropout": 0.0, "router_noise_std": 0.0}
    return MopeForSequenceClassification(tiny_mope_config(num_labels=3, **{**quiet, **fields}))


def write_towers(folder: Path) -> tuple[str, str]:
    """Two tower folders for `from_backbones`, with their image processor and tokenizer."""
    torch.manual_seed(1)
    vision, text = folder / "vision", folder / "text"
    AutoModel.from_config(AutoConfig.for_model(**tiny_vision_config())).save_pretrained(vision)
    tiny_image_processor().save_pretrained(vision)
    AutoModel.from_config(AutoConfig.for_model(**tiny_text_config())).save_pretrained(text)
    tiny_tokenizer().save_pretrained(text)
    return str(vision), str(text)


def write_table(folder: Path, train: int = 24, validation: int = 6, test: int = 6) -> str:
    """The toy rows as a folder with train.jsonl, validation.jsonl, test.jsonl and their pictures."""
    for split, count, seed in (("train", train, 0), ("validation", validation, 1), ("test", test, 2)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in toy_rows(count, seed):
                name = f"{split}/{row['id']}.png"
                row["image"].save(folder / name)
                record = {"id": row["id"], "image": name, "text": row["text"], "label": COLOURS[row["label"]]}
                file.write(json.dumps(record) + "\n")
    return str(folder)


def write_recipe_file(folder: Path, **training: Any) -> Path:
    """A recipe for the toy task with tiny towers, all of it below `folder`; the run goes to `folder / "run"`."""
    vision, text = write_towers(folder / "towers")
    recipe = {
        "method": "mope",
        "model": {"vision": vision, "text": text, "prompt_dropout": 0.0, "router_noise_std": 0.0},
        "data": {"name": write_table(folder / "table"), "options": {"label_names": list(COLOURS)}},
        "training": {
            "output_dir": str(folder / "run"),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": 2,
            "disable_tqdm": True,
            **training,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path
