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
"""Times MixLoRA beside PEFT's LoRA of equal rank: one linear layer in several shapes, and a small language model.

    python benchmarks/mixlora.py [--device cpu] [--dtype float32] [--rounds 11] [--sizes cpu|gpu] [--wall]

The rivals take turns, round by round, so that a drifting machine is fair to all, and each round gives a ratio to LoRA;
the median of these ratios is quoted. On the CPU it is the time of one thread that counts, not the clock on the wall,
because other processes may share the machine. "saved" is what autograd keeps from the forward for the backward pass,
parameters left out.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import peft
import torch
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fusionzoo import MixLoraConfig


RESULTS = Path(__file__).resolve().parent / "results"
RANK, EXPERTS = 4, 16
# batch, positions, in, out
LAYERS = {
    "cpu": [(4, 128, 512, 512), (4, 128, 512, 1376), (8, 256, 1024, 1024), (16, 64, 768, 3072)],
    "gpu": [(16, 512, 4096, 4096), (16, 512, 4096, 11008), (16, 512, 11008, 4096)],
}
DECODERS = {
    "cpu": {"batch": 4, "positions": 128, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4},
    "gpu": {"batch": 8, "positions": 512, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 8},
}


def _rivals() -> dict[str, Callable[[list[str]], peft.PeftConfig | None]]:
    def mixlora(**fields) -> Callable[[list[str]], MixLoraConfig]:
        return lambda targets: MixLoraConfig(
            r=RANK, num_experts=EXPERTS, lora_dropout=0.0, init_weights=False, target_modules=targets, **fields
        )

    return {
        "frozen": lambda targets: None,
        "lora": lambda targets: peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=targets, init_lora_weights=False),
        "mixlora": mixlora(),
        "mixlora scored": mixlora(router_gradient="scored"),
        "mixlora ifs": mixlora(routing="input"),
        "mixlora frozen routers": mixlora(router_gradient="none"),
    }


class _Layer(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear = nn.Linear(width, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def _adapt(base: nn.Module, config: peft.PeftConfig | None) -> nn.Module:
    return base.requires_grad_(False) if config is None else peft.get_peft_model(base, config)


def _saved_bytes(step: Callable[[], torch.Tensor], model: nn.Module) -> int:
    """Bytes of all storages that the forward saves for its backward, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = step()
    del output
    return sum(storages.values())


def _clock(arguments: argparse.Namespace) -> Callable[[], float]:
    if arguments.device != "cpu":

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    return time.perf_counter if arguments.wall else time.process_time


def _measure(models: dict[str, nn.Module], run: Callable, arguments: argparse.Namespace) -> dict[str, dict]:
    """Median milliseconds and median ratios to LoRA, forward and forward + backward."""
    clock = _clock(arguments)
    seconds: dict[str, dict[str, list[float]]] = {name: {"forward": [], "training": []} for name in models}
    for number in range(arguments.rounds + 2):
        for name, model in models.items():
            start = clock()
            with torch.no_grad():
                run(model)
            middle = clock()
            run(model).float().square().mean().backward()
            end = clock()
            model.zero_grad()
            if number >= 2:  # two rounds of warming up
                seconds[name]["forward"].append(middle - start)
                seconds[name]["training"].append(end - middle)
    found: dict[str, dict] = {}
    for name, times in seconds.items():
        found[name] = {}
        for kind, values in times.items():
            ratios = [own / lora for own, lora in zip(values, seconds["lora"][kind])]
            found[name][f"{kind}_ms"] = round(1e3 * statistics.median(values), 3)
            found[name][f"{kind}_over_lora"] = round(statistics.median(ratios), 3)
            quartiles = statistics.quantiles(ratios, n=4)
            found[name][f"{kind}_over_lora_quartiles"] = [round(quartiles[0], 3), round(quartiles[2], 3)]
    saved = {name: _saved_bytes(lambda model=model: run(model), model) for name, model in models.items()}
    for name, size in saved.items():
        found[name]["saved_mb"] = round(size / 1e6, 3)
        found[name]["saved_over_lora"] = round(size / saved["lora"], 3)
    return found


def benchmark(arguments: argparse.Namespace) -> dict:
    place = {"device": arguments.device, "dtype": getattr(torch, arguments.dtype)}
    results = {}
    for batch, positions, width, out in LAYERS[arguments.sizes]:
        models = {}
        for name, configure in _rivals().items():
            torch.manual_seed(0)
            models[name] = _adapt(_Layer(width, out), configure(["linear"])).to(**place).train()
        x = torch.randn(batch, positions, width, **place, requires_grad=True)
        label = f"linear {width}->{out}, batch {batch} x {positions}"
        results[label] = _measure(models, lambda model, x=x: model(x), arguments)
        _show(label, results[label])
    sizes = dict(DECODERS[arguments.sizes])
    batch, positions = sizes.pop("batch"), sizes.pop("positions")
    config = LlamaConfig(**sizes, num_attention_heads=sizes["hidden_size"] // 64, vocab_size=1000)
    models = {}
    for name, configure in _rivals().items():
        torch.manual_seed(0)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        models[name] = _adapt(LlamaForCausalLM(config), configure(targets)).to(**place).train()
    embeddings = torch.randn(batch, positions, sizes["hidden_size"], **place, requires_grad=True)
    mask = torch.ones(batch, positions, dtype=torch.long, device=arguments.device)
    mask[::2, -positions // 4 :] = 0
    label = f"Llama, {sizes['num_hidden_layers']} layers of {sizes['hidden_size']}, batch {batch} x {positions}"
    run = lambda model: model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits  # noqa: E731
    results[label] = _measure(models, run, arguments)
    _show(label, results[label])
    return results


def _show(label: str, rows: dict[str, dict]) -> None:
    print(f"\n{label}\n{'':<26}{'forward':>18}{'forward + backward':>22}{'saved':>10}")
    for name, row in rows.items():
        print(
            f"  {name:<24}{row['forward_ms']:>9.2f} ms {row['forward_over_lora']:.2f}x"
            f"{row['training_ms']:>13.2f} ms {row['training_over_lora']:.2f}x{row['saved_over_lora']:>9.2f}x"
        )


def _machine(arguments: argparse.Namespace) -> dict:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    device = processor if arguments.device == "cpu" else torch.cuda.get_device_name()
    return {
        "device": device, "dtype": arguments.dtype, "threads": torch.get_num_threads(), "rounds": arguments.rounds,
        "clock": "wall" if arguments.wall or arguments.device != "cpu" else "processor time",
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "peft": peft.__version__, "rank": RANK, "experts": EXPERTS,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--sizes", default="cpu", choices=sorted(LAYERS))
    parser.add_argument("--wall", action="store_true", help="wall clock instead of processor time")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    results = benchmark(arguments)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"mixlora_{arguments.device if arguments.device == 'cpu' else 'gpu'}.json"
    file.write_text(
        json.dumps({"machine": _machine(arguments), "results": results}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"\nwritten to {file}")


if __name__ == "__main__":
    main()
