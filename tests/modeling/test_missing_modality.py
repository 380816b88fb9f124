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
"""What models do with absent modalities."""

import torch
from torch import nn

from fusionzoo.modeling.missing_modality import MissingType, is_absent, replace_absent


def test_values():
    assert (MissingType.COMPLETE, MissingType.TEXT, MissingType.IMAGE) == (0, 1, 2)


def test_missing_types_are_bits():
    missing_type = torch.tensor([0, 1, 2, 3])
    assert is_absent(missing_type, MissingType.TEXT).tolist() == [False, True, False, True]
    assert is_absent(missing_type, MissingType.IMAGE).tolist() == [False, False, True, True]
    assert is_absent(None, MissingType.TEXT) is None


def test_replace_absent():
    features = torch.arange(12.0).view(3, 2, 2)
    substitute = nn.Parameter(torch.tensor([-1.0, -2.0]))
    replaced = replace_absent(features, substitute, torch.tensor([False, True, False]))
    assert replaced.tolist() == [[[0, 1], [2, 3]], [[-1, -2], [-1, -2]], [[8, 9], [10, 11]]]
    vectors = replace_absent(features[:, 0], substitute, torch.tensor([True, False, False]))
    assert vectors.tolist() == [[-1, -2], [4, 5], [8, 9]]


def test_absent_features_may_be_anything():
    features = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf]], requires_grad=True)
    replaced = replace_absent(features, nn.Parameter(torch.zeros(2)), torch.tensor([False, True]))
    replaced.sum().backward()
    assert replaced.tolist() == [[1, 2], [0, 0]]
    assert features.grad.tolist() == [[1, 1], [0, 0]]


def test_the_substitute_always_takes_part():
    features, substitute = torch.rand(2, 3), nn.Parameter(torch.ones(3))
    unchanged = replace_absent(features, substitute, None)
    assert torch.equal(unchanged, features)
    unchanged.sum().backward()
    assert substitute.grad.tolist() == [0, 0, 0]
    replace_absent(features, substitute, torch.tensor([True, True])).sum().backward()
    assert substitute.grad.tolist() == [2, 2, 2]


def test_the_dtype_of_the_features_wins():
    features = torch.rand(2, 3, dtype=torch.bfloat16)
    assert replace_absent(features, nn.Parameter(torch.ones(3)), torch.tensor([True, False])).dtype == torch.bfloat16
