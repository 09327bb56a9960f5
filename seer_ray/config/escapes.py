r"""Line breaks that somebody meant, typed as a backslash and a letter: ``sampling.stop='["\n\n"]'``.

They are not interpreted, as nowhere in Hydra's grammar: ``\nabla`` and ``\text`` of a prompt are LaTeX. But
they are told of, since what a model says hardly ever has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from seer_ray.config.options import JobConfig, options

MEANT = {"n": "line break", "t": "tab"}
WHERE = (
    "sampling.stop",
    "sampling.thinking_end",
    "task.prompt",
    "task.system",
    "task.few_shot",
    "task.thinking_marks",
)

_TYPED = re.compile(r"(?<!\\)\\([nt][A-Za-z]*)")
_LATEX = re.compile(
    "nabla|natural|ne|nearrow|neg|neq|newcommand|newline|newpage|nexists|ngeq|ngtr|ni|nicefrac|nleq|nless"
    "|n[lL]eftarrow|n[rR]ightarrow|nmid|noindent|nolimits|nonumber|norm|normalsize|not|notag|notin|nparallel"
    "|nprec|nsim|nsubset|nsubseteq|nsucc|nsupset|nsupseteq|nu|num|nwarrow|tag|tan|tanh|tau|tbinom|text[a-z]*"
    "|tfrac|therefore|theta|thicksim|thinspace|tilde|times|tiny|to|top|tr|triangle[a-z]*|tt|ttfamily"
)


def typed_escapes(config: JobConfig) -> Iterator[str]:
    """A line for each option whose text seems to mean a line break, or a tab, that it does not have."""
    for name, value, _ in options(config):
        if name not in WHERE:
            continue
        letters = {letter for text in _texts(value) for letter in _meant(text)}
        for letter in sorted(letters):
            yield (
                rf"{name}: \{letter} is read as it is typed, a backslash and the letter {letter}; for a "
                rf"{MEANT[letter]} write $'{name}=...' in bash, where \{letter} is one and \\ a backslash, "
                "or a YAML file for --config"
            )


def _meant(text: str) -> Iterator[str]:
    for match in _TYPED.finditer(text):
        if not _LATEX.fullmatch(match[1]):
            yield match[1][0]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
