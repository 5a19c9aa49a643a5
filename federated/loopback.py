"""Run a study end to end on this machine: server, nginx and three hospitals on the loopback, with TLS and keys.

    python federated/loopback.py [FOLDER]

Needs nginx (`apt-get install nginx`) and `pip install 'mae-bench[federated]'`; no container, no network.
"""

import sys
import tempfile
import time
from pathlib import Path

from mae_bench.data.source import open_data
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.run import make_cell
from mae_bench.store import Store
from mae_bench_federated.deploy.loopback import Loopback
from mae_bench_federated.study import make_study

HOSPITALS = ["north", "south", "west"]
FLAGS = {"sites": "3", "rounds": "2", "local-steps": "2", "deadline": "300"}
SETTINGS = {"dataset.subjects": "9", "dataset.spacing": "6"}


def main(folder: Path) -> None:
    """Agree on a study, bring everything up, wait for the end."""
    chosen = resolve(Request("mni152", "mae", recipe="smoke", flags=FLAGS, settings=SETTINGS), registry())
    plugin, options = chosen.plugin("dataset"), chosen.options["dataset"]
    data = open_data(plugin, options, Store(folder / "stores" / "server"), data=None, demo=False, protocol=None)
    study = make_study(make_cell(chosen, data, labels=1.0, seed=0, pretrain_seed=0).spec, data.task)
    began = time.monotonic()
    with Loopback(folder, study, HOSPITALS) as loopback:
        print(f"recipe hash {study.key()}; control API through the proxy: {loopback.answer('/v1/control/list-runs')}")
        for site, name in enumerate(HOSPITALS):
            loopback.start_hospital(name, site)
        loopback.submit()
        for event in loopback.wait_for_end(600):
            print(event)
    print(f"{time.monotonic() - began:.0f} s; the encoder is {loopback.out / 'encoder.safetensors'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="mae-bench-study-")))
