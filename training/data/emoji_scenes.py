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
"""Small pictures composed of real emoji drawings, and the random numbers that decide what is on them.

The package ships 1,026 emoji in two drawing styles (`emoji/noto.webp`, `emoji/twemoji.webp`; licences in `emoji/NOTICE`).
A `Scene` says which of them lie where on which background; `render` draws it. Scenes are plain data, so that
statistics of a demo data set can be computed without drawing anything.

Every random number has an address: `generator_at(seed, "food", "train", 17)` is the generator of one sample, and nothing
else draws from it. Hence the number of samples, their order and other samples never change a sample. Only
`random.Random.random` is used, whose stream Python keeps the same across versions.
"""

import functools
import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont


EMOJI_DIR = Path(__file__).parent / "emoji"
STYLES = ("noto", "twemoji")
STYLE_OPTIONS = ("both", "noto", "twemoji", "cross")
TILE, COLUMNS, MARGIN = 64, 32, 2  # pixels of a tile, tiles per row of the atlas, clear pixels added around a tile

T = TypeVar("T")
Color = tuple[int, int, int]


# --- addressed random numbers -----------------------------------------------------------------------------------------


def generator_at(*address: int | str) -> random.Random:
    """The generator of one address, e.g. (seed, demo, split, index); equal addresses give equal streams."""
    key = json.dumps(address, separators=(",", ":")).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big"))


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One item, uniformly."""
    return items[int(rng.random() * len(items))]


def pick_distinct(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """`count` different items in random order, uniformly."""
    pool = list(items)
    return [pool.pop(int(rng.random() * len(pool))) for _ in range(count)]


def uniform(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


# --- the atlas --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Emoji:
    """One concept of the atlas: its tile number, its name and what is known about it."""

    index: int
    code: str
    name: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]


@functools.cache
def emoji_by_name() -> dict[str, Emoji]:
    """All 1,026 concepts, in the order of their tiles."""
    table = json.loads((EMOJI_DIR / "emoji.json").read_text(encoding="utf-8"))
    records = enumerate(table["records"])
    return {
        r["name"]: Emoji(i, r["code"], r["name"], r["group"], r["subgroup"], tuple(r["keywords"])) for i, r in records
    }


@functools.cache
def _atlas(style: str) -> Image.Image:
    with Image.open(EMOJI_DIR / f"{style}.webp") as picture:
        return picture.convert("RGBA")


@functools.lru_cache(maxsize=2048)
def emoji_tile(name: str, style: str) -> Image.Image:
    """The drawing of a concept: 64 x 64 with a clear margin, premultiplied RGBA; do not modify it, it is shared.

    Raises:
        ValueError: unknown name or style.
    """
    if style not in STYLES:
        raise ValueError(f"Unknown emoji style {style!r}; available: {', '.join(STYLES)}.")
    concept = emoji_by_name().get(name)
    if concept is None:
        raise ValueError(f"No emoji is named {name!r}; see the names in {EMOJI_DIR / 'emoji.json'}.")
    x, y = concept.index % COLUMNS * TILE, concept.index // COLUMNS * TILE
    tile = Image.new("RGBa", (TILE + 2 * MARGIN, TILE + 2 * MARGIN))
    # Premultiplied, so that scaling doesn't pull the (invisible) colour of clear pixels into the edges.
    tile.paste(_atlas(style).crop((x, y, x + TILE, y + TILE)).convert("RGBa"), (MARGIN, MARGIN))
    return tile


def style_for(rng: random.Random, option: str, is_test: bool) -> str:
    """The drawing style of one sample: `"both"` tosses a coin; `"cross"` trains on Noto and tests on Twemoji."""
    coin = pick(rng, STYLES)  # drawn in any case, so that the option changes nothing else of the sample
    if option == "both":
        return coin
    if option == "cross":
        return "twemoji" if is_test else "noto"
    return option


# --- scenes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """One emoji on a picture; positions and sizes are fractions of the picture's side, the angle is in degrees."""

    name: str
    style: str
    center: tuple[float, float] = (0.5, 0.5)
    scale: float = 0.8
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What is on a picture.

    Args:
        background: its colour.
        placements: the emoji, drawn in this order.
        caption: text written on the lower edge, readable; "" writes nothing.
        scribble: lengths in [0, 1] of the words of two unreadable lines at the lower edge (the look of a caption
            without its content); () draws none.
    """

    background: Color
    placements: tuple[Placement, ...]
    caption: str = ""
    scribble: tuple[float, ...] = ()


def pale_color(rng: random.Random) -> Color:
    """A light background colour."""
    return tuple(190 + int(rng.random() * 60) for _ in range(3))  # type: ignore[return-value]


def placed_inside(
    rng: random.Random,
    name: str,
    style: str,
    *,
    scale: tuple[float, float],
    angle: float = 12.0,
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> Placement:
    """A random size, rotation and position such that the emoji, with its corners, lies inside `box`.

    `box` is (left, top, right, bottom); an emoji that can't fit at the drawn size is made as large as the box allows.
    """
    left, top, right, bottom = box
    side, turn = uniform(rng, *scale), uniform(rng, -angle, angle)
    spread = abs(math.cos(math.radians(turn))) + abs(math.sin(math.radians(turn)))  # of a turned square
    reach = min(side * spread, right - left, bottom - top)
    x = uniform(rng, left + reach / 2, right - reach / 2)
    y = uniform(rng, top + reach / 2, bottom - reach / 2)
    return Placement(name, style, (x, y), reach / spread, turn)


def render(scene: Scene, side: int = 84) -> Image.Image:
    """Draws a scene as a square RGB picture."""
    picture = Image.new("RGB", (side, side), scene.background)
    for placement in scene.placements:
        length = max(1, round(placement.scale * side * (TILE + 2 * MARGIN) / TILE))
        tile = emoji_tile(placement.name, placement.style).resize((length, length), Image.Resampling.BICUBIC)
        if placement.angle:
            tile = tile.rotate(placement.angle, Image.Resampling.BICUBIC, expand=True)
        tile = tile.convert("RGBA")
        x, y = placement.center
        picture.paste(tile, (round(x * side - tile.width / 2), round(y * side - tile.height / 2)), tile)
    if scene.scribble:
        _draw_scribble(picture, scene.scribble)
    if scene.caption:
        _draw_caption(picture, scene.caption)
    return picture


def _draw_scribble(picture: Image.Image, lengths: Sequence[float]) -> None:
    draw, side = ImageDraw.Draw(picture), picture.width
    half = (len(lengths) + 1) // 2
    for row, words in enumerate((lengths[:half], lengths[half:])):
        total = sum(words) + 0.4 * (len(words) - 1)
        unit = 0.8 * side / max(total, 1e-6)
        x, y = 0.1 * side, side * (0.91 + 0.05 * row)
        for word in words:
            draw.line([(round(x), round(y)), (round(x + word * unit), round(y))], fill=(90, 90, 90), width=1)
            x += (word + 0.4) * unit


@functools.cache
def _caption_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_caption(picture: Image.Image, text: str) -> None:
    """White letters on black strips along the lower edge, as many lines as needed."""
    draw, side = ImageDraw.Draw(picture), picture.width
    font = _caption_font(max(6, round(side * 0.12)))
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > side - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    step = round(side * 0.125)
    bases = [side - 2 - step * (len(lines) - 1 - row) for row in range(len(lines))]
    for base, line in zip(bases, lines):
        half = draw.textlength(line, font=font) / 2
        draw.rectangle((side / 2 - half - 1, base - step + 1, side / 2 + half, base + 1), fill="black")
    for base, line in zip(bases, lines):
        draw.text((side / 2, base), line, fill="white", font=font, anchor="ms")
