"""A run goes on with the problems that it was begun with."""

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.driver.dataset import FILE, refuse_other_data, refuse_unknown_requests
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.asked import Asked
from seer_ray.tasks.problem import Problem


@pytest.mark.parametrize(
    ("now", "then"), [("0.10", "0.1"), ("1e23", "99999999999999991611392"), ("18", "18")]
)
def test_a_folder_begun_when_numbers_lost_their_text_goes_on(tmp_path, now, then):
    config = RunConfig(name="job")
    with RunFolder.open(str(tmp_path / "job"), config) as folder:
        refuse_other_data(folder, [Problem("a", (), then), Problem("b", (), "red")], config)
        begun = folder.read_json(FILE)
        refuse_other_data(folder, [Problem("a", (), now), Problem("b", (), "red")], config)
        assert folder.read_json(FILE) == begun
        with pytest.raises(ConfigError, match="problems are not the 2 that"):
            refuse_other_data(folder, [Problem("a", (), "0.2"), Problem("b", (), "red")], config)


def test_chains_that_are_recorded_are_there_also_where_rows_have_samples_of_their_own():
    problems = [Problem("a", (), "1", asked=Asked(samples=3)), Problem("b", (), "1")]
    config = RunConfig(samples=1)
    config.engine.record_requests = ["a/2", "b/0"]
    refuse_unknown_requests(problems, config)
    config.engine.record_requests = ["b/1"]
    with pytest.raises(ConfigError, match=r"record_requests=b/1: must be problem/sample, one of the 4"):
        refuse_unknown_requests(problems, config)


def test_samples_of_a_rows_own_are_all_taken():
    config = RunConfig(samples=8)
    config.sequential.enabled = True
    refuse_unknown_requests([Problem("a", (), "1")], config)
    with pytest.raises(ConfigError, match=r"sequential\.enabled=true: problem 'b' asks for n=3 samples"):
        refuse_unknown_requests([Problem("b", (), "1", asked=Asked(samples=3))], config)
