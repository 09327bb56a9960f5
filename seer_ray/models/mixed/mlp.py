"""A mixer that mixes no tokens, of Xue et al. 2025 (arXiv:2510.11602): ``down(silu(gate(x)) * up(x))``.

With a short convolution, of gate and up, it mixes as many tokens as that spans.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from seer_ray.models.mixed.flow import Config, Flow, ShortConv
from seer_ray.models.mixed.sizes import mlp_width
from seer_ray.models.projection import project


class MLPMixer(nn.Module):
    """Of one layer.

    Args:
        config: of the model.
        layer: its index.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, inner = config.hidden_size, mlp_width(config)
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)
        if config.conv:
            self.conv = ShortConv(layer, 2 * inner, config.conv)

    def forward(self, x: Tensor, source: Tensor, flow: Flow) -> Tensor:
        """Like x ``[tokens, hidden]``."""
        gate, up = project(x, self.gate_proj, self.up_proj)
        if hasattr(self, "conv"):
            gate, up = self.conv(torch.cat((gate, up), dim=-1), flow).chunk(2, dim=-1)
        return project(silu(gate) * up, self.down_proj)[0]

    def states(self, like: Tensor) -> tuple[Tensor | None, None]:
        """See ``AttentionMixer``."""
        conv = getattr(self, "conv", None)
        return (like.new_zeros(1, *conv.weight.shape) if conv is not None else None), None
