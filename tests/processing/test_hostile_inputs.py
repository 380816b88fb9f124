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
"""Hostile and odd inputs: each gives a clear error or a defined result, never a crash deep inside a library."""

import contextlib
import io
import os
import pickle
import struct
import threading
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_tiny import tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fusionzoo.processing import image_decoding
from fusionzoo.processing.image_decoding import UnsafeImageError, decode_image, open_image_safely, to_rgb


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(size=8)


def encoded(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def corners() -> Image.Image:
    """2 x 3 pixels, each of its own colour."""
    return Image.fromarray(np.arange(18, dtype=np.uint8).reshape(3, 2, 3) * 14)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def refused(source, **options) -> str:
    with pytest.raises(UnsafeImageError) as caught:
        open_image_safely(source, **options)
    return caught.value.reason


# ---- files that are refused -----------------------------------------------------------------------------------


def test_truncated_jpeg(processor):
    whole = encoded(photo(), "JPEG", quality=90)
    half = whole[: len(whole) // 2]
    Image.open(io.BytesIO(half)).verify()  # Pillow's own check does not see it
    assert refused(half) == "image_unreadable"
    with pytest.raises(UnsafeImageError, match=r"images\[1\].*cannot be decoded"):
        processor(images=[photo(), half], text=["a", "b"])


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 10_000), (400_000_000, 1)])
def test_decompression_bomb(processor, size):
    """100 MP is above our limit, 900 MP above the one at which Pillow itself raises."""
    assert refused(bomb(*size)) == "image_too_large"
    with pytest.raises(UnsafeImageError, match=r"images\[0\]"):
        processor(images=bomb(*size), text="a")


def test_a_bomb_that_is_a_pil_image_already(processor):
    with pytest.warns(Image.DecompressionBombWarning):
        image = Image.open(io.BytesIO(bomb(10_000, 10_000)))
    with pytest.raises(UnsafeImageError, match="100,000,000 pixels"):
        processor(images=image, text="a")


def test_limits_can_be_set():
    content = encoded(photo(64, 48))
    assert open_image_safely(content, max_pixels=64 * 48, max_bytes=len(content)).size == (64, 48)
    assert refused(content, max_pixels=64 * 48 - 1) == "image_too_large"
    assert refused(content, max_bytes=len(content) - 1) == "image_too_large"


def test_files(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(photo()))
    assert open_image_safely(path).size == (64, 48)
    assert refused(path, max_bytes=100) == "image_too_large"
    assert refused(tmp_path / "b.png") == "image_missing"
    assert refused(path / "c.png") == "image_missing"
    assert refused(tmp_path) == "unsafe_path"
    assert refused(f"{path}\0.png") == "unsafe_path"
    assert refused(tmp_path / ("n" * 300)) == "image_unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "unsafe_path"
    assert refused("/dev/zero") == "unsafe_path"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        encoded(photo(), "PPM"),
        encoded(photo(), "PDF"),
    ],
    ids=["empty", "html", "png header", "jpeg header", "ppm", "pdf"],
)
def test_what_is_no_picture(content):
    """PPM is a picture, but not one of the six formats that anybody needs."""
    assert refused(content) == "image_unreadable"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(data):
    fmt = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    content = bytearray(encoded(photo(16, 12), fmt))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    with contextlib.suppress(UnsafeImageError):
        assert open_image_safely(bytes(content), max_pixels=1_000_000).mode == "RGB"


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_noise_is_refused(content):
    assert refused(content) == "image_unreadable"


def test_the_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(UnsafeImageError("no", "image_missing")))
    assert (str(error), error.reason) == ("no", "image_missing")


# ---- addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "file:///etc/passwd", "data:image/png;base64,aaaa", "ftp://a/b"]
)
def test_urls_are_refused(processor, url):
    with pytest.raises(UnsafeImageError, match="allow_remote_images=True") as caught:
        processor(images=url, text="a")
    assert caught.value.reason == "unsafe_path"
    assert refused(url) == "unsafe_path"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(encoded(corners()))

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_urls_when_asked_for(processor, server):
    batch = processor(images=f"{server}/a.png", text="a", allow_remote_images=True, return_tensors="pt")
    expected = processor(images=corners(), text="a", return_tensors="pt")
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    with pytest.raises(UnsafeImageError, match="cannot be fetched") as caught:
        processor(images=f"{server}/b.png", text="a", allow_remote_images=True)
    assert caught.value.reason == "image_missing"
    with pytest.raises(UnsafeImageError, match="only http"):
        processor(images="file:///etc/passwd", text="a", allow_remote_images=True)
    with pytest.raises(UnsafeImageError, match="at most 10 are read"):
        image_decoding.fetch_image_bytes(f"{server}/a.png", max_bytes=10)


