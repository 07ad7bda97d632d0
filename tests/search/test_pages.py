"""Pages from handmade templates above the base."""

from pathlib import Path

import pytest
from jinja2 import Template, UndefinedError

from search.pages import page_environment, write_page

PAGE = """{% extends "base.html.j2" %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1>{{ name }}</h1>{% endblock %}
{% block main %}{% endblock %}
{% block what %}test{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Template:
    (tmp_path / "page.html.j2").write_text(PAGE)
    return page_environment(tmp_path).get_template("page.html.j2")


def written(folder: Path, template: Template, name: str) -> str:
    path = folder / "pages" / "page.html"
    write_page(path, template, name=name)
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]
    return path.read_text(encoding="utf-8")


def test_every_page_may_load_nothing_and_says_what_it_is_not(
    tmp_path: Path, template: Template
) -> None:
    page = written(tmp_path, template, "a name")
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:\"" in page
    assert "Consilium test. Educational and research use; not a medical device." in page


def test_values_are_text_and_never_markup(tmp_path: Path, template: Template) -> None:
    assert "<h1>&lt;b&gt;</h1>" in written(tmp_path, template, "<b>")


def test_bytes_that_are_no_text_become_a_question_mark(tmp_path: Path, template: Template) -> None:
    assert "<h1>a?.jpg</h1>" in written(tmp_path, template, "a\udcff.jpg")


def test_a_value_that_is_not_given_is_an_error_and_no_page(
    tmp_path: Path, template: Template
) -> None:
    with pytest.raises(UndefinedError, match=r"'name' is undefined"):
        write_page(tmp_path / "page.html", template)
    assert not (tmp_path / "page.html").exists()


def test_the_first_folder_that_has_a_template_gives_it(tmp_path: Path) -> None:
    folders = [tmp_path / "empty", tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    for folder in folders[1:]:
        (folder / "page.html.j2").write_text(folder.name)
    assert page_environment(*folders).get_template("page.html.j2").render() == "first"
