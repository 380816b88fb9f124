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
"""What one sample of each demo data set says and shows, before anything is drawn or written.

| demo    | structure between the modalities                                                                      |
|---------|-------------------------------------------------------------------------------------------------------|
| food    | redundant, and each side knows something: the picture is wrong in 20 %, the title in 35 % of the cases |
| imdb    | unique: picture and plot name different genres (one in common in 40 %), the label is their union      |
| ve      | text alone tells opinions from facts (2/3); whether a fact holds needs the picture                    |
| memes   | synergy only: hateful if and only if face and caption differ in mood; all confounders are present     |
| mustard | real texts and labels; a drawn clip whose last frames agree with the label with probability p         |
| rus     | known shares of redundancy, uniqueness and synergy (R, U_image, U_text, S)                            |

All functions are pure: the same arguments give the same sample.
"""

from dataclasses import dataclass

from .demo_concepts import (
    FOOD_CONCEPTS,
    GENRE_CONCEPTS,
    MEME_CAPTIONS,
    MEME_NOUNS,
    NEGATIVE_FACES,
    RUS_ANIMALS,
    RUS_BACKGROUNDS,
    RUS_FIRST_WORDS,
    RUS_FRUITS,
    RUS_TOOLS,
    SCEPTICAL_FACES,
    SMILING_FACES,
    VE_CONCEPTS,
    title_words,
    with_article,
)
from .emoji_scenes import (
    Placement,
    Scene,
    generator_at,
    pale_color,
    pick,
    pick_distinct,
    placed_inside,
    style_for,
    uniform,
)
from .label_names import DEMO_FOOD_CLASSES, MMIMDB_GENRES, RUS_INTERACTIONS


# --- food -------------------------------------------------------------------------------------------------------------

FOOD_TITLES = (
    "How to choose {w} - My Notebook",
    "{w} &laquo; The Daily Page",
    "Ten facts about {w}",
    "Everything about {w} &amp; more",
    "{w} | pictures and tips",
    "Our favourite {w} of the week",
    "A short story of {w}",
    "{w} - photo gallery",
)
EMPTY_TITLES = (
    "My blog &laquo; archive",
    "Home page | welcome",
    "Untitled document",
    "Photo of the day",
    "News &amp; notes",
    "All posts by the author",
    "March newsletter",
    "Page 2 of 7 - results",
)


@dataclass(frozen=True)
class FoodSample:
    """`shown` and `told` are the classes of picture and title; `told` is None for a title that says nothing."""

    label: str
    shown: str
    told: str | None
    title: str
    scene: Scene


def food_sample(seed: int, split: str, index: int, style: str = "both") -> FoodSample:
    """One emoji of the class (80 %) and a title about the class (65 %), about nothing (25 %) or another class (10 %)."""
    rng = generator_at(seed, "food", split, index)
    label = pick(rng, DEMO_FOOD_CLASSES)
    others = [name for name in DEMO_FOOD_CLASSES if name != label]
    own = pick(rng, FOOD_CONCEPTS[label])

    shown = pick(rng, others) if rng.random() < 0.2 else label
    concept = own if shown == label else pick(rng, FOOD_CONCEPTS[shown])
    drawing = style_for(rng, style, split == "test")
    scene = Scene(pale_color(rng), (placed_inside(rng, concept, drawing, scale=(0.65, 0.95)),))

    chance = rng.random()
    told = None if chance < 0.25 else pick(rng, others) if chance < 0.35 else label
    if told is None:
        return FoodSample(label, shown, None, pick(rng, EMPTY_TITLES), scene)
    name, *keywords = title_words(own if told == label else pick(rng, FOOD_CONCEPTS[told]))
    word = name if rng.random() < 0.5 else pick(rng, keywords or [name])
    title = pick(rng, FOOD_TITLES).format(w=word)
    return FoodSample(label, shown, told, title[0].upper() + title[1:], scene)


# --- imdb -------------------------------------------------------------------------------------------------------------

PLOTS = (
    "It begins with {a}. Nobody expects {b} to matter, yet everything turns around it in the end.",
    "When {a} appears in a quiet town, two strangers must learn what {b} has to do with it.",
    "A family finds {a} in the attic. Years later {b} brings them together again.",
    "The story of {a}, of {b}, and of the people between them.",
    "She remembers {a}. He remembers only {b}. Both of them are right.",
    "After losing {a}, a young clerk travels across the country with {b} and one last hope.",
)
SHORT_PLOTS = ("A tale told in one night.", "Two people meet again.", "Nothing is as it was.", "A long way home.")
FIRST_TITLE_WORDS = ("The Long", "A Second", "Beyond the", "The Last", "Another", "Under the", "Two Days of", "No")
LAST_TITLE_WORDS = ("Summer", "Door", "River", "Letter", "Morning", "Street", "Promise", "Return", "Shore", "Chapter")


@dataclass(frozen=True)
class ImdbSample:
    """Genres in the picture, genres in the plot (two each), and their union in the order of the genre list."""

    shown: tuple[str, ...]
    told: tuple[str, ...]
    genres: tuple[str, ...]
    title: str
    year: int
    plots: tuple[str, ...]
    scene: Scene


