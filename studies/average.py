"""The mean of two students of which one went on from the other: what the shipped weights had last.

    python studies/average.py FOLDER OTHER OUT

All three are folders of weights; OUT must not have a student yet, and says of itself what OTHER does. What one has
learned and the other not is half there, and what both only happened to do is less (model soups, Wortsman et al. 2022).
See docs/LOG.md, 2026-11-29.
"""

import argparse
from pathlib import Path

import torch

from talkingmachines.dit.model import DiT
from talkingmachines.presets import preset
from talkingmachines.weights import load_weights, read_metadata, save_weights, shard_paths


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    if shard_paths(given.out, "student"):
        parser.error(f"{given.out} has a student already; choose another folder")
    mean, other = DiT(preset("pocket").dit), DiT(preset("pocket").dit)
    load_weights(given.folder, "student", mean)
    load_weights(given.other, "student", other)
    for ours, theirs in zip(mean.parameters(), other.parameters(), strict=True):
        ours.lerp_(theirs, 0.5)
    said = read_metadata(given.other, "student")
    said.pop("evaluation", None)  # what was measured of it was not the mean
    save_weights(given.out, "student", mean, said | {"averaged_with": given.folder.name}, eight_bits=True)


if __name__ == "__main__":
    main()
