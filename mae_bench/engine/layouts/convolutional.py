"""Networks without tokens, under the names of the libraries that ours are made of."""

import re

from mae_bench.engine.layouts.names import State, Stated, without_prefix
from mae_bench.engine.transfer import Weights


def from_resnet(state: State, stated: Stated) -> Weights:
    """Residual networks of timm and torchvision; MONAI's, in 3-D."""
    inner = without_prefix(state, "layer1.0.conv1.weight")
    kept = {name: value for name, value in inner.items() if re.match(r"(conv1|bn1|layer\d)\.", name)}
    return Weights(kept, kept["conv1.weight"].shape[1], (), ())


def from_densenet(state: State, stated: Stated) -> Weights:
    """Densely connected networks of torchvision, also under the names of their first releases (`norm.1`)."""
    inner = without_prefix(state, "features.conv0.weight")
    old = re.compile(r"(norm|conv)\.([12])\.")
    kept = {old.sub(r"\1\2.", name): value for name, value in inner.items() if name.startswith("features.")}
    return Weights(kept, kept["features.conv0.weight"].shape[1], (), ())
