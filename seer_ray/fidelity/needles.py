"""Whether a question reads what it asks for: needles of retrieval tasks among what its rows are left with.

The rows of the question read sparsely here, which those of ``task.document`` need not: what is measured is
whether the gates find one line in a long text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seer_ray.analysis.clustered import ratio
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import GeneratorConfig
from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.prompt_passes import (
    ALLOCATED,
    Gate,
    PromptPass,
    chosen,
    contenders_of,
    shared_amounts,
)
from seer_ray.fidelity.quality import ORACLE
from seer_ray.kernels.block_target import BlockMaps
from seer_ray.kernels.blocks import Amount
from seer_ray.models.allocation import Allocation
from seer_ray.models.patch import attention_shape, forward_tokens, patch_attention, rope_tables
from seer_ray.models.step import Attention
from seer_ray.tasks.generators import generate
from seer_ray.tasks.retrieval import Texts

TASKS = ("needle", "needle_keys", "needle_values", "needle_queries")
"""Of ``task.generator.name``, those whose answers stand in the text."""


@dataclass(frozen=True)
class NeedlePrompt:
    """A retrieval task as the model reads it."""

    id: str
    task: str
    tokens: torch.Tensor
    """Ids, ``[tokens]``."""
    needles: torch.Tensor
    """Positions of the answers in the text, ``[n]``."""
    question: int
    """Position behind the text: from here on it is asked."""


@dataclass(frozen=True)
class NeedleFigure:
    """Attention from the question's rows of one prompt and layer to the needles' blocks, summed over rows and
    query heads: of dense attention, and the part of it in blocks that are read."""

    prompt: str
    task: str
    layer: int
    selector: str
    budget: str
    """The density."""
    dense: float
    kept: float


def needle_prompts(task: str, length: int, count: int, tokenizer: Any) -> Iterator[NeedlePrompt]:
    """Prompts of ``tasks.retrieval``, whole: text, question, chat template.

    Args:
        task: of ``TASKS``.
        length: of a prompt, at most.
        count: of prompts.
        tokenizer: of the model; a fast one, which knows where its tokens lie.

    Raises:
        ConfigError: no prompt is so short, or the tokenizer does not know.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError("needles: this model's tokenizer does not say where its tokens lie; leave it out")

    def rendered(content: str) -> str:
        if not tokenizer.chat_template:
            return content
        chat = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def measure(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    special = not tokenizer.chat_template
    room = length - len(tokenizer(rendered(""), add_special_tokens=special)["input_ids"])
    if room < 8:
        raise ConfigError(f"length={length}: leaves no room beside the chat template; set a larger one")
    generator = GeneratorConfig(name=task, length=room, unit="tokens")
    for index in range(count):
        made = generate(generator, index, 0, Texts(measure))
        text, inside = rendered(made.question), str(made.document)
        begin = text.index(inside)
        coded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        spans = [
            (at, at + len(answer))
            for answer in json.loads(made.answer)
            for at in _places(text, answer, begin, begin + len(inside))
        ]
        ends = enumerate(coded["offset_mapping"])
        needles = [i for i, (low, high) in ends if any(low < end and high > start for start, end in spans)]
        question = sum(low < begin + len(inside) for low, _ in coded["offset_mapping"])
        ids = torch.tensor(coded["input_ids"], dtype=torch.int32)
        yield NeedlePrompt(made.id, task, ids, torch.tensor(needles), question)


def _places(text: str, word: str, start: int, end: int) -> Iterator[int]:
    while (start := text.find(word, start, end)) >= 0:
        yield start
        start += len(word)


@torch.inference_mode()
def measure_needles(
    model: Any,
    prompts: Iterable[NeedlePrompt],
    densities: Sequence[float],
    gates: Mapping[str, Sequence[Gate | None]],
    references: Sequence[str] = (ORACLE,),
    *,
    block: int,
    sink: bool = True,
    allocation: Allocation | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[NeedleFigure]:
    """All figures, dense attention flowing through the model; arguments as of ``prompts.measure_prompts``."""
    patch_attention(model)
    shape, weight = attention_shape(model), next(model.parameters())
    contenders = contenders_of(gates, references, shape, block)
    shared = {density: shared_amounts(density, allocation) for density in densities}
    figures: list[NeedleFigure] = []
    for prompt in prompts:
        progress(f"{prompt.task}: prompt {prompt.id}")
        length = len(prompt.tokens)
        pages = Pages(shape, rope_tables(model, length), length, block, weight, sink)
        asking = slice(prompt.question // block, pages.count)
        needles = (prompt.needles // block).unique().to(weight.device)

        def look(
            layer: int,
            asked: Attention,
            maps: BlockMaps,
            prompt: NeedlePrompt = prompt,
            asking: slice = asking,
            needles: torch.Tensor = needles,
        ) -> None:
            dense = maps.mass[:, asking][:, :, needles]
            for name, of_layers in contenders.items():
                if (contender := of_layers[layer]) is None:
                    continue
                scores = contender.scores(asked, maps)
                for density in densities:
                    amount = Amount(density=density)
                    if name == ALLOCATED:
                        amount = shared[density].get(layer, amount)
                    keep = chosen(scores, amount, sink, 0)[:, asking][:, :, needles]
                    sums = float(dense.sum()), float((dense * keep).sum())
                    figures.append(NeedleFigure(prompt.id, prompt.task, layer, name, f"{density:g}", *sums))

        forward_tokens(model, prompt.tokens.to(weight.device), PromptPass(pages, look))
    return figures


def needle_table(figures: Iterable[NeedleFigure]) -> list[dict[str, Any]]:
    """By task, density and selector, all layers together: ``kept``, the share of dense attention from the
    question to the needles that is read, and ``kept_se`` over prompts."""
    groups: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = {}
    for figure in figures:
        own = groups.setdefault((figure.task, figure.budget, figure.selector), {})
        kept, dense = own.get(figure.prompt, (0.0, 0.0))
        own[figure.prompt] = kept + figure.kept, dense + figure.dense
    table = []
    for (task, budget, selector), own in groups.items():
        share = ratio([kept for kept, _ in own.values()], [dense for _, dense in own.values()])
        said = {"task": task, "budget": budget, "selector": selector, "prompts": len(own)}
        table.append(said | dict(zip(("kept", "kept_se"), map(float, share), strict=True)))
    return table
