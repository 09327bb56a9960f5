"""A run goes on with the problems that it was begun with."""

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.driver.dataset import FILE, refuse_other_data
from seer_ray.results.folder import RunFolder
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
