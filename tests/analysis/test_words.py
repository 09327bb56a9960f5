from __future__ import annotations

import pytest

from seer_ray.analysis import words


@pytest.mark.parametrize(
    "text, expected",
    [
        (words.percent(0.417), "41.7 %"),
        (words.round_percent(0.112), "11 %"),
        (words.round_percent(0.012), "1.2 %"),
        (words.round_percent(0), "0 %"),
        (words.signed_percent(-0.069), "−6.9 %"),
        (words.points(-0.004), "−0.4"),
        (words.points(-0.0001), "0.0"),
        (words.with_interval(0.417, 0.382, 0.453), "41.7 % (38.2 to 45.3)"),
        (words.with_interval(1.0, None, None), "100.0 %"),
        (words.in_brief(0.417, 0.382, 0.453), "41.7 (38–46)"),
        (words.in_brief(1.0, None, None), "100.0"),
        (words.count(1, "row"), "1 row"),
        (words.count(1200, "row"), "1,200 rows"),
        (words.duration(75), "1:15"),
        (words.duration(3700), "1:01:40"),
    ],
)
def test_numbers_in_words(text: str, expected: str) -> None:
    assert text == expected
