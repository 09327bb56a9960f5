"""A grader for chains of random models, of which any letter counts: ``task.grader=digest_grader:digest``."""

import hashlib


def digest(completion: str, answer: str | None = None) -> str:
    """The chain in so many letters that a dataset can hold as an answer, whatever is in the chain."""
    return hashlib.sha256(completion.encode()).hexdigest()[:16]


def vote(completion: str, answer: str | None = None) -> str:
    """An answer of few that there are, ``a`` most often."""
    letter = digest(completion)[0]
    return "a" if letter < "b" else letter
