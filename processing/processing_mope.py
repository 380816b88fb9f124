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
"""What goes into MoPE: a picture and a text per row, either of which may be absent."""

import os
from collections.abc import Sequence
from typing import Any

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
from .missing_inputs import encode_images, encode_text, normalize_image_text


class MopeProcessor(ProcessorMixin):  # trf-ignore: TRF057
    """Turns pictures and texts into the inputs of the MoPE models.

    Args:
        image_processor (`BaseImageProcessor`):
            An image processor of transformers that returns `pixel_values` of one size.
        tokenizer (`PreTrainedTokenizerBase`):
            A tokenizer with a padding token.
        max_text_length (`int`, *optional*):
            Tokens kept per text; `None` means the tokenizer's own limit, at most 512.

    *Inputs*: `images` is a picture or a list with a picture or `None` per row, `text` likewise; a whole modality may be
    left out. Pictures are PIL images, paths, encoded bytes, uint8 or float (0..1) arrays and tensors; see
    `processing.image_inputs`. `None` means absent; `""` and a black picture are present. A row needs at least one.

    *Returns* from a call: `pixel_values` (batch, 3, height, width), `input_ids` and `attention_mask` (batch, length),
    `token_type_ids` where the tokenizer has them, and `missing_type` (batch,) int64: 0 complete, 1 text absent, 2 image
    absent. An absent picture is all zeros (the mean colour), an absent text is encoded as `""`.

    Example:

    ```python
    >>> from PIL import Image
    >>> from transformers import BertTokenizerFast
    >>> from fusionzoo import MopeProcessor
    >>> from fusionzoo.processing.image_presets import build_image_processor

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "square"]
    >>> tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    >>> processor = MopeProcessor(build_image_processor("imagenet", size=32), tokenizer)
    >>> batch = processor(images=[Image.new("RGB", (80, 60)), None], text=["a red square", "a"], return_tensors="pt")
    >>> batch["pixel_values"].shape, batch["missing_type"].tolist()
    (torch.Size([2, 3, 32, 32]), [0, 2])
    >>> batch["input_ids"].tolist()
    [[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]]

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
        text: str | os.PathLike,
        *,
        image_preset: str | None = None,
        image_size: int | None = None,
        backend: str | None = None,
        max_text_length: int | None = None,
        **kwargs: Any,
    ) -> "MopeProcessor":
        """A processor for two towers, from their own preprocessing files.

        Args:
            vision, text: Hub ids or local folders.
            image_preset: a name of `processing.image_presets`, instead of the vision tower's own preprocessing.
            image_size: side of the picture for a preset; `None` means what the vision tower's config says.
            backend: `"torchvision"` or `"pil"`; `None` lets transformers choose.
            max_text_length: as for the constructor.
            kwargs: passed to both loaders (`token`, `cache_dir`, `local_files_only`, ...).

        Raises:
            OSError: a tower's files cannot be found.
            ValueError: `image_size` without a preset, or what `build_image_processor` refuses.
        """
        image_processor = load_image_processor(vision, image_preset, image_size, backend, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(text, **kwargs)
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
        pixel_values = encode_images(
            self.image_processor, rows.images, allow_remote_images=bool(allow_remote_images), **images_kwargs
        )
        tokens = encode_text(self.tokenizer, rows.text, default_max_length=limit, **text_kwargs)
        others = {**tokens, "missing_type": [int(kind) for kind in rows.missing_type]}
        return as_batch({"pixel_values": pixel_values}, others, text_kwargs.get("return_tensors"))

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "missing_type"]


__all__ = ["MopeProcessor"]
