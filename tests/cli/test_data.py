import av
import pytest

from talkingmachines.cli import data
from talkingmachines.cli.main import main
from talkingmachines.media import read_audio, read_image

pytest.importorskip("skia")


def test_preview(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "SHEET_CHARACTERS", 4)
    monkeypatch.setattr(data, "CLIP_SECONDS", 1)
    monkeypatch.setattr(data, "CLIP_UTTERANCES", 2)
    out = tmp_path / "new" / "folder"
    assert main(["data", "preview", "--out", str(out)]) == 0
    assert read_image(out / "characters.png").shape == (256, 256, 3)
    with av.open(str(out / "clip.mp4")) as container:
        assert len(list(container.decode(video=0))) == 25
    assert abs(read_audio(out / "clip.mp4")).max() > 0.01
    assert sorted(path.name for path in out.iterdir()) == ["characters.png", "clip.mp4"]
    assert str(out / "clip.mp4") in capsys.readouterr().out
