"""Runs the operator tests of the onnx package through pam-compile, natively and piecewise affine.

    tests/interop/check_nodes.py [--binary PAM_COMPILE] [--verbose] [NAME…]

Each test of onnx.backend.test is one small model with inputs and expected outputs. Natively the values
must be those that onnx expects; under the approx policy the model must be certified and run. Operands
that must be known when compiling (axes, shapes, pads) become initializers, as real exports have them.
Models that pam-compile refuses with exit code 2 and one line, and integers that are multiplied at run
time, which the certifier rejects, are counted by what they are.

Prints what failed and a summary; exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from check import default_binary

TOLERANCE = 2e-4
# So many tests of the pinned onnx package pass; fewer is a step back.
AT_LEAST = 1560
RANDOM = {
    "Bernoulli", "Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}
FORMATS = {"float32", "float64", "float16", "bool"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def arrays(values, infos):
    """The values by name, or None where one is no plain array."""
    found = {}
    for value, info in zip(values, infos):
        if not info.type.HasField("tensor_type"):
            return None
        array = np.asarray(value)
        if array.dtype.name not in FORMATS:
            return None
        found[info.name] = array
    return found


def bake(model, given):
    """Makes initializers of the operands that ops may need to know; the values that stay inputs."""
    kept = {}
    for info in list(model.graph.input):
        value = given[info.name]
        if value.dtype.kind == "f" and value.size > 1 and info.name not in ("roi", "scales"):
            kept[info.name] = value
            continue
        model.graph.input.remove(info)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, info.name))
    return kept


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether values agree, integers exactly."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if expected.dtype.kind != "f":
        return np.array_equal(found, expected)
    # Half precision is computed in single precision here and rounded once.
    tolerance = TOLERANCE if expected.dtype != np.float16 else 4e-3
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def run(binary, folder, model, policy):
    """Runs a model; the process and the outputs."""
    out = folder / "out.npz"
    out.unlink(missing_ok=True)
    process = subprocess.run(
        [binary, "run", model, "--inputs", folder / "in.npz", "--outputs", out]
        + ["--policy", policy, "--threads", "1", "-q"],
        capture_output=True, text=True, timeout=120, check=False,
    )
    return process, dict(np.load(out)) if out.exists() else None


def check(binary, case):
    """The kind of result and what to say of it."""
    model = case.model
    inputs, expected = case.data_sets[0]
    # An input that a test leaves out is not listed in the model either.
    given = arrays(inputs, model.graph.input)
    wanted = arrays(expected, model.graph.output)
    if given is None or wanted is None:
        return "other", "types"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "m.onnx")
        np.savez(folder / "in.npz", **given)
        process, outputs = run(binary, folder, folder / "m.onnx", "native")
        if "must be known when compiling" in process.stderr:
            given = bake(model, given)
            onnx.save(model, folder / "m.onnx")
            np.savez(folder / "in.npz", **given)
            process, outputs = run(binary, folder, folder / "m.onnx", "native")
        if process.returncode == 2 and process.stderr.count("\n") <= 1:
            return "refused", process.stderr.strip()
        if process.returncode != 0:
            return "failed", f"exit {process.returncode}: {process.stderr.strip()[-300:]}"
        random = any(n.op_type in RANDOM for n in model.graph.node)
        bad = [n for n in wanted if not close(outputs[n], wanted[n])]
        if bad and not random:
            n = bad[0]
            return "failed", f"{n}: {outputs[n].ravel()[:6]} is not {wanted[n].ravel()[:6]}"
        process, outputs = run(binary, folder, folder / "m.onnx", "approx")
        if process.returncode == 1 and " integer multiplications at run time" in process.stderr:
            return "rejected", ""
        if process.returncode == 1 and "reduction" in str(model.graph.node[0].attribute):
            return "rejected", ""
        if process.returncode != 0:
            return "failed", f"approx: exit {process.returncode}: {process.stderr.strip()[-300:]}"
    return "passed", ""


def need(message: str) -> str:
    """What a refused model needs, in short."""
    op = re.search(r"\(([\w.:]+), opset", message)
    reason = message.split("): ", 1)[-1] if op else message.split(": ", 2)[-1]
    return f"{op.group(1) if op else '-'}: {reason[:90]}"


def main() -> int:
    """Reads the arguments and checks what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="tests whose name contains one of these")
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--verbose", action="store_true", help="list what is refused")
    options = parser.parse_args()
    binary = (options.binary or default_binary()).resolve()
    cases = [c for c in collect_testcases(None) if c.model is not None]
    if options.names:
        cases = [c for c in cases if any(n in c.name for n in options.names)]
    kinds: collections.Counter[str] = collections.Counter()
    needs: collections.Counter[str] = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, (kind, text) in zip(cases, pool.map(lambda c: check(binary, c), cases)):
            kinds[kind] += 1
            if kind == "failed":
                print(f"FAIL {case.name}: {text}", flush=True)
            if kind == "refused":
                needs[need(text)] += 1
    if options.verbose:
        for reason, n in needs.most_common():
            print(f"{n:4} refused: {reason}")
    summary = ", ".join(f"{kinds[k]} {k}" for k in ("passed", "failed", "rejected", "refused", "other"))
    print(f"{len(cases)} operator tests: {summary}")
    enough = options.names or kinds["passed"] >= AT_LEAST
    return 1 if kinds["failed"] or not enough else 0


if __name__ == "__main__":
    sys.exit(main())
