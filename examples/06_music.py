"""Music: a model of NotaGen's layout writes ABC notation, patch by patch, by the rules of NotaGen's own sampler.

    foveal convert weights_notagen.pth notagen.bundle --tokenizer bytes
    python examples/06_music.py notagen.bundle --prompt "%Classical" "%Mozart, Wolfgang Amadeus" "%Keyboard"
    python examples/06_music.py                # a tiny random model, made for the occasion: its music is noise

Prints ABC as it is written, and on stderr how many patches it took, how often each scale fired and why the piece ended.

NotaGen (arXiv 2502.18008; github.com/ElectricAlexis/NotaGen, `inference/inference.py` and `utils.py`) sees text in patches of
16 characters. A tower over patches fires once for each patch; a small one inside the patch fires for each character. The rules:

- The first patch is given: 1, 15 times, and 2. Lines of the prompt are cut into patches of their own; one that is not full ends
  with 2 and zeros.
- A patch is drawn to its end, also after a 2. What was drawn after the 2 is then replaced by zeros, before the tower over
  patches sees it: here the session is rewound to the 2, inside the patch, and reads the zeros in their place. The original runs
  both towers anew for each character.
- The body of a piece begins with `[r:0/`: when the first patch that begins with `[r:` has been drawn, it is rewound, `[r:0/` is
  put there, and the rest of it is drawn again.
- A piece ends with a patch that begins with 1, 2: the model's end rule "piece".
- Of the model's own distribution the 9 likeliest characters are kept, then the likeliest that make up 0.9 of these, and only
  then comes the temperature, 1.2. foveal's own order is that of transformers, temperature first; so the filters are a
  `logits_hook`.

What is left out: when all patches are full, the original begins again with the second half of the music; here the piece ends.
It adds 1e-12 to every probability after each filter, so that one in some 1e8 draws is of a character that was filtered out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from common import run

import foveal
from foveal.contract import EndRule
from foveal.runtime.sampling import Sampler

if TYPE_CHECKING:
    from foveal.models.patch_decoder import PatchDecoder

FILL, BEGIN, END = 0, 1, 2
BODY = [ord(character) for character in "[r:0/"]

Logits = npt.NDArray[np.float32]


class Writer:
    """Writes one piece.

    Args:
        session: fresh, of a NotaGen model.
        sampler: draws ids.
        end: of a piece, the model's rule: which ids, where in a patch of which size.

    Attributes:
        ending: why there is no more: "end of the piece", "all patches are full", "as many patches as were asked for".
    """

    def __init__(self, session: foveal.Session, sampler: Sampler, end: EndRule) -> None:
        self.session, self.sampler, self.end, self.size = session, sampler, end, end.period
        self.ending = ""
        self._has_body = False

    def patches(self, prompt: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
        """Patches as the model sees them, zeros behind their ends, without the prompt and the patch that ends the piece.

        Args:
            prompt: patches before them, at least one.
            most: how many.
        """
        logits = self._append([token for patch in prompt for token in patch])
        for _ in range(most):
            if self.session.position == self.session.capacity:
                self.ending = "all patches are full"
                return
            drawn = self._drawn(logits)
            if not self._has_body and bytes(drawn).startswith(b"[r:"):
                self._has_body = True
                if self.size > len(BODY):
                    self.session.rewind(self.size - 1)
                    drawn = BODY + self._drawn(self._append(BODY), self.size - len(BODY))
            if tuple(drawn[: len(self.end.ids)]) == self.end.ids:
                self.ending = "end of the piece"
                return
            patch = filled(drawn)
            same = next((place for place in range(self.size - 1) if patch[place] != drawn[place]), self.size - 1)
            self.session.rewind(self.size - 1 - same)  # of what was drawn, all but the last id is appended
            logits = self._append(patch[same:])
            yield patch
        self.ending = "as many patches as were asked for"

    def _drawn(self, logits: Logits, count: int | None = None) -> list[int]:
        """So many ids, a whole patch if not said; all but the last one are appended."""
        found: list[int] = []
        while len(found) < (count or self.size):
            if found:
                logits = self._append(found[-1:])
            found.append(self.sampler.sample(logits, self.session.tokens[0]))
        return found

    def _append(self, ids: Sequence[int]) -> Logits:
        """Returns the logits after them."""
        logits: Logits = self.session.advance([list(ids)], last_only=True)[0, -1]
        return logits


def filled(patch: Sequence[int]) -> list[int]:
    """A patch with zeros after its end."""
    end = patch.index(END) + 1 if END in patch else len(patch)
    return [*patch[:end], *[FILL] * (len(patch) - end)]


def prompt_patches(lines: Sequence[str], size: int) -> list[list[int]]:
    """The first patch, and those of the lines of a prompt.

    Raises:
        InputError: a line with characters that NotaGen has not.
    """
    patches = [[BEGIN] * (size - 1) + [END]]
    for line in lines:
        if not line.isascii() or not line.isprintable():
            raise foveal.InputError(f"the prompt has {line!r}, expected lines of printable ASCII")
        ids = [ord(character) for character in f"{line}\n"]
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            patches.append(piece if len(piece) == size else [*piece, END, *[FILL] * (size - 1 - len(piece))])
    return patches


def nucleus(top_k: int, top_p: float) -> Callable[[npt.NDArray[np.int64], Logits], Logits]:
    """A hook that leaves the k likeliest ids, and of these the likeliest whose shares make up `top_p`; 0 and 1 leave all."""

    def hook(seen: npt.NDArray[np.int64], logits: Logits) -> Logits:
        order = np.argsort(-logits, kind="stable")[: top_k or None]
        shares = np.exp(logits[order].astype(np.float64) - logits[order[0]])
        before = np.cumsum(shares) - shares
        kept = order[before <= top_p * shares.sum()] if top_p < 1 else order
        return np.where(np.isin(np.arange(len(logits)), kept), logits, -np.inf).astype(np.float32)

    return hook


def text_of(patch: Sequence[int]) -> str:
    """The characters of a patch, up to its end; those that are no text are left out, so that noise can't move the cursor."""
    end = patch.index(END) if END in patch else len(patch)
    return "".join(chr(token) for token in patch[:end] if 32 <= token < 127 or token == 10)


