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
"""How each kind of MoPE case is recomputed with our model."""

from unittest import mock

import torch
from case_files import Case
from torch import nn
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinLayer

from fusionzoo.configuration.configuration_mope import MopeConfig
from fusionzoo.modeling import convert_mope, modeling_mope, prompting, prompts_mope
from fusionzoo.modeling.routing import importance_loss, squared_variation


# The official fixtures state 1e-4 absolute and 2e-4 for gradients; ours hold tighter ones.
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}
GRADIENT_TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _compare_gradients(case: Case, prefix: str, model: nn.Module, config: MopeConfig) -> None:
    """Official gradients, laid out by the converter as it lays out weights, against ours; what the converter drops
    must be zero."""
    start = f"{prefix}grad."
    official = {name.removeprefix(start): case.outputs[name] for name in case.outputs if name.startswith(start)}
    expected, unused = convert_mope.convert_state_dict(official, config)
    assert expected, "no gradient was converted"
    for name, tensor in unused.items():
        assert not tensor.any(), f"{prefix}grad.{name}: we have no such parameter, but its gradient is not zero"
    ours = _gradients(model)
    worst = 0.0
    for name, tensor in expected.items():
        torch.testing.assert_close(
            ours[name], tensor, **GRADIENT_TOLERANCE, msg=lambda text, name=name: f"{prefix}grad of {name}: {text}"
        )
        worst = max(worst, (ours[name] - tensor).abs().max().item())
    trained = {name for name, gradient in ours.items() if gradient.any() and ".absent_" not in name}
    trained = {name for name in trained if ".vision_model." not in name and ".text_model." not in name}
    assert trained <= set(expected), f"we train what the official code does not: {sorted(trained - set(expected))}"
    case.worst[f"{prefix}grad"] = worst
    case.open -= {name for name in case.open if name.startswith(start)}


class _Watch:
    """Records what flows through the model while it runs."""

    def __init__(self, model: nn.Module):
        self.model, self.stages, self.blocks, self.pooled, self.dynamic = model, [], [], [], []
        self.mapped, self.hidden, self.layer_in, self.layer_out = [], None, [], []

    def __enter__(self) -> "_Watch":
        base = self.model.mope
        run_swin, pooled = prompting.run_prompted_swin, prompts_mope.MopeRouter.pooled
        mixed, swin_block = prompts_mope.MopePrompts.mixed, prompting.swin_block
        encode, mapper = prompts_mope.MopeMapper.encode, prompts_mope.MopeMapper.forward

        def keep(store, function):
            def wrapped(*args, **kwargs):
                result = function(*args, **kwargs)
                store.append(result)
                return result

            return wrapped

        def with_stages(*args):
            self.final, count = run_swin(*args, stage_outputs=self.stages)
            return self.final, count

        def with_inputs(layer, prompts, patches, **kwargs):
            self.blocks.append(torch.cat([prompts, patches], dim=1))
            return swin_block(layer, prompts, patches, **kwargs)

        self.hidden, self.mapped = [], []
        self.patches = [
            mock.patch.object(modeling_mope, "run_prompted_swin", with_stages),
            mock.patch.object(prompting, "swin_block", with_inputs),
            mock.patch.object(prompts_mope.MopeRouter, "pooled", keep(self.pooled, pooled)),
            mock.patch.object(prompts_mope.MopePrompts, "mixed", keep(self.dynamic, mixed)),
            mock.patch.object(prompts_mope.MopeMapper, "encode", keep(self.hidden, encode)),
            mock.patch.object(prompts_mope.MopeMapper, "forward", keep(self.mapped, mapper)),
        ]
        for patch in self.patches:
            patch.start()
        self.hooks = [base.register_forward_hook(lambda _, args, out: setattr(self, "output", out))]
        if base.text_model is not None:
            for layer in prompting.tower_layers(base.text_model):
                self.hooks.append(layer.register_forward_pre_hook(lambda _, args: self.layer_in.append(args[0])))
                self.hooks.append(layer.register_forward_hook(lambda _, args, out: self.layer_out.append(out)))
        return self

    def __exit__(self, *exception) -> None:
        for patch in self.patches:
            patch.stop()
        for hook in self.hooks:
            hook.remove()


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0


def classifier(case: Case) -> None:
    """Whole classifiers: the batch as the official code computes it, and one sample at a time."""
    runs = {"": {"window_prompt_order": "official"}}
    if any(name.startswith("single.") for name in case.outputs):
        runs["single."] = {"window_prompt_order": "sample"}
    if any(name.startswith("train.") for name in case.outputs):
        runs["train."] = {}
    for prefix, fields in runs.items():
        _classifier_run(case, prefix, fields)


