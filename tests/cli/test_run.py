"""``seer-ray run``: exit codes, what goes to which stream, and what is said when it goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types

import pytest

from seer_ray.cli.complete import complete_override
from seer_ray.config.compose import compose, from_yaml, to_yaml
from seer_ray.config.errors import ConfigError, FolderGone, Interrupted, JobError, NotWritten
from seer_ray.config.options import SweepConfig
from seer_ray.jobs.load import load_config

from .conftest import one_error


def test_done(invoke, job):
    result = invoke("run", "selector=dense", "name=mine")
    assert result.exit_code == 0
    assert job.config.selector.name == "dense"
    assert "mine" in result.stdout and "50.0 % (25.0 to 75.0), 95 % interval" in result.stdout
    assert "runs/mine/completions/*.parquet" in result.stdout
    assert "1 row with a reason in place of an answer, counted as wrong" in result.stdout
    assert "a note" in result.stderr


def test_the_job_gets_the_name_that_the_settings_make(invoke, job):
    invoke("run")
    assert job.config.name.startswith("program-reasoner-seer208-")


def test_json_is_all_there_is_on_stdout(invoke, job):
    job.metrics["length/mean_tokens"] = float("nan")
    result = invoke("run", "--json", "name=mine")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (
        said["name"] == "mine" and said["folder"] == "runs/mine" and said["rows"] == 4 and said["errors"] == 1
    )
    assert said["metrics"] == job.metrics | {"length/mean_tokens": None}
    assert "somebody prints" in result.stderr


SCRIPT = """
import os, signal, subprocess, sys, types
from seer_ray.status.live import LiveStats, Summary
def job(config, reporter):
    reporter.start(LiveStats())
    {body}
    return Summary("x", "runs/x")
module = types.ModuleType("seer_ray.jobs.run")
module.main = job
sys.modules[module.__name__] = module
from seer_ray.cli.app import main
main()
"""


def test_json_keeps_out_what_c_code_and_children_print():
    body = """os.write(1, b"from C\\n"); subprocess.run([sys.executable, "-c", "print('from a child')"])"""
    command = [sys.executable, "-c", SCRIPT.format(body=body), "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "x"
    assert "from C" in done.stderr and "from a child" in done.stderr


def test_control_c_is_exit_130_with_the_way_to_go_on():
    script = SCRIPT.format(body="print('ready', flush=True); signal.pause()")
    command = [sys.executable, "-c", script, "run", "name=mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said.endswith("interrupted; nothing is lost, go on with: seer-ray resume mine\n")
    assert "Traceback" not in said


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), Interrupted("stopped")])
def test_interrupted_says_how_to_go_on(invoke, job, stopped):
    def then():
        raise stopped

    job.then = then
    result = invoke("run", "name=mine")
    assert result.exit_code == 130
    assert result.stderr.endswith("go on with: seer-ray resume mine\n") and "Traceback" not in result.stderr
    result = invoke("run", "name=mine", "results.folder=else/where", "--json")
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr.endswith("go on with: seer-ray resume else/where/mine\n")


@pytest.mark.parametrize(
    ("error", "code", "message", "traceback"),
    [
        (ConfigError("task.data=x: no such file"), 2, "error: task.data=x: no such file\n", False),
        (JobError("no worker\nstarts"), 1, "error: no worker starts; what is finished is kept", False),
        (NotWritten("x: full"), 1, "error: x: full; what was committed before is kept, go on", False),
        (ZeroDivisionError("oh"), 1, "error: unexpected ZeroDivisionError, which is a bug", True),
    ],
)
def test_failures_have_their_exit_codes(invoke, job, error, code, message, traceback):
    def then():
        raise error

    job.then = then
    result = invoke("run", "name=mine")
    assert result.exit_code == code
    assert result.stderr.splitlines(keepends=True)[-1].startswith(message)
    assert ("Traceback" in result.stderr) == traceback
    assert ("seer-ray resume mine" in result.stderr) == (code == 1)


def test_a_folder_that_is_gone_is_not_gone_on_with(invoke, job):
    def then():
        raise FolderGone("runs/mine: the folder is gone")

    job.then = then
    result = invoke("run", "name=mine")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "error: runs/mine: the folder is gone")


def test_config_file_then_overrides(invoke, job, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 7\nselector: {name: window, budget: 512}\n")
    assert invoke("run", "--config", "mine.yaml", "selector.budget=1024").exit_code == 0
    assert (job.config.seed, job.config.selector.name, job.config.selector.budget) == (7, "window", 1024)
    assert job.config.task.generator.steps == compose().task.generator.steps
    (tmp_path / "resolved.yaml").write_text(to_yaml(compose(["task=gsm8k", "name=again"])))
    assert invoke("run", "--config", "resolved.yaml", "selector=dense").exit_code == 0
    assert job.config == compose(["task=gsm8k", "name=again", "selector=dense"], base=compose(["task=gsm8k"]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["run", "selector.buget=1024"],
            "selector.buget=1024: no such option; did you mean selector.budget?",
        ),
        (["run", "engine.max_batch=many"], "engine.max_batch=many: must be a whole number"),
        (["run", "selector.budget=12"], "selector.budget=12: must be at least two blocks, 16 tokens"),
        (["run", "selector=qest"], "selector=qest: no such choice"),
        (["run", "nonsense"], "nonsense: must be option=value"),
        (["run", "--budget", "3"], "No such option: --budget"),
        (["run", "--config", "no.yaml"], "--config no.yaml: cannot be read (No such file or directory)"),
        (["run", "--config", "."], "--config .: cannot be read (Is a directory)"),
        (["rnu"], "No such command 'rnu'"),
        (["resume"], "Missing argument 'RUN'"),
        (["resume", "nothing"], "nothing: no such run in runs"),
        (["status", "nothing"], "nothing: no such run in runs"),
        (["status", ".."], "..: no such run in runs"),
        (["status", ""], ": no such run in runs"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(invoke, job, args, message):
    assert one_error(invoke(*args)).startswith(message)
    assert job.config is None


def test_a_mistake_is_told_before_anything_heavy_is_imported():
    script = """
