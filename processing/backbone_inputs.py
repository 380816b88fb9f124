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
"""Preprocessing as the backbones' own files say, and the options of a processor's call: shared by all methods."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor
from transformers.feature_extraction_utils import BatchFeature

from .image_presets import IMAGE_PRESETS, build_image_processor


DEFAULT_MAX_TEXT_LENGTH = 512


def check_max_text_length(max_text_length: Any, tokenizer: Any) -> None:
    """Raises `ValueError` unless it is `None` or leaves room for a token of the text."""
    needed = tokenizer.num_special_tokens_to_add() + 1
    if max_text_length is None:
        return
    if isinstance(max_text_length, bool) or not isinstance(max_text_length, int) or max_text_length < needed:
        raise ValueError(
            f"max_text_length={max_text_length!r} must be None or a whole number of tokens, at least {needed} "
            "(the special tokens and one of the text)."
        )


def load_image_processor(
    vision: str | os.PathLike,
    image_preset: str | None = None,
    image_size: int | None = None,
    backend: str | None = None,
    **kwargs: Any,
) -> Any:
    """The image processor of a vision tower.

    Args:
        vision: Hub id or local folder.
        image_preset: a name of `processing.image_presets`, instead of the tower's own preprocessing.
        image_size: side of the picture for a preset; `None` means what the tower's config says.
        backend: `"torchvision"` or `"pil"`; `None` lets transformers choose.
        kwargs: passed to the loaders (`token`, `cache_dir`, `local_files_only`, ...).

    Raises:
        OSError: the tower has no file of its own; the message names the presets.
        ValueError: `image_size` without a preset, or what `build_image_processor` refuses.
    """
    options = {} if backend is None else {"backend": backend}
    if image_preset is not None:
        config = AutoConfig.from_pretrained(vision, **kwargs)
        config = getattr(config, "vision_config", config)  # of a dual encoder
        size = config.image_size if image_size is None else image_size
        return build_image_processor(image_preset, config.model_type, size, **options)
    if image_size is not None:
        raise ValueError(f"image_size={image_size!r} needs an image_preset; name one, e.g. 'imagenet'.")
    try:
        return AutoImageProcessor.from_pretrained(vision, **options, **kwargs)
    except OSError as error:
        raise OSError(
            f"No image preprocessing could be loaded from {os.fspath(vision)!r}; if the tower itself is there, name a "
            f"preset: image_preset={', '.join(map(repr, IMAGE_PRESETS))}. ({error})"
        ) from error


def call_options(
    processor: Any, kwargs: Mapping[str, Any], max_text_length: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a call for the image processor and for the tokenizer.

    Args:
        processor: a `ProcessorMixin` with an image processor and a tokenizer.
        kwargs: the keywords of the call.
        max_text_length: wins over what the tokenizer was saved with, not over a `max_length` of the call.
    """
    max_length_given = "max_length" in kwargs or "max_length" in kwargs.get("text_kwargs", {})
    kwargs = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
    options = processor._merge_kwargs(
        processor.valid_processor_kwargs, tokenizer_init_kwargs=processor.tokenizer.init_kwargs, **kwargs
    )
    if max_text_length is not None and not max_length_given:
        options["text_kwargs"]["max_length"] = max_text_length
    return options["images_kwargs"], options["text_kwargs"]


def as_batch(
    images: Mapping[str, torch.Tensor], others: Mapping[str, Any], return_tensors: str | None
) -> BatchFeature:
    """One batch out of image tensors and lists, in the form that was asked for (`"pt"`, `"np"` or `None`)."""
    if return_tensors == "np":
        images = {name: tensor.numpy() for name, tensor in images.items()}
    elif return_tensors != "pt":
        images = {name: list(tensor) for name, tensor in images.items()}
    return BatchFeature({**images, **others}, tensor_type=return_tensors)
