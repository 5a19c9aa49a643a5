"""The registry, over real throw-away distributions: a module, its metadata and its entry points in a folder."""

import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from mae_bench.errors import UsageError
from mae_bench.registry import KINDS, Registry, load, registry

HEAD = '''
"""A head and nothing else."""
from mae_bench import hookimpl
from mae_bench.values import Options

class Head:
    name = {name!r}
    summary = "a head from outside"
    Options = Options
    def provides(self, options): return frozenset()
    def needs(self, options): return frozenset()

@hookimpl
def mae_bench_heads():
    return [Head()]
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def add(site: Path, dist: str, module: str, code: str, entry: str | None = None, group: str = "mae_bench") -> None:
    """Install a distribution of one module in `site`, as pip would leave it there."""
    (site / f"{module}.py").write_text(textwrap.dedent(code))
    info = site / f"{dist.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry or module} = {module}\n")


def entries(site: Path) -> list[EntryPoint]:
    return [
        entry for dist in distributions(path=[str(site)]) for entry in dist.entry_points if entry.group == "mae_bench"
    ]


def loaded(site: Path) -> Registry:
    return load(entries(site))


def test_a_plugin_is_found_with_where_it_came_from(site: Path) -> None:
    add(site, "swin-heads", "swin_heads_a", HEAD.format(name="swin"))
    found = loaded(site)
    listed = found.get("head", "swin")
    assert (listed.kind, listed.dist, listed.version) == ("head", "swin-heads", "1.2")
    assert listed.plugin.summary == "a head from outside"
    assert found.names("head") == ["swin"]
    assert [item.plugin.name for item in found.all()] == ["swin"]
    assert found.unavailable == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("raise RuntimeError('wants a licence server')", "wants a licence server"),
        ("def f(:", "invalid syntax"),
        (HEAD.format(name="x").replace("mae_bench_heads", "mae_bench_hats"), "mae_bench_hats"),
        (HEAD.format(name="x").replace("def mae_bench_heads():", "def mae_bench_heads(size):"), "size"),
        (HEAD.format(name="x").replace("return [Head()]", "return [Head().hat]"), "hat"),
        (HEAD.format(name="x").replace("return [Head()]", "return None"), "not iterable"),
        (HEAD.format(name="x").replace("    name =", "    title ="), "name"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_breaks_nothing(site: Path, code: str, reason: str) -> None:
    add(site, "aaa-broken", "broken_first", code)
    add(site, "good", "good_between", HEAD.format(name="good"))
    add(site, "zzz-broken", "broken_last", code)
    found = loaded(site)
    assert found.names("head") == ["good"]
    assert set(found.unavailable) == {"aaa-broken:broken_first", "zzz-broken:broken_last"}
    assert all(reason in why for why in found.unavailable.values()), found.unavailable
    assert len(found.manager.hook.mae_bench_heads()) == 1


def test_a_plugin_that_leaves_the_program_breaks_nothing(site: Path) -> None:
    """Scripts that forget their `if __name__ == "__main__"` end in sys.exit."""
    add(site, "aaa-exits", "exits_at_import", "import sys\nsys.exit(0)")
    add(site, "good", "good_after_exit", HEAD.format(name="good"))
    found = loaded(site)
    assert found.names("head") == ["good"]
    assert "aaa-exits:exits_at_import" in found.unavailable


@pytest.mark.parametrize("attribute", ["summary", "Options"])
def test_a_plugin_object_that_lacks_what_listings_show_is_unavailable(site: Path, attribute: str) -> None:
    """`plugins list` and `--help` read these from every plugin, so one without them would take the list down."""
    code = HEAD.format(name="x").replace(f"    {attribute} =", "    other =")
    add(site, "lacking", f"lacks_{attribute.lower()}", code)
    found = loaded(site)
    assert found.names("head") == []
    assert attribute in found.unavailable[f"lacking:lacks_{attribute.lower()}"]


def test_a_name_claimed_twice_is_refused_naming_both(site: Path) -> None:
    add(site, "first-heads", "heads_of_first", HEAD.format(name="swin"))
    add(site, "second-heads", "heads_of_second", HEAD.format(name="swin"))
    add(site, "third-heads", "heads_of_third", HEAD.format(name="other"))
    found = loaded(site)
    assert found.unavailable == {}
    with pytest.raises(UsageError, match=r"'swin' is claimed by .*first-heads 1\.2 and second-heads 1\.2"):
        found.get("head", "swin")
    assert found.get("head", "other").dist == "third-heads"
    assert len(found.all()) == 3


def test_two_distributions_may_use_one_entry_point_name(site: Path) -> None:
    """What pluggy's own loader would skip without a word."""
    add(site, "first", "of_first_named_same", HEAD.format(name="one"), entry="heads")
    add(site, "second", "of_second_named_same", HEAD.format(name="two"), entry="heads")
    found = loaded(site)
    assert found.names("head") == ["one", "two"]
    assert found.unavailable == {}


def test_one_name_may_serve_different_kinds(site: Path) -> None:
    both = HEAD.format(name="swin") + "\n@hookimpl\ndef mae_bench_backbones():\n    return [Head()]\n"
    add(site, "both", "both_kinds", both)
    found = loaded(site)
    assert found.get("head", "swin").kind == "head"
    assert found.get("backbone", "swin").kind == "backbone"


def test_an_unknown_name_suggests_a_near_one(site: Path) -> None:
    add(site, "swin-heads", "swin_heads_near", HEAD.format(name="swin"))
    add(site, "broken", "broken_near", "raise RuntimeError('no luck')")
    found = loaded(site)
    with pytest.raises(UsageError, match="no head 'swim'; did you mean 'swin'") as caught:
        found.get("head", "swim")
    assert "no luck" in str(caught.value)
    with pytest.raises(UsageError, match="There are: swin") as caught:
        found.get("head", "completely different")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(UsageError, match="There are: none"):
        found.get("dataset", "swin")


def test_the_order_does_not_depend_on_the_folder(site: Path) -> None:
    for name in ("c", "a", "b"):
        add(site, f"dist-{name}", f"ordered_{name}", HEAD.format(name=name))
    forwards, backwards = load(entries(site)), load(reversed(entries(site)))
    assert [item.dist for item in forwards.all()] == [item.dist for item in backwards.all()]
    assert forwards.names("head") == ["a", "b", "c"]


def test_the_first_party_plugins_come_in_by_the_same_door() -> None:
    found = registry()
    assert found is registry()
    assert {name for kind in KINDS for name in found.names(kind)} >= {
        "mni152", "brats", "msd", "vit", "mae", "scratch", "unetr", "linear", "classifier",
    }  # fmt: skip
    assert not [label for label in found.unavailable if label.startswith("mae-bench:")]
    assert all(item.plugin.summary and item.plugin.Options for item in found.all())