import sys
import types
from seer_ray.cli.app import main
try:
    main()
finally:
    heavy = {"torch", "ray", "mlflow", "transformers", "pyarrow", "datasets"} & set(sys.modules)
    assert not heavy, heavy
"""
    for args, code in ((["run", "seeed=1"], 2), (["--help"], 0), (["--version"], 0), (["options"], 0)):
        done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "selector.budget" in done.stdout


def test_a_job_loads_what_decodes_in_its_workers_only():
    """The driver of a job that is done needs no torch, and the one that makes prompts no modelling code."""
    script = """
import sys
import types
import seer_ray.jobs.run, seer_ray.jobs.sweep
heavy = {"torch", "ray", "mlflow", "transformers"} & set(sys.modules)
assert not heavy, heavy
import seer_ray.driver.requests
assert "transformers.modeling_utils" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_command_shows_the_help(invoke):
    result = invoke()
    assert result.exit_code == 0 and "resume" in result.stdout


def test_options_are_listed_with_type_default_and_meaning(invoke):
    result = invoke("options", "engine.bl")
    text = " ".join(result.stdout.split())
    assert "engine.block_size=8 page of the KV cache" in text and "(whole number, tokens)" in text
    assert "selector" not in invoke("options", "engine.").stdout.split("\n")[3]
    assert one_error(invoke("options", "engin.")).startswith(
        "engin.: no option has it in its name or meaning"
    )


def test_options_of_a_command_and_a_search(invoke):
    text = " ".join(invoke("options", "distill", "learning rate").stdout.split())
    assert "train.lr=0.001" in text and "train.min_lr" in text and "train.steps" not in text
    assert "sets=null" in invoke("options", "gates", "eval", "sets").stdout
    found = " ".join(invoke("options", "nucleus").stdout.split())
    assert "sampling.top_p=null nucleus mass" in found and "sampling.top_k" not in found
    assert all(len(line) <= 80 for line in invoke("options").stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("run", "max_tokens=9"), "sampling.max_new_tokens"),
        (("run", "model_path=x"), "model.name"),
        (("run", "n=4"), "samples"),
        (("run", "limit=4"), "task.limit"),
        (("run", "tasks=gsm8k"), "task"),
        (("run", "tensor_parallel_size=2"), "engine.tensor_parallel"),
        (("run", "sampling.max_tokens=9"), "sampling.max_new_tokens"),
        (("distill", "learning_rate=1"), "train.lr"),
        (("sweep", "max_num_seqs=1,2"), "engine.max_batch"),
    ],
)
def test_names_of_other_programs(invoke, job, words, meant):
    assert one_error(invoke(*words)).endswith(f"no such option; did you mean {meant}?")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("run", "--limit", "8"), "task.limit=..."),
        (("run", "--model", "Qwen/Qwen3-4B"), "model=..."),
        (("run", "--max-tokens", "9"), "sampling.max_new_tokens=..."),
        (("run", "--tasks", "gsm8k"), "task=..."),
        (("pretrain", "--max_steps", "9"), "train.steps=..."),
    ],
)
def test_flags_of_other_programs(invoke, job, words, meant):
    said = one_error(invoke(*words))
    assert said == f"No such option: {words[1]} (options of a job are written name=value: {meant})"


