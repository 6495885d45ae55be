import re
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient
from server_fakes import fake_app

from talkingmachines.server.app import PAGE

VOID = {"meta", "link", "img", "input", "use", "rect", "path", "circle", "br"}


@pytest.fixture(name="client", scope="module")
def _client():
    with TestClient(fake_app(), base_url="http://localhost") as client:
        yield client


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.text = tag, dict(attributes), parent, ""

    def inside(self, tag):
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], [None]
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(Element(tag, attrs, self.open[-1]))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        for element in self.open[1:]:
            element.text += data

    def all(self, *tags):
        return [element for element in self.elements if element.tag in tags]


@pytest.fixture(name="page")
def _page(client):
    return Page(client.get("/").text)


@pytest.mark.parametrize("name", [name for name in PAGE if name != "index.html"])
def test_its_files_have_the_right_type(client, name):
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 200 and answer.headers["content-type"].split(";")[0] == PAGE[name]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nothing_comes_from_elsewhere(client, page):
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    for name in PAGE:
        text = client.get("/" if name == "index.html" else f"/page/{name}").text
        assert set(re.findall(r"https?://[\w./-]*", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"""(src|href)=["']//""", text) and "@import" not in text
    for element in page.elements:
        for value in (element.attributes.get("src"), element.attributes.get("href")):
            assert value is None or value.startswith(("/page/", "#"))


def test_every_file_that_is_named_is_there(client, page):
    named = {e.attributes[k] for e in page.elements for k in ("src", "href") if k in e.attributes}
    scripts = "".join(client.get(f"/page/{name}").text for name in PAGE if name.endswith(".js"))
    named |= set(re.findall(r'from "(/page/[^"]+)"', scripts))
    files = {name for name in named if name.startswith("/page/")}
    assert len(files) >= 5
    for file in files:
        assert client.get(file).status_code == 200
    identities = {e.attributes.get("id") for e in page.elements}
    assert {name[1:] for name in named if name.startswith("#") and len(name) > 1} <= identities
    assert set(re.findall(r'\$\("([\w-]+)"\)', scripts)) <= identities


def test_everything_that_can_be_pressed_has_a_name(page):
    for button in page.all("button", "a"):
        assert button.attributes.get("aria-label") or button.text.strip(), button.attributes
    for field in page.all("input"):
        assert field.attributes.get("aria-label") or field.inside("label"), field.attributes
    for video in page.all("video"):
        assert video.attributes.get("aria-label")
    for image in page.all("img"):
        assert "alt" in image.attributes
    for picture in page.all("svg"):
        assert "hidden" in picture.attributes or picture.attributes.get("aria-hidden") == "true"


def test_the_page_can_be_found_ones_way_about_in(page):
    (html,) = page.all("html")
    assert html.attributes["lang"] == "en" and page.all("title")[0].text
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    identities = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(identities) == len(set(identities))
    for element in page.elements:
        assert element.attributes.get("aria-labelledby", identities[0]) in identities
        assert int(element.attributes.get("tabindex", 0)) <= 0
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"]
    assert {e.attributes.get("role") for e in page.elements} >= {"status", "log", "alert"}


def test_it_says_what_it_is_and_follows_the_user(client, page):
    assert "AI-generated" in next(e for e in page.elements if e.attributes.get("id") == "ai").text
    style = client.get("/page/style.css").text
    for query in ("prefers-color-scheme: light", "prefers-reduced-motion: reduce", "prefers-contrast: more"):
        assert query in style


def test_every_state_has_words_and_is_known_to_the_style(client):
    view, style = client.get("/page/view.js").text, client.get("/page/style.css").text
    words = re.search(r"const WORDS = \{(.*?)\};", view, re.S).group(1)
    states = set(re.findall(r"^\s+(\w+):", words, re.M))
    assert states >= {"connecting", "listening", "thinking", "speaking", "reconnecting", "ended", "busy", "nomic"}
    assert set(re.findall(r'data-state="(\w+)"', style)) <= states
