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
"""Which emoji and which words the demo data sets use: short curated lists, checked against the atlas by the tests."""

import functools
import re

from .emoji_scenes import emoji_by_name


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """`key: name, name` per line."""
    rows = (line.split(":", 1) for line in text.strip().splitlines())
    return {key.strip(): tuple(name.strip() for name in names.split(",")) for key, names in rows}


# demo:food: eight concepts per class, all of the subgroup that gives the class its name.
FOOD_CONCEPTS = _table("""
    food_fruit: grapes, watermelon, lemon, banana, pineapple, apple, cherries, strawberry
    food_vegetable: avocado, eggplant, carrot, corn, broccoli, cucumber, onion, potato
    food_prepared: bread, croissant, hamburger, pizza, sandwich, taco, pancakes, egg
    food_asian: sushi, ramen, rice, bento, dango, curry, oden, dumpling
    food_sweet: doughnut, cookie, cake, cupcake, pie, candy, lollipop, custard
    drink: coffee, teapot, beer, cocktail, champagne, sake, wine glass, bubble tea
    animal_mammal: dog, cat, horse, elephant, rabbit, bear, pig, kangaroo
    animal_bird: penguin, duck, owl, parrot, flamingo, eagle, rooster, swan
    animal_marine: dolphin, octopus, shark, crab, whale, jellyfish, lobster, blowfish
    animal_bug: butterfly, bee, ladybug, ant, spider, scorpion, snail, mosquito
    plant_other: cactus, herb, mushroom, shamrock, seedling, palm tree, maple leaf, evergreen tree
    transport_ground: car, bus, tractor, ambulance, taxi, bike, truck, tram
    transport_air: airplane, helicopter, rocket, satellite, parachute, flying saucer, small airplane, mountain cableway
    place_building: house, factory, hospital, stadium, hut, school, bank, hotel
    sky_weather: rainbow, cloud, tornado, snowflake, snowman, lightning, comet, umbrella
    clothing: jeans, scarf, dress, socks, shirt, gloves, boot, necktie
    tool: hammer, axe, wrench, screwdriver, ladder, shovel, magnet, gear
    sport: soccer, baseball, basketball, tennis, bowling, football, golf, ski
    musical_instrument: guitar, violin, trumpet, saxophone, accordion, banjo, flute, harp
    household: door, bed, chair, toilet, bathtub, broom, toothbrush, bucket
""")

# demo:imdb: five concepts per genre; no concept serves two genres.
GENRE_CONCEPTS = _table("""
    Drama: performing arts, broken heart, sob, wilted flower, pensive
    Comedy: clown face, joy, banana, rolling on the floor laughing, black joker
    Romance: rose, heart, love letter, ring, kiss
    Thriller: bomb, spider web, flashlight, mouse trap, feet
    Crime: police car, money with wings, lock, moneybag, rotating light
    Action: boxing glove, boom, helicopter, racing motorcycle, fire engine
    Adventure: compass, world map, canoe, hiking boot, camping
    Horror: ghost, skull, jack o lantern, bat, coffin
    Documentary: movie camera, newspaper, earth africa, microscope, polar bear
    Mystery: mag, crystal ball, old key, disguised face, foggy
    Sci-Fi: alien, rocket, flying saucer, robot face, ringed planet
    Fantasy: unicorn face, dragon, magic wand, crown, phoenix
    Family: teddy bear, balloon, house with garden, baby bottle, playground slide
    Biography: book, scroll, mortar board, memo, candle
    War: military helmet, crossed swords, shield, bow and arrow, medal
    History: classical building, amphora, moyai, japanese castle, mammoth
    Music: guitar, microphone, headphones, musical score, violin
    Animation: art, lower left crayon, jigsaw, rainbow, tv
    Musical: musical keyboard, trumpet, ballet shoes, mirror ball, notes
    Western: cactus, face with cowboy hat, racehorse, desert, bison
    Sport: soccer, basketball, trophy, football, tennis
    Short: stopwatch, hourglass, timer clock, alarm clock, watch
    Film-Noir: smoking, tophat, night with stars, film projector, telephone receiver
""")

# demo:ve: things that look alike to nobody.
VE_CONCEPTS = (
    "dog", "cat", "horse", "elephant", "rabbit", "penguin", "owl", "octopus", "butterfly", "spider", "banana", "apple",
    "lemon", "carrot", "pizza", "cookie", "coffee", "cactus", "car", "bus", "bike", "airplane", "rocket", "house",
    "rainbow", "snowman", "umbrella", "hammer", "ladder", "guitar", "trumpet", "chair", "bed", "key", "scissors",
    "candle",
)  # fmt: skip

