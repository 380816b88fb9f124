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
"""The shipped drawings and the pictures composed of them."""

import hashlib
import json
import random
import re

import numpy as np
import pytest

from fusionzoo.training.data import demo_concepts
from fusionzoo.training.data.emoji_scenes import (
    EMOJI_DIR,
    MARGIN,
    STYLES,
    TILE,
    Placement,
    Scene,
    emoji_by_name,
    emoji_tile,
    generator_at,
    pick,
    pick_distinct,
    placed_inside,
    render,
    style_for,
)
from fusionzoo.training.data.label_names import DEMO_FOOD_CLASSES, MMIMDB_GENRES


def pixels(scene, side=84):
    return np.asarray(render(scene, side)).astype(int)


def covered(scene, side=84):
    """Where something was drawn: differs from the background."""
    return np.abs(pixels(scene, side) - scene.background).max(-1) > 0


def test_shipped_files_are_the_known_ones_and_named_in_the_notice():
    assert len(emoji_by_name()) == 1026
    assert [concept.index for concept in emoji_by_name().values()] == list(range(1026))
    notice = (EMOJI_DIR / "NOTICE").read_text(encoding="utf-8")
    for text in (
        "Noto Emoji",
        "Apache License, Version 2.0",
        "Twemoji",
        "CC-BY 4.0",
        "emoji-datasource 16.0.0",
        "MIT",
    ):
        assert text in notice
    size = sum(
        path.stat().st_size for folder in ("emoji", "mustard_text") for path in (EMOJI_DIR.parent / folder).iterdir()
    )
    assert size < 2_500_000


@pytest.mark.parametrize("style", STYLES)
def test_every_tile_holds_a_drawing_inside_its_clear_margin(style):
    for name in emoji_by_name():
        alpha = np.asarray(emoji_tile(name, style))[..., 3]
        assert alpha.shape == (TILE + 2 * MARGIN,) * 2
        assert (alpha[MARGIN:-MARGIN, MARGIN:-MARGIN] > 0).mean() > 0.1, name
        assert (
            alpha[:MARGIN].max() == alpha[-MARGIN:].max() == alpha[:, :MARGIN].max() == alpha[:, -MARGIN:].max() == 0
        )


def test_curated_concepts_exist_and_are_of_their_class():
    known = emoji_by_name()
    assert tuple(sorted(demo_concepts.FOOD_CONCEPTS)) == DEMO_FOOD_CLASSES
    for label, names in demo_concepts.FOOD_CONCEPTS.items():
        assert len(set(names)) == 8
        assert {re.sub("[^a-z]+", "_", known[name].subgroup) for name in names} == {label}
    assert tuple(demo_concepts.GENRE_CONCEPTS) == MMIMDB_GENRES
    every = [name for names in demo_concepts.GENRE_CONCEPTS.values() for name in names]
    assert len(every) == len(set(every)) == 23 * 5
    assert len(set(demo_concepts.VE_CONCEPTS)) == 36
    smiling, negative = set(demo_concepts.SMILING_FACES), set(demo_concepts.NEGATIVE_FACES)
    assert (len(smiling), len(negative)) == (23, 46)
    assert {known[name].subgroup for name in smiling} == {"face-smiling", "face-affection"}
    assert {known[name].subgroup for name in negative} == {"face-concerned", "face-negative", "face-unwell"}
    rest = (*demo_concepts.SCEPTICAL_FACES, *demo_concepts.RUS_TOOLS, *demo_concepts.VE_CONCEPTS, *every)
    assert set(rest) <= set(known)
    assert {known[name].group for name in demo_concepts.RUS_ANIMALS} == {"Animals & Nature"}
    assert {known[name].subgroup for name in demo_concepts.RUS_FRUITS} == {"food-fruit"}


def test_words_of_sentences():
    words = [
        demo_concepts.with_article(name) for name in ("dog", "owl", "unicorn face", "hourglass", "scissors", "mag")
    ]
    assert words == ["a dog", "an owl", "a unicorn", "an hourglass", "scissors", "a magnifying glass"]
    assert demo_concepts.title_words("banana") == ("banana", "fruit", "monkey", "plantain")
    assert demo_concepts.title_words("taco") == ("taco",)


def test_numbers_depend_on_their_address_only():
    assert [round(generator_at(0, "food", "train", 0).random(), 6) for _ in range(2)] == [0.900077] * 2
    random.seed(0)
    before = random.getstate()
    streams = {
        generator_at(*address).random()
        for address in [(0, "a", 1), (0, "a", 11), (0, "a1", 1), (1, "a", 1), ("0", "a", 1)]
    }
    assert len(streams) == 5
    assert random.getstate() == before


