"""Every option of a run or a sweep, once: type, default, unit, meaning and bounds (``config.checks`` holds to
them); ``config.training`` has those of training, ``config.measuring`` those of jobs that measure.

Plain dataclasses (no OmegaConf here), so that the engine can be used where neither Hydra nor Ray is
installed. ``seer_ray.config.compose`` turns command lines and YAML files into these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from seer_ray.config.fields import MOST_DRAFTED, option, section
from seer_ray.config.selecting import ModelConfig, PlanConfig, SelectorConfig

MOST_LOGPROBS = 20
"""As in the API of OpenAI."""


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
    presence_penalty: float = option(
        0.0, "taken from the logits of tokens generated before; 0 is off", minimum=-2.0, maximum=2.0
    )
    frequency_penalty: float = option(
        0.0, "the same, times how often they were generated; 0 is off", minimum=-2.0, maximum=2.0
    )
    min_new_tokens: int = option(
        0, "before so many there is no end token, and stop strings are text", unit="tokens", minimum=0
    )
    logprobs: int | None = option(
        None,
        "keep the log-probability of each token, and of so many of the most likely ones; None: of none",
        minimum=0,
        maximum=MOST_LOGPROBS,
    )
    stop: list[str] = option([], "strings that end a completion")
    ignore_eos: bool = option(False, "go on to max_new_tokens (benchmarks)")
    thinking_budget: int | None = option(
        None, "longest thinking, after which its end is forced; None: no limit", unit="tokens", minimum=0
    )
    thinking_end: str | None = option(
        None,
        "what is forced there, such as a sentence with the closing mark behind it; None: the closing mark",
    )


@dataclass
class SequentialConfig:
    """Stop sampling a problem when its majority answer is decided."""

    enabled: bool = option(False, "sample each problem until its majority answer is decided, samples at most")
    error: float = option(
        0.05,
        "chance that a problem is stopped at an answer that is not the one which the model gives most often; "
        "0: stopped only where the samples to come cannot change the majority",
        minimum=0.0,
        maximum=0.5,
    )
    every: int = option(
        4, "samples of a problem between two looks; accuracy (avg@k) is of the first so many", minimum=1
    )


@dataclass
class EngineConfig:
    block_size: int = option(64, "page of the KV cache = block of the selection", unit="tokens", minimum=1)
    max_batch: int | None = option(
        None, "sequences decoded together, at most; None: as many as fit", minimum=1, bits=True
    )
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
    speculate: str = option(
        "0",
        "tokens drafted before a dense pass decides them: rows are those of selector=dense, selector and "
        "plan only draft; 0: off; auto: as many as measured times and each row's acceptance say",
        choices=("0", *map(str, range(1, MOST_DRAFTED + 1)), "auto"),
        operational=True,
    )
    drafter: str = option(
        "selector",
        "what drafts: sparse steps, as selector and plan say; n-grams of the prompt and of the chain itself; "
        "or these where they are found and else those",
        choices=("selector", "ngram", "both"),
        operational=True,
    )
    require_fast: bool = option(
        False, "refuse, with the reason, settings whose decode steps cannot be captured", operational=True
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


CHAINED = ("registers", "program", "lookup")
RETRIEVED = (
    "needle",
    "needle_keys",
    "needle_values",
    "needle_queries",
    "tracking",
    "common_words",
    "frequent_words",
    "documents",
)


@dataclass
class GeneratorConfig:
    """Built-in problems that need no download."""

    name: str = option(
        "registers",
        "kind of problem: a chain of steps (the first three), or a question about a long text",
        choices=(*CHAINED, *RETRIEVED),
    )
    steps: int = option(
        24,
        "chains: how many register updates, assignments, or entries of the table",
        minimum=1,
    )
    difficulty: int = option(
        1, "1: small numbers, few registers, keys or chains; larger is harder", minimum=1, maximum=5
    )
    length: int = option(4096, "texts: longest question, the text included, in units", minimum=8)
    unit: str = option(
        "words",
        "of length; tokens: those of the model's tokenizer, without the chat template's",
        choices=("words", "tokens"),
    )
    documents: str | None = option(
        None,
        "documents: rows of {document, question, answer}, a path or glob (.jsonl .parquet .csv) or hub id; "
        "each question is asked of its own document among those of other rows",
        path=True,
    )


@dataclass
class ColumnsConfig:
    """Names of the dataset's columns."""

    id: str | None = option(None, "unique id; None: column 'id' if there is one, else the row number")
    question: str | None = option(
        None, "the problem's text; None: the first there is of question, problem, prompt"
    )
    messages: str | None = option(None, "a chat instead of a question: list of {role, content}")
    answer: str | None = option("answer", "the reference answer; None: nothing to grade against")
    keep: list[str] = option(
        [], "columns that the results keep, such as [subject,level]: to group and to filter by"
    )
    sampling: str | None = option(
        None, "settings of the row's own, under the names of the body of an OpenAI batch: struct or JSON"
    )


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
    prompt: str = option(
        "{question}", "user message; {question} or any column in braces; @FILE: what stands in a file"
    )
    template: str = option(
        "braces",
        "what task.prompt is: text with columns in braces, or Jinja, as files that end in .jinja or .j2",
        choices=("braces", "jinja"),
    )
    system: str | None = option(None, "system message; @FILE: what stands in a file")
    thinking: bool | None = option(None, "enable_thinking of the chat template; None: the template's default")
    thinking_marks: list[str] | None = option(
        None,
        "[open, close] around the reasoning; None: as vocabulary and chat template have them; []: none",
    )
    few_shot: list[Any] = option([], "examples before the question: list of {question, answer}")
    document: str | None = option(
        None,
        "column with the part of the prompt that a sparse prefill may read sparsely; the rest stays dense. "
        "None: all of the prompt; of built-in problems about a text, that text",
    )
    grader: str = option(
        "math",
        "math, choice, exact, contains_all, contains_any (references), f1 (words in common), rouge_l, none, "
        "or module:function(completion, answer) -> bool",
    )
    on_bad_row: str = option(
        "error-row",
        "a row that cannot be read or rendered: becomes a row with its error, or refuses the run",
        choices=("error-row", "refuse"),
        operational=True,
    )
    grade_timeout: float = option(
        10.0, "a grader that takes longer costs the row its grade", unit="s", minimum=0.1
    )
    grade_processes: int | None = option(
        None,
        "rows graded at a time, at most; None: the cores of the driver's machine but one, 8 at most",
        minimum=1,
        operational=True,
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
        "a request whose worker died this often in a row, without a new token and at last with it alone, "
        "becomes an error row",
        minimum=1,
    )
    max_deaths: int = option(
        3,
        "the job stops when this many workers in a row died before a new token came from anywhere",
        minimum=1,
    )
    max_failed_starts: int | None = option(
        None,
        "a worker's place is given up after this many failed starts in a row; None: never, while others work",
        minimum=1,
    )
    startup_timeout: float = option(
        1800.0, "a worker must have loaded its model by then", unit="s", minimum=1
    )
    stuck_timeout: float = option(300.0, "a worker silent for so long is replaced", unit="s", minimum=1)
    report_interval: float = option(
        1.0, "partial tokens flow back this often: what a lost worker can cost", unit="s", minimum=0.01
    )


