"""In which numbers a run is computed: float32, or bfloat16 where that is faster."""

from __future__ import annotations

import torch

from bench.errors import BenchError

#: What a CPU needs to multiply bfloat16; one without is slower by far than in float32.
_CPU_HAS = ("avx512_bf16", "amx_bf16")


class OtherPrecisionError(BenchError):
    """A checkpoint was trained in other numbers than this machine would go on in."""


def wants_bfloat16(mode: str, device: str) -> bool:
    """Tell whether a cell of that mode trains in bfloat16 (by autocast) on that device."""
    if mode != "fast":
        return False
    return device.startswith("cuda") or any(torch.cpu.get_capabilities().get(name) for name in _CPU_HAS)


def keep_float32(benchmark: bool = True) -> None:
    """Let CUDA take float32 for float32, whose default is TF32 in convolutions, and try its algorithms."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = benchmark
