"""The one line that bad input ends with."""

from pathlib import Path

import pytest

from cluster import cli


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("consilium: ")]
    assert stop.value.code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(lines) == 1
    return lines[0]
