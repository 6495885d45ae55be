"""Files are replaced whole or not at all."""

from pathlib import Path

import pytest

from talkingmachines.media.files import remove_partial, replacing, temporary_beside


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_text("old")
    with pytest.raises(ValueError, match="in the middle"), replacing(path) as partial:
        partial.write_text("ne")
        raise ValueError("in the middle")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"state.pt": "old"}
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"state.pt": "new"}
    temporary_beside(path).write_text("left by a killed process")
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
