"""Checks pam-compile's written models with the standard tools, fixture by fixture.

For each step and each forward graph under fixtures/ (some also under the policy exact):

1. ``pam-compile MODEL -o OUT`` succeeds, ``onnx.checker`` accepts OUT in full, inputs, outputs and
   metadata are those of MODEL, and no operator in it, local functions and loop bodies included,
   multiplies floating-point numbers (judged by a list of its own);
2. onnxruntime runs OUT, and ``pam-compile run`` on OUT gives the same values in every bit;
3. ``pam-compile run --policy native`` on MODEL agrees with PyTorch's values within 1e-4, or 1e-2
   on the outputs which fixtures/manifest.json marks as rounding noise.

Prints a line per model and a summary; exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
NATIVE, NATIVE_NOISE = 1e-4, 1e-2

# Fixtures that are also compiled with exact derivatives, all kinds of contractions among them.
EXACT = ("mlp", "lenet", "encoder", "resnext")

MULTIPLY_LIKE = set(
    """Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Celu Conv
    ConvInteger ConvTranspose Cos Cosh CumProd DFT DeformConv Det Div Dropout Einsum Elu Erf Exp
    GRU Gelu Gemm GlobalAveragePool GlobalLpPool GroupNormalization HardSigmoid HardSwish
    InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
    LpPool MatMul MatMulInteger MeanVarianceNormalization Mean Mish Mod Mul
    NegativeLogLikelihoodLoss PRelu Pow QLinearConv QLinearMatMul RMSNormalization RNN Reciprocal
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSumSquare RotaryEmbedding
    QuantizeLinear DequantizeLinear DynamicQuantizeLinear Resize GridSample AffineGrid STFT Selu Sigmoid Sin Sinh Softmax SoftmaxCrossEntropyLoss Softplus Softsign Sqrt Swish Tan
    Tanh ThresholdedRelu""".split()
)
INTEGERS = {
    getattr(onnx.TensorProto, name)
    for name in "INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 BOOL".split()
}


class Failure(Exception):
    """A check that did not hold."""


def call(*command: object) -> None:
    """Runs a command; its stderr becomes the reason if it fails."""
    result = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=1200, check=False
    )
    if result.returncode != 0:
        tail = "\n    ".join(result.stderr.strip().splitlines()[-4:])
        raise Failure(f"{' '.join(map(str, command[1:]))} exited {result.returncode}: {tail}")


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file."""
    with np.load(path) as file:
        return dict(file)


