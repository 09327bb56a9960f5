"""Command lines and YAML files -> checked options."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf.basecontainer import BaseContainer

from seer_ray.config.compose import (
    GROUPS,
    choices,
    compose,
    from_yaml,
    groups_of,
    run_name,
    to_yaml,
)
from seer_ray.config.errors import ConfigError
from seer_ray.config.identity import Identity
from seer_ray.config.measuring import GatesEvalConfig, GatesSharesConfig
from seer_ray.config.options import (
    ColumnsConfig,
    ModelConfig,
    RunConfig,
    SelectorConfig,
    SweepConfig,
    TaskConfig,
    options,
)
from seer_ray.config.training import DistillConfig
from seer_ray.jobs.kinds import KINDS


def changed(*overrides: str) -> dict[str, object]:
    """The options that these overrides change, with their values."""
    before = {name: value for name, value, _ in options(compose())}
    return {name: value for name, value, _ in options(compose(overrides)) if value != before[name]}


def test_the_default_is_the_demo_that_needs_no_download():
    config = compose()
    assert type(config) is RunConfig and type(config.task.columns).__name__ == "ColumnsConfig"
    assert (config.model.name, config.task.name, config.task.data) == ("reasoner", "program", None)
    assert (config.model.gates, config.engine.block_size) == ("reasoner", 8)
    assert (config.selector.name, config.selector.budget) == ("seer", 208)
    assert config.samples == 2


JOBS = [kind.config for kind in KINDS]


@pytest.mark.parametrize(
    ("overrides", "selector"),
    [
        (["model=qwen3-4b"], "seer"),
        (["model=qwen3-4b", "model.gates=null"], "quest"),
        (["model=smollm2"], "seer"),
        (["model=smollm2", "model.gates=null"], "quest"),
        (["model.name=some/folder"], "quest"),
        (["model.name=some/folder", "model.gates=own"], "seer"),
        (["model.gates=null", "selector=seer"], "seer"),
        (["model.name=some/folder", "selector.name=window"], "window"),
        (["selector=dense"], "dense"),
    ],
)
def test_models_with_gates_use_them_unless_something_else_is_asked_for(overrides, selector):
    assert compose(overrides).selector.name == selector


@pytest.mark.parametrize(
    ("job", "group"), [(job, group) for job in JOBS for group in groups_of(job)], ids=str
)
def test_every_choice_of_every_group_composes(job, group):
    for name in choices(group)[: None if job is RunConfig else 4]:  # they are the same files
        config = compose([f"{group}={name}"], job=job)
        assert from_yaml(to_yaml(config), job=job) == config
        assert run_name(config)


def test_every_group_is_some_jobs():
    assert all(choices(group) for group in GROUPS)
    assert set(GROUPS) == {group for job in JOBS for group in groups_of(job)}


def test_a_sweep_begins_with_the_options_of_a_run():
    sweep = vars(compose(job=SweepConfig))
    assert {name: sweep[name] for name in vars(compose())} == vars(compose())


def test_groups_and_options_mix_in_any_order():
    config = compose(["selector.budget=1024", "selector=seer", "task=math500", "model=qwen3-4b"])
    assert (config.selector.name, config.selector.budget) == ("seer", 1024)
    assert config.model.gates == "SeerAttention/SeerAttention-Decode-Qwen3-4B-AttnGates"
    assert (config.task.name, config.task.data) == ("math500", "HuggingFaceH4/MATH-500")
    assert config.sampling.max_new_tokens == 32768


def test_a_task_group_takes_a_file_of_ones_own():
    config = compose(["task=gsm8k", "task.data=some/problems.jsonl"])
    assert config.task.data == "some/problems.jsonl"
    assert config.task.columns == ColumnsConfig()
    assert config.task.limit is None


def test_a_model_or_dataset_of_ones_own_does_without_what_suits_the_default_one():
    assert compose(["model=smollm2"]).sampling.temperature is not None
    own = compose(["model.name=some/folder", "task.data=the data/my problems.jsonl"])
    plain = RunConfig(
        model=ModelConfig(name="some/folder"),
        task=TaskConfig(name="my-problems", data="the data/my problems.jsonl"),
        selector=SelectorConfig(name="quest"),
    )
    assert own == plain
    assert own == from_yaml(
        "{model: {name: some/folder}, task: {data: the data/my problems.jsonl}}", defaults=True
    )
    assert compose(["task.data=*.jsonl"]).task.name == "own"
    assert compose(["task.data=x.jsonl", "task.name=mine"]).task.name == "mine"
    assert compose(["model.name=reasoner", "task.data=null"]) == compose()
    assert compose(["task=gsm8k", "task.data=x.jsonl"]).task.name == "gsm8k"


@pytest.mark.parametrize(
    ("override", "option", "value"),
    [
        ("sampling.temperature=0", "sampling.temperature", 0.0),
        ("model.revision=12e5", "model.revision", "12e5"),
        ("model.revision=0042", "model.revision", "0042"),
        ("model.tokenizer=null", "model.tokenizer", None),
        ("model.gates=a (1)=b.pth", "model.gates", "a (1)=b.pth"),
        ("model.gates=~/x", "model.gates", "~/x"),
        ("task.prompt={question} Think.", "task.prompt", "{question} Think."),
        ("task.system='Be brief, please.'", "task.system", "Be brief, please."),
        ("+selector.layers.17=window", "selector.layers", {"17": "window"}),
        ("selector.layers.0-2=dense", "selector.layers", {"0-2": "dense"}),
        ("selector.layers={0-2:dense,17:window}", "selector.layers", {"0-2": "dense", "17": "window"}),
        ("selector.layers={'0-2': dense}", "selector.layers", {"0-2": "dense"}),
        ("sampling.stop=[a,b]", "sampling.stop", ["a", "b"]),
        ("task.few_shot=[{question: hi, answer: 3}]", "task.few_shot", [{"question": "hi", "answer": 3}]),
        ("sampling={top_p: 0.5}", "sampling.top_p", 0.5),
        ("task.system=${model.name}", "task.system", "reasoner"),
        ("task.system=a \\${b}", "task.system", "a ${b}"),
        ("task.system=\\${oc.env:HOME}", "task.system", "${oc.env:HOME}"),
    ],
)
def test_values_as_hydra_writes_them_and_text_as_it_stands(override, option, value):
    expected = {} if value is None else {option: value}
    assert changed(override) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("selector.buget=1024", "selector.buget=1024: no such option; did you mean selector.budget?"),
        ("buget=1024", "buget=1024: no such option; did you mean selector.budget?"),
        ("engin=exact", "engin=exact: no such option; did you mean engine?"),
        ("xyzzy=1", "xyzzy=1: no such option; all there are: seer-ray options"),
        (
            "sampling={temprature: 1}",
            "sampling.temprature=1: no such option; did you mean sampling.temperature?",
        ),
        ("engine.max_batch=many", "engine.max_batch=many: must be a whole number or null"),
        ("engine.max_batch=1.5", "engine.max_batch=1.5: must be a whole number or null"),
        ("engine.block_size=null", "engine.block_size=null: must be a whole number"),
        ("engine.max_batch=0", "engine.max_batch=0: must be at least 1"),
        ("engine.exact=maybe", "engine.exact=maybe: must be true or false"),
        ("sampling.temperature=hot", "sampling.temperature=hot: must be a number or null"),
        ("sampling.temperature=nan", "sampling.temperature=nan: must be a number"),
        ("sampling.top_p=1.5", "sampling.top_p=1.5: must be at most 1.0"),
        ("sampling.stop=a", "sampling.stop=a: must be a list, [a,b]"),
        ("selector.layers=3", "selector.layers=3: must be a mapping, {a:b}"),
        ("model.dtype=float8", "model.dtype=float8: must be one of auto, float32, bfloat16, float16"),
        (
            "selector.name=ques",
            "random, or module:Class (did you mean 'quest'?)",
        ),
        ("selector.layers={3: ques}", "selector.layers.3=ques: must be one of dense, seer, quest, oracle"),
        ("selector.shares.3=0", "selector.shares.3=0: must be above 0"),
        ("selector.shares.3=nan", "selector.shares.3=nan: must be a number"),
        ("selector.budget=12", "selector.budget=12: must be at least two blocks, 16 tokens with"),
        ("engine.kv_memory=lots", "engine.kv_memory=lots: must be 'auto' or a size such as 8GiB or 500MB"),
        ("selector.budget", "selector.budget: must be option=value, such as selector.budget=1024"),
        ("=3", "=3: must be option=value"),
        ("~seed", "~seed: only the choice of a group can be left out, such as ~task; set the option"),
        ("~task=program", "~task=program: only the choice of a group can be left out"),
        ("task.system=${task.system}", "task.system"),
        ("seed=${model.name}", "Value 'reasoner' of type 'str' could not be converted to Integer"),
        ("~selector.layers.3", "~selector.layers.3: only the choice of a group can be left out"),
        (
            "task.system=${oc.env:HOME}",
            "task.system=${oc.env:HOME}: in ${} can only be the name of an option",
        ),
        ("task.system=${${model.name}:X}", "task.system=${${model.name}:X}: in ${} can only be the name"),
        ("task.few_shot=[{a: '${oc.env:HOME}'}]", "in ${} can only be the name of an option"),
        ("task.system=\\\\\\\\${oc.env:HOME}", "in ${} can only be the name of an option"),
        ("task.system=a ${", "task.system=a ${: in ${} can only be the name of an option, such as"),
        ("hydra.searchpath=[x]", "hydra.searchpath=['x']: no such option; all there are: seer-ray options"),
        ("task.few_shot=[1", "task.few_shot=[1: malformed value; close brackets and quotes"),
        ("selector.budget=512,1024", "selector.budget=512,1024: must be a single value here"),
        ("task.system=no, yes", "task.system=no, yes: must be a single value here; quote text with commas"),
        ("sampling=hot", "sampling=hot: is a section, with the options sampling.max_new_tokens,"),
        (
            "selector=qest",
            "selector=qest: no such choice, there are dense, oracle, quest, random, seer, window; ",
        ),
        ("selector=qest", "did you mean selector=quest?"),
        ("selector=dense,seer", "selector=dense,seer: must be a single value here"),
        ("model=Qwen/Qwen3-4B", "for one of your own: model.name=Qwen/Qwen3-4B"),
        ("task=mine.jsonl", "for one of your own: task.data=mine.jsonl"),
        ("task.system=${nothing}", "task.system: Interpolation key 'nothing' not found"),
        ("name=a/b", "name=a/b: must be a plain folder name"),
        ("name=..", "name=..: must be a plain folder name"),
        ("name=.hidden", "name=.hidden: must be a plain folder name"),
        ("name=", "name=: must be a plain folder name"),
        ("engine.max_batch='a\nb'", "engine.max_batch=a\\nb: must be a whole number or null"),
    ],
)
def test_mistakes_are_named_on_one_line(override, message):
    with pytest.raises(ConfigError) as error:
        compose([override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_chosen_group_replaces_its_section_of_the_base():
    base = compose(["selector=seer", "selector.threshold=0.01", "selector.dense_layers=2", "seed=5"])
    config = compose(["selector=window", "selector.budget=512"], base=base)
    assert config.selector == SelectorConfig(name="window", budget=512)
    assert config.seed == 5
    assert compose(base=base) == base


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8"), max_size=20))
@example("\x85")
@example("\udcff")
def test_yaml_keeps_any_text(text):
    config = RunConfig(task=TaskConfig(prompt=text, few_shot=[{"question": "\\${a} ${", "answer": text}]))
    assert from_yaml(to_yaml(config)) == config


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["${", "}", "\\", "$", "{", ":", "oc.env:HOME", "seed", "'", " "])).map("".join)
)
def test_no_resolver_runs(text):
    def resolver(*_):
        raise AssertionError(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseContainer, "_evaluate_custom_resolver", resolver)
        with contextlib.suppress(ConfigError):
            from_yaml(yaml.safe_dump({"task": {"system": text}}))


def test_yaml_left_out_is_the_default():
    assert from_yaml("") == RunConfig() == from_yaml("engine:")
    assert from_yaml("model: {name: x}\nseed: 3") == RunConfig(seed=3, model=ModelConfig(name="x"))
    assert from_yaml("seed: 3", defaults=True) == dataclasses.replace(compose(), seed=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "f.yaml line 1: not YAML"),
        ("- 1", "f.yaml: must hold options"),
        ("sed: 1", "f.yaml: sed=1: no such option; did you mean seed?"),
        ("selector: quest", "f.yaml: selector=quest: is a section, with the options selector.name,"),
        ("task: {system: '${oc.env:HOME}'}", "f.yaml: task.system=${oc.env:HOME}: in ${} can only be"),
        ("sampling: 3", "f.yaml: sampling=3: is a section, with the options sampling.max_new_tokens"),
        ("engine: {max_batch: x}", "f.yaml: engine.max_batch=x: must be a whole number or null"),
    ],
)
def test_mistakes_in_yaml_name_the_file(text, message):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as error:
        from_yaml(text, source="f.yaml")
    assert str(error.value).startswith(message)


def test_digest_is_of_what_decides_the_rows():
    base = compose()
    for override in (
        "cluster.workers=3",
        "results.folder=x",
        "tracking.enabled=false",
        "engine.kv_memory=1GiB",
        "name=x",
    ):
        assert Identity.of(compose([override])).digest == Identity.of(base).digest, override
    for override in (
        "seed=1",
        "selector.budget=512",
        "task.limit=4",
        "selector.layers.3=dense",
        "model.revision=x",
    ):
        assert Identity.of(compose([override])).digest != Identity.of(base).digest, override


def test_run_names_tell_the_settings_apart_and_are_folder_names():
    name = run_name(compose())
    assert name.startswith("program-reasoner-seer208-") and name == run_name(compose())
    assert run_name(compose(["seed=1"])) != name
    assert run_name(compose(["selector=dense"])).startswith("program-reasoner-dense-")
    assert run_name(compose(["selector.threshold=0.002"])).startswith("program-reasoner-seer-t0.002-")
    assert run_name(compose(["model.name=../../etc/My Model!.gguf", "task.name=a/../b"])).startswith(
        "a-.-b-My-Model-quest"
    )
    assert run_name(compose(["name=mine"])) == "mine"
    with pytest.raises(ConfigError, match="name=x/y: must be"):
        run_name(RunConfig(name="x/y"))


def test_what_a_file_says_of_sections_that_a_job_lacks_is_passed_by() -> None:
    """A model's file sizes the gates that ``distill`` makes, and says how ``run`` samples."""
    for name in ("reasoner", "smollm2"):
        for job in (GatesEvalConfig, GatesSharesConfig):
            made = compose(["data=x", f"model={name}"], job)
            assert made.model.gates == name and not hasattr(made, "gates")
            with pytest.raises(ConfigError, match=r"^sampling\.temperature=0: no such option"):
                compose(["data=x", f"model={name}", "sampling.temperature=0"], job)
    assert compose(["data=x", "model=smollm2"], DistillConfig).gates.block_size == 16


def test_a_choice_can_be_left_out() -> None:
    suits_the_task = SelectorConfig(budget=208)
    assert compose(["~selector"]).selector == suits_the_task == compose(["selector=null"]).selector
    assert compose(["~engine"]) == compose()
    base = compose(["selector=window", "seed=5"])
    assert compose(["~selector"], base=base) == dataclasses.replace(base, selector=SelectorConfig())


def test_a_mapping_replaces_the_one_that_was_there() -> None:
    base = compose(["selector.layers={0: window, 1: dense}"])
    assert compose(["selector.layers={2: quest}"], base=base).selector.layers == {"2": "quest"}
    assert compose(["selector.layers.2=quest"], base=base).selector.layers.keys() == {"0", "1", "2"}
    base = compose(["selector.shares={0: 0.5}"])
    assert compose(["selector.shares={}"], base=base).selector.shares == {}
