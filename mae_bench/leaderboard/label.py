"""A short name for every method of a board: its pre-training, and what sets it apart from the others."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mae_bench.spec import RunSpec
from mae_bench.values import canonical_json, digest

PARTS = ("pretrain", "backbone", "head")
LONGEST = 100  # characters; a method that differs in more is told apart by a few digits of its address
SEEDS = ("seed", "pretrain_seed")
QUESTION = ("dataset", "data", "protocol", "labels")


def method_of(spec: RunSpec) -> dict[str, Any]:
    """What a method is: everything of a specification but its seeds and the question that it answers."""
    return spec.model_dump(mode="json", exclude={*SEEDS, *QUESTION, "recipe"}) | {
        "recipe": spec.recipe.model_dump(mode="json", exclude={"summary"})
    }


def method_labels(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name each of some methods, given as `method_of` does, by address. No two names are the same."""
    flat = {address: _flat(method) for address, method in methods.items()}
    # An option sets methods apart only from those that have the same plugin in its place.
    varying = {part: _varying(flat, part) for part in (*PARTS, "recipe", "federation")}
    names = {address: _name(fields, varying) for address, fields in flat.items()}
    counts: dict[str, int] = defaultdict(int)
    for name in names.values():
        counts[name] += 1
    return {
        address: name if counts[name] == 1 and len(name) <= LONGEST else f"{name[:LONGEST]} #{address[:6]}"
        for address, name in names.items()
    }


def address_of(method: Mapping[str, Any]) -> str:
    """Content address of a method."""
    return digest(method)


def _flat(method: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted path: `pretrain` is the plugin's name, `pretrain.ratio` an option."""
    found: dict[str, Any] = {"start": method["start"][:8]}
    for part in PARTS:
        found[part] = method[part]["name"]
        found |= {f"{part}.{name}": value for name, value in method[part]["options"].items()}
    found["recipe"] = method["recipe"]["name"]
    for name, value in method["recipe"].items():
        if isinstance(value, dict):
            found |= {f"recipe.{name}.{field}": setting for field, setting in value.items()}
        elif name != "name":
            found[f"recipe.{name}"] = value
    federation = method["federation"]
    found["federation"] = "" if federation is None else f"{federation['sites']} sites {federation['strategy']}"
    found |= {f"federation.{name}": value for name, value in (federation or {}).items()}
    return found


def _varying(flat: Mapping[str, Mapping[str, Any]], part: str) -> set[tuple[str, str]]:
    """Pairs of (what is in the part's place, path) for which methods with the same in that place differ."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fields in flat.values():
        # What a recipe sets is compared among methods of one pre-training: each has its own.
        group = f"{fields['pretrain']}/{fields['recipe']}" if part == "recipe" else str(fields[part])
        for path, value in fields.items():
            if path.startswith(f"{part}."):
                values[group, path].add(canonical_json(value))
        values["", part].add(canonical_json(fields[part]))
    return {place for place, found in values.items() if len(found) > 1}


def _name(fields: Mapping[str, Any], varying: Mapping[str, set[tuple[str, str]]]) -> str:
    segments = []
    for part in (*PARTS, "recipe", "federation"):
        group = f"{fields['pretrain']}/{fields['recipe']}" if part == "recipe" else str(fields[part])
        settings = [
            f"{path.removeprefix(f'{part}.')} {_text(fields[path])}"
            for place, path in sorted(varying[part])
            if place == group
            and path != part
            and fields.get(path) is not None
            and not (part == "federation" and path.endswith((".sites", ".strategy")))
        ]
        if part == "pretrain" or settings or ("", part) in varying[part]:
            # The name of a recipe that all share says nothing; that of a plugin says whose options these are.
            named = fields[part] and (part != "recipe" or ("", part) in varying[part])
            segments.append(", ".join([*([str(fields[part])] if named else []), *settings]))
    if fields["start"] and fields["pretrain"] in ("weights", "imagenet"):
        segments.append(f"file {fields['start']}")
    return " · ".join(filter(None, segments))


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else canonical_json(value)
