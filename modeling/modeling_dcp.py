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
"""DCP, Deep Correlated Prompting for visual recognition with missing modalities (https://arxiv.org/abs/2410.06558).

Two frozen towers, CLIP's in the paper, read a picture and a text of which either may be absent. Prompts that depend on
what is absent stand in front of both sequences (`prompts_dcp`):

    block 0             [R_0 ; C ; D ; X]      correlated, common and dynamic prompts, then the tokens
    block 1 <= j < J    the first K tokens are replaced by R_j
    feature             f = [image feature ; text feature], the half of an absent modality set to 0
    logits              f W^T + b

So the tower of an absent modality has no influence, and it is not run (`skip_absent_towers`).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_dcp import DcpConfig
from .base import FusionPreTrainedModel, build_tower
from .leading_prompts import (
    CLIP_TEXT,
    CLIP_VISION,
    embed_image,
    embed_text,
    final_norm,
    last_token_that_matters,
    pool_image,
    pool_text,
    run_with_leading_prompts,
)
from .missing_modality import MissingType, lacks
from .outputs import FusionClassifierOutput, FusionModelOutput
from .prompts_dcp import DcpDynamicPrompts, DcpPromptLearner


@auto_docstring
class DcpPreTrainedModel(FusionPreTrainedModel):
    config: DcpConfig
    base_model_prefix = "dcp"
    _no_split_modules = ["DcpPromptLearner", "DcpDynamicPrompts"]
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.prompt_initializer_range
        if isinstance(module, nn.Linear) and module is self._modules.get("classifier"):
            init.normal_(module.weight, std=self.config.classifier_initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5  # torch's default, which the official code keeps
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, DcpPromptLearner):
            for name in ("vision_prompts", "text_prompts", "common_prompts"):
                if hasattr(module, name):
                    init.normal_(getattr(module, name), std=std)
            for generators in (each for each in module.children() if isinstance(each, nn.ModuleList)):
                for generator in generators[1:]:  # all depths start alike
                    for parameter, first in zip(generator.parameters(), generators[0].parameters()):
                        init.copy_(parameter, first)
        elif isinstance(module, DcpDynamicPrompts):
            init.normal_(module.queries, std=std)
            bound = (6 / (4 * module.queries.shape[-1])) ** 0.5  # Xavier for query, key and value in one matrix
            for projection in (module.q_proj, module.k_proj, module.v_proj):
                init.uniform_(projection.weight, -bound, bound)
            for projection in (module.q_proj, module.v_proj, module.out_proj):
                init.zeros_(projection.bias)

    def trained_parts(self, name: str, tower: nn.Module) -> list[nn.Module]:
        norm = final_norm(tower) if self.config.train_final_norms else None
        return [] if norm is None else [norm]


@auto_docstring
class DcpModel(DcpPreTrainedModel):
    """Both towers with their prompts; gives the two features side by side."""

    def __init__(self, config: DcpConfig):
        super().__init__(config)
        self.vision_model = build_tower(config.vision_config)
        self.text_model = build_tower(config.text_config)
        sizes, widths = config.feature_sizes, config.widths
        self.visual_projection = self.text_projection = None
        if config.vision_config.model_type == CLIP_VISION:
            self.visual_projection = nn.Linear(widths["vision"], sizes["vision"], bias=False)
        if config.text_config.model_type == CLIP_TEXT:
            self.text_projection = nn.Linear(widths["text"], sizes["text"], bias=False)
        self.prompt_learner = DcpPromptLearner(config)
        self.dynamic_prompts = nn.ModuleDict()
        if "dynamic" in config.prompt_kinds:
            self.dynamic_prompts.update({name: DcpDynamicPrompts(config, width) for name, width in widths.items()})
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        for prompts in self.dynamic_prompts.values():
            prompts.queries.requires_grad_(self.config.dynamic_queries == "trainable")
        mask_token = getattr(self.vision_model.embeddings, "mask_token", None)
        if mask_token is not None:  # masked-image pretraining only; never part of our graph
            mask_token.requires_grad_(False)
        if self.config.freeze_backbone:
            for projection, trained in (
                (self.visual_projection, self.config.train_visual_projection),
                (self.text_projection, self.config.train_text_projection),
            ):
                if projection is not None:
                    projection.requires_grad_(trained)

    def adopt_from_backbone(self, name: str, backbone: PreTrainedModel) -> None:
        """CLIP's projections."""
        attribute = {"vision_model": "visual_projection", "text_model": "text_projection"}[name]
        projection = getattr(self, attribute)
        if projection is None:
            return
        source = getattr(backbone, attribute, None)
        if source is None:
            raise ValueError(
                f"{backbone.name_or_path} has no {attribute}; give the whole CLIP model instead of its tower alone."
            )
        projection.load_state_dict(source.state_dict())

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def prompts_of(
        self,
        name: str,
        chain: list[torch.Tensor],
        tokens: torch.Tensor,
        types: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """The prompts of one tower's blocks for these samples: `[correlated; common; dynamic]`, then `correlated`.

        Args:
            name: `"vision"` or `"text"`.
            chain: what `DcpPromptLearner` gives for the tower.
            tokens: `(batch, N, width)`, the tower's embedded tokens.
            types: `(batch,)` missing types.
            attention_mask: `(batch, N)`, tokens that dynamic prompts may attend to; `None`: all.
        """
        prompts = [block.index_select(0, types) for block in chain]
        if name in self.dynamic_prompts:
            dynamic = self.dynamic_prompts[name](tokens, types, attention_mask)
            prompts[:1] = [torch.cat([*prompts[:1], dynamic], dim=1)]
        return prompts

    def encode_image(
        self, pixel_values: torch.Tensor, *, types: torch.Tensor, chain: list[torch.Tensor]
    ) -> torch.Tensor:
        """Image features `(batch, feature_size)` of samples with these missing types."""
        tokens = embed_image(self.vision_model, pixel_values)
        prompts = self.prompts_of("vision", chain, tokens, types)
        hidden = run_with_leading_prompts(self.vision_model, tokens, prompts)
        feature = pool_image(self.vision_model, hidden, self.config.num_prompts)
        return feature if self.visual_projection is None else self.visual_projection(feature)

    def encode_text(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        *,
        types: torch.Tensor,
        chain: list[torch.Tensor],
        length: int | None = None,
    ) -> torch.Tensor:
        """Text features `(batch, feature_size)` of samples with these missing types.

        Args:
            length: tokens that the layers run on, for causal towers; the dynamic prompts see all of them in any case.
        """
        tower = self.text_model
        tokens = embed_text(tower, input_ids, token_type_ids)
        seen = None if self.config.dynamic_attends_padding else attention_mask
        prompts = self.prompts_of("text", chain, tokens, types, seen)
        hidden = run_with_leading_prompts(tower, tokens[:, :length], prompts, attention_mask)
        position = last_token_that_matters(tower, input_ids)
        feature = pool_text(tower, hidden, self.config.num_prompts, position)
        return feature if self.text_projection is None else self.text_projection(feature)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        missing_type: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionModelOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent. The result
            does not depend on the filler that stands in for an absent modality, and its feature is 0.
        """
        given = pixel_values if pixel_values is not None else input_ids
        if given is None:
            raise ValueError("Give pixel_values, input_ids, or both; neither was given.")
        types = torch.zeros(given.shape[0], dtype=torch.long, device=given.device)
        if missing_type is not None:
            types = missing_type.to(given.device, torch.long)
        if pixel_values is None:
            types = types | int(MissingType.IMAGE)
        if input_ids is None:
            types = types | int(MissingType.TEXT)
            attention_mask = token_type_ids = None
        complete = missing_type is None and pixel_values is not None and input_ids is not None
        image_rows, text_rows, text_length = self._rows_to_run(types, complete, input_ids)
        types = types.clamp(max=int(MissingType.IMAGE))

        chains = self.prompt_learner()
        see_image = partial(self.encode_image, chain=chains["vision"])
        read_text = partial(self.encode_text, chain=chains["text"], length=text_length)
        texts = (input_ids, attention_mask, token_type_ids)
        vision = self._features(MissingType.IMAGE, see_image, (pixel_values,), types, image_rows, complete)
        text = self._features(MissingType.TEXT, read_text, texts, types, text_rows, complete)
        return FusionModelOutput(
            pooler_output=torch.cat([vision, text], dim=-1), text_feature=text, vision_feature=vision
        )

    def _rows_to_run(
        self, types: torch.Tensor, complete: bool, input_ids: torch.Tensor | None
    ) -> tuple[list[int] | None, list[int] | None, int | None]:
        """The samples that each tower is run on, and the text length; `None` means all. Asks the device once."""
        if not self.config.skip_absent_towers or torch.compiler.is_compiling():
            return None, None, None
        ends = None if input_ids is None else last_token_that_matters(self.text_model, input_ids)
        if complete and ends is None:
            return None, None, None
        sizes = types
        if ends is not None:
            ends = ends.masked_fill(lacks(types, MissingType.TEXT), 0)
            sizes = torch.cat([types, ends.max().view(1) + 1])
        on_host = sizes.tolist()
        length = None if ends is None else on_host.pop()
        nothing = [row for row, kind in enumerate(on_host) if kind == MissingType.TEXT | MissingType.IMAGE]
        if nothing:
            raise ValueError(f"Sample {nothing[0]} has neither an image nor a text; drop it or give one of them.")
        rows = []
        for modality in (MissingType.IMAGE, MissingType.TEXT):
            present = [row for row, kind in enumerate(on_host) if not kind & modality]
            if not present and self.training and torch.is_grad_enabled():
                present = [0]  # with a weight of 0: every trained parameter has a gradient, as in the dense path
            rows.append(None if len(present) == len(on_host) else present)
        return rows[0], rows[1], length

    def _features(
        self,
        modality: MissingType,
        encode: Callable[..., torch.Tensor],
        inputs: tuple[torch.Tensor | None, ...],
        types: torch.Tensor,
        rows: list[int] | None,
        complete: bool,
    ) -> torch.Tensor:
        """A tower's features for the whole batch, `(batch, feature_size)`, 0 where the modality is absent.

        Args:
            modality: what the tower reads.
            encode: `encode(*inputs, types=...)` gives the features of some samples.
            inputs: the batch's inputs of the tower; `None` where not given.
            types: `(batch,)` missing types.
            rows: samples to run; `None`: all.
            complete: nothing is absent.
        """
        name = "vision" if modality == MissingType.IMAGE else "text"
        everywhere = types.new_zeros(types.shape[0], self.config.feature_sizes[name], dtype=self.dtype)
        if inputs[0] is None or rows == []:
            return everywhere
        index = None
        if rows is not None:
            index = torch.tensor(rows, device=types.device)
            inputs = tuple(None if each is None else each.index_select(0, index) for each in inputs)
            types = types.index_select(0, index)
        if complete:
            return encode(*inputs, types=types)
        absent = lacks(types, modality)
        if rows is None or len(rows) == 1:  # some of these may be fillers, which can be anything
            inputs = _without_fillers(inputs, absent)
        features = encode(*inputs, types=types)
        features = features.masked_fill(absent[:, None], 0.0)
        return features if index is None else everywhere.to(features.dtype).index_copy(0, index, features)


def _without_fillers(inputs: tuple[torch.Tensor | None, ...], absent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Pixels, token ids and token types of absent samples become 0, the attention mask (the second of several) 1."""
    return tuple(
        None if each is None else each.masked_fill(absent.view(-1, *[1] * (each.dim() - 1)), float(place == 1))
        for place, each in enumerate(inputs)
    )


@auto_docstring(custom_intro="DCP with a linear classifier on the features of both towers, the image's first.")
class DcpForSequenceClassification(DcpPreTrainedModel):
    def __init__(self, config: DcpConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.dcp = DcpModel(config)
        self.classifier = nn.Linear(sum(config.feature_sizes.values()), config.num_labels)
        self.post_init()

    def freeze_parts(self) -> None:
        super().freeze_parts()
        self.dcp.freeze_parts()

    def parameter_group(self, name: str) -> str:
        """`"head"` for the classifier; the rest learns alike."""
        return "head" if name.startswith("classifier.") else "fusion"

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        missing_type: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FusionClassifierOutput:
        r"""
        missing_type (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            0 where both modalities are present, 1 where the text is absent, 2 where the image is absent.
        labels (`torch.Tensor`, *optional*):
            `(batch_size,)` class ids, `(batch_size, num_labels)` floats for multi-label problems, or `(batch_size,)`
            floats for regression.
        """
        outputs: FusionModelOutput = self.dcp(
            pixel_values, input_ids, attention_mask, token_type_ids, missing_type, **kwargs
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return FusionClassifierOutput(
            loss=loss,
            logits=logits,
            task_loss=None if loss is None else loss.detach(),
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["DcpForSequenceClassification", "DcpModel", "DcpPreTrainedModel"]
