"""JSON that a stranger wrote: every number, text, depth and name has a limit, and nothing is read twice."""

import json
import math
import re
import unicodedata
from typing import Any, NoReturn

LARGEST = 1e15  # beyond it neither a score nor a count is meant
LONGEST = 10_000  # characters of one text
DEEPEST = 24
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LONG_TEXT = re.compile(rb'"[^"]{%d}' % LONGEST)
KEY = re.compile(r"[0-9a-f]{20}")


def parse(data: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: not UTF-8, not JSON, NaN or infinity, a number beyond LARGEST, a name given twice, nested deeper
            than DEEPEST, or a text that is too long or holds what cannot be seen. Says which.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_whole,
            parse_float=_decimal,
            object_pairs_hook=_once,
        )
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Most records are plain to look at as a whole, which takes a tenth of the time of looking at every text.
    _inspect(
        value,
        DEEPEST,
        texts=not data.isascii() or b"\\" in data or b"\x7f" in data or LONG_TEXT.search(data) is not None,
    )
    return value


def fault_of_text(text: str) -> str | None:
    """What is wrong with a text, if anything: its length, or characters that a reader cannot see."""
    if len(text) > LONGEST:
        return f"a text of {len(text)} characters; at most {LONGEST}"
    if text.isascii() and text.isprintable():
        return None
    for character in text:
        # Controls, halves of characters, and marks that turn the direction of writing: none is meant in a record.
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            return f"a text with the character U+{ord(character):04X}"
        if unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"):
            return f"a text with the character U+{ord(character):04X}"
    return None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of a record")


def _whole(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > LARGEST:
        raise ValueError(
            f"the number {text[:20]}… is too large" if len(text) > 20 else f"the number {text} is too large"
        )
    return int(text)


def _decimal(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:80]!r} is given twice")
    return found


def _inspect(value: Any, depth: int, texts: bool) -> None:
    if isinstance(value, str):
        if texts and (fault := fault_of_text(value)):
            raise ValueError(fault)
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError("nested too deeply")
        parts = value if isinstance(value, list) else [*value, *value.values()] if texts else value.values()
        for part in parts:
            if texts or isinstance(part, dict | list):
                _inspect(part, depth - 1, texts)
