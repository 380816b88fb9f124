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
"""What goes into MMP: a picture of any shape and a text per row, either of which may be absent."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import TextInput

from .backbone_inputs import (
    DEFAULT_MAX_TEXT_LENGTH,
    as_batch,
    call_options,
    check_max_text_length,
    load_image_processor,
)
from .image_inputs import to_pil_rgb
from .missing_inputs import encode_text, normalize_image_text


ABSENT_PIXEL = 1.0  # official: after normalisation


class MmpProcessor(ProcessorMixin):  # trf-ignore: TRF057
    """Turns pictures and texts into the inputs of the MMP models.

    Args:
        image_processor (`ViltImageProcessor`):
            ViLT's image processor, which keeps each picture's shape and pads the batch.
        tokenizer (`PreTrainedTokenizerBase`):
            ViLT's tokenizer, that of BERT.
        max_text_length (`int`, *optional*):
            Tokens kept per text, at most as many as the model's table of text positions holds (40 for a stock ViLT);
            `None` means the tokenizer's own limit, at most 512.

    *Inputs*: `images` is a picture or a list with a picture or `None` per row, `text` likewise; a whole modality may be
    left out. Pictures are PIL images, paths, encoded bytes, uint8 or float (0..1) arrays and tensors; see
    `processing.image_inputs`. `None` means absent; `""` and a black picture are present. A row needs at least one.

    *Returns* from a call: `pixel_values` (batch, 3, height, width) and `pixel_mask` (batch, height, width), 1 for pixels
    of the picture; `input_ids`, `attention_mask` and `token_type_ids` (batch, length); and `missing_type` (batch,)
    int64: 0 complete, 1 text absent, 2 image absent. An absent picture is a square of ones, an absent text is encoded
    as `""`.

    Example:

    ```python
    >>> from PIL import Image
    >>> from transformers import BertTokenizerFast, ViltImageProcessor
    >>> from fusionzoo import MmpProcessor

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "square"]
    >>> tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    >>> processor = MmpProcessor(ViltImageProcessor(size={"shortest_edge": 64}), tokenizer)
    >>> batch = processor(images=[Image.new("RGB", (90, 60)), None], text=["a red square", "a"], return_tensors="pt")
    >>> batch["pixel_values"].shape, batch["missing_type"].tolist()
    (torch.Size([2, 3, 64, 96]), [0, 2])

    ```
    """

    def __init__(self, image_processor: Any, tokenizer: Any, max_text_length: int | None = None):
        check_max_text_length(max_text_length, tokenizer)
        self.max_text_length = max_text_length
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_backbones(
        cls,
        vision: str | os.PathLike,
        text: str | os.PathLike | None = None,
        *,
        backend: str | None = None,
        max_text_length: int | None = None,
        **kwargs: Any,
    ) -> "MmpProcessor":
        """A processor for a ViLT, from its own preprocessing files.

        Args:
            vision, text: Hub id or local folder of the ViLT; `text=None` means the same as `vision`.
            backend: `"torchvision"` or `"pil"`; `None` lets transformers choose.
            max_text_length: as for the constructor.
            kwargs: passed to both loaders (`token`, `cache_dir`, `local_files_only`, ...).
        """
        tokenizer = AutoTokenizer.from_pretrained(vision if text is None else text, **kwargs)
        image_processor = load_image_processor(vision, backend=backend, **kwargs)
        return cls(image_processor=image_processor, tokenizer=tokenizer, max_text_length=max_text_length)

    def __call__(  # trf-ignore: TRF057
        self,
        images: ImageInput | Sequence[Any] | None = None,
        text: TextInput | Sequence[TextInput | None] | None = None,
        allow_remote_images: bool | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """Encodes a batch; see the class for inputs and outputs.

        Args:
            images, text: as described there.
            allow_remote_images: whether `http(s)` addresses among the images may be downloaded; off unless `True`.
            kwargs: options of the image processor and the tokenizer; `return_tensors` is `"pt"`, `"np"` or `None`.

        Raises:
            TypeError, ValueError: what cannot be used, with the row and the remedy. Refused pictures raise
                `UnsafeImageError`, a `ValueError` with a `reason`.
        """
        rows = normalize_image_text(images, text)
        images_kwargs, text_kwargs = call_options(self, kwargs, self.max_text_length)
        limit = min(DEFAULT_MAX_TEXT_LENGTH, self.tokenizer.model_max_length)
        return_tensors = text_kwargs.pop("return_tensors", None)
        tokens = encode_text(self.tokenizer, rows.text, default_max_length=limit, **text_kwargs)
        pixels = self._encode_images(rows.images, bool(allow_remote_images), images_kwargs)
        others = {**tokens, "missing_type": [int(kind) for kind in rows.missing_type]}
        return as_batch(pixels, others, return_tensors)

    def _encode_images(
        self, images: list[Any], allow_remote_images: bool, images_kwargs: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        present = [row for row, image in enumerate(images) if image is not None]
        pictures = [
            self._at_least_a_patch(to_pil_rgb(images[row], row=row, allow_remote_images=allow_remote_images))
            for row in present
        ]
        if len(present) < len(images):
            divisor = self.image_processor.size_divisor or 1
            side = max(self.image_processor.size["shortest_edge"] // divisor, 1) * divisor
        else:
            side = 1
        height = width = side
        if pictures:
            encoded = self.image_processor(pictures, **{**images_kwargs, "return_tensors": "pt"})
            height, width = (max(each, side) for each in encoded["pixel_values"].shape[2:])
        pixels = torch.zeros(len(images), 3, height, width)
        mask = torch.zeros(len(images), height, width, dtype=torch.long)
        if pictures:
            shown = encoded["pixel_values"]
            pixels[present, :, : shown.shape[2], : shown.shape[3]] = shown
            mask[present, : shown.shape[2], : shown.shape[3]] = encoded["pixel_mask"].long()
        absent = [row for row, image in enumerate(images) if image is None]
        pixels[absent, :, :side, :side] = ABSENT_PIXEL
        mask[absent, :side, :side] = 1
        return {"pixel_values": pixels, "pixel_mask": mask}

    def _at_least_a_patch(self, picture: Image.Image) -> Image.Image:
        """Stretches a picture so narrow that ViLT's image processor would round a side down to nothing."""
        divisor = self.image_processor.size_divisor or 1
        longest = int(1333 / 800 * self.image_processor.size["shortest_edge"])  # as transformers has it
        short, long = sorted(picture.size)
        least = -(-long * divisor // max(longest - divisor, divisor))
        if short >= least:
            return picture
        width, height = (max(side, least) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BICUBIC)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "missing_type"]


__all__ = ["MmpProcessor"]
