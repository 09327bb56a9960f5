"""What ends a completion, and what of it is text. Tokens are scripted, one byte each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from engines import eager, make_engine, request, run, tiny_model, tokens
from tiny import IM_END, IM_START, tiny_tokenizer

from seer_ray.engine import Completion, Progress
from seer_ray.engine import eager as eager_steps
from seer_ray.engine.sequence import Sequence

Script = Callable[..., Completion]


def encode(text: str) -> list[int]:
    """One token a byte."""
    ids = tiny_tokenizer().encode(text, add_special_tokens=False)
    assert len(ids) == len(text.encode())
    return ids


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Runs one request that generates the given text, or tokens."""

    def run_script(text: str | list[int], begun: int = 0, **sampling: object) -> Completion:
        script = encode(text) if isinstance(text, str) else text

        def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
            return [script[sequence.generated] for sequence in sequences]

        monkeypatch.setattr(eager_steps, "sample", sample)
        item = request("a", tokens(20), len(script), **sampling)
        item = replace(item, progress=Progress(tuple(script[:begun])))
        return run(eager(make_engine()), [item])["a"]

    return run_script


def test_length(play: Script) -> None:
    done = play("no end")
    assert (done.text, done.finish_reason, len(done.tokens)) == ("no end", "length", 6)


def test_end_token(play: Script) -> None:
    done = play([*encode("fine"), IM_END, *encode(" more")], eos_token_ids=(7, IM_END))
    assert (done.text, done.finish_reason) == ("fine", "stop")
    assert done.tokens == [*encode("fine"), IM_END]


def test_end_token_that_does_not_count(play: Script) -> None:
    done = play([*encode("fine"), IM_END, *encode(" more")])
    assert (done.text, done.finish_reason) == ("fine more", "length")


@pytest.mark.parametrize("text", ["one two END three", "END", "one ENENEND", "one\nEND\n"])
def test_stop_string_over_several_tokens(play: Script, text: str) -> None:
    done = play(text, stop=("END",))
    before, _, _ = text.partition("END")
    assert (done.text, done.finish_reason) == (before, "stop")
    assert done.tokens == encode(before + "END")  # the tokens that it took stay


def test_the_first_of_several_stop_strings(play: Script) -> None:
    done = play("a, b. c", stop=(".", ",", "zz"))
    assert (done.text, done.finish_reason) == ("a", "stop")
    done = play("abcd", stop=("bcd", "cd"))  # both end with the same token
    assert done.text == "a"


def test_stop_string_longer_in_tokens_than_in_characters(play: Script) -> None:
    """Three tokens a character: a window of as many tokens as characters would miss its beginning."""
    stop = "答案到此为止，不再继续往下说了。"
    done = play(f"好的。{stop}再见", stop=(stop,))
    assert (done.text, done.finish_reason) == ("好的。", "stop")


def test_stop_string_after_a_torn_character(play: Script) -> None:
    done = play([*encode("ok 好")[:-1], *encode("END more")], stop=("END",))
    assert done.finish_reason == "stop" and done.text.startswith("ok ")


def test_special_token_as_stop_string(play: Script) -> None:
    done = play([*encode("fine"), IM_START, *encode("user")], stop=("<|im_start|>",))
    assert (done.text, done.finish_reason) == ("fine", "stop")


def test_stop_string_in_the_prompt_or_half_in_it_does_not_count(play: Script) -> None:
    last = tiny_tokenizer().decode(list(tokens(20)[-1:]))
    assert isinstance(last, str) and last.isprintable()
    done = play("b", stop=(last + "b", last))
    assert done.finish_reason == "length"


def test_stop_string_half_of_which_another_engine_made(play: Script) -> None:
    done = play("one END two", begun=6, stop=("END",))
    assert (done.text, done.finish_reason) == ("one ", "stop")
    assert done.tokens == encode("one END")


def test_stop_string_with_the_last_token_allowed(play: Script) -> None:
    assert play("one END", stop=("END",)).finish_reason == "stop"


def test_empty_stop_string_stops_nothing(play: Script) -> None:
    assert play("one END two", stop=("", "END")).text == "one "
    assert play("one", stop=("",)).finish_reason == "length"


def test_text_is_as_it_was_written(play: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tokenizers ask for a clean-up that turns `` ,`` into ``,``."""
    clean_up = "clean_up_tokenization_spaces"
    for name in (clean_up, f"{clean_up}_for_bpe_even_though_it_will_corrupt_output"):
        monkeypatch.setattr(tiny_model("qwen3").tokenizer, name, True)
    assert play("f ( x , y ) .").text == "f ( x , y ) ."


def test_text_of_an_aborted_request() -> None:
    engine = make_engine()
    engine.submit(request("a", tokens(20), 50))
    for _ in range(5):
        engine.step()
    engine.abort("a")
    (done,) = engine.run()
    assert done.text == engine.tokenizer.decode(done.tokens, skip_special_tokens=True)
    assert len(done.tokens) == 4
