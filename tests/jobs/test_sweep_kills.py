"""kill -9 a sweep at random moments: the same command finishes it, nothing is decoded twice, and the report
is that of a sweep which nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cluster.test_faults import SAME, Run, all_gone
from report.test_report import maps, unpack
from tiny import save_tiny

from seer_ray.config.compose import from_yaml, to_yaml
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder
from seer_ray.sweeps.points import expand, points_of

PROBLEMS, SAMPLES = 5, 2
KILLS = ("driver", "worker", "driver")


class SweepRun(Run):
    """A sweep folder and the processes that come and go on it."""

    patience = 300.0

    def __init__(self, place: Path, model: Path, data: Path, pace: float) -> None:
        place.mkdir()
        super().__init__(place, "sweep", model, data, pace, 60)
        base = SweepConfig(**vars(from_yaml(self.text, job=RunConfig)))
        base.samples = SAMPLES
        base.cluster.workers, base.sweep.round = 1, 2
        base.task.grader, base.engine.record_selection = "faults_driver:grade", 2
        self.sweep = expand(["selector=quest,window", "selector.budget=32"], base)
        self.config.write_text(to_yaml(self.sweep))

    def folders(self) -> dict[str, Path]:
        return {point.slug: self.folder / "points" / point.slug for point in points_of(self.sweep)}

    def plans(self) -> dict[str, str]:
        """Slug -> layer plan in the journal."""
        return {point["slug"]: point["plan"] for point in SweepFolder.view(str(self.folder)).points}

    def committed(self) -> set[str]:
        """Ids of the committed requests, as the journal has them."""
        found: set[str] = set()
        for slug, folder in self.folders().items():
            if (folder / "run.json").exists():
                plan = self.plans()[slug]
                keys = RunFolder.view(str(folder)).committed()
                found |= {f"{plan}|{problem}/{sample}" for problem, sample in keys}
        return found

    def saved(self) -> dict[str, int]:
        """Tokens on disk of the chains that are not done."""
        found: dict[str, int] = {}
        for slug, folder in self.folders().items():
            if (folder / "run.json").exists():
                text = (folder / "config.yaml").read_text()
                with RunFolder.open(str(folder), from_yaml(text)) as opened:
                    chains = opened.progress().chains
                plan = self.plans()[slug]
                found |= {f"{plan}|{id}": len(chain.tokens) for id, chain in chains.items() if chain.tokens}
        return found

    def done(self) -> bool:
        assert self.process.poll() in (None, 0), self.output()
        return self.process.poll() == 0

    def at_work(self, begun: int) -> bool:
        """Whether a request was given to a worker, from a place in the journal on."""
        assert self.process.poll() is None, f"too short for all kills, or failed: {self.output()}"
        return bool(self.begun(begun))

    def more_rows(self, than: int) -> bool:
        return self.done() or len(self.committed()) > than

    def point_rows(self) -> dict[str, pa.Table]:
        keys = [("problem_id", "ascending"), ("sample", "ascending")]
        return {
            slug: RunFolder.view(str(folder)).read(SAME).sort_by(keys)
            for slug, folder in self.folders().items()
        }


def timeless(page: str) -> dict[str, Any]:
    """What a report says, without times and speeds: texts, plots, and what its script shows."""
    data = unpack(page)
    for setting in data["settings"]:
        assert len(setting["chains"].pop("d")) == PROBLEMS * SAMPLES, "seconds"
    plots = dict(re.findall(r"<figure><h3>([^<]*)</h3>(.*?)</figure>", page, re.DOTALL))
    for about_time in ("Accuracy against time", "Speed"):
        del plots[about_time]
    # When and by which command it was made is another matter.
    made = r'<section id="made">.*?</section>'
    text = re.sub(rf"<figure>.*</figure>|<script.*?</script>|{made}", "", page, flags=re.DOTALL)
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text)
    rows = [re.findall(r"<td.*?</td>", row) for row in re.findall(r"<tr.*?</tr>", text)[1:]]
    for row in rows:
        assert "<td" in row.pop(heads.index("Tokens / s"))
    text = re.sub(r"<tbody>.*?</tbody>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"(, )?decode [\d.]+x dense \([^)]*\)", "", text)
    text = re.sub(r"; speed: [^;<]*?(?=;|\.\s|\.<)", "", text)
    text = re.sub(r"<b>[\d.,]+x?</b><span>(decoding speed against dense|tokens per second)</span>", "", text)
    return {"data": data, "maps": maps(page), "plots": plots, "rows": rows, "text": text}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_sweep_is_finished_with_no_request_repeated(tmp_path: Path, long: bool) -> None:
    model = save_tiny(tmp_path / "model", "qwen3", max_position_embeddings=2048)
    data = tmp_path / "data.jsonl"
    data.write_text(
        "\n".join(
            json.dumps({"id": f"p{n}", "question": f"What is {n} + {n * n}?", "answer": str(n + n * n)})
            for n in range(PROBLEMS)
        )
    )
    calm = SweepRun(tmp_path / "calm", model, data, pace=0.0)
    calm.start()
    calm.wait_for(calm.done, "the end")
    expected = calm.point_rows()
    assert {slug: table.num_rows for slug, table in expected.items()} == dict.fromkeys(
        ("dense", "quest-32", "window-32"), PROBLEMS * SAMPLES
    )

    run, chance = SweepRun(tmp_path / "killed", model, data, pace=0.1), random.Random(5)
    committed: set[str] = set()
    begun = run.start()
    for victim in KILLS if long else KILLS[:2]:
        before = len(run.committed()) if run.folder.exists() else 0
        run.wait_for(partial(run.more_rows, before), "another row")
        time.sleep(chance.uniform(0.0, 1.5))
        assert run.process.poll() is None, f"too short for all kills: {run.output()}"
        if victim == "worker":
            for pid in run.descendants("ray::Worker"):
                os.kill(pid, signal.SIGKILL)
            continue
        family = run.descendants("ray::Worker", "raylet", "gcs_server")
        run.process.kill()
        run.process.wait()
        run.wait_for(partial(all_gone, family), "the end of what a driver leaves")
        assert not set(run.begun(begun)) & committed, "a committed request was decoded again"
        committed, saved = run.committed(), run.saved()
        begun = run.start()
        run.wait_for(partial(run.at_work, begun), "work")
        for id, lengths in run.begun(begun).items():
            assert lengths[0] >= saved.get(id, 0), f"{id} lost tokens that were on disk"
    run.pace = 0.0
    run.wait_for(run.done, "the end")
    assert not set(run.begun(begun)) & committed, "a committed request was decoded again"
    found = run.point_rows()
    for slug, table in expected.items():
        for column in SAME:
            assert found[slug][column].to_pylist() == table[column].to_pylist(), (slug, column)
    assert {point["state"] for point in SweepFolder.view(str(run.folder)).points} == {"done"}
    wanted, report = (timeless((one.folder / "report.html").read_text()) for one in (calm, run))
    assert len(wanted["maps"]) == 2 * len(expected) and len(wanted["rows"]) == len(expected)
    assert {"Accuracy against budget", "Accuracy against dense, paired"} <= set(wanted["plots"])
    for part, said in wanted.items():
        assert report[part] == said, part
    judged = [json.loads((one.folder / "recommendation.json").read_text()) for one in (calm, run)]
    for (one,) in judged:
        for assessment in one["assessments"]:
            assert assessment.pop("speed") and assessment["cost"].pop("seconds") > 0
    assert [a["difference"] for a in judged[0][0]["assessments"]] == [
        a["difference"] for a in judged[1][0]["assessments"]
    ]
