"""The precision of a run: float32, or bfloat16 where that is faster."""

from __future__ import annotations

import torch

from bench.errors import BenchError

#: CPU features for bfloat16; without one it is far slower than float32.
_CPU_HAS = ("avx512_bf16", "amx_bf16")


class OtherPrecisionError(BenchError):
    """A checkpoint has another precision than this machine would continue in."""


def wants_bfloat16(mode: str, device: str) -> bool:
    """Whether a cell of that mode trains in bfloat16 (by autocast) on that device."""
    if mode != "fast":
        return False
    return device.startswith("cuda") or any(torch.cpu.get_capabilities().get(name) for name in _CPU_HAS)


def keep_float32() -> None:
    """Turn off TF32, CUDA's default in convolutions, and let cuDNN try its algorithms."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
