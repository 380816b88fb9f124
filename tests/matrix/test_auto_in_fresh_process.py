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
"""The Auto classes know our models after `import fusionzoo`, whatever was imported before, in a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import ROWS
from safetensors.torch import load_file, save_file


ORDERS = {
    "fusionzoo first": "import fusionzoo",
    "a model of transformers first": "from transformers import BertModel\nimport fusionzoo",
    "the lazy names, and twice": "import transformers, fusionzoo.auto\nfusionzoo.MopeConfig\nfusionzoo.auto.register()",
}
CHECK = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor, BertConfig
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
assert type(config) is fusionzoo.MopeConfig, type(config)
assert type(AutoConfig.for_model("fz_mope")) is fusionzoo.MopeConfig
assert type(AutoProcessor.from_pretrained(folder)) is fusionzoo.MopeProcessor
model = AutoModelForSequenceClassification.from_pretrained(folder)
assert type(model) is fusionzoo.MopeForSequenceClassification, type(model)
assert type(AutoModel.from_config(config)) is fusionzoo.MopeModel
assert type(AutoModel.from_config(BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1))).__name__ == "BertModel"
logits = model(**load_file(f"{folder}/inputs.safetensors")).logits
save_file({"logits": logits.detach()}, sys.argv[2])
"""


def run(code: str, *arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    """All orders at once, to use both cores: name to (exit code, output, file with logits), and what they should be."""
    folder, row = tmp_path_factory.mktemp("saved"), ROWS[0]
    model, inputs = row.model(), row.inputs()
    model.save_pretrained(folder)
    row.make_processor().save_pretrained(folder)
    save_file(inputs, folder / "inputs.safetensors")
    files = {name: folder / f"{index}.safetensors" for index, name in enumerate(ORDERS)}
    running = {name: run(start + CHECK, folder, files[name]) for name, start in ORDERS.items()}
    finished = {}
    for name, process in running.items():
        output, _ = process.communicate(timeout=200)
        finished[name] = process.returncode, output, files[name]
    with torch.no_grad():
        return finished, model(**inputs).logits


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_in_a_fresh_process(order: str, results):
    code, output, file = results[0][order]
    assert code == 0, output
    assert "[ERROR]" not in output  # auto_docstring complains there about undocumented fields
    torch.testing.assert_close(load_file(file)["logits"], results[1], atol=1e-6, rtol=0)


def test_import_is_light():
    code = (
        "import sys, time\nimport fusionzoo\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    process = run(f"{code}\nassert time.process_time() < 1, time.process_time()")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
