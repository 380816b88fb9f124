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
"""`FusionPreTrainedModel`: towers that stay frozen, and checkpoints that can leave them out."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.siglip.modeling_siglip import SiglipTextModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, cached_file

from ..configuration.configuration_fusion import BackboneConfig


_HUB_KEYWORDS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class FusionPreTrainedModel(PreTrainedModel):
    """Base of the zoo's models.

    A model owns its towers under the names in `tower_configs`, which maps each attribute to its sub-config.
    """

    config: BackboneConfig
    tower_configs = {"vision_model": "vision_config", "text_model": "text_config"}
    # Frozen towers named here also stay in eval mode (no dropout, no stochastic depth, fixed statistics).
    eval_when_frozen: tuple[str, ...] = ()

    # Our losses are means: the Trainer must not divide them by the number of items of the accumulated batch.
    accepts_loss_kwargs = False
    input_modalities = ("image", "text")
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def post_init(self) -> None:
        super().post_init()
        self.freeze_parts()

    # ---- frozen towers ----------------------------------------------------------------------------------------

    def towers(self) -> dict[str, nn.Module]:
        """The towers that this model has, by their name in the base model."""
        base = self.base_model
        found = {name: getattr(base, name, None) for name in self.tower_configs}
        return {name: tower for name, tower in found.items() if tower is not None}

    def freeze_parts(self) -> None:
        """Fixes the towers' own parameters, and leaves them out of what is saved if the config says so.

        Runs at construction and after loading, because `from_pretrained` forgets `requires_grad`.
        """
        if self.config.freeze_backbone:
            for name, tower in self.towers().items():
                tower.requires_grad_(False)
                for part in self.trained_parts(name, tower):
                    part.requires_grad_(True)
        self._keys_to_ignore_on_save = self._keys_left_out()

    def _keys_left_out(self) -> set[str]:
        """The keys that `save_pretrained` does not write: what is frozen of the towers, for slim checkpoints."""
        if self.config.weights_scope != "trainable":
            return set()
        prefix = "" if self.base_model is self else f"{self.base_model_prefix}."
        left_out = set()
        for name, tower in self.towers().items():
            parts = {id(each) for part in self.trained_parts(name, tower) for each in part.parameters()}
            trained = {key for key, parameter in tower.named_parameters() if id(parameter) in parts}
            left_out |= {f"{prefix}{name}.{key}" for key in tower.state_dict() if key not in trained}
        return left_out

    def trained_parts(self, name: str, tower: nn.Module) -> list[nn.Module]:
        """Parts of a frozen tower that train nevertheless; checkpoints of either scope hold them."""
        return []

    def train(self, mode: bool = True) -> "FusionPreTrainedModel":
        super().train(mode)
        if self.config.freeze_backbone:
            for name in self.eval_when_frozen:
                tower = getattr(self, name, None)
                if tower is not None:
                    tower.eval()
        return self

    def parameter_group(self, name: str) -> str:
        """The learning-rate group of a parameter: `"vision"`, `"text"`, `"fusion"` or `"head"`."""
        owners = {"vision": ("vision_", "absent_image"), "text": ("text_", "absent_text")}
        for group, starts in owners.items():
            if any(part.startswith(starts) for part in name.split(".")):
                return group
        return "fusion"

    # ---- building from pretrained towers ----------------------------------------------------------------------

    @classmethod
    def from_backbones(
        cls,
        vision: str | Path | None = None,
        text: str | Path | None = None,
        *,
        dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
        hub_kwargs: dict[str, Any] | None = None,
        **fields: Any,
    ) -> "FusionPreTrainedModel":
        """A model with pretrained towers and freshly initialised fusion parameters.

        Args:
            vision, text: Hub id or folder of each tower, anything that `AutoModel.from_pretrained` takes; of a dual
                encoder like CLIP, its vision or text tower is taken, and `text=None` means the same dual encoder. A
                tower that the chosen method does not use may be `None`.
            dtype: dtype of the model; `None` keeps float32.
            attn_implementation: e.g. `"sdpa"` or `"eager"`.
            hub_kwargs: keywords for the Hub (`token`, `cache_dir`, `local_files_only`, ...).
            **fields: fields of the method's configuration, and `num_labels`, `id2label`, `problem_type`.

        Raises:
            ValueError: a tower that the method uses is not given.

        Example:

        ```python
        >>> model = MopeForSequenceClassification.from_backbones(
        ...     vision="microsoft/swin-base-patch4-window7-224-in22k", text="google-bert/bert-base-uncased", num_labels=101
        ... )  # doctest: +SKIP
        ```
        """
        hub_kwargs = hub_kwargs or {}
        sources = cls.tower_sources(vision, text, hub_kwargs)
        sub_configs = {
            cls.tower_configs[name]: AutoConfig.from_pretrained(source, **hub_kwargs)
            for name, source in sources.items()
            if source is not None
        }
        config = cls.config_class(**sub_configs, **fields)
        if dtype is not None:
            config.dtype = dtype
        model = cls._from_config(config, attn_implementation=attn_implementation)
        origins, loaded = {}, {}
        for name, tower in model.towers().items():
            source = sources[name]
            if source is None:
                argument = name.removesuffix("_model")
                raise ValueError(
                    f"This {cls.__name__} has a {argument} tower, but from_backbones got {argument}=None; give a Hub "
                    "id or a folder."
                )
            if source not in loaded:
                loaded[source] = AutoModel.from_pretrained(source, dtype="auto", **hub_kwargs)
            state = model.fit_tower_state(name, _tower_state(loaded[source], name, set(tower.state_dict())), tower)
            missing = set(tower.state_dict()) - set(state)
            if missing:
                raise ValueError(f"{source} lacks weights of the {name}: {', '.join(sorted(missing)[:5])} ...")
            tower.load_state_dict(state)
            model.base_model.adopt_from_backbone(name, loaded[source])
            origins[name] = {
                "repo_id": str(source),
                "revision": _commit_hash(source, hub_kwargs),
                "sha256": fingerprint(state),
            }
        model.config.frozen_parts = origins
        model.freeze_parts()
        return model.eval()

    @classmethod
    def tower_sources(
        cls, vision: str | Path | None, text: str | Path | None, hub_kwargs: dict[str, Any]
    ) -> dict[str, str | Path | None]:
        """Where each tower of `tower_configs` comes from, for the arguments of `from_backbones`."""
        if text is None and vision is not None:
            both = {"vision_config", "text_config"}
            if both <= set(AutoConfig.from_pretrained(vision, **hub_kwargs).sub_configs):
                text = vision
        return {"vision_model": vision, "text_model": text}

    def adopt_from_backbone(self, name: str, backbone: PreTrainedModel) -> None:
        """Takes what the method needs of a pretrained model beside its tower (CLIP's projections, say)."""

    def fit_tower_state(
        self, name: str, state: dict[str, torch.Tensor], tower: PreTrainedModel
    ) -> dict[str, torch.Tensor]:
        """A pretrained tower's weights in the shapes of ours, for methods that change one (a longer table, say)."""
        return state

    # ---- saving and loading -----------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """As in transformers. The file keeps the names of the modules in memory (`save_original_format=False`):
        Trainer's resume and best-model loading read plain state dicts and would drop renamed keys."""
        kwargs.setdefault("save_original_format", False)
        if self.config.weights_scope == "trainable":
            missing = set(self.towers()) - set(self.config.frozen_parts or {})
            if missing:
                raise ValueError(
                    f'weights_scope="trainable" leaves out {", ".join(sorted(missing))}, but config.frozen_parts does '
                    'not say where they come from; build the model with from_backbones, or use weights_scope="full".'
                )
            left_out = self._keys_left_out()
            prefix = "" if self.base_model is self else f"{self.base_model_prefix}."
            trained = [
                name
                for name, tower in self.towers().items()
                if any(p.requires_grad and f"{prefix}{name}.{key}" in left_out for key, p in tower.named_parameters())
            ]
            if trained:
                raise ValueError(
                    f'weights_scope="trainable" would leave out {", ".join(trained)}, which you have made trainable; '
                    'use weights_scope="full", or call freeze_parts() if its weights are still the original ones.'
                )
        self._keys_to_ignore_on_save = self._keys_left_out()
        super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, config: PreTrainedConfig | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers; a slim checkpoint (`weights_scope="trainable"`) fetches its towers from where
        `config.frozen_parts` says, at the recorded revision, and refuses towers whose weights have changed."""
        loading_info_wanted = kwargs.pop("output_loading_info", False)
        hub_kwargs = {name: kwargs[name] for name in _HUB_KEYWORDS if name in kwargs}
        stored = None
        if pretrained_model_name_or_path is not None and "state_dict" not in kwargs:
            stored = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub_kwargs)
        if stored is None or stored.weights_scope == "full":
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
            )
        else:
            if config is None:  # keywords may be fields of the configuration
                config, kwargs = cls.config_class.from_pretrained(
                    pretrained_model_name_or_path, return_unused_kwargs=True, **kwargs
                )
            model, info = cls._from_slim(pretrained_model_name_or_path, config, stored, hub_kwargs, kwargs)
        model.freeze_parts()
        model.eval()
        return (model, info) if loading_info_wanted else model

    @classmethod
    def _from_slim(
        cls, source: Any, config: Any, stored: Any, hub_kwargs: dict[str, Any], kwargs: dict[str, Any]
    ) -> tuple[Any, dict]:
        state = load_file(cached_file(source, SAFE_WEIGHTS_NAME, **hub_kwargs))
        with torch.device("meta"):
            skeleton = cls(config)
        prefix = "" if skeleton.base_model is skeleton else f"{cls.base_model_prefix}."
        if prefix and not any(key.startswith(prefix) for key in state):  # the file of a bare base model
            state = {f"{prefix}{key}": value for key, value in state.items()}
        elif not prefix:  # a base model out of a classifier's file
            own = f"{cls.base_model_prefix}."
            if any(key.startswith(own) for key in state):
                state = {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
        tower_hub_kwargs = {name: value for name, value in hub_kwargs.items() if name not in ("revision", "subfolder")}
        for name, tower in skeleton.towers().items():
            origin = (stored.frozen_parts or {}).get(name)
            if origin is None:
                raise ValueError(f"{source} leaves out its {name}, and its config does not say where that comes from.")
            wanted = set(tower.state_dict())
            backbone = AutoModel.from_pretrained(
                origin["repo_id"], revision=origin.get("revision") or "main", dtype="auto", **tower_hub_kwargs
            )
            tower_state = skeleton.fit_tower_state(name, _tower_state(backbone, name, wanted), tower)
            if origin.get("sha256") not in (None, fingerprint(tower_state)):
                raise ValueError(
                    f"The weights of {origin['repo_id']} (revision {origin.get('revision')}) are not those that "
                    f'{source} was trained on; restore them, or load a checkpoint saved with weights_scope="full".'
                )
            state = {f"{prefix}{name}.{key}": value for key, value in tower_state.items()} | state
        kwargs = {name: value for name, value in kwargs.items() if name not in _HUB_KEYWORDS}
        model, info = super().from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, **kwargs
        )
        head_is_new = (
            prefix and set(info["missing_keys"]) and not any(key.startswith(prefix) for key in info["missing_keys"])
        )
        if info["missing_keys"] and not head_is_new:
            raise ValueError(f"{source} lacks {', '.join(sorted(info['missing_keys'])[:5])} ...")
        model.name_or_path = model.config.name_or_path = str(source)
        return model, info


def build_tower(config: PreTrainedConfig, pooler: bool = False) -> PreTrainedModel:
    """The tower of a sub-config, without an unused pooling layer (dead parameters break distributed training)."""
    if config.model_type == "siglip_text_model":  # transformers has no AutoModel entry for it
        return SiglipTextModel._from_config(config)
    tower_class = AutoModel._model_mapping[type(config)]
    if isinstance(tower_class, tuple):
        tower_class = tower_class[0]
    takes_pooler = "add_pooling_layer" in inspect.signature(tower_class.__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": pooler} if takes_pooler else {}))


def fingerprint(state: dict[str, torch.Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes of a state dict, independent of its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tower_state(backbone: PreTrainedModel, name: str, wanted: set[str]) -> dict[str, torch.Tensor]:
    """The weights of a tower out of a loaded backbone: the backbone itself, or a dual encoder's tower of that name."""
    tower = (
        getattr(backbone, name) if f"{name.removesuffix('_model')}_config" in backbone.config.sub_configs else backbone
    )
    return {key: value for key, value in tower.state_dict().items() if key in wanted}


def _commit_hash(source: str | Path, hub_kwargs: dict[str, Any]) -> str | None:
    """The commit that a Hub id was loaded from; `None` for a folder (its weights are pinned by their fingerprint)."""
    if Path(source).is_dir():
        return None
    parts = Path(cached_file(source, CONFIG_NAME, **hub_kwargs)).parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


__all__ = ["FusionPreTrainedModel"]
