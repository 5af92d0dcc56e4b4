"""examples/06_music.py: the ids are those of the original's sampler, written down once more over the whole forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from store import Store

import foveal
from foveal.runtime.sampling import Sampler

SIZE, ROOM = 16, 128
Hook = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.ArrayLike]


@pytest.fixture
def module(example: Callable[[str], ModuleType]) -> ModuleType:
    """The example."""
    return example("06_music")


@pytest.fixture
def music(module: ModuleType, store: Store) -> Path:
    """What the example makes where no bundle is named."""
    return store.once("examples-music", module.random_bundle) / "random.bundle"


def by_whole_forwards(
    model: torch.nn.Module, size: int, room: int, prompt: list[list[int]], sampler: Sampler, most: int
) -> tuple[list[list[int]], str]:
    """The original's `inference_patch` and `generate`: everything is computed anew for each id."""

    def generate(patches: list[list[int]], begun: list[int]) -> list[int]:
        tokens: list[int] = []
        while len(begun) + len(tokens) < size:
            ids = [token for patch in patches for token in patch] + begun + tokens
            with torch.no_grad():
                logits = model(torch.tensor([ids]))[0, -1].numpy()
            tokens.append(sampler.sample(logits, np.array(ids)))
        return tokens

    patches, made, has_body = list(prompt), [], False
    while len(made) < most:
        if len(patches) * size == room:
            return made, "all patches are full"
        predicted = generate(patches, [])
        if not has_body and bytes(predicted).startswith(b"[r:"):
            has_body = True
            begin = [ord(character) for character in "[r:0/"]
            predicted = begin + generate(patches, begin)
        if predicted[0] == 1 and predicted[1] == 2:
            return made, "end of the piece"
        ended = False
        for place, token in enumerate(predicted):
            if ended:
                predicted[place] = 0
            ended = ended or token == 2
        patches.append(predicted)
        made.append(predicted)
    return made, "as many patches as were asked for"


