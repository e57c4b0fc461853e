"""Adversarial separation: reduce shared information of heads, estimated by regressors.

B batch, D embedding, H hidden.
"""

from torch import Tensor, nn

from dmlray.losses.cosine import at_least_float32, unit_rows


class Separation(nn.Module):
    """A regressor from one head to another, and their agreement, which the heads minimise.

    Minimising the result trains the regressor to increase the agreement; the reversed gradient
    trains the heads to decrease it.
    Source: Milbich et al., ECCV 2020, arXiv 2004.13458; wzzheng/DCML
    criteria/adversarial_separation.py, line 38.
    """

    def __init__(self, dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.regressor = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map embeddings (B, D) to their negative mean squared product, a scalar <= 0."""
        predicted = unit_rows(self.regressor(unit_rows(reverse_gradient(source))))
        return -(unit_rows(reverse_gradient(target)) * predicted).square().mean()


def reverse_gradient(tensor: Tensor) -> Tensor:
    """Return the same values with a negated gradient."""
    tensor = at_least_float32(tensor)
    return 2 * tensor.detach() - tensor
