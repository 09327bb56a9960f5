"""Every option of a job, once: type, default, unit, meaning and bounds (``config.checks`` holds to them).

Plain dataclasses (no OmegaConf here), so that the engine can be used where neither Hydra nor Ray is
installed. ``seer_ray.config.compose`` turns command lines and YAML files into these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar

from seer_ray.config.layouts import LAYOUTS
from seer_ray.config.secrets import redacted
from seer_ray.config.selectors import SELECTORS

PACKAGED = ("reasoner", "smollm2")
"""Models and gates that are called so wherever a job runs, whatever files of these names are there."""


def option(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    operational: bool = False,
    bits: bool = False,
    path: bool = False,
    secret: bool = False,
) -> Any:
    """A dataclass field that carries its own documentation and bounds.

    Args:
        above: the value must be larger.
        operational: changes no result: may differ between the first run of a folder and its resumption.
        bits: operational, but changes the last bits of a result: fixed where ``engine.exact`` promises them.
        path: may name a file or folder of this machine.
        secret: an address that may hold a password or a key.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "operational": operational or bits,
        "bits": bits,
        "path": path,
        "secret": secret,
        "above": above,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(options: type, *, operational: bool = False) -> Any:
    """A dataclass field of options that belong together; ``operational``: all of them."""
    return field(default_factory=options, metadata={"operational": operational})


