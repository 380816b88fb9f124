"""Small raw trees in the owners' layouts, and encoded pictures, for the tests of the data layer."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def picture(seed: int, size: tuple[int, int] = (48, 32), mode: str = "RGB") -> Image.Image:
    """A picture that differs for each seed: blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).convert(mode)


def encoded(image: Image.Image, file_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def jpeg(seed: int, size: tuple[int, int] = (48, 32), **options) -> bytes:
    return encoded(picture(seed, size), "JPEG", **options)


def bomb_png(width: int = 20_000, height: int = 20_000) -> bytes:
    """A valid small PNG header that claims 400 megapixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 20), 9)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


FOOD_CLASSES = ("apple_pie", "pizza", "sushi")


def food_kaggle(root: Path, train: int = 12, test: int = 6) -> Path:
    """The Kaggle layout with `train` and `test` rows over three classes."""
    for split, count, first in (("train", train, 0), ("test", test, 1000)):
        lines = []
        for i in range(count):
            name = FOOD_CLASSES[i % 3]
            file = f"{name}_{first + i}.jpg"
            write(root / "images" / split / name / file, jpeg(first + i))
            lines.append(f"{file},Best {name.replace('_', ' ')} no. {i},{name}\r\n")
        write(root / "texts" / f"{split}_titles.csv", "".join(lines))
    return root


def mmimdb_record(**changes) -> dict:
    return {
        "title": "The Sample",
        "year": 1994,
        "genres": ["War", "Drama"],
        "plot": ["Short text.::Jane Doe <jane@example.org>", "A longer text &amp; more of it."],
        "plot outline": "One line.",
        "cast": [{"name": "Doe, Jane"}],
        **changes,
    }


def mmimdb(root: Path, records: dict[str, dict[str, dict]], layout: str = "owner") -> Path:
    """`records`: owner's split -> id -> record."""
    base = root / "mmimdb" if layout == "owner" else root
    labels, posters = ("dataset", "dataset") if layout == "owner" else ("labels", "images")
    for split in ("train", "dev", "test"):
        for number, (name, record) in enumerate(records.get(split, {}).items()):
            write(base / labels / f"{name}.json", json.dumps(record))
            write(base / posters / f"{name}.jpeg", jpeg(zlib.crc32(f"{split}{number}".encode()) % 1000))
    write(base / "split.json", json.dumps({split: list(records.get(split, {})) for split in ("train", "dev", "test")}))
    return root


def json_lines(records: list[dict]) -> str:
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)


def files_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Relative path -> content of the files matching the patterns."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in sorted(folder.rglob(pattern))
    }
