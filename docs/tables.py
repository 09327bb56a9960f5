"""The tables of these pages that say what the code says: ``python docs/tables.py`` writes them anew.

The table of a name stands between ``<!-- table NAME -->`` and ``<!-- end -->`` of a page.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from seer_ray.analysis.metrics import GAUGES, METRICS
from seer_ray.config.command import typed
from seer_ray.config.compose import GROUPS, choices, top_file
from seer_ray.config.options import SamplingConfig, options
from seer_ray.config.overrides import describe, option_types
from seer_ray.config.selectors import SELECTORS
from seer_ray.jobs.kinds import KINDS
from seer_ray.models.families import FAMILIES, TEXT_PARTS, lacking
from seer_ray.models.mixers import MIXERS
from seer_ray.results.schema import COLUMNS
from seer_ray.tasks.asked import LABELS, ONLY, SAMPLING
from seer_ray.tasks.structured import FORMS

FOLDER = Path(__file__).parent
EVERYWHERE = ("results", "tracking")
"""Sections of every job, which come last."""
JOBS: list[Any] = [kind.config for kind in KINDS]
NAMED = ("name", "unit", "what it is")
LIVE = {
    "live/running": ("chains", "in the workers"),
    "live/queued": ("chains", "waiting for a worker"),
    "live/to_grade": ("rows", "finished, waiting for their grades"),
    "live/workers": ("workers", "ready"),
    "live/tokens_per_s": ("tokens/s", "over the last while, all workers together"),
}
"""Gauges that are no metric of a finished run -> unit, meaning."""
OF_A_BODY = {
    ("logit_bias",): "what is added to the logits of tokens, by id",
    ("stop_token_ids",): "end tokens beside the model's",
    ("n", "best_of"): "`samples`; both must be the same",
    ("seed",): "`seed`",
    ("thinking_token_budget",): "`sampling.thinking_budget`",
    ("logprobs", "top_logprobs"): "`sampling.logprobs`: a flag and a number, or a number alone",
    ("model",): "nothing: must be the run's model, by its name or the last part of it",
    ("chat_template_kwargs", "reasoning_effort"): "values for the chat template, which must know them",
    tuple(FORMS): "structured output: JSON, a JSON schema, a regular expression, one of some texts",
}
"""Keys of a batch line's body that are no option of one name -> what they set."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


def _typed(value: Any) -> str:
    """As on a command line, on one line."""
    return typed(value).replace("\n", "\\n")


def option_tables() -> str:
    """All options, section by section, each with the commands that have it."""
    sections: dict[tuple[str, str], list[str]] = {}
    for job in JOBS:
        types, rows = option_types(job), dict[str, list[list[str]]]()
        for name, default, meta in options(job()):
            rows.setdefault(name.rpartition(".")[0], []).append(
                [
                    code(name),
                    code(_typed(default)),
                    ", ".join([*(meta["choices"] or ()), *([meta["own"]] if meta["own"] else [])])
                    or describe(types[name]).removeprefix("a "),
                    f"{meta['help']}{_bounds(meta)}".replace("None:", "null:"),
                    _on_resume(meta),
                ]
            )
        heads = ("option", "default", "type", "meaning", "may change on resume")
        for section, lines in rows.items():
            sections.setdefault((section, table(heads, lines)), []).append(job.command)
    ordered = sorted(sections.items(), key=lambda item: item[0][0].partition(".")[0] in EVERYWHERE)
    return "\n".join(
        f"### {section or 'The job itself'}: {', '.join(commands)}\n\n{lines}"
        for (section, lines), commands in ordered
    )


def _on_resume(meta: dict[str, Any]) -> str:
    """Whether an option may differ from the folder's."""
    if meta["bits"]:
        return "yes, unless `engine.exact`"
    return "yes" if meta["operational"] else ""


def _bounds(meta: dict[str, Any]) -> str:
    """Unit and bounds of an option, in brackets."""
    limits = {"at least": meta["minimum"], "at most": meta["maximum"], "above": meta["above"]}
    said = [meta["unit"], *(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)]
    return f" ({', '.join(filter(None, said))})" if any(said) else ""


