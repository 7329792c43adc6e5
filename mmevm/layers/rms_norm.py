"""Root mean square normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scales tokens to a root mean square of one (arXiv 1910.07467), in float32 whatever the model's precision.

    Args:
        channels (int): C.
        eps (float): Added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[..., C]). Returns: Tensor[..., C], in the weight's dtype."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps).to(self.weight.dtype)
