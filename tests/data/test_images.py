"""Hostile and odd pictures: each has one defined outcome."""

import io
import os
import resource
import sys

import numpy as np
import pytest
from fixtures_raw_trees import bomb_png, encoded, jpeg, picture, write
from PIL import Image

from fusionzoo.training.data.images import (
    ImageFinder,
    UnsafeImageError,
    open_image_safely,
    resolve_inside,
    store_image,
)


def reason_of(function, *args, **kwargs) -> str:
    with pytest.raises(UnsafeImageError) as caught:
        function(*args, **kwargs)
    return caught.value.reason


def decoded(stored) -> Image.Image:
    return open_image_safely(stored.data)


@pytest.mark.parametrize(
    ("file_format", "mode", "extension"),
    [("JPEG", "RGB", ".jpg"), ("JPEG", "L", ".jpg"), ("PNG", "RGBA", ".png"), ("WEBP", "RGB", ".webp")],
)
def test_ordinary_pictures_keep_their_bytes(file_format, mode, extension):
    data = encoded(picture(1, mode=mode), file_format)
    stored = store_image(data)
    assert stored.data == data and stored.extension == extension and stored.repairs == ()


@pytest.mark.parametrize(
    "data", [b"", b"<html><body>404</body></html>", jpeg(1)[: len(jpeg(1)) // 2], b"\x89PNG\r\n\x1a\n"]
)
def test_empty_html_and_truncated_files_are_unreadable(data):
    assert reason_of(store_image, data) == "image_unreadable"


def test_truncated_jpeg_can_be_allowed():
    whole = picture(3, (256, 256)).effect_spread(40)
    data = encoded(whole, "JPEG")
    cut = data[: len(data) * 2 // 3]
    assert reason_of(store_image, cut) == "image_unreadable"
    stored = store_image(cut, allow_truncated=True)
    assert stored.repairs == ("truncated",) and stored.data != cut
    top, expected = np.asarray(decoded(stored), int)[:100], np.asarray(whole, int)[:100]
    assert np.median(np.abs(top - expected)) <= 12
    assert store_image(data, allow_truncated=True).data == data
    assert reason_of(store_image, b"<html>", allow_truncated=True) == "image_unreadable"
    assert reason_of(store_image, cut) == "image_unreadable"


def test_bomb_is_refused_before_decoding():
    data = bomb_png()
    assert len(data) < 50_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason_of(store_image, data) == "image_too_large"
    assert reason_of(open_image_safely, data) == "image_too_large"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / (1 if sys.platform == "darwin" else 1024) < 300 * (2**20 if sys.platform == "darwin" else 1)
    assert reason_of(store_image, bomb_png(9_500, 9_500)) == "image_too_large"  # 90 MP: Pillow itself only warns


def test_byte_limit(tmp_path):
    path = write(tmp_path / "a.jpg", jpeg(1))
    assert reason_of(open_image_safely, path, max_bytes=100) == "image_too_large"
    assert reason_of(open_image_safely, jpeg(1), max_bytes=100) == "image_too_large"


def test_cmyk_becomes_rgb_with_the_same_colours():
    cmyk = encoded(picture(2, mode="CMYK"), "JPEG", quality=100, subsampling=0)
    stored = store_image(cmyk)
    assert stored.repairs == ("mode_converted",) and stored.extension == ".jpg"
    difference = np.abs(np.asarray(decoded(stored), int) - np.asarray(picture(2), int))
    assert np.median(difference) <= 3


def test_one_pixel():
    data = encoded(Image.new("RGB", (1, 1), (9, 200, 30)), "PNG")
    assert store_image(data).data == data
    assert open_image_safely(data).getpixel((0, 0)) == (9, 200, 30)


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    stored = store_image(data)
    assert set(stored.repairs) == {"first_frame", "format_converted", "mode_converted"}
    red, _, blue = decoded(stored).getpixel((5, 5))
    assert red > 200 and blue < 50


def test_exif_rotation_is_applied_and_dropped():
    upright = picture(5, (60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; to be shown turned clockwise
    data = encoded(upright.rotate(90, expand=True), "JPEG", exif=exif, quality=100, subsampling=0)
    stored = store_image(data)
    assert stored.repairs == ("exif_transposed",)
    again = Image.open(io.BytesIO(stored.data))
    assert again.size == (60, 20) and not again.getexif()
    assert np.median(np.abs(np.asarray(again, int) - np.asarray(upright, int))) <= 8


def test_sixteen_bit_grey_is_scaled_not_clipped():
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    data = encoded(Image.fromarray(levels), "PNG")
    stored = store_image(data)
    assert stored.repairs == ("mode_converted",)
    found = np.asarray(decoded(stored), int)[..., 0]
    assert np.abs(found - levels.astype(int) * 255 // 65535).max() <= 6


def test_transparent_palette_shows_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).quantize()
    data = encoded(image, "PNG", transparency=0)
    assert decoded(store_image(data)).getpixel((4, 4)) == (255, 255, 255)


def test_large_pictures_are_scaled_down_the_same_way_each_time():
    data = jpeg(7, (900, 300))
    first, second = store_image(data, max_side=256), store_image(data, max_side=256)
    assert first.data == second.data and first.repairs == ("resized",)
    assert decoded(first).size == (256, 85)
    assert store_image(data, max_side=0).data == data


def test_digest_is_that_of_the_picture_not_of_the_file():
    image = picture(4, (64, 64))
    assert store_image(encoded(image, "PNG")).digest == store_image(encoded(image, "BMP")).digest
    assert store_image(encoded(image, "PNG")).digest != store_image(encoded(picture(5, (64, 64)), "PNG")).digest


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "img/../../secret.jpg",
        "/etc/passwd",
        "C:\\x.jpg",
        "c:x.jpg",
        "\\\\server\\share\\x.jpg",
        "..\\secret.jpg",
        "a\0.jpg",
        "https://example.org/x.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "",
        " ",
    ],
)
def test_paths_that_leave_the_root(tmp_path, path):
    write(tmp_path / "secret.jpg", jpeg(1))
    root = tmp_path / "root"
    root.mkdir()
    assert reason_of(resolve_inside, root, path) == "unsafe_path"
    assert reason_of(open_image_safely, path, root=root) == "unsafe_path"


def test_links_may_point_inside_but_not_outside(tmp_path):
    outside = write(tmp_path / "outside" / "a.jpg", jpeg(1))
    root = tmp_path / "root"
    inside = write(root / "b.jpg", jpeg(2))
    (root / "out.jpg").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "in.jpg").symlink_to(inside)
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    assert reason_of(resolve_inside, root, "out.jpg") == "unsafe_path"
    assert reason_of(resolve_inside, root, "folder/a.jpg") == "unsafe_path"
    assert resolve_inside(root, "in.jpg") == inside.resolve()
    assert reason_of(open_image_safely, "loop.jpg", root=root) in ("image_missing", "image_unreadable", "unsafe_path")


def test_similar_name_of_the_root_is_outside(tmp_path):
    write(tmp_path / "root-other" / "a.jpg", jpeg(1))
    (tmp_path / "root").mkdir()
    assert reason_of(resolve_inside, tmp_path / "root", "../root-other/a.jpg") == "unsafe_path"


def test_windows_separators_are_understood(tmp_path):
    path = write(tmp_path / "img" / "a.jpg", jpeg(1))
    assert resolve_inside(tmp_path, "img\\a.jpg") == path.resolve()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_named_like_a_picture_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert reason_of(open_image_safely, "a.jpg", root=tmp_path) == "unsafe_path"


def test_finder_accepts_other_extensions(tmp_path):
    write(tmp_path / "img" / "1.JPG", jpeg(1))
    write(tmp_path / "img" / "2.png", encoded(picture(1), "PNG"))
    finder = ImageFinder(tmp_path)
    assert finder.find("img/1.jpg").name == "1.JPG"
    assert finder.find("img/2.jpeg").name == "2.png"
    assert reason_of(finder.find, "img/3.jpg") == "image_missing"
    assert reason_of(finder.find, "img/" + "x" * 5000 + ".jpg") == "image_missing"
