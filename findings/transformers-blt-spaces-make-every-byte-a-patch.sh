#!/bin/sh
# transformers' BLT with patching_mode="space" does not end patches at spaces: every byte is a patch of its own.
#
# 2026-11-30; Python 3.11, transformers 5.24.0, torch 2.13.0 (CPU).
#
# What one would guess: BltConfig.patching_mode takes "entropy", "space" and so on, as facebookresearch/blt does; with "space" the
# boundaries follow the text, the patcher is not needed, and unknown modes raise.
#
# What happens: any mode but "entropy" (also one that is made up) goes the same way, in silence: patches of one byte each, so that
# the large model runs for every byte. The logits of "space" are those of "anything", and those of patch_lengths of ones.
#
# For those who compare patching rules, or measure the speed of space patching with this model: pass patch_lengths of your own (and
# a 0 behind them, or the last patch counts as one that has not ended).
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.6
"$place/venv/bin/python" - 2>"$place/log" <<'PYTHON' || { cat "$place/log"; exit 1; }
import torch
from transformers import BltConfig, BltForCausalLM

tower = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 260}
text = torch.tensor([[4 + byte for byte in b"it was the best of times"]])


def logits(mode, **given):
    torch.manual_seed(0)
    config = BltConfig(
        vocab_size=260,
        patching_mode=mode,
        encoder_config=dict(tower),
        decoder_config={**tower, "hidden_size_global": 64},
        global_config={**tower, "hidden_size": 64},
        patcher_config=dict(tower),
        encoder_hash_byte_group_size=[3],
        encoder_hash_byte_group_vocab=500,
    )
    with torch.no_grad():
        return BltForCausalLM(config).eval()(text, use_cache=False, **given).logits


length = text.shape[1]
by_mode = {mode: logits(mode) for mode in ("space", "anything")}
single = logits("space", patch_lengths=torch.tensor([[1] * length + [0]]))  # the last patch has ended: another one follows
starts = [0, 1, *(i + 1 for i, byte in enumerate(b"it was the best of times") if byte == 32)]
words = [stop - start for start, stop in zip(starts, [*starts[1:], length])]
at_spaces = logits("space", patch_lengths=torch.tensor([[*words, 0]]))
same = {
    "space and a made-up mode": torch.equal(by_mode["space"], by_mode["anything"]),
    "space and patches of one byte": torch.allclose(by_mode["space"], single, atol=1e-6),
    "space and patches that end at spaces": torch.allclose(by_mode["space"], at_spaces, atol=1e-3),
}
print(same)
assert list(same.values()) == [True, True, False], "changed"
PYTHON
