"""Survival outcomes by case: `outcomes.csv`, or `survival_info.csv` as BraTS 2020 has it."""

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path

from mae_bench.errors import InputError

COLUMNS = ("case", "time", "event")
BRATS_2020 = ("Brats20ID", "Survival_days")
ALIVE = re.compile(r"ALIVE \((\S+) days later\)")
HINT = "one line per case: `case,time,event`, time in days, event 1 when it happened and 0 when the case was censored"


def read_outcomes(path: Path) -> dict[str, tuple[float, float]]:
    """Read times in days, and whether the event was seen (1) or the case left before it (0), by case.

    Columns are `case,time,event`; or those of BraTS 2020, where `Survival_days` is a number of days for a death and
    `ALIVE (361 days later)` for a case censored then. Other columns are left alone.

    Raises:
        InputError: missing, not such a table, or with faulty lines; names every one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or ()
    except FileNotFoundError:
        raise InputError(f"{path}: missing", HINT) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}", HINT) from error
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.reader.line_num}: not valid CSV: {error}", HINT) from error
    if not (set(COLUMNS) <= set(columns) or set(BRATS_2020) <= set(columns)):
        raise InputError(
            f"{path}: columns {', '.join(columns) or '(none)'}, expected {', '.join(COLUMNS)} or "
            f"{', '.join(BRATS_2020)} (BraTS 2020)",
            HINT,
        )
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(f"{path}: column {', '.join(repeated)} is there more than once", HINT)
    outcomes: dict[str, tuple[float, float]] = {}
    faults: list[str] = []
    for line, row in rows:
        try:
            if None in row or None in row.values():
                raise ValueError(f"expected {len(columns)} fields")
            case, outcome = _outcome(row, brats=not set(COLUMNS) <= set(columns))
            if case in outcomes:
                raise ValueError(f"case {case} is listed twice")
            outcomes[case] = outcome
        except ValueError as error:
            faults.append(f"{path}: line {line}: {error}")
    if faults:
        raise InputError(f"{path}: {len(faults)} faulty lines", HINT, faults)
    if not outcomes:
        raise InputError(f"{path}: no cases", HINT)
    return outcomes


def _outcome(row: Mapping[str, str], brats: bool) -> tuple[str, tuple[float, float]]:
    """Case, and its time and event. Raises ValueError naming the column."""
    if not brats:
        case, time, event = (row[name].strip() for name in COLUMNS)
        column = "time"
        if event not in ("0", "1"):
            raise ValueError(f"event is {event!r}, expected 0 or 1")
    else:
        case, text = (row[name].strip() for name in BRATS_2020)
        column, alive = "Survival_days", ALIVE.fullmatch(text)
        time, event = (alive[1], "0") if alive else (text, "1")
    if not case:
        raise ValueError("no case is named")
    try:
        days = float(time)
    except ValueError:
        days = math.nan
    if not (math.isfinite(days) and days > 0):
        raise ValueError(f"{column} is {time!r}, expected a number of days above 0")
    return case, (days, float(event))