def _classifier_run(case: Case, prefix: str, fields: dict) -> None:
    config = convert_mope.convert_config(case.config, case.weights, **fields)
    model, report = convert_mope.build_model(case.weights, config)
    assert all(".absent_" in name for name in report["missing"]), report["missing"]
    if prefix == "train.":
        _without_dropout(model)
        model.train()
    names = {name.removeprefix(prefix) for name in case.outputs if name.startswith(prefix)}
    inputs = {name: case.inputs[name] for name in ("pixel_values", "input_ids", "attention_mask", "token_type_ids")}
    noise = case.inputs.get("router_noise")
    routed = case.config.get("routed_blocks", [])
    if routed:
        noise = torch.stack([case.inputs[f"router_noise.{block}"] for block in routed], dim=1)
    with _Watch(model) as seen:
        outputs = model(**inputs, labels=case.inputs["labels"], router_noise=noise)
    outputs.loss.backward()

    scores = outputs.router_scores
    found = {
        "logits": outputs.logits,
        "cls": outputs.pooler_output,
        "loss_total": outputs.loss,
        "loss_task": outputs.task_loss,
    }
    plain = seen.output
    found["text_feature"] = plain.text_feature
    if seen.stages:
        found |= {f"stage_out.{stage}": tokens for stage, tokens in enumerate(seen.stages)}
        found["final_norm"] = seen.final
    if seen.hidden:
        found["mapper_hidden"] = seen.hidden[0]
        found |= {f"mapped_prompt.{stage}": token for stage, token in enumerate(seen.mapped[0])}
        if config.text_is_steered:
            found |= {"instruct_in": plain.vision_feature, "instruct_out": seen.mapped[0][0]}
        else:
            found |= {"instruct_in": plain.text_feature, "instruct_out": seen.hidden[0]}
    if scores is not None:
        load = squared_variation(scores.sum(0))
        found |= {
            "scores": scores,
            "loss_importance": outputs.importance_loss,
            "importance_raw_per_block": load,
            "importance_per_block": load.where(load > config.importance_threshold, torch.zeros(())),
            "entropy": -(scores * scores.log()).sum(-1).mean(),
        }
        depths = config.vision_config.depths
        for number, name in enumerate(routed):
            stage, block = map(int, name.split("."))
            found[f"scores.{name}"] = scores[:, number]
            found[f"router_pooled.{name}"] = seen.pooled[number]
            found[f"dynamic_prompt.{name}"] = seen.dynamic[number]
            found[f"block_in.{name}"] = seen.blocks[sum(depths[:stage]) + block]
    for name in sorted(names):
        if name.startswith("after."):
            found[name] = dict(model.named_buffers())[_buffer_name(name)]
        if name in found:
            case.compare(prefix + name, found[name], **TOLERANCE)
    _compare_gradients(case, prefix, model, config)


def _buffer_name(official: str) -> str:
    return f"mope.fusion_prompts.mapper.norm.{official.rpartition('.')[2]}"


def router_block(case: Case) -> None:
    """One router with its experts and one prompted Swin block."""
    sizes, inputs = case.config, case.inputs
    config = SwinConfig(embed_dim=sizes["dim"], window_size=sizes["window_size"])
    config._attn_implementation = "eager"
    layer = SwinLayer(
        config, sizes["dim"], tuple(sizes["input_resolution"]), sizes["num_heads"], shift_size=sizes["shift_size"]
    ).eval()
    layer.load_state_dict(convert_mope.swin_block_state(case.weights, sizes["window_size"]))
    mope = MopeConfig(
        num_experts=sizes["moe_n_experts"], router_self_dim=sizes["d_inter"], router_cross_dim=sizes["d_cross"]
    )
    length = sizes["prompt_length"]
    for prefix, order in (("", "official"), ("single.", "sample")):
        router = prompts_mope.MopeRouter(mope, 1, sizes["dim"], inputs["cross_feature"].shape[-1])
        router.load_state_dict(convert_mope.router_state([case.weights]))
        leaves = {
            name: inputs[name].clone().requires_grad_()
            for name in ("x", "cross_feature", "static_prompt", "experts", "mapped_prompt")
        }
        x, height_width = leaves["x"], tuple(sizes["input_resolution"])
        patches = height_width[0] * height_width[1]
        arriving, tokens = x[:, :-patches], x[:, -patches:]
        pooled = router.pooled(arriving, tokens)
        query = router.self_query(0, pooled)
        cross = router.cross_query(leaves["cross_feature"])[:, 0]
        scores = router(0, pooled, cross, inputs["router_noise"])
        dynamic = torch.einsum("bk,knc->bnc", scores, leaves["experts"])
        static = leaves["static_prompt"].expand(len(x), -1, -1)
        prompts = torch.cat([static, dynamic, leaves["mapped_prompt"]], dim=1)
        windows: list = []
        attended: list = []
        real = prompting.window_attention

        def watch(attention, window_tokens, bias, windows=windows, attended=attended, real=real):
            windows.append(window_tokens)
            attended.append(real(attention, window_tokens, bias))
            return attended[-1]

        with mock.patch.object(prompting, "window_attention", watch):
            block_out = torch.cat(prompting.swin_block(layer, prompts, tokens, height_width, order), dim=1)
        balance = importance_loss(scores.unsqueeze(1), mope.importance_threshold)
        loss = (block_out * inputs["loss_weight"]).sum() / 100 + balance
        loss.backward()
        found = {
            "pooled": pooled,
            "q_self": query,
            "q_cross": cross,
            "logits_over_tau": router.logits(0, query, cross),
            "scores": scores,
            "dynamic_prompt": dynamic,
            "window_tokens": windows[0],
            "window_attention_out": attended[0],
            "block_out": block_out,
            "importance": balance,
            "loss": loss,
        }
        found |= {f"grad.{name}": leaf.grad for name, leaf in leaves.items()}
        found |= {
            "grad.mm_prompt_self_proj.weight": router.self_weight.grad[0],
            "grad.mm_prompt_self_proj.bias": router.self_bias.grad[0],
            "grad.mm_prompt_cross_proj.weight": router.cross_proj.weight.grad,
            "grad.mm_prompt_cross_proj.bias": router.cross_proj.bias.grad,
        }
        assert arriving.shape[1] == 2 * length + 1
        for name, tensor in found.items():
            if prefix + name in case.outputs:
                case.compare(prefix + name, tensor, **(GRADIENT_TOLERANCE if "grad" in name else TOLERANCE))


