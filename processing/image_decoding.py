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
"""Decoding of pictures that nobody has checked: bounded, never half-decoded, always upright RGB.

Everything that turns a file or bytes into pixels in this package goes through [`open_image_safely`]:

1. only regular files, at most `max_bytes` long, in one of six raster formats;
2. the size written in the header is checked *before* a pixel is decoded, so a decompression bomb costs nothing;
3. the picture is decoded completely (a truncated JPEG passes `Image.verify()` and fails only here);
4. [`to_rgb`] makes it upright (EXIF), opaque (alpha on white) and 8-bit (16-bit greys are scaled, not clipped).

A refusal is an [`UnsafeImageError`], whose `reason` is a short word that reports can count.
"""

import io
import os
import re
import stat
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 89_000_000
MAX_BYTES = 64 << 20

_URL = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.\-]+://|data:)")
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
_ORIENTATION_TAG = 0x0112


class UnsafeImageError(ValueError):
    """A picture was refused.

    Attributes:
        reason (`str`):
            `"image_missing"` (no such file), `"image_unreadable"` (not a picture of an allowed format, damaged or
            truncated), `"image_too_large"` (more bytes or pixels than allowed) or `"unsafe_path"` (a URL, a path with a
            NUL character, a folder, a device).
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):  # the second argument must survive the way back from a worker process
        return type(self), (str(self), self.reason)


def is_url(value: object) -> bool:
    """Whether `value` is a string that names a remote or inline resource (`https://...`, `file://...`, `data:...`)."""
    return isinstance(value, str) and _URL.match(value) is not None


def open_image_safely(
    path_or_bytes: str | os.PathLike | bytes | bytearray, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """Decodes one picture into an upright 8-bit RGB `PIL.Image`; of an animation, the first frame.

    Args:
        path_or_bytes: a path, or the encoded bytes themselves.
        max_pixels: pictures with more pixels (width x height) are refused before decoding.
        max_bytes: files with more bytes are refused before reading.

    Raises:
        UnsafeImageError: with the `reason`; nothing else is raised for the content of a picture.
    """
    return to_rgb(decode_image(path_or_bytes, max_pixels=max_pixels, max_bytes=max_bytes))


def decode_image(
    path_or_bytes: str | os.PathLike | bytes | bytearray, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """As [`open_image_safely`], but keeps the picture's own mode, `format` and EXIF: for code that stores original bytes."""
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        data, name = bytes(path_or_bytes), "the image"
        if len(data) > max_bytes:
            raise _too_many_bytes(name, len(data), max_bytes)
    else:
        data, name = read_image_bytes(path_or_bytes, max_bytes=max_bytes), f"the image {os.fspath(path_or_bytes)!r}"
    if not data:
        raise UnsafeImageError(f"{name} is empty (0 bytes).", "image_unreadable")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is judged two lines below
            image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
            check_pixels(image.size, max_pixels, name)
            image.load()
    except UnsafeImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnsafeImageError(f"{name} claims too many pixels: {error}", "image_too_large") from error
    except (
        Exception
    ) as error:  # damaged files make the decoders raise nearly anything: OSError, SyntaxError, struct.error
        raise UnsafeImageError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}). "
            f"Allowed are complete {', '.join(ALLOWED_FORMATS)} files.",
            "image_unreadable",
        ) from error
    return image


def read_image_bytes(path: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`; [`UnsafeImageError`] for anything else."""
    path = os.fspath(path)
    if is_url(path):
        raise UnsafeImageError(f"{path[:80]!r} is a URL, not a file; download it first.", "unsafe_path")
    if "\0" in str(path):
        raise UnsafeImageError(f"the image path {path!r} contains a NUL character.", "unsafe_path")
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeImageError(f"the image path {path!r} is not a regular file.", "unsafe_path")
        if status.st_size > max_bytes:
            raise _too_many_bytes(f"the image {path!r}", status.st_size, max_bytes)
        with Path(path).open("rb") as file:
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnsafeImageError(f"there is no image file {path!r}.", "image_missing") from error
    except (OSError, UnicodeError) as error:  # permissions, a name that is too long, a loop of links
        raise UnsafeImageError(f"the image file {path!r} cannot be read: {error}", "image_unreadable") from error
    if len(data) > max_bytes:
        raise _too_many_bytes(f"the image {path!r}", len(data), max_bytes)
    return data


def fetch_image_bytes(url: str, *, max_bytes: int = MAX_BYTES, timeout: float = 10.0) -> bytes:
    """Downloads at most `max_bytes` from an `http(s)` address. Called only where a user has asked for it by name."""
    if not url.lower().startswith(("http://", "https://")):
        raise UnsafeImageError(f"{url[:80]!r}: only http:// and https:// addresses can be fetched.", "unsafe_path")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            data = response.read(max_bytes + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise UnsafeImageError(f"{url[:80]!r} cannot be fetched: {error}", "image_missing") from error
    if len(data) > max_bytes:
        raise _too_many_bytes(f"{url[:80]!r}", len(data), max_bytes)
    return data


def check_pixels(size: tuple[int, int], max_pixels: int = MAX_PIXELS, name: str = "the image") -> None:
    """Raises [`UnsafeImageError`] if `size` (width, height) has no pixels or more than `max_pixels`."""
    width, height = size
    if width < 1 or height < 1:
        raise UnsafeImageError(f"{name} has no pixels ({width} x {height}).", "image_unreadable")
    if width * height > max_pixels:
        raise UnsafeImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are decoded. "
            "Scale it down first, or raise max_pixels if you trust it.",
            "image_too_large",
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """A new upright, opaque, 8-bit RGB picture without metadata; the given one is left as it is.

    EXIF orientation is applied; transparent pixels show white; 16-bit greys (and 32-bit integers, which Pillow uses for
    them too) are scaled from 0..65535 to 0..255 with rounding; of an animation the current frame is taken.

    Raises:
        UnsafeImageError: for 32-bit floats, which have no defined white level, and what Pillow cannot decode or convert.
    """
    try:
        image.load()
        image = _upright(image)
        if image.mode in _SIXTEEN_BIT_MODES:
            levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)  # (height, width)
            image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
        elif image.mode == "F":
            raise UnsafeImageError(
                "a 32-bit float picture (mode 'F') has no defined white level; convert it to 8 bit first.",
                "image_unreadable",
            )
        if image.mode in _ALPHA_MODES or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
    except UnsafeImageError:
        raise
    except Exception as error:
        raise UnsafeImageError(
            f"a picture of mode {image.mode!r} cannot be turned into RGB ({type(error).__name__}: {error}).",
            "image_unreadable",
        ) from error
    image.info = {}
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation if there is a readable one."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, which are decoded already
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _too_many_bytes(name: str, size: int, max_bytes: int) -> UnsafeImageError:
    return UnsafeImageError(f"{name} has {size:,} bytes; at most {max_bytes:,} are read.", "image_too_large")
