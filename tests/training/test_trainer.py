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
import math

import pytest
import torch
from fixtures_tiny import tiny_processor
from training_fixtures import toy_dataset, toy_model, toy_spec
from transformers import Trainer

from fusionzoo.training.arguments import FusionTrainingArguments
from fusionzoo.training.collation import FusionCollator
from fusionzoo.training.fusion_dataset import FusionDataset
from fusionzoo.training.metrics.compute_metrics import build_compute_metrics
from fusionzoo.training.trainer import FusionTrainer, milestone_factor


def make_trainer(folder, rows=16, trainer_class=FusionTrainer, model=None, dataset=None, **arguments):
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    spec = toy_spec()
    return trainer_class(
        model=toy_model() if model is None else model,
        args=FusionTrainingArguments(output_dir=str(folder), **{**defaults, **arguments}),
        train_dataset=FusionDataset(toy_dataset(rows), spec) if dataset is None else dataset,
        eval_dataset=FusionDataset(toy_dataset(6, seed=1), spec),
        data_collator=FusionCollator(tiny_processor(), spec),
        compute_metrics=build_compute_metrics(spec),
        processing_class=tiny_processor(),
    )


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def train_logs(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_loss_parts_are_logged_and_add_up(tmp_path):
    trainer = make_trainer(tmp_path, logging_steps=2, model=toy_model(importance_threshold=0.0))
    trainer.train()
    logs = train_logs(trainer)
    assert len(logs) == 2
    for entry in logs:
        assert entry["importance_loss"] > 0
        # `importance_loss` is the unweighted term; its weight in the loss is 0.01
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.01 * entry["importance_loss"], abs=1e-5)


def test_loss_parts_are_means_over_accumulated_batches(tmp_path):
    big = make_trainer(tmp_path, per_device_train_batch_size=8, logging_steps=2)
    small = make_trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, logging_steps=2)
    big.train()
    small.train()
    assert train_logs(small)[0]["task_loss"] == pytest.approx(train_logs(big)[0]["task_loss"], abs=1e-6)


def test_gradient_accumulation_equals_the_big_batch(tmp_path):
    # importance_loss_weight=0: that term is a function of the batch, so it differs by definition
    options = {"num_train_epochs": 2, "max_grad_norm": 1.0, "optim": "sgd"}
    big = make_trainer(tmp_path, per_device_train_batch_size=8, model=toy_model(importance_loss_weight=0.0), **options)
    small = make_trainer(
        tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        model=toy_model(importance_loss_weight=0.0),
        **options,
    )
    big.train()
    small.train()
    before = toy_model().state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(big).items())
    for name, tensor in weights(big).items():
        torch.testing.assert_close(weights(small)[name], tensor, atol=2e-6, rtol=0)
    for one, other in zip(train_logs(big), train_logs(small)):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-5)


def test_frozen_towers_stay_bit_identical_and_the_rest_trains(tmp_path):
    trainer = make_trainer(tmp_path, weight_decay=0.1)
    before = weights(trainer)
    trainer.train()
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    after = weights(trainer)
    assert any("vision_model" in name for name in before)
    for name in before:
        if name not in trainable:
            assert torch.equal(before[name], after[name]), name
    moved = {name for name in trainable if not torch.equal(before[name], after[name])}
    assert {"classifier.weight", "mope.text_prompts.prompts.0"} <= moved
    assert any("experts" in name for name in moved)


def test_parameter_groups(tmp_path):
    trainer = make_trainer(
        tmp_path,
        model=toy_model(fuse_method="late_concat"),  # its classifier reads both towers
        learning_rate=1e-3,
        vision_learning_rate=4e-4,
        text_learning_rate=5e-4,
        weight_decay=1e-3,
        fusion_weight_decay=1e-4,
    )
    groups = {group["name"]: group for group in trainer.create_optimizer().param_groups}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "fusion": (1e-3, 1e-4),
        "fusion_no_decay": (1e-3, 0.0),
        "vision": (4e-4, 1e-3),
        "text": (5e-4, 1e-3),
    }
    assert next(iter(groups)) == "fusion"
    owners = {id(p): name for name, group in groups.items() for p in group["params"]}
    named = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(owners) == len(named) == sum(len(group["params"]) for group in groups.values())
    assert owners[id(named["mope.text_prompts.prompts.0"])] == "text"
    assert owners[id(named["mope.vision_prompts.prompts.0"])] == "vision"
    assert owners[id(named["classifier.weight"])] == "fusion"
    assert owners[id(named["classifier.bias"])] == "fusion_no_decay"


def test_a_group_that_does_not_exist_is_refused(tmp_path):
    model = toy_model()
    model.parameter_group = lambda name: "tail"
    with pytest.raises(ValueError, match=r"gave 'tail'; it must be vision, text, fusion or head"):
        make_trainer(tmp_path, model=model).create_optimizer()


def test_decay_all_parameters_leaves_no_exempt_group(tmp_path):
    trainer = make_trainer(tmp_path, weight_decay=1e-3, decay_all_parameters=True)
    assert {group["weight_decay"] for group in trainer.create_optimizer().param_groups} == {1e-3}


def test_decay_norm_weights_exempts_biases_alone(tmp_path):
    trainer = make_trainer(
        tmp_path, model=toy_model(freeze_backbone=False), weight_decay=1e-3, decay_norm_weights=True
    )
    names = {id(each): name for name, each in trainer.model.named_parameters()}
    decayed = {"": set(), "_no_decay": set()}
    for group in trainer.create_optimizer().param_groups:
        key = "_no_decay" if group["name"].endswith("_no_decay") else ""
        decayed[key] |= {names[id(each)] for each in group["params"]}
    assert decayed["_no_decay"] and all(name.endswith("bias") for name in decayed["_no_decay"])
    assert any("norm" in name.lower() and name.endswith("weight") for name in decayed[""])
    assert not any(name.endswith("bias") for name in decayed[""])


