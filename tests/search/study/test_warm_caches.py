"""What the driver decodes before the first trial, and with how many threads."""

from pathlib import Path
from typing import Any

import pytest

from search.study import run
from tests.search.study.test_run import a_study


@pytest.mark.parametrize(
    ("cpus", "changes", "threads"),
    [
        (8, {}, [8]),
        (96, {"cache": "cache"}, [16]),
        (0, {}, [2]),  # the output folder may be all nodes'
        (0, {"cache": "cache"}, []),
        (8, {"resources": {"shard": True, "workers": 2}}, []),
    ],
)
def test_sizes_that_are_known_are_decoded_where_it_is_of_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    changes: dict[str, object],
    threads: list[int],
) -> None:
    config, asked = a_study(tmp_path, trials=1, **changes), []

    def note(*_: Any, **words: Any) -> None:
        asked.append(words["threads"])

    monkeypatch.setattr(run, "open_fold_images", note)
    run._warm_caches(config, [], cpus, lambda *_: None)
    assert asked == threads
