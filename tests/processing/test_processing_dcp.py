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
"""The processors of DCP and MMP: cleaning, padding, crops, absent modalities, saving."""

import numpy as np
import pytest
import torch
from fixtures_tiny import tiny_image_processor, tiny_tokenizer
from PIL import Image
from transformers import AutoProcessor, CLIPTokenizer, SiglipImageProcessor, ViltImageProcessor

from fusionzoo import DcpProcessor, MmpProcessor
from fusionzoo.processing.image_presets import build_image_processor
from fusionzoo.processing.processing_dcp import clean_clip_text, official_clip_crop


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tiny_clip_tokenizer(max_length: int = 9) -> CLIPTokenizer:
    """Letters only; id 0 is "!" as in CLIP, and padding is end-of-text as transformers has it."""
    letters = ["!", *"abcdefghijklmnopqrstuvwxyz&;"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_length)


def dcp_processor(**options) -> DcpProcessor:
    return DcpProcessor(build_image_processor("clip", size=32, backend="pil"), tiny_clip_tokenizer(), **options)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a\tb\n\nc ", "a b c"),
        ("tea &amp;amp; cake", "tea & cake"),
        ("don\u2019t \u201cquote\u201d", 'don\'t "quote"'),
        ("sch\u00c3\u00b6n", "sch\u00f6n"),
        ("", ""),
    ],
)
def test_cleaning(text, clean):
    assert clean_clip_text(text) == clean


def test_clip_texts_are_padded_to_one_length_with_zeros():
    processor = dcp_processor(padding_id=0)
    start, end = 56 + 2, 56 + 3
    assert (processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id) == (start, end)
    batch = processor(images=[None, None], text=["AB!", "abcdefghijkl"], return_tensors="pt")
    assert batch["input_ids"].tolist() == [
        [start, 1, 31, 29, end, 0, 0, 0, 0],
        [start, 1, 2, 3, 4, 5, 6, 7, end],  # cut, and still ending in end-of-text
    ]
    assert batch["attention_mask"].tolist()[0] == [1] * 5 + [0] * 4
    stock = dcp_processor()(text=["ab"], return_tensors="pt")
    assert stock["input_ids"].tolist()[0][3:] == [end] * 6
    longest = dcp_processor()(text=["ab", "a"], padding="longest", return_tensors="pt")
    assert longest["input_ids"].shape == (2, 4)
    short = dcp_processor(pad_to_max_length=False)(text=["ab", "a"], return_tensors="pt")
    assert short["input_ids"].shape == (2, 4)


