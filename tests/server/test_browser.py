"""The page in a real browser: every state of it over a fake line, and a call with everything real.

SCREENSHOTS=docs/images keeps the pictures. `make test-slow` runs both; each is skipped where something is missing.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import pytest
from dropped_calls import served
from server_fakes import FakeModel, fake_app

from talkingmachines.media.audio import read_audio
from talkingmachines.types import SAMPLE_RATE

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]
WIDE, TALL = {"width": 1200, "height": 760}, {"width": 390, "height": 844}
SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium"),
]

ANSWER = """() => {
  fake.say("user-transcription", { text: "What do you like about rainy days?", final: true });
  fake.say("bot-started-speaking");
  const said = (segment_id, accumulated_text, remaining_text) =>
    fake.say("bot-output", { segment_id, text: "", spoken_progress: { accumulated_text, remaining_text } });
  said(1, "The sound on the window, mostly.", "");
  said(2, "And how the street", "smells afterwards.");
}"""


@pytest.fixture(name="link", scope="module")
def _link():
    """A server without WebRTC and without models, with pictures of the usual size."""
    with served(fake_app(max_calls=2, shape=(256, 256))) as link:
        yield link


@pytest.fixture(name="browser")
def _browser():
    """For one test: the real calls below start one of their own, and there can be one at a time."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class View:
    """The page in one window, with a line that a test speaks through."""

    def __init__(self, browser, size, scheme, link):
        options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
        self.context = browser.new_context(**options)
        self.page, self.errors = self.context.new_page(), []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._own(request.url, link))
        self.page.add_init_script(path=Path(__file__).parent / "fake_line.js")
        self.link = link

    def _own(self, url, link):
        if not url.startswith((link, "blob:", "data:")):
            self.errors.append(f"asked for {url}")

    def open(self, path=""):
        self.page.goto(self.link + path)
        return self

    def state(self, name):
        self.page.wait_for_selector(f"body[data-state={name}]")

    def until(self, expression):
        """The page's rules forbid playwright's own way to wait for an expression."""
        for _ in range(100):
            if self.page.evaluate(f"Boolean({expression})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(expression)

    def call(self):
        self.open().state("ready")
        self.page.click("#start")
        self.state("listening")
        self.page.wait_for_selector("body.live")

    def look(self, name):
        """Keeps a picture, where that is wanted, and checks that nothing hangs over the edge."""
        self.page.wait_for_timeout(800)
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"call-{name}.jpg", quality=72, type="jpeg")
        size = self.page.viewport_size
        for selector in ("#controls", "#start", "#notice", "#marks", "#own", "#captions p"):
            for box in [e.bounding_box() for e in self.page.query_selector_all(selector) if e.is_visible()]:
                assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] + 1, f"{selector} in {name}"
                assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"] + 1, f"{selector} in {name}"
        assert not self.errors, name

    def close(self):
        self.page.evaluate("window.fake = null")
        self.context.close()


@pytest.fixture(name="view")
def _view(browser, link):
    opened = []

    def view(size=WIDE, scheme="dark"):
        opened.append(View(browser, size, scheme, link))
        return opened[-1]

    yield view
    for one in opened:
        if one.page.query_selector("#end:visible"):
            one.page.click("#end")
            one.state("ended")
        one.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [WIDE, TALL], ids=["wide", "tall"])
def test_from_the_first_click_to_the_end(view, size, scheme):
    kind = ("phone-" if size == TALL else "") + scheme
    one = view(size, scheme)
    one.open().state("ready")
    one.look(f"ready-{kind}")
    one.call()
    one.look(f"listening-{kind}")
    one.page.evaluate(ANSWER)
    one.state("speaking")
    assert "smells afterwards." in one.page.inner_text("#captions")
    one.look(f"speaking-{kind}")
    one.page.evaluate("fake.say('bot-interrupted')")
    assert "smells afterwards." not in one.page.inner_text("#captions")
    read = [
        "You: What do you like about rainy days?",
        "Nova: The sound on the window, mostly.",
        "Nova: And how the street",
    ]
    assert one.page.locator("#said p").all_text_contents() == read, "each sentence once, for screen readers"
    one.page.click("#end")
    one.state("ended")
    one.look(f"ended-{kind}")


def test_thinking_camera_and_panel(view):
    one = view()
    one.call()
    one.page.keyboard.press("v")
    one.page.keyboard.press("l")
    one.page.evaluate("fake.say('user-started-speaking'); fake.say('user-stopped-speaking')")
    assert one.page.get_attribute("body", "data-state") == "listening", "a cough"
    one.page.evaluate("fake.say('user-transcription', { text: 'Why?', final: true })")
    one.state("thinking")
    one.page.evaluate("fake.say('user-started-speaking')")
    one.state("listening")
    one.page.evaluate(
        "fake.say('user-transcription', { text: 'Why?', final: true }); fake.say('user-stopped-speaking')"
    )
    one.state("thinking")
    one.look("thinking-panel-dark")
    assert one.page.is_visible("#self") and one.page.is_visible("#panel")


