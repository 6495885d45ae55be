#!/usr/bin/env bash
# The pocket from nothing, unattended: the list of docs/training.md, and in RUN/took.txt what each stage took.
# Stopped anywhere (Ctrl-C) or switched off, it goes on where it was when it is started again.
#
#   examples/train_pocket.sh night [RUN]   two processor cores, five and a half hours
#   examples/train_pocket.sh gpu [RUN]     one H200-class GPU with 16 cores: 22 minutes by what its stages took, and the speech before
set -euo pipefail

case "${1:-}" in
    night) minutes=(30 20 15 170 45 10) ;;
    gpu) minutes=(2 2 3 5 5 2) ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
run=${2:-runs/pocket}
mkdir -p "$run"

# The command, or that of `make demo`.
PATH="$PATH:$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
stopped=
trap 'stopped=1' INT TERM

# stage NAME FOLDER MINUTES COMMAND...: unless it is done; FOLDER: where its checkpoint lies.
stage() {
    local name=$1 folder=$2 minutes=$3 began=$SECONDS resume=()
    shift 3
    if grep -qs "^$name " "$run/took.txt"; then return; fi
    if [ -e "$run/$folder/state.pt" ]; then resume=(--resume); fi
    talkingmachines "$@" --preset pocket --run "$run" --minutes "$minutes" ${resume[@]+"${resume[@]}"}
    # A stage that is stopped ends well, with a checkpoint and weights.
    if [ "$stopped" ]; then exit 130; fi
    echo "$name $(((SECONDS - began + 30) / 60)) minutes, of which training ${minutes}" >> "$run/took.txt"
}

stage vae vae "${minutes[0]}" train vae
stage audio audio "${minutes[1]}" train audio
stage gestures gestures "${minutes[2]}" train gestures
stage teacher teacher "${minutes[3]}" train teacher
stage student student-start "${minutes[4]}" distill --matching 0 --trajectories 0
stage decoder decoder "${minutes[5]}" train decoder
cat "$run/took.txt"
