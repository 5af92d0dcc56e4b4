#!/bin/sh
# x-transformers stores the gain of the same LayerNorm in three ways within five minor versions, the last of them less one.
#
# 2026-11-29; Python 3.11, torch 2.13.0 (CPU), x-transformers 1.26.6, 1.30.0 and 1.31.14, einops 0.8.2, loguru 0.7.3, numpy 2.4.6.
#
# What one would guess: a plain `Decoder` has the same parameters in releases that are weeks apart; a checkpoint of one loads in the next.
#
# What happens, with all options as they are by default: 1.26 has norm.weight and norm.bias; 1.27 to 1.30 have norm.weight alone, around 1; 1.31 and
# later have norm.gamma, around 0, for the gain is gamma + 1. So load_state_dict fails, and whoever renames weight to gamma to make it fit gets a model
# whose every gain is too large by one: no error, other logits. Right is gamma = weight - 1 (and no bias can be carried over).
#
# For those who read or convert checkpoints of models built on it: which version saved them shows in these names alone.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q torch==2.13.0 einops==0.8.2 loguru==0.7.3 packaging numpy==2.4.6
for version in 1.26.6 1.30.0 1.31.14; do
    "$place/venv/bin/pip" install -q --no-deps --target "$place/$version" "x-transformers==$version"
    PYTHONWARNINGS=ignore PYTHONPATH="$place/$version" "$place/venv/bin/python" - "$version" "$place" <<'PYTHON'
import sys

import torch
from x_transformers import Decoder, TransformerWrapper

version, place = sys.argv[1:]
torch.manual_seed(0)
model = TransformerWrapper(num_tokens=11, max_seq_len=16, attn_layers=Decoder(dim=8, depth=1, heads=2)).eval()
norms = {name.rpartition(".")[2]: value.mean().item() for name, value in model.state_dict().items() if "final_norm" in name}
print(f"x-transformers {version}: final_norm has {norms}")
expected = {"1.26.6": {"weight": 1, "bias": 0}, "1.30.0": {"weight": 1}, "1.31.14": {"gamma": 0}}
assert norms == expected[version], "changed: other names or beginnings"
ids = torch.arange(8)[None]
if version == "1.30.0":
    torch.save((model.state_dict(), model(ids).detach()), f"{place}/saved.pt")
if version == "1.31.14":
    saved, logits = torch.load(f"{place}/saved.pt")
    try:
        model.load_state_dict(saved)
        raise SystemExit("changed: a checkpoint of 1.30.0 loads")
    except RuntimeError as error:
        print("a checkpoint of 1.30.0:", str(error).splitlines()[1].strip()[:80], "...")
    gammas = {name.replace("gamma", "weight"): name for name in model.state_dict() if name.endswith("gamma")}
    renamed = {gammas.get(name, name): value for name, value in saved.items()}
    right = {name: value - 1 if name.endswith("gamma") else value for name, value in renamed.items()}
    for what, weights in (("renamed", renamed), ("renamed, less 1", right)):
        model.load_state_dict(weights)
        off = (model(ids) - logits).abs().max().item()
        print(f"{what}: logits differ by up to {off:.2g}, of {logits.abs().max():.2g}")
        assert (off > 0.1) == (what == "renamed"), "changed: the gain is another"
PYTHON
done
