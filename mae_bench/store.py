"""The run store: content-addressed, atomic, append-only, shared by several processes.

    prepared/<key>/  encoders/<key>/  models/<key>/  records/<key>.json + <key>.cases.csv

A stage folder is finished when it holds `stage.json`, which is written last. Locks are advisory `flock`s, which the
kernel releases when a process dies, so a killed run never blocks the next one.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mae_bench.errors import InputError, UsageError
from mae_bench.record import ResultRecord

STAGE = "stage.json"


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `path` so that it is there whole or not at all, even when the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def writing_folder(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends well, and vanishes otherwise.

    It lies in `scratch`, on the same disk, or beside `path`. If `path` came to exist meanwhile, it stays as it is:
    folders of the store are addressed by what made them.
    """
    scratch = scratch or path.parent
    for folder in (scratch, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=scratch, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Store:
    """A folder of prepared data, encoders, models and records."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @classmethod
    def default(cls) -> "Store":
        """`$MAE_BENCH_STORE`, else `mae-bench-store` in the current folder."""
        return cls(Path(os.environ.get("MAE_BENCH_STORE") or "mae-bench-store"))

    def folder(self, kind: str, key: str) -> Path:
        """Folder of one stage; `kind` is prepared, encoders, models or demo."""
        return self.root / kind / key

    def finished(self, kind: str, key: str) -> dict[str, Any] | None:
        """What `finish` left for the stage, or None while it is not finished."""
        path = self.folder(kind, key) / STAGE
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged: {error}", f"remove {path.parent} and run again") from error
        return found

    def finish(self, kind: str, key: str, facts: dict[str, Any]) -> None:
        """Declare the stage finished."""
        write_json(self.folder(kind, key) / STAGE, facts)

    @contextlib.contextmanager
    def claim(self, kind: str, key: str) -> Iterator[None]:
        """Hold the stage for this process; another that wants it waits, then finds it finished."""
        path = self.root / "locks" / f"{kind}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def held(self, kind: str, key: str) -> bool:
        """Whether some process holds the stage just now."""
        path = self.root / "locks" / f"{kind}-{key}"
        if not path.is_file():
            return False
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    # --- records ---------------------------------------------------------------------------------------------------

    def record_path(self, key: str) -> Path:
        """Where the record of `key` lies, whether or not it exists."""
        return self.root / "records" / f"{key}.json"

    def cases_path(self, key: str) -> Path:
        """Where the per-case scores of `key` lie."""
        return self.root / "records" / f"{key}.cases.csv"

    def read_record(self, key: str) -> ResultRecord | None:
        """The record of `key`, or None.

        Raises:
            InputError: the file is not a record of schema 1.
        """
        path = self.record_path(key)
        if not path.is_file():
            return None
        try:
            return ResultRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is not a record of schema 1: {error.errors()[0]['msg']}") from error

    def write_record(self, record: ResultRecord) -> None:
        """Write the record; a failed run never replaces a finished one."""
        present = self.read_record(record.key)
        if record.status == "failed" and present is not None and present.status == "ok":
            return
        write_json(self.record_path(record.key), record.to_json())

    def records(self) -> list[ResultRecord]:
        """All records, by key."""
        found = (self.read_record(path.stem) for path in sorted((self.root / "records").glob("*.json")))
        return [record for record in found if record is not None]

    def find(self, prefix: str) -> ResultRecord:
        """The one record whose key starts with `prefix`.

        Raises:
            UsageError: none or several.
        """
        keys = [path.stem for path in (self.root / "records").glob("*.json") if prefix and path.stem.startswith(prefix)]
        if len(keys) != 1:
            raise UsageError(f"{len(keys)} records in {self.root} have a key that starts with {prefix!r}")
        record = self.read_record(keys[0])
        assert record is not None
        return record
