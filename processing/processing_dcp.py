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
"""What goes into DCP: a picture and a text per row, either of which may be absent."""

import html
import os
import re
from collections.abc import Sequence
from typing import Any

import ftfy
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
from .missing_inputs import encode_images, encode_text, normalize_image_text


IMAGE_CROPS = ("stock", "official")
ABSENT_PIXEL = 1.0  # official: after normalisation, so not white; no model looks at it

_BLANKS = re.compile(r"\s+")


def clean_clip_text(text: str) -> str:
    """OpenAI's cleaning before CLIP's tokenizer: mojibake and quotes by ftfy, HTML entities twice, blanks.

    Example:

    ```python
    >>> clean_clip_text("  cr\u00c3\u00a8me &amp;amp; \u201ctea\u201d\\n")
    'cr\u00e8me & "tea"'

    ```
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _BLANKS.sub(" ", text).strip()


def official_clip_crop(image: Image.Image, size: int) -> Image.Image:
    """The shorter side to `size` (bicubic) and the middle `size` x `size` pixels, as torchvision does it.

    transformers rounds an odd margin down where torchvision rounds half to even, a shift of one pixel for some sizes.
    """
    width, height = image.size
    short, long = sorted((width, height))
    longer = int(size * long / short)
    width, height = (size, longer) if width <= height else (longer, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


class DcpProcessor(ProcessorMixin):  # trf-ignore: TRF057
    """Turns pictures and texts into the inputs of the DCP models.

    Args:
        image_processor (`BaseImageProcessor`):
            An image processor of transformers that returns `pixel_values` of one size.
        tokenizer (`PreTrainedTokenizerBase`):
            A tokenizer with a padding token.
        max_text_length (`int`, *optional*):
            Tokens kept per text; `None` means the tokenizer's own limit (77 for CLIP), at most 512.
        pad_to_max_length (`bool`, *optional*, defaults to `True`):
            Pad every text to that length. CLIP and SigLIP need it: their texts are read with their padding.
        padding_id (`int`, *optional*):
            Token id that stands in the padding instead of the tokenizer's. The official code pads with 0 (the token
            "!"), and what stands there influences the dynamic prompts of a CLIP tower.
        clean_text (`bool`, *optional*, defaults to `True`):
            Clean texts as OpenAI's tokenizer does (`clean_clip_text`).
        image_crop (`str`, *optional*, defaults to `"stock"`):
            `"official"` crops as torchvision does, see `official_clip_crop`.

    *Inputs*: `images` is a picture or a list with a picture or `None` per row, `text` likewise; a whole modality may be
    left out. Pictures are PIL images, paths, encoded bytes, uint8 or float (0..1) arrays and tensors; see
    `processing.image_inputs`. `None` means absent; `""` and a black picture are present. A row needs at least one.

    *Returns* from a call: `pixel_values` (batch, 3, height, width), `input_ids` and `attention_mask` (batch, length),
    `token_type_ids` where the tokenizer has them, and `missing_type` (batch,) int64: 0 complete, 1 text absent, 2 image
    absent. An absent picture is all ones, an absent text is encoded as `""`.

    Example:

    ```python
    >>> from PIL import Image
    >>> from transformers import BertTokenizerFast
    >>> from fusionzoo import DcpProcessor
    >>> from fusionzoo.processing.image_presets import build_image_processor

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "square"]
    >>> tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    >>> processor = DcpProcessor(build_image_processor("clip", size=32), tokenizer, max_text_length=6)
    >>> batch = processor(images=[Image.new("RGB", (80, 60)), None], text=["a red  square", "a"], return_tensors="pt")
    >>> batch["pixel_values"].shape, batch["missing_type"].tolist()
    (torch.Size([2, 3, 32, 32]), [0, 2])
    >>> batch["input_ids"].tolist()
    [[2, 5, 6, 7, 3, 0], [2, 5, 3, 0, 0, 0]]

    ```
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        max_text_length: int | None = None,
        pad_to_max_length: bool = True,
        padding_id: int | None = None,
        clean_text: bool = True,
        image_crop: str = "stock",
    ):
        check_max_text_length(max_text_length, tokenizer)
        if padding_id is not None and not 0 <= padding_id < len(tokenizer):
            raise ValueError(f"padding_id={padding_id!r} must be None or a token id below {len(tokenizer)}.")
        if image_crop not in IMAGE_CROPS:
            raise ValueError(f"image_crop={image_crop!r} is not allowed; choose one of {', '.join(IMAGE_CROPS)}.")
        if image_crop == "official" and "shortest_edge" not in dict(image_processor.size):
            raise ValueError(
                f'image_crop="official" resizes the shorter side, but the image processor has size='
                f'{dict(image_processor.size)}; use image_preset="clip", or image_crop="stock".'
            )
        self.max_text_length = max_text_length
        self.pad_to_max_length = pad_to_max_length
        self.padding_id = padding_id
        self.clean_text = clean_text
        self.image_crop = image_crop
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_backbones(
        cls,
        vision: str | os.PathLike,
        text: str | os.PathLike | None = None,
        *,
        image_preset: str | None = None,
        image_size: int | None = None,
        backend: str | None = None,
        max_text_length: int | None = None,
        clean_text: bool = True,
        image_crop: str = "stock",
        **kwargs: Any,
    ) -> "DcpProcessor":
        """A processor for two towers, from their own preprocessing files.

        CLIP's and SigLIP's texts are padded to one length, CLIP's with the id 0; others to the longest of the batch.

        Args:
            vision, text: Hub ids or local folders; `text=None` means the same as `vision`, a dual encoder.
            image_preset: a name of `processing.image_presets`, instead of the vision tower's own preprocessing.
            image_size: side of the picture for a preset; `None` means what the vision tower's config says.
            backend: `"torchvision"` or `"pil"`; `None` lets transformers choose.
            max_text_length, clean_text, image_crop: as for the constructor.
            kwargs: passed to both loaders (`token`, `cache_dir`, `local_files_only`, ...).

        Raises:
            OSError: a tower's files cannot be found.
            ValueError: `image_size` without a preset, or what the constructor or `build_image_processor` refuses.
        """
        tokenizer = AutoTokenizer.from_pretrained(vision if text is None else text, **kwargs)
        family = type(tokenizer).__name__.lower()
        return cls(
            image_processor=load_image_processor(vision, image_preset, image_size, backend, **kwargs),
            tokenizer=tokenizer,
            max_text_length=max_text_length,
            pad_to_max_length=family.startswith(("clip", "siglip")),
            padding_id=0 if family.startswith("clip") else None,
            clean_text=clean_text,
            image_crop=image_crop,
        )

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
        if self.pad_to_max_length:
            text_kwargs.setdefault("padding", "max_length")
        texts = [clean_clip_text(words) if words and self.clean_text else words for words in rows.text]
        limit = min(DEFAULT_MAX_TEXT_LENGTH, self.tokenizer.model_max_length)
        return_tensors = text_kwargs.pop("return_tensors", None)
        tokens = encode_text(self.tokenizer, texts, default_max_length=limit, **text_kwargs)
        if self.padding_id is not None:
            for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"]):
                ids[:] = [token if real else self.padding_id for token, real in zip(ids, mask)]
        pictures = list(rows.images)
        if self.image_crop == "official":
            pictures = [
                image if image is None else self._crop(image, row, bool(allow_remote_images))
                for row, image in enumerate(pictures)
            ]
            if any(image is not None for image in pictures):  # else the size comes from a stand-in
                images_kwargs |= {"do_resize": False, "do_center_crop": False}
        pixel_values = encode_images(
            self.image_processor, pictures, allow_remote_images=bool(allow_remote_images),
            absent_value=ABSENT_PIXEL, **images_kwargs,
        )  # fmt: skip
        others = {**tokens, "missing_type": [int(kind) for kind in rows.missing_type]}
        return as_batch({"pixel_values": pixel_values}, others, return_tensors)

    def _crop(self, image: Any, row: int, allow_remote_images: bool) -> Image.Image:
        picture = to_pil_rgb(image, row=row, allow_remote_images=allow_remote_images)
        return official_clip_crop(picture, self.image_processor.size["shortest_edge"])

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "missing_type"]


__all__ = ["DcpProcessor"]
