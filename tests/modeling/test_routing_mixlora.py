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
"""The mathematics of MixLoRA: against formulas written out sample by sample, and from the prompt through decoding."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fixtures_tuner import IMAGE_TOKEN, build, configure, inputs
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, LlavaForConditionalGeneration

from fusionzoo.modeling import convert_mixlora
from fusionzoo.modeling.mixlora_context import attended_positions


CASES = Path(__file__).resolve().parents[1] / "golden" / "cases" / "mixlora"
ROUTINGS = ("input_lora_a_param", "input", "shared", "input_lora_a_choice", "b_only", "plain")


class Layer(nn.Module):
    """A model that is one linear layer, with the arguments that the routing reads."""

    def __init__(self, width=10, out=7):
        super().__init__()
        self.linear = nn.Linear(width, out)

    def can_generate(self):
        return True

    def forward(self, hidden, attention_mask=None, labels=None, past_key_values=None):
        return self.linear(hidden)


def layer_model(seed=0, width=10, out=7, **fields):
    torch.manual_seed(seed)
    return get_peft_model(Layer(width, out), configure("", target_modules=["linear"], **fields)).eval()


def parts(model) -> dict[str, torch.Tensor]:
    """The adapter's weights in float64, by short name."""
    layer = model.base_model.model.linear
    named = {
        name.removeprefix("cond_mixlora_"): getattr(layer, name)
        for name in layer.adapter_layer_names
        if "default" in getattr(layer, name)
    }
    return {name: bank["default"].weight.detach().double() for name, bank in named.items()}


def routed_by_hand(p, weights, config) -> tuple[list[int], list[int], torch.Tensor, torch.Tensor]:
    """One instance, in loops: I, J, and the probabilities of A's and B's experts."""
    experts, r = config.num_experts, config.r
    probabilities_a = torch.ones(experts, dtype=torch.double)
    if config.routing == "b_only":
        chosen_a = list(range(r))
    else:
        logits = torch.stack([p @ weights["router_A"][e] for e in range(experts)])
        probabilities_a = logits.softmax(0)
        chosen_a = logits.argsort(descending=True)[:r].tolist()
    if config.routing == "shared":
        return chosen_a, chosen_a, probabilities_a, torch.ones(experts, dtype=torch.double)
    logits = torch.stack([p @ weights["router_B"][e] for e in range(experts)])
    probabilities_b = logits.softmax(0)
    if config.routing.startswith("input_lora_a"):
        if config.routing == "input_lora_a_choice":
            mean = sum(weights["choice_embedding"][e] for e in chosen_a) / r
            second = weights["router_choice"] @ mean
        else:
            slices = weights["router_AB"].reshape(experts, r, -1)
            second = torch.zeros(experts, dtype=torch.double)
            for k, e in enumerate(chosen_a):
                factor = weights["A"][e]
                if config.cfs_mode == "separable":
                    z = torch.stack([factor.sum() * slices[f, k].sum() for f in range(experts)])
                else:
                    z = torch.stack([(factor * slices[f, k]).sum() for f in range(experts)])
                second += z.softmax(0)
        probabilities_b = probabilities_b + config.cfs_weight * second.softmax(0)
        chosen_b = probabilities_b.argsort(descending=True)[:r].tolist()
        return chosen_a, chosen_b, probabilities_a, probabilities_b / (1 + config.cfs_weight)
    chosen_b = logits.argsort(descending=True)[:r].tolist()
    return chosen_a, chosen_b, probabilities_a, probabilities_b


