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
"""How each kind of MixLoRA case is recomputed with our tuner."""

import re
from contextlib import contextmanager
from unittest import mock

import torch
from case_files import Case
from torch import nn
from transformers import DynamicCache

from fusionzoo.modeling import convert_mixlora, mixlora_layer
from fusionzoo.modeling.mixlora_layer import MixLoraLayer


# The specification's: values reach 35 in the linear cases, hidden states of the language models 420.
LINEAR = {"atol": 1e-5, "rtol": 1e-5}
LOGITS = {"atol": 3e-5, "rtol": 1e-5}
DEEP = {"atol": 1e-3, "rtol": 1e-4}


@contextmanager
def _recorded():
    """Collects every routing, in the order in which layers are called."""
    seen = []

    def keep(*args):
        seen.append(real(*args))
        return seen[-1]

    real = mixlora_layer.route
    with mock.patch.object(mixlora_layer, "route", keep):
        yield seen


def _routing_quantities(routing) -> dict[str, torch.Tensor]:
    conditional = routing.scores_b is not None
    found = {
        "pooled": routing.pooled,
        "logits_A": routing.logits_a,
        "logits_B_ifs" if conditional else "logits_B": routing.logits_b,
        "cfs_logits_B": routing.conditional_logits_b,
        "score_B": routing.scores_b,
        "idx_A": routing.indices_a,
        "idx_B": routing.indices_b,
    }
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _found(seen: list) -> dict[str, torch.Tensor]:
    return _routing_quantities(seen[0]) if seen else {}


def _compare_all(case: Case, found: dict[str, torch.Tensor], prefix: str = "", **tolerance) -> None:
    for name, tensor in found.items():
        if prefix + name in case.outputs:
            case.compare(prefix + name, tensor, **tolerance)


def _loss(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (y - target).square().mean().reshape(1)


def _train_linear(case: Case, prefix: str, x: torch.Tensor) -> None:
    model, _ = convert_mixlora.build_model(case.weights, case.config)
    layer = model.base_model.model.linear
    x = x.clone().requires_grad_()
    model.train()
    with _recorded() as seen:
        y = model(x)
    loss = _loss(y, case.inputs["target"])
    loss.backward()
    found = {"y": y, "loss": loss, "grad_x": x.grad}
    for side in "AB":
        found[f"grad_lora_{side}"] = getattr(layer, f"cond_mixlora_{side}")["default"].weight.grad
    for routing in seen:
        found |= {f"router.{name}": tensor for name, tensor in _routing_quantities(routing).items()}
    _compare_all(case, found, prefix, **LINEAR)
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "_router_" in name)


def linear(case: Case) -> None:
    """One layer: output, loss, gradients, and what the routers computed."""
    _train_linear(case, "", case.inputs["x"])


def _masked_pool(case: Case) -> str:
    """The pool that gives, on padded rows, what the official one gives on every row alone."""
    return "first" if convert_mixlora.convert_config(case.config).router_pool == "first" else "mask"


def linear_padding(case: Case) -> None:
    """One layer on padded batches, on every instance alone, and while decoding."""
    inputs = case.inputs
    _train_linear(case, "right.", inputs["x_right"])
    official, _ = convert_mixlora.build_model(case.weights, case.config)
    masked, _ = convert_mixlora.build_model(
        case.weights, case.config, router_pool=_masked_pool(case), decode_routing="prefill"
    )
    with torch.no_grad():
        for side in ("left", "more"):
            with _recorded() as seen:
                y = official(inputs[f"x_{side}"])
            _compare_all(case, {"y": y, **_found(seen)}, f"{side}.", **LINEAR)
        for side in ("left", "more", "right"):
            mask = inputs[f"mask_{side}"]
            with _recorded() as seen:
                y = masked(inputs[f"x_{side}"], attention_mask=mask)
            found = _found(seen)
            where = inputs["mask_right"]
            alone = torch.zeros_like(case.outputs["alone.y"])
            alone[where] = y[mask]
            _compare_all(case, {"y": alone, **found}, "alone.", **LINEAR)
        with _recorded() as seen:
            y = official(inputs["x_decode"])
        found = {f"{name}_official": tensor for name, tensor in _found(seen).items()}
        _compare_all(case, {"y_official": y, **found}, "decode.", **LINEAR)
        cache = DynamicCache()
        masked(inputs["x_right"], attention_mask=inputs["mask_right"], past_key_values=cache)
        filled = torch.zeros(len(inputs["x_right"]), 1, 1, 1)
        cache.update(filled, filled, 0)
        y = masked(inputs["x_decode"], past_key_values=cache)
        case.compare("decode.y_frozen", y, **LINEAR)


