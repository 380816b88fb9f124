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
"""The data set that training reads: rows of `datasets.Dataset` with absent modalities and augmentation per epoch.

Whatever is random is drawn from (seed, epoch, sample id), never from a global generator. A sample therefore looks the
same for any number of workers and processes, and after resuming.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import RandAugment

from .data.registry import DatasetSpec


if TYPE_CHECKING:
    from .data.missing_simulation import MissingModality, MissingTable
    from .data.official_missing import OfficialMissing


def sample_seed(seed: int, epoch: int, sample_id: str) -> int:
    """The address of a sample's randomness as one number below 2^63."""
    digest = hashlib.blake2b(f"{seed}\x1f{epoch}\x1f{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def subset_by_hash(dataset: datasets.Dataset, size: int | None, seed: int) -> datasets.Dataset:
    """`size` rows in their original order, chosen by the hash of (seed, id): the same rows whatever the row order."""
    if size is None or size >= len(dataset):
        return dataset
    ids = sample_ids(dataset)
    chosen = sorted(range(len(ids)), key=lambda row: sample_seed(seed, 0, ids[row]))[:size]
    return dataset.select(sorted(chosen))


def sample_ids(dataset: datasets.Dataset) -> list[str]:
    """The `id` column, or row numbers where there is none. Raises `ValueError` naming a repeated id."""
    if "id" not in dataset.column_names:
        return [str(row) for row in range(len(dataset))]
    ids = [str(value) for value in dataset["id"]]
    if len(set(ids)) != len(ids):
        repeated = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"Column `id` must be unique in a split, but {repeated!r} occurs more than once.")
    return ids


class RandAugmentById:
    """torchvision's RandAugment with the draws addressed by a number; the global generator is left as it was."""

    def __init__(self, num_ops: int, magnitude: int):
        self._augment = RandAugment(num_ops=num_ops, magnitude=magnitude)

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._augment(image.convert("RGB"))


class FusionDataset(Dataset):
    """Rows for `FusionCollator`, with simulated absence and augmentation.

    Args:
        dataset: rows with the columns that `spec` names, and a unique `id`.
        spec: which columns are image, text and label.
        seed: first part of the address of everything random.
        missing: which samples lack a modality; `None` leaves the rows as they are.
        augment: called as `augment(image, seed)` for every present image.

    A column of several pictures (key frames of a clip) gives its middle one. Rows whose image or text is `None` already
    stay that way; a row in which the simulation would leave nothing keeps the modality it has.

    `set_epoch(epoch)` may be called at any time between epochs; workers see it, persistent ones included.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        spec: DatasetSpec,
        *,
        seed: int = 0,
        missing: "MissingModality | MissingTable | OfficialMissing | None" = None,
        augment: Callable[[Image.Image, int], Image.Image] | None = None,
    ):
        wanted = [spec.image_column, spec.text_column, spec.label_column]
        absent = [name for name in wanted if name not in dataset.column_names]
        if absent:
            raise ValueError(
                f"The data set lacks the column(s) {', '.join(absent)}; it has {', '.join(dataset.column_names)}. "
                "Name yours with data.columns, e.g. --data.columns.text caption."
            )
        self.source = dataset
        self.ids = sample_ids(dataset)
        self._rows = dataset.select_columns(wanted)
        self._spec = spec
        self._seed = seed
        self._missing = missing
        self._augment = augment
        # In shared memory, because persistent workers keep the copy of this object that they were started with.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._table: tuple[int, np.ndarray] | None = None

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch whose randomness the rows show from now on."""
        self._epoch.fill_(epoch)

    def missing_types(self) -> np.ndarray:
        """(rows,) int8 of the present epoch: 0 complete, 1 text absent, 2 image absent."""
        if self._missing is None:
            return np.zeros(len(self), dtype=np.int8)
        epoch = self.epoch if self._missing.per_epoch else 0
        if self._table is None or self._table[0] != epoch:
            self._table = (epoch, np.asarray(self._missing.table(self.ids, epoch=epoch)))
        return self._table[1]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self._rows[index])
        spec = self._spec
        image = row[spec.image_column]
        if isinstance(image, list):
            image = image[len(image) // 2] if image else None
        text = row[spec.text_column]
        kind = int(self.missing_types()[index])
        if kind == 2 and text is not None:
            image = None
        elif kind == 1 and image is not None:
            text = None
        if image is not None and self._augment is not None:
            image = self._augment(image, sample_seed(self._seed, self.epoch, self.ids[index]))
        return {"id": self.ids[index], **row, spec.image_column: image, spec.text_column: text}
