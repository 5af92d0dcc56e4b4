#!/bin/sh
# The figures of docs/performance.md, on a quiet machine: sh bench/performance.sh [path of the foveal command]
set -eu
foveal=${1:-foveal}
results=build/performance
mkdir -p "$results"

# What `foveal bench` measures: the paper's sizes, the article's case, precisions, batches. Says which figures changed beyond noise
# since the last run, keeps the new ones in docs/results, and writes the tables of docs/performance.md.
"${foveal%foveal}python" -m foveal.bench.documented --raw "$results"

# The picture of docs/batches.md.
"${foveal%foveal}python" -m foveal.bench.batch_picture docs/batches.svg "$results/batch.json" "4@1 5@4 9@16 4@4 4@1 int8"

# Where the data decides: a BLT of 60 M parameters against transformers' own and a vanilla model; its steps; 16 sequences of it.
python="${foveal%foveal}python"
text=models/checkpoints/text
"$python" -m foveal.bench.deciding.against_transformers --text $text/evaluation.txt --save "$results/against.json"
"$python" -m foveal.bench.deciding.original "$results/blt-4.5" --text $text/evaluation.txt
"$python" -m foveal.bench.deciding.original "$results/blt-4" --text $text/evaluation.txt --bytes-per-patch 4 \
    --sequences 16 --prompt-bytes 64 --new-bytes 256
for patch in 4.5 4; do
    "$foveal" convert "$results/blt-$patch" "$results/blt-$patch.bundle"
done
"$foveal" convert "$results/blt-4" "$results/fixed-4.bundle" --boundaries fixed:4
"$foveal" build "$results/blt-4.5.bundle" "$results/blt-4.5-int8.bundle" --precision int8 --calibration $text/calibration.txt \
    --max-tokens 16384
for bundle in blt-4.5 blt-4.5-int8; do
    "$python" -m foveal.bench.deciding.steps "$results/$bundle.bundle" --text $text/evaluation.txt \
        --save "$results/steps-$bundle.json" --picture "$results/steps-$bundle.svg"
done
cp "$results/steps-blt-4.5.svg" docs/deciding-steps.svg
"$python" -m foveal.bench.deciding.batches "$results/blt-4.bundle" "$results/fixed-4.bundle" --text $text/evaluation.txt \
    --save "$results/batches.json"