def choice_table() -> str:
    """Choices of the option groups, with what each sets."""
    found = [(group, name, f"{group}/{name}.yaml") for group in GROUPS for name in choices(group)]
    return table(
        ("choice", "sets"), ([code(f"{group}={name}"), _sets(file, group)] for group, name, file in found)
    )


def top_table() -> str:
    """What each command begins with."""
    return table(("command", "sets"), ([code(job.command), _sets(f"{top_file(job)}.yaml")] for job in JOBS))


def _sets(file: str, group: str = "") -> str:
    """Options and choices that a file of ``conf/`` sets."""
    text = resources.files("seer_ray.conf").joinpath(file).read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    chosen = [entry for entry in values.pop("defaults", ()) if isinstance(entry, dict)]
    picked = [code(f"{name}={choice}") for entry in chosen for name, choice in entry.items() if choice]
    prefix = f"{group}." if group and "@package _global_" not in text else ""
    return ", ".join([*picked, *(code(f"{name}={_typed(of)}") for name, of in _flat(values, prefix))])


def _flat(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Sections into dotted names; mappings that are the value of an option stay whole."""
    mappings = {name for job in JOBS for name, default, _ in options(job()) if isinstance(default, dict)}
    for name, of in values.items():
        if isinstance(of, dict) and f"{prefix}{name}" not in mappings:
            yield from _flat(of, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", of


def selector_table() -> str:
    """The selectors."""
    yes = {True: "yes", False: ""}
    return table(
        ("selector", "ranks blocks by", "needs gates", "takes a threshold or a mass", "reads all keys"),
        (
            [code(name), of.help, yes[of.gates], yes[of.threshold], yes[of.reads_all_keys]]
            for name, of in SELECTORS.items()
        ),
    )


def model_table() -> str:
    """The model types that can be decoded."""
    parts = {text: whole for whole, text in TEXT_PARTS.items()}
    return table(
        ("model type", "and the text part of", "runs", "layers", "experts", "cannot"),
        (
            [
                code(name),
                code(parts[name]) if name in parts else "",
                of.runs,
                ", ".join(of.layers),
                "may have" if of.experts else "",
                ", ".join(lacking(hosted=of.hosted, layers=of.layers)),
            ]
            for name, of in sorted(FAMILIES.items())
        ),
    )


def layer_table() -> str:
    """The kinds of layers."""
    return table(
        ("layer", "in transformers", "mixes tokens by", "keeps of a sequence"),
        ([code(name), ", ".join(map(code, of.native)), of.help, of.keeps] for name, of in MIXERS.items()),
    )


def schema_table() -> str:
    """The columns of a completions file."""
    return table(
        ("column", "type", "unit", "null", "meaning"),
        ([code(c.name), str(c.type), c.unit, "yes" if c.nullable else "", c.meaning] for c in COLUMNS),
    )


def metric_table() -> str:
    """The metrics of a run."""
    return table(NAMED, ([code(metric.name), metric.unit, metric.meaning] for metric in METRICS))


def live_table() -> str:
    """What MLflow is told while the job runs."""
    known = LIVE | {m.name: (m.unit, m.meaning) for m in METRICS}
    return table(NAMED, ([code(name), *known[name]] for name in GAUGES))


def key_table() -> str:
    """The keys of a batch line's body."""
    options_of = {field.name for field in dataclasses.fields(SamplingConfig)}
    own = [((key,), code(f"sampling.{field}")) for key, (field, _) in SAMPLING.items() if field in options_of]
    only = ", ".join(f"{code(key)} ({' or '.join(map(json.dumps, ways))})" for key, ways in ONLY.items())
    return table(
        ("key", "sets"),
        (
            *([", ".join(map(code, keys)), what] for keys, what in (*own, *OF_A_BODY.items())),
            [", ".join(map(code, LABELS)), "nothing: about no completion"],
            [only, "nothing: other values are refused"],
        ),
    )


TABLES: dict[str, Callable[[], str]] = {
    "options": option_tables,
    "choices": choice_table,
    "commands": top_table,
    "selectors": selector_table,
    "models": model_table,
    "layers": layer_table,
    "schema": schema_table,
    "metrics": metric_table,
    "live": live_table,
    "keys": key_table,
}


def filled(page: str) -> str:
    """A page with its tables as the code has them now."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.md")):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
