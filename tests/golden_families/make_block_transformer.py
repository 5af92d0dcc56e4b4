"""Makes the golden of Block Transformer with the original code on random weights; run by hand, never by the tests.

    python make_block_transformer.py CLONE

Needs torch and transformers 4.39.3, and a clone of github.com/itsnamgyu/block-transformer (17842dd). `logits` are those of the
original's forward on whole blocks, `[batch, block - 1, place]`: they predict the tokens of all blocks but the first.
`greedy_ids` are what its own `generate` gives for the prompt `greedy_prompt`, of whole blocks; they begin with the prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPTNeoXConfig

HERE = Path(__file__).parent
BLOCK, VOCABULARY, DIM, HEADS, WIDE, LAYERS = 4, 61, 48, 3, 80, (2, 2)


def build() -> Any:
    """As `model/utils.py` builds `block_main_b4_*`, but small; weights that fp16 can hold, none of them zero or one."""
    from model.block_decoder import GPTNeoXBlockDecoder
    from model.block_transformer import BlockTransformer
    from model.embedder.lookup import LookupConfig, LookupEmbedder
    from model.token_decoder import GPTNeoXTokenDecoder

    def neox(layers: int) -> GPTNeoXConfig:
        return GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=DIM,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            intermediate_size=WIDE,
            rotary_pct=0.25,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
        )

    torch.manual_seed(5)
    lookup = LookupConfig(vocab_size=VOCABULARY, hidden_size=DIM // BLOCK)
    embedder = LookupEmbedder(
        lookup, block_length=BLOCK, n_embedding_tokens=1, projection_method="concat", projection_hidden_size=DIM
    )
    blocks = GPTNeoXBlockDecoder(neox(LAYERS[0]), n_embedding_tokens=1)
    tokens = GPTNeoXTokenDecoder(
        neox(LAYERS[1]),
        block_length=BLOCK,
        n_embedding_tokens=1,
        projection_hidden_size=DIM,
        expansion_method="expansion_layer",
        expansion_ratio=2,
        decoding_strategy="prefix",
    )
    model = BlockTransformer(embedder, blocks, tokens, use_token_decoding_loss=True, decoding_strategy="prefix").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15).copy_(parameter.half().float())
    return model


def make() -> None:
    """Write the golden."""
    model = build()
    ids = torch.from_numpy(np.random.default_rng(3).integers(2, VOCABULARY, (2, 9 * BLOCK)))
    blocks = ids.reshape(2, 9, BLOCK)
    ones = torch.ones_like(blocks)
    with torch.no_grad():
        logits = model(blocks, ones, ones[:, :, 0], skip_padding_blocks=False)["logits"].float()
        prompt = ids[:1, : 2 * BLOCK]
        greedy = model.generate(prompt, torch.ones_like(prompt), max_length=5 * BLOCK + 1)
    directory = HERE / "block_transformer_tiny"
    directory.mkdir(exist_ok=True)
    tensors = {key: value.half().clone().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    np.savez_compressed(
        directory / "io.npz",
        ids=ids.numpy(),
        logits=logits.numpy().astype(np.float32),
        greedy_prompt=prompt.numpy(),
        greedy_ids=greedy.numpy(),
    )
    how = {
        "class": "BlockTransformer",
        "max_length": 64,
        "block_decoder": {"config": {"num_attention_heads": HEADS}},
        "token_decoder": {"config": {"num_attention_heads": HEADS}},
        "made_by": "tests/golden_families/make_block_transformer.py",
        "source": "github.com/itsnamgyu/block-transformer 17842dd3248657591a15e3daa72eee50ea7cf131 model/, MIT",
        "towers": "transformers 4.39.3 GPT-NeoX, rotary_pct 0.25, random weights rounded to fp16",
        "logits": "the original's forward() on 9 blocks of 4: [batch, block - 1, place, id]",
    }
    (directory / "config.json").write_text(json.dumps(how, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    make()
