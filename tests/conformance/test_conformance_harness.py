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
"""The harness itself: it collects transformers' tests, a stock model passes them, and a broken model does not."""

import io
import tarfile
import unittest
from pathlib import Path

import pytest
import torch
from conformance.transformers_suite import load_suite, unpack_suite
from transformers import BertConfig, BertModel


pytestmark = pytest.mark.conformance

suite = load_suite()


class BertTester:
    """What the mixin wants to know about a tiny BERT."""

    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads = 3, 7, 16, 2, 2
    is_training = True

    def get_config(self):
        return BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
        )

    def prepare_config_and_inputs_for_common(self):
        input_ids = torch.randint(5, 30, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


class NoisyBert(BertModel):
    """Breaks determinism and save/load equality."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output["last_hidden_state"] = output["last_hidden_state"] + torch.rand(())
        return output


def run(model_class: type, names: list[str]) -> unittest.TestResult:
    """The named tests, or all, on a model class."""

    def set_up(self):
        self.model_tester = BertTester()

    bases = (suite.modeling.ModelTesterMixin, unittest.TestCase)
    body = {"all_model_classes": (model_class,), "setUp": set_up, "test_resize_embeddings": False}
    case = type("TinyBertTest", bases, body)
    result = unittest.TestResult()
    unittest.TestSuite(case(name) for name in names).run(result)
    return result


def test_the_suite_is_large():
    mixin = suite.modeling.ModelTesterMixin
    assert len([name for name in dir(mixin) if name.startswith("test_")]) > 80
    assert len([name for name in dir(suite.processing.ProcessorTesterMixin) if name.startswith("test_")]) > 30


def test_a_stock_model_passes():
    names = [
        "test_save_load",
        "test_model_outputs_equivalence",
        "test_can_be_initialized_on_meta",
        "test_batching_equivalence",
    ]
    result = run(BertModel, names)
    assert result.testsRun == len(names)
    assert not result.failures and not result.errors and not result.skipped


def test_a_broken_model_fails():
    result = run(NoisyBert, ["test_save_load", "test_model_outputs_equivalence", "test_can_be_initialized_on_meta"])
    failed = {case.id().rsplit(".", 1)[1] for case, _ in result.failures + result.errors}
    assert failed == {"test_save_load", "test_model_outputs_equivalence"}


def test_an_archive_without_tests_is_refused(tmp_path: Path):
    path = tmp_path / "transformers-0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        content = b"x = 1\n"
        entry = tarfile.TarInfo("transformers-0/src/x.py")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(RuntimeError, match="is it an sdist of transformers"):
        unpack_suite(path, tmp_path / "suite")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["transformers-0.tar.gz"]
