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
"""The label names of the named data sets, in the order of our label ids, and the permutations from foreign orders.

Models trained elsewhere number the same labels differently. [`label_permutation`] tells how: row `i` of our head is row
`label_permutation(theirs, ours)[i]` of theirs.
"""

from collections.abc import Sequence


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# UPMC Food-101: alphabetical.
FOOD101_CLASSES: tuple[str, ...] = _names(
    """
    apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets bibimbap bread_pudding
    breakfast_burrito bruschetta caesar_salad cannoli caprese_salad carrot_cake ceviche cheese_plate cheesecake
    chicken_curry chicken_quesadilla chicken_wings chocolate_cake chocolate_mousse churros clam_chowder club_sandwich
    crab_cakes creme_brulee croque_madame cup_cakes deviled_eggs donuts dumplings edamame eggs_benedict escargots falafel
    filet_mignon fish_and_chips foie_gras french_fries french_onion_soup french_toast fried_calamari fried_rice
    frozen_yogurt garlic_bread gnocchi greek_salad grilled_cheese_sandwich grilled_salmon guacamole gyoza hamburger
    hot_and_sour_soup hot_dog huevos_rancheros hummus ice_cream lasagna lobster_bisque lobster_roll_sandwich
    macaroni_and_cheese macarons miso_soup mussels nachos omelette onion_rings oysters pad_thai paella pancakes
    panna_cotta peking_duck pho pizza pork_chop poutine prime_rib pulled_pork_sandwich ramen ravioli red_velvet_cake
    risotto samosa sashimi scallops seaweed_salad shrimp_and_grits spaghetti_bolognese spaghetti_carbonara spring_rolls
    steak strawberry_shortcake sushi tacos takoyaki tiramisu tuna_tartare waffles
    """
)

# The Food-101-like demo: twenty groups of emoji, alphabetical.
DEMO_FOOD_CLASSES: tuple[str, ...] = tuple(
    sorted(
        _names(
            """
            food_fruit food_vegetable food_prepared food_asian food_sweet drink animal_mammal animal_bird animal_marine
            animal_bug plant_other transport_ground transport_air place_building sky_weather clothing tool sport
            musical_instrument household
            """
        )
    )
)

# MM-IMDb: descending frequency, the order of the GMU and the missing-modality code.
MMIMDB_GENRES: tuple[str, ...] = _names(
    """
    Drama Comedy Romance Thriller Crime Action Adventure Horror Documentary Mystery Sci-Fi Fantasy Family Biography War
    History Music Animation Musical Western Sport Short Film-Noir
    """
)

# MM-IMDb in the order of MoPE's label file.
MMIMDB_GENRES_MOPE: tuple[str, ...] = _names(
    """
    Drama Family Comedy Biography Romance War Thriller History Crime Music Action Animation Adventure Musical Horror
    Western Documentary Sport Mystery Short Sci-Fi Film-Noir Fantasy
    """
)

SNLI_VE_LABELS: tuple[str, ...] = ("entailment", "neutral", "contradiction")
# SNLI-VE as numbered by the ALBEF and LAVIS code.
SNLI_VE_LABELS_LAVIS: tuple[str, ...] = ("contradiction", "neutral", "entailment")

HATEFUL_MEMES_LABELS: tuple[str, ...] = ("not-hateful", "hateful")
MUSTARD_LABELS: tuple[str, ...] = ("not-sarcastic", "sarcastic")
RUS_LABELS: tuple[str, ...] = ("0", "1")
RUS_INTERACTIONS: tuple[str, ...] = ("R", "U_image", "U_text", "S")


def label_permutation(foreign: Sequence[str], ours: Sequence[str]) -> list[int]:
    """For each of our label ids, the id that `foreign` gives to the same name (blanks at the ends are ignored).

    Raises:
        ValueError: the two lists don't hold the same names once each; the message lists the differences.

    Example:
        >>> label_permutation(SNLI_VE_LABELS_LAVIS, SNLI_VE_LABELS)
        [2, 1, 0]
    """
    foreign = [name.strip() for name in foreign]
    ours = [name.strip() for name in ours]
    position = {name: index for index, name in enumerate(foreign)}
    if len(position) != len(foreign) or len(set(ours)) != len(ours) or set(position) != set(ours):
        raise ValueError(
            "The two label lists must hold the same names, each once. "
            f"Only in the foreign list: {sorted(set(position) - set(ours))}; only in ours: {sorted(set(ours) - set(position))}; "
            f"lengths {len(foreign)} and {len(ours)}."
        )
    return [position[name] for name in ours]