def test_the_head_has_its_own_learning_rate(tmp_path):
    model = toy_model()
    model.parameter_group = lambda name: "head" if "classifier" in name else "fusion"
    trainer = make_trainer(tmp_path, model=model, learning_rate=1e-3, head_learning_rate=3e-3)
    rates = {group["name"].removesuffix("_no_decay"): group["lr"] for group in trainer.create_optimizer().param_groups}
    assert rates == {"fusion": 1e-3, "head": 3e-3}


def test_the_official_schedule_ends_before_the_last_step(tmp_path):
    # 16 rows, batch 4, 3 accumulated: 2 steps an epoch are made, 4 * 10 / 3 = 13.3 are counted
    trainer = make_trainer(
        tmp_path,
        num_train_epochs=10,
        gradient_accumulation_steps=3,
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        schedule_rules="dcp_official",
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in train_logs(trainer)]
    assert len(rates) == 20
    assert rates[:3] == pytest.approx([0.0, 1e-2, 1e-2 * 11 / 12])
    assert rates[12] == pytest.approx(1e-2 / 12) and not any(rates[13:])
    with pytest.raises(ValueError, match="schedule_rules must be one of standard, dcp_official"):
        FusionTrainingArguments(output_dir=str(tmp_path), schedule_rules="official")
    with pytest.raises(ValueError, match="needs lr_scheduler_type: linear, and neither lr_milestones nor max_steps"):
        FusionTrainingArguments(output_dir=str(tmp_path), schedule_rules="dcp_official", max_steps=5)


def test_milestones_scale_every_group_at_the_epoch(tmp_path):
    # 16 rows, batch 4, 2 accumulated: 2 steps an epoch
    trainer = make_trainer(
        tmp_path,
        num_train_epochs=5,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        vision_learning_rate=1e-3,
        text_learning_rate=5e-4,
        lr_scheduler_type="constant",
        lr_milestones=[2, 4],
        lr_gamma=0.4,
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in train_logs(trainer)]
    assert rates == pytest.approx([1e-3] * 4 + [4e-4] * 4 + [1.6e-4] * 2)
    assert trainer.steps_per_epoch() == 2
    text = next(group for group in trainer.optimizer.param_groups if group["name"] == "text")
    assert text["lr"] == pytest.approx(0.16 * 5e-4)


def test_milestone_factor_with_warmup():
    factors = [milestone_factor(step, milestones=[6], gamma=0.1, warmup_steps=4) for step in (0, 2, 4, 5, 6)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.1])


@pytest.mark.parametrize(("rows", "drop_last", "expected"), [(10, False, 3), (10, True, 2), (3, True, 1)])
def test_steps_per_epoch(tmp_path, rows, drop_last, expected):
    assert make_trainer(tmp_path, rows=rows, dataloader_drop_last=drop_last).steps_per_epoch() == expected


def test_a_model_without_trainable_parameters_is_refused(tmp_path):
    model = toy_model()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_trainer(tmp_path, model=model).create_optimizer()


def test_evaluation_gives_the_metrics_and_no_loss_parts(tmp_path):
    trainer = make_trainer(tmp_path)
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_accuracy", "eval_f1_macro"} <= set(metrics)
    assert trainer._loss_parts == {}


def test_plain_trainer_gives_the_same_weights(tmp_path):
    ours, plain = make_trainer(tmp_path), make_trainer(tmp_path, trainer_class=Trainer)
    ours.train()
    plain.train()
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(ours)[name], tensor, atol=1e-7, rtol=0)


class RecordingDataset(FusionDataset):
    """Stamps each text with the epoch that the row was read in."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "epoch_read": self.epoch}


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_the_dataset_learns_the_epoch(tmp_path, workers, persistent):
    dataset = RecordingDataset(toy_dataset(8), toy_spec())
    seen = []

    class Spy(FusionTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            seen.append(inputs.pop("epoch_read"))
            return super().training_step(model, inputs, num_items_in_batch)

    trainer = make_trainer(
        tmp_path,
        trainer_class=Spy,
        dataset=dataset,
        num_train_epochs=3,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=persistent,
    )
    trainer.data_collator = EpochStamping(trainer.data_collator)
    trainer.train()
    assert seen == [[0] * 4, [0] * 4, [1] * 4, [1] * 4, [2] * 4, [2] * 4]


class EpochStamping:
    def __init__(self, collator):
        self.collator = collator

    def __call__(self, rows):
        return {**self.collator(rows), "epoch_read": [row["epoch_read"] for row in rows]}


def test_overfits_sixteen_samples(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=20, learning_rate=2e-2, logging_steps=80)
    before = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    assert after["eval_loss"] < 0.5 * before
    assert after["eval_accuracy"] > 0.9
    assert math.isfinite(train_logs(trainer)[0]["importance_loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_milestones": [3, 6]}, "lr_scheduler_type: constant"),
        ({"lr_milestones": [6, 3], "lr_scheduler_type": "constant"}, "increasing"),
        ({"precision": "half"}, "auto, fp32, bf16, fp16"),
        ({"precision": "auto", "bf16": True}, "not both"),
        ({"remove_unused_columns": True}, "must stay false"),
    ],
)
def test_contradictory_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        FusionTrainingArguments(output_dir=str(tmp_path), **arguments)