def test_the_options_as_they_are_resolved(invoke, job):
    result = invoke("run", "selector=quest", "name=mine", "--print-config")
    assert result.exit_code == 0 and job.config is None
    assert from_yaml(result.stdout) == compose(["selector=quest", "name=mine"])


def test_a_model_without_gates_says_what_selects(invoke, job):
    result = invoke("run", "model.name=Qwen/Qwen3-4B")
    assert result.stderr.splitlines()[0] == (
        "note: selector=quest, as Qwen3-4B comes without gates (model.gates; seer-ray distill trains some); "
        "selector=dense reads everything"
    )
    for words in (("selector=quest",), ("selector.name=quest",), ("selector=dense",)):
        assert "without gates" not in invoke("run", "model.name=Qwen/Qwen3-4B", *words).stderr
    assert "without gates" not in invoke("run").stderr
    notes: list[str] = []
    for words in (["selector.budget=256,512"], ["selector=quest,window"], ["sweep=selectors"]):
        load_config(None, ["model.name=Qwen/Qwen3-4B", *words], SweepConfig, note=notes.append)
    assert len(notes) == 1, "of the first alone"


def test_a_prompt_from_a_file(invoke, job, tmp_path):
    (tmp_path / "prompt.jinja").write_text("{{ question }}\n{% if level %}Level {{ level }}.{% endif %}\n")
    assert invoke("run", "task.prompt=@prompt.jinja", "name=mine").exit_code == 0
    task = job.config.task
    assert (task.prompt, task.template) == (
        "{{ question }}\n{% if level %}Level {{ level }}.{% endif %}",
        "jinja",
    )
    (tmp_path / "plain.txt").write_text("Say ${it} of {question}")
    assert invoke("run", "task.prompt=@plain.txt", "task.system=@plain.txt", "name=mine").exit_code == 0
    assert (job.config.task.prompt, job.config.task.template) == ("Say ${it} of {question}", "braces")
    assert job.config.task.system == "Say ${it} of {question}"
    refused = one_error(invoke("run", "task.prompt=@none.txt"))
    assert refused == "task.prompt=@none.txt: cannot be read (No such file or directory)"


def test_words_that_a_shell_may_complete():
    context = types.SimpleNamespace(command_path="seer-ray run")
    assert complete_override(context, "selector.bud") == ["selector.budget="]
    assert complete_override(context, "selector=q") == ["selector=quest"]
    assert complete_override(context, "engine.exact=") == ["engine.exact=true", "engine.exact=false"]
    assert "train.lr=" in complete_override(types.SimpleNamespace(command_path="seer-ray distill"), "train.")


def test_a_line_break_typed_as_two_characters(invoke, job):
    result = invoke(
        "run", r"""sampling.stop=["\n\n"]""", r"task.prompt={question} \nabla \boxed{}", "name=mine"
    )
    assert result.exit_code == 0
    assert (job.config.sampling.stop, job.config.task.prompt) == ([r"\n\n"], r"{question} \nabla \boxed{}")
    [line] = [line for line in result.stderr.splitlines() if "is read as" in line]
    assert r"sampling.stop: \n is read as it is typed" in line
    assert invoke("run", 'sampling.stop=["\n\n"]', "name=mine").stderr.count("is read as") == 0
    assert job.config.sampling.stop == ["\n\n"]


def test_a_failed_run_shows_what_it_came_to_and_has_nothing_to_go_on_with(invoke, job):
    job.failure = "the prompt is too long (all 4 rows); mend it and give the run another name"
    result = invoke("run", "name=mine")
    assert result.exit_code == 1 and "runs/mine/completions/*.parquet" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: the prompt is too long (all 4 rows); mend it and give the run another name"
    )
