"""Keys from a file: who gets in, what a change of the file does, and that no secret gets out."""

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from search.errors import ServingError
from serving.http.keys import KeyRing, Scope, add_key, list_keys, remove_key
from serving.problems import ProblemError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Ring:
    """A ring with a clock and ears."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.keys = KeyRing(path, say=self.said.append, clock=self.clock)

    def ask(
        self, header: str | bytes | None, scope: Scope = "predict", *, after_s: float = 0
    ) -> str:
        self.clock.now += after_s
        return self.keys.authorise(header.encode() if isinstance(header, str) else header, scope)

    def refused(self, header: str | bytes | None, *, after_s: float = 0) -> ProblemError:
        with pytest.raises(ProblemError, match=r"API key") as refusal:
            self.ask(header, after_s=after_s)
        assert (refusal.value.status, refusal.value.code) == (401, "unauthenticated")
        return refusal.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_key_gets_in_by_either_header(path: Path) -> None:
    key = add_key(path, "ward-3", ["predict"])
    ring = Ring(path)
    for header in (key, f"Bearer {key}", f"bearer {key}", f"BEARER  {key} "):
        assert ring.ask(header) == "ward-3"
        assert ring.ask(header) == "ward-3"  # the second time by its digest


def test_a_key_says_whose_it_is_and_has_256_random_bits(path: Path) -> None:
    prefix, name, secret = add_key(path, "a-1", ["predict"]).split("_", 2)
    assert (prefix, name, len(secret)) == ("con", "a-1", 43)
    assert secret != add_key(path, "a-2", ["predict"]).split("_", 2)[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda key: None,
        lambda key: "",
        lambda key: "Bearer ",
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key.replace("con_", "xon_"),
        lambda key: key.replace("_one_", "_two_"),
        lambda key: key.replace("_one_", "_three_"),
        lambda key: key.upper(),
        lambda key: f"Basic {key}",
        lambda key: key * 100,
        lambda key: b"\xff\x00" + key.encode(),
        lambda key: "con__",
        lambda key: "con_one_",
    ],
)
def test_anything_but_the_key_is_401(
    path: Path, change: Callable[[str], str | bytes | None]
) -> None:
    key = add_key(path, "one", ["predict"])
    add_key(path, "two", ["predict"])
    ring = Ring(path)
    ring.ask(key)
    assert ring.refused(change(key)).headers == {"WWW-Authenticate": "Bearer"}


def test_scopes_reach_as_far_as_they_say_and_admin_implies_predict(path: Path) -> None:
    reader = add_key(path, "reader", ["predict"])
    admin = add_key(path, "boss", ["admin"])
    ring = Ring(path)
    assert ring.ask(admin, "predict") == ring.ask(admin, "admin") == "boss"
    for _ in range(2):
        with pytest.raises(
            ProblemError, match=r"key reader has the scope predict.*needs admin"
        ) as no:
            ring.ask(reader, "admin")
        assert (no.value.status, no.value.code) == (403, "forbidden")


def test_the_file_holds_no_secret_and_is_its_owners_alone(path: Path) -> None:
    key = add_key(path, "one", ["predict", "admin", "predict"])
    assert key.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [(each.id, each.scopes) for each in list_keys(path)] == [("one", ["predict", "admin"])]
    assert not list(path.parent.glob(".*"))


def test_the_file_is_yaml_and_json_both(path: Path) -> None:
    key = add_key(path, "one", ["predict"])
    assert yaml.safe_load(path.read_text()) == json.loads(path.read_text())
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text())))
    path.chmod(0o600)
    assert Ring(path).ask(key) == "one"


def test_a_changed_file_keeps_its_mode(path: Path) -> None:
    add_key(path, "one", ["predict"])
    path.chmod(0o640)
    add_key(path, "two", ["predict"])
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_to_the_file_stays_a_link(path: Path) -> None:
    add_key(path, "one", ["predict"])
    link = path.with_name("link.yaml")
    link.symlink_to(path)
    add_key(link, "two", ["predict"])
    assert link.is_symlink()
    assert [key.id for key in list_keys(path)] == ["one", "two"]


def test_keys_come_and_go_without_a_restart(path: Path) -> None:
    old = add_key(path, "old", ["predict"])
    ring = Ring(path)
    assert ring.ask(old) == "old"
    new = add_key(path, "new", ["predict"])
    remove_key(path, "old")
    assert ring.ask(old, after_s=0.5) == "old"  # looked at once a second at most
    assert ring.ask(new, after_s=0.6) == "new"
    ring.refused(old)
    assert ring.said == [f"{path}: keys read again; 1 in force"]
    newer = add_key(path, "newer", ["predict"])
    ring.refused(newer, after_s=0.5)
    assert ring.ask(newer, after_s=0.6) == "newer"


def test_a_bad_file_changes_nothing_and_is_reported_once(path: Path) -> None:
    key = add_key(path, "one", ["predict"])
    good = path.read_bytes()
    ring = Ring(path)
    for bad in (b"[", b"", good[: len(good) // 2]):
        path.write_bytes(bad)
        for _ in range(3):
            assert ring.ask(key, after_s=2) == "one"
    path.unlink()
    for _ in range(3):
        assert ring.ask(key, after_s=2) == "one"
    assert len(ring.said) == 4
    assert all(line.endswith("the keys read before stay in force") for line in ring.said)
    path.write_bytes(good)
    path.chmod(0o600)
    assert ring.ask(key, after_s=2) == "one"
    assert ring.said[-1] == f"{path}: keys read again; 1 in force"


def test_a_mended_mode_is_noticed(path: Path) -> None:
    add_key(path, "one", ["predict"])
    ring = Ring(path)
    new = add_key(path, "two", ["predict"])
    path.chmod(0o666)
    ring.refused(new, after_s=2)
    assert "others than its owner may write it" in ring.said[-1]
    path.chmod(0o600)
    assert ring.ask(new, after_s=2) == "two"


def test_removing_the_last_key_revokes_it_and_no_service_starts_without_one(path: Path) -> None:
    key = add_key(path, "one", ["predict"])
    ring = Ring(path)
    ring.ask(key)
    remove_key(path, "one")
    ring.refused(key, after_s=2)
    with pytest.raises(ServingError, match=r"no key in it; make one with consilium key add"):
        KeyRing(path)


ENTRY = {"id": "one", "scopes": ["predict"], "salt": "ab" * 16, "hash": "cd" * 32} | {
    "created": "2026-11-21"
}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"one": ENTRY}, r"valid list"),
        ([ENTRY, ENTRY], r"key one is there twice"),
        ([ENTRY | {"id": "One"}], r"entry 1: id: string should match"),
        ([ENTRY | {"id": "x" * 33}], r"entry 1: id: "),
        ([ENTRY, ENTRY | {"id": "b", "scopes": ["root"]}], r"entry 2: scopes: .*'predict' or 'adm"),
        ([ENTRY | {"scopes": []}], r"entry 1: scopes: "),
        ([ENTRY | {"hash": "SECRET"}], r"entry 1: hash: "),
        ([ENTRY | {"salt": 5}], r"entry 1: salt: "),
        ([ENTRY | {"SECRET": "SECRET"}], r"entry 1: extra inputs"),
        ("SECRET", r"valid list"),
        ("- {id: SECRET\n  SECRET]", r"keys.yaml:2: neither YAML nor JSON"),
        ("[" * 5000, r"neither YAML nor JSON"),
        (b"\xff\xfe\x00SECRET", r"neither YAML nor JSON"),
        (b" " * (1 << 20) + b"[]", r"more than 1048576 bytes"),
    ],
)
def test_a_malformed_file_is_one_line_without_what_it_holds(
    path: Path, document: object, message: str
) -> None:
    raw = document if isinstance(document, bytes) else None
    text = document if isinstance(document, str) else json.dumps(document, default=str)
    path.write_bytes(raw or text.encode())
    with pytest.raises(ServingError, match=message) as refusal:
        KeyRing(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    told = "".join(traceback.format_exception(refusal.value))
    assert not any(secret in told.replace(str(path), "") for secret in ("SECRET", "cd" * 32))


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    with pytest.raises(ServingError, match=r"no such file"):
        KeyRing(path)
    with pytest.raises(ServingError, match=r"keys.yaml: no such file"):
        list_keys(path)
    with pytest.raises(ServingError, match=r"director"):
        KeyRing(path.parent)
    os.mkfifo(path)
    with pytest.raises(ServingError, match=r"no regular file"):
        KeyRing(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    add_key(path, "one", ["predict"])
    path.chmod(mode)
    with pytest.raises(ServingError, match=r"others than its owner may write it; chmod go-w it"):
        KeyRing(path)
    with pytest.raises(ServingError, match=r"chmod go-w"):
        add_key(path, "two", ["predict"])


def test_a_wrong_add_or_remove_leaves_the_file_as_it_is(path: Path) -> None:
    add_key(path, "one", ["predict"])
    before = path.read_bytes()
    with pytest.raises(ServingError, match=r"key one is there already"):
        add_key(path, "one", ["predict"])
    for name in ("", "A", "a_b", "a" * 33, "a\n", "../a"):
        with pytest.raises(ServingError, match=r"an id has 1 to 32 of a-z, 0-9 and -"):
            add_key(path, name, ["predict"])
    with pytest.raises(ServingError, match=r"has no scope"):
        add_key(path, "two", [])
    with pytest.raises(ServingError, match=r"no key 'two'; there are one"):
        remove_key(path, "two")
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_is_one_line(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ServingError, match=r"choose a file that you may write"):
        add_key(path / "keys.yaml", "one", ["predict"])


def test_no_repr_holds_a_hash_or_a_salt(path: Path) -> None:
    add_key(path, "one", ["predict"])
    stored = json.loads(path.read_text())[0]
    ring = KeyRing(path)
    shown = repr(list_keys(path)) + repr(ring) + str(ring)
    assert stored["hash"] not in shown
    assert stored["salt"] not in shown
