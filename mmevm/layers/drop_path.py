"""Stochastic depth."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops the residual branch of whole samples while training (stochastic depth, arXiv 1603.09382).

    Args:
        drop_prob (float): Probability of dropping a sample's branch, in [0, 1).
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f'`drop_prob` must be in [0, 1), got {drop_prob}')
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, ...]). Returns: Tensor[B, ...], kept samples scaled by 1 / (1 - drop_prob)."""
        if self.drop_prob == 0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3g}'
