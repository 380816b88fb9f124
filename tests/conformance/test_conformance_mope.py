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
"""transformers' own tests on MoPE: model, configuration and processor."""

import tempfile
import unittest
from pathlib import Path

import pytest
import torch
from conformance.transformers_suite import Exclusion, exclude, keep_only, know_model, load_suite
from fixtures_tiny import tiny_image_processor, tiny_mope_config, tiny_tokenizer
from safetensors.torch import load_file

from fusionzoo import MopeConfig, MopeForSequenceClassification, MopeModel, MopeProcessor


pytestmark = pytest.mark.conformance

suite = load_suite()
know_model(suite, "fz_mope", MopeModel, MopeForSequenceClassification)

NO_STATES = "the fused model returns features, not the hidden states and attentions of its towers"
MODEL_EXCLUSIONS = (
    Exclusion("test_attention_outputs", NO_STATES),
    Exclusion("test_hidden_states_output", NO_STATES),
    Exclusion("test_retain_grad_hidden_states_attentions", NO_STATES),
    Exclusion(
        "test_eager_matches_sdpa_inference_*",
        "compares hidden states; the *AttentionTest classes below run it on the classifier, where it compares logits",
    ),
    Exclusion(
        "test_init_weights_can_init_buffers",
        "the routing keys are a random buffer by design, so two initialisations differ; see test_routing_keys",
    ),
    Exclusion(
        "test_reverse_loading_mapping",
        "we save the module's own names on purpose (save_original_format=False); see test_saved_names",
    ),
)
SWIN_EXCLUSIONS = (
    *MODEL_EXCLUSIONS,
    Exclusion(
        "test_training_gradient_checkpointing*",
        "counts hooks on the first layer, but Swin blocks with prompts are run by our own function; see "
        "test_checkpointing_keeps_gradients",
    ),
)


class MopeTester:
    """What the mixins want to know about a tiny MoPE.

    Args:
        parent: the test case.
        vision: tower, as in `fixtures_tiny`.
        freeze_backbone: as in the config; trained towers must have gradients in every parameter.
        num_tokens: tokens of the steered tower's sequence in the first layer, prompts included.
        hidden_size, num_attention_heads, num_hidden_layers: of the steered tower.
    """

    batch_size = 3
    text_length = 7
    is_training = True

    def __init__(
        self,
        parent,
        vision: str,
        freeze_backbone: bool,
        num_tokens: int,
        hidden_size: int,
        num_attention_heads: int,
        num_hidden_layers: int,
    ):
        self.parent, self.vision, self.freeze_backbone = parent, vision, freeze_backbone
        self.seq_length = self.encoder_seq_length = self.key_length = num_tokens
        self.hidden_size, self.num_attention_heads = hidden_size, num_attention_heads
        self.num_hidden_layers = num_hidden_layers

    def get_config(self):
        return tiny_mope_config(
            self.vision, prompt_length=2, text_prompt_length=2, num_experts=3, mapper_hidden_size=12,
            prompt_dropout=0.0, num_labels=3, freeze_backbone=self.freeze_backbone,
        )  # fmt: skip

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        input_ids = torch.randint(5, config.text_config.vocab_size, (self.batch_size, self.text_length))
        inputs = {
            "pixel_values": torch.rand(self.batch_size, 3, 32, 32),
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
        }
        return config, inputs


class MopeModelTests(suite.modeling.ModelTesterMixin):
    all_model_classes = (MopeModel, MopeForSequenceClassification)
    additional_model_inputs = ["pixel_values", "input_ids", "attention_mask"]
    _is_composite = True
    test_mismatched_shapes = False  # feeds input_ids alone

    def setUp(self):
        self.model_tester = MopeTester(self, **self.towers)
        self.config_tester = suite.configuration.ConfigTester(self, config_class=MopeConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_routing_keys(self):
        """The only buffers that are random; on the meta device too they become orthonormal."""
        with torch.device("meta"):
            model = MopeModel(self.model_tester.get_config())
        model.to_empty(device="cpu")
        model.init_weights()
        keys = {name: buffer for name, buffer in model.named_buffers() if name.endswith(".keys")}
        assert keys
        for buffer in keys.values():  # (blocks, dim, num_experts)
            gram = buffer.mT @ buffer if buffer.shape[-2] >= buffer.shape[-1] else buffer @ buffer.mT
            torch.testing.assert_close(gram, torch.eye(gram.shape[-1]).expand_as(gram), atol=1e-5, rtol=0)

    def test_saved_names(self):
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                saved = load_file(Path(folder, "model.safetensors"))
            assert set(saved) == set(model.state_dict())

    def test_checkpointing_keeps_gradients(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        inputs["labels"] = torch.tensor([0, 1, 2])
        inputs["router_noise"] = None
        config.router_noise_std = 0.0
        model = MopeForSequenceClassification(config).train()
        plain = self._gradients(model, inputs)
        for use_reentrant in (False, True):
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            checkpointed = self._gradients(model, inputs)
            assert set(plain) == set(checkpointed)
            for name, gradient in plain.items():
                torch.testing.assert_close(checkpointed[name], gradient, msg=name)

    @staticmethod
    def _gradients(model, inputs):
        model.zero_grad()
        model(**inputs).loss.backward()
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


class AttentionTests(MopeModelTests):
    """Only the comparison of attention implementations, on the classifier's logits."""

    all_model_classes = (MopeForSequenceClassification,)


VIT = {
    "vision": "vit", "freeze_backbone": False,
    "num_tokens": 1 + 5 + 16, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
}  # fmt: skip
SWIN = {
    "vision": "swin", "freeze_backbone": True,
    "num_tokens": 5 + 256, "hidden_size": 4, "num_attention_heads": 1, "num_hidden_layers": 2,
}  # fmt: skip


@exclude(*MODEL_EXCLUSIONS)
class MopeViTBertTest(MopeModelTests, unittest.TestCase):
    towers = VIT


@keep_only("test_eager_matches_sdpa_inference")
class MopeViTBertAttentionTest(AttentionTests, unittest.TestCase):
    towers = VIT


@exclude(*SWIN_EXCLUSIONS)
class MopeSwinBertTest(MopeModelTests, unittest.TestCase):
    towers = SWIN


@keep_only("test_eager_matches_sdpa_inference")
class MopeSwinBertAttentionTest(AttentionTests, unittest.TestCase):
    towers = SWIN


class MopeProcessorTest(suite.processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = MopeProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer(model_max_length=512)

    @classmethod
    def _setup_image_processor(cls):
        return tiny_image_processor(32, backend="torchvision")
