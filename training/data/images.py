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
"""Pictures of a raw distribution: found inside its folder, opened with suspicion, stored unchanged where possible.

Opening and decoding are in `processing.image_decoding`; here are the two things that only raw data needs: paths that
stay inside a folder ([`resolve_inside`], [`ImageFinder`]) and the stored form ([`store_image`]).
"""

import hashlib
import io
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile

from ...processing.image_decoding import (
    MAX_BYTES,
    MAX_PIXELS,
    UnsafeImageError,
    decode_image,
    is_url,
    read_image_bytes,
    to_rgb,
)
from ...processing.image_decoding import open_image_safely as _open_image


__all__ = [
    "ImageFinder",
    "StoredImage",
    "UnsafeImageError",
    "open_image_safely",
    "resolve_inside",
    "store_image",
]

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_DRIVE = re.compile(r"^[A-Za-z]:")
_KEPT_FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_KEPT_MODES = ("L", "RGB", "RGBA")
_ORIENTATION_TAG = 0x0112
_HASH_SIDE = 64
_TRUNCATION_LOCK = threading.Lock()


def open_image_safely(
    path_or_bytes: str | os.PathLike | bytes,
    *,
    root: str | os.PathLike | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Image.Image:
    """Decodes one picture into an upright RGB `PIL.Image`; with `root`, only from inside that folder.

    Raises:
        UnsafeImageError: with a `reason` of `image_missing`, `image_unreadable`, `image_too_large`, `unsafe_path`.
    """
    if root is not None and not isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        path_or_bytes = resolve_inside(root, path_or_bytes)
    return _open_image(path_or_bytes, max_pixels=max_pixels, max_bytes=max_bytes)


def resolve_inside(root: str | os.PathLike, relative: str | os.PathLike) -> Path:
    """The real path of `relative` below `root`; symbolic links are followed and must end below the real `root` as well.

    Backslashes count as separators, so that lists written on Windows work and `C:\\x` or `\\\\server\\x` are recognised.
    The file need not exist.

    Raises:
        UnsafeImageError: reason `unsafe_path` for absolute paths, drives, URLs, NUL characters, and all that leaves `root`.
    """
    text = os.fspath(relative)
    if not isinstance(text, str) or not text.strip():
        raise UnsafeImageError(f"{_shown(text)} is not a path relative to the data folder.", "unsafe_path")
    if "\0" in text:
        raise UnsafeImageError(f"The path {_shown(text)} contains a NUL character.", "unsafe_path")
    if is_url(text):
        raise UnsafeImageError(
            f"{_shown(text)} is a URL. Nothing is downloaded: fetch the file yourself and give its path.",
            "unsafe_path",
        )
    text = text.replace("\\", "/")
    if text.startswith("/") or _DRIVE.match(text):
        raise UnsafeImageError(
            f"{_shown(text)} is an absolute path; give paths relative to the data folder.", "unsafe_path"
        )
    real_root = os.path.realpath(root)
    try:
        real = os.path.realpath(os.path.join(real_root, text))
    except (OSError, ValueError) as error:  # a loop of links, lone surrogates
        raise UnsafeImageError(f"The path {_shown(text)} cannot be resolved: {error}", "unsafe_path") from error
    if real != real_root and not real.startswith(real_root.rstrip(os.sep) + os.sep):
        raise UnsafeImageError(f"The path {_shown(text)} leaves the data folder; it was not opened.", "unsafe_path")
    return Path(real)


class ImageFinder:
    """Finds pictures below one folder whatever the case of their extension, or with another image extension.

    Repacks rename `x.jpg` to `x.JPG`, `x.jpeg` or `x.png`. Folder listings are read once and kept.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(os.path.realpath(root))
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, relative: str) -> Path:
        """The real path of the picture.

        Raises:
            UnsafeImageError: reason `unsafe_path` or `image_missing`.
        """
        path = resolve_inside(self.root, relative)
        try:
            if path.is_file():
                return path
        except OSError:  # a name too long for the file system is a missing file
            pass
        stem = path.stem.lower()
        listing = self._listing(path.parent)
        for extension in dict.fromkeys((path.suffix.lower(), *IMAGE_EXTENSIONS)):
            name = listing.get(stem + extension)
            if name is not None:
                found = resolve_inside(self.root, os.path.relpath(path.parent / name, self.root))
                if found.is_file():
                    return found
        raise UnsafeImageError(f"There is no image file {_shown(relative)} in the data folder.", "image_missing")

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                names = sorted(entry.name for entry in os.scandir(folder))
            except OSError:
                names = []
            self._listings[folder] = {
                os.path.splitext(n)[0].lower() + os.path.splitext(n)[1].lower(): n for n in names
            }
        return self._listings[folder]


@dataclass(frozen=True)
class StoredImage:
    """A checked picture in the form it is stored in.

    Attributes:
        data: the encoded bytes: the original ones, or a JPEG.
        extension: `.jpg`, `.png` or `.webp`.
        repairs: what was changed: `exif_transposed`, `mode_converted`, `resized`, `first_frame`, `format_converted`,
            `truncated`.
        digest: sha256 (first 16 bytes) of the picture at 64x64 RGB: equal for the same picture in other encodings.
    """

    data: bytes
    extension: str
    repairs: tuple[str, ...]
    digest: bytes


def store_image(
    path_or_bytes: str | os.PathLike | bytes,
    *,
    max_side: int = 512,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    allow_truncated: bool = False,
) -> StoredImage:
    """Checks a picture by decoding it completely, and gives the bytes to store.

    The original bytes are kept for a still, upright JPEG, PNG or WebP of mode L, RGB or RGBA whose longer side is at most
    `max_side` (0: any). Everything else becomes an upright RGB JPEG without metadata, transparency on white; so does, with
    `allow_truncated`, a picture that breaks off. The same input gives the same bytes.

    Raises:
        UnsafeImageError: see [`open_image_safely`].
    """
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        data = bytes(path_or_bytes)
    else:
        data = read_image_bytes(path_or_bytes, max_bytes=max_bytes)
    filled = False
    if allow_truncated:
        image, filled = _decode_even_if_truncated(data, max_pixels, max_bytes)
    else:
        image = decode_image(data, max_pixels=max_pixels, max_bytes=max_bytes)
    too_long = max_side > 0 and max(image.size) > max_side
    repairs = [
        name
        for name, applies in (
            ("truncated", filled),
            ("first_frame", bool(getattr(image, "is_animated", False))),
            ("format_converted", image.format not in _KEPT_FORMATS),
            ("mode_converted", image.mode not in _KEPT_MODES),
            ("exif_transposed", _orientation(image) != 1),
            ("resized", too_long),
        )
        if applies
    ]
    plain = to_rgb(image) if repairs or image.mode != "RGB" else image
    if not repairs:
        return StoredImage(data, _KEPT_FORMATS[str(image.format)], (), _digest(plain))
    if too_long:
        plain.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=quality)
    return StoredImage(buffer.getvalue(), ".jpg", tuple(repairs), _digest(plain))


def _decode_even_if_truncated(data: bytes, max_pixels: int, max_bytes: int) -> tuple[Image.Image, bool]:
    """The picture, and whether its missing part had to be filled with grey.

    Pillow's switch is global, so that this takes turns with itself in other threads.
    """
    with _TRUNCATION_LOCK:
        try:
            return decode_image(data, max_pixels=max_pixels, max_bytes=max_bytes), False
        except UnsafeImageError as error:
            if error.reason != "image_unreadable":
                raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return decode_image(data, max_pixels=max_pixels, max_bytes=max_bytes), True
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _digest(image: Image.Image) -> bytes:
    small = image.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    return hashlib.sha256(small.tobytes()).digest()[:16]


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, which are decoded already
        return 1
    return value if value in range(2, 9) else 1


def _shown(path: object) -> str:
    text = repr(path)
    return text if len(text) <= 120 else text[:100] + "...'"
