"""Finds plugins and looks them up by name. One broken plugin never takes the others down."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from mae_bench import hookspecs
from mae_bench.errors import UsageError

KINDS = {
    "dataset": "mae_bench_datasets",
    "backbone": "mae_bench_backbones",
    "pretrain": "mae_bench_pretrainings",
    "head": "mae_bench_heads",
}
EXECUTOR = "executor"
HOOKS = {**KINDS, EXECUTOR: "mae_bench_executors"}
CARRIED = ("name", "summary", "Options", "provides", "needs")  # what `interfaces.Plugin` asks of every kind
CARRIED_BY_EXECUTORS = ("name", "summary", "Options", "open")  # what `grid.executor.Executor` asks


@dataclass(frozen=True)
class Listed:
    """A plugin object and the distribution it came from."""

    kind: str
    plugin: Any
    dist: str
    version: str


@dataclass
class Registry:
    """Plugins by kind and name; `unavailable` maps an entry point to the reason it could not be used."""

    manager: pluggy.PluginManager
    found: dict[tuple[str, str], list[Listed]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        """Names of the plugins of `kind`, sorted."""
        return sorted(name for (of, name) in self.found if of == kind)

    def all(self, kinds: Iterable[str] = tuple(KINDS)) -> list[Listed]:
        """Every plugin of these kinds, by kind then name."""
        return [listed for kind in kinds for name in self.names(kind) for listed in self.found[kind, name]]

    def get(self, kind: str, name: str) -> Listed:
        """Look up one plugin.

        Raises:
            UsageError: unknown (with near names), or the name is claimed by two distributions.
        """
        claims = self.found.get((kind, name), [])
        if len(claims) > 1:
            dists = " and ".join(f"{listed.dist} {listed.version}" for listed in claims)
            raise UsageError(f"{kind} {name!r} is claimed by two plugins: {dists}; uninstall one of them")
        if claims:
            return claims[0]
        near = difflib.get_close_matches(name, self.names(kind), 1)
        broken = "".join(f"\n  unavailable: {entry}: {why}" for entry, why in self.unavailable.items())
        raise UsageError(
            f"no {kind} {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" There are: {', '.join(self.names(kind)) or 'none'}.{broken}"
        )


def load(entries: Iterable[EntryPoint]) -> Registry:
    """Load entry points one at a time, keeping the reason of every failure.

    pluggy's own loader stops at the first plugin that fails and skips a second one of the same entry-point name.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry(manager)
    for entry in sorted(set(entries), key=lambda entry: (entry.dist.name if entry.dist else "", entry.name)):
        dist = entry.dist.name if entry.dist else "?"
        label = f"{dist}:{entry.name}"
        try:
            module = entry.load()
            if manager.register(module, name=label) is None:
                raise ImportError(f"the entry point {label} is declared twice")
            manager.check_pending()
            listed = [
                Listed(kind, plugin, dist, entry.dist.version if entry.dist else "?")
                for kind, hook in HOOKS.items()
                if hasattr(module, hook)
                for plugin in getattr(module, hook)()
            ]
            for item in listed:
                carried = CARRIED_BY_EXECUTORS if item.kind == EXECUTOR else CARRIED
                if missing := [name for name in carried if not hasattr(item.plugin, name)]:
                    raise TypeError(f"its {item.kind} {item.plugin!r} lacks {', '.join(missing)}")
            named = [(item.kind, str(item.plugin.name)) for item in listed]
        except (Exception, SystemExit) as error:
            # Anything may go wrong in a stranger's module; the reason is kept and shown by `plugins list`.
            registry.unavailable[label] = f"{type(error).__name__}: {error}"
            if manager.has_plugin(label):
                manager.unregister(name=label)
            continue
        for name, item in zip(named, listed, strict=True):
            registry.found.setdefault(name, []).append(item)
    return registry


@cache
def registry() -> Registry:
    """The plugins of this environment, loaded once."""
    return load(entry_points(group=hookspecs.PROJECT))
