import re

import pytest

from serving.page.files import CONTENT_SECURITY_POLICY, page_files
from serving.schemas import NOTICE
from tests.pages import Reader

HTML, CSS, JS = (page_files()[path][0].decode() for path in ("/", "/page.css", "/page.js"))
PAGE = Reader(HTML)
NAMESPACE = "http://www.w3.org/2000/svg"


def policy() -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))


def test_each_file_is_of_its_type_and_read_once() -> None:
    kinds = {path: kind.split(";")[0] for path, (_, kind) in page_files().items()}
    assert kinds == {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    assert page_files() is page_files()


@pytest.mark.parametrize("source", [HTML, CSS, JS], ids=["html", "css", "js"])
def test_no_file_names_another_host(source: str) -> None:
    assert not re.findall(r"(?:https?:|wss?:|[\"'(]\s*)//", source.replace(NAMESPACE, ""))


def test_no_script_style_or_handler_is_inline() -> None:
    assert [set(script) for script in PAGE.all("script")] == [{"type", "src"}]
    assert not PAGE.all("style")
    assert not "".join(PAGE.scripts).strip()
    strange = [name for _, held in PAGE.tags for name in held if re.match(r"on|style$", name)]
    assert strange == []


def test_the_script_never_turns_data_into_markup() -> None:
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser", JS
    )


def test_the_script_keeps_nothing_in_the_browser() -> None:
    assert not re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie", JS)


def test_the_policy_lets_in_only_what_the_page_itself_serves() -> None:
    rules = policy()
    assert rules.pop("img-src") == "'self' blob: data:"
    allowed = {name for name, sources in rules.items() if sources == "'self'"}
    assert allowed == {"script-src", "style-src", "connect-src"}
    assert {name for name, sources in rules.items() if sources == "'none'"} == set(rules) - allowed
    assert {"default-src", "form-action", "base-uri", "frame-ancestors"} <= set(rules)


def test_the_notice_is_on_the_page_whatever_is_answered() -> None:
    assert NOTICE in " ".join(PAGE.text.split())


def test_all_that_the_script_looks_up_is_on_the_page() -> None:
    ids = [held["id"] for _, held in PAGE.tags if "id" in held]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("([^"]+)"\)', JS)) <= set(ids)


def test_each_field_has_a_label() -> None:
    labelled = {held.get("for") for held in PAGE.all("label")}
    fields = [held for tag in ("input", "select") for held in PAGE.all(tag)]
    wrapped = {"file"}  # inside its label, the drop zone
    assert {field["id"] for field in fields} <= labelled | wrapped


def test_what_the_page_refers_to_exists() -> None:
    ids = {held["id"] for _, held in PAGE.tags if "id" in held}
    named = ("aria-labelledby", "aria-describedby", "for")
    assert {held[name] for _, held in PAGE.tags for name in named if name in held} <= ids


def test_the_page_is_closed_tag_by_tag() -> None:
    void = {"meta", "link", "img", "input", "circle", "path"}
    opened: list[str] = []
    for slash, tag in re.findall(r"<(/?)([a-z][a-z0-9]*)", HTML):
        if slash:
            assert opened.pop() == tag
        elif tag not in void:
            opened.append(tag)
    assert opened == []