def dense_forward(model, x, mask=None) -> torch.Tensor:
    """Per instance: the whole weight `W + s sum_k w_k b_k a_k^T`, in float64."""
    config, weights = model.peft_config["default"], parts(model)
    base = model.base_model.model.linear.base_layer
    rows = []
    for b, tokens in enumerate(x.double()):
        pooled = tokens[mask[b].bool()].mean(0) if mask is not None else tokens.mean(0)
        update = torch.zeros_like(base.weight, dtype=torch.double)
        if config.routing == "plain":
            update = weights["B"].T @ weights["A"]
        else:
            chosen_a, chosen_b, p_a, p_b = routed_by_hand(pooled, weights, config)
            for e, f in zip(chosen_a, chosen_b):
                gain = 1.0
                if config.router_gradient == "scored":
                    if config.routing != "b_only":
                        gain *= config.r * p_a[e] / sum(p_a[i] for i in chosen_a)
                    if config.routing != "shared":
                        gain *= config.r * p_b[f] / sum(p_b[j] for j in chosen_b)
                update += gain * torch.outer(weights["B"][f], weights["A"][e])
        rows.append(tokens @ (base.weight.double() + config.scaling * update).T + base.bias.double())
    return torch.stack(rows)


# ---- one layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["straight_through", "scored"])
@pytest.mark.parametrize("mode", ["contraction", "separable"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_forward_is_the_dense_formula(routing, mode, gradient):
    options = {"routing": routing, "cfs_mode": mode, "router_gradient": gradient, "r": 3, "cfs_weight": 0.7}
    model = layer_model(**options)
    x = torch.randn(5, 6, 10)
    torch.testing.assert_close(model(x).double(), dense_forward(model, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "indices", "mean_square"),
    [("linear_cfs_e6_r3_w05_bias", [[1, 2, 5], [0, 4, 1], [3, 0, 1], [3, 0, 1]], 8.635954)],
)
def test_contraction_on_official_weights(case, indices, mean_square):
    """Values derived in float64 from the paper's formula; the official code computes another one."""
    options = json.loads((CASES / case / "config.json").read_text())
    state, x = load_file(CASES / case / "weights.safetensors"), load_file(CASES / case / "inputs.safetensors")["x"]
    model, _ = convert_mixlora.build_model(state, options, cfs_mode="contraction")
    assert abs(model(x).square().mean().item() - mean_square) < 1e-4
    assert model.base_model.selections()["linear"][1].tolist() == indices


@pytest.mark.parametrize("routing", [name for name in ROUTINGS if name != "plain"])
def test_router_gradients_are_those_of_the_probabilities(routing):
    """Against finite differences, in float64: with `straight_through` of the surrogate in which every term has the
    factor (1 + p_A - const)(1 + p_B - const), with `scored` of the function itself; the selection stays as it is."""
    for gradient in ("straight_through", "scored"):
        model = layer_model(routing=routing, router_gradient=gradient)
        config, layer = model.peft_config["default"], model.base_model.model.linear
        x = torch.randn(3, 4, 10)
        model(x).square().sum().backward()
        weights, base = parts(model), layer.base_layer
        fixed = [routed_by_hand(tokens.mean(0), weights, config) for tokens in x.double()]

        def surrogate(weights, x=x, fixed=fixed, config=config, base=base, gradient=gradient, factors=weights):
            total = 0.0
            for tokens, (chosen_a, chosen_b, then_a, then_b) in zip(x.double(), fixed):
                _, _, now_a, now_b = routed_by_hand(tokens.mean(0), weights, config)
                y = tokens @ base.weight.double().T + base.bias.double()
                for e, f in zip(chosen_a, chosen_b):
                    if gradient == "scored":
                        gain = now_a[e] / now_a[chosen_a].mean() * now_b[f] / now_b[chosen_b].mean()
                    else:
                        gain = (1 + now_a[e] - then_a[e]) * (1 + now_b[f] - then_b[f])
                    # The factors inside the conditional selection are constants for the routers' learning.
                    outer = torch.outer(factors["B"][f], factors["A"][e])
                    y = y + config.scaling * gain * tokens @ outer.T
                total = total + y.square().sum()
            return total

        checked = 0
        for name in weights:
            if not name.startswith(("router", "choice")):
                continue
            analytic = getattr(layer, f"cond_mixlora_{name}")["default"].weight.grad
            for index in [(0, 0), (2, 3), (5, 7), tuple(divmod(analytic.abs().argmax().item(), analytic.shape[1]))]:
                ends = []
                for step in (1e-6, -1e-6):
                    moved = {key: tensor.clone() for key, tensor in weights.items()}
                    moved[name][index] += step
                    ends.append(surrogate(moved).item())
                numeric = (ends[0] - ends[1]) / 2e-6
                assert analytic[index].item() == pytest.approx(numeric, rel=2e-3, abs=2e-3), (name, index)
            checked += bool(analytic.any())
        assert checked


def test_gradients_of_factors_do_not_depend_on_how_routers_learn():
    """The chosen factors inside the conditional selection are detached, and the forward is the same."""
    x, found = torch.randn(4, 5, 10), []
    for gradient in ("none", "straight_through"):
        model = layer_model(router_gradient=gradient)
        y = model(x)
        y.square().sum().backward()
        layer = model.base_model.model.linear
        found.append([y, *(getattr(layer, f"cond_mixlora_{side}")["default"].weight.grad for side in "AB")])
    assert torch.equal(found[0][0], found[1][0])
    for none, through in zip(*found):
        torch.testing.assert_close(none, through, atol=1e-5, rtol=1e-5)


def test_inputs_of_any_rank():
    model = layer_model()
    x = torch.randn(3, 2, 4, 10)
    expected = model(x.flatten(1, 2)).unflatten(1, (2, 4))
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x[:, 0, 0]), model(x[:, 0, :1])[:, 0])


