"""Compares the PA functions of written models with their definitions, bit for bit.

    cargo run -p pam-ir --example write_functions -- FOLDER
    tests/interop/check_functions.py FOLDER [--engine ort|reference|both]

Each model in FOLDER calls one primitive. This script evaluates the primitive on its own, in 64-bit
integers, as docs/numerics.md defines it, from the inputs and the attributes of the primitive alone
(never from the helper attributes of the writer), and compares with onnxruntime and onnx.reference.
Elementwise results must have the same bits; results of sums may differ in which NaN they are.

Prints a line per failure and a summary; exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

BIAS, MIN, INF, MANT = 0x3F800000, 0x00800000, 0x7F800000, 0x007FFFFF
NAN, SIGN, CHUNK = 0x7FC00000, 0x80000000, 256

# --- the definitions ---------------------------------------------------------------------------


def bits(x: np.ndarray) -> np.ndarray:
    """The bit patterns as non-negative 64-bit integers."""
    return np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.int64).reshape(x.shape)


def floats(pattern: np.ndarray) -> np.ndarray:
    """The floats of bit patterns."""
    pattern = np.asarray(pattern, np.int64)
    return pattern.astype(np.uint32).view(np.float32).reshape(pattern.shape)


def first_match(default, *cases):
    """The value of the first condition that holds, else the default."""
    result = default
    for condition, value in reversed(cases):
        result = np.where(condition, value, result)
    return result


def split(x):
    """Sign bit, magnitude, and the flags zero (or subnormal), infinite and NaN."""
    b = bits(x)
    m = b & 0x7FFFFFFF
    return b & SIGN, m, m < MIN, m == INF, m > INF


def mul(a, b, offset=0):
    (sa, ma, za, ia, na), (sb, mb, zb, ib, nb) = split(a), split(b)
    sign, m = sa ^ sb, ma + mb - BIAS + offset
    return floats(
        first_match(
            sign | np.clip(m, 0, INF),
            (na | nb | (ia & zb) | (za & ib), NAN),
            (ia | ib, sign | INF),
            (za | zb | (m < MIN), sign),
            (m >= INF, sign | INF),
        )
    )


def div(a, b, offset=0):
    (sa, ma, za, ia, na), (sb, mb, zb, ib, nb) = split(a), split(b)
    sign, m = sa ^ sb, ma - mb + BIAS - offset
    return floats(
        first_match(
            sign | np.clip(m, 0, INF),
            (na | nb | (za & zb) | (ia & ib), NAN),
            (ia | zb, sign | INF),
            (za | ib | (m < MIN), sign),
            (m >= INF, sign | INF),
        )
    )


def flushed(x):
    """Subnormals become zeros."""
    sign, _, zero, _, _ = split(x)
    return np.where(zero, floats(sign), x)


def exp2(x):
    inside = np.where((x >= -126) & (x < 128), flushed(x), np.float32(0)).astype(np.float64)
    m = np.rint(inside * 2.0**23).astype(np.int64) + BIAS
    return floats(first_match(m, (np.isnan(x), NAN), (x >= 128, INF), (x < -126, 0)))


def log2(x):
    sign, m, zero, inf, nan = split(x)
    y = ((m - BIAS) * 2.0**-23).astype(np.float32)
    return floats(
        first_match(
            bits(y), (nan | ((sign != 0) & ~zero), NAN), (zero, SIGN | INF), (inf, INF)
        )
    )


def scale_pow2(x, exponent):
    # A long double holds any product of a float and a power of two, so that only one rounding is left.
    with np.errstate(over="ignore", under="ignore"):
        y = np.ldexp(x.astype(np.longdouble), exponent).astype(np.float32)
    return np.where(np.isnan(x), floats(np.int64(NAN)), y)


def round_mantissa(x, mantissa):
    drop = 23 - mantissa
    if drop <= 0:
        return x
    b = bits(x)
    kept, rest, half = b >> drop, b & ((1 << drop) - 1), 1 << (drop - 1)
    kept = kept + ((rest > half) | ((rest == half) & (kept & 1 == 1)))
    return np.where(np.isfinite(x), floats(kept << drop), x)


def times_power(delta, sign, exponent, nan, zero, inf):
    """delta times ±2^exponent, the slope zero, infinite or NaN where flagged."""
    pattern = first_match(
        (np.clip(exponent, -126, 127) + 127) << 23,
        (nan, NAN),
        (inf, INF),
        (zero | (exponent < -126), 0),
        (exponent > 127, INF),
    )
    return mul(delta, floats(np.where(nan, pattern, sign | pattern)))


def fields(x):
    """Unbiased exponent and mantissa; zeros, subnormals and infinities have mantissa 0."""
    _, m, zero, _, _ = split(x)
    return (m >> 23) - 127, np.where(zero, 0, m & MANT)


def mul_grad(a, b, delta, offset=0):
    (_, _, _, _, na), (sb, mb, zb, ib, nb) = split(a), split(b)
    exponent = ((mb + fields(a)[1] + offset) >> 23) - 127
    # Without an offset an infinite b has an infinite slope; with one its pattern decides.
    return times_power(delta, sb, exponent, na | nb, zb, np.zeros_like(zb))


def div_grad_a(a, b, delta, offset=0):
    (_, _, _, _, na), (sb, mb, zb, ib, nb) = split(a), split(b)
    # (1 + M_a) / |b| as a quotient, rounded down to a power of two: -E_b - [M_a < M_b] for offset 0.
    exponent = ((BIAS + fields(a)[1] - mb + BIAS - offset) >> 23) - 127
    return times_power(delta, sb, exponent, na | nb, ib & ~zb, zb)


def div_grad_b(a, b, delta, offset=0):
    (sa, _, _, _, _), (_, mb, zb, _, _) = split(a), split(b)
    q = div(a, b, offset)
    _, mq, zq, iq, nq = split(q)
    exponent = (mq >> 23) - (mb >> 23)
    return times_power(delta, sa ^ SIGN, exponent, nq, zq, iq | zb)


def exp2_grad(x, delta):
    nan = np.isnan(x)
    floor = np.floor(np.clip(np.where(nan, 0, flushed(x)), -200, 200)).astype(np.int64)
    none = np.zeros_like(nan)
    return times_power(delta, np.int64(0), floor, nan, none, none)


def log2_grad(x, delta):
    sign, m, zero, inf, nan = split(x)
    nan = nan | ((sign != 0) & ~zero)
    return times_power(delta, np.int64(0), 127 - (m >> 23), nan, inf, zero)


def chunked(terms):
    """Sums arrays in the documented order: k ascending within chunks, then the chunks."""
    total = acc = None
    for k, term in enumerate(terms):
        if k % CHUNK == 0:
            if acc is not None:
                total = acc if total is None else total + acc
            acc = np.zeros_like(term)
        acc = acc + term
    return acc if total is None else total + acc


def matmul(a, b, offset=0, mantissa=23):
    a, b = round_mantissa(a, mantissa), round_mantissa(b, mantissa)
    return chunked(mul(a[..., :, k, None], b[..., None, k, :], offset) for k in range(a.shape[-1]))


def matmul_grad_a(a, b, delta, offset=0, mantissa=23):
    a, b = round_mantissa(a, mantissa), round_mantissa(b, mantissa)
    columns = range(b.shape[-1])
    return chunked(
        mul_grad(a, b[..., None, :, n], delta[..., :, n, None], offset) for n in columns
    )


def matmul_grad_b(a, b, delta, offset=0, mantissa=23):
    a, b = round_mantissa(a, mantissa), round_mantissa(b, mantissa)
    rows = range(a.shape[-2])
    return chunked(
        mul_grad(b, a[..., m, :, None], delta[..., m, None, :], offset) for m in rows
    )


def conv(x, w, strides=(), pads=(), dilations=(), input_dilations=(), group=1, offset=0, mantissa=23):
    x, w = round_mantissa(x, mantissa), round_mantissa(w, mantissa)
    rank = x.ndim - 2
    ones = [1] * rank
    strides, dilations = list(strides) or ones, list(dilations) or ones
    input_dilations, pads = list(input_dilations) or ones, list(pads) or [0] * (2 * rank)
    # Every element of the dilated, padded input is put where it belongs, or falls outside.
    extent = [(s - 1) * d + 1 for s, d in zip(x.shape[2:], input_dilations)]
    size = [e + pads[i] + pads[i + rank] for i, e in enumerate(extent)]
    full = np.zeros((*x.shape[:2], *size), np.float32)
    for place in np.ndindex(*x.shape[2:]):
        to = [p * d + b for p, d, b in zip(place, input_dilations, pads)]
        if all(0 <= t < s for t, s in zip(to, size)):
            full[(slice(None), slice(None), *to)] = x[(slice(None), slice(None), *place)]
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations)]
    out = [(s - span) // step + 1 for s, span, step in zip(size, spans, strides)]
    inner, per_group = w.shape[1], w.shape[0] // group

    def term(channel, tap):
        window = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilations, out, strides)
        )
        parts = []
        for m in range(w.shape[0]):
            source = (m // per_group) * inner + channel
            parts.append(mul(full[(slice(None), source, *window)], w[(m, channel, *tap)], offset))
        return np.stack(parts, axis=1)

    taps = itertools.product(range(inner), np.ndindex(*w.shape[2:]))
    return chunked(term(channel, tap) for channel, tap in taps)


def uniform(step, key, shape):
    count = int(np.prod(shape, dtype=np.int64))
    rotations = (13, 15, 26, 6), (17, 29, 16, 24)
    word = 0xFFFFFFFF
    keys = [key[0] & word, key[1] & word]
    keys.append(0x1BD11BDA ^ keys[0] ^ keys[1])
    result = []
    for element in range(count):
        x, y = (int(step) + keys[0]) & word, (element + keys[1]) & word
        for block in range(5):
            for r in rotations[block % 2]:
                x = (x + y) & word
                y = (((y << r) | (y >> (32 - r))) & word) ^ x
            x = (x + keys[(block + 1) % 3]) & word
            y = (y + keys[(block + 2) % 3] + block + 1) & word
        result.append(BIAS | x >> 9)
    return floats(np.array(result, np.int64).reshape(shape)) - np.float32(1)


def total(x, axes, keepdims):
    """The sum over neighbouring axes: sixteen lanes in chunks of 4096, a halving tree, chunks in order."""
    axes = [a % x.ndim for a in axes]
    first, last = min(axes), max(axes)
    outer = int(np.prod(x.shape[:first], dtype=np.int64))
    rows = np.moveaxis(x.reshape(outer, -1, *x.shape[last + 1 :]), 1, 0)
    result = np.zeros(rows.shape[1:], np.float32)
    for start in range(0, len(rows), 4096):
        lanes = np.zeros((16, *rows.shape[1:]), np.float32)
        for i, row in enumerate(rows[start : start + 4096]):
            lanes[i % 16] += row
        for half in (8, 4, 2, 1):
            lanes = lanes[:half] + lanes[half:]
        result = result + lanes[0]
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    kept = shape if keepdims else [n for i, n in enumerate(x.shape) if i not in axes]
    return result.reshape(kept)


SUMS = {"sum": total, "matmul": matmul, "matmul_grad_a": matmul_grad_a, "matmul_grad_b": matmul_grad_b, "conv": conv}
ELEMENTWISE = {
    f.__name__: f
    for f in (
        mul, div, exp2, log2, scale_pow2, round_mantissa, mul_grad, div_grad_a, div_grad_b,
        exp2_grad, log2_grad, uniform,
    )
}  # fmt: skip
PARAMETERS = (
    "offset mantissa exponent key shape strides pads dilations input_dilations group axes keepdims"
    .split()
)

# --- the operands ------------------------------------------------------------------------------

EDGES = [
    0, 1, 2, MANT, MIN - 1, MIN, MIN + 1, MIN + 0x400000, 0x01000000, 0x017FFFFF, BIAS - 1, BIAS,
    BIAS + 1, BIAS + 0x400000, 0x3FFFFFFF, 0x40000000, 0x40490FDB, 0x3FB8AA3B, 0x3F317218,
    0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, INF, INF + 1, NAN, 0x7FFFFFFF,
    0x42FC0000, 0x42FBFFFF, 0x42FC0001, 0x42FE0000, 0x43000000, 0x42FFFFFF, 0x43150000,
    0x33800000, 0x34000000, 0x34000001, 0x33FFFFFF,
]  # fmt: skip


def edge_values(count: int, random: np.random.Generator) -> np.ndarray:
    """Corners of both signs, then powers of two, then random patterns and random magnitudes near 1."""
    both = [p | s for p in EDGES for s in (0, SIGN)]
    powers = [e << 23 for e in (1, 2, 63, 64, 65, 126, 128, 150, 190, 191, 192, 253)]
    rest = max(count - len(both) - len(powers), 0)
    wild = random.integers(0, 2**32, rest - rest // 2)
    mild = random.integers(BIAS - (40 << 23), BIAS + (40 << 23), rest // 2) | (
        random.integers(0, 2, rest // 2) << 31
    )
    pool = np.concatenate([both, powers, wild, mild]).astype(np.int64)
    return floats(pool[:count])


def many_values(count: int, random: np.random.Generator) -> np.ndarray:
    """Every upper half of the bit pattern with random lower halves, and the edges."""
    halves = np.arange(count, dtype=np.int64) % 65536 << 16
    low = np.where(np.arange(count) < 65536, 0, random.integers(0, 65536, count))
    values = halves | low
    # Numbers of the size that exponentials and scalings treat with care.
    values[-65536:] = (random.integers(0x30000000, 0x43200000, 65536)) | (
        random.integers(0, 2, 65536) << 31
    )
    edges = [p | s for p in EDGES for s in (0, SIGN)]
    values[65536 : 65536 + len(edges)] = edges
    return floats(values)


def operands(model: onnx.ModelProto, style: str, random: np.random.Generator) -> dict:
    """Inputs of a model: edge values, or numbers of ordinary, tiny or wild size for sums."""
    feeds = {}
    for value in model.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        count = int(np.prod(shape, dtype=np.int64))
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            steps = {"edges": 0, "ordinary": 7, "small": 2**32 - 1, "wild": 2**40 + 5}
            feeds[value.name] = np.array(steps[style], np.int64)
            continue
        if style == "edges":
            if count >= 1 << 18:
                x = many_values(count, random)
            else:
                pool = edge_values(208, random)
                x = pool[:count] if count in (64, 96, 208) else random.choice(pool, count)
        else:
            scale = {"ordinary": 1.0, "small": 1e-19, "wild": 1e18}[style]
            x = (random.standard_normal(count) * scale).astype(np.float32)
            x[random.random(count) < 0.1] = 0
        feeds[value.name] = x.astype(np.float32).reshape(shape)
    return feeds


# --- the comparison ----------------------------------------------------------------------------


def expected(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    """The definition's value."""
    attributes = {
        a.name: onnx.helper.get_attribute_value(a)
        for a in node.attribute
        if a.name in PARAMETERS and not (a.name == "shape" and node.op_type != "uniform")
    }
    define = SUMS.get(node.op_type) or ELEMENTWISE[node.op_type]
    if node.op_type in ("scale_pow2", "round_mantissa", "uniform"):
        return define(*inputs, **attributes)
    allowed = {k: v for k, v in attributes.items() if v != []}
    return define(*inputs, **allowed)


