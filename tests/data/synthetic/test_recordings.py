"""The recordings of real people that come with the package."""

from importlib.resources import as_file, files

import av
import numpy as np

from talkingmachines.types import SAMPLE_RATE


def test_every_recording_is_short_clear_speech_with_a_named_source() -> None:
    with as_file(files("talkingmachines") / "assets" / "recordings") as folder:
        recordings = sorted(folder.glob("*.flac"))
        sources = (folder / "SOURCES.md").read_text(encoding="utf-8")
        assert len(recordings) == 12
        assert sum(path.stat().st_size for path in recordings) < 1_500_000
        for path in recordings:
            speaker = "-".join(path.stem.split("-")[:2])
            assert speaker in sources, path.name
            with av.open(str(path)) as container:
                stream = container.streams.audio[0]
                assert (stream.rate, stream.layout.name) == (SAMPLE_RATE, "mono")
                samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
            assert 3 < len(samples) / SAMPLE_RATE < 8
            assert 0.2 < np.abs(samples / 32768).max() < 1