def test_noise_only_in_training_and_random_routing():
    model, x = layer_model(router_noise=5.0), torch.randn(16, 4, 10)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
    model = layer_model(routing="random")
    assert not torch.equal(model(x), model(x))
    assert not [name for name, _ in model.named_parameters() if "_router_" in name]


class _Largest(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numel, self.calls = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self.calls += 1
        if isinstance(output, torch.Tensor):
            self.numel = max(self.numel, output.numel())
        return output


def test_no_weight_per_instance_and_no_loop():
    """Forward and backward make no tensor of batch x in x out, and the number of operations depends on neither the
    batch nor the experts."""
    calls = set()
    for batch, experts, r in ((4, 8, 2), (16, 32, 4)):
        model = layer_model(width=96, out=96, num_experts=experts, r=r, lora_alpha=2.0 * r).train()
        x = torch.randn(batch, 5, 96, requires_grad=True)
        with _Largest() as seen:
            model(x).sum().backward()
        assert seen.numel < batch * 96 * 96 / 2
        calls.add(seen.calls)
    assert len(calls) == 1


# ---- what is pooled -----------------------------------------------------------------------------------------------


def test_pools():
    x = torch.randn(3, 6, 10)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])
    labels = torch.tensor([[-100, -100, 5, 6, 7, 8], [-100, -100, -100, 5, -100, -100], [1, 2, 3, 4, 5, 6]])
    prompt = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]])  # no prompt: all attended
    first = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    for pool, pooled in (("prompt", prompt), ("mask", mask), ("all", None), ("first", first)):
        model = layer_model(router_pool=pool)
        found = model(x, attention_mask=mask, labels=labels)
        torch.testing.assert_close(found.double(), dense_forward(model, x, pooled), atol=1e-5, rtol=1e-5)
    model = layer_model(router_pool="prompt")
    for given, pooled in (({"labels": labels}, labels == -100), ({"attention_mask": mask}, mask), ({}, None)):
        if pooled is not None:
            pooled = torch.where(pooled.bool().any(1, keepdim=True), pooled.bool(), True)
        found = model(x, **given)
        torch.testing.assert_close(found.double(), dense_forward(model, x, pooled), atol=1e-5, rtol=1e-5)


def test_labels_that_are_no_answers_are_not_read():
    """Classes, multi-label targets of the mask's own shape, and labels of models that do not generate."""
    x, mask = torch.randn(3, 6, 10), torch.ones(3, 6, dtype=torch.long)
    model = layer_model()
    expected = model(x, attention_mask=mask)
    assert torch.equal(model(x, mask, torch.zeros(3, dtype=torch.long)), expected)
    assert torch.equal(model(x, mask, torch.full((3, 6), -100.0)), expected)
    model.base_model.context.generates = False
    labels = torch.tensor([[-100, 1, 1, 1, 1, 1]] * 3)
    assert torch.equal(model(x, mask, labels), expected)


