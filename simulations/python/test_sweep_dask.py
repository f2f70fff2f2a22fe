"""The Dask driver ends with the same bytes as the program alone, even when a worker is killed on the way.

    python test_sweep_dask.py PATH/OF/shoal-sim GRID.toml
"""

import filecmp
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import dask
from distributed import Client, LocalCluster

import sweep_dask


def kill_a_worker(cluster, out, killed):
    """Kills a worker process, as a machine would die, when some jobs are done and others are not."""
    jobs = os.path.join(out, "jobs")
    while not (os.path.isdir(jobs) and len(os.listdir(jobs)) >= 2):
        time.sleep(0.01)
    worker = next(iter(cluster.workers.values()))
    pid = worker.process.process.pid
    os.kill(pid, signal.SIGKILL)
    killed.append((pid, len(os.listdir(jobs))))


def main():
    program, grid = (os.path.abspath(path) for path in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as directory:
        alone, shared = (os.path.join(directory, name) for name in ("alone", "shared"))
        subprocess.run([program, "sweep", grid, "--out", alone], check=True, stdout=subprocess.DEVNULL)
        total = len(os.listdir(os.path.join(alone, "jobs")))
        dask.config.set({"distributed.scheduler.allowed-failures": sweep_dask.ALLOWED_LOSSES})
        workers = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": None}
        killed = []
        with LocalCluster(processes=True, **workers) as cluster, Client(cluster) as client:
            args = (cluster, shared, killed)
            killer = threading.Thread(target=kill_a_worker, args=args, daemon=True)
            killer.start()
            errors = sweep_dask.sweep(client, program, grid, shared)
            killer.join(timeout=10)
        assert not errors, errors
        assert killed, "no worker was killed"
        (pid, done) = killed[0]
        assert done < total, "the worker was killed after the end; take a grid with longer jobs"
        for name in ("results.json", "results.parquet"):
            same = filecmp.cmp(os.path.join(alone, name), os.path.join(shared, name), shallow=False)
            assert same, f"{name} differs"
        print(f"worker {pid} killed after {done} of {total} jobs; results are the same bytes")


if __name__ == "__main__":
    main()
