"""No option is silently ignored: each either always counts, or is refused in one sentence where it would do nothing.

Where what it asks for is had anyhow (`--top-k` at `--temperature 0`), and scripts pass it along, help says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from specimens import Zoo
from typer.testing import CliRunner

from foveal import FovealError
from foveal.cli import app

RUNNER = CliRunner()
B, T, PLAN = "BUNDLE", "TEXT", "PLAN"
CPU_ONLY = "--target cpu, as other engines have no threads"
NO_STEPS = "--target cpu, as other engines have no native steps"
NEEDS_TEXT = "a precision that text changes: fp16, int8, w4, or int8 caches on --target cpu"
CACHES = "int8, w8 or w4 on --target cpu"
NARROW = "a precision other than fp32"

ALWAYS = {
    "convert": "checkpoint bundle target tokenizer boundaries threshold dialect",
    "calibrate": "bundle text method max_tokens budget threads json",
    "build": "bundle destination target",
    "check": "bundle target json",
    "verify": "bundle checkpoint target boundaries threshold json",
    "compare": "bundle targets other text tokens tolerance save_inputs json",
    "bisect": "bundle precision text budget measure target limit window json",
    "inspect": "bundle tokens text ids profile json",
    "forecast": "model device room prompt_tokens batch search json",
    "generate": "bundle prompts files target",
    "score": "bundle text file top json target verify",
    "serve": "bundles draft host port slots queue capacity policy target verify store_memory token_file max_prompt max_output "
    "max_body timeout drain chat_template log_level no_page on_ray",
    "export-triton": "bundle repository name target slots queue capacity sequences instances hard_links",
    "eval": "bundle text against probe plot limit window target json",
    "bench": "bundles hierarchy text prompt_tokens new_tokens rounds batch target power samples save json",
    "bench diff": "before after least json",
    "bench sweep": "bundles contexts batch hierarchy new_tokens rounds target save json",
    "bench claims": "names quick threads save json",
    "bench speculation": "bundle draft temperature prompts new_tokens rounds target json",
    "plan batch": "bundle slots policy rate prompt_tokens new_tokens steps prefill_ms times save json",
    "push": "bundle repository license target measured dry_run",
    "report": "bundles outs text measured target",
    "train": "directory text valid architecture hierarchy dim heads ff_dim vocab_size tokenizer positions length steps batch "
    "learning_rate cooldown bf16 eval_every seed minutes threads",
    "doctor": "json",
    "demo": "directory prompt",
}
"""By command, the parameters that count whatever the others are."""

HARMLESS = {
    "generate": {"top_k": "temperature", "top_p": "temperature", "min_p": "temperature", "seed": "temperature"},
}
"""Those that another makes count for nothing, and whose help it is that says so."""


Line = tuple[str, str, str]


def idle(given: str, option: str, takes: str) -> Line:
    """A command in which an option does nothing: it is named, and what it takes."""
    return given, option, rf"{option} does nothing here: it takes {re.escape(takes)}.*; change that, or leave {option} out$"


def each(given: str, options: str, sentence: str) -> list[Line]:
    """One command with each of these options, separated by commas; `OPTION` in the sentence is the option."""
    found = [(f"{given} {option}", option.split()[0]) for option in options.split(", ")]
    return [(line, option, sentence.replace("OPTION", option)) for line, option in found]


def each_idle(given: str, options: str, takes: str) -> list[Line]:
    """As `each`, of options that do nothing."""
    return each(given, options, idle("", "OPTION", takes)[2])


COARSE, BOTH = "a --hierarchy with a coarse scale", "got --precision w8 and --plan .* expected one of them"
ANOTHER = "is fp32, asked for is w8, which is another bundle; say where to write it"
ON_GPUS = 'engine options are for GPUs, got them for target "cpu"; leave them out'
NOT_BUILT = "of the engine options they take max_batch, capacity and max_prefill; leave the others out"
TWO_PROMPTS = "got both of a prompt and --ids, expected one of them"
OF_SIZES = "a hierarchy or --search, as a bundle has its own"
HALF = "--cuts looks inside one stage, and --stage says which; give both or neither"
TEXT_CLAIMS = "order or rare-words among the claims"
RUNS = "--target cpu, and something to run: no --measured, or --text"
RANDOM_TEXT = "--hierarchy and a --precision other than fp32"

REFUSED = [
    *each_idle(f"bench {B}", "--dim 64, --heads 2, --ff-dim 8, --vocab-size 9, --precision w8, --eager", "--hierarchy"),
    idle(f"bench {B} --calibration {T}", "--calibration", RANDOM_TEXT),
    idle(f"bench --hierarchy 1@1 --calibration {T}", "--calibration", RANDOM_TEXT),
    idle(f"bench {B} --policy aligned", "--policy", "--batch of at least 2"),
    idle(f"bench {B} --provider cpu", "--provider", "--target cuda"),
    idle(f"bench {B} --target cuda --threads 2", "--threads", CPU_ONLY),
    (f"bench {B} --compare", "--compare", "takes at least 2 models, got 1; name another bundle, or leave --compare out"),
    (f"bench {B} {B} --rounds 2 --compare", "--compare", "takes at least 3 rounds, got 2; give more --rounds, or leave"),
    *each_idle(f"bench sweep {B}", "--dim 64, --heads 2, --ff-dim 8, --vocab-size 9, --precision w8", "--hierarchy"),
    *[
        idle(f"bench sweep {given} --stride 2,4", "--stride", "a --hierarchy with K in the place of a stride")
        for given in (B, "--hierarchy 1@1")
    ],
    idle(f"bench sweep --hierarchy 1@1 --calibration {T}", "--calibration", RANDOM_TEXT),
    idle(f"bench sweep {B} --policy aligned", "--policy", "a --batch of at least 2"),
    idle(f"bench sweep {B} --provider cpu", "--provider", "--target cuda"),
    idle(f"bench sweep {B} --target cuda --threads 1,2", "--threads", CPU_ONLY),
    *each_idle(f"bench sweep {B} --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle("bench claims speed memory", f"--text {T}, --checkpoint {B}, --window 64", TEXT_CLAIMS),
    *each_idle(
        f"report {B} --out r.json --measured {T}",
        "--prompt-tokens 8, --new-tokens 8, --rounds 2",
        "timings measured here, which --measured replaces",
    ),
    idle(f"report {B} --out r.json --limit 4", "--limit", "--text"),
    idle(f"report {B} --out r.json --measured {T} --threads 1", "--threads", RUNS),
    *each_idle(f"report {B} --out r.json --target cuda", "--native, --no-native", "--target cpu, and no --measured"),
    idle(f"inspect {B} --layers --json", "--layers", "a table, which --json is not"),
    idle(f"inspect {B} --target cpu", "--target", "--profile"),
    *each_idle(f"calibrate {B} --text {T}", "--plan p.json, --plot p.svg, --head, --no-head", "--budget"),
    idle(f"calibrate {B} --text {T} --method minmax --percentile 99", "--percentile", "--method percentile"),
    idle(f"convert {T} OUT --calibration {T}", "--calibration", NEEDS_TEXT),
    idle(f"convert {T} OUT --precision w8 --target cuda --calibration {T}", "--calibration", NEEDS_TEXT),
    idle(f"convert {T} OUT --precision w8 --max-tokens 9", "--max-tokens", "--calibration"),
    (f"convert {T} OUT --precision w8 --plan {PLAN}", "--precision", BOTH),
    (f"convert {T} OUT --precision w8 --plan {PLAN}", "--plan", BOTH),
    idle(f"build {B} --calibration {T}", "--calibration", "a bundle to write"),
    idle(f"build {B} OUT --precision fp32 --calibration {T}", "--calibration", NEEDS_TEXT),
    idle(f"build {B} OUT --precision w8 --target cuda --calibration {T}", "--calibration", NEEDS_TEXT),
    idle(f"build {B} OUT --precision w8 --cache fp32 --calibration {T}", "--calibration", NEEDS_TEXT),
    *each_idle(f"convert {T} OUT --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle(f"build {B} --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle(f"bench {B} --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle(f"bench speculation {B} --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle(f"generate {B} It --target tensorrt", "--native, --no-native", NO_STEPS),
    *each_idle(f"score {B} It --target tensorrt", "--native, --no-native", NO_STEPS),
    *each_idle(f"serve {B} --target cuda", "--native, --no-native", NO_STEPS),
    *each_idle(f"eval {B} --text {T} --target cuda", "--native, --no-native", NO_STEPS),
    idle(f"build {B} OUT --precision w8 --max-tokens 9", "--max-tokens", "--calibration"),
    idle(f"build {B} OUT --target cuda --calibration {T} --cache fp32", "--cache", CACHES),
    idle(f"build {B} OUT --precision fp16 --calibration {T} --cache fp32", "--cache", CACHES),
    idle(f"build {B} OUT --precision fp32 --cache auto", "--cache", CACHES),
    *each_idle(f"build {B} OUT --precision fp32", "--head, --no-head, --embedding, --no-embedding", NARROW),
    *each(f"build {B}", "--head, --no-embedding, --cache fp32", "OPTION makes another bundle; say where to write it"),
    *each(f"build {B}", f"--precision w8, --plan {PLAN}", ANOTHER),
    (f"build {B} OUT --precision w8 --plan {PLAN}", "--plan", BOTH),
    *each(f"build {B}", "--max-batch 1, --capacity 9, --max-prefill 9, --compute-capability 8.9", ON_GPUS),
    *each(f"build {B}", "--timing-cache t, --error-on-miss, --strip-weights", ON_GPUS),
    *each(
        f"build {B} --target cuda",
        "--compute-capability 8.9, --timing-cache t, --error-on-miss, --strip-weights",
        NOT_BUILT,
    ),
    (f"build {B} --target tensorrt-rtx --timing-cache t", "--timing-cache", "it has no timing cache; leave it out"),
    *each(f"compare {B}", "--cuts, --stage 1", HALF),
    (f"compare {B} --provider cpu", "--provider", 'provider "cpu" is for target cuda, got targets portable, cpu; leave it out'),
    idle(f"bench speculation {B} --target cuda --threads 2", "--threads", CPU_ONLY),
    idle(f"bisect {B} --precision w8 --text {T} --target cuda --threads 2", "--threads", CPU_ONLY),
    idle(f"bisect {B} --precision w8 --text {T} --target cuda --calibration {T}", "--calibration", NEEDS_TEXT),
    *each_idle(f"forecast {B} --device l4", "--dim 9, --heads 9, --ff-dim 9, --vocab-size 9, --precision w8", OF_SIZES),
    *each_idle("forecast 1@1 --device l4", "--parameters 9, --layers 9, --top 9", "--search"),
    *each_idle("forecast 1@1 --device l4", "--threads 1, --save f.json", "--device this, which is measured"),
    *each_idle("forecast 1@1 --device l4", "--native, --no-native", "a device that is a CPU, as GPUs have no native steps"),
    (f"generate {B} It --ids 1", "--ids", TWO_PROMPTS),
    (f"generate {B} --ids 1 --output ids --stop x --threads 1", "--stop", "stop strings are of text, and ids have none"),
    idle(f"generate {B} It --target tensorrt --threads 1", "--threads", CPU_ONLY),
    *each_idle(f"generate {B} It", "--logprobs 1, --prompt-logprobs 1", "--json, which prints them, or --files"),
    *each_idle(
        f"generate {B} {T} --files --out o --eval",
        "--output ids, --max-new-tokens 3, --max-seconds 1, --n 2, --temperature 0.5, --repetition-penalty 2, "
        "--frequency-penalty 1, --presence-penalty 1, --logit-bias 1=1, --end 1, --end-rule piece, --json-schema true, "
        "--regex a, --grammar g, --draft ngrams",
        "no --eval, which draws nothing",
    ),
    *each_idle(f"generate {B} It", "--out o, --eval, --slots 2, --capacity 9, --part-lines 2", "--files, or --ray"),
    *each_idle(f"generate {B} {T} --files", "--actors 2, --cpus-per-actor 1, --gpus-per-actor 1, --address auto", "--ray"),
    idle(f"generate {B} {T} --files --verify once", "--verify", "no --files and no --ray, before which all files are hashed"),
    idle(f"generate {B} {T} --files --json", "--json", "no --files and no --ray, which write JSON lines"),
    idle(f"generate {B} --files --ids 1", "--ids", "no --files and no --ray: files hold the prompts"),
    (f"generate {B} {T} --ray", "--ray", "files of prompts take --out, the folder of their outputs; give it"),
    idle(f"generate {B} It --draft-tokens 4", "--draft-tokens", "--draft"),
    idle(f"generate {B} It --trace t.json --n 2", "--trace", "one text: no --n, --files or --ray"),
    idle(f"generate {B} {T} --files --trace t.json", "--trace", "one text: no --n, --files or --ray"),
    idle(f"serve {B} --draft-tokens 4", "--draft-tokens", "--draft, ngrams or a bundle"),
    idle(f"generate {B} It --min-tokens 2", "--min-tokens", "--stop, --end or --end-rule, which it holds off"),
    (f"score {B} It --ids 1", "--ids", "got 2 of a text, --ids and --file, expected one of them"),
    idle(f"score {B} --ids 1,2 --stride 3", "--stride", "a text longer than the context of 96 tokens"),
    idle(f"score {B} It --target tensorrt --threads 1", "--threads", CPU_ONLY),
    idle(f"serve {B} --target cuda --threads 1", "--threads", CPU_ONLY),
    idle(f"serve {B} --ray --store s", "--store", "no --ray: each replica keeps its sessions in memory"),
    *each_idle(
        f"serve {B}",
        "--replicas 2, --min-replicas 1, --max-replicas 2, --cpus-per-replica 1, --gpus-per-replica 1, --max-queued 3, "
        "--address auto, --app-name a",
        "--ray",
    ),
    idle(f"serve {B} --store-disk 5", "--store-disk", "--store"),
    idle(f"serve {B} --store-memory 0 --keep-prefixes", "--keep-prefixes", "a store: --store-memory, or --store"),
    idle(f"serve {B} --chat-end </s>", "--chat-end", "a chat template: --chat-template, or that of a bundle"),
    idle(f"serve {B} --private-metrics", "--private-metrics", "tokens: --token-file, or FOVEAL_TOKENS"),
    *each_idle(f"push {B} owner/name --dry-run", "--private, --revision v2, --message m", "no --dry-run, which sends nothing"),
    idle(f"eval {B} --text {T} --target tensorrt-rtx --threads 1", "--threads", CPU_ONLY),
    idle(f"export-triton {B} --out OUT --target cuda --threads 1", "--threads", CPU_ONLY),
    *each_idle(
        f"export-triton {B} --out OUT --no-sequences",
        "--most-sequences 2, --idle-seconds 2, --state-mb 2",
        "--sequences",
    ),
    *each_idle(
        f"plan batch {B} --times {T}",
        f"--up-to 4, --rounds 2, --text {T}, --threads 1, --native, --no-native, --save-times t.json, --measure",
        "times measured here, which --times replaces",
    ),
    idle(f"plan batch {B} --seed 3", "--seed", "--rate"),
    *each_idle(f"train OUT --text {T} --valid {T} --hierarchy 6@1", "--shortening linear, --upsampling linear", COARSE),
]
"""A command, an option that would do nothing in it, and the sentence that says so."""


NOTHING = [
    (f"bench {B} --rounds 0", "rounds must be at least 1, got 0"),
    (f"bench {B} --new-tokens 0", "new_tokens must be at least 1, got 0"),
    (f"bench sweep {B} --rounds 0", "rounds must be at least 1, got 0"),
    (f"bench sweep {B} --new-tokens 0", "new_tokens must be at least 1, got 0"),
    (f"bench sweep {B} --context 0,8", '--context is "0,8", expected different numbers of at least 1'),
    (f"bench sweep {B} --batch 2,2", '--batch is "2,2", expected different numbers of at least 1'),
    (f"bench sweep {B} --threads 1,", '--threads is "1,", expected different numbers of at least 1'),
    (f"bench {B} --batch 0", "a batch is of at least 2 sequences, got 0"),
    ("bench --hierarchy 1@1 --heads 0", "heads must be at least 1, got 0"),
    *[
        (f"plan batch {B} --prompt-tokens 4 --new-tokens 8 --{option} 0", sentence)
        for option, sentence in {
            "slots": "slots must be at least 1, got 0",
            "rate": "the rate of requests is 0.0, expected requests per second from 1e-06",
            "prompt-tokens": "prompt_tokens must be at least 1, got 0",
            "new-tokens": "new_tokens must be at least 1, got 0",
            "steps": "steps must be at least 1, got 0",
            "up-to": "times are measured for 1 to 0 sequences, expected at least 2",
            "rounds": "rounds must be at least 1, got 0",
            "threads": "threads must be at least 1, got 0",
        }.items()
    ],
    (f"compare {B} --tokens 0", "got 0 tokens, expected"),
    *[
        (f"forecast 1@1 --device l4 --{option} 0", f"{option.replace('-', '_')} must be at least 1, got 0")
        for option in ("dim", "heads", "ff-dim", "vocab-size", "context", "prompt-tokens", "batch")
    ],
    ("forecast --search --device l4 --parameters 0 --layers 4", "parameters must be at least 1, got 0"),
    ("forecast --search --device l4 --parameters 9 --layers 0", "layers must be 1 to 64"),
    ("forecast --search --device l4 --parameters 9 --layers 4 --top 0", "--top is 0, expected at least 1"),
    ("forecast 1@1 --device this --threads 0", "threads must be at least 1, got 0"),
    (f"inspect {B} --tokens 0", "--tokens is 0, expected at least 1"),
    (f"generate {B} --ids 1 --max-new-tokens 0", "max_new_tokens is 0, expected at least 1"),
    (f"generate {B} --ids 1 --threads 0", "threads must be at least 1, got 0"),
    *[
        (f"train OUT --text {T} --valid {T} --{option} 0", f"{option.replace('-', '_')} must be at least 1, got 0")
        for option in ("heads", "ff-dim", "steps", "batch", "eval-every", "threads")
    ],
]
"""A size of 0, which is not "as if it had not been given"."""


@pytest.mark.parametrize(("given", "sentence"), NOTHING, ids=[given for given, _ in NOTHING])
def test_nothing_is_not_the_default(
    given: str, sentence: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, in one sentence."""
    assert re.search(sentence, str(refusal(given, zoo, tmp_path, monkeypatch)))


