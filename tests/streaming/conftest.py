import pytest
from stream_models import random_engine

from talkingmachines.streaming.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    return random_engine()
