"""Compiles kernels/cuda with NVRTC and ptxas and disassembles the result; needs no GPU."""

import ctypes
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "kernels" / "cuda"
OPTIONS = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]


def toolkit():
    """The folder of the pip packages nvidia-cuda-*; NVRTC, ptxas and nvdisasm lie below it."""
    for folder in map(pathlib.Path, sys.path):
        for found in sorted((folder / "nvidia").glob("cu[0-9]*")):
            if (found / "bin" / "ptxas").exists():
                return found
    raise SystemExit("no nvidia-cuda-nvcc package is installed for this Python")


class Nvrtc:
    """The handful of NVRTC calls that turn CUDA C++ into PTX."""

    def __init__(self, folder):
        # NVRTC opens its builtins by name alone, so they have to be loaded already.
        for builtins in sorted((folder / "lib").glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(sorted((folder / "lib").glob("libnvrtc.so*"))[0]))

    def _check(self, code, what):
        if code:
            raise RuntimeError(f"{what}: NVRTC error {code}")

    def ptx(self, name, arch, defines=()):
        text = name.read_bytes()
        heads = sorted(SOURCES.glob("*.cuh"))
        bodies = (ctypes.c_char_p * len(heads))(*[h.read_bytes() for h in heads])
        names = (ctypes.c_char_p * len(heads))(*[h.name.encode() for h in heads])
        program = ctypes.c_void_p()
        self._check(
            self.lib.nvrtcCreateProgram(
                ctypes.byref(program), text, name.name.encode(), len(heads), bodies, names
            ),
            "create",
        )
        options = [f"--gpu-architecture=compute_{arch}", *OPTIONS, *defines]
        array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        code = self.lib.nvrtcCompileProgram(program, len(options), array)
        size = ctypes.c_size_t()
        if code:
            self.lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self.lib.nvrtcGetProgramLog(program, log)
            raise RuntimeError(log.value.decode())
        self._check(self.lib.nvrtcGetPTXSize(program, ctypes.byref(size)), "size")
        out = ctypes.create_string_buffer(size.value)
        self._check(self.lib.nvrtcGetPTX(program, out), "ptx")
        self.lib.nvrtcDestroyProgram(ctypes.byref(program))
        return out.value.decode()


def build(name, arch, folder, defines=()):
    """Compiles one source; returns (PTX text, SASS text, resource report)."""
    tools = toolkit()
    stem = folder / f"{name.stem}.sm_{arch}"
    ptx = Nvrtc(tools).ptx(name, arch, defines)
    stem.with_suffix(stem.suffix + ".ptx").write_text(ptx)
    cubin = stem.with_suffix(stem.suffix + ".cubin")
    report = subprocess.run(
        [tools / "bin" / "ptxas", "-v", "--fmad=false", f"-arch=sm_{arch}", "-o", cubin,
         stem.with_suffix(stem.suffix + ".ptx")],
        check=True, capture_output=True, text=True,
    ).stderr
    sass = subprocess.run(
        [tools / "bin" / "nvdisasm", "-c", cubin], check=True, capture_output=True, text=True
    ).stdout
    stem.with_suffix(stem.suffix + ".sass").write_text(sass)
    return ptx, sass, report


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "/tmp/pam-cuda")
    out.mkdir(parents=True, exist_ok=True)
    for arch in ("80", "90a"):
        print(build(pathlib.Path(sys.argv[1]), arch, out)[2])
