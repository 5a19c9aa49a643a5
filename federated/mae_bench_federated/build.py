"""From a specification to what is trained, in a process that was told the specification and nothing else."""

from typing import Any

import torch
from torch import nn

from mae_bench.registry import Registry
from mae_bench.spec import Choice, RunSpec
from mae_bench.task import Task
from mae_bench.values import Options


def plugin_of(kind: str, choice: Choice, registry: Registry) -> tuple[Any, Options]:
    """A plugin and its options, as a specification names them.

    Raises:
        UsageError: it is not installed here.
        ValidationError: this version has other options.
    """
    plugin = registry.get(kind, choice.name).plugin
    return plugin, plugin.Options(**choice.options)


def build_objective(spec: RunSpec, task: Task, registry: Registry) -> Any:
    """The objective of the pre-training, with the weights and buffers it starts from everywhere."""
    torch.manual_seed(spec.pretrain_seed)
    backbone, options = plugin_of("backbone", spec.backbone, registry)
    encoder = backbone.build(options, len(task.channels), spec.recipe.roi)
    pretraining, options = plugin_of("pretrain", spec.pretrain, registry)
    return pretraining.objective(options, encoder)


def build_model(spec: RunSpec, task: Task, registry: Registry) -> nn.Module:
    """The task model on an encoder of random weights; those of a pre-trained one come with the first message."""
    torch.manual_seed(spec.seed)
    backbone, options = plugin_of("backbone", spec.backbone, registry)
    encoder = backbone.build(options, len(task.channels), spec.recipe.roi, drop_path=spec.recipe.finetune.drop_path)
    head, options = plugin_of("head", spec.head, registry)
    model: nn.Module = head.build(options, encoder, task)
    return model