ALL = "all"
ERROR_KINDS = ("input", "engine", "worker")
"""Of error rows: what the row asks cannot be asked, the engine cannot do it, workers died of it."""


@dataclass
class ResultsConfig:
    folder: str = option(
        "runs", "where run folders are made: a path or any pyarrow filesystem URI", secret=True
    )
    report: bool = option(True, "write report.html, and its plots, at the end")
    max_error_rate: float = option(
        0.5,
        "a job of which a larger share of the rows are errors has failed (exit code 1)",
        unit="share",
        minimum=0.0,
        maximum=1.0,
    )
    retry_errors: list[str] = option(
        [],
        "error rows of these kinds are decoded anew when the run is gone on with: input, engine, worker, all",
    )
    max_outage: float = option(
        6 * 3600.0,
        "storage that is no disk of this machine is tried again for so long; finished rows wait on disk",
        unit="s",
        minimum=0.0,
    )
    part_rows: int = option(256, "completions that are committed at once, at most", minimum=1)
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
    sequential: SequentialConfig = section(SequentialConfig)
    engine: EngineConfig = section(EngineConfig)
    cluster: ClusterConfig = section(ClusterConfig, operational=True)

    def about(self) -> list[str]:
        """Task, model and selector."""
        selector = self.selector
        amount = "" if selector.name == "dense" else selector.amount
        said = f"{selector.name}{amount}" if amount.isdigit() else f"{selector.name}-{amount}".strip("-")
        drafted = f"-speculate{self.engine.speculate}" if self.engine.speculate != "0" else ""
        return [self.task.name, self.model.short, said + drafted]


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
        "problems that every point finishes before the next ones are begun; None: four batches of requests, "
        "or as few as make four rounds, of a batch at least",
        minimum=1,
        operational=True,
    )
    racing: RacingConfig = section(RacingConfig, operational=True)


@dataclass
class SweepConfig(RunConfig):
    """Several runs that differ in some options. The options of a run are those of the first point."""

    command = "sweep"
    usual: ClassVar[str | None] = None
    """The choice of ``sweep`` where nothing says what is swept."""

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
