"""Class token after the final norm, then a linear layer (PAPER 3b)."""

from typing import Any

from torch import Tensor, nn


class ClassifierModel(nn.Module):
    """x: (B, C, *roi) gives logits (B, outputs)."""

    def __init__(self, encoder: Any, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = nn.Linear(encoder.dim, outputs)
        # Near-zero logits at the start, as He et al. 2022 fine-tune.
        nn.init.trunc_normal_(self.layer.weight, std=2e-5)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layer(self.encoder(x).pooled)
        return logits