def commands() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """All of them, as typer has them; the name that is left out is no name."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if not hasattr(command, "commands"):
            yield name, command
        for inner, of_group in getattr(command, "commands", {}).items():
            yield (name if inner == "default" else f"{name} {inner}"), of_group


COMMANDS = dict(commands())


def command_of(given: str) -> str:
    """The command that a line begins with."""
    return max((name for name in COMMANDS if f"{given} ".startswith(f"{name} ")), key=len)


def parameter_of(command: str, option: str) -> str:
    """What typer calls an option, or an argument in capitals."""
    found = [p.name for p in COMMANDS[command].params if option in (*p.opts, *p.secondary_opts, (p.name or "").upper())]
    assert len(found) == 1, (command, option)
    return found[0] or ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_counts_or_is_refused(command: str) -> None:
    """A new one says which: in `ALWAYS`, with a line of `REFUSED`, or with words in help and an entry in `HARMLESS`."""
    always, harmless = set(ALWAYS[command].split()), set(HARMLESS.get(command, {}))
    refused = {parameter_of(command, option) for given, option, _ in REFUSED if command_of(given) == command}
    there = {param.name for param in COMMANDS[command].params if param.name != "help"}
    assert always | harmless | refused == there
    assert not always & harmless
    assert not refused & (always | harmless)


@pytest.mark.parametrize("command", HARMLESS)
def test_help_says_what_makes_an_option_count_for_nothing(command: str) -> None:
    """At the option that does."""
    params = {param.name: param for param in COMMANDS[command].params}
    for name, by in HARMLESS[command].items():
        assert params[name].opts[0] in (getattr(params[by], "help", None) or "")


@pytest.mark.parametrize(("given", "option", "sentence"), REFUSED, ids=[f"{given} ({option})" for given, option, _ in REFUSED])
def test_an_option_that_would_do_nothing(
    given: str, option: str, sentence: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says so; nothing is written."""
    assert re.search(sentence, str(refusal(given, zoo, tmp_path, monkeypatch)))


def refusal(given: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FovealError:
    """Run a command that is refused before it writes anything."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("the sea")
    Path("plan.json").write_text('{"default": "w8"}')
    places = {B: str(zoo["vanilla"].bundle.path), T: "t.txt", PLAN: "plan.json", "OUT": "out"}
    done = RUNNER.invoke(app, [places.get(part, part) for part in given.split()])
    assert isinstance(done.exception, FovealError), done.output
    assert done.exception.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "t.txt"]
    return done.exception