@dataclass
class ModelConfig:
    name: str = option(
        "reasoner",
        "hub id, folder, GGUF file, 'reasoner' (the small model of this package), or 'smollm2' (of the extra "
        "smollm)",
        path=True,
    )
    revision: str | None = option(None, "hub revision of the model")
    tokenizer: str | None = option(None, "tokenizer, if not the model's own: hub id or folder", path=True)
    dtype: str = option(
        "auto",
        "weights, and KV cache unless engine.kv_dtype says otherwise; auto: as stored, float32 for GGUF",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("auto", "auto (a GPU where there is one), cpu, cuda or cuda:N", bits=True)
    gates: str | None = option(
        None,
        "attention gates: hub id, folder, .pth file, or 'reasoner', 'smollm2' (those of that model)",
        path=True,
    )
    trust_remote_code: bool = option(False, "run Python code that comes with the model")

    @property
    def short(self) -> str:
        """The name's last part, for names of folders."""
        return PurePosixPath(redacted(self.name).replace("\\", "/")).name.removesuffix(".gguf")


@dataclass
class SelectorConfig:
    """Which KV blocks a decode step reads."""

    name: str = option(
        "dense",
        "how blocks are ranked: " + "; ".join(f"{name}, {traits.help}" for name, traits in SELECTORS.items()),
        choices=tuple(SELECTORS),
    )
    budget: int = option(
        2048,
        "KV that attention may read per KV head and step, forced blocks included",
        unit="tokens",
        minimum=1,
    )
    threshold: float | None = option(
        None,
        "instead of a fixed count: every block whose share of the block scores is above this; budget caps it",
        minimum=0.0,
        maximum=1.0,
    )
    sink: bool = option(True, "always read the first block (inside the budget)")
    dense_layers: int = option(0, "the first k layers stay dense", minimum=0)
    layers: dict[str, str] = option(
        {},
        "selector of single layers, by index or range, e.g. {'0-2': dense, '17': quest}",
        choices=tuple(SELECTORS),
    )
    shares: dict[str, float] = option(
        {},
        "of single layers, by index or range, e.g. {'0-2': 0.5}: what they may read as a multiple of the "
        "others; it multiplies budget, or, where there is a threshold, divides that",
        above=0,
    )
    sparse_prefill: bool = option(
        False, "prompts too: the tokens of a block share the blocks that their mean score picks"
    )


@dataclass
class PlanConfig:
    """What each layer does, counted over those with full attention: some are anchors, the others cheap.

    ``selector.dense_layers`` and ``selector.layers`` come after it, for single layers.
    """

    ratio: str | None = option(
        None, "so many cheap layers for each anchor: a whole number, 0: anchors only, inf: no anchor"
    )
    phase: str = option(
        "last", "where the anchor stands among the layers of one ratio: first, last, or a place from 0"
    )
    repeat: list[str] = option([], "what layers do, over and over, e.g. [gated, gated, dense]")
    named: str | None = option(None, "which layers are anchors, by the name of a set", choices=tuple(LAYOUTS))
    anchors: int | None = option(None, "so many anchors: the first of plan.ranking", minimum=1)
    ranking: list[int] = option(
        [], "layers, those first that lose most where they are sparse: see seer-ray gates shares"
    )
    cheap: str = option(
        "gated",
        "what cheap layers do: gated (as the options of selector say), dense, or another selector, with a "
        "budget of its own in tokens if it has one: window:1024",
    )
    anchor: str = option("dense", "what anchors do, as plan.cheap")
    equal_at: int | None = option(
        None,
        "at this length a step reads as much as with selector.budget in every layer: layers without a budget "
        "of their own pay for the anchors. None: they have selector.budget",
        unit="tokens",
        minimum=1,
    )


@dataclass
class SamplingConfig:
    """Decoding of one chain. None: as the model's generation config says."""

    max_new_tokens: int = option(512, "longest completion", unit="tokens", minimum=1)
    temperature: float | None = option(None, "0 is greedy", minimum=0.0)
    top_p: float | None = option(None, "nucleus mass; 1 is off", minimum=0.0, maximum=1.0)
    top_k: int | None = option(None, "most likely tokens kept; 0 is off", minimum=0)
    min_p: float | None = option(
        None, "least probability relative to the best token; 0 is off", minimum=0.0, maximum=1.0
    )
    repetition_penalty: float | None = option(
        None, "divides the logits of tokens already seen; 1 is off", minimum=0.01
    )
    stop: list[str] = option([], "strings that end a completion")
    ignore_eos: bool = option(False, "go on to max_new_tokens (benchmarks)")


@dataclass
class EngineConfig:
    block_size: int = option(64, "page of the KV cache = block of the selection", unit="tokens", minimum=1)
    max_batch: int = option(16, "sequences decoded together", minimum=1, bits=True)
    kv_memory: str = option(
        "auto",
        "KV cache per worker, e.g. 8GiB; auto: most of what is free after the weights",
        operational=True,
    )
    kv_dtype: str = option(
        "auto",
        "K and V in the cache; auto: as the model; in 8 bits, with a scale for each token and KV head, they "
        "take about half the memory and reads of 16",
        choices=("auto", "int8", "float8_e4m3"),
    )
    prefill_chunk: int = option(
        512, "prompt tokens computed between two decode steps", unit="tokens", minimum=1
    )
    max_length: int | None = option(
        None, "prompt + completion limit; None: the model's own", unit="tokens", minimum=2
    )
    exact: bool = option(
        False, "bitwise the same tokens whatever the batch mates, worker or restarts; slower"
    )
    tensor_parallel: int = option(
        1,
        "GPUs of one node that hold a worker's model together, each some of its heads",
        minimum=1,
        bits=True,
    )
    record_selection: int = option(
        0,
        "sample 0 of the first so many problems: keep which blocks each step attended, for the report's map",
        minimum=0,
        operational=True,
    )
    record_requests: list[str] = option([], "more chains to record so, as 'problem/sample'", operational=True)


@dataclass
class GeneratorConfig:
    """Built-in problems that need no download."""

    name: str = option("registers", "kind of problem", choices=("registers", "program", "lookup"))
    steps: int = option(
        24, "length of the chain: register updates, assignments, or entries of the table", minimum=1
    )
    difficulty: int = option(1, "1: small numbers, few registers; larger is harder", minimum=1, maximum=5)


@dataclass
class ColumnsConfig:
    """Names of the dataset's columns."""

    id: str | None = option(None, "unique id; None: column 'id' if there is one, else the row number")
    question: str | None = option(
        None, "the problem's text; None: the first there is of question, problem, prompt"
    )
    messages: str | None = option(None, "a chat instead of a question: list of {role, content}")
    answer: str | None = option("answer", "the reference answer; None: nothing to grade against")


@dataclass
class TaskConfig:
    """What is asked, and how answers are graded."""

    name: str = option("registers", "label of the task in results and run names")
    data: str | None = option(
        None, "path or glob (.jsonl .parquet .csv), hub id; None: the built-in generator", path=True
    )
    subset: str | None = option(None, "hub datasets: configuration name")
    split: str = option("test", "hub datasets: split")
    columns: ColumnsConfig = section(ColumnsConfig)
    generator: GeneratorConfig = section(GeneratorConfig)
    limit: int | None = option(None, "only so many problems", minimum=1)
    shuffle: int | None = option(None, "seed of a shuffle before the limit; None: file order")
    prompt: str = option("{question}", "user message; {question} or any column in braces")
    system: str | None = option(None, "system message")
    thinking: bool | None = option(None, "enable_thinking of the chat template; None: the template's default")
    thinking_marks: list[str] | None = option(
        None,
        "[open, close] around the reasoning; None: as vocabulary and chat template have them; []: none",
    )
    few_shot: list[Any] = option([], "examples before the question: list of {question, answer}")
    grader: str = option("math", "math, choice, exact, none, or module:function(completion, answer) -> bool")
    grade_timeout: float = option(
        10.0, "a grader that takes longer costs the row its grade", unit="s", minimum=0.1
    )


@dataclass
class ClusterConfig:
    address: str | None = option(None, "Ray cluster; None: RAY_ADDRESS, else a local one")
    workers: int | None = option(None, "model replicas; None: as many as fit", minimum=1)
    num_gpus: float | None = option(
        None,
        "GPUs a worker (a rank, see engine.tensor_parallel); None: 1 where the cluster has GPUs, else 0",
        minimum=0,
    )
    num_cpus: float | None = option(
        None,
        "CPUs a worker (a rank); None: 1 with a GPU, else all of the smallest node, shared by its workers",
        minimum=0,
    )
    max_attempts: int = option(
        3,
        "a request whose worker died this often in a row, without a new token, becomes an error row",
        minimum=1,
    )
    startup_timeout: float = option(
        1800.0, "a worker must have loaded its model by then", unit="s", minimum=1
    )
    stuck_timeout: float = option(300.0, "a worker silent for so long is replaced", unit="s", minimum=1)
    report_interval: float = option(
        1.0, "partial tokens flow back this often: what a lost worker can cost", unit="s", minimum=0.01
    )


@dataclass
class ResultsConfig:
    folder: str = option(
        "runs", "where run folders are made: a path or any pyarrow filesystem URI", secret=True
    )
    report: bool = option(True, "write report.html, and its plots, at the end")
    part_rows: int = option(256, "completions in one Parquet part, at most", minimum=1)
    part_interval: float = option(10.0, "a finished completion is committed within", unit="s", minimum=0.0)
    progress_interval: float = option(
        10.0, "tokens of unfinished chains reach the disk within", unit="s", minimum=0.0
    )


@dataclass
class TrackingConfig:
    enabled: bool = option(True, "log to MLflow")
    uri: str | None = option(
        None, "MLflow server; None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db", secret=True
    )
    experiment: str = option("seer-ray", "MLflow experiment")
    interval: float = option(5.0, "live metrics this often", unit="s", minimum=0.1)
    traces: int = option(
        20, "chains of a run that MLflow gets as traces, spread over its problems", minimum=0
    )


@dataclass
class RacingConfig:
    """Stop sampling settings about which the answer is known."""

    enabled: bool = option(False, "stop settings that are surely worse than dense, or surely as good")
    margin: float = option(
        0.02, "accuracy that a setting may lose against dense", unit="share", minimum=0.001, maximum=0.5
    )
    alpha: float = option(
        0.05,
        "chance that any setting of the sweep is stopped as worse wrongly, and the same for as good",
        minimum=0.0001,
        maximum=0.5,
    )
    every: int = option(10, "problems between two looks; may be any number, looking is free", minimum=1)
    least: int = option(20, "problems before the first look", minimum=2)


@dataclass
class JobConfig:
    """What every job has: its name, a folder of results, tracking."""

    command: ClassVar[str]
    """Words after ``seer-ray`` that start it; its top file in ``conf/`` has them joined by ``_``."""

    name: str | None = option(None, "name of the run folder; None: made from the settings", operational=True)
    results: ResultsConfig = section(ResultsConfig, operational=True)
    tracking: TrackingConfig = section(TrackingConfig, operational=True)

    def about(self) -> list[str]:
        """What the run folder's name is made of, where none is given."""
        raise NotImplementedError


@dataclass
class RunConfig(JobConfig):
    """A dataset through a model."""

    command = "run"

    seed: int = option(0, "of all sampling noise", minimum=0, maximum=2**63 - 1)
    samples: int = option(1, "completions per problem", minimum=1)
    model: ModelConfig = section(ModelConfig)
    task: TaskConfig = section(TaskConfig)
    selector: SelectorConfig = section(SelectorConfig)
    plan: PlanConfig = section(PlanConfig)
    sampling: SamplingConfig = section(SamplingConfig)
    engine: EngineConfig = section(EngineConfig)
    cluster: ClusterConfig = section(ClusterConfig, operational=True)

    def about(self) -> list[str]:
        """Task, model and selector."""
        selector = self.selector
        width = "" if selector.name == "dense" else str(selector.budget)
        if width and selector.threshold is not None:
            width = f"-t{selector.threshold:g}"
        return [self.task.name, self.model.short, f"{selector.name}{width}"]


@dataclass
class SweepOptions:
    """Which points a sweep has, and how it goes through them."""

    grid: dict[str, Any] = option(
        {}, "options and groups with the values to combine, e.g. {selector: [quest, window]}"
    )
    points: list[Any] = option(
        [], "points by name: each 'selector=quest selector.budget=512' or a mapping of options"
    )
    baseline: bool = option(True, "add a dense point to compare with, where there is none", operational=True)
    round: int | None = option(
        None,
        "problems that every point finishes before the next ones are begun; None: four batches of requests",
        minimum=1,
        operational=True,
    )
    racing: RacingConfig = section(RacingConfig, operational=True)


@dataclass
class SweepConfig(RunConfig):
    """Several runs that differ in some options. The options of a run are those of the first point."""

    command = "sweep"

    sweep: SweepOptions = section(SweepOptions)

    def about(self) -> list[str]:
        """Task and model."""
        return [self.task.name, self.model.short, "sweep"]


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """All options of a config as (dotted name, value, metadata), depth first, in order of definition."""
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            whole = item.metadata.get("operational", False)
            for inner, setting, metadata in options(value, name + "."):
                yield inner, setting, metadata | {"operational": whole or metadata["operational"]}
        else:
            yield name, value, dict(item.metadata)
