"""Weighted k nearest neighbours (Wu et al. 2018, section 3.4): cosine similarity, weights exp(similarity / T)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SURE = 1e-6  # shares of 0 and 1 become logits of about -14 and 14


class KNNModel(nn.Module):
    """x: (B, C, *roi) gives logits (B, outputs) of the weighted share of neighbours that have each finding.

    `features` (N, dim), of unit length, and `findings` (N, outputs) are the labelled cases; they are in the state, so
    that a saved model needs no data.
    """

    features: Tensor
    findings: Tensor

    def __init__(self, encoder: Any, outputs: int, k: int, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.k, self.temperature = k, temperature
        self.register_buffer("features", torch.zeros(0, encoder.dim))
        self.register_buffer("findings", torch.zeros(0, outputs))

    def remember(self, features: Tensor, findings: Tensor) -> None:
        """Keep the pooled features (N, dim) and findings (N, outputs) of the labelled cases."""
        self.features = F.normalize(features.float(), dim=1)
        self.findings = findings.float()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A new model has room for no case; how many there were is in the state. A wrong width is still refused.
        for name in ("features", "findings"):
            own, stored = getattr(self, name), state_dict.get(prefix + name)
            if stored is not None and stored.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, always finite."""
        if not len(self.features):
            raise RuntimeError("nothing is remembered: call `remember` or load a state first")
        with torch.no_grad():
            pooled = self.encoder(x).pooled.float()
            # Half precision cannot tell near neighbours apart.
            with torch.autocast(x.device.type, enabled=False):
                similarity = F.normalize(pooled, dim=1) @ self.features.T
                nearest = similarity.topk(min(self.k, len(self.features)), dim=1)
                weights = (nearest.values / self.temperature).softmax(dim=1)
                share = torch.einsum("bk,bko->bo", weights, self.findings[nearest.indices])
                return share.clamp(0, 1).logit(eps=SURE)
