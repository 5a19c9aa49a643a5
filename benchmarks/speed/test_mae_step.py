"""One MAE training step at the sizes of the paper, ours beside the peers, fp32, on whatever device is there.

`nox -s speed -- -k mae_step` prints the ratios. "without oneDNN" leaves the choice of matrix library to PyTorch, so
that what is gained by doing less can be told from what is gained by the faster library (on processors where it is
preferred; elsewhere both are the same).
"""

import pytest
import torch

from benchmarks.speed.interleaved import compare
from benchmarks.speed.peers import MONAI, Lightly, Transformers, step_of
from mae_bench.engine.device import keep_freed_memory
from mae_bench.engine.onednn import preferred, use_onednn
from mae_bench_plugins.backbones.vit import ViT, ViTOptions
from mae_bench_plugins.pretraining.mae import MAE, MAEOptions

# channels, roi, decoder width and heads, batch: PAPER section 3a; 2-D as He et al. 2022
SIZES = {
    "2d-224": (3, (224, 224), 512, 16, 8),
    "3d-96": (1, (96, 96, 96), 384, 12, 2),
    "3d-128x4": (4, (128, 128, 128), 384, 12, 1),
}


def ours(channels, roi, decoder_dim, decoder_heads):
    """ViT-B in our masked autoencoder."""
    encoder = ViT().build(ViTOptions(size="base"), channels, roi)
    return MAE().objective(MAEOptions(decoder_dim=decoder_dim, decoder_heads=decoder_heads), encoder)


@pytest.mark.parametrize("size", SIZES)
def test_mae_step(benchmark, size):
    channels, roi, decoder_dim, decoder_heads, batch = SIZES[size]
    torch.manual_seed(0)
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(batch, channels, *roi, device=device)
    peers = {"monai MaskedAutoEncoderViT": MONAI(channels, roi, decoder_dim, decoder_heads)}
    if len(roi) == 2:
        peers |= {"transformers ViTMAE": Transformers(), "lightly MAE": Lightly()}
    if preferred():
        peers["ours without oneDNN"] = ours(channels, roi, decoder_dim, decoder_heads)
    steps = {name: step_of(module.to(device), images) for name, module in peers.items()}
    own = use_onednn(ours(channels, roi, decoder_dim, decoder_heads)).to(device)
    compare(benchmark, step_of(own, images), steps)