def imdb_sample(seed: int, split: str, index: int, style: str = "both") -> ImdbSample:
    """A "poster" with emoji of two genres and a plot that names things of two genres, one of them shared in 40 %."""
    rng = generator_at(seed, "imdb", split, index)
    shown = pick_distinct(rng, MMIMDB_GENRES, 2)
    rest = [genre for genre in MMIMDB_GENRES if genre not in shown]
    told = pick_distinct(rng, rest, 2)
    if rng.random() < 0.4:
        told[int(rng.random() * 2)] = pick(rng, shown)

    first, second = (pick(rng, GENRE_CONCEPTS[genre]) for genre in shown)
    # The plot names another thing of a shared genre than the picture shows.
    named = [pick(rng, [n for n in GENRE_CONCEPTS[genre] if n not in (first, second)]) for genre in told]
    drawing = style_for(rng, style, split == "test")
    corners = ((0.0, 0.0, 0.62, 0.62), (0.38, 0.38, 1.0, 1.0))
    if rng.random() < 0.5:
        corners = ((0.38, 0.0, 1.0, 0.62), (0.0, 0.38, 0.62, 1.0))
    background = pale_color(rng)
    emoji = (
        placed_inside(rng, first, drawing, scale=(0.44, 0.54), box=corners[0]),
        placed_inside(rng, second, drawing, scale=(0.44, 0.54), box=corners[1]),
    )
    plot = pick(rng, PLOTS).format(a=with_article(named[0]), b=with_article(named[1]))
    plots = (plot,) if rng.random() < 0.5 else (pick(rng, SHORT_PLOTS), plot)
    title = f"{pick(rng, FIRST_TITLE_WORDS)} {pick(rng, LAST_TITLE_WORDS)}"
    year = 1930 + int(rng.random() * 85)
    genres = tuple(genre for genre in MMIMDB_GENRES if genre in {*shown, *told})
    return ImdbSample(tuple(shown), tuple(told), genres, title, year, plots, Scene(background, emoji))


# --- ve ---------------------------------------------------------------------------------------------------------------

FACTS = (
    "There is {x} in the picture.",
    "One can see {x}.",
    "The picture shows {x} and something else.",
    "One of the two things is {x}.",
)
OPINIONS = (
    "Somebody bought {x} like this yesterday.",
    "The owner is proud of {x} like this.",
    "A child has always wanted {x} like this.",
    "An artist was paid for drawing {x} like this.",
)


@dataclass(frozen=True)
class VeImage:
    """Two things side by side and three statements about them: (gold label, hypothesis), in random order."""

    shown: tuple[str, str]
    premise: str
    statements: tuple[tuple[str, str], ...]
    scene: Scene


def ve_image(seed: int, split: str, index: int, style: str = "both") -> VeImage:
    """A picture of two of 36 things with a true, a false and an undecidable statement.

    The thing that is named is uniform over all 36 for each label, so it tells nothing by itself.
    """
    rng = generator_at(seed, "ve", split, index)
    left, right = pick_distinct(rng, VE_CONCEPTS, 2)
    absent = pick(rng, [name for name in VE_CONCEPTS if name not in (left, right)])
    statements = (
        ("entailment", pick(rng, FACTS).format(x=with_article(pick(rng, (left, right))))),
        ("contradiction", pick(rng, FACTS).format(x=with_article(absent))),
        ("neutral", pick(rng, OPINIONS).format(x=with_article(pick(rng, (left, right))))),
    )
    drawing = style_for(rng, style, split == "test")
    background = pale_color(rng)
    emoji = (
        placed_inside(rng, left, drawing, scale=(0.4, 0.49), box=(0.0, 0.15, 0.5, 0.85)),
        placed_inside(rng, right, drawing, scale=(0.4, 0.49), box=(0.5, 0.15, 1.0, 0.85)),
    )
    ordered = tuple(pick_distinct(rng, statements, len(statements)))
    premise = f"{with_article(left)} beside {with_article(right)}."
    return VeImage((left, right), premise[0].upper() + premise[1:], ordered, Scene(background, emoji))


# --- memes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meme:
    """`face_mood` and `text_mood` are 1 for positive and 0 for negative; the label says whether they differ."""

    face_mood: int
    text_mood: int
    label: int
    text: str
    scene: Scene


def meme_quadruple(
    seed: int, split: str, index: int, style: str = "both", faces: int = 8, overlay: bool = False
) -> tuple[Meme, Meme, Meme, Meme]:
    """Two faces of opposite mood with each of two captions of opposite mood.

    Every meme has an image confounder (same caption, other picture, other label) and a text confounder (same picture,
    other caption, other label) among the four; so neither modality alone tells more than chance.
    """
    rng = generator_at(seed, "memes", split, index)
    drawing = style_for(rng, style, split == "test")
    scenes = []
    for kinds in (NEGATIVE_FACES, SMILING_FACES):
        face = pick(rng, kinds[:faces])
        background = pale_color(rng)
        placement = placed_inside(rng, face, drawing, scale=(0.62, 0.8), box=(0.0, 0.0, 1.0, 0.88))
        scribble = () if overlay else tuple(uniform(rng, 0.3, 1.0) for _ in range(4 + int(rng.random() * 4)))
        scenes.append(Scene(background, (placement,), scribble=scribble))
    noun = pick(rng, MEME_NOUNS)
    positive, negative = pick(rng, MEME_CAPTIONS)
    captions = (negative.format(n=noun), positive.format(n=noun))
    memes = []
    for face_mood, text_mood in pick_distinct(rng, ((0, 0), (0, 1), (1, 0), (1, 1)), 4):
        scene, text = scenes[face_mood], captions[text_mood]
        if overlay:
            scene = Scene(scene.background, scene.placements, caption=text)
        memes.append(Meme(face_mood, text_mood, int(face_mood != text_mood), text, scene))
    return tuple(memes)  # type: ignore[return-value]


