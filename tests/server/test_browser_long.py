"""Many questions to the local voice in a real browser: how soon they are answered, and what half an hour changes."""

import itertools
import json
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from test_browser import CHROMIUM, RECEIVED, WATCH, called, figures_of, in_a_call, write_wav

from talkingmachines.data.synthetic import voices_piper
from talkingmachines.data.synthetic.sound import resample
from talkingmachines.types import SAMPLE_RATE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium"),
]

QUESTIONS = (
    "What is the capital of France?",
    "How do you make a good cup of tea?",
    "Tell me something about the moon.",
    "Why is the sky blue?",
    "What should I cook for dinner tonight?",
    "Do you like rainy days?",
    "How old is the earth?",
    "Can you recommend a book to me?",
    "What is your favourite animal, and why?",
    "How does a bicycle stay upright?",
    "What do people do in Rome on a Sunday?",
    "Where does honey come from?",
)
BEFORE, EVERY = 8, 15
"""Seconds before the first question, and from one to the next."""

LISTEN = """
window.sounds = [];
const hear = (stream, who) => {
  const context = new AudioContext();
  const analyser = Object.assign(context.createAnalyser(), { fftSize: 512 });
  context.createMediaStreamSource(stream).connect(analyser);
  const buffer = new Float32Array(512);
  let last = 0;
  setInterval(() => {
    analyser.getFloatTimeDomainData(buffer);
    if (Math.hypot(...buffer) / Math.sqrt(512) < 0.01) return;
    const now = performance.now();
    if (now - last > 500) window.sounds.push({ who, from: now, to: now });
    last = window.sounds.findLast((sound) => sound.who === who).to = now;
  }, 20);
};
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (...given) => {
  const stream = await ask(...given);
  hear(stream, "user");
  return stream;
};
window.listen = () => hear(document.getElementById("face").srcObject, "character");
"""


def write_questions(path: Path, minutes: float) -> None:
    """A voice that the character does not have, with time for answers."""
    sound = np.zeros(round((minutes + 1) * 60 * SAMPLE_RATE), np.float32)
    for number, at in enumerate(range(BEFORE, round(minutes * 60) - EVERY, EVERY)):
        text = QUESTIONS[number % len(QUESTIONS)]
        samples, rate, _ = voices_piper.speak(text, "other", np.random.default_rng(number))
        said = resample(samples, SAMPLE_RATE / rate)
        sound[at * SAMPLE_RATE :][: len(said)] = said * 0.5 / np.abs(said).max()
    write_wav(path, sound)


def megabytes(pid: int) -> float:
    """Of a process and of those that it has begun; what they share is counted once."""
    began = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6 + sum(map(megabytes, map(int, began)))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("minutes", [3, 30])
def test_many_questions(tmp_path: Path, minutes: int) -> None:
    """The figures are printed: pytest -s."""
    questions, log = tmp_path / "questions.wav", tmp_path / "log.txt"
    write_questions(questions, minutes)
    seen, memory = [], []
    with (
        log.open("w") as stderr,
        called("--voice", "local", "--max-calls", "1", stderr=stderr) as (link, server),
        in_a_call(link, questions, WATCH + LISTEN) as page,
    ):
        page.evaluate("window.listen()")
        for second in range(minutes * 60 + 1):
            seen.append(page.evaluate(RECEIVED))
            if second % 60 == 0:
                memory.append(round(megabytes(server)))
            page.wait_for_timeout(1000)
        sounds = page.evaluate("window.sounds")
        metrics = urllib.request.urlopen(f"{link}metrics", timeout=10).read().decode()
    turns = [float(found) for found in re.findall(r"answered after ([\d.]+) s", log.read_text())]
    figures = {
        "whole": figures_of(seen, [], metrics),
        "last_three_minutes": figures_of(seen[-180:], [], metrics),
        "turns_s": summary(turns),
        "turns_as_heard_s": summary(as_heard(sounds)),
        "memory_mb_by_minute": memory,
    }
    print(json.dumps(figures, indent=2))
    assert figures["whole"]["fps"] >= 24 and figures["whole"]["worst_second"] >= 15
    assert figures["last_three_minutes"]["av_offset_p95_ms"] <= 45
    assert np.percentile(turns, 95) <= 2.5
    assert memory[-1] - memory[1] <= 100


def as_heard(sounds: list[dict]) -> list[float]:
    """Seconds from the end of a question to the first sound of what the character says next, both in the browser."""
    ordered = sorted(sounds, key=lambda sound: sound["from"])
    pairs = [(a, b) for a, b in itertools.pairwise(ordered) if (a["who"], b["who"]) == ("user", "character")]
    return [(b["from"] - a["to"]) / 1000 for a, b in pairs if b["from"] > a["to"]]


def summary(turns: list[float]) -> dict[str, float]:
    return {
        "number": len(turns),
        "mean": round(float(np.mean(turns)), 2),
        "median": round(float(np.median(turns)), 2),
        "p95": round(float(np.percentile(turns, 95)), 2),
        "longest": round(max(turns), 2),
    }
