"""What summing up a run of many long rows costs: ``python tests/results/many_rows.py FOLDER ROWS TOKENS``.

Makes the run if it is not there, then prints a JSON line for each step with its seconds and the largest
resident memory (MiB) of a process that does that alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))
from results.sample import CONFIG, row

from seer_ray.results import schema
from seer_ray.results.folder import RunFolder

AT_ONCE = 256
SAMPLES = 4


def make(folder: str, rows: int, tokens: int) -> None:
    """A run of so many rows of so many tokens, four samples a problem, one in a hundred an error."""
    words = " ".join(f"word{number % 997}" for number in range(tokens // 2))
    with RunFolder.open(folder, CONFIG) as run:
        begun = len(run.committed())
        for first in range(begun, rows, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, rows))
            made = [
                row(
                    f"p{number // SAMPLES}",
                    number % SAMPLES,
                    token_ids=list(range(tokens)) if number == first else [],
                    completion=words,
                    completion_tokens=tokens,
                    correct=number % 3 > 0,
                    error="its worker died" if number % 100 == 0 else None,
                )
                for number in numbers
            ]
            table = schema.table(made, run._ledger.metadata)
            ids = pa.array([list(range(tokens))], pa.list_(pa.int32())).take(pa.array([0] * len(made)))
            place = table.column_names.index("token_ids")
            table = table.set_column(place, table.schema.field(place), ids)
            run._ledger.commit(table, [(one["problem_id"], one["sample"]) for one in made])


def act(step: str, folder: str) -> None:
    from seer_ray.analysis import errors, metrics

    if step == "open":
        len(RunFolder.view(folder).committed())
    elif step == "sum up":
        run = RunFolder.view(folder)
        metrics.summarise(run.stream(metrics.COLUMNS))
        errors.error_kinds(run.stream(errors.COLUMNS))
    elif step == "resume":
        from seer_ray.analysis.rows import Totals

        with RunFolder.open(folder, CONFIG) as run:
            totals = Totals()
            for batch in run.stream(Totals.COLUMNS):
                totals.add(batch)
            run.progress()
    elif step == "export":
        from seer_ray.results.export import openai_batch

        openai_batch(RunFolder.view(folder), f"{folder}.jsonl")
        Path(f"{folder}.jsonl").unlink()
    elif step == "report":
        from seer_ray.analysis.comparison import compare
        from seer_ray.report.html import write_report
        from seer_ray.results.store import open_store

        write_report(compare([folder]), "many", open_store(folder), print)


def main() -> None:
    if sys.argv[1] == "--step":
        began = time.monotonic()
        act(*sys.argv[2:])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"step": sys.argv[2], "s": round(time.monotonic() - began, 1), "peak_mib": peak}))
        return
    folder, rows, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make(folder, rows, tokens)
    for step in ("nothing", "open", "sum up", "resume", "export", "report"):
        subprocess.run([sys.executable, __file__, "--step", step, folder], check=True)


if __name__ == "__main__":
    main()