# ---- odd pictures with a defined result -----------------------------------------------------------------------


def test_cmyk_jpeg(processor):
    image = open_image_safely(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((8, 8)), RED, atol=3)
    assert processor(images=Image.new("CMYK", (4, 4)), text="a", return_tensors="pt")["pixel_values"].shape == (
        1,
        3,
        8,
        8,
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_one_pixel(processor, size):
    batch = processor(images=Image.new("RGB", size, GREEN), text="a", return_tensors="pt")
    expected = processor(images=Image.new("RGB", (8, 8), GREEN), text="a", return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 6), colour) for colour in (RED, GREEN, BLUE)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert open_image_safely(content).getpixel((2, 2)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(processor, orientation):
    """Pixels stored turned, with the tag that says so, equal the upright picture."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = corners()
    stored = upright if orientation == 1 else upright.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, "PNG", exif=exif)
    image = open_image_safely(content)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))
    assert not image.getexif()
    turned, plain = (
        processor(images=given, text="a", return_tensors="pt") for given in (Image.open(io.BytesIO(content)), upright)
    )
    assert torch.equal(turned["pixel_values"], plain["pixel_values"])


def test_damaged_exif_is_ignored():
    content = encoded(corners(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert open_image_safely(content).size == (2, 3)


@pytest.mark.parametrize(
    ("level", "expected"), [(0, 0), (128, 0), (129, 1), (0x8000, 128), (0xFF00, 254), (0xFFFF, 255)]
)
def test_sixteen_bit_png_is_scaled(level, expected):
    """round(level / 257): clipping would make everything above 255 white."""
    content = encoded(Image.fromarray(np.full((4, 4), level, np.uint16)))
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    assert open_image_safely(content).getpixel((1, 1)) == (expected,) * 3
    assert to_rgb(Image.fromarray(np.full((4, 4), level, np.int32))).getpixel((1, 1)) == (expected,) * 3


def test_transparency_shows_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.putpixel((0, 0), (255, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 128))
    for image in (half, half.convert("RGBa"), open_image_safely(encoded(half))):
        rgb = to_rgb(image)
        assert [rgb.getpixel(place) for place in ((0, 0), (1, 0), (3, 3))] == [RED, (127, 127, 127), (255, 255, 255)]
    grey = Image.new("LA", (2, 2), (10, 0))
    assert to_rgb(grey).getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((0, 0), 2)
    rgb = open_image_safely(encoded(image, "PNG", transparency=1))
    assert rgb.getpixel((0, 0)) == BLUE
    assert rgb.getpixel((3, 3)) == (255, 255, 255)
    assert open_image_safely(encoded(image)).getpixel((3, 3)) == GREEN


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "RGBX"])
def test_other_modes(mode):
    assert to_rgb(Image.new(mode, (3, 3))).mode == "RGB"


def test_floats_have_no_white_level(processor):
    with pytest.raises(UnsafeImageError, match=r"images\[1\].*mode 'F'") as caught:
        processor(images=[Image.new("RGB", (3, 3)), Image.new("F", (3, 3))], text=["a", "b"])
    assert caught.value.reason == "image_unreadable"


def test_the_callers_picture_is_left_alone():
    image = Image.new("RGBA", (4, 4), (1, 2, 3, 4))
    image.info["note"] = "mine"
    to_rgb(image)
    assert image.mode == "RGBA"
    assert image.info == {"note": "mine"}
    rgb = Image.new("RGB", (2, 2))
    to_rgb(rgb).putpixel((0, 0), RED)
    assert rgb.getpixel((0, 0)) == (0, 0, 0)


def test_decode_image_keeps_mode_and_format():
    image = decode_image(encoded(Image.new("L", (3, 2), 7)))
    assert (image.mode, image.format, image.size) == ("L", "PNG", (3, 2))


# ---- texts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("", ""),
        ("   \n\t ", ""),
        ("a\0cat", "acat"),
        ("\0", ""),
        ("a \ud83d\ude00 cat", "a \U0001f600 cat"),
        ("a \udc00 cat", "a \ufffd cat"),
        ("\ud83d", "\ufffd"),
        ("a\u202ecat", "acat"),
    ],
    ids=["empty", "blank", "nul inside", "nul", "surrogate pair", "lone surrogate", "half pair", "bidi"],
)
def test_odd_texts(processor, text, same_as):
    got, expected = processor(text=[text, "a"]), processor(text=[same_as, "a"])
    assert got["input_ids"] == expected["input_ids"]
    assert got["missing_type"] == [2, 2]  # the image is absent; the text, empty or not, is present


def test_a_megabyte_of_text(processor):
    for text in ("cat " * 250_000, "x" * 1_000_000):
        batch = processor(text=[text, "a"], return_tensors="pt")
        assert batch["input_ids"].shape[1] <= 64


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(codec=None), max_size=20))
def test_any_text_is_encoded(processor, text):
    ids = processor(text=text)["input_ids"][0]
    assert ids[0] == processor.tokenizer.cls_token_id
    assert ids[-1] == processor.tokenizer.sep_token_id


# ---- wrong types, lengths, nothing at all ---------------------------------------------------------------------

IMAGE = Image.new("RGB", (4, 4))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, ValueError, "Neither images nor text"),
        ({"images": None, "text": None}, ValueError, "Neither images nor text"),
        ({"images": [], "text": []}, ValueError, "batch is empty"),
        ({"images": [None], "text": [None]}, ValueError, "Row 0 has neither"),
        ({"images": [IMAGE, None], "text": ["a", None]}, ValueError, "Row 1 has neither"),
        ({"images": [IMAGE], "text": [None, "a"]}, ValueError, "images has 1 rows but text has 2"),
        ({"images": IMAGE, "text": ["a", "b"]}, ValueError, "images has 1 rows but text has 2"),
        ({"images": [[IMAGE, IMAGE]], "text": ["a"]}, ValueError, r"images\[0\] holds 2 entries"),
        ({"images": [7], "text": ["a"]}, TypeError, r"images\[0\] is a int"),
        ({"images": 7, "text": "a"}, TypeError, "images is a int"),
        ({"images": {"a": IMAGE}, "text": "a"}, TypeError, "images is a dict"),
        ({"images": [{"bytes": b""}], "text": "a"}, TypeError, r"images\[0\] is a dict"),
        ({"images": [float("nan")], "text": ["a"]}, TypeError, r"images\[0\] is a float"),
        ({"text": 7}, TypeError, "text is a int"),
        ({"text": b"abc"}, TypeError, "text is a bytes"),
        ({"text": {"a"}}, TypeError, "text is a set"),
        ({"text": ["a", 7]}, TypeError, r"text\[1\] is a int"),
        ({"text": ["a", float("nan")]}, TypeError, "NaN: replace them by None"),
        ({"text": [["a", "b"]]}, TypeError, r"text\[0\] is a list"),
        ({"images": np.zeros((5, 5, 2), np.uint8), "text": "a"}, ValueError, r"shape \(5, 5, 2\)"),
        ({"images": np.zeros(5), "text": "a"}, ValueError, r"shape \(5,\)"),
        ({"images": np.zeros((2, 1, 4, 4, 3)), "text": "a"}, TypeError, "images is a ndarray"),
        ({"images": np.zeros((0, 4, 3), np.uint8), "text": "a"}, ValueError, "no pixels"),
        ({"images": np.full((4, 4, 3), 256), "text": "a"}, ValueError, r"0\.\.255, got 256"),
        ({"images": np.full((4, 4, 3), 1.5), "text": "a"}, ValueError, r"0\.\.1, got 1\.5"),
        ({"images": np.full((4, 4, 3), np.nan), "text": "a"}, ValueError, r"got nan"),
        ({"images": -torch.ones(3, 4, 4), "text": "a"}, ValueError, r"got -1\.0"),
        ({"images": np.full((4, 4), "x"), "text": "a"}, ValueError, "holds no grey levels"),
        ({"images": np.zeros((4, 4, 3)), "text": "a", "do_rescale": False}, ValueError, "do_rescale=False"),
    ],
)
def test_wrong_inputs(processor, inputs, error, message):
    with pytest.raises(error, match=message):
        processor(**inputs)