def test_masks_of_other_shapes_do_not_broadcast():
    model, x = layer_model(), torch.randn(3, 6, 10)
    expected = model(x)
    for mask in (torch.tensor([[1, 0, 0, 0, 0, 0]]), torch.ones(3, 5), torch.ones(3, 1)):
        assert torch.equal(model(x, attention_mask=mask), expected)


def test_every_kind_of_mask():
    padding = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool()
    causal = (
        torch.ones(4, 6, dtype=torch.bool).tril() & torch.cat([padding, torch.zeros(2, 2)], 1).bool()[:, None, None]
    )
    added = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float).min)
    for mask in (padding, padding.long(), causal, added, {"sliding_attention": None, "full_attention": causal}):
        assert torch.equal(attended_positions(mask), padding)
    assert attended_positions(None) is None


@pytest.mark.parametrize("name", ["llama", "llava", "gpt2", "bert"])
def test_a_sample_does_not_depend_on_its_batch(name):
    model = get_peft_model(build(name), configure(name)).eval()
    batch = inputs(name, labels=False)
    with torch.no_grad():
        together = model(**batch).logits
        for row in range(3):
            length = batch["attention_mask"][row].sum()
            alone = {key: tensor[row : row + 1] for key, tensor in batch.items()}
            alone |= {key: tensor[:, :length] for key, tensor in alone.items() if tensor.dim() == 2}
            expected = model(**alone).logits[0]
            found = together[row][: len(expected)] if expected.dim() == 2 else together[row]
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


# ---- from the prompt through decoding -----------------------------------------------------------------------------


def _generate(model, rows, **options):
    return model.generate(**rows, do_sample=False, max_new_tokens=5, eos_token_id=None, pad_token_id=0, **options)[
        :, -5:
    ]


def _left_padded(name):
    """Three prompts of different lengths, and each alone."""
    batch = inputs(name, labels=False)
    alone = []
    for row, length in enumerate((9, 6, 7)):
        one = {key: tensor[row : row + 1] for key, tensor in batch.items()}
        one["input_ids"], one["attention_mask"] = one["input_ids"][:, :length], torch.ones(1, length).long()
        alone.append(one)
    padded = dict(batch)
    padded["input_ids"] = torch.cat(
        [nn.functional.pad(one["input_ids"], (9 - one["input_ids"].shape[1], 0)) for one in alone]
    )
    padded["attention_mask"] = torch.cat(
        [nn.functional.pad(one["attention_mask"], (9 - one["attention_mask"].shape[1], 0)) for one in alone]
    )
    return padded, alone


@pytest.mark.parametrize("gradient", ["straight_through", "scored"])
@pytest.mark.parametrize("name", ["llama", "llava"])
def test_generation_keeps_the_selection_of_the_prompt(name, gradient):
    model = get_peft_model(build(name), configure(name, router_gradient=gradient)).eval()
    padded, alone = _left_padded(name)
    expected = torch.cat([_generate(model, one) for one in alone])
    assert torch.equal(_generate(model, padded), expected)
    assert torch.equal(_generate(model, padded, use_cache=False), expected)
    assert torch.equal(_generate(model, padded, cache_implementation="static", disable_compile=True), expected)
    with torch.no_grad():
        first = model(**padded).logits
        assert torch.equal(model(**padded).logits, first)
    beams = torch.cat([_generate(model, one, num_beams=3) for one in alone])
    assert torch.equal(_generate(model, padded, num_beams=3), beams)
    routed_anew = get_peft_model(build(name), configure(name, decode_routing="per_token")).eval()
    routed_anew.load_state_dict(model.state_dict())
    assert not torch.equal(_generate(routed_anew, padded), expected)


