"""How figures are written: three digits that matter, the same everywhere."""

from __future__ import annotations

from ..bench.ratio import Ratio


def significant(value: float | None, digits: int = 3) -> str:
    """`1,725`, `26.2`, `0.378`; what is not known is a dash."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip(".") if "e" not in text else f"{value:.1e}"


def megabytes(size: float | None) -> str:
    """Bytes as a number of MB (1e6)."""
    return significant(None if size is None else size / 1e6)


def millions(count: int) -> str:
    """`5.77 M`; small models in full."""
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def percent(share: float | None) -> str:
    """`46 %`; below one with a digit behind the point."""
    if share is None:
        return "-"
    return f"{share:.0%}".replace("%", " %") if abs(share) >= 0.01 or share == 0 else f"{share:.1%}".replace("%", " %")


def change(share: float) -> str:
    """`+0.035 %`."""
    return f"{share * 100:+.2g} %"


def times(ratio: float) -> str:
    """`1.31`; of disturbed rounds a bound can be anything."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def interval(ratio: Ratio) -> str:
    """` (95 %: 1.20 to 1.40)`, with the ratio itself where it shows no difference; of one round there is none."""
    mean = "" if ratio.differs else f"{times(ratio.ratio)} times; "
    if ratio.low is None or ratio.high is None:
        return f" ({mean}a single round, so no interval)"
    return f" ({mean}95 %: {times(ratio.low)} to {times(ratio.high)})"


def label(name: str) -> str:
    """A bundle's name, short."""
    return name.removesuffix(".bundle")


def listed(parts: list[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def often(stride: int, expected: float | None) -> str:
    """How often a stage fires."""
    if expected is not None:
        return f"one token in {expected:g}, as the data decides"
    return "every token" if stride == 1 else f"every {ordinal(stride)} token"


def ordinal(number: int) -> str:
    """`4th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