def swin_vpt(case: Case) -> None:
    """Static visual prompts only."""
    classifier(case)


class _GivenSteering(prompts_mope.MopeSteering):
    """Prompts from tokens and routing weights that the case gives, instead of from a feature."""

    def __init__(self, bank, mapped, scores=None):
        self.bank, self.mapped, self.feature_scores, self.batch = bank, mapped, scores, len(mapped[0])


def bert_variants(case: Case) -> None:
    """The text classifier alone: plain, with static prompts, and with a mapped token."""
    variants = {
        "static.": {"fuse_method": "text_only", "use_pbert": True},
        "plain.": {"fuse_method": "text_only", "use_pbert": False},
        "mapped.": {"fuse_method": "p_sequential", "use_pbert": True},
    }
    for prefix, options in variants.items():
        config = convert_mope.convert_config({**case.config, **options}, case.weights, **_NO_IMAGE)
        model, _ = convert_mope.build_model(case.weights, config)
        base, given = model.mope, {}
        if prefix == "mapped.":
            given["vision_embedding"] = case.inputs["vision_embedding"].clone().requires_grad_()
            source = _GivenSteering(base.fusion_prompts, [given["vision_embedding"].unsqueeze(1)])
        else:
            source = base.text_prompts
        _text_run(case, prefix, model, config, source, given)


_NO_IMAGE = {
    "vision_config": {
        "model_type": "swin", "embed_dim": 4, "depths": [1], "num_heads": [1], "window_size": 2, "image_size": 8,
        "patch_size": 4,
    },
    "prompt_length": 0,
}  # fmt: skip


def _text_run(case: Case, prefix: str, model: nn.Module, config: MopeConfig, source, given: dict) -> None:
    base = model.mope
    inputs = [case.inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    with _Watch(model) as seen:
        feature = base.encode_text(*inputs, None, source)
    logits = model.classifier(feature)
    loss = nn.functional.cross_entropy(logits, case.inputs["labels"])
    loss.backward()
    found = {"feature": feature, "logits": logits, "loss": loss}
    for index, (entered, left) in enumerate(zip(seen.layer_in, seen.layer_out)):
        found |= {f"layer_in.{index}": entered, f"layer_out.{index}": left}
    for name, tensor in found.items():
        if prefix + name in case.outputs:
            case.compare(prefix + name, tensor, **TOLERANCE)
    for name, leaf in given.items():
        case.compare(f"{prefix}grad.{name}", leaf.grad, **GRADIENT_TOLERANCE)
        case.outputs.pop(f"{prefix}grad.{name}")
    _compare_gradients(case, prefix, model, config)


def bert_moe(case: Case) -> None:
    """Text as the main modality with prompt experts; the routing weights and the mapper's hidden layer are given."""
    options = {**case.config, "fuse_method": "instruct_moe_v2t", "use_pbert": True}
    options["moe_n_experts"] = case.weights["prompt_vectors.0"].shape[0] - 1
    config = convert_mope.convert_config(
        options, case.weights, **_NO_IMAGE, mapper_hidden_size=case.inputs["vision_input"].shape[-1]
    )
    model, _ = convert_mope.build_model(case.weights, config)
    prompts = model.mope.fusion_prompts
    given = {name: case.inputs[name].clone().requires_grad_() for name in ("vision_input", "route_score")}
    mapped = [token.unsqueeze(1) for token in prompts.mapper(given["vision_input"])]
    _text_run(case, "", model, config, _GivenSteering(prompts, mapped, given["route_score"]), given)


KINDS = {
    "classifier": classifier,
    "router_block": router_block,
    "swin_vpt": swin_vpt,
    "bert_variants": bert_variants,
    "bert_moe": bert_moe,
}
