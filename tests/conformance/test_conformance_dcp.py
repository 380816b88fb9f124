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
"""transformers' own test-suite on DCP (with unfrozen and frozen CLIP towers) and MMP."""

import tempfile
import unittest
from pathlib import Path

import pytest
import torch
from conformance.transformers_suite import Exclusion, exclude, keep_only, know_model, load_suite
from fixtures_tiny import tiny_dcp_config, tiny_image_processor, tiny_mmp_config, tiny_tokenizer
from safetensors.torch import load_file
from transformers import ViltImageProcessor

from fusionzoo import (
    DcpConfig,
    DcpForSequenceClassification,
    DcpModel,
    DcpProcessor,
    MmpConfig,
    MmpForSequenceClassification,
    MmpModel,
    MmpProcessor,
)


pytestmark = pytest.mark.conformance

suite = load_suite()
know_model(suite, "fz_dcp", DcpModel, DcpForSequenceClassification)
know_model(suite, "fz_mmp", MmpModel, MmpForSequenceClassification)

NO_STATES = "the fused model returns features, not the hidden states and attentions of its towers"
EXCLUSIONS = (
    Exclusion("test_attention_outputs", NO_STATES),
    Exclusion("test_hidden_states_output", NO_STATES),
    Exclusion("test_retain_grad_hidden_states_attentions", NO_STATES),
    Exclusion(
        "test_eager_matches_sdpa_inference_*",
        "compares hidden states; the *AttentionTest classes below run it on the classifier, where it compares logits",
    ),
    Exclusion(
        "test_reverse_loading_mapping",
        "we save the module's own names on purpose (save_original_format=False); see test_saved_names",
    ),
)


CLIP_EXCLUSIONS = (
    *EXCLUSIONS,
    Exclusion(
        "test_can_init_all_missing_weights",
        "transformers skips modules without parameters of their own when code outside of it initialises, so CLIP's "
        "layers on the meta device; a tower in memory initialises itself",
    ),
)
VILT_EXCLUSIONS = (
    *EXCLUSIONS,
    Exclusion("test_can_init_all_missing_weights", "ViLT leaves its [CLS] token and its positions as constructed"),
    Exclusion(
        "test_training_gradient_checkpointing*",
        "counts hooks on the first layer, but ViLT's layers are run by our own function; the matrix checks the gradients",
    ),
)


class Tester:
    """What the mixins want to know about a tiny model."""

    __test__ = False
    batch_size = 3
    text_length = 7
    is_training = True

    def __init__(self, parent, make_config, num_tokens, hidden_size):
        self.parent, self.get_config = parent, make_config
        self.seq_length = self.encoder_seq_length = self.key_length = num_tokens
        self.hidden_size, self.num_attention_heads, self.num_hidden_layers = hidden_size, 4, 2

    def prepare_config_and_inputs_for_common(self):
        input_ids = torch.randint(5, 100, (self.batch_size, self.text_length))
        inputs = {
            "pixel_values": torch.rand(self.batch_size, 3, 32, 32),
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
        }
        return self.get_config(), inputs


class ModelTests(suite.modeling.ModelTesterMixin):
    additional_model_inputs = ["pixel_values", "input_ids", "attention_mask"]
    _is_composite = True
    test_mismatched_shapes = False  # feeds input_ids alone

    def setUp(self):
        self.model_tester = Tester(self, self.make_config, self.num_tokens, self.hidden_size)
        self.config_tester = suite.configuration.ConfigTester(
            self, config_class=self.config_class, has_text_modality=False
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_saved_names(self):
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                saved = load_file(Path(folder, "model.safetensors"))
            assert set(saved) == set(model.state_dict())


class DcpTests(ModelTests):
    all_model_classes = (DcpModel, DcpForSequenceClassification)
    config_class = DcpConfig
    num_tokens, hidden_size = 6 + 1 + 16, 32

    def make_config(self):
        return tiny_dcp_config("clip", "clip", num_labels=3, freeze_backbone=self.frozen)


@exclude(*CLIP_EXCLUSIONS)
class DcpTest(DcpTests, unittest.TestCase):
    frozen = False


@exclude(*CLIP_EXCLUSIONS)
class DcpFrozenTest(DcpTests, unittest.TestCase):
    frozen = True


@keep_only("test_eager_matches_sdpa_inference")
class DcpAttentionTest(DcpTests, unittest.TestCase):
    all_model_classes = (DcpForSequenceClassification,)
    frozen = True


class MmpTests(ModelTests):
    all_model_classes = (MmpModel, MmpForSequenceClassification)
    config_class = MmpConfig
    num_tokens, hidden_size = 2 * 6 + 7 + 5, 24

    def make_config(self):
        return tiny_mmp_config(num_labels=3, prompt_type=self.prompt_type, freeze_backbone=False)


@exclude(*VILT_EXCLUSIONS)
class MmpInputTest(MmpTests, unittest.TestCase):
    prompt_type = "input"


@exclude(*VILT_EXCLUSIONS)
class MmpAttentionPromptsTest(MmpTests, unittest.TestCase):
    prompt_type = "attention"


@keep_only("test_eager_matches_sdpa_inference")
class MmpAttentionTest(MmpTests, unittest.TestCase):
    all_model_classes = (MmpForSequenceClassification,)
    prompt_type = "input"


class DcpProcessorTest(suite.processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = DcpProcessor

    @staticmethod
    def prepare_processor_dict():
        return {"pad_to_max_length": False}

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer(model_max_length=512)

    @classmethod
    def _setup_image_processor(cls):
        return tiny_image_processor(32, backend="torchvision")


class MmpProcessorTest(suite.processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = MmpProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer(model_max_length=512)

    @classmethod
    def _setup_image_processor(cls):
        return ViltImageProcessor(size={"shortest_edge": 288})  # the suite's pictures are 13 times as wide as high
