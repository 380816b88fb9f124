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
"""Image preprocessing under names: what to use when a vision tower brings no preprocessor of its own.

| preset                 | resize                                       | mean / std                  | source                       |
|------------------------|----------------------------------------------|-----------------------------|------------------------------|
| `imagenet`             | shorter side to 8/7 of the size, bicubic     | ImageNet                    | Swin, DINOv2, ConvNeXt, timm |
| `half`                 | to size x size, bilinear                     | 0.5 / 0.5                   | ViT (JAX checkpoints), BEiT  |
| `clip`                 | shorter side to the size, bicubic            | OpenAI CLIP                 | CLIP                         |
| `mope_official`        | shorter side to 256 (of 224), bilinear       | MoPE's official code        | its Food-101 runs            |
| `mope_official_square` | to 256 x 256 (of 224), bilinear              | MoPE's official code        | its MM-IMDb and SNLI-VE runs |

All end in a centre crop (where something is left to crop), rescaling to 0..1 and normalisation.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    PILImageResampling,
)
from transformers.models.bit.image_processing_bit import BitImageProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil


@dataclass(frozen=True)
class ImagePreset:
    """One row of the table above.

    Attributes:
        mean, std: per channel, for values in 0..1.
        square: whether both sides are resized (the aspect ratio changes) or only the shorter one decides.
        resize_ratio: resized side over cropped side.
        resample: Pillow's interpolation.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: bool
    resize_ratio: Fraction
    resample: PILImageResampling


_MOPE_MEAN = (0.46777044, 0.44531429, 0.40661017)
_MOPE_STD = (0.12221994, 0.12145835, 0.14380469)
_BICUBIC, _BILINEAR = PILImageResampling.BICUBIC, PILImageResampling.BILINEAR

IMAGE_PRESETS: dict[str, ImagePreset] = {
    "imagenet": ImagePreset(
        tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD), False, Fraction(8, 7), _BICUBIC
    ),
    "half": ImagePreset(tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD), True, Fraction(1), _BILINEAR),
    "clip": ImagePreset(tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD), False, Fraction(1), _BICUBIC),
    "mope_official": ImagePreset(_MOPE_MEAN, _MOPE_STD, False, Fraction(8, 7), _BILINEAR),
    "mope_official_square": ImagePreset(_MOPE_MEAN, _MOPE_STD, True, Fraction(8, 7), _BILINEAR),
}

_PRESET_OF_MODEL_TYPE = {
    "vit": "half",
    "beit": "half",
    "siglip_vision_model": "half",
    "clip_vision_model": "clip",
    "convnext": "imagenet",
    "convnextv2": "imagenet",
    "deit": "imagenet",
    "dinov2": "imagenet",
    "dinov2_with_registers": "imagenet",
    "swin": "imagenet",
    "swinv2": "imagenet",
    "timm_wrapper": "imagenet",
}


def build_image_processor(
    preset: str | None = None,
    vision_config_model_type: str | None = None,
    size: int = 224,
    *,
    backend: str = "torchvision",
) -> Any:
    """An image processor of transformers with every value of a preset written out (so it saves and loads by itself).

    Args:
        preset: a name of the table above, or `None`: what fits `vision_config_model_type`.
        vision_config_model_type: the `model_type` of the vision tower, e.g. `"swin"`.
        size: side of the square that the model sees, in pixels.
        backend: `"torchvision"` or `"pil"`; they differ by at most one grey level.

    Raises:
        ValueError: unknown preset, tower or backend, or a `size` below 1.
    """
    if preset is None:
        preset = _PRESET_OF_MODEL_TYPE.get(vision_config_model_type or "")
        if preset is None:
            raise ValueError(
                f"No image preset is known for vision model_type {vision_config_model_type!r}; "
                f"name one: preset={_names(IMAGE_PRESETS)}."
            )
    if preset not in IMAGE_PRESETS:
        raise ValueError(f"Unknown image preset {preset!r}; the presets are {_names(IMAGE_PRESETS)}.")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size={size!r} must be a whole number of pixels, at least 1.")
    classes = {"torchvision": BitImageProcessor, "pil": BitImageProcessorPil}
    if backend not in classes:
        raise ValueError(f"Unknown backend {backend!r}; the backends are {_names(classes)}.")
    chosen = IMAGE_PRESETS[preset]
    resized = round(size * chosen.resize_ratio)
    return classes[backend](
        do_resize=True,
        size={"height": resized, "width": resized} if chosen.square else {"shortest_edge": resized},
        resample=chosen.resample,
        do_center_crop=resized > size or not chosen.square,
        crop_size={"height": size, "width": size},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(chosen.mean),
        image_std=list(chosen.std),
    )


def _names(table: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in table)
