"""In a real browser: how soon an answer stops when somebody speaks into it; what is left when browsers are killed."""

import base64
import io
import json
import os
import signal
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from dropped_calls import NUMBER, leave_nothing
from PIL import Image
from test_browser import CHROMIUM, FLAGS, called, in_a_call, sync_api, write_wav

from talkingmachines.evaluation.reader import load_reader
from talkingmachines.evaluation.scores import CLOSED_THRESHOLD
from talkingmachines.media.audio import read_audio
from talkingmachines.types import SAMPLE_RATE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium"),
]

WATCH = """
window.told = []; window.loud = []; window.shots = [];
const make = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...given) {
  const channel = make.apply(this, given);
  channel.addEventListener("message", ({ data }) => {
    let type;
    try { type = JSON.parse(data).type; } catch { return; }
    if (!/speaking|interrupted/.test(type)) return;
    window.told.push([performance.now(), type]);
    if (type === "user-started-speaking") for (let wait = 100; wait <= 1200; wait += 100) setTimeout(shoot, wait);
  });
  return channel;
};
function shoot() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
  canvas.getContext("2d").drawImage(document.getElementById("face"), 0, 0, 256, 256);
  window.shots.push([performance.now(), canvas.toDataURL("image/png")]);
}
window.listen = async () => {
  const context = new AudioContext();
  await context.resume();
  const analyser = Object.assign(context.createAnalyser(), { fftSize: 512 });
  context.createMediaStreamSource(document.getElementById("face").srcObject).connect(analyser);
  const buffer = new Float32Array(512);
  setInterval(() => {
    analyser.getFloatTimeDomainData(buffer);
    window.loud.push([performance.now(), Math.hypot(...buffer) / Math.sqrt(512)]);
  }, 10);
};
"""


def write_interruption(path: Path) -> None:
    """A sentence that begins 2.5 s after the call, in the midst of the greeting."""
    folder = Path(str(files("talkingmachines") / "assets" / "recordings"))
    sentence = read_audio(sorted(folder.glob("en-*.flac"))[0])[: 4 * SAMPLE_RATE]
    before, after = (np.zeros(round(seconds * SAMPLE_RATE), np.float32) for seconds in (2.5, 30))
    write_wav(path, np.concatenate([before, sentence, after]))


@pytest.mark.timeout(300)
def test_speaking_into_an_answer(tmp_path: Path) -> None:
    """The figures are printed: pytest -s."""
    sentence = tmp_path / "sentence.wav"
    write_interruption(sentence)
    with called("--voice", "local", "--max-calls", "1") as (link, _), in_a_call(link, sentence, WATCH) as page:
        page.evaluate("window.listen()")
        page.wait_for_timeout(9_000)
        told, loud, shots = (page.evaluate(f"window.{name}") for name in ("told", "loud", "shots"))
    figures = figures_of(told, loud, shots)
    print(json.dumps(figures, indent=2))
    assert figures["sound_stops_ms"] <= 200
    assert figures["mouth_last_open_ms"] <= 600


def figures_of(told: list, loud: list, shots: list) -> dict:
    """Of the first time that the user began to speak while the character was speaking."""
    speaking, began = False, None
    for at, kind in told:
        if kind == "user-started-speaking" and speaking:
            began = at
            break
        speaking = kind == "bot-started-speaking" or (speaking and kind != "bot-stopped-speaking")
    assert began is not None, f"nobody spoke into an answer: {told}"
    sounding = [at for at, level in loud if began - 1000 < at < began + 3000 and level > 0.01]
    assert sounding and sounding[0] < began, "the character was not heard before"
    pictures = [(at - began, data) for at, data in shots if 0 < at - began < 1300]
    openings = load_reader().read(np.stack([pixels_of(data) for _, data in pictures]))["mouth_open"]
    still_open = [at for (at, _), opening in zip(pictures, openings, strict=True) if opening >= CLOSED_THRESHOLD]
    return {
        "sound_stops_ms": round(max(0.0, sounding[-1] - began)),
        "mouth_last_open_ms": round(max(still_open, default=0.0)),
        "openings": [round(float(opening), 2) for opening in openings],
    }


def pixels_of(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))


@pytest.mark.timeout(600)
def test_ten_pages_that_are_killed_leave_nothing() -> None:
    """A page that is closed says goodbye; a browser that is killed does not. Places are kept for a while then."""

    def drop(link, wait) -> None:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
            for _ in range(NUMBER):
                page = browser.new_page()
                page.goto(link)
                page.wait_for_selector("body[data-state=ready]")
                page.click("#start")
                page.wait_for_selector("body.live", timeout=60_000)
            wait()
            os.kill(next(process["id"] for process in processes if process["type"] == "browser"), signal.SIGKILL)

    leave_nothing(drop, 40)
