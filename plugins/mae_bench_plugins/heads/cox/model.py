"""Pooled feature to log-risk."""

from typing import Any

from torch import Tensor, nn


class CoxModel(nn.Module):
    """x: (B, C, *roi) gives log-risks (B, 1); higher is earlier."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        # Without bias: the partial likelihood compares risks, and a constant would cancel.
        self.layer = nn.Linear(encoder.dim, 1, bias=False)
        # Near-equal risks at the start, as the classifier starts undecided.
        nn.init.trunc_normal_(self.layer.weight, std=2e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Log-risks."""
        risk: Tensor = self.layer(self.encoder(x).pooled)
        return risk
