"""`mae-bench leaderboard`: records collected, checked and shown."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mae_bench.cli import output

app = typer.Typer(no_args_is_help=True, help="Collect, check and show records: tables, figures, a static site.")

FolderArgument = Annotated[Path, typer.Argument(metavar="[DIR]", help="folder of boards, or of one board")]
BOARDS = Path("leaderboards")


@app.command("add")
def add_records(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="store whose finished records are collected")],
    board: Annotated[str | None, typer.Option(help="folder of the board [default: data set and protocol]")] = None,
    to: Annotated[Path, typer.Option(help="folder of boards")] = BOARDS,
    as_json: output.JsonOption = False,
) -> None:
    """Write every finished record of a store, with scores, curves and pictures, into a folder that can be handed in."""
    from mae_bench.leaderboard.add import add
    from mae_bench.store import Store

    written = add(Store(store), to, board)
    document = {"records": [str(path) for path in written]}
    output.show(document, as_json, lambda: output.make_table("added", ["record"], [(path,) for path in written]))
    print(f"next: mae-bench leaderboard check {to}", file=sys.stderr)


@app.command("check")
def check_records(folder: FolderArgument = BOARDS, as_json: output.JsonOption = False) -> None:
    """Check every record as a stranger's; exit code 3 with every fault. Then show each method beside two references."""
    from mae_bench.leaderboard.check import beside_references, check, refuse

    checked = check(folder)
    refuse(checked)
    found = beside_references(checked.submissions)
    document: dict[str, Any] = {
        "records": len(checked.submissions),
        "notes": list(checked.notes),
        "differences": [difference.to_json() for difference in found],
    }
    rows = [
        (
            each.board,
            each.section,
            each.method,
            f"{each.role}: {each.reference}",
            f"{each.test.difference.value:+.4f}",
            f"{each.test.difference.low:+.4f} to {each.test.difference.high:+.4f}",
            f"{each.test.p:.2g}",
        )
        for each in found
    ]
    columns = ["board", "section", "method", "reference", "difference", "95 % interval", "p"]
    title = f"{len(checked.submissions)} records keep every rule; each method less two references"
    output.show(document, as_json, lambda: output.make_table(title, columns, rows, once=columns[:2]))
    for note in checked.notes:
        print(f"note: {note}", file=sys.stderr)


@app.command("build")
def build_site(
    folder: FolderArgument = BOARDS,
    out: Annotated[Path, typer.Option(help="folder to write; one that an earlier build made is replaced")] = Path(
        "leaderboard-site"
    ),
    as_json: output.JsonOption = False,
) -> None:
    """Write CSV, Markdown and a site that opens from a folder: no server, no network."""
    from mae_bench.leaderboard.build import build

    built = build(folder, out)
    document = {"index": str(out / "index.html"), "boards": built.boards, "records": built.records}
    rows = [("index", out / "index.html"), ("boards", ", ".join(built.boards)), ("records", built.records)]
    output.show(document, as_json, lambda: output.make_table("leaderboard", ["what", ""], rows))
