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
"""The README's Python examples run as they stand, with tiny local folders in place of Hub ids, and its commands exist."""

import re
from pathlib import Path

import pytest
from fixtures_tiny import tiny_mope_config, tiny_processor, tiny_text_config, tiny_tokenizer, tiny_vision_config
from PIL import Image
from transformers import AutoConfig, AutoModel
from typer.testing import CliRunner

import fusionzoo
from fusionzoo.cli import app


ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """The folder of a finished demo, and a pair of towers; the working directory is where they lie."""
    monkeypatch.chdir(tmp_path)
    fusionzoo.MopeForSequenceClassification(tiny_mope_config(num_labels=3)).save_pretrained("runs/demo/fused")
    tiny_processor().save_pretrained("runs/demo/fused")
    for name, config in (("swin", tiny_vision_config("swin")), ("bert", tiny_text_config())):
        AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(name)
    tiny_tokenizer().save_pretrained("bert")
    tiny_processor().image_processor.save_pretrained("swin")
    return {"microsoft/swin-base-patch4-window7-224-in22k": "swin", "google-bert/bert-base-uncased": "bert"}


def test_python_examples_run(stand_ins):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 5
    rows = [{"id": str(n), "image": Image.new("RGB", (40, 40)), "text": "a cat", "label": n % 3} for n in range(4)]
    text_tower = AutoModel.from_config(AutoConfig.for_model(**tiny_text_config()))
    names = {
        "any_model": text_tower,
        "picture": rows[0]["image"],
        "spec": fusionzoo.get_dataset_spec("demo:memes"),
        "data": {"train": rows},
    }
    results = []
    for block in blocks:
        code = block
        for hub_id, folder in stand_ins.items():
            code = code.replace(hub_id, folder)
        exec(compile(code, "README.md", "exec"), names)
        results.append(dict(names))
    assert results[0]["model"].config.model_type == "fz_mope"
    assert results[2]["model"].config.vision_config.model_type == "swin"
    assert any("mixlora" in name for name, _ in names["lora"].named_parameters())
    assert names["half"].table(names["data"]["test"]["id"]).tolist().count(2) == len(names["data"]["test"]) // 2


def test_commands_exist():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^fusionzoo (\w+)", README, flags=re.MULTILINE))
    assert named == known
    for command in sorted(named):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make (\w+)", README)) | {"typecheck"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
