"""Runs a sweep of shoal-sim on Dask: one task for each job, on a cluster or on this machine.

    python sweep_dask.py GRID.toml DIR                             # worker processes on this machine
    python sweep_dask.py GRID.toml DIR --scheduler tcp://host:8786 # a cluster

GRID.toml and DIR must be at the same path for all workers (a shared file system). Jobs write whole files or nothing, so
one that was lost with its worker is run again elsewhere; run the same command again after an interruption, and what is
done is not run again.
"""

import argparse
import json
import os
import subprocess
import sys

import dask
from distributed import Client, LocalCluster, as_completed

# Times that a job may be lost with its worker before it is held to be what kills workers.
ALLOWED_LOSSES = 10


def run_job(program, grid, out, job):
    """Runs one job; gives its number."""
    command = [program, "sweep", grid, "--out", out, "--jobs", "1", "--job", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"job {job}: {done.stderr.strip()}")
    return job


def pending_jobs(program, grid, out):
    """Numbers of the jobs that have no result yet."""
    command = [program, "sweep", grid, "--out", out, "--list", "--json"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    jobs = [json.loads(line) for line in listed.splitlines()]
    return [job["job"] for job in jobs if not job["done"]]


def sweep(client, program, grid, out):
    """Runs all jobs on the client's cluster and merges them; gives the errors of jobs that failed."""
    program, grid, out = (os.path.abspath(path) for path in (program, grid, out))
    jobs = pending_jobs(program, grid, out)
    # Not pure: two calls with the same arguments are two tasks, whatever a scheduler remembers.
    futures = [client.submit(run_job, program, grid, out, job, pure=False) for job in jobs]
    errors = []
    for count, future in enumerate(as_completed(futures), 1):
        if future.status == "finished":
            if sys.stderr.isatty():
                print(f"\r{count} of {len(jobs)} jobs", end="", file=sys.stderr)
        else:
            errors.append(future.exception())
    if not errors:
        subprocess.run([program, "sweep", grid, "--out", out, "--merge"], check=True)
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid")
    parser.add_argument("out")
    parser.add_argument("--scheduler", help="address of a cluster's scheduler; else workers on this machine")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes on this machine")
    parser.add_argument("--program", default="shoal-sim", help="path of shoal-sim on all workers")
    args = parser.parse_args()
    program = args.program
    if os.sep not in program:
        import shutil

        program = shutil.which(program) or sys.exit(f"{program}: not found; give its path with --program")
    dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_LOSSES})
    if args.scheduler:
        with Client(args.scheduler) as client:
            errors = sweep(client, program, args.grid, args.out)
    else:
        workers = {"n_workers": args.workers, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(processes=True, **workers) as cluster, Client(cluster) as client:
            errors = sweep(client, program, args.grid, args.out)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
