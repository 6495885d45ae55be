"""Calls that end while the browser or the server is still asked for something, and the call after them; lines that come
back by themselves, links that are mended, and captions that come in pieces."""

import json
import urllib.request

import pytest
from test_browser import _browser, _link, _view, pytestmark  # noqa: F401  # fixtures, and where these tests run

ASKS = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    window.given = await ask(wanted);
    await new Promise((done) => (window.allow = done));
    return window.given;
  };
}"""

HURRY = """() => {
  const limit = AbortSignal.timeout.bind(AbortSignal);
  AbortSignal.timeout = () => limit(300);
}"""


def test_hung_up_while_the_browser_asks_for_the_microphone(view):
    one = view().open()
    one.state("ready")
    one.page.evaluate(ASKS)
    one.page.click("#start")
    one.until("window.allow")
    one.page.click("#end")
    one.state("ended")
    one.page.evaluate("allow()")
    one.until("given.getTracks()[0].readyState === 'ended'")
    assert one.page.evaluate("fake.pcs.length") == 0
    assert one.page.get_attribute("body", "data-state") == "ended"


def test_a_camera_that_comes_after_the_call_is_switched_off(view):
    one = view()
    one.call()
    one.page.evaluate(ASKS)
    one.page.keyboard.press("v")
    one.until("window.allow")
    one.page.click("#end")
    one.page.evaluate("allow()")
    one.until("given.getTracks()[0].readyState === 'ended'")
    assert not one.page.is_visible("#self")


def test_hung_up_before_the_server_has_answered(view, link):
    one, held = view(), []
    one.page.route("**/api/calls", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.open().state("ready")
    one.page.click("#start")
    while not held:
        one.page.wait_for_timeout(20)
    one.page.click("#end")
    one.state("ended")
    with one.page.expect_response("**/end"):
        held[0].continue_()
    assert free(link) == 2


NEXT = ("#again", "#start")


@pytest.mark.parametrize("clicks", [NEXT, (*NEXT, "#end", *NEXT)], ids=["", "also where another was hung up before"])
def test_the_next_call_waits_until_the_last_is_over(view, clicks):
    one, held, asked = view(), [], []
    one.call()
    one.page.route("**/end", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.page.click("#end")
    one.page.on("request", lambda request: asked.append(request.url))
    for click in clicks:
        one.page.click(click)
        one.page.wait_for_timeout(200)
    one.page.wait_for_timeout(300)
    assert held and not asked and one.page.get_attribute("body", "data-state") == "connecting"
    held[0].continue_()
    one.state("listening")
    one.page.unroute("**/end")


def test_the_next_call_waits_until_a_place_that_came_too_late_is_given_back(view):
    one, places, goodbyes = view(), [], []
    one.page.route("**/api/calls", lambda route: places.append(route))  # noqa: PLW0108  # as above
    one.page.route("**/end", lambda route: goodbyes.append(route))  # noqa: PLW0108
    one.open().state("ready")
    one.page.click("#start")
    until(one, places)
    for click in ("#end", "#again", "#start"):
        one.page.click(click)
    one.page.wait_for_timeout(300)
    assert len(places) == 1
    places[0].continue_()
    until(one, goodbyes)
    one.page.wait_for_timeout(300)
    assert len(places) == 1
    goodbyes[0].continue_()
    until(one, places, 2)
    places[1].continue_()
    one.state("listening")
    one.page.unroute("**/end")


def test_a_server_that_does_not_answer(view):
    one = view().open()
    one.state("ready")
    one.page.evaluate(HURRY)
    one.page.route("**/api/calls", lambda route: None)
    one.page.click("#start")
    one.state("ended")
    assert "cannot be reached" in one.page.inner_text("#notice")


def until(one, held, number=1):
    """The browser has asked for what is held back, so many times."""
    while len(held) < number:
        one.page.wait_for_timeout(20)


def free(link):
    """Places for calls."""
    with urllib.request.urlopen(f"{link}readyz", timeout=10) as answer:
        return json.load(answer)["free"]


def test_a_new_call_is_not_muted(view):
    one = view()
    one.call()
    one.page.keyboard.press("m")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    one.page.click("#end")
    one.state("ended")
    one.page.click("#again")
    one.state("ready")
    one.page.click("#start")
    one.state("listening")
    assert one.page.get_attribute("#mute", "aria-pressed") == "false"
    one.page.keyboard.press("m")
    one.page.evaluate("document.activeElement.blur()")
    one.page.keyboard.down(" ")
    one.page.evaluate("dispatchEvent(new Event('blur'))")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"


def test_a_line_that_comes_back_while_a_new_one_is_tried(view):
    one, held = view(), []
    one.call()
    one.page.route("**/offer", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.page.evaluate("fake.pcs[0].become('disconnected')")
    one.state("reconnecting")
    while not held:
        one.page.wait_for_timeout(50)
    one.page.evaluate("fake.pcs[0].become('connected')")
    held[0].abort()
    one.state("listening")


def test_a_line_that_is_given_up_leaves_no_place_taken_and_what_was_recorded(view, link):
    one = view()
    one.call()
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#recording:visible")
    one.page.evaluate("fake.never = true; fake.pcs.at(-1).become('failed')")
    one.state("reconnecting")
    one.page.evaluate("const now = Date.now; Date.now = () => now() + 30000")
    one.state("ended")
    assert one.page.is_visible("#recordings a") and free(link) == 2


def test_a_line_that_is_given_up_while_the_server_is_silent_and_what_it_says_later(view):
    one, held = view(), []
    one.call()
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#recording:visible")
    one.page.route("**/end", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.page.evaluate("fake.never = true; fake.pcs.at(-1).become('failed')")
    one.state("reconnecting")
    one.page.evaluate("const now = Date.now; Date.now = () => now() + 30000")
    one.page.wait_for_selector("body[data-state=ended]", timeout=8_000)
    assert held and not one.page.is_visible("#recordings a")
    held[0].continue_()
    one.page.wait_for_selector("#recordings a:visible")


def test_a_line_into_a_call_that_the_server_has_ended(view):
    one, asked = view(), []
    with one.page.expect_request("**/offer") as offer:
        one.call()
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#recording:visible")
    end = offer.value.url.removesuffix("offer") + "end"
    urllib.request.urlopen(urllib.request.Request(end, b"{}", {"Content-Type": "application/json"}), timeout=10).close()
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.evaluate("fake.pcs.at(-1).become('failed')")
    one.state("ended")
    assert one.page.is_visible("#recordings a") and "You hung up." in one.page.inner_text("#notice")
    assert end not in asked


def test_the_recording_of_a_call_that_the_server_ended_first(view):
    one = view()
    one.call()
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#recording:visible")
    one.page.route("**/end", lambda route: (route.fetch(), route.continue_()))
    one.page.click("#end")
    one.page.wait_for_selector("#recordings a:visible")


def test_a_recording_that_hangs_holds_up_no_other(view):
    one, held = view(), []
    one.call()
    one.page.route("**/recording", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.page.keyboard.press("r")
    until(one, held)
    for click in ("#end", "#again", "#start"):
        one.page.click(click)
    one.state("listening")
    one.page.evaluate(HURRY)
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#toast:has-text('cannot be reached')")
    assert len(held) == 2
    one.page.unroute("**/recording")
    one.page.keyboard.press("r")
    one.page.wait_for_selector("#recording:visible")


def test_the_whole_link_in_a_tab_that_had_half_of_it(view):
    one = view().open("#token=ha")
    one.state("ready")
    with one.page.expect_event("load"):
        one.open("#token=half-and-half")
    one.state("ready")


ANSWERS = [
    (["Привет!", " Как", " дела", "?"], ["Nova: Привет!", "Nova: Как дела?"]),
    (["你好。"], ["Nova: 你好。"]),
    (["هل", " تسمعني", "؟"], ["Nova: هل تسمعني؟"]),
    (["Well", " then", "…"], ["Nova: Well then…"]),
]


def test_sentences_are_read_aloud_whole_in_any_script(view):
    one, read = view(), []
    one.call()
    said = one.page.locator("#said p")
    for pieces, sentences in ANSWERS:
        one.page.evaluate("fake.say('bot-llm-started')")
        for number, text in enumerate(pieces):
            one.page.evaluate("([text, segment_id]) => fake.say('bot-output', { text, segment_id })", [text, number])
        read += sentences
        assert said.all_text_contents() == read


def test_an_answer_that_has_no_full_stop_is_read_aloud_when_it_has_been_spoken(view):
    one = view()
    one.call()
    one.page.evaluate("fake.say('bot-output', { text: 'Well then', segment_id: 1 })")
    assert one.page.locator("#said p").count() == 0
    one.page.evaluate("fake.say('bot-stopped-speaking')")
    assert one.page.locator("#said p").all_text_contents() == ["Nova: Well then"]


def test_captions_that_come_in_pieces_of_words(view):
    one = view()
    one.call()
    for number, text in enumerate(["Hel", "lo", "!", " I am", " Nova."]):
        one.page.evaluate("([text, segment_id]) => fake.say('bot-output', { text, segment_id })", [text, number])
    assert one.page.text_content(".them .text").strip() == "Hello! I am Nova."
    one.page.evaluate("fake.say('bot-llm-started')")
    one.page.evaluate("fake.say('bot-output', { text: 'Yes.', segment_id: 9 })")
    assert one.page.text_content(".them .text").strip() == "Yes."
    for text, final in [("Who are", False), (" you", False), ("Who are you?", True), ("And", False)]:
        one.page.evaluate("([text, final]) => fake.say('user-transcription', { text, final })", [text, final])
        if text == " you":
            assert one.page.text_content(".you .text") == "Who are you"
    assert one.page.text_content(".you .text") == "And"