def test_connecting(view):
    one = view()
    one.open().state("ready")
    one.page.evaluate("fake.never = true")
    one.page.click("#start")
    one.state("connecting")
    one.look("connecting-dark")


def test_the_line_is_lost_and_found_again(view):
    one = view()
    one.call()
    one.page.evaluate("fake.never = true; fake.pcs.at(-1).become('failed')")
    one.state("reconnecting")
    one.look("reconnecting-dark")
    one.page.evaluate("fake.never = false; fake.pcs.at(-1).become('connected')")
    one.state("listening")


def test_all_lines_are_busy(view):
    first, second, third = view(), view(), view()
    first.call()
    second.call()
    third.open().state("ready")
    third.page.click("#start")
    third.state("busy")
    third.look("busy-dark")
    assert first.page.get_attribute("body", "data-state") == "listening"


@pytest.mark.parametrize("name", ["NotAllowedError", "NotFoundError"])
def test_no_microphone(view, name):
    one = view()
    one.page.add_init_script(
        f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{name}') }}"
    )
    one.open().state("ready")
    one.page.click("#start")
    one.state("nomic")
    one.look("nomic-dark")
    assert "microphone" in one.page.inner_text("#notice")


def test_your_own_picture(view):
    one = view()
    one.open().state("ready")
    one.page.click("#upload")
    one.page.set_input_files("#file", str(files("talkingmachines") / "assets" / "demo.png"))
    assert one.page.is_disabled("#own-use")
    one.page.check("#consent")
    one.look("own-dark")
    one.page.click("#own-use")
    one.page.wait_for_selector("#own", state="hidden")
    assert one.page.input_value("#looks input:checked").startswith("picture:")
    one.page.click("#upload")
    bad = {"name": "a.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    one.page.set_input_files("#file", [bad])
    one.page.check("#consent")
    one.page.click("#own-use")
    one.page.wait_for_selector("#own-error:visible")
    one.page.keyboard.press("Escape")
    assert not one.page.is_visible("#own")


def test_all_of_it_by_keyboard(view):
    one = view()
    one.open().state("ready")
    press, focused = one.page.keyboard.press, lambda: one.page.evaluate("document.activeElement.id")
    press("Tab")
    press("ArrowRight")
    assert one.page.input_value("#looks input:checked") != one.page.input_value("#looks input")
    press("Tab")
    assert focused() == "upload"
    press("Tab")
    assert focused() == "start"
    press("Enter")
    one.state("listening")
    assert focused() == "mute"
    press("m")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    one.page.keyboard.down(" ")
    assert one.page.get_attribute("#mute", "aria-pressed") == "false"
    one.page.keyboard.up(" ")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    press("c")
    assert one.page.get_attribute("#cc", "aria-pressed") == "false"
    for shown in ("visible", "hidden", "visible"):
        press("r")
        one.page.wait_for_selector("#recording", state=shown)
    press("Escape")
    assert one.page.is_visible("#toast")
    press("Escape")
    one.state("ended")
    one.page.wait_for_selector("#recordings a:visible")
    assert one.page.locator("#recordings a").all_inner_texts() == ["Save recording 1", "Save recording 2"]
    assert focused() == "again"


# The real thing


WATCH = """
window.pcs = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.pcs.push(this); }
};
window.states = [];
addEventListener("DOMContentLoaded", () => new MutationObserver(() =>
  window.states.push([performance.now(), document.body.dataset.state])).observe(document.body, { attributes: true }));
"""

RECEIVED = """async () => {
  const seen = { at: performance.now() };
  for (const stat of (await window.pcs.at(-1).getStats()).values()) {
    if (stat.type !== "inbound-rtp") continue;
    seen[stat.kind] = { frames: stat.framesDecoded, dropped: stat.framesDropped, energy: stat.totalAudioEnergy,
      playing: stat.estimatedPlayoutTimestamp };
  }
  return seen;
}"""


def write_question(path):
    """A real person's sentence after 6 s of silence, and then a minute of silence, as a browser's microphone."""
    folder = files("talkingmachines") / "assets" / "recordings"
    speech = read_audio(sorted(Path(str(folder)).glob("en-*.flac"))[0])[: 6 * SAMPLE_RATE]
    sound = np.concatenate([np.zeros(6 * SAMPLE_RATE, np.float32), speech, np.zeros(90 * SAMPLE_RATE, np.float32)])
    write_wav(path, sound)


def write_wav(path, sound):
    with av.open(str(path), "w", format="wav") as file:
        stream = file.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def test_the_page_over_a_real_line(tmp_path):
    """Without a model: the character only shows how loud it is. Short: do page and server understand each other?"""
    from talkingmachines.conversation.options import CallOptions
    from talkingmachines.server.live import live_call
    from talkingmachines.server.webrtc import WebRTCSignalling

    question = tmp_path / "question.wav"
    write_question(question)
    with served(fake_app(live_call(FakeModel(), 12, CallOptions(voice="echo")), WebRTCSignalling)) as link:
        figures = have_a_call(link, question, 15)
    print(json.dumps(figures, indent=2))
    assert figures["fps"] >= 20 and figures["heard"] and "speaking" in figures["states"]


@contextlib.contextmanager
def called(*options, stderr=None):
    """The link of `talkingmachines call`, and its process. stderr: a file for its log."""
    program = str(Path(sys.executable).with_name("talkingmachines"))
    command = [program, "call", "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        link = next((line.strip() for line in server.stdout if line.strip()), None)
        if link is None:
            pytest.skip(f"the server did not start: exit code {server.wait()}, its stderr says why")
        yield link, server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


@contextlib.contextmanager
def in_a_call(link, sound, script):
    """The page, with `script` in it, in a call in which the microphone plays the file `sound`."""
    with sync_api.sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={sound}%noloop"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        page = browser.new_page(viewport=WIDE)
        page.add_init_script(script)
        page.goto(link)
        page.wait_for_selector("body[data-state=ready]")
        page.click("#start")
        page.wait_for_selector("body.live", timeout=60_000)
        yield page
        page.click("#end")
        page.wait_for_selector("body[data-state=ended]")
        browser.close()


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("voice", "size"), [("echo", "256x256"), ("local", "256x256"), ("local", "512x512")])
def test_a_call_with_everything_real(tmp_path, voice, size):
    """The figures are printed: pytest -s."""
    question = tmp_path / "question.wav"
    write_question(question)
    options = ["--voice", voice, "--size", size, "--max-calls", "1", "--record", str(tmp_path / "calls")]
    with called(*options) as (link, _):
        figures = have_a_call(link, question)
    print(json.dumps({"voice": voice, "size": size, **figures}, indent=2))
    assert figures["fps"] >= 24 and figures["worst_second"] >= 15
    assert figures["heard"] and "speaking" in figures["states"]
    assert figures["av_offset_p95_ms"] <= 45
    assert [path.suffixes for path in (tmp_path / "calls").iterdir()] == [[".mp4"]]


def have_a_call(link, question, seconds=SECONDS):
    """Looked at once a second."""
    with in_a_call(link, question, WATCH) as page:
        seen = []
        for _ in range(seconds + 1):
            seen.append(page.evaluate(RECEIVED))
            page.wait_for_timeout(1000)
        metrics = urllib.request.urlopen(f"{link}metrics", timeout=10).read().decode()
        states = [name for _, name in page.evaluate("window.states")]
    return figures_of(seen, states, metrics)


def figures_of(seen, states, metrics):
    spans = [(b["at"] - a["at"]) / 1000 for a, b in itertools.pairwise(seen)]
    rates = [
        (b["video"]["frames"] - a["video"]["frames"]) / span for a, b, span in zip(seen, seen[1:], spans, strict=False)
    ]
    offsets = [
        abs(one["audio"]["playing"] - one["video"]["playing"])
        for one in seen
        if one["audio"].get("playing") and one["video"].get("playing")
    ]

    def metric(name):
        found = re.search(rf"^talkingmachines_{name} (\S+)$", metrics, re.M)
        return float(found.group(1)) if found else None

    turns = metric("turn_seconds_count")
    return {
        "fps": round((seen[-1]["video"]["frames"] - seen[0]["video"]["frames"]) / sum(spans), 2),
        "worst_second": round(min(rates), 1),
        "slowest_seconds": {second: round(rates[second], 1) for second in np.argsort(rates)[:5].tolist()},
        "dropped": seen[-1]["video"]["dropped"],
        "av_offset_p95_ms": round(float(np.percentile(offsets, 95)), 1) if offsets else None,
        "heard": seen[-1]["audio"]["energy"] - seen[0]["audio"]["energy"] > 1e-3,
        "turn_s": round(metric("turn_seconds_sum") / turns, 2) if turns else None,
        "first_frame_s": metric("first_frame_seconds_sum"),
        "chunk_p95_s": metric("chunk_p95_seconds"),
        "states": sorted(set(states)),
    }