# demo:memes: the first eight of each are the clearest; `faces` takes more of them in this order.
SMILING_FACES = (
    "grinning", "smile", "laughing", "blush", "heart eyes", "star struck", "joy", "smiling face with 3 hearts",
    "smiley", "grin", "slightly smiling face", "relaxed", "wink", "innocent", "kissing heart", "kissing closed eyes",
    "kissing smiling eyes", "kissing", "rolling on the floor laughing", "sweat smile", "upside down face",
    "melting face", "smiling face with tear",
)  # fmt: skip
NEGATIVE_FACES = (
    "rage", "angry", "sob", "cry", "fearful", "confounded", "white frowning face", "weary",
    "scream", "disappointed", "worried", "anguished", "tired face", "persevere", "nauseated face",
    "face with symbols on mouth", "frowning", "slightly frowning face", "confused", "cold sweat",
    "disappointed relieved", "sweat", "face vomiting", "face with thermometer", "face with head bandage", "mask",
    "sneezing face", "hot face", "cold face", "woozy face", "dizzy face", "face with spiral eyes", "exploding head",
    "face with diagonal mouth", "open mouth", "hushed", "astonished", "flushed", "pleading face",
    "face holding back tears", "yawning face", "triumph", "imp", "smiling imp", "skull", "skull and crossbones",
)  # fmt: skip
# (positive, negative) forms of one caption; {n} is one of the nouns.
MEME_CAPTIONS = (
    ("i love {n}", "i hate {n}"),
    ("{n} make my day", "{n} ruin my day"),
    ("the best thing about today is {n}", "the worst thing about today is {n}"),
    ("so happy about {n}", "so sad about {n}"),
    ("can not wait for {n}", "can not stand {n}"),
    ("thankful for {n}", "fed up with {n}"),
    ("{n} are wonderful", "{n} are terrible"),
    ("more {n} please", "no more {n} please"),
    ("what a delight {n} again", "what a disaster {n} again"),
    ("nothing beats {n}", "nothing annoys like {n}"),
    ("{n} bring me joy", "{n} bring me pain"),
    ("sweet dreams of {n}", "bad dreams of {n}"),
)
MEME_NOUNS = (
    "mondays", "meetings", "exams", "birthdays", "road trips", "early mornings", "family dinners", "long flights",
    "weekends", "haircuts", "deadlines", "group photos", "rainy days", "new shoes", "school plays", "traffic jams",
    "surprise parties", "job interviews",
)  # fmt: skip

# demo:mustard: the sceptical faces of a sarcastic remark (the smiling ones are those of demo:memes).
SCEPTICAL_FACES = (
    "unamused", "face with rolling eyes", "smirk", "face with raised eyebrow",
    "expressionless", "neutral face", "grimacing", "lying face",
)  # fmt: skip

# rus: the cue is an animal (0) or a fruit (1); tools tell nothing.
RUS_ANIMALS = (
    "dog", "cat", "horse", "cow", "pig", "sheep", "elephant", "rabbit", "bear", "koala", "tiger", "goat",
)  # fmt: skip
RUS_FRUITS = (
    "apple", "banana", "lemon", "pear", "peach", "pineapple", "mango", "strawberry", "watermelon", "melon", "coconut",
    "lime",
)  # fmt: skip
RUS_TOOLS = ("hammer", "axe", "wrench", "screwdriver", "ladder", "shovel", "magnet", "gear")
RUS_FIRST_WORDS = ("Today", "Yesterday", "Maybe", "Finally")
RUS_BACKGROUNDS = ((245, 165, 165), (150, 215, 150), (150, 180, 245), (250, 225, 110))

# What to call a concept in a sentence where its name is a code word.
_WORDS = {
    "art": "paint box", "bike": "bicycle", "boom": "explosion", "camping": "camping trip", "black joker": "joker", "classical building": "temple",
    "clown face": "clown", "disguised face": "masked man", "earth africa": "globe", "face with cowboy hat": "cowboy",
    "feet": "footprint", "foggy": "foggy bridge", "joy": "laughing face",
    "lower left crayon": "crayon", "mag": "magnifying glass", "memo": "diary", "mortar board": "graduation cap",
    "moyai": "stone statue", "night with stars": "starry night", "notes": "melody",
    "pensive": "pensive face", "performing arts": "theatre mask", "racehorse": "galloping horse", "ring": "wedding ring",
    "robot face": "robot", "rolling on the floor laughing": "fit of laughter", "rotating light": "police siren",
    "smoking": "cigarette", "sob": "crying face", "soccer": "soccer ball", "telephone receiver": "telephone call",
    "tennis": "tennis match", "tophat": "top hat", "tv": "cartoon channel", "unicorn face": "unicorn",
    "world map": "map", "golf": "golf course", "ski": "pair of skis",
}  # fmt: skip
_WITHOUT_ARTICLE = {"money with wings", "headphones", "ballet shoes", "scissors", "crossed swords"}


def word_for(name: str) -> str:
    """What a sentence calls the concept."""
    return _WORDS.get(name, name)


def with_article(name: str) -> str:
    """`a dog`, `an owl`, `scissors`."""
    word = word_for(name)
    if name in _WITHOUT_ARTICLE:
        return word
    vowel = word.startswith(("a", "e", "i", "o", "u", "hour")) and not word.startswith("uni")
    return f"{'an' if vowel else 'a'} {word}"


# Key words that are no topic of a page, or fit half of the classes.
_NO_TOPIC = frozenset(
    (
        "asian", "british", "cold", "food", "hot", "indian", "italian", "japanese", "mexican", "nature", "orange",
        "photo", "plant", "spicy", "summer", "tropical", "wild", "activity", "clean", "cut", "force", "sharp",
        "accordian", "cancer", "drunk", "happy", "instructment", "phallic", "shroom", "staffmode", "suitup", "uber",
        "vegatable", "weed",
    )
)  # fmt: skip


@functools.cache
def title_words(name: str) -> tuple[str, ...]:
    """The name of a concept and up to three further key words for it, plain lower-case English."""
    word = word_for(name)
    keywords = dict.fromkeys(k.lower() for k in emoji_by_name()[name].keywords)
    plain = [k for k in keywords if re.fullmatch(r"[a-z]{3,}( [a-z]{3,})?", k) and k != word and k not in _NO_TOPIC]
    return (word, *plain[:3])
