"""The least: a checkpoint to a bundle, a bundle to a model, a prompt to text.

    python examples/01_minimal.py

Prints a prompt and 64 tokens after it, piece by piece as they are made. The first run converts a checkpoint that comes with
foveal, which takes torch and some seconds; later ones load the bundle, without torch. Arguments: the bundle and the prompt.
"""

import sys
from pathlib import Path

import foveal


def main(bundle: str = "hourglass.bundle", prompt: str = "It was a dark and stormy night, and") -> None:
    """Continue a prompt."""
    if bundle == "hourglass.bundle" and not Path(bundle).exists():
        foveal.convert(Path(foveal.__file__).parent / "models/checkpoints/hourglass", bundle)
    print(prompt, end="")
    for piece in foveal.load(bundle).generate(prompt, max_new_tokens=64, temperature=0.6, seed=1):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except foveal.FovealError as error:
        sys.exit(f"01_minimal.py: {error}")
