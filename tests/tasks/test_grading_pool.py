"""Graders that raise, hang and crash cost their own row its grade, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from seer_ray.config.errors import ConfigError, JobError
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.grading import Grade, GradingPool

GRADER = """
import os, re, signal, subprocess, sys, threading, time

def grade(completion, answer):
    if completion == "raise":
        raise ValueError("no")
    if completion == "sleep":
        time.sleep(10**6)
    if completion == "hang":  # In C, with the interpreter held.
        os.write(2, b"hanging\\n")
        re.match("(a+)+$", "a" * 100 + "b")
    if completion == "exit":
        os._exit(3)
    if completion == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if completion == "print":
        print("printed")
    if completion == "thread":
        threading.Thread(target=time.sleep, args=(10**6,)).start()
    if completion == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10**6)"])
        time.sleep(10**6)
    if completion == "orphan":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10**6)"])
        os._exit(3)
    if completion == "pid":
        return str(os.getpid())
    if completion == "modules":
        return ",".join({"torch", "ray", "pyarrow", "transformers"} & set(sys.modules))
    return completion == answer
"""


@pytest.fixture
def grader(tmp_path, monkeypatch):
    (tmp_path / "pool_grader.py").write_text(GRADER)
    monkeypatch.syspath_prepend(tmp_path)
    return "pool_grader:grade"


def collect_all(pool):
    grades = {}
    while pool.pending:
        for key, grade in pool.collect(timeout=60):
            assert key not in grades
            grades[key] = grade
    return grades


def one(pool, text, answer="5"):
    pool.submit("row", text, answer)
    return collect_all(pool)["row"]


def test_a_bad_row_costs_its_own_grade_only(grader):
    texts = ["5", "raise", "6", "sleep", "5", "hang", "5", "exit", "6", "kill", "5"]
    with GradingPool(TaskConfig(grader=grader, grade_timeout=2.0, grade_processes=2)) as pool:
        for key, text in enumerate(texts):
            pool.submit(key, text, "5")
        assert pool.pending == len(texts)
        grades = collect_all(pool)
    expected = {
        "5": Grade(True, "5"),
        "6": Grade(False, "6"),
        "raise": Grade(None, None, "ValueError: no"),
        "sleep": Grade(None, None, "timeout after 2 s"),
        "hang": Grade(None, None, "timeout after 2 s"),
        "exit": Grade(None, None, "the grader ended its process (exit code 3)"),
        "kill": Grade(None, None, "the grader ended its process (SIGKILL)"),
    }
    assert grades == {key: expected[text] for key, text in enumerate(texts)}


def test_math_that_never_ends_is_stopped_and_quiet(capfd):
    with GradingPool(TaskConfig(grade_timeout=2.0)) as pool:
        assert one(pool, r"\boxed{9^{9^{9^{9}}}}") == Grade(None, None, "timeout after 2 s")
        assert one(pool, r"\boxed{5}") == Grade(True, "5")
        assert one(pool, "lone surrogate \ud800 \\boxed{5}") == Grade(True, "5")
    assert capfd.readouterr() == ("", "")


def test_the_process_is_another_and_light(grader, capfd):
    with GradingPool(TaskConfig(grader=grader)) as pool:
        first = one(pool, "pid").extracted
        assert first != str(os.getpid())
        assert one(pool, "pid").extracted == first
        assert one(pool, "modules").extracted == ""
        assert one(pool, "print") == Grade(False, "print")
    assert capfd.readouterr() == ("", "printed\n")  # The driver's output is its own.


def test_a_process_killed_between_rows_costs_none(grader):
    with GradingPool(TaskConfig(grader=grader)) as pool:
        first = int(one(pool, "pid").extracted)
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        assert one(pool, "5") == Grade(True, "5")


def test_collect_does_not_wait_for_graders(grader):
    with GradingPool(TaskConfig(grader=grader)) as pool:
        assert pool.collect(timeout=10**6) == []
        pool.submit("row", "sleep", "5")
        assert pool.collect() == []
        assert pool.pending == 1
    assert pool.pending == 0


def test_no_processes_for_no_grader():
    with GradingPool(TaskConfig(grader="none")) as pool:
        pool.submit(("any", "key"), "5", "5")
        assert pool.collect() == [(("any", "key"), Grade(None, None))]


def test_closing_twice_and_before_the_first_row(grader):
    pool = GradingPool(TaskConfig(grader=grader))
    pool.close()
    pool.close()


def test_a_grader_that_does_not_exist_is_refused_before_the_first_row():
    with pytest.raises(ConfigError, match="did you mean 'math'"):
        GradingPool(TaskConfig(grader="maths"))


def test_a_grader_that_loads_here_but_not_there(tmp_path, monkeypatch):
    (tmp_path / "shy_grader.py").write_text(
        "import sys\n"
        "if 'seer_ray.tasks.grading_process' in sys.modules and 'pytest' not in sys.modules:\n"
        "    raise OSError('not here')\n"
        "def grade(completion, answer): return True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with GradingPool(TaskConfig(grader="shy_grader:grade")) as pool:
        pool.submit("row", "5", "5")
        for _ in range(2):
            with pytest.raises(
                JobError, match=r"task\.grader=shy_grader:grade: no grading process .*not here.*1 rows"
            ):
                collect_all(pool)
        assert pool.pending == 1


def test_built_in_graders_need_no_working_folder(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with GradingPool(TaskConfig()) as pool:
        assert one(pool, r"\boxed{5}") == Grade(True, "5")


def test_what_was_graded_before_the_grader_was_lost_comes_back(grader, tmp_path):
    """The module is there for the first start, and not for the second."""
    with GradingPool(TaskConfig(grader=grader)) as pool:
        for key, text in enumerate(["5", "exit", "6"]):
            pool.submit(key, text, "5")
            if text == "5":
                assert collect_all(pool) == {0: Grade(True, "5")}
                (tmp_path / "pool_grader.py").unlink()
        grades = {}
        with pytest.raises(JobError, match="no grading process could be started in 3 tries"):
            while True:
                grades |= dict(pool.collect(timeout=60))
        assert list(grades) == [1] and "ended its process" in grades[1].error
        assert pool.pending == 1


def test_importing_is_cheap():
    code = (
        "import sys, seer_ray.tasks.grading; "
        "assert not {'torch', 'sympy', 'pyarrow', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


DRIVER = """
import os, signal, sys
from seer_ray.config.options import TaskConfig
from seer_ray.tasks.grading import GradingPool

pool = GradingPool(TaskConfig(grader="pool_grader:grade", grade_timeout=3.0, grade_processes=2))
pool.submit(0, "5", "5")
while pool.pending:
    pool.collect(1.0)
for text in sys.argv[2:]:
    pool.submit(text, text, "5")
sys.stdin.readline()
while sys.argv[1] == "wait" and pool.pending:
    pool.collect(1.0)
if sys.argv[1] == "close":
    pool.close()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "arguments",
    [("kill", "hang"), ("end", "thread"), ("close", "hang", "child"), ("kill", "thread"), ("wait", "orphan")],
)
def test_nothing_outlives_the_driver(grader, tmp_path, arguments):
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if "hang" in arguments:
        assert driver.stderr.readline() == b"hanging\n"
    # Every grading process, and what it has started, holds the driver's stderr: it ends when they have.
    driver.communicate(b"\n", timeout=60)
    assert driver.returncode == (-signal.SIGKILL if arguments[0] == "kill" else 0)
