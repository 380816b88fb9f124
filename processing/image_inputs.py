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
"""What a caller may hand over as one picture, turned into an upright 8-bit RGB `PIL.Image`.

| given                                     | read as                                                              |
|-------------------------------------------|----------------------------------------------------------------------|
| `PIL.Image` of any mode                   | upright RGB (`to_rgb`)                                               |
| `str` or `Path`, encoded `bytes`          | a file, opened by `open_image_safely`; a URL only when asked for     |
| uint8 or bool array / tensor              | grey levels 0..255 (bool: black and white)                           |
| uint16 array / tensor                     | 16-bit grey levels, scaled to 8 bit                                  |
| other integers                            | must lie in 0..255                                                   |
| floats                                    | must lie in 0..1, rounded to 8 bit                                   |

Arrays have the shape (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels.
Where both readings are possible, numpy arrays are read channels-last and tensors channels-first, as their libraries do.
"""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from .image_decoding import UnsafeImageError, check_pixels, fetch_image_bytes, is_url, open_image_safely, to_rgb


CHANNELS = (1, 3, 4)


def is_single_image(value: Any) -> bool:
    """Whether `value` is one picture (and not a list of pictures or a 4-dimensional stack)."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim < 4
    return isinstance(value, (Image.Image, str, os.PathLike, bytes, bytearray))


def to_pil_rgb(value: Any, *, row: int = 0, allow_remote_images: bool = False) -> Image.Image:
    """One picture of any kind of the table above as RGB.

    Args:
        value: the picture.
        row: its place in the batch, for the error message.
        allow_remote_images: whether an `http(s)` address may be downloaded.

    Raises:
        TypeError: `value` is nothing of the table.
        UnsafeImageError: the file or picture was refused; a `ValueError` with a `reason`.
        ValueError: an array of a wrong shape or range.
    """
    try:
        if isinstance(value, Image.Image):
            check_pixels(value.size)
            return to_rgb(value)
        if isinstance(value, (np.ndarray, torch.Tensor)):
            return _array_to_rgb(value)
        if is_url(value):
            if not allow_remote_images:
                raise UnsafeImageError(
                    f"{value[:80]!r} is a URL; nothing is downloaded unless allow_remote_images=True is passed.",
                    "unsafe_path",
                )
            return open_image_safely(fetch_image_bytes(value))
        if isinstance(value, (str, os.PathLike, bytes, bytearray)):
            return open_image_safely(value)
    except UnsafeImageError as error:
        raise UnsafeImageError(f"images[{row}]: {error}", error.reason) from error
    except ValueError as error:
        raise ValueError(f"images[{row}]: {error}") from error
    raise TypeError(
        f"images[{row}] is a {type(value).__name__}; give a PIL image, a path, an array or tensor of one picture, "
        "or None where the picture is absent."
    )


def _array_to_rgb(value: np.ndarray | torch.Tensor) -> Image.Image:
    channels_first = isinstance(value, torch.Tensor)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    pixels = _channels_last(value, prefer_first=channels_first)  # (height, width, channels)
    check_pixels((pixels.shape[1], pixels.shape[0]))
    pixels = _to_uint8(pixels)
    return to_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _channels_last(array: np.ndarray, prefer_first: bool) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3:
        first, last = array.shape[0] in CHANNELS, array.shape[-1] in CHANNELS
        if first and (prefer_first or not last):
            return np.moveaxis(array, 0, -1)
        if last:
            return array
    raise ValueError(
        f"an array of shape {tuple(array.shape)} is not one picture; expected (height, width), "
        "(height, width, channels) or (channels, height, width) with 1, 3 or 4 channels."
    )


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return ((array.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind in "iu":
        upper = 255
    elif array.dtype.kind == "f":
        upper = 1
    else:
        raise ValueError(f"an array of dtype {array.dtype} holds no grey levels; use uint8 (0..255) or floats (0..1).")
    if array.size and not (array.min() >= 0 and array.max() <= upper):  # also refuses NaN
        raise ValueError(
            f"{array.dtype} grey levels must lie in 0..{upper}, got {array.min()}..{array.max()}; "
            "scale them, or pass uint8 (0..255). Already normalised pixels go to the model as pixel_values directly."
        )
    return np.rint(array.astype(np.float64) * (255 / upper)).astype(np.uint8)