# --- mustard ----------------------------------------------------------------------------------------------------------


def mustard_clip(
    seed: int, key: str, sarcastic: bool, p: float = 0.9, style: str = "both", is_test: bool = False
) -> tuple[Scene, Scene, Scene, Scene]:
    """Four frames of one speaker: two smiling, then two sceptical (if sarcastic) or smiling with probability `p`."""
    rng = generator_at(seed, "mustard", key)
    drawing = style_for(rng, style, is_test)
    agrees = rng.random() < p
    smile, doubt = pick(rng, SMILING_FACES[:8]), pick(rng, SCEPTICAL_FACES)
    last = doubt if sarcastic == agrees else smile
    background = pale_color(rng)
    x, y, scale = uniform(rng, 0.45, 0.55), uniform(rng, 0.45, 0.55), uniform(rng, 0.7, 0.85)
    frames = []
    for face in (smile, smile, last, last):  # the head moves a little between the frames
        center = (x + uniform(rng, -0.03, 0.03), y + uniform(rng, -0.03, 0.03))
        frames.append(Scene(background, (Placement(face, drawing, center, scale, uniform(rng, -10, 10)),)))
    return tuple(frames)  # type: ignore[return-value]


# --- rus --------------------------------------------------------------------------------------------------------------

RUS_SHARES = (0.45, 0.20, 0.20, 0.15)
RUS_SENTENCES = ("we drew {x}.", "I met {x}.", "they found {x}.", "she dreamt of {x}.")


@dataclass(frozen=True)
class RusSample:
    """One sample with everything that decided it.

    Args:
        label: y in {0, 1}, after the noise.
        interaction: R, U_image, U_text or S.
        image_cue, text_cue: 0 animal, 1 fruit, None an uninformative tool (`hard="soft"` only).
        image_marker: background colour, 0 to 3.
        text_marker: first word, 0 to 3; (image_marker + text_marker) mod 4 is the interaction's number.
    """

    label: int
    interaction: str
    image_cue: int | None
    text_cue: int | None
    image_marker: int
    text_marker: int
    text: str
    scene: Scene


def rus_sample(
    seed: int,
    split: str,
    index: int,
    shares: tuple[float, float, float, float] = RUS_SHARES,
    noise: float = 0.0,
    hard: str = "hard",
    style: str = "both",
) -> RusSample:
    """A label y, an interaction drawn by `shares` = (r, u_image, u_text, s), and cues that agree with it.

    Cues: R both say y; U_image only the picture says y and the text says 1 - y; U_text the reverse; S both say 1 - y.
    The interaction is marked across both modalities (background colour and first word), each marker alone uniform and
    independent of all else. Hence the best image-only accuracy is max(a, 1 - a) with a = r + u_image, text-only
    likewise with r + u_text, and both together decide y. With `noise` the label is flipped with that probability. With
    `hard="soft"` the misleading cue of the U kinds is a tool that says nothing: whoever looks only there must guess, so
    half of U looks like R (measured shares R = r + u/2, U = u/2).
    """
    rng = generator_at(seed, "rus", split, index)
    y = int(rng.random() * 2)
    chance, kind = rng.random(), 0
    while kind < 3 and chance >= sum(shares[: kind + 1]):
        kind += 1
    image_marker = int(rng.random() * 4)
    text_marker = (kind - image_marker) % 4
    image_cue: int | None = y if kind in (0, 1) else 1 - y
    text_cue: int | None = y if kind in (0, 2) else 1 - y
    if hard == "soft" and kind == 1:
        text_cue = None
    if hard == "soft" and kind == 2:
        image_cue = None
    words = {0: RUS_ANIMALS, 1: RUS_FRUITS, None: RUS_TOOLS}
    picture, word = pick(rng, words[image_cue]), pick(rng, words[text_cue])
    sentence = pick(rng, RUS_SENTENCES).format(x=with_article(word))
    drawing = style_for(rng, style, split == "test")
    scene = Scene(RUS_BACKGROUNDS[image_marker], (placed_inside(rng, picture, drawing, scale=(0.6, 0.85)),))
    label = 1 - y if rng.random() < noise else y
    text = f"{RUS_FIRST_WORDS[text_marker]} {sentence}"
    return RusSample(label, RUS_INTERACTIONS[kind], image_cue, text_cue, image_marker, text_marker, text, scene)
