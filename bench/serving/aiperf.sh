#!/bin/sh
# AIPerf against `foveal serve`, as in docs/serving.md: sh bench/serving/aiperf.sh model.bundle [options of the script]
# AIPerf has an environment of its own, as it pins what foveal does not. It needs no network once it is installed: its
# tokenizer is the bundle's (HF_HUB_OFFLINE must not be set, with which it refuses a local one, too).
set -eu
python=${PYTHON:-python3}
foveal_python=${FOVEAL_PYTHON:-.venv/bin/python}
place=build/aiperf

if [ ! -x "$place/bin/aiperf" ]; then
    "$python" -m venv "$place"
    "$place/bin/pip" install --quiet aiperf==0.13.0
fi
unset HF_HUB_OFFLINE || true
exec "$foveal_python" -m foveal.bench.serving.aiperf --aiperf "$place/bin/aiperf" "$@"
