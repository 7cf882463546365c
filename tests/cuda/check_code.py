"""Compiles every kernel for sm_80 and sm_90a and audits PTX and machine code; needs no GPU.

``check_code.py [OUT-FOLDER [FOLDER-OF-GENERATED-SOURCES]]``
"""

import concurrent.futures
import pathlib
import sys
import tempfile

import audit
import build

ARCHS = ("80", "90a")
passed = failed = 0


def check(ok, text):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED", text)


def forms(kernel):
    """Names the unrolled loops of a contraction by what they do per float addition; of several
    copies of a form the main one, with the most additions, counts."""
    best = {}
    for length, adds, ratio, has in audit.ratios(kernel):
        every = {name for name, n in has.items() if n >= adds}
        if "BSSY" in has or "LDL" in has or "STL" in has:
            form = "special"
        elif "VIADDMNMX" in every or "IMNMX" in every:
            form = "full"
        elif "FSETP" in every or "ISETP" in every:
            form = "compare"
        elif has.get("LOP3", 0) * 16 >= adds and "LOP3" not in every or "ISETP" in has and has["ISETP"] > 4:
            form = "masked"
        else:
            form = "raw"
        if form not in best or adds > best[form][0]:
            best[form] = (adds, ratio)
    return {form: ratio for form, (_, ratio) in best.items()}


LIMITS = {
    "pam_contract": {"raw": 2.2, "compare": 3.4},
    "pam_conv": {"raw": 2.2, "compare": 3.4},
    "pam_contract_grad": {"raw": 3.5},
}


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    work = [(s, arch) for s in sorted(build.SOURCES.glob("*.cu")) for arch in ARCHS]
    # What plans have generated, if the tests that do have run.
    if len(sys.argv) > 2:
        work += [(s, "90a") for s in sorted(pathlib.Path(sys.argv[2]).glob("*.cu"))]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda w: build.build(w[0], w[1], out), work))
    for (source, arch), (ptx, sass, _) in zip(work, built):
        where = f"{source.name} for sm_{arch}"
        found = audit.audit_ptx(ptx)
        check(not found, f"{where}: PTX multiplies: {found[:5]}")
        kernels = audit.parse(sass)
        check(kernels, f"{where}: no kernel in the disassembly")
        for kernel in kernels:
            found = audit.audit_sass(kernel)
            check(not found, f"{where}, {kernel.name}: multiplies: {found[:5]}")
            census = kernel.census()
            line = f"{kernel.name} sm_{arch}: {len(kernel.code)} instructions, "
            line += f"{census.get('IMAD', 0) + census.get('UIMAD', 0)} IMAD all by RZ, 1 or 2^n"
            limits = LIMITS.get(kernel.name, {})
            if limits:
                ratios = forms(kernel)
                line += "; per MAC " + ", ".join(f"{f} {r:.2f}" for f, r in sorted(ratios.items()))
                for form, limit in limits.items():
                    check(form in ratios and ratios[form] <= limit,
                          f"{where}, {kernel.name}: {form} takes {ratios.get(form)} > {limit}")
            print(line)
    # The audit has to find multiplications where there are some.
    ptx, sass, _ = build.build(build.SOURCES / "bench" / "paper.cu", "90a", out)
    check(audit.audit_ptx(ptx), "planted multiplications in PTX were not found")
    found = [f for k in audit.parse(sass) for f in audit.audit_sass(k)]
    check(any("FMUL" in f for f in found), "a planted FMUL was not found")
    check(any("IMAD" in f for f in found), "a planted integer multiply was not found")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
