"""A job on the cluster: runs the package that was sent, if this Python can. Also read by Pythons before 3.11.

Arguments: the command and its options. Beside it lies needs.json: the ``version`` of the package, the
``python`` that it needs at least, and its ``requirements`` by distribution.
"""

import importlib.metadata
import json
import os
import platform
import runpy
import sys


def lacking(requirements):
    """What is not installed of (distribution -> version specifier), as pip reads it."""
    from packaging.specifiers import SpecifierSet

    found = []
    for name, specifier in sorted(requirements.items()):
        try:
            fits = SpecifierSet(specifier).contains(importlib.metadata.version(name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits:
            found.append(name + specifier)
    return found


def refusal(needs):
    """Why this Python cannot run the package, in a line; None: it can."""
    version = ".".join(map(str, sys.version_info[:3]))
    who = "the Python of the cluster, {} ({}), cannot run seer-ray {}".format(
        sys.executable, version, needs["version"]
    )
    if sys.version_info[: len(needs["python"])] < tuple(needs["python"]):
        wanted = ".".join(map(str, needs["python"]))
        return f"{who}, which needs Python {wanted}: start Ray from an environment that has it"
    missing = lacking(needs["requirements"])
    if not missing:
        return None
    line = " ".join(f"'{item}'" for item in missing)
    return f"{who}: on every machine, {sys.executable} -m pip install {line}"


if __name__ == "__main__":
    with open("needs.json", encoding="utf-8") as file:
        reason = refusal(json.load(file))
    if reason:
        print("error: " + reason, file=sys.stderr, flush=True)
        sys.exit(2)
    os.environ["SEER_RAY_SENT_TO"] = platform.node()
    runpy.run_module("seer_ray.cli.app", run_name="__main__", alter_sys=True)
