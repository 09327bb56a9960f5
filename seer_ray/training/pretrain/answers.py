"""How often a finished model gets held-out problems right, decoded greedily by the engine."""

from __future__ import annotations

from pathlib import Path

from seer_ray.config.options import EngineConfig, ModelConfig
from seer_ray.config.training import PretrainConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import load_model
from seer_ray.tasks.extraction import final_text, same_text
from seer_ray.training.pretrain.problems import held_out
from seer_ray.training.pretrain.tokenizer import prompt_text

MAX_BATCH = 32
ROOM = 1.1
"""Times the length of the solution that an answer may have."""


def answer_accuracy(folder: Path, config: PretrainConfig) -> dict[str, float]:
    """Share of right answers by length, and tokens of a chain, of the model in ``folder``.

    Lengths that do not fit in the model's context are left out.
    """
    wanted = config.evaluation
    if not wanted.answers:
        return {}
    model = load_model(ModelConfig(name=str(folder), device="auto"))
    engine = Engine(model, EngineConfig(max_batch=min(MAX_BATCH, wanted.answers)))
    found: dict[str, float] = {}
    for steps in wanted.lengths:
        problems = held_out(config.data, steps, wanted.answers)
        limits = {}
        for problem in problems:
            prompt = model.tokenizer(prompt_text(problem.question), add_special_tokens=False)["input_ids"]
            solution = model.tokenizer(problem.solution, add_special_tokens=False)["input_ids"]
            limits[problem.id] = limit = round(ROOM * len(solution)) + 1
            if len(prompt) + limit > model.max_context:
                break
            sampling = SamplingParams(limit, eos_token_ids=(model.tokenizer.eos_token_id,))
            engine.submit(Request(problem.id, tuple(prompt), sampling, problem=problem.id))
        right, tokens, done = 0, 0, 0
        answers = {problem.id: problem.answer for problem in problems}
        for completion in engine.run():
            done += 1
            tokens += len(completion.tokens)
            stopped = completion.finish_reason == "stop"
            right += stopped and same_text(final_text(completion.text) or "", answers[completion.request.id])
        if done == len(problems):
            found[f"eval/{steps}_steps/answers"] = right / done
            found[f"eval/{steps}_steps/chain_tokens"] = tokens / done
    return found
