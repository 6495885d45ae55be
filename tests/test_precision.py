import pytest

from talkingmachines.errors import ConfigError
from talkingmachines.precision import choose_device


def test_choose_device() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="device"):
        choose_device("quantum")