def test_every_cache_keeps_its_own_prompt():
    """Two prompts decoded in turns by hand, without PEFT's wrapper."""
    base = build("llama")
    torch.manual_seed(1)
    base.add_adapter(configure("llama"))
    base.eval()
    prompts = inputs("llama", labels=False)["input_ids"]
    with torch.no_grad():
        expected = [_generate(base, {"input_ids": prompts[row : row + 1]}) for row in (0, 2)]
        states = []
        for row in (0, 2):
            output = base(prompts[row : row + 1])
            states.append((output.past_key_values, output.logits[:, -1:].argmax(-1)))
        found = [[states[0][1]], [states[1][1]]]
        for _ in range(4):
            for number, (cache, token) in enumerate(states):
                output = base(input_ids=token, past_key_values=cache)
                states[number] = (cache, output.logits[:, -1:].argmax(-1))
                found[number].append(states[number][1])
    for number in (0, 1):
        assert torch.equal(torch.cat(found[number], 1), expected[number])


def test_decoding_other_rows_is_refused():
    model, cache = layer_model(), DynamicCache()
    model(torch.randn(3, 6, 10), past_key_values=cache)
    cache.update(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), 0)
    with pytest.raises(ValueError, match="routed for a batch of 3, and 2 rows are decoded now"):
        model(torch.randn(2, 1, 10), past_key_values=cache)


# ---- official checkpoints -----------------------------------------------------------------------------------------


def test_an_official_folder_becomes_two_of_ours(tmp_path: Path):
    case, official = CASES / "llava_cfs_e6_r2", tmp_path / "official"
    official.mkdir()
    options = json.loads((case / "config.json").read_text())
    arguments = {name: options.pop(name) for name in ("cond_type", "n_experts", "lora_alpha", "ifs_weight")}
    arguments |= {"n_selected": options.pop("r"), "lora_dropout": 0.05, "mix_start_layer": 0, "mix_loraA": True}
    state = load_file(case / "weights.safetensors")
    torch.save(state, official / "pytorch_model.bin")
    torch.save(SimpleNamespace(**arguments), official / "cmoa_args.bin")
    (official / "config.json").write_text(json.dumps(options))
    convert_mixlora.main([str(official), str(tmp_path / "ours")])

    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours" / "base")
    model = PeftModel.from_pretrained(base, tmp_path / "ours" / "adapter").eval()
    assert model.peft_config["default"].cfs_mode == "separable"
    direct, report = convert_mixlora.build_model(state, {**options, **arguments})
    assert all("cmoa_attribute_encoder" in name for name in report["dropped"])
    ids = torch.tensor([[1, 40, 40, 40, 40, 5, 6]])  # 40: the row that the converter added for patches
    image = load_file(case / "inputs.safetensors")["images"][:1]
    with torch.no_grad():
        found = model(input_ids=ids, pixel_values=image).logits
        assert torch.equal(found, direct(input_ids=ids, pixel_values=image).logits)
    assert found.shape[-1] == 41
    assert 40 not in _generate(model, {"input_ids": ids, "pixel_values": image})
    assert IMAGE_TOKEN != 40

    (official / "cmoa_args.bin").unlink()
    with pytest.raises(ValueError, match=r"no cmoa_args\.bin"):
        convert_mixlora.read_checkpoint(official)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cond_type": "task_embed"}, "'task_embed' has no counterpart"),
        ({"used_scored_weight": True}, "used_scored_weight=True"),
        ({"cond_type": "input_lora_a_param", "independent_rank": False}, "independent_rank=False"),
        ({"cond_type": "input", "independent_rank": False, "mix_loraA": False}, "mix_loraA=False"),
    ],
)
def test_official_options_without_counterpart(options, message):
    with pytest.raises(ValueError, match=message):
        convert_mixlora.convert_config({"n_experts": 4, "r": 2, **options})


def test_weights_that_do_not_fit_their_options():
    options = json.loads((CASES / "linear_cfs_e6_r3_w05_bias" / "config.json").read_text())
    state = load_file(CASES / "linear_cfs_e6_r3_w05_bias" / "weights.safetensors")
    with pytest.raises(ValueError, match="does not fit its options"):
        convert_mixlora.build_model(state, {**options, "cond_type": "input"})
    with pytest.raises(ValueError, match="does not fit its options"):
        convert_mixlora.build_model(state, {**options, "cond_type": "input_lora_a_choice"})
