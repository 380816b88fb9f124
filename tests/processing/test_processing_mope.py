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
"""What the MoPE processor makes of pictures and texts: known values, absent modalities, save/load."""

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_tiny import tiny_image_processor, tiny_processor, tiny_tokenizer, tiny_vision_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, AutoProcessor

from fusionzoo import MopeProcessor
from fusionzoo.modeling.missing_modality import MissingType
from fusionzoo.processing import processing_mope
from fusionzoo.processing.image_presets import IMAGE_PRESETS, build_image_processor
from fusionzoo.processing.missing_inputs import normalize_image_text


IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(size=16)


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


PICTURES = [picture(seed) for seed in range(4)]
TEXTS = ["a red cat", "", "blue dog and the green cat is not good", "zzz 42 !"]


# ---- known values ---------------------------------------------------------------------------------------------


def test_pixels_by_hand(processor):
    """A plain colour survives resizing and cropping, so every pixel is (value / 255 - mean) / std."""
    batch = processor(images=Image.new("RGB", (40, 30), (255, 51, 0)), text="a cat", return_tensors="pt")
    expected = (torch.tensor([1.0, 0.2, 0.0]) - IMAGENET_MEAN) / IMAGENET_STD
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
    torch.testing.assert_close(batch["pixel_values"], expected[None, :, None, None].expand(1, 3, 16, 16))


def test_tokens_by_hand(processor):
    batch = processor(images=[None, None], text=["a red cat", "Dog"], return_tensors="pt")
    vocab = processor.tokenizer.get_vocab()
    ids = [
        [vocab[token] for token in row] for row in (["[CLS]", "a", "red", "cat", "[SEP]"], ["[CLS]", "dog", "[SEP]"])
    ]
    assert batch["input_ids"].tolist() == [ids[0], [*ids[1], vocab["[PAD]"], vocab["[PAD]"]]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0] * 5] * 2
    assert batch["missing_type"].tolist() == [2, 2]
    assert batch["missing_type"].dtype == torch.int64


def test_the_crop_is_central():
    """A wide picture with a red middle third: the shorter side decides, left and right are cut off."""
    image = Image.new("RGB", (90, 30), (0, 0, 255))
    image.paste((255, 0, 0), (30, 0, 60, 30))
    batch = tiny_processor(size=32)(images=image, text="a", images_kwargs={"do_normalize": False}, return_tensors="pt")
    middle = batch["pixel_values"][0, :, :, 2:-2]  # two columns at each side are interpolated
    torch.testing.assert_close(middle, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand_as(middle))


def test_roberta_has_no_token_types():
    batch = tiny_processor(text="roberta")(images=[PICTURES[0]], text=["a cat"], return_tensors="pt")
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask", "missing_type"}


def test_containers_without_tensors_and_with_numpy(processor):
    plain = processor(images=PICTURES[:2], text=TEXTS[:2])
    assert plain["missing_type"] == [0, 0]
    assert isinstance(plain["input_ids"], list)
    arrays = processor(images=PICTURES[:2], text=TEXTS[:2], return_tensors="np")
    tensors = processor(images=PICTURES[:2], text=TEXTS[:2], return_tensors="pt")
    assert arrays["missing_type"].dtype == np.int64
    for name, value in tensors.items():
        np.testing.assert_array_equal(arrays[name], value.numpy())


def test_model_input_names_are_what_comes_out(processor):
    batch = processor(images=PICTURES[0], text="a")
    assert sorted(processor.model_input_names) == sorted(batch)


# ---- kinds of pictures ----------------------------------------------------------------------------------------


