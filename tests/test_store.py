"""The run store: whole files or none, one process at a time, failures never served."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from mae_bench.errors import InputError, UsageError
from mae_bench.store import Store, write_bytes, write_json, writing_folder
from tests.test_record import make_record
from tests.test_spec import make_spec


def names(folder: Path) -> list[str]:
    """Everything in `folder`, hidden files too."""
    return sorted(os.listdir(folder))


# --- atomic writes ---------------------------------------------------------------------------------------------------


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes(path, b"first")
    write_bytes(path, memoryview(b"second"))
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_bytes(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel stops the write half-way: a file-size limit fails as a full disk does."""
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_bytes(path, b"new" * (1 << 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; import mae_bench.store as store;"
        "store.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL);"
        "store.write_bytes(Path(sys.argv[1]), b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob("*.json"))


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"b": 1, "a": None})
    assert json.loads(path.read_text()) == {"a": None, "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": None, "b": 1}


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "in" / "folder"

    def fill(fail: bool) -> None:
        with writing_folder(path) as temporary:
            (temporary / "one").write_text("1")
            assert not path.exists()
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(fail=True)
    assert names(path.parent) == []
    fill(fail=False)
    assert names(path) == ["one"]
    assert names(path.parent) == ["folder"]
    assert path.stat().st_mode & 0o777 == 0o755


# --- stages ----------------------------------------------------------------------------------------------------------


def test_a_stage_is_finished_when_it_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder("encoders", "k1")
    assert folder == tmp_path / "encoders" / "k1"
    write_bytes(folder / "encoder.safetensors", b"weights")
    assert store.finished("encoders", "k1") is None
    store.finish("encoders", "k1", {"seconds": 2.5})
    assert store.finished("encoders", "k1") == {"seconds": 2.5}
    assert store.finished("models", "k1") is None


def test_a_damaged_stage_says_what_to_remove(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.finish("models", "k1", {})
    (store.folder("models", "k1") / "stage.json").write_text('{"seco')
    with pytest.raises(InputError, match=r"stage\.json is damaged") as caught:
        store.finished("models", "k1")
    assert str(store.folder("models", "k1")) in caught.value.hint


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAE_BENCH_STORE", raising=False)
    assert Store.default().root == tmp_path / "mae-bench-store"
    monkeypatch.setenv("MAE_BENCH_STORE", str(tmp_path / "elsewhere"))
    assert Store.default().root == tmp_path / "elsewhere"
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store(Path("~/runs")).root == tmp_path / "runs"


# --- claims ----------------------------------------------------------------------------------------------------------


def hold(root: Path, key: str, line: Connection) -> None:
    """Claim, say so, and keep the claim until told to stop."""
    with Store(root).claim("models", key):
        line.send("held")
        line.recv()
    line.send("left")


class Holder:
    """Another process that claims a stage."""

    def __init__(self, root: Path, key: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, other = context.Pipe()
        self.process = context.Process(target=hold, args=(root, key, other), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.line.close()

    def says(self, within: float) -> str | None:
        return str(self.line.recv()) if self.line.poll(within) else None


def test_a_claim_excludes_another_process_until_it_is_released(tmp_path: Path) -> None:
    with Holder(tmp_path, "k1") as holder:
        with Store(tmp_path).claim("models", "k0"):
            pass  # another key is free
        with Store(tmp_path).claim("models", "other"), Holder(tmp_path, "other") as waiting:
            assert holder.says(20) == "held"
            assert waiting.says(1) is None
        holder.line.send("stop")
        assert holder.says(20) == "left"


def test_whoever_waits_gets_the_claim_next(tmp_path: Path) -> None:
    with Holder(tmp_path, "k1") as first:
        assert first.says(20) == "held"
        with Holder(tmp_path, "k1") as second:
            assert second.says(1) is None
            first.line.send("stop")
            assert second.says(20) == "held"


def test_a_killed_process_loses_its_claim(tmp_path: Path) -> None:
    with Holder(tmp_path, "k1") as holder:
        assert holder.says(20) == "held"
        assert holder.process.pid is not None
        os.kill(holder.process.pid, signal.SIGKILL)
        began = time.monotonic()
        with Store(tmp_path).claim("models", "k1"):
            assert time.monotonic() - began < 5


def test_a_claim_is_released_when_its_block_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with Store(tmp_path).claim("models", "k1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with Store(tmp_path).claim("models", "k1"):
        pass


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_went(tmp_path: Path) -> None:
    store, record = Store(tmp_path), make_record()
    assert store.read_record(record.key) is None
    assert store.records() == []
    store.write_record(record)
    assert store.read_record(record.key) == record
    assert names(tmp_path / "records") == [f"{record.key}.json"]
    assert store.cases_path(record.key).parent == store.record_path(record.key).parent
    assert store.cases_path(record.key).name == f"{record.key}.cases.csv"


def test_writing_a_record_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    stores = Store(tmp_path / "one"), Store(tmp_path / "two")
    for store in stores:
        store.write_record(make_record())
    first, second = (store.record_path(make_record().key).read_bytes() for store in stores)
    assert first == second


def test_a_failed_record_never_replaces_a_finished_one(tmp_path: Path) -> None:
    store, done = Store(tmp_path), make_record()
    failed = make_record(status="failed", reason="diverged", metrics={}, main_metric="")
    store.write_record(done)
    store.write_record(failed)
    assert store.read_record(done.key) == done


def test_a_failed_record_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for reason in ("diverged", "out of memory"):
        store.write_record(make_record(status="failed", reason=reason))
        found = store.read_record(make_record().key)
        assert found is not None
        assert (found.status, found.reason) == ("failed", reason)
    store.write_record(make_record())
    assert store.find(make_record().key).status == "ok"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "\x00\x01"])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    write_bytes(store.record_path("k1"), text.encode())
    with pytest.raises(InputError, match=r"records/k1\.json is not a record of schema 1"):
        store.read_record("k1")


def test_records_are_listed_by_key_and_temporary_files_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = [make_record(make_spec(seed=seed)) for seed in range(5)]
    for record in records:
        store.write_record(record)
    write_bytes(store.cases_path(records[0].key), b"case,dice\n")
    (tmp_path / "records" / f".{records[0].key}.json.x1y2.tmp").write_text("half")
    assert [record.key for record in store.records()] == sorted(record.key for record in records)


def test_find_takes_the_start_of_a_key(tmp_path: Path) -> None:
    store, record = Store(tmp_path), make_record()
    store.write_record(record)
    assert store.find(record.key[:6]) == record
    for prefix in ("", "zzzz", record.key + "0"):
        with pytest.raises(UsageError, match="0 records"):
            store.find(prefix)


@pytest.mark.parametrize("prefix", ["*", "[0-9a-f]", "?", "/etc"])
def test_the_start_of_a_key_is_no_pattern(tmp_path: Path, prefix: str) -> None:
    store = Store(tmp_path)
    store.write_record(make_record())
    with pytest.raises(UsageError, match="0 records"):
        store.find(prefix)


def test_find_refuses_to_guess(tmp_path: Path) -> None:
    store = Store(tmp_path)
    firsts = [make_record(make_spec(seed=seed)) for seed in range(40)]
    for record in firsts:
        store.write_record(record)
    shared = next(a.key[0] for a in firsts for b in firsts if a is not b and a.key[0] == b.key[0])
    with pytest.raises(UsageError, match=rf"\d+ records in .* start.* with '{shared}'"):
        store.find(shared)
