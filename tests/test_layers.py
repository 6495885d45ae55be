"""A room imports only from rooms above it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "talkingmachines"

LAYERS = [
    {"types", "errors", "malloc"},
    {"precision"},
    {"audio", "attention", "media", "moving", "patches"},
    {"vae", "dit", "encoders", "framing"},
    {"flow"},
    {"training", "streaming"},
    {"placement"},
    {"presets", "memory", "weights", "checkpoints", "avatar", "apart", "teacher"},
    {"data", "evaluation", "conversation"},
    {"server"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
FORBIDDEN = {"asyncio", "socket", "aiohttp", "fastapi", "uvicorn"}


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "talkingmachines" and len(parts) > 1 else None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_upwards(path: Path) -> None:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    room = parts[0]
    assert room in RANK, f"{room} has no layer: give it one here and in docs/architecture.md"
    for module in imports(path):
        other = room_of(module)
        if other is None or other == room or other not in RANK:
            continue
        allowed = RANK[other] < RANK[room] or RANK[other] == RANK[room] == RANK["presets"]
        allowed = allowed or (room, other) in {("evaluation", "data"), ("conversation", "data")}
        assert allowed, f"{path.relative_to(SOURCE)} imports {module}, which is not above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_models_know_neither_network_nor_environment(path: Path) -> None:
    if RANK[path.relative_to(SOURCE).with_suffix("").parts[0]] > RANK["training"]:
        return
    found = imports(path)
    assert not {module.split(".")[0] for module in found} & FORBIDDEN
    assert not found & {"os.environ", "os.getenv"} and "os.environ" not in path.read_text()


def test_the_rule_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("from talkingmachines.cli import main\nimport asyncio\n")
    assert {room_of(module) for module in imports(file)} >= {"cli"} and "asyncio" in imports(file)