def test_all_kinds_of_input_agree(processor, tmp_path: Path):
    image = PICTURES[0]
    image.save(tmp_path / "a.png")
    levels = np.asarray(image)
    kinds = {
        "PIL": image,
        "str": str(tmp_path / "a.png"),
        "Path": tmp_path / "a.png",
        "bytes": (tmp_path / "a.png").read_bytes(),
        "numpy HWC": levels,
        "numpy CHW": levels.transpose(2, 0, 1),
        "numpy int64": levels.astype(np.int64),
        "numpy float": levels / 255,
        "tensor CHW": torch.from_numpy(levels.copy()).permute(2, 0, 1),
        "tensor float": torch.from_numpy(levels.copy()).permute(2, 0, 1) / 255,
        "16 bit": levels.astype(np.uint16) * 257,
        "RGBA": image.convert("RGBA"),
    }
    expected = processor(images=image, text="a", return_tensors="pt")["pixel_values"]
    for kind, value in kinds.items():
        torch.testing.assert_close(
            processor(images=value, text="a", return_tensors="pt")["pixel_values"], expected, msg=kind
        )
    together = processor(images=list(kinds.values()), text=["a"] * len(kinds), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(together, expected.expand_as(together))


def test_stacks_and_nested_lists(processor):
    levels = np.stack([np.asarray(image) for image in PICTURES])
    expected = processor(images=PICTURES, text=TEXTS, return_tensors="pt")["pixel_values"]
    for images in (
        levels,
        torch.from_numpy(levels).permute(0, 3, 1, 2),
        tuple(PICTURES),
        [[image] for image in PICTURES],
    ):
        got = processor(images=images, text=TEXTS, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(got, expected)
    assert processor(images=[[PICTURES[0]], []], text=["a", "b"])["missing_type"] == [0, 2]


def test_ambiguous_arrays_follow_their_library(processor):
    """3 x 5 x 3: numpy puts channels last, torch first."""
    levels = np.zeros((3, 5, 3), np.uint8)
    levels[0] = 255  # numpy: the first row is white; torch: the first channel is full
    as_array = processor(images=levels, text="a", images_kwargs={"do_normalize": False}, return_tensors="pt")
    as_tensor = processor(
        images=torch.from_numpy(levels), text="a", images_kwargs={"do_normalize": False}, return_tensors="pt"
    )
    channels = as_array["pixel_values"][0]
    torch.testing.assert_close(channels[0], channels[2])
    assert as_tensor["pixel_values"][0, 0].min() == 1
    assert as_tensor["pixel_values"][0, 1:].max() == 0


# ---- absent modalities ----------------------------------------------------------------------------------------


def test_an_absent_image_is_the_mean_colour_and_a_black_one_is_not(processor):
    batch = processor(images=[None, Image.new("RGB", (8, 8))], text=["a", "a"], return_tensors="pt")
    assert batch["missing_type"].tolist() == [MissingType.IMAGE, MissingType.COMPLETE]
    assert batch["pixel_values"][0].abs().max() == 0
    torch.testing.assert_close(batch["pixel_values"][1, :, 3, 3], -IMAGENET_MEAN / IMAGENET_STD)


def test_an_absent_text_is_encoded_as_empty(processor):
    batch = processor(images=[PICTURES[0]] * 2, text=[None, ""], return_tensors="pt")
    assert batch["missing_type"].tolist() == [MissingType.TEXT, MissingType.COMPLETE]
    assert batch["input_ids"][0].tolist() == batch["input_ids"][1].tolist()


@pytest.mark.parametrize("absent", ["images", "text"])
def test_a_whole_modality_may_be_left_out(processor, absent):
    given_inputs = {"images": PICTURES, "text": TEXTS}
    left_out = {**given_inputs, absent: None}
    listed = {**given_inputs, absent: [None] * 4}
    first, second = processor(**left_out, return_tensors="pt"), processor(**listed, return_tensors="pt")
    assert set(first) == set(second) == set(processor(**given_inputs))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    assert first["missing_type"].tolist() == [2 if absent == "images" else 1] * 4


PATTERNS = st.lists(st.sampled_from(["both", "image", "text"]), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=PATTERNS, order=st.permutations(range(4)))
def test_any_pattern(processor, pattern, order):
    """`missing_type` says what is absent, and a present row is what it is when processed alone."""
    images = [PICTURES[order[row % 4]] if kind != "text" else None for row, kind in enumerate(pattern)]
    text = [TEXTS[order[row % 4]] if kind != "image" else None for row, kind in enumerate(pattern)]
    batch = processor(images=images, text=text, return_tensors="pt")
    assert batch["missing_type"].tolist() == [{"both": 0, "image": 1, "text": 2}[kind] for kind in pattern]
    for row in range(len(pattern)):
        alone = processor(images=[images[row]], text=[text[row]], return_tensors="pt")
        assert torch.equal(batch["pixel_values"][row], alone["pixel_values"][0])
        length = alone["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(batch[name][row, :length], alone[name][0])
            assert not batch[name][row, length:].any()  # [PAD] is 0


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(st.sampled_from([None, PICTURES[0]]), max_size=4),
    text=st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=4),
)
def test_rows_are_accepted_exactly_if_they_are_valid(images, text):
    valid = len(images) == len(text) > 0 and all(a is not None or b is not None for a, b in zip(images, text))
    if valid:
        assert len(normalize_image_text(images, text)) == len(images)
    else:
        with pytest.raises(ValueError, match=r"rows but text|empty|neither an image nor a text"):
            normalize_image_text(images, text)


# ---- lengths and options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tokenizer": 64}, 64),
        ({"tokenizer": 1000}, 512),
        ({"tokenizer": int(1e30)}, 512),
        ({"tokenizer": 64, "max_text_length": 10}, 10),
        ({"tokenizer": 1000, "max_text_length": 600}, 600),
    ],
)
def test_truncation_length(options, expected):
    options = dict(options)
    tokenizer = tiny_tokenizer(model_max_length=options.pop("tokenizer"))
    processor = MopeProcessor(image_processor=tiny_image_processor(8), tokenizer=tokenizer, **options)
    batch = processor(text=["cat " * 700, "a"], return_tensors="pt")
    assert batch["input_ids"].shape == (2, expected)
    assert batch["input_ids"][0, -1] == tokenizer.sep_token_id


