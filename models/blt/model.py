"""BLT, the Byte Latent Transformer: bytes, patches that end where the data says so, and bytes again (arXiv 2412.09871).

Pagnoni et al., "Byte Latent Transformer: Patches Scale Better Than Tokens", in the form of `BltForCausalLM` of transformers
5.24 (`models/blt/modeling_blt.py`). A small model, the patcher, foresees each next byte; where the entropy of that is above a
threshold, a patch ends. A layer or a few go over bytes; each patch is made of its bytes' rows; most of the layers go over
patches; the last ones go over bytes again, each of which reads the newest patch that has ended, its own if the byte ends one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architecture import Description, Stage
from ..layers.initialise import initialise
from ..layers.stack import Stack
from ..layers.stack_stage import StackStage
from .boundaries import ENTROPY, SPACE, SpaceRule, clock_of, ends
from .config import BltConfig
from .cross_attention import HIDDEN
from .decoder import Decoder
from .entropy import Entropy
from .hand_down import HandDown
from .hash_embed import HashEmbed
from .pool import Pool
from .stages import split


class Blt(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1."""

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.config = config
        self.clock = clock_of(config.boundaries, config.threshold)
        self.patcher = _patcher(config)
        self.spaces = SpaceRule() if config.boundaries == SPACE else None
        self.embed = HashEmbed(config)
        self.encoder = Stack(config.encoder, config.encoder_layers)
        self.pool = Pool(config)
        wide = config.patch_rows * config.encoder.dim
        self.entry: nn.Module = nn.Identity() if wide == config.middle.dim else nn.Linear(wide, config.middle.dim, bias=False)
        self.middle = Stack(config.middle, config.middle_layers)
        self.hand_down = HandDown(config)
        self.decoder = Decoder(config)
        initialise(self, config.encoder_layers + config.middle_layers + config.decoder_layers)
        if config.tied:
            self.decoder.head.logits.weight = self.embed.tokens.weight

    def describe(self) -> Description:
        """What it is."""
        config = self.config
        expected = f"~{self.clock.tokens_per_firing:g}"
        parts = [f"{config.patcher_layers}@1"] if self.patcher is not None else []
        parts += [f"{config.encoder_layers}@1", f"{config.middle_layers}@{expected}", f"{config.decoder_layers}@1"]
        return Description(
            architecture="blt",
            hierarchy=" ".join(parts),
            vocab_size=config.vocab_size,
            dim=config.encoder.dim,
            max_positions=None,
            context=config.context,
        )

    def stages(self) -> list[Stage]:
        """The patcher, or another rule that looks at ids; bytes; patches, which fire when one ends; and bytes again."""
        return list(split(self))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state; patches end wherever they do in each sequence."""
        closes = self.closes(ids)
        fine = self.encoder(self.embed.whole(ids))
        ended = closes.long().cumsum(1)  # patches that have ended, with each byte's own
        pooled = self._pooled(fine, ended - closes.long(), int(ended.max()))
        patches = self.hand_down(self.middle(self.entry(pooled)))
        serving = (ended - 1)[:, :, None].expand(-1, -1, patches.shape[2])
        return self.decoder.whole(fine, patches.gather(1, serving))

    def boundary_values(self, ids: Tensor) -> Tensor:
        """What the rule looks at, of ids `[B, L]`: float `[B, L]`, or the ids where it is their number that counts."""
        if self.patcher is not None:
            stage = self.patcher
            entropy: Tensor = stage.exit(stage.stack(stage.entry(ids)))
            return entropy[:, :, 0]
        if self.spaces is not None:
            before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
            found: Tensor = self.spaces(before, ids)
            return found
        return ids

    def closes(self, ids: Tensor) -> Tensor:
        """Which bytes end their patch, bool `[B, L]`."""
        return ends(self.clock, self.boundary_values(ids))

    def _pooled(self, fine: Tensor, patch: Tensor, patches: int) -> Tensor:
        """Rows of bytes `[B, L, D]`, each of a patch `[B, L]`, to rows of patches `[B, F, k * D]`.

        Those of a sequence that has fewer mean nothing, and come after its own.
        """
        batch, _, dim = fine.shape
        largest = fine.new_zeros(batch, patches + 1, dim)  # and the bytes of a patch that has not ended
        largest = largest.scatter_reduce(1, patch[:, :, None].expand(-1, -1, dim), fine, "amax", include_self=False)
        u = self.pool.project(largest[:, :patches]).reshape(batch, patches, self.pool.rows, dim)
        keys, values = self._keys_values(fine)
        queries = self.pool.queries(u).transpose(1, 2)  # [B, KV, F, k * G, Dh]
        is_own = patch[:, None, :] == torch.arange(patches, device=fine.device)[None, :, None]  # [B, F, L]
        scores = queries @ keys.transpose(2, 3)[:, :, None] + torch.where(is_own, 0.0, HIDDEN)[:, None, :, None, :]
        found = scores.softmax(-1) @ values[:, :, None]
        return self.pool.merge(u, found.transpose(1, 2))

    def _keys_values(self, fine: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, D]` -> twice `[B, KV, L, Dh]`."""
        offer = self.pool.offer
        offered = offer(fine).reshape(*fine.shape[:2], 2, offer.heads, offer.head_dim)
        keys, values = offered.unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)


def _patcher(config: BltConfig) -> StackStage | None:
    if config.patcher is None or config.boundaries != ENTROPY:
        return None
    tokens = nn.Embedding(config.vocab_size, config.patcher.dim)
    return StackStage(tokens, Stack(config.patcher, config.patcher_layers), Entropy(config.patcher, config.vocab_size))
