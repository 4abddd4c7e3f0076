"""Time and peak memory on a layer of full size: `python -m wtacrs.validation.benchmarks.scale`.

One layer of random rows, whose sizes vary a hundredfold, is written to a captured file; every estimator is then measured
in a process of its own, by the very call that `wtacrs compare` makes. The peak is that of the whole process: Python and
torch (about 0.3 GiB), x and dy, and what the estimator and its moments need beside them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from wtacrs.estimators import InputError
from wtacrs.validation.layers.candidates import Candidate
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.scale import ScaleResult, ScaleRow

CANDIDATES = (
    'wta_crs(budget=0.3, winners="paper")',
    "crs(budget=0.3)",
    "count_sketch(budget=0.3)",
    "systematic(budget=0.3)",
    "recommended at 0.3",
)
LAYER = "layer"


def full_layer(n: int, d: int, m: int, *, seed: int) -> LayerCapture:
    """Random rows in bf16, their sizes log-normal over two decades."""
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.empty(n, width, dtype=torch.bfloat16) for width in (d, m))
    for matrix in (x, dy):
        for rows in matrix.split(4096):
            sizes = torch.randn(rows.shape[0], 1, generator=generator).exp()
            rows.copy_(torch.randn(rows.shape, generator=generator) * sizes)
    return LayerCapture(x, dy, torch.ones(n, dtype=torch.bool))


def measure(captures: Path, candidate: Candidate, *, draws: int, seed: int, device: str) -> ScaleRow:
    """One estimator, measured in this process."""
    started = time.perf_counter()
    (row,) = compare_layer(
        LAYER,
        load_captures(captures)[LAYER],
        [candidate],
        ComparisonConfig(("oracle",), draws=draws, seed=seed, device=device),
    )
    on_cuda = device.startswith("cuda")
    return ScaleRow(
        estimator=row.estimator,
        n=row.n,
        d=row.d,
        m=row.m,
        dtype="bfloat16",
        method=row.method,
        draws=row.draws,
        variance=row.variance,
        seconds=time.perf_counter() - started,
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        device_bytes=torch.cuda.max_memory_allocated(device) if on_cuda else None,
    )


def candidate_from(text: str) -> Candidate:
    """`SPEC`, or `SPEC at S` for a share of the bytes."""
    spec, _, share = text.partition(" at ")
    try:
        return Candidate(spec, float(share) if share else None)
    except ValueError:
        raise InputError(f"estimator={text!r}: what follows ' at ' must be a share such as 0.3") from None


def scale(
    candidates: Sequence[str], n: int, d: int, m: int, *, draws: int = 3, seed: int = 0, device: str = "cpu"
) -> ScaleResult:
    """Every estimator in a process of its own, in turn.

    Raises:
        InputError: on an unusable estimator, with the message of its process.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        captures = Path(folder) / "layer.safetensors"
        write_captures(captures, {LAYER: full_layer(n, d, m, seed=seed)}, {"model": "random rows"})
        for text in candidates:
            options = {
                "captures": str(captures),
                "candidate": text,
                "draws": draws,
                "seed": seed,
                "device": device,
            }
            command = [sys.executable, "-m", "wtacrs.validation.benchmarks.scale", "--one", json.dumps(options)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
                raise InputError(f"estimator={text!r}: {said[-1]}")
            rows.append(ScaleRow.model_validate_json(done.stdout))
            print(_line(rows[-1]), file=sys.stderr)
    return ScaleResult(stamp=stamp(seed=seed, device=device), rows=rows)


def _line(row: ScaleRow) -> str:
    on_device = "" if row.device_bytes is None else f", {row.device_bytes / 2**30:.1f} GiB on the device"
    return f"{row.estimator}: {row.method}, {row.seconds:.0f} s, {row.process_bytes / 2**30:.1f} GiB{on_device}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result to standard output as JSON; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--features", type=int, default=4_096)
    parser.add_argument("--outputs", type=int, default=4_096)
    parser.add_argument("--estimators", nargs="+", default=list(CANDIDATES), help="SPEC, or 'SPEC at SHARE'")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        if given.one is not None:
            options = json.loads(given.one)
            candidate = candidate_from(options.pop("candidate"))
            print(measure(Path(options.pop("captures")), candidate, **options).model_dump_json())
            return 0
        result = scale(
            given.estimators, given.rows, given.features, given.outputs, draws=given.draws, device=given.device
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(result.model_dump_json(indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
