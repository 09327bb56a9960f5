"""Options of training jobs (see ``seer_ray.config``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from seer_ray.config import ClusterConfig, ResultsConfig, TrackingConfig, TrainConfig, option


@dataclass
class ArchitectureConfig:
    """A decoder of the Qwen3 kind, to be trained from scratch."""

    hidden_size: int = option(256, "width of the residual stream", minimum=8)
    layers: int = option(4, "decoder layers", minimum=1)
    heads: int = option(4, "query heads", minimum=1)
    kv_heads: int = option(2, "KV heads", minimum=1)
    head_dim: int = option(64, "of a head; even", minimum=2)
    intermediate_size: int = option(640, "width of the MLP", minimum=8)
    max_positions: int = option(8192, "context", unit="tokens", minimum=16)
    rope_theta: float = option(10000.0, "base of the rotary embedding", minimum=1.0)
    window: int = option(1024, "reach of sliding layers", unit="tokens", minimum=1)
    mixers: dict[str, str] = option(
        {}, "token mixer of single layers, by index or range, e.g. {'0-1': sliding}; the others: attention"
    )


@dataclass
class ProblemsConfig:
    """What is learned: problems of a built-in generator, made as they are needed, or text."""

    generator: str = option(
        "program", "kind of problem, see task.generator", choices=("registers", "program", "lookup")
    )
    difficulty: int = option(1, "of the problems, see task.generator", minimum=1, maximum=5)
    targets: str = option("solution", "tokens that have a loss", choices=("solution", "all"))
    start: int = option(8, "longest problems at the beginning", unit="generator steps", minimum=2)
    end: int = option(110, "longest problems once they have grown", unit="generator steps", minimum=2)
    growth: float = option(
        0.6,
        "share of the training in which they grow, each step by the same factor",
        minimum=0.0,
        maximum=1.0,
    )
    shortest: float = option(
        0.4, "lengths are drawn from this share of the longest to the longest", minimum=0.0, maximum=1.0
    )


@dataclass
class PretrainEvalConfig:
    """Held-out problems: the same ones that ``seer-ray run`` asks."""

    lengths: list[int] = option([20, 60, 110, 160], "of the problems, in generator steps")
    problems: int = option(16, "of each length, at intervals, all tokens known but the next", minimum=1)
    answers: int = option(64, "of each length, at the end, decoded greedily by the engine", minimum=0)


@dataclass
class PretrainConfig:
    """A small model trained from scratch."""

    name: str | None = option(None, "name of the run folder; None: made from the settings")
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    data: ProblemsConfig = field(default_factory=ProblemsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: PretrainEvalConfig = field(default_factory=PretrainEvalConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    results: ResultsConfig = field(default_factory=ResultsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        size = self.architecture
        return ["pretrain", self.data.generator, f"{size.layers}x{size.hidden_size}"]
