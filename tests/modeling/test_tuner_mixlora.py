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
"""MixLoRA as a PEFT tuner: what PEFT promises of every tuner, on tiny models of four kinds and one with Conv1D."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from fixtures_tuner import MODELS, build, configure, inputs
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import fusionzoo
from fusionzoo.modeling.mixlora_layer import MixLoraLayer


ROUTINGS = ("input_lora_a_param", "input", "shared", "input_lora_a_choice", "b_only", "plain")


def adapted(name: str, seed: int = 1, **fields) -> PeftModel:
    base = build(name)
    torch.manual_seed(seed)
    return get_peft_model(base, configure(name, **fields)).eval()


def logits(model: nn.Module, name: str, **more) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(name, labels=False), **more).logits


def layers(model: nn.Module) -> list[MixLoraLayer]:
    return [module for module in model.modules() if isinstance(module, MixLoraLayer)]


# ---- PEFT's promises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_new_adapter_changes_nothing_and_a_trained_one_does(name):
    base = logits(build(name), name)
    assert torch.equal(logits(adapted(name, init_weights=True), name), base)
    assert (logits(adapted(name), name) - base).abs().max() > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_disable_and_unload_give_the_base_model_back(name):
    model = adapted(name)
    before, base = logits(model, name), logits(build(name), name)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), base)
    assert torch.equal(logits(model, name), before)
    bare = model.unload()
    assert torch.equal(logits(bare, name), base)
    assert not layers(bare)
    assert not bare._forward_pre_hooks
    assert not bare._forward_hooks
    assert set(bare.state_dict()) == set(build(name).state_dict())


@pytest.mark.parametrize("routing", ROUTINGS)
def test_save_and_load(routing, tmp_path: Path):
    model = adapted("llama", routing=routing, mix_start_layer=1)
    before = logits(model, "llama")
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build("llama"), tmp_path), "llama"), before)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(loaded.eval(), "llama"), before)
    config = peft.PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, fusionzoo.MixLoraConfig)
    assert config.routing == routing


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load_through_transformers(name, tmp_path: Path):
    base = build(name)
    torch.manual_seed(1)
    base.add_adapter(configure(name))
    before = logits(base.eval(), name)
    assert (before - logits(build(name), name)).abs().max() > 1e-2
    base.save_pretrained(tmp_path)
    again = build(name)
    again.load_adapter(str(tmp_path))
    assert torch.equal(logits(again.eval(), name), before)
    again.disable_adapters()
    assert torch.equal(logits(again, name), logits(build(name), name))
    again.enable_adapters()
    again.delete_adapter("default")
    assert not any("cond_mixlora" in key for key in again.state_dict())


def test_the_names_in_a_file_are_frozen(tmp_path: Path):
    adapted("llama", target_modules=["q_proj"]).save_pretrained(tmp_path)
    start = "base_model.model.model.layers.{}.self_attn.q_proj.cond_mixlora_{}.weight"
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(tmp_path / "adapter_model.safetensors").items()}
    parts = {"A": (6, 16), "B": (6, 16), "router_A": (6, 16), "router_B": (6, 16), "router_AB": (6, 32)}
    assert shapes == {start.format(layer, part): shape for layer in (0, 1) for part, shape in parts.items()}


def test_several_adapters():
    model = adapted("llama")
    first = logits(model, "llama")
    torch.manual_seed(2)
    model.add_adapter("second", configure("llama", r=3, num_experts=5, routing="input", target_modules=["q_proj"]))
    assert torch.equal(logits(model, "llama"), first)
    model.set_adapter("second")
    second = logits(model, "llama")
    assert (second - first).abs().max() > 1e-2
    alone = build("llama")
    torch.manual_seed(2)
    config = configure("llama", r=3, num_experts=5, routing="input", target_modules=["q_proj"])
    assert torch.equal(logits(get_peft_model(alone, config).eval(), "llama"), second)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(".second." in name for name in trainable)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model, "llama")
    assert min((both - first).abs().max(), (both - second).abs().max()) > 1e-2
    model.set_adapter("second")
    model.delete_adapter("second")
    assert not any("second" in name for name in model.state_dict())
    assert torch.equal(logits(model, "llama"), first)


def test_load_a_second_adapter(tmp_path: Path):
    other = adapted("llama", seed=7)
    expected = logits(other, "llama")
    other.save_pretrained(tmp_path)
    model = adapted("llama")
    model.load_adapter(tmp_path, adapter_name="other")
    model.set_adapter("other")
    assert torch.equal(logits(model.eval(), "llama"), expected)


@pytest.mark.parametrize("gradient", ["straight_through", "scored", "none"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_exactly_the_adapter_trains(routing, gradient):
    model = adapted("llama", routing=routing, router_gradient=gradient).train()
    model(**inputs("llama")).loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("cond_mixlora_" in name for name in learns)
    routers = {name for name in learns if "_router_" in name or "_choice_" in name}
    # With the routers frozen, everything else trains; else all of it.
    assert touched == learns
    assert bool(routers) == (gradient != "none" and routing != "plain")
    model.add_adapter("other", configure("llama", routing=routing))
    model.set_adapter("other")
    model.set_adapter("default")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learns


@pytest.mark.parametrize("name", MODELS)
def test_an_optimiser_step_changes_only_the_adapter(name):
    model = adapted(name, init_weights=True).train()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(**inputs(name)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert all("cond_mixlora_" in key for key in changed)
    assert any("_router_" in key for key in changed)


def test_biases_and_modules_to_save(tmp_path: Path):
    model = adapted("bert", bias="mixlora_only", modules_to_save=["classifier"])
    learns = {name for name, p in model.named_parameters() if p.requires_grad and "cond_mixlora" not in name}
    assert all(name.endswith("base_layer.bias") or "classifier.modules_to_save" in name for name in learns)
    assert any(name.endswith("base_layer.bias") for name in learns)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in learns:
                parameter.add_(0.1)
    model.save_pretrained(tmp_path)
    expected = logits(model, "bert")
    assert torch.equal(logits(PeftModel.from_pretrained(build("bert"), tmp_path), "bert"), expected)


# ---- gradient checkpointing, precision, compilation ---------------------------------------------------------------


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["llama", "llava", "bert", "vit"])
def test_gradient_checkpointing_is_exact(name, reentrant):
    """Two forwards with different masks before one backward: each block must be computed again as it was."""
    results = []
    for checkpointing in (False, True):
        model = adapted(name, router_noise=0.1).train()
        if checkpointing:
            model.enable_input_require_grads() if name != "vit" else None
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            if name == "vit":
                model.get_base_model().vit.embeddings.register_forward_hook(lambda *a: a[2].requires_grad_())
        torch.manual_seed(3)
        full = inputs(name)
        other = {key: tensor[1:2].clone() for key, tensor in full.items()}
        if "attention_mask" in other:
            other["attention_mask"][:, 3:] = 0
        (model(**full).loss + model(**other).loss).backward()
        results.append(_gradients(model))
    assert set(results[0]) == set(results[1])
    for key, gradient in results[0].items():
        torch.testing.assert_close(results[1][key], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = get_peft_model(build("llama").to(dtype), configure("llama"))
    assert {p.dtype for name, p in model.named_parameters() if "cond_mixlora" in name} == {torch.float32}
    output = model(**inputs("llama"))
    assert output.logits.dtype == dtype
    output.loss.backward()
    assert all(gradient.isfinite().all() for gradient in _gradients(model).values())
    model = get_peft_model(build("llama").to(dtype), configure("llama"), autocast_adapter_dtype=False)
    assert {p.dtype for name, p in model.named_parameters() if "cond_mixlora" in name} == {dtype}
    assert model(**inputs("llama")).logits.dtype == dtype


def test_routing_ignores_autocast():
    model = adapted("llama", target_modules=["model.layers.0.self_attn.q_proj"])
    logits(model, "llama")
    expected = model.base_model.selections()
    with torch.autocast("cpu", torch.bfloat16):
        logits(model, "llama")
    for key, (indices_a, indices_b) in model.base_model.selections().items():
        assert torch.equal(indices_a, expected[key][0])
        assert torch.equal(indices_b, expected[key][1])


@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_layer_compiles_without_graph_breaks(routing):
    model = adapted("llama", routing=routing, target_modules=["q_proj"]).train()
    layer = layers(model)[0]
    x = torch.randn(3, 5, 16, requires_grad=True)
    expected = layer(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    torch._dynamo.reset()
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], gradient, atol=1e-4, rtol=1e-5)


def test_the_whole_model_compiles_without_graph_breaks():
    model = adapted("llama")
    expected = logits(model, "llama")
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(logits(compiled, "llama"), expected, atol=1e-6, rtol=1e-6)


def test_copies_are_independent(tmp_path: Path):
    model = adapted("llama")
    twin = copy.deepcopy(model)
    assert layers(twin)[0].context is not layers(model)[0].context
    assert layers(twin)[0].context is layers(twin)[-1].context
    expected = logits(model, "llama")
    layers(model)[0].context.detach()  # the copy has hooks of its own
    assert torch.equal(logits(twin, "llama"), expected)
    torch.save(twin, tmp_path / "model.pt")
    assert torch.equal(logits(torch.load(tmp_path / "model.pt", weights_only=False), "llama"), expected)


# ---- shared routers, plain layers ---------------------------------------------------------------------------------


def test_shared_routers(tmp_path: Path):
    model = adapted("llama", share_routers=True)
    own = adapted("llama")
    routers = {p for name, p in model.named_parameters() if "_router_" in name}
    assert len(routers) == 2 * 3  # two input widths
    assert len([name for name, _ in own.named_parameters() if "_router_" in name]) == 14 * 3
    by_width = {layer.in_features: layer.cond_mixlora_router_A["default"] for layer in layers(model)}
    assert all(layer.cond_mixlora_router_A["default"] is by_width[layer.in_features] for layer in layers(model))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len([key for key in saved if "_router_" in key]) == 2 * 3
    again = PeftModel.from_pretrained(build("llama"), tmp_path)
    assert torch.equal(logits(again, "llama"), logits(model, "llama"))
    assert len({p for name, p in again.named_parameters() if "_router_" in name}) == 2 * 3
    through_transformers = build("llama")
    through_transformers.load_adapter(str(tmp_path))
    assert torch.equal(logits(through_transformers.eval(), "llama"), logits(model, "llama"))


def test_layers_below_the_start_are_plain_lora():
    model = adapted("llama", mix_start_layer=1)
    for layer in layers(model):
        plain = ".layers.0." in layer.key
        assert layer.cond_mixlora_A["default"].weight.shape[0] == (2 if plain else 6)
        assert ("default" in layer.cond_mixlora_router_A) != plain


def test_default_targets_spare_the_vision_tower():
    names = set(adapted("llava").base_model.targeted_module_names)
    assert len(names) == 14
    assert all("language_model" in name for name in names)
    assert len(adapted("llama").base_model.targeted_module_names) == 14
    layer = layers(get_peft_model(build("llava"), configure("llava", target_modules="all-linear")))
    assert {item.reads_text for item in layer if "vision_tower" in item.key} == {False}
    assert {item.reads_text for item in layer if "language_model" in item.key} == {True}


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_merging_is_refused_with_the_reason():
    model = adapted("llama")
    for attempt in (model.merge_adapter, model.merge_and_unload, layers(model)[0].merge, layers(model)[0].unmerge):
        with pytest.raises(ValueError, match="every instance selects its own update"):
            attempt()
    assert not model.supports_lora_conversion()
    assert torch.equal(logits(model, "llama"), logits(adapted("llama"), "llama"))


def test_adapter_names_are_refused():
    with pytest.raises(ValueError, match="does not take adapter_names"):
        logits(adapted("llama"), "llama", adapter_names=["default"] * 3)


def test_what_cannot_be_adapted_is_named():
    class Quantised(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)

    class Owner(nn.Module):
        def __init__(self, child):
            super().__init__()
            self.child = child

    for child, target, message in (
        (Quantised(), "child", "is quantised"),
        (nn.Embedding(4, 4), "child", "Name linear layers"),
        (nn.MultiheadAttention(4, 2), "out_proj", "without calling it"),
    ):
        with pytest.raises(ValueError, match=message):
            get_peft_model(Owner(child), configure("", target_modules=[target]))
    lora = get_peft_model(Owner(nn.Linear(4, 4)), peft.LoraConfig(target_modules=["child"]))
    with pytest.raises(ValueError, match="adapter of another kind"):
        get_peft_model(lora, configure("", target_modules=["child"]))


def test_encoder_decoder_models_need_unambiguous_routing():
    config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=20, decoder_start_token_id=0)
    with pytest.raises(ValueError, match='router_pool="all"'):
        get_peft_model(T5ForConditionalGeneration(config), configure("", target_modules=["q", "v"]))
    options = {"router_pool": "all", "decode_routing": "per_token", "target_modules": ["q", "v"]}
    model = get_peft_model(T5ForConditionalGeneration(config), configure("", **options))
    ids = torch.randint(1, 20, (2, 5))
    model(input_ids=ids, labels=ids[:, :3].contiguous()).loss.backward()
    assert model.generate(input_ids=ids, max_new_tokens=3).shape[0] == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "r=0 must be at least 1"),
        ({"r": 5, "num_experts": 4}, "num_experts=4 must be at least r=5"),
        ({"lora_alpha": 0}, "lora_alpha=0 must be positive"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"routing": "inpt"}, "routing='inpt' must be one of: input_lora_a_param, input,"),
        ({"cfs_mode": "x"}, "contraction, separable"),
        ({"router_gradient": "x"}, "straight_through, scored, none"),
        ({"router_pool": "x"}, "prompt, mask, all, first"),
        ({"decode_routing": "x"}, "prefill, per_token"),
        ({"bias": "lora_only"}, "mixlora_only"),
        ({"router_noise": -1.0}, "router_noise=-1.0"),
        ({"target_modules": "q.*", "layers_to_transform": [0]}, "write the indices"),
        ({"layers_pattern": "layers"}, "needs layers_to_transform"),
        ({"share_routers": True, "routing": "random"}, "has no router"),
    ],
)
def test_wrong_settings_name_field_and_remedy(fields, message):
    with pytest.raises(ValueError, match=message):
        fusionzoo.MixLoraConfig(**fields)


# ---- registration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        "import fusionzoo, sys; assert 'peft' not in sys.modules; import peft",
        "from fusionzoo import MixLoraConfig; MixLoraConfig()",
    ],
)
def test_any_order_of_imports(first):
    """PEFT finds our type, and importing us does not import PEFT. (In this process PEFT came first.)"""
    code = f"{first}\nfrom peft.mapping import *\nprint(PEFT_TYPE_TO_TUNER_MAPPING['COND_MIXLORA'].__name__)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["MixLoraModel"], done.stderr[-2000:]


def test_status_and_type():
    status = adapted("llama").get_model_status()
    assert status.peft_types == {"default": "COND_MIXLORA"}
    assert status.adapter_model_type == "MixLoraModel"
    assert isinstance(adapted("llama").get_base_model(), LlamaForCausalLM)


def test_the_example_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (Path(__file__).resolve().parents[2] / "docs" / "mixlora.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    ids = names["ids"]
    with torch.no_grad():
        assert names["again"](input_ids=ids).logits.shape == (4, 12, 100)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
