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
"""MixLoRA (https://arxiv.org/abs/2402.15896) as a PEFT tuner, for any model with linear layers.

Every adapted layer keeps a pool of rank-1 factors; a router picks, for each instance, the `r` that make its update.
The equations are in `mixlora_router` and `mixlora_layer`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, resolve_quantization_backend
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..configuration.configuration_mixlora import FusionPeftType, MixLoraConfig
from .mixlora_context import RoutingContext
from .mixlora_layer import NO_MERGE, FactorBank, MixLoraLayer, MixLoraLinear, layer_config


_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# As the paper: every linear layer of the decoder. The vision towers of composite models have projections of the same
# names, so those are told apart by where they lie.
_TARGETS: dict[str, Any] = {
    **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "smollm3"), _PROJECTIONS),
    **dict.fromkeys(
        ("llava", "llava_next", "llava_onevision", "vipllava"),
        rf".*language_model.*\.({'|'.join(name.removesuffix('_proj') for name in _PROJECTIONS)})_proj",
    ),
}


class MixLoraModel(BaseTuner):
    """A model with MixLoRA adapters, made by `peft.get_peft_model(model, MixLoraConfig(...))`.

    Works like PEFT's own tuners: `save_pretrained`, `PeftModel.from_pretrained`, `load_adapter`, `disable_adapter`,
    `delete_adapter`, `unload`, also through transformers' `model.add_adapter`.

    Inputs: the mask and the labels that the model gets decide what is routed, see `MixLoraConfig.router_pool`.

    Relations: PEFT's LoRA where one update should serve all inputs, or where it must be merged for serving.
    """

    prefix = "cond_mixlora_"
    tuner_layer_cls = MixLoraLayer
    target_module_mapping = _TARGETS

    # ---- injection ------------------------------------------------------------------------------------------------

    def _prepare_model(self, peft_config: MixLoraConfig, model: nn.Module) -> None:
        self._refuse_encoder_decoder(peft_config, model)
        self.context = RoutingContext.attach(model)
        self._shared_routers: dict[tuple[str, int], FactorBank] | None = {} if peft_config.share_routers else None

    @staticmethod
    def _refuse_encoder_decoder(peft_config: MixLoraConfig, model: nn.Module) -> None:
        if not BaseTuner.get_model_config(model).get("is_encoder_decoder"):
            return
        if peft_config.router_pool != "all" or peft_config.decode_routing != "per_token":
            raise ValueError(
                f"router_pool={peft_config.router_pool!r} with decode_routing={peft_config.decode_routing!r} is not "
                "defined for encoder-decoder models, whose decoder has other positions than the mask. Set "
                'router_pool="all" and decode_routing="per_token".'
            )

    def _create_and_replace(
        self,
        peft_config: MixLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        index = re.search(r"(?:^|\.)(\d+)\.", current_key)
        config = layer_config(peft_config, int(index[1]) if index else None)
        layer = target
        if not isinstance(target, MixLoraLayer):
            self._check_supported(target, current_key, parent)
            layer = MixLoraLinear(target, current_key, self.context, _reads_text(self.model, current_key))
            layer._active_adapter = adapter_name
        layer.update_layer(adapter_name, config, self._shared_routers, peft_config.inference_mode)
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)  # an additional adapter is not trainable until it is set
            self._replace_module(parent, target_name, layer, target)

    @staticmethod
    def _check_supported(target: nn.Module, key: str, parent: nn.Module) -> None:
        if isinstance(target, BaseTunerLayer):
            raise ValueError(
                f"{key} already has an adapter of another kind ({type(target).__name__}); unload it first."
            )
        if isinstance(parent, nn.MultiheadAttention):
            raise ValueError(
                f"{key} lies inside torch.nn.MultiheadAttention, which reads its weight without calling it, so an "
                "adapter would have no effect. Leave it out through exclude_modules."
            )
        quantised = resolve_quantization_backend(target) is not None
        weight = getattr(target, "weight", None)
        if quantised or (isinstance(weight, torch.Tensor) and not weight.is_floating_point()):
            raise ValueError(
                f"{key} is quantised ({type(target).__name__}); MixLoRA adapts layers in float32, float16 or "
                "bfloat16. Load the model without quantization_config, or leave the layer out through exclude_modules."
            )
        if not isinstance(target, (nn.Linear, Conv1D)):
            raise ValueError(
                f"{key} is a {type(target).__name__}; MixLoRA adapts torch.nn.Linear and transformers' Conv1D. Name "
                "linear layers in target_modules."
            )

    # ---- running --------------------------------------------------------------------------------------------------

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT opens this around `forward` and `generate`."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "MixLoRA does not take adapter_names, one adapter per row of a batch. Give each adapter its own batch "
                "after set_adapter(name)."
            )
        with self.context.one_call():
            yield

    def selections(self, adapter_name: str | None = None) -> dict[str, tuple[torch.Tensor | None, torch.Tensor]]:
        """What the last forward pass selected.

        Returns:
            By module name, indices of A and of B, `(batch, r)` each. Those of A are `None` with `routing="b_only"`.
        """
        name = adapter_name or self.active_adapters[0]
        kept = self.context.state.selections
        return {key: (chosen[0], chosen[1]) for (key, adapter), chosen in kept.items() if adapter == name}

    # ---- off again ------------------------------------------------------------------------------------------------

    def _check_merge_allowed(self) -> None:
        raise ValueError(NO_MERGE)

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> nn.Module:
        model = super()._unload_and_optionally_merge(merge=merge, **kwargs)
        self.context.detach()
        return model

    # ---- files ----------------------------------------------------------------------------------------------------

    @classmethod
    def _get_adapter_state_dict(
        cls, model: nn.Module, config: MixLoraConfig, adapter_name: str, state_dict: dict, unwanted_adapter_names: list
    ) -> dict[str, torch.Tensor]:
        """Shared routers are saved once, under the first layer that has them."""
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        copies = {copy for copies in _shared_router_keys(model, adapter_name) for copy in copies[1:]}
        return {key: tensor for key, tensor in selected.items() if key not in copies}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: MixLoraConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        loaded = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        for keys in _shared_router_keys(model, adapter_name):
            tensor = next((loaded[key] for key in keys if key in loaded), None)
            if tensor is not None:
                loaded |= dict.fromkeys(keys, tensor)
        return loaded


def _shared_router_keys(model: nn.Module, adapter_name: str) -> list[list[str]]:
    """State-dict keys of the adapter's routers, those of one and the same router together."""
    keys: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, MixLoraLayer):
            for router_name in module.router_names:
                bank = getattr(module, router_name)
                if adapter_name in bank:
                    key = ".".join(filter(None, (name, router_name, adapter_name, "weight")))
                    keys.setdefault(id(bank[adapter_name]), []).append(key)
    return list(keys.values())


def _reads_text(model: nn.Module, key: str) -> bool:
    """Whether the layer belongs to the part of the model that the attention mask is about. A vision tower inside a
    composite model has positions of its own."""
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        owner = model.get_submodule(".".join(parts[:depth]))
        if isinstance(owner, PreTrainedModel):
            return owner.main_input_name in ("input_ids", "inputs_embeds")
    return True


PEFT_TYPE_TO_TUNER_MAPPING[FusionPeftType.COND_MIXLORA.value] = MixLoraModel
PEFT_TYPE_TO_PREFIX_MAPPING[FusionPeftType.COND_MIXLORA.value] = MixLoraModel.prefix