def test_picks_are_uniform():
    rng = generator_at("uniform")
    drawn = np.bincount([pick(rng, range(5)) for _ in range(5000)])
    assert np.abs(drawn - 1000).max() < 4 * (5000 * 0.2 * 0.8) ** 0.5
    orders = [tuple(pick_distinct(rng, "abc", 3)) for _ in range(6000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and max(abs(count - 1000) for count in counts) < 4 * 30


def test_styles():
    assert {style_for(generator_at(i), "both", False) for i in range(20)} == {"noto", "twemoji"}
    assert {style_for(generator_at(i), "cross", False) for i in range(20)} == {"noto"}
    assert {style_for(generator_at(i), "cross", True) for i in range(20)} == {"twemoji"}
    after = []
    for option in ("both", "noto", "cross"):
        rng = generator_at(5)
        style_for(rng, option, True)
        after.append(rng.random())
    assert len(set(after)) == 1  # the option takes no number from what follows
    with pytest.raises(ValueError, match="style 'openmoji'; available: noto, twemoji"):
        emoji_tile("dog", "openmoji")
    with pytest.raises(ValueError, match="No emoji is named 'dogg'"):
        emoji_tile("dogg", "noto")


@pytest.mark.parametrize("name", ["door", "window", "bear", "smiling face with 3 hearts"])  # these fill their tiles
def test_a_turned_emoji_lies_inside_its_box(name):
    box = (0.25, 0.25, 1.0, 0.75)
    for index in range(20):
        placement = placed_inside(generator_at(name, index), name, "noto", scale=(0.3, 0.95), angle=40, box=box)
        assert placement.scale <= 0.5
        drawn = np.argwhere(covered(Scene((1, 2, 3), (placement,)), 84))
        (top, left), (bottom, right) = drawn.min(0), drawn.max(0)
        assert left >= 19 and right <= 83 and top >= 19 and bottom <= 64  # the box and one pixel of rounding


def test_render_draws_what_the_scene_says():
    scene = Scene((200, 210, 220), (Placement("blue heart", "twemoji", (0.25, 0.25), 0.4),))
    picture = pixels(scene, 100)
    assert picture.shape == (100, 100, 3)
    assert (picture[60:] == (200, 210, 220)).all() and (picture[:, 60:] == (200, 210, 220)).all()
    assert np.abs(picture[25, 25] - (93, 173, 236)).max() < 12  # Twemoji's blue
    assert np.array_equal(pixels(scene), pixels(scene))
    # no dark or light seam where the drawing fades into a background of its own colour
    blue = Scene((93, 173, 236), (Placement("blue heart", "twemoji", (0.5, 0.5), 0.8, 30),))
    assert np.abs(pixels(blue) - (93, 173, 236)).max() < 24


def test_captions_are_readable_and_scribbles_are_not():
    plain = Scene((150, 150, 150), ())
    caption = pixels(Scene((150, 150, 150), (), caption="i love early mornings"))
    other = pixels(Scene((150, 150, 150), (), caption="i hate early mornings"))
    assert (caption != other).any()
    assert caption.max() > 250 and caption.min() < 5
    assert not covered(Scene((150, 150, 150), (), caption="i love early mornings"))[:42].any()
    scribble = covered(Scene((150, 150, 150), (), scribble=(0.5, 1.0, 0.7, 0.4)))
    assert scribble.any() and scribble.sum(0).max() <= 2 and not scribble[:70].any()
    assert not covered(plain).any()


def test_long_captions_stay_on_the_picture():
    text = "the worst thing about today is early mornings"
    drawn = covered(Scene((150, 150, 150), (), caption=text))
    assert not drawn[:, 0].any() and not drawn[:, -1].any() and not drawn[0].any()


def test_atlas_hashes():
    known = {"noto.webp": "0ee22fb22e75f98f", "twemoji.webp": "f5ac8205edc0f416", "emoji.json": "08668d85fd8cc4cf"}
    assert {name: hashlib.sha256((EMOJI_DIR / name).read_bytes()).hexdigest()[:16] for name in known} == known
    table = json.loads((EMOJI_DIR / "emoji.json").read_text(encoding="utf-8"))
    assert (table["tile"], table["columns"], table["count"]) == (64, 32, 1026)