def forcing(ids: dict[int, int]) -> Hook:
    """A hook that has certain ids come at certain places, whatever the model thinks."""

    def hook(seen: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        place = len(seen)
        if place in ids:
            logits = np.full_like(logits, -np.inf)
            logits[ids[place]] = 0
        return logits

    return hook


def both(
    module: ModuleType, bundle: Path, hook: Hook | None, seed: int, lines: list[str], most: int = 99
) -> tuple[list[list[int]], str]:
    """What example and original write with the same numbers, which must be the same."""
    settings = foveal.SamplingParams(temperature=1.2, seed=seed, logits_hook=hook)
    prompt = module.prompt_patches(lines, SIZE)
    model = foveal.load(bundle, threads=1)
    writer = module.Writer(model.session(capacity=ROOM), Sampler(settings), *model.end_rules("piece"))
    found = list(writer.patches(prompt, most)), writer.ending
    assert found == by_whole_forwards(module.random_model(), SIZE, ROOM, prompt, Sampler(settings), most)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_ids_are_those_of_the_original_until_all_patches_are_full(module: ModuleType, music: Path, seed: int) -> None:
    """With its filters."""
    patches, ending = both(module, music, module.nucleus(9, 0.9), seed, ["%Classical"])
    assert ending == "all patches are full"
    assert len(patches) == ROOM // SIZE - 2


def test_what_stands_behind_an_end_counts(module: ModuleType) -> None:
    """So that the next test notices ids that were not replaced: with others there, the model goes on differently."""
    ids = np.random.default_rng(0).integers(3, 127, (2, 2 * SIZE))
    ids[1] = ids[0]
    ids[0, SIZE + 8 :] = 0
    with torch.no_grad():
        logits = module.random_model()(torch.from_numpy(ids))[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 0.3


def test_zeros_stand_behind_an_end_wherever_it_is_drawn(module: ModuleType, music: Path) -> None:
    """At the beginning of a patch, in its middle, at its last place but one and at its last."""
    ends = {16: 2, 32 + 7: 2, 48 + 14: 2, 64 + 15: 2}
    patches, _ = both(module, music, forcing(ends), 1, [], most=6)
    for index, place in enumerate((0, 7, 14, 15)):
        assert patches[index][place] == 2
        assert patches[index][place + 1 :] == [0] * (15 - place)
    assert 0 not in patches[4][1:] or 2 in patches[4]


def test_the_body_begins_with_its_count(module: ModuleType, music: Path) -> None:
    """The first patch that begins it is drawn once more behind `[r:0/`; later ones stay as they are drawn."""
    begins = {start + place: ord(letter) for start in (32, 64) for place, letter in enumerate("[r:7")}
    patches, _ = both(module, music, forcing(begins), 3, ["%Classical"], most=4)
    assert bytes(patches[0]).startswith(b"[r:0/")
    assert bytes(patches[2]).startswith(b"[r:7")


def test_a_piece_ends_with_a_patch_that_says_so(module: ModuleType, music: Path) -> None:
    """1, 2; the patch is not given."""
    patches, ending = both(module, music, forcing({48: 1, 49: 2}), 4, [])
    assert (len(patches), ending) == (2, "end of the piece")


def test_filters_come_before_the_temperature(module: ModuleType) -> None:
    """As in the original: the k likeliest, then those of them whose shares make up p, the first beyond it included."""
    logits = np.log(np.array([0.05, 0.4, 0.3, 0.15, 0.1], np.float32))
    assert np.isfinite(module.nucleus(3, 1.0)(np.array([]), logits)).tolist() == [False, True, True, True, False]
    assert np.isfinite(module.nucleus(0, 0.65)(np.array([]), logits)).tolist() == [False, True, True, False, False]
    assert np.isfinite(module.nucleus(0, 0.75)(np.array([]), logits)).tolist() == [False, True, True, True, False]
    assert np.isfinite(module.nucleus(2, 0.5)(np.array([]), logits)).tolist() == [False, True, False, False, False]
    assert np.isfinite(module.nucleus(0, 1.0)(np.array([]), logits)).all()


def test_lines_of_a_prompt_are_patches_of_their_own(module: ModuleType) -> None:
    """One that is not full ends with 2 and zeros."""
    first, *patches = module.prompt_patches(["%Ab", "%Abcdefg", "%AbcdefghijklmnopQ"], 8)
    assert first == [1] * 7 + [2]
    assert patches[0] == [*b"%Ab\n", 2, 0, 0, 0]
    assert patches[1:3] == [[*b"%Abcdefg"], [10, 2, 0, 0, 0, 0, 0, 0]]
    assert patches[-1] == [*b"pQ\n", 2, 0, 0, 0, 0] if len(patches) == 6 else [*b"opQ\n", 2, 0, 0, 0]
    with pytest.raises(foveal.InputError, match="printable ASCII"):
        module.prompt_patches(["%Dvořák"], 8)


def test_it_writes_the_prompt_and_then_text(module: ModuleType, music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says on stderr what it took: the tower over patches fires once for each, of the prompt too."""
    wanted = [str(music), "--prompt", "%Classical", "--patches", "5", "--seed", "1", "--threads", "1"]
    module.main(wanted)
    first = capsys.readouterr()
    assert first.out.startswith("%Classical\n")
    assert all(letter.isprintable() or letter == "\n" for letter in first.out)
    assert "5 patches of 16 in" in first.err
    module.main(wanted)
    assert capsys.readouterr().out == first.out


def test_without_a_bundle_it_makes_one_and_says_so(
    module: ModuleType, music: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it makes is that of the other tests."""
    monkeypatch.setattr(module, "random_bundle", lambda directory: music)
    module.main(["--patches", "2", "--threads", "1"])
    assert "random weights, and its music is noise" in capsys.readouterr().err


def test_what_can_t_be_is_refused(module: ModuleType, bundle: Path) -> None:
    """In a line."""
    with pytest.raises(foveal.InputError, match='is a "vanilla", expected a bundle of a NotaGen checkpoint'):
        module.main([str(bundle), "--threads", "1"])
    with pytest.raises(foveal.InputError, match="top_p is 2"):
        module.main(["--top-p", "2"])
