"""Options of training jobs (see ``seer_ray.config.options``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seer_ray.config.fields import option, section
from seer_ray.config.options import ClusterConfig, JobConfig
from seer_ray.config.selecting import LayoutConfig, ModelConfig


@dataclass
class ArchitectureConfig:
    """A decoder to be trained from scratch: of the Qwen3 kind, with mixers as ``plan`` and ``mixers`` say."""

    hidden_size: int = option(256, "width of the residual stream", minimum=8)
    layers: int = option(4, "decoder layers", minimum=1)
    heads: int = option(4, "query heads", minimum=1)
    kv_heads: int = option(2, "KV heads", minimum=1)
    head_dim: int = option(64, "of a head; even", minimum=2)
    intermediate_size: int = option(640, "width of the MLP", minimum=8)
    max_positions: int = option(8192, "context", unit="tokens", minimum=16)
    rope_theta: float = option(100000.0, "base of the rotary embedding", minimum=1.0)
    initial: str = option(
        "lookup",
        "weights at the beginning: random; or with heads that look back by a fixed distance and queries like "
        "keys, from which a small model learns to look things up in minutes, where all layers are attention "
        "without a convolution, else random",
        choices=("random", "lookup"),
    )
    window: int = option(1024, "reach of sliding layers", unit="tokens", minimum=1)
    tokenizer: str | None = option(
        None, "hub id or folder; None: one made for the built-in problems, of English letters only", path=True
    )
    save_dtype: str = option(
        "bfloat16", "of the weights in the folder that is written", choices=("float32", "bfloat16")
    )
    mixers: dict[str, str] = option(
        {}, "token mixer of single layers, by index or range, e.g. {'0-1': sliding}; the others: as plan says"
    )
    conv: int = option(
        0,
        "span of a short convolution of every mixer's inputs; 0: none",
        unit="tokens",
        minimum=0,
        maximum=16,
    )
    qk_norm: bool = option(True, "RMSNorm of each head's queries and keys")
    state_dim: int | None = option(
        None, "of a key in the recurrences; even; None: half of head_dim", minimum=2
    )


@dataclass
class MixerPlanConfig(LayoutConfig):
    """How layers mix tokens: some are anchors, the others cheap. ``architecture.mixers`` comes after it, for
    single layers. Without a layout all layers are anchors."""

    cheap: str | None = option(None, "mixer of cheap layers, such as gated_deltanet")
    anchor: str = option("attention", "mixer of anchors")


@dataclass
class ProblemsConfig:
    """What is learned: problems of a built-in generator, made as they are needed, or text."""

    text: Any = option(
        None,
        "text to learn instead of problems: as data in seer-ray distill, paths or {path, weight, ...}",
        path=True,
    )
    held_out: float = option(0.02, "share of the documents of a text", minimum=0.0, maximum=0.5)
    generator: str = option(
        "program",
        "kind of problem, see task.generator; mqar: pairs of a key and a value, each key asked for once, and "
        "a loss where it is",
        choices=("registers", "program", "lookup", "mqar"),
    )
    vocabulary: int = option(128, "of mqar, half of it keys", unit="tokens", minimum=8)
    difficulty: int = option(1, "of the problems, see task.generator", minimum=1, maximum=5)
    targets: str = option("solution", "tokens that have a loss", choices=("solution", "all"))
    start: int = option(
        8, "longest problems at the beginning; of mqar its pairs", unit="generator steps", minimum=2
    )
    end: int = option(
        110, "longest problems once they have grown; of mqar its pairs", unit="generator steps", minimum=2
    )
    rest: float = option(
        0.0,
        "share of the training before they grow: reading back is learned among few lines",
        minimum=0.0,
        maximum=1.0,
    )
    growth: float = option(
        0.6,
        "share of the training in which they grow, each step by the same factor",
        minimum=0.0,
        maximum=1.0,
    )
    shortest: float = option(
        0.4, "lengths are drawn from this share of the longest to the longest", minimum=0.0, maximum=1.0
    )
    mixed: bool = option(
        False, "draw a length for each problem, not for each training step; rows are then not of one length"
    )


@dataclass
class TrainConfig:
    """The optimisation of a training job. The defaults are the published recipe of gate distillation."""

    steps: int = option(800, "updates of the weights", minimum=1)
    batch_tokens: int = option(524288, "of one step, all workers together", unit="tokens", minimum=1)
    length: int = option(32768, "longest row", unit="tokens", minimum=2)
    optimizer: str = option(
        "adamw",
        "adamw, or muon for the matrices of the layers: fewer steps to the same loss, some more work in each",
        choices=("adamw", "muon"),
    )
    lr: float = option(1e-3, "learning rate after the warm-up", minimum=0.0)
    min_lr: float = option(1e-5, "learning rate at the end of the cosine", minimum=0.0)
    warmup: int = option(20, "linear from 0", unit="steps", minimum=0)
    hold: float = option(
        0.0, "share of the steps, from the first, before the cosine begins", minimum=0.0, maximum=1.0
    )
    weight_decay: float = option(0.0, "of all but vectors", minimum=0.0)
    betas: list[float] = option([0.9, 0.98], "AdamW's running averages")
    clip: float | None = option(1.0, "largest gradient norm; null: none", minimum=0.0)
    dtype: str = option(
        "bfloat16", "of the computation (autocast); weights stay as they are", choices=("float32", "bfloat16")
    )
    seed: int = option(0, "of initial weights and data", minimum=0)
    log_every: int = option(
        10, "metrics are averaged over so many", unit="steps", minimum=1, operational=True
    )
    eval_every: int = option(100, "held-out evaluation", unit="steps", minimum=1, operational=True)
    checkpoint_every: int = option(
        100, "what a killed job can lose", unit="steps", minimum=1, operational=True
    )


@dataclass
class PretrainEvalConfig:
    """Held-out problems: the same ones that ``seer-ray run`` asks."""

    lengths: list[int] = option([20, 60, 110, 160], "of the problems, in generator steps; of mqar in pairs")
    problems: int = option(16, "of each length, at intervals, all tokens known but the next", minimum=1)
    answers: int = option(64, "of each length, at the end, decoded greedily by the engine", minimum=0)
    contexts: list[int] = option(
        [],
        "loss at the end once more, of documents cut into pieces so long: none sees another",
        unit="tokens",
    )


@dataclass
class PretrainConfig(JobConfig):
    """A small model trained from scratch."""

    command = "pretrain"

    architecture: ArchitectureConfig = section(ArchitectureConfig)
    plan: MixerPlanConfig = section(MixerPlanConfig)
    data: ProblemsConfig = section(ProblemsConfig)
    train: TrainConfig = section(TrainConfig)
    evaluation: PretrainEvalConfig = section(PretrainEvalConfig)
    cluster: ClusterConfig = section(ClusterConfig, operational=True)

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        size, learned = self.architecture, self.data.generator if self.data.text is None else "text"
        return ["pretrain", learned, f"{size.layers}x{size.hidden_size}"]


@dataclass
class SourceConfig:
    """One entry of the option ``data``, as ``{path: ..., weight: ...}``."""

    path: str
    """File or glob (.jsonl .parquet .csv), hub id, or folder of a run or sweep."""
    weight: float = 1.0
    """Of its tokens in the mixture."""
    limit: int | None = None
    """Only so many documents."""
    join: bool = False
    """Short documents one behind the other as long ones: ``train.length`` tokens that see each other."""
    subset: str | None = None
    split: str = "train"
    text: str | None = None
    """Column with a text; None: text or content, if there is one."""
    messages: str | None = None
    """Column with a chat; None: messages or conversations, if there is one."""
    question: str | None = None
    """Column with a question, to be answered by ``answer``, as a chat; None: by their usual names."""
    answer: str | None = None


@dataclass
class GatesConfig:
    """Shape of the gates to be trained. Those of ``model.gates``, or for prompts of ``model.prefill_gates``,
    if that is set, have their own."""

    kind: str = option(
        "decode", "what they are for: the steps of decoding, or prompts", choices=("decode", "prefill")
    )
    block_size: int = option(64, "tokens that are read or left out together", unit="tokens", minimum=1)
    dim: int | None = option(None, "width of its query and keys; None: the model's head dim", minimum=2)
    q_pooling: str = option(
        "Qproj",
        "how a group's queries become one: Qproj, Qavgproj, Qavg; of prefill gates what is kept of a block's "
        "queries: Q and some of max, min, avg",
    )
    k_pooling: str = option("Kmaxminavg", "what is kept of a block's keys: K and some of max, min, avg")
    use_qk_norm: bool = option(True, "RMSNorm of the gate's query and keys")
    use_rope: bool = option(True, "the gate sees positions")
    layers: str | None = option(None, "layers that are trained, such as '0-3,7'; None: all that select")
    save_dtype: str = option(
        "float32", "of the gates in the folder that is written", choices=("float32", "bfloat16")
    )


@dataclass
class ObjectiveConfig:
    """What gates are trained for: any mix."""

    distill: float = option(
        1.0, "weight of KL(blocks of dense attention || gate), summed over layers", minimum=0.0
    )
    lm: float = option(
        0.0, "weight of the next-token loss of the model that attends through soft gates", minimum=0.0
    )
    loss: str = option(
        "kl",
        "of prefill gates: kl, or mse, the squared distance of their shares to those of attention",
        choices=("kl", "mse"),
    )
    target: str = option(
        "max", "a block's share: its largest probability, or their sum", choices=("max", "mass")
    )
    skip: float = option(
        0.5,
        "share of a document's rows, from its first, that are not trained on",
        minimum=0.0,
        maximum=1.0,
    )
    updates: int = option(
        1,
        "steps that one pass of the model serves, each with its own share of the rows: the pass is what "
        "costs; what it says of all layers is kept for them",
        minimum=1,
    )


@dataclass
class DistillEvalConfig:
    """Held-out documents: those whose ids have the smallest hashes."""

    held_out: float = option(0.02, "share of the documents", minimum=0.0, maximum=0.5)
    documents: int = option(8, "longest ones that are looked at, at intervals and at the end", minimum=0)
    budgets: list[str] = option(["1/8"], "recall and mass kept at these, in tokens or as share of the length")
    stride: int = option(7, "every so many rows count", unit="tokens", minimum=1)
    allocation: int = option(
        2,
        "of gates of decoding: how heads share a budget (see seer-ray gates shares) is found at the end, on "
        "so many of the longest documents that were trained on; 0: not at all",
        minimum=0,
    )
    densities: list[float] = option(
        [0.5, 0.3, 0.2, 0.1], "of prefill gates: mass kept where prompts read these shares of their blocks"
    )


@dataclass
class DistillConfig(JobConfig):
    """Gates for a frozen model."""

    command = "distill"

    model: ModelConfig = section(ModelConfig)
    data: Any = option(
        None,
        "folder of a run or sweep, file, hub id, or a list of these and of {path: ..., weight: ..., ...}",
        path=True,
    )
    gates: GatesConfig = section(GatesConfig)
    objective: ObjectiveConfig = section(ObjectiveConfig)
    train: TrainConfig = section(TrainConfig)
    evaluation: DistillEvalConfig = section(DistillEvalConfig)
    cluster: ClusterConfig = section(ClusterConfig, operational=True)

    def about(self) -> list[str]:
        """What the run folder's name is made of."""
        return ["distill", self.model.short]
