"""Shows from PTX and SASS that a kernel contains no multiplication.

Forbidden outright: every floating-point multiply, fused multiply-add, special-function and
tensor-core instruction, and in PTX every mul, mad, fma, div, rem and approximate function. Integer
IMADs, which ptxas emits for moves, additions and shifts, are decoded one by one: a multiplicand has
to be RZ, 1 or a power of two, or a register that was just loaded with one. An HFMA2 whose factors are
RZ and whose terms are numbers is how ptxas loads a constant where the pipe of moves is busy.
"""

import dataclasses
import re

FORBIDDEN_SASS = re.compile(
    r"^(FMUL|FFMA|FSWZ|MUFU|HMUL|HFMA|DMUL|DFMA|BMMA|HMMA|IMMA|DMMA|HGMMA|IGMMA|QGMMA|BGMMA|UTC\w*MMA"
    r"|OMMA|QMMA|IMUL|IDP|XMAD|UIMUL|FCHK)"
)
FORBIDDEN_PTX = re.compile(
    r"\b(mul|mul24|mad|mad24|madc|fma|div|rem|sqrt|rsqrt|rcp|ex2|lg2|sin|cos|tanh|dp4a|dp2a|mma|wmma"
    r"|wgmma)\."
)
LINE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;")
LABEL = re.compile(r"^(\.L\w*|\$\w[\w$]*):")
SECTION = re.compile(r"^\.section\s+\.text\.(\w+)|^\.text\.(\w+):")


@dataclasses.dataclass
class Instruction:
    address: int
    guard: str
    opcode: str
    operands: str

    @property
    def name(self):
        return self.opcode.split(".")[0]


@dataclasses.dataclass
class Kernel:
    name: str
    code: list
    labels: dict

    def census(self):
        counts = {}
        for i in self.code:
            counts[i.name] = counts.get(i.name, 0) + 1
        return counts

    def loops(self):
        """Innermost loops as lists of instructions: a backward branch closes one."""
        spans = []
        for i in self.code:
            if i.name != "BRA":
                continue
            target = re.search(r"`\((\.L\w+)\)", i.operands)
            at = self.labels.get(target.group(1)) if target else None
            if at is not None and at < i.address:
                spans.append((at, i.address))
        inner = [s for s in spans
                 if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
        return [[i for i in self.code if a <= i.address <= b] for a, b in sorted(set(inner))]


def parse(sass):
    """Splits a disassembly into kernels."""
    kernels, current, pending = [], None, []
    for line in sass.splitlines():
        if m := SECTION.match(line):
            name = m.group(1) or m.group(2)
            if current is None or current.name != name:
                current = Kernel(name, [], {})
                kernels.append(current)
        elif current is None:
            continue
        elif m := LABEL.match(line):
            pending.append(m.group(1))
        elif m := LINE.match(line):
            address = int(m.group(1), 16)
            for label in pending:
                current.labels[label] = address
            pending = []
            current.code.append(Instruction(address, m.group(2) or "", m.group(3), m.group(4)))
    return kernels


def power_of_two(text):
    """Whether an operand is RZ, or an immediate that is 0, 1 or a power of two (or its negation)."""
    text = text.strip().removesuffix(".reuse")
    if text in ("RZ", "URZ"):
        return True
    if not re.fullmatch(r"-?0x[0-9a-f]+", text):
        return False
    value = int(text, 16)
    value = abs(value - (1 << 32) if value >= 1 << 31 else value)
    return value & (value - 1) == 0


def register(text):
    """(file, number) of a register operand, or None."""
    m = re.fullmatch(r"(U?R)(\d+)(\.reuse)?", text.strip())
    return (m.group(1), int(m.group(2))) if m else None


def constant(kernel, at, text):
    """Whether the register operand of instruction number `at` holds RZ or a power of two, set by a
    move of an immediate in the same basic block."""
    wanted = register(text)
    if wanted is None:
        return False
    borders = set(kernel.labels.values())
    for n in range(at - 1, -1, -1):
        if kernel.code[n + 1].address in borders:
            return False
        i = kernel.code[n]
        fields = i.operands.split(",")
        target = register(fields[0])
        if target is None or target[0] != wanted[0]:
            continue
        # Wide results fill the registers that follow as well.
        width = 4 if ".128" in i.opcode else 2 if ".64" in i.opcode or ".WIDE" in i.opcode else 1
        if target[1] <= wanted[1] < target[1] + width:
            return not i.guard and i.name in ("MOV", "UMOV") and power_of_two(fields[1])
    return False


def integer_multiply(kernel, at):
    """The reason why an integer multiply-add is a real multiplication, or None."""
    i = kernel.code[at]
    if i.name not in ("IMAD", "UIMAD"):
        return None
    fields = [f.strip() for f in i.operands.split(",")]
    # Destination and carry-out predicates come before the two factors.
    rest = [f for f in fields[1:] if not re.fullmatch(r"!?U?P\w+", f)]
    if len(rest) < 2:
        return f"cannot decode {i.opcode} {i.operands}"
    if any(power_of_two(f) or constant(kernel, at, f) for f in rest[:2]):
        return None
    return f"{i.opcode} {i.operands}"


def loads_constant(instruction):
    """Whether a half-precision multiply-add multiplies zero by zero and adds the halves of a constant."""
    number = r"-?[\d.]+(?:e[+-]?\d+)?|[+-]?(?:INF|[QS]NAN)"
    return instruction.name == "HFMA2" and re.fullmatch(
        rf"R\d+, -?RZ, RZ, (?:{number}), (?:{number})", instruction.operands)


def audit_sass(kernel):
    """Every multiplication of one kernel, as text."""
    found = []
    for at, i in enumerate(kernel.code):
        if FORBIDDEN_SASS.match(i.name) and not loads_constant(i):
            found.append(f"{i.address:04x} {i.opcode} {i.operands}")
        elif reason := integer_multiply(kernel, at):
            found.append(f"{i.address:04x} {reason}")
    return found


def audit_ptx(ptx):
    """Every forbidden PTX instruction, as text."""
    found = []
    for line in ptx.splitlines():
        text = line.split("//")[0].strip()
        if FORBIDDEN_PTX.search(text) and not text.startswith("."):
            found.append(text)
    return found


def ratios(kernel, adds=64):
    """(instructions, multiply-accumulates, ratio, histogram) of each innermost loop that holds at
    least `adds` float additions; every product ends in exactly one."""
    out = []
    for loop in kernel.loops():
        macs = sum(i.name == "FADD" for i in loop)
        if macs >= adds:
            histogram = {}
            for i in loop:
                histogram[i.name] = histogram.get(i.name, 0) + 1
            out.append((len(loop), macs, len(loop) / macs, histogram))
    return out
