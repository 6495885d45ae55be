"""Published weights written as ours, tensor by tensor: a model of any size in the memory of one file of it.

What is written goes to a folder beside the one asked for, which takes its name when all is there. So a conversion
that was stopped goes on where it was, and a folder that has the name is whole.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

import talkingmachines
from talkingmachines.checkpoints.plan import Part, Plan
from talkingmachines.errors import CheckpointError
from talkingmachines.media.files import reason, remove_partial, replacing
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.vae.wan_weights import read_wan_vae
from talkingmachines.weights import new_shard_paths, save_weights, shard_header, shard_paths

SHARD_BYTES = 1_000_000_000
CHECKSUMS = "SHA256SUMS"
"""In the format of sha256sum, which can check it."""
_REQUEST = "conversion.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """plan, to be written as the model called `name` to `out`."""

    plan: Plan
    name: str
    out: Path

    @property
    def working(self) -> Path:
        """Where the files are until all are there."""
        return self.out.with_name(self.out.name + ".partial")

    def request(self) -> dict[str, object]:
        """What makes this conversion this one and no other."""
        files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.plan.files]
        scales = sorted({part.change.scale for part in self.plan.parts if part.change})
        made = [len(shard) for _, shard in self.shards()]
        said = {"version": talkingmachines.__version__, "name": self.name}
        return {**said, "files": files, "scales": scales, "shards": made}

    def shards(self) -> list[tuple[Path, list[Part]]]:
        """The model's files and what goes into them: no more than SHARD_BYTES, unless a single tensor is larger."""
        shards: list[list[Part]] = [[]]
        used = 0
        for part in self.plan.parts:
            if used and used + part.nbytes > SHARD_BYTES:
                shards.append([])
                used = 0
            shards[-1].append(part)
            used += part.nbytes
        return list(zip(new_shard_paths(self.working, self.name, len(shards)), shards, strict=True))


def convert(plan: Plan, name: str, out: Path, progress: Progress | None = None) -> None:
    """Write the model to the new folder `out`, as files that weights.load_weights reads, with their checksums.

    progress(done, total) counts bytes. Goes on where an earlier call with the same files was stopped.
    Raises CheckpointError when `out` is there already, the disk is too small, or a file cannot be read or written.
    """
    job = Job(plan, name, out.resolve())
    try:
        _check_place(job)
        sums = _verified(job.working / CHECKSUMS)
        _check_space(job, sums)
        _begin(job, sums)
        _write_shards(job, sums, progress)
        (job.working / _REQUEST).unlink()
        if job.out.exists():
            job.out.rmdir()
        job.working.rename(job.out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{job.out}: cannot be written ({reason(error)}); mend that, and the same command goes on from there"
        ) from error


def _check_place(job: Job) -> None:
    """That nothing is there yet, or what was begun of the same conversion."""
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise CheckpointError(f"{job.out} is there already; give the name of a new folder")
    request = job.working / _REQUEST
    if request.exists() and request.read_text() != _said(job):
        raise CheckpointError(
            f"{job.working} is of a conversion of other files; delete it, or give the name of another folder"
        )


def _said(job: Job) -> str:
    return json.dumps(job.request(), indent=2)


def _begin(job: Job, sums: dict[str, str]) -> None:
    """Make the working folder, with the autoencoder in it, whose sums go into `sums`.

    Each time anew: that takes seconds, and is read before there is a folder, so that a damaged one leaves none.
    """
    config, vae = job.plan.preset.vae, None
    if job.plan.vae:
        assert isinstance(config, WanVAEConfig), config
        vae = read_wan_vae(job.plan.vae, config)
    job.working.mkdir(parents=True, exist_ok=True)
    remove_partial(job.working)
    _write_text(job.working / _REQUEST, _said(job))
    if vae:
        save_weights(job.working, "vae", vae, {"preset": job.plan.preset.name})
        sums |= {path.name: _sha256(path) for path in shard_paths(job.working, "vae")}


def _verified(sums: Path) -> dict[str, str]:
    """The checksums of finished files that still have them."""
    if not sums.exists():
        return {}
    listed = (line.split("  ", 1) for line in sums.read_text().splitlines())
    found = {name: digest for digest, name in listed}
    return {name: digest for name, digest in found.items() if _holds(sums.with_name(name), digest)}


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and _sha256(path) == digest


def _check_space(job: Job, sums: dict[str, str]) -> None:
    needed = sum(part.nbytes for path, shard in job.shards() if path.name not in sums for part in shard)
    needed += job.plan.vae.stat().st_size if job.plan.vae else 0
    free = shutil.disk_usage(next(folder for folder in job.working.parents if folder.exists())).free
    if free < needed:
        raise CheckpointError(
            f"{job.out}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free: make room or take another disk"
        )


def _write_shards(job: Job, sums: dict[str, str], progress: Progress | None) -> None:
    """Those that are not in `sums` yet, and `sums` after each of them."""
    shards, done = job.shards(), 0
    said = {"made_from": [path.name for path in job.plan.files], "new_layers": job.plan.new_layers}
    header = shard_header(job.name, len(shards), {"preset": job.plan.preset.name, **said})
    for path, shard in shards:
        if path.name not in sums:
            _write(path, shard, header)
            sums[path.name] = _sha256(path)
            _write_text(
                job.working / CHECKSUMS, "".join(f"{digest}  {file}\n" for file, digest in sorted(sums.items()))
            )
        done += sum(part.nbytes for part in shard)
        if progress:
            progress(done, job.plan.nbytes)


def _write(path: Path, shard: Sequence[Part], header: dict[str, str]) -> None:
    with replacing(path) as partial:
        save_file({part.name: part.tensor() for part in shard}, partial, header)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