def _routed_layers(model: nn.Module) -> list[tuple[str, MixLoraLayer]]:
    """Routed layers by their official name, in the order in which they are called."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, MixLoraLayer):
            found.append((name[name.index("layers.") :], module))
    return found


def _compare_gradients(case: Case, model: nn.Module) -> None:
    for name, layer in _routed_layers(model):
        for side in "AB":
            gradient = getattr(layer, f"cond_mixlora_{side}")["default"].weight.grad
            _compare_all(case, {f"grad.{name}.lora_{side}": gradient}, **DEEP)
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not [name for name in trained if "_router_" in name or "embed_tokens" in name]


def _compare_routing(case: Case, prefix: str, order: list[str], seen: list, **tolerance) -> None:
    assert len(seen) == len(order), f"{len(seen)} layers were routed instead of {len(order)}"
    for name, routing in zip(order, seen):
        found = {f"{prefix}{name}.{what}": tensor for what, tensor in _routing_quantities(routing).items()}
        _compare_all(case, found, **tolerance)


def _compare_decoding(case: Case, model: nn.Module, order: list[str], **prompt) -> None:
    expected = case.outputs["decode.tokens"]
    with _recorded() as seen:
        output = model.generate(
            **prompt,
            do_sample=False,
            max_new_tokens=len(expected),
            eos_token_id=None,
            pad_token_id=case.config["pad_token_id"],
            output_logits=True,
            return_dict_in_generate=True,
        )
    steps = [seen[start : start + len(order)] for start in range(0, len(seen), len(order) or 1)]
    found = {
        "tokens": output.sequences[0, -len(expected) :],
        "logits": torch.cat(output.logits),
    }
    for side, field in (("A", "indices_a"), ("B", "indices_b")):
        if f"decode.idx_{side}" in case.outputs:
            found[f"idx_{side}"] = torch.stack([torch.cat([getattr(one, field) for one in step]) for step in steps])
    _compare_all(case, found, "decode.", **LOGITS)


def _compare_forward(case: Case, model: nn.Module, order: list[str], **inputs) -> None:
    with _recorded() as seen:
        output = model(**inputs, output_hidden_states=True, use_cache=False)
    output.loss.backward()
    _compare_all(case, {"logits": output.logits}, **LOGITS)
    _compare_all(case, {"loss": output.loss.reshape(1)}, **LINEAR)
    _compare_all(case, {f"hidden_states.{index}": state for index, state in enumerate(output.hidden_states)}, **DEEP)
    _compare_routing(case, "router.", order, seen, **DEEP)
    _compare_gradients(case, model)


def llama(case: Case) -> None:
    """A decoder with adapters on all projections: padded batch, every row alone, greedy decoding."""
    order = case.config["layer_order_of_decode_idx"]
    inputs = dict(case.inputs)
    model, report = convert_mixlora.build_model(case.weights, case.config)
    assert all("cmoa_attribute_encoder" in name for name in report["dropped"])
    model.train()
    _compare_forward(case, model, order, **inputs)

    model.eval()
    mask = inputs["attention_mask"]
    _compare_decoding(case, model, order, input_ids=inputs["input_ids"][:1, : mask[0].sum()])

    masked, _ = convert_mixlora.build_model(case.weights, case.config, router_pool=_masked_pool(case))
    with torch.no_grad(), _recorded() as seen:
        logits = masked(input_ids=inputs["input_ids"], attention_mask=mask).logits
    _compare_all(case, {"alone.logits": logits * mask.unsqueeze(-1)}, **LOGITS)
    _compare_routing(case, "alone.", order, seen, **DEEP)


def _merge(model: nn.Module, input_ids: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor) -> tuple:
    """The official way of putting patches into rows: in place of -200, shorter rows end in all-zero vectors."""
    rows, row_labels, taken = [], [], 0
    for row, ids in enumerate(input_ids):
        keep = ids.clamp(min=0)
        embedded, wanted = model.get_input_embeddings()(keep), labels[row]
        where = (ids == -200).nonzero().flatten().tolist()
        for position in reversed(where):
            embedded = torch.cat([embedded[:position], patches[row], embedded[position + 1 :]])
            ignored = torch.full((len(patches[row]),), -100)
            wanted = torch.cat([wanted[:position], ignored, wanted[position + 1 :]])
        taken = max(taken, len(embedded))
        rows.append(embedded)
        row_labels.append(wanted)
    merged = torch.stack([nn.functional.pad(row, (0, 0, 0, taken - len(row))) for row in rows])
    padded = [nn.functional.pad(row, (0, taken - len(row)), value=-100) for row in row_labels]
    return merged, torch.stack(padded)


def llava(case: Case) -> None:
    """The whole LLaVA: images through tower and projector into the decoder, gradients of both, greedy decoding."""
    order = case.config["layer_order_of_decode_idx"]
    ids, labels, images = (case.inputs[name] for name in ("input_ids", "labels", "images"))
    free = set(range(case.config["vocab_size"])) - set(ids.flatten().tolist())
    image_token = min(free - set(case.outputs["decode.tokens"].tolist()))
    model, _ = convert_mixlora.build_model(case.weights, case.config, image_token_id=image_token)
    model.train()
    base = model.base_model.model
    tower: list[torch.Tensor] = []
    hook = base.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: tower.append(args[0]))
    features = base.get_image_features(
        pixel_values=images,
        vision_feature_layer=base.config.vision_feature_layer,
        vision_feature_select_strategy=base.config.vision_feature_select_strategy,
    ).pooler_output
    hook.remove()
    case.compare("image_features", tower[0], **LINEAR)
    merged, merged_labels = _merge(base, ids, labels, torch.stack(list(features)))
    case.compare("merged.inputs_embeds", merged, **LINEAR)
    lengths = (case.inputs["attention_mask"].sum(1) + (ids == -200).sum(1) * (features[0].shape[0] - 1)).unsqueeze(1)
    mask = torch.arange(merged.shape[1]) < lengths
    case.compare("merged.attention_mask", mask)
    _compare_forward(case, model, order, inputs_embeds=merged, attention_mask=mask, labels=merged_labels)
    projector = base.model.multi_modal_projector.linear_1.modules_to_save["default"]
    found = {f"grad.mm_projector.{name}": parameter.grad for name, parameter in projector.named_parameters()}
    _compare_all(case, found, **DEEP)

    model.eval()
    row, length, image = map(int, re.findall(r"\d+", case.config["decode_prompt"]))
    prompt = ids[row : row + 1, :length]
    prompt = prompt[0].repeat_interleave(torch.where(prompt[0] == -200, len(features[0]), 1)).unsqueeze(0)
    prompt = prompt.where(prompt != -200, image_token)
    _compare_decoding(case, model, order, input_ids=prompt, pixel_values=images[image : image + 1])


KINDS = {"linear": linear, "linear_padding": linear_padding, "llama": llama, "llava": llava}