def mismatches(found: np.ndarray, wanted: np.ndarray, same_nan: bool) -> np.ndarray:
    """Where the bits differ."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return np.ones(1, bool)
    differ = bits(found) != bits(wanted)
    return differ if same_nan else differ & ~(np.isnan(found) & np.isnan(wanted))


def check(path: Path, engines: list[str]) -> tuple[int, list[str]]:
    """The number of values compared, and what differs."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    node = next(n for n in model.graph.node if n.domain == "pam")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    reference = ReferenceEvaluator(model) if "reference" in engines else None
    faults, compared = [], 0
    for style in ("edges", "ordinary", "small", "wild"):
        if style != "edges" and node.op_type not in {*SUMS, "uniform"}:
            continue
        random = np.random.default_rng(sum(map(ord, path.stem + style)))
        feeds = operands(model, style, random)
        with np.errstate(all="ignore"):
            wanted = expected(node, [feeds[i] for i in node.input])
            results = {}
            if "ort" in engines:
                results["onnxruntime"] = session.run(None, feeds)[0]
            if reference is not None:
                results["onnx.reference"] = reference.run(None, feeds)[0]
        # Rounding keeps a NaN as it is.
        same_nan = node.op_type in ELEMENTWISE
        for engine, found in results.items():
            compared += wanted.size
            bad = mismatches(np.asarray(found), wanted, same_nan)
            if bad.any():
                where = tuple(np.argwhere(bad)[0]) if bad.shape == wanted.shape else ()
                detail = f"{np.shape(found)} for {wanted.shape}"
                if bad.shape == wanted.shape:
                    given = [
                        f"{int(bits(np.broadcast_to(feeds[i], wanted.shape)[where])):08x}"
                        for i in node.input
                        if same_nan and feeds[i].dtype == np.float32
                    ]
                    detail = (
                        f"{int(bits(np.asarray(found)[where])):08x}, not "
                        f"{int(bits(wanted[where])):08x} at {where} of {given}"
                    )
                faults.append(f"{engine} {style}: {int(bad.sum())} of {wanted.size}: {detail}")
    return compared, faults


def main() -> int:
    """Checks every model of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=["ort", "reference", "both"], default="both")
    options = parser.parse_args()
    engines = ["ort", "reference"] if options.engine == "both" else [options.engine]
    paths = sorted(options.folder.glob("*.onnx"))
    total = failed = 0
    for path in paths:
        try:
            compared, faults = check(path, engines)
        except Exception as reason:  # whatever a tool raises is this model's failure
            compared, faults = 0, [f"{type(reason).__name__}: {str(reason)[:300]}"]
        total += compared
        failed += bool(faults)
        for fault in faults:
            print(f"FAIL {path.stem}: {fault}", flush=True)
    print(f"{len(paths) - failed} of {len(paths)} models agree, {total} values compared")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