def test_options_of_a_call_win(processor):
    text = ["cat " * 20, "a"]
    assert processor(text=text, max_length=6, return_tensors="pt")["input_ids"].shape == (2, 6)
    assert processor(text=text, text_kwargs={"max_length": 7}, return_tensors="pt")["input_ids"].shape == (2, 7)
    assert processor(text=text, padding="max_length", return_tensors="pt")["input_ids"].shape == (2, 64)
    assert [len(row) for row in processor(text=text, padding=False)["input_ids"]] == [22, 3]
    assert len(processor(text=["cat " * 100], truncation=False)["input_ids"][0]) == 102
    assert processor(images=PICTURES[0], size={"shortest_edge": 40}, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ].shape == (1, 3, 40, 48)


def test_options_given_as_a_dict_are_not_changed(processor):
    options = {"max_length": 5}
    for _ in range(2):
        assert processor(text=["cat " * 9], text_kwargs=options, return_tensors="pt")["input_ids"].shape == (1, 5)
    assert options == {"max_length": 5}


@pytest.mark.parametrize("value", [0, 2, -1, 1.5, True, "9"])
def test_bad_max_text_length(value):
    with pytest.raises(ValueError, match=r"max_text_length.*at least 3"):
        tiny_processor(max_text_length=value)


def test_a_tokenizer_without_padding_token_says_what_to_do():
    processor = tiny_processor()
    processor.tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"pad_token = tokenizer\.eos_token"):
        processor(text=["a", "a b"])


def test_overflowing_rows_are_refused(processor):
    with pytest.raises(ValueError, match="several rows per text"):
        processor(text=["cat " * 9], max_length=4, return_overflowing_tokens=True)


# ---- saving and loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["bert", "roberta"])
def test_round_trip(tmp_path: Path, text):
    processor = tiny_processor(size=16, text=text, max_text_length=9)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "MopeProcessor"
    assert saved["max_text_length"] == 9
    assert not (tmp_path / "preprocessor_config.json").exists()
    loaded = MopeProcessor.from_pretrained(tmp_path, backend="pil")
    assert loaded.to_dict() == processor.to_dict()
    images, rows = [PICTURES[0], None, PICTURES[1]], ["a cat and a dog and a dog", "a", None]
    before, after = (each(images=images, text=rows, return_tensors="pt") for each in (processor, loaded))
    assert set(before) == set(after)
    for name in before:
        assert torch.equal(before[name], after[name]), name