def error(value: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the reference's largest magnitude; inf if shape or type differ."""
    if value.shape != reference.shape or value.dtype != reference.dtype:
        return float("inf")
    value, reference = value.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(reference)
    if not np.array_equal(value[~finite], reference[~finite], equal_nan=True):
        return float("inf")
    gap = np.abs(value - reference)[finite].max(initial=0.0)
    if gap == 0:
        return 0.0
    scale = np.abs(reference[finite]).max(initial=0.0)
    return float(gap / scale) if scale > 0 else float("inf")


def worst(found, reference, tolerance) -> float:
    """Largest error of all outputs; raises Failure with those above ``tolerance(name)``."""
    if set(found) != set(reference):
        names = ", ".join(sorted(set(found) ^ set(reference))[:4])
        raise Failure(f"outputs differ in name: {names}")
    errors = {n: error(found[n], reference[n]) for n in found}
    bad = sorted(((e, n) for n, e in errors.items() if not e <= tolerance(n)), reverse=True)
    if bad:
        listed = ", ".join(f"{n} {e:.1e}" for e, n in bad[:4])
        raise Failure(f"{len(bad)} of {len(errors)} outputs differ: {listed}")
    return max(errors.values())


def float_multiplies(model: onnx.ModelProto) -> list[str]:
    """Operators of the inlined model that multiply floating-point numbers."""
    inlined = onnx.inliner.inline_local_functions(model)
    inlined = onnx.shape_inference.infer_shapes(inlined)
    found: list[str] = []

    def visit(graph: onnx.GraphProto, outer: dict[str, int]) -> None:
        types = dict(outer)
        for value in [*graph.input, *graph.value_info, *graph.output]:
            if value.type.tensor_type.elem_type:
                types[value.name] = value.type.tensor_type.elem_type
        types |= {i.name: i.data_type for i in graph.initializer}
        for node in graph.node:
            if node.op_type in MULTIPLY_LIKE or node.domain not in ("", "ai.onnx"):
                kinds = {types.get(v, 0) for v in [*node.input, *node.output] if v}
                if not kinds <= INTEGERS:
                    found.append(f"{node.op_type} {node.name}")
            for attribute in node.attribute:
                for body in [attribute.g, *attribute.graphs]:
                    visit(body, types)

    visit(inlined.graph, {})
    return found


def interface(model: onnx.ModelProto) -> list:
    """What has to survive compilation beside metadata: inputs, outputs, defaults' names."""
    graph = model.graph
    inputs = {i.name for i in graph.input}

    def typed(value):
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [d.dim_value or d.dim_param for d in tensor.shape.dim]

    return [
        [typed(v) for v in graph.input],
        [typed(v) for v in graph.output],
        sorted(i.name for i in graph.initializer if i.name in inputs),
    ]


def metadata(model: onnx.ModelProto) -> set:
    """What a model says about itself."""
    return {(p.key, p.value) for p in model.metadata_props}


def check(
    binary: Path, source: Path, inputs: Path, expected: Path, noise: dict, folder: Path, policy: str
):
    """All checks of one model under a policy; returns what to print."""
    written = folder / f"{source.stem}.pam.onnx"
    call(binary, source, "-o", written, "-q", "--policy", policy)
    model, original = onnx.load(written), onnx.load(source)
    onnx.checker.check_model(str(written), full_check=True)
    for part, new, old in zip(
        ("inputs", "outputs", "defaults"), interface(model), interface(original)
    ):
        if new != old:
            raise Failure(f"the written model's {part} are not the source's")
    lost = metadata(original) - metadata(model)
    if lost:
        raise Failure(f"metadata is lost: {', '.join(sorted(key for key, _ in lost))}")
    multiplies = float_multiplies(model)
    if multiplies:
        raise Failure(f"{len(multiplies)} native multiplies left: {', '.join(multiplies[:4])}")

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(written), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    feeds = {k: v for k, v in load(inputs).items() if k in {i.name for i in original.graph.input}}
    portable = dict(zip(names, session.run(names, feeds)))
    given = folder / "inputs.npz"
    np.savez(given, **feeds)
    call(binary, "run", written, "--inputs", given, "--outputs", folder / "pam.npz", "-q")
    worst(load(folder / "pam.npz"), portable, lambda _: 0.0)

    if policy != "approx":
        return "the same bits in onnxruntime"
    native = folder / "native.npz"
    call(binary, "run", source, "--policy", "native", "--inputs", given, "--outputs", native, "-q")
    tolerance = lambda name: NATIVE_NOISE if name in noise else NATIVE  # noqa: E731
    second = worst(load(native), load(expected), tolerance)
    return f"the same bits in onnxruntime, native against PyTorch {second:.1e}"


def default_binary() -> Path:
    """The newest build below target/."""
    built = [ROOT / "target" / kind / "pam-compile" for kind in ("release", "debug")]
    built = [b for b in built if b.exists()]
    if not built:
        sys.exit("no pam-compile under target/: run `cargo build --release` or pass --binary")
    return max(built, key=lambda b: b.stat().st_mtime)


def main() -> int:
    """Reads the arguments and checks what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixtures", nargs="*", help="names (default: all)")
    parser.add_argument("--binary", type=Path, help="pam-compile (default: newest under target/)")
    options = parser.parse_args()
    binary = (options.binary or default_binary()).resolve()
    manifest = json.loads((FIXTURES / "manifest.json").read_text())
    unknown = [n for n in options.fixtures if n not in manifest]
    if unknown:
        parser.error(f"no fixture {', '.join(unknown)}; there are {', '.join(manifest)}")

    passed = failed = 0
    for name in options.fixtures or manifest:
        base = FIXTURES / name
        models = [(base / f"{name}.onnx", base / "expected.npz", manifest[name]["noise"])]
        if (base / f"{name}_forward.onnx").exists():
            models.append((base / f"{name}_forward.onnx", base / "expected_forward.npz", {}))
        runs = [(*model, "approx") for model in models]
        runs += [(*models[0], "exact")] if name in EXACT else []
        for source, expected, noise, policy in runs:
            start = time.monotonic()
            try:
                with tempfile.TemporaryDirectory() as folder:
                    text = check(
                        binary, source, base / "inputs.npz", expected, noise, Path(folder), policy
                    )
                passed, mark = passed + 1, "ok  "
            except Exception as reason:  # every failure of a tool is this fixture's failure
                kind = "" if isinstance(reason, Failure) else f"{type(reason).__name__}: "
                text = kind + str(reason)[:600]
                failed, mark = failed + 1, "FAIL"
            seconds = time.monotonic() - start
            print(f"{mark} {source.stem:16} {policy:6} {text} ({seconds:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
