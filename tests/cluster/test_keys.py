"""`consilium key`: a secret is printed once, on stdout alone."""

import json
from pathlib import Path

import pytest
from typer.exceptions import TyperException

from cluster.commands.keys import keys_app
from search.errors import ServingError
from serving.http.keys import KeyRing, list_keys

Captured = pytest.CaptureFixture[str]


def run(*words: str | Path) -> None:
    keys_app(args=[str(word) for word in words], standalone_mode=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_new_key_is_the_only_thing_on_stdout_and_opens_the_service(
    file: Path, capsys: Captured
) -> None:
    run("add", "ward-3", "--file", file)
    printed = capsys.readouterr()
    (key,) = printed.out.splitlines()
    assert KeyRing(file).authorise(key.encode(), "predict") == "ward-3"
    assert key not in printed.err
    assert f"key ward-3 is in {file}" in printed.err
    assert list_keys(file)[0].scopes == ["predict"]


def test_scopes_are_said_one_by_one(file: Path, capsys: Captured) -> None:
    run("add", "boss", "--file", file, "--scope", "admin", "--scope", "predict", "--json")
    printed = json.loads(capsys.readouterr().out)
    key = printed.pop("key")
    assert printed == {"id": "boss", "scopes": ["admin", "predict"], "file": str(file)}
    assert KeyRing(file).authorise(key.encode(), "admin") == "boss"


def test_a_list_shows_no_secret(file: Path, capsys: Captured) -> None:
    run("add", "a", "--file", file)
    run("add", "b", "--file", file, "--scope", "admin")
    capsys.readouterr()
    run("list", "--file", file, "--json")
    keys = json.loads(capsys.readouterr().out)["keys"]
    assert [(key["id"], key["scopes"]) for key in keys] == [("a", "predict"), ("b", "admin")]
    assert all(set(key) == {"id", "scopes", "created"} for key in keys)
    run("list", "--file", file)
    printed = capsys.readouterr().out
    assert "admin" in printed
    assert not any(key.hash[:20] in printed for key in list_keys(file))


def test_a_removed_key_is_gone_and_the_last_ones_removal_is_explained(
    file: Path, capsys: Captured
) -> None:
    run("add", "a", "--file", file)
    run("add", "b", "--file", file)
    capsys.readouterr()
    run("remove", "a", "--file", file)
    assert "key a is removed; 1 left" in capsys.readouterr().err
    assert [key.id for key in list_keys(file)] == ["b"]
    run("remove", "b", "--file", file)
    assert "refuse everybody" in capsys.readouterr().err
    run("add", "c", "--file", file)
    run("remove", "c", "--file", file, "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "removed": "c",
        "file": str(file),
        "left": 0,
    }


def test_mistakes_are_one_line_and_print_nothing(file: Path, capsys: Captured) -> None:
    run("add", "a", "--file", file)
    capsys.readouterr()
    with pytest.raises(ServingError, match=r"key a is there already"):
        run("add", "a", "--file", file)
    with pytest.raises(ServingError, match=r"an id has 1 to 32"):
        run("add", "A B", "--file", file)
    with pytest.raises(ServingError, match=r"no key 'b'; there are a"):
        run("remove", "b", "--file", file)
    with pytest.raises(ServingError, match=r"no such file"):
        run("list", "--file", file.with_name("absent"))
    with pytest.raises(TyperException, match=r"'root'"):
        run("add", "b", "--file", file, "--scope", "root")
    assert capsys.readouterr().out == ""