def test_auto_processor_finds_it(tmp_path: Path):
    tiny_processor().save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is MopeProcessor


def save_backbones(folder: Path, preprocessor: bool = True) -> tuple[Path, Path]:
    vision, text = folder / "vision", folder / "text"
    options = tiny_vision_config("dinov2", image_size=32)
    AutoConfig.for_model(options.pop("model_type"), **options).save_pretrained(vision)
    if preprocessor:
        tiny_image_processor(32).save_pretrained(vision)
    tiny_tokenizer().save_pretrained(text)
    return vision, text


def test_from_backbones_takes_the_towers_own_files(tmp_path: Path):
    vision, text = save_backbones(tmp_path)
    processor = MopeProcessor.from_backbones(vision, text, max_text_length=12, backend="pil")
    expected = tiny_processor(size=32, max_text_length=12)
    assert processor.image_processor.to_dict() == expected.image_processor.to_dict()
    assert processor.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
    assert processor.max_text_length == 12


def test_from_backbones_with_a_preset(tmp_path: Path):
    vision, text = save_backbones(tmp_path, preprocessor=False)
    with pytest.raises(OSError, match="image_preset='imagenet'"):
        MopeProcessor.from_backbones(vision, text)
    processor = MopeProcessor.from_backbones(vision, text, image_preset="mope_official")
    assert processor.image_processor.crop_size == {"height": 32, "width": 32}  # from the tower's config
    processor = MopeProcessor.from_backbones(vision, text, image_preset="mope_official", image_size=224)
    assert processor.image_processor.crop_size == {"height": 224, "width": 224}
    with pytest.raises(ValueError, match="image_size=64 needs an image_preset"):
        MopeProcessor.from_backbones(vision, text, image_size=64)


# ---- presets --------------------------------------------------------------------------------------------------


def test_mope_official_values():
    """Section 4 of the official code's settings: resize 256, centre crop 224, its own statistics."""
    processor = build_image_processor("mope_official", size=224, backend="pil")
    assert processor.size == {"shortest_edge": 256}
    assert processor.crop_size == {"height": 224, "width": 224}
    assert build_image_processor("mope_official_square").size == {"height": 256, "width": 256}
    pixels = processor(Image.new("RGB", (300, 400), (255, 0, 255)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    mean, std = np.array([0.46777044, 0.44531429, 0.40661017]), np.array([0.12221994, 0.12145835, 0.14380469])
    np.testing.assert_allclose(pixels[0, :, 100, 100], (np.array([1, 0, 1]) - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(IMAGE_PRESETS))
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_every_preset_gives_the_asked_size(name, backend):
    processor = build_image_processor(name, size=48, backend=backend)
    assert processor(picture(9, 70, 41), return_tensors="pt")["pixel_values"].shape == (1, 3, 48, 48)


@pytest.mark.parametrize(
    ("model_type", "mean"), [("vit", 0.5), ("swin", 0.485), ("dinov2", 0.485), ("clip_vision_model", 0.48145466)]
)
def test_the_tower_decides_without_a_preset(model_type, mean):
    assert build_image_processor(None, model_type).image_mean[0] == mean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "imagnet"}, "Unknown image preset 'imagnet'.*'imagenet'"),
        ({"vision_config_model_type": "llama"}, "model_type 'llama'.*preset="),
        ({"preset": "clip", "size": 0}, "size=0 must be"),
        ({"preset": "clip", "size": 22.5}, "size=22.5 must be"),
        ({"preset": "clip", "backend": "cv2"}, "backend 'cv2'.*'torchvision', 'pil'"),
    ],
)
def test_wrong_presets(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_image_processor(**arguments)


def test_the_example_of_the_docstring():
    results = doctest.testmod(processing_mope)
    assert (results.failed, results.attempted > 5) == (0, True)
