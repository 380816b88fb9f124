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
"""Absent images and texts, handled once for the processors of all methods.

A row of a batch is an image, a text, or both. `None` says that a modality is *absent*; an empty text or a black image
is *present*. The processors replace what is absent by a filler that models do not look at, and say so in `missing_type`
(`modeling.missing_modality.MissingType`): 0 complete, 1 text absent, 2 image absent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..modeling.missing_modality import MissingType
from .image_inputs import is_single_image, to_pil_rgb


TEXT_FILLER = ""

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ImageTextRows:
    """A batch with one entry per row and modality; `None` where a modality is absent.

    Attributes:
        images: pictures as the caller gave them, or `None`.
        text: texts without lone surrogates, or `None`.
        missing_type: one `MissingType` per row.
    """

    images: list[Any]
    text: list[str | None]
    missing_type: list[MissingType]

    def __len__(self) -> int:
        return len(self.missing_type)


def normalize_image_text(images: Any = None, text: Any = None) -> ImageTextRows:
    """Brings `images` and `text` into rows of equal number.

    Args:
        images: one picture, a list with a picture or `None` per row (a list of at most one picture per row is taken as
            well), a 4-dimensional array or tensor, or `None`: absent in every row.
        text: one text, a list with a text or `None` per row, or `None`: absent in every row.

    Raises:
        TypeError: something is neither a picture nor a text nor `None`.
        ValueError: nothing was given, the lengths differ, or a row has neither image nor text.
    """
    image_rows, text_rows = _image_rows(images), _text_rows(text)
    if image_rows is None and text_rows is None:
        raise ValueError("Neither images nor text were given; pass images=..., text=..., or both.")
    if image_rows is None:
        image_rows = [None] * len(text_rows or [])
    if text_rows is None:
        text_rows = [None] * len(image_rows)
    if len(image_rows) != len(text_rows):
        raise ValueError(
            f"images has {len(image_rows)} rows but text has {len(text_rows)}; "
            "give one entry per row, None where a modality is absent."
        )
    if not image_rows:
        raise ValueError("The batch is empty; give at least one row.")
    missing_type = []
    for row, (image, words) in enumerate(zip(image_rows, text_rows)):
        if image is None and words is None:
            raise ValueError(f"Row {row} has neither an image nor a text; drop the row or give one of them.")
        missing_type.append(
            MissingType.IMAGE if image is None else MissingType.TEXT if words is None else MissingType.COMPLETE
        )
    return ImageTextRows(image_rows, text_rows, missing_type)


def encode_images(
    image_processor: Any,
    images: Sequence[Any],
    *,
    allow_remote_images: bool = False,
    absent_value: float = 0.0,
    **images_kwargs: Any,
) -> torch.Tensor:
    """Pixels of a batch in which pictures may be absent.

    Present pictures come out as if the absent ones were not in the batch; absent ones are `absent_value` everywhere: 0
    is the mean colour of the normalisation.

    Args:
        image_processor: any of transformers' image processors that returns `pixel_values` of one size.
        images: one entry per row; `None` where absent.
        images_kwargs: options of the image processor's call.

    Returns:
        `torch.Tensor` of shape `(batch, channels, height, width)`.
    """
    images_kwargs = {**images_kwargs, "return_tensors": "pt"}
    do_rescale = images_kwargs.get("do_rescale")
    if (image_processor.do_rescale if do_rescale is None else do_rescale) is False and any(map(_is_float, images)):
        raise ValueError(
            "do_rescale=False leaves grey levels at 0..255, but float pictures in 0..1 were given; "
            "leave do_rescale on, or pass uint8 pictures."
        )
    present = [row for row, image in enumerate(images) if image is not None]
    pictures = [to_pil_rgb(images[row], row=row, allow_remote_images=allow_remote_images) for row in present]
    shown = pictures or [Image.new("RGB", (32, 32))]  # one picture, to learn the size of the output
    pixels = image_processor(shown, **images_kwargs)["pixel_values"]
    if len(present) == len(images):
        return pixels
    batch = pixels.new_full((len(images), *pixels.shape[1:]), absent_value)
    batch[present] = pixels[: len(present)]
    return batch


def encode_text(
    tokenizer: Any, text: Sequence[str | None], *, default_max_length: int | None = None, **text_kwargs: Any
) -> dict[str, Any]:
    """Token ids of a batch in which texts may be absent (they are encoded as `""`).

    Padding to the longest row and truncation at `default_max_length` are on unless `text_kwargs` say otherwise.

    Raises:
        ValueError: the tokenizer has no padding token, or the options give more than one row of tokens per text.
    """
    text_kwargs = {"padding": True, "truncation": True, **text_kwargs}
    if text_kwargs["truncation"] not in (False, None) or text_kwargs["padding"] == "max_length":
        text_kwargs.setdefault("max_length", default_max_length)
    if text_kwargs["padding"] not in (False, None, "do_not_pad") and tokenizer.pad_token is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no padding token; set one, e.g. tokenizer.pad_token = tokenizer.eos_token."
        )
    if text_kwargs.get("return_overflowing_tokens"):
        raise ValueError(
            "return_overflowing_tokens=True gives several rows per text, which have no image of their own."
        )
    return dict(tokenizer([TEXT_FILLER if words is None else words for words in text], **text_kwargs))


def _image_rows(images: Any) -> list[Any] | None:
    if images is None:
        return None
    if is_single_image(images):
        return [images]
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    if not _is_list(images):
        raise TypeError(
            f"images is a {type(images).__name__}; give a picture, a list of pictures, or None where they are absent."
        )
    return [_one_image(image, row) for row, image in enumerate(images)]


def _one_image(image: Any, row: int) -> Any:
    if not _is_list(image) or is_single_image(image):
        return image
    if len(image) > 1:
        raise ValueError(f"images[{row}] holds {len(image)} entries; a row takes one picture or None.")
    return image[0] if len(image) else None


def _text_rows(text: Any) -> list[str | None] | None:
    if text is None:
        return None
    if isinstance(text, str):
        return [_repair_surrogates(text)]
    if isinstance(text, np.ndarray) and text.ndim == 1:
        text = text.tolist()
    if not _is_list(text):
        raise TypeError(f"text is a {type(text).__name__}; give a str, a list of str, or None where texts are absent.")
    rows: list[str | None] = []
    for row, words in enumerate(text):
        if words is not None and not isinstance(words, str):
            raise TypeError(
                f"text[{row}] is a {type(words).__name__} ({str(words)[:40]!r}); "
                "give a str, or None where the text is absent (pandas reads empty cells as NaN: replace them by None)."
            )
        rows.append(words if words is None else _repair_surrogates(words))
    return rows


def _repair_surrogates(text: str) -> str:
    """Joins surrogate pairs and replaces lone surrogates by U+FFFD: tokenizers accept only valid Unicode."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_float(image: Any) -> bool:
    if isinstance(image, torch.Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and image.dtype.kind == "f"