def test_cleaning_can_be_left_out():
    ids = [dcp_processor(clean_text=clean)(text=["a&amp;b"])["input_ids"] for clean in (True, False)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("size", [(60, 44), (44, 60), (40, 72), (32, 32), (21, 30), (33, 40), (47, 32)])
def test_the_official_crop_is_torchvision(size):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = picture(*size)
    expected = Compose([Resize(32, interpolation=InterpolationMode.BICUBIC), CenterCrop(32)])(image)
    assert np.array_equal(np.asarray(official_clip_crop(image, 32)), np.asarray(expected))
    pixels = dcp_processor(image_crop="official")(images=[image], return_tensors="pt")["pixel_values"][0]
    mean, std = ([[[each]] for each in part] for part in ((0.48145466, 0.4578275, 0.40821073),
                                                          (0.26862954, 0.26130258, 0.27577711)))  # fmt: skip
    values = (np.asarray(expected).transpose(2, 0, 1) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(pixels.numpy(), values, atol=2e-6)


def test_absent_pictures_are_ones_and_absent_texts_empty():
    for crop in ("stock", "official"):
        processor = dcp_processor(image_crop=crop)
        batch = processor(images=[picture(), None], text=[None, "a"], return_tensors="pt")
        assert batch["missing_type"].tolist() == [1, 2]
        assert (batch["pixel_values"][1] == 1).all() and batch["pixel_values"][0].std() > 0.1
        alone = processor(images=[picture()], return_tensors="pt")
        assert torch.equal(alone["pixel_values"][0], batch["pixel_values"][0])
        assert torch.equal(alone["input_ids"][0], batch["input_ids"][0])
        nothing = processor(text=["a"], return_tensors="pt")
        assert nothing["pixel_values"].shape == (1, 3, 32, 32) and (nothing["pixel_values"] == 1).all()
        arrays = processor(images=[picture(), None], text=[None, "a"], return_tensors="np")
        assert np.array_equal(arrays["pixel_values"], batch["pixel_values"].numpy())
    with pytest.raises(ValueError, match="Row 1 has neither an image nor a text"):
        processor(images=[picture(), None], text=["a", None])


@pytest.mark.parametrize("official", [True, False])
def test_options_survive_saving(tmp_path, official):
    options = (
        {"padding_id": 0, "clean_text": False, "image_crop": "official", "max_text_length": 6} if official else {}
    )
    processor = dcp_processor(**options)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is DcpProcessor
    for name in ("padding_id", "clean_text", "image_crop", "max_text_length", "pad_to_max_length"):
        assert getattr(loaded, name) == getattr(processor, name)
    inputs = {"images": [picture(), None], "text": [None, "a&amp;b"], "return_tensors": "pt"}
    before, after = processor(**inputs), loaded(**inputs)
    assert torch.equal(before["input_ids"], after["input_ids"])
    torch.testing.assert_close(before["pixel_values"], after["pixel_values"], atol=0.02, rtol=0)  # other backend


def test_from_backbones_knows_the_families(tmp_path):
    tiny_image_processor().save_pretrained(tmp_path / "vision")
    tiny_clip_tokenizer().save_pretrained(tmp_path / "clip")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    clip = DcpProcessor.from_backbones(tmp_path / "vision", tmp_path / "clip")
    assert (clip.padding_id, clip.pad_to_max_length) == (0, True)
    bert = DcpProcessor.from_backbones(tmp_path / "vision", tmp_path / "bert", max_text_length=7)
    assert (bert.padding_id, bert.pad_to_max_length, bert.max_text_length) == (None, False, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_id": 99}, "padding_id=99 must be None or a token id below 60"),
        ({"image_crop": "center"}, "image_crop='center' is not allowed; choose one of stock, official"),
        ({"max_text_length": 2}, "max_text_length=2 must be None or a whole number of tokens, at least 3"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        dcp_processor(**options)


def test_the_official_crop_needs_a_shorter_side():
    with pytest.raises(ValueError, match='image_crop="official" resizes the shorter side'):
        DcpProcessor(SiglipImageProcessor(), tiny_tokenizer(), image_crop="official")


# ---- MMP --------------------------------------------------------------------------------------------------------------


def mmp_processor() -> MmpProcessor:
    return MmpProcessor(ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=32), tiny_tokenizer())


def test_mmp_keeps_shapes_and_masks_padding():
    images = [picture(90, 60), None, picture(40, 90)]
    batch = mmp_processor()(images=images, text=["a red cat", "good", None], return_tensors="pt")
    assert batch["missing_type"].tolist() == [0, 2, 1]
    assert batch["pixel_values"].shape == (3, 3, 96, 96)
    sides = [(each.amax(1).sum().item(), each.amax(0).sum().item()) for each in batch["pixel_mask"]]
    assert sides == [(64, 96), (64, 64), (96, 32)]  # floored to multiples of 32, the longer side at most 106
    assert (batch["pixel_values"][1, :, :64, :64] == 1).all() and not batch["pixel_values"][1, :, 64:].any()
    alone = mmp_processor()(images=[images[0]], text=["a red cat"], return_tensors="pt")
    assert torch.equal(alone["pixel_values"][0], batch["pixel_values"][0, :, :64, :96])
    nothing = mmp_processor()(text=["a"], return_tensors="pt")
    assert nothing["pixel_values"].shape == (1, 3, 64, 64) and nothing["pixel_mask"].all()


@pytest.mark.parametrize("size", [(2000, 20), (9, 3000), (640, 10)])
def test_mmp_takes_narrow_pictures(size):
    batch = mmp_processor()(images=[picture(*size)], return_tensors="pt")
    sides = sorted(batch["pixel_values"].shape[2:])
    assert sides == [32, 96] or sides == [32, 64]


def test_mmp_survives_saving(tmp_path):
    processor = mmp_processor()
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    inputs = {"images": [picture(90, 60), None], "text": [None, "a"], "return_tensors": "pt"}
    before, after = processor(**inputs), loaded(**inputs)
    assert type(loaded) is MmpProcessor and all(torch.equal(before[name], after[name]) for name in before)
