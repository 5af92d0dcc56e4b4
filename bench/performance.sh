#!/bin/sh
# The figures of docs/performance.md, on a quiet machine: sh bench/performance.sh [path of the foveal command]
set -eu
foveal=${1:-foveal}
results=build/performance
mkdir -p "$results"

# The sizes of the Hourglass paper's Table 1 (arXiv 2110.13711): d = 512, 8 heads, ff 2048, bytes as tokens.
# `foveal bench` says below its table where the machine was not quiet.
"$foveal" bench --hierarchy "2@1 8@4 2@1" --hierarchy "12@1" --eager --prompt-tokens 512 --new-tokens 512 \
    --save "$results/paper.json"

# The article's case: 26 layers over 1x/4x/16x against 14.
"$foveal" bench --hierarchy "4@1 5@4 9@16 4@4 4@1" --hierarchy "14@1" --prompt-tokens 512 --new-tokens 512 \
    --save "$results/article.json"

# The same Hourglass in every precision; its ranges from text, read as bytes.
"$foveal" bench --hierarchy "2@1 8@4 2@1" --precision fp32 --precision int8 --precision w8 --precision w4 --precision fp16 \
    --calibration models/checkpoints/text/calibration.txt --prompt-tokens 512 --new-tokens 512 --rounds 8 \
    --save "$results/precision.json"

# 16 sequences at once, by both policies, and the picture of docs/batches.md.
"$foveal" bench --hierarchy "4@1 5@4 9@16 4@4 4@1" --hierarchy "2@1 8@4 2@1" --precision int8 \
    --calibration models/checkpoints/text/calibration.txt --prompt-tokens 512 --new-tokens 256 --batch 16 \
    --save "$results/batch.json"
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