def random_model() -> PatchDecoder:
    """A tiny model of NotaGen's layout that nobody has trained; its weights are so large that what came before matters."""
    import torch

    from foveal.models.patch_decoder import PatchDecoder, PatchDecoderConfig

    torch.manual_seed(0)
    config = PatchDecoderConfig(
        architecture="notagen",
        patch_size=16,
        max_patches=24,
        vocab_size=128,
        dim=64,
        heads=1,
        patch_layers=2,
        inner_layers=1,
        end_rules=(EndRule(name="piece", period=16, ids=(BEGIN, END), place=0),),  # as the reader of checkpoints has it
    )
    model = PatchDecoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.12)
    return model


def random_bundle(directory: Path) -> Path:
    """A bundle of it."""
    from foveal.export import convert_model

    convert_model(random_model(), directory / "random.bundle", tokenizer="bytes")
    return directory / "random.bundle"


def write(bundle: Path, wanted: argparse.Namespace) -> None:
    """Write a piece with a bundle's model."""
    model = foveal.load(bundle, threads=wanted.threads)
    about = model.manifest.model
    if about.architecture != "notagen":
        raise foveal.InputError(f'{bundle} is a "{about.architecture}", expected a bundle of a NotaGen checkpoint')
    (end,) = model.end_rules("piece")
    prompt, session = prompt_patches(wanted.prompt, end.period), model.session()
    settings = foveal.SamplingParams(
        temperature=wanted.temperature, seed=wanted.seed, logits_hook=nucleus(wanted.top_k, wanted.top_p)
    )
    writer, began, count = Writer(session, Sampler(settings), end), time.perf_counter(), 0
    print("".join(map(text_of, prompt[1:])), end="")
    for patch in writer.patches(prompt, wanted.patches or about.context):
        print(text_of(patch), end="", flush=True)
        count += 1
    seconds = time.perf_counter() - began
    fires = ", ".join(f"{name}: {fired}" for name, fired in session.fires.items())
    print(f"\n{count} patches of {end.period} in {seconds:.2f} s; fired {fires}; {writer.ending}", file=sys.stderr)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("06_music.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="of a NotaGen checkpoint (a tiny random one)")
    parser.add_argument("--prompt", nargs="*", default=[], metavar="LINE", help="period, composer, instruments")
    parser.add_argument("--patches", type=int, default=0, help="the most that are written (as many as there is room for)")
    parser.add_argument("--temperature", type=float, default=1.2)
    parser.add_argument("--top-k", type=int, default=9, help="0: all (9)")
    parser.add_argument("--top-p", type=float, default=0.9, help="1: all (0.9)")
    parser.add_argument("--seed", type=int, help="the same piece every time")
    parser.add_argument("--threads", type=int, help="of the engines (measured once, and remembered)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Write a piece."""
    wanted = arguments(given)
    foveal.SamplingParams(top_k=wanted.top_k, top_p=wanted.top_p)  # checks them
    if wanted.bundle is not None:
        write(wanted.bundle, wanted)
        return
    with tempfile.TemporaryDirectory() as directory:
        print("no bundle was named: this is a tiny model with random weights, and its music is noise", file=sys.stderr)
        write(random_bundle(Path(directory)), wanted)


if __name__ == "__main__":
    run(main)
