#!/usr/bin/env bash
# The pocket from nothing, unattended: the list of docs/training.md, and in RUN/took.txt what each stage took.
# Stopped anywhere (Ctrl-C) or switched off, it goes on where it was when it is started again.
#
#   examples/train_pocket.sh night [RUN]   two processor cores: 200 minutes, before there was `encoder` (6 more)
#   examples/train_pocket.sh gpu [RUN]     one H200-class GPU with 16 cores: 23 minutes by what its stages took, and the speech before
set -euo pipefail

case "${1:-}" in
    night | gpu) ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
run=${2:-runs/pocket}
mkdir -p "$run"

# The command, or that of `make demo`.
PATH="$PATH:$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
declare -A running length began
stopped=
trap 'stopped=1; kill "${running[@]}" 2> /dev/null || true' INT TERM HUP

# A stage that is stopped ends well, with a checkpoint and weights.
exit_if_stopped() {
    if [ "$stopped" ]; then wait; exit 130; fi
}

# start NAME FOLDER MINUTES COMMAND...: in the background, unless it is done; FOLDER: where its checkpoint lies.
start() {
    local name=$1 folder=$2 resume=()
    exit_if_stopped
    if grep -qs "^$name " "$run/took.txt"; then return; fi
    if [ -e "$run/$folder/state.pt" ]; then resume=(--resume); fi
    length[$name]=$3 began[$name]=$SECONDS
    shift 3
    "$@" --preset pocket --run "$run" --minutes "${length[$name]}" ${resume[@]+"${resume[@]}"} &
    running[$name]=$!
}

# finish NAME: notes what it took when it has ended. If it failed, the others are stopped.
finish() {
    local name=$1 failed=0
    if [ -z "${running[$name]:-}" ]; then return; fi
    wait "${running[$name]}" || failed=$?
    exit_if_stopped
    unset "running[$name]"
    if [ "$failed" != 0 ]; then
        kill "${running[@]}" 2> /dev/null || true
        wait
        exit "$failed"
    fi
    echo "$name $(((SECONDS - began[$name] + 30) / 60)) minutes, of which training ${length[$name]}" >> "$run/took.txt"
}

stage() {
    start "$@"
    finish "$1"
}

train="talkingmachines train"
distill="talkingmachines distill --matching 0 --trajectories 0"
if [ "$1" = night ]; then
    stage vae vae 18 $train vae
    stage encoder encoder 6 $train encoder
    stage audio audio 12 $train audio
    stage gestures gestures 7 $train gestures
    stage teacher teacher 64 $train teacher --clips 1500
    stage student student-start 62 $distill
    stage decoder decoder 13 $train decoder
else
    start vae vae 1.7 $train vae
    # Both need speech; the first makes it.
    while [ ! -e "$run/speech.npz" ] && kill -0 "${running[vae]:-}" 2> /dev/null; do sleep 1; done
    start audio audio 2.5 $train audio
    finish vae
    stage encoder encoder 0.6 $train encoder
    finish audio
    stage teacher teacher 3.3 $train teacher
    # Not before: the teacher's clips want all cores to be drawn.
    start gestures gestures 7 nice $train gestures
    stage student student-start 12 $distill
    stage decoder decoder 3 $train decoder
    finish gestures
fi
cat "$run/took.txt"
