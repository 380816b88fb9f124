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
"""Times MoPE's training step and inference beside what users would pick instead, on the same towers in the same run.

    python benchmarks/mope.py [--size cpu-small|dinov2-s|paper] [--device cpu] [--dtype float32] [--rounds 7]

The rivals take turns, round by round, so that a drifting machine is fair to all; the median of the rounds is quoted as
a ratio to the frozen towers with linear heads, the least that any method on these towers can cost. "Training step" is
forward and backward without the optimizer. Weights are random: they do not change the time.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import peft
import torch
import transformers

from fusionzoo import MopeConfig, MopeForSequenceClassification


RESULTS = Path(__file__).resolve().parent / "results"
SIZES = {
    "cpu-small": {
        "batch": 4, "tokens": 32, "image": 224,
        "vision": {"model_type": "swin", "embed_dim": 32, "depths": [2, 2, 6, 2], "num_heads": [1, 2, 4, 8]},
        "text": {"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2,
                 "intermediate_size": 512},
    },
    "dinov2-s": {
        "batch": 16, "tokens": 16, "image": 84,
        "vision": {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "patch_size": 14,
                   "image_size": 518},
        "text": {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
                 "intermediate_size": 1536},
    },
    "paper": {
        "batch": 16, "tokens": 64, "image": 224,
        "vision": {"model_type": "swin", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
        "text": {"model_type": "bert"},
    },
}  # fmt: skip
LORA_TARGETS = ["q_proj", "v_proj", "query", "value"]


def build(rival: str, size: dict) -> torch.nn.Module:
    config = MopeConfig(
        vision_config=dict(size["vision"]),
        text_config=dict(size["text"]),
        num_labels=23,
        problem_type="single_label_classification",
        fuse_method="mope" if rival.startswith("mope") else "late_concat",
        freeze_backbone=rival != "fine-tuning",
        **({} if rival.startswith("mope") else {"prompt_length": 0, "text_prompt_length": 0, "text_pooling": "cls"}),
    )
    implementation = "eager" if rival.endswith("eager") else "sdpa"
    model = MopeForSequenceClassification._from_config(config, attn_implementation=implementation)
    if rival == "peft LoRA r=4":
        lora = peft.LoraConfig(r=4, target_modules=LORA_TARGETS, modules_to_save=["classifier"])
        model = peft.get_peft_model(model, lora)
    return model


RIVALS = ("frozen towers, linear head", "mope", "mope, eager", "peft LoRA r=4", "fine-tuning")


def measure(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def run(size_name: str, device: str, dtype: str, rounds: int) -> dict:
    size = SIZES[size_name]
    torch.manual_seed(0)
    batch = {
        "pixel_values": torch.randn(size["batch"], 3, size["image"], size["image"], dtype=getattr(torch, dtype)),
        "input_ids": torch.randint(5, 1000, (size["batch"], size["tokens"])),
        "attention_mask": torch.ones(size["batch"], size["tokens"], dtype=torch.long),
    }
    labels = torch.randint(0, 23, (size["batch"],))
    batch, labels = {name: value.to(device) for name, value in batch.items()}, labels.to(device)
    models = {rival: build(rival, size).to(device, getattr(torch, dtype)) for rival in RIVALS}
    seconds: dict[str, dict[str, list[float]]] = {rival: {"train": [], "eval": []} for rival in RIVALS}
    memory: dict[str, float] = {}

    def train_step(model: torch.nn.Module) -> None:
        model(**batch, labels=labels).loss.backward()

    @torch.inference_mode()
    def eval_step(model: torch.nn.Module) -> None:
        model(**batch)

    for number in range(rounds + 1):  # the first round warms up
        for rival, model in models.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            model.train()
            taken = {"train": measure(lambda model=model: train_step(model), device)}
            if device == "cuda":
                memory[rival] = torch.cuda.max_memory_allocated() / 2**20
            model.zero_grad(set_to_none=True)
            model.eval()
            taken["eval"] = measure(lambda model=model: eval_step(model), device)
            if number:
                for kind, value in taken.items():
                    seconds[rival][kind].append(value)

    base = seconds[RIVALS[0]]
    rows = {
        rival: {
            "trainable_parameters": sum(p.numel() for p in models[rival].parameters() if p.requires_grad),
            **{f"{kind}_seconds": round(statistics.median(values), 4) for kind, values in taken.items()},
            **{
                f"{kind}_ratio": round(statistics.median(a / b for a, b in zip(taken[kind], base[kind])), 2)
                for kind in taken
            },
            **({"train_peak_mib": round(memory[rival])} if rival in memory else {}),
        }
        for rival, taken in seconds.items()
    }
    return {
        "size": size_name,
        "shapes": {key: value for key, value in size.items() if key not in ("vision", "text")},
        "towers": {"vision": size["vision"], "text": size["text"]},
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {_cpu()}",
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "rounds": rounds,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "process_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rivals": rows,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), action="append", help="default: the two CPU sizes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for name in arguments.size or ["cpu-small", "dinov2-s"]:
        result = run(name, arguments.device, arguments.dtype, arguments.rounds)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"mope_{name}_{arguments.device}_{arguments.dtype}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name} on {result['device']}")
        for rival, row in result["rivals"].items():
            print(f"  {rival:28} train x{row['train_ratio']:<6} eval x{row['eval_ratio']:<6} {row['train_seconds']} s")


if __name__ == "__main__":
    main()
