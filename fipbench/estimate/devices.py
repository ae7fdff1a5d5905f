"""Devices by name: peak rate and memory from the vendor's data sheet, and how much of the rate is expected."""

from __future__ import annotations

import msgspec

from fipbench.errors import unknown

# Assumed, not measured: the share of a data sheet's peak that training reaches, and the seconds that a GPU takes for
# each call of a layer however small it is (forward, backward and the optimiser's part of it).
UTILISATION = 0.30
LAYER_S = 1e-4
# Assumed of a CPU where nothing was timed: FLOP/s of a thread, and seconds that a training step takes besides.
CPU_RATE = 20e9
CPU_STEP_S = 5e-4


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of processor: `rate` in FLOP/s of dense matrix products, `memory_bytes`; zeros where it is this machine's.

    The rate is that of single precision as torch computes it unless told otherwise: no sparsity, no TF32, no bfloat16.
    """

    name: str
    rate: float = 0.0
    memory_bytes: int = 0


_GB = 10**9

DEVICES = {
    device.name: device
    for device in (
        Device(name="cpu"),
        # NVIDIA A100 data sheet: FP32 19.5 TFLOPS, 80 GB.
        Device(name="a100-80", rate=19.5e12, memory_bytes=80 * _GB),
        # NVIDIA H100 data sheet (SXM): FP32 67 TFLOPS, 80 GB.
        Device(name="h100-80", rate=67e12, memory_bytes=80 * _GB),
        # NVIDIA H200 data sheet (SXM): FP32 67 TFLOPS, 141 GB.
        Device(name="h200-141", rate=67e12, memory_bytes=141 * _GB),
        # NVIDIA Ada GPU architecture white paper, GeForce RTX 4090: FP32 82.6 TFLOPS, 24 GB.
        Device(name="rtx4090", rate=82.6e12, memory_bytes=24 * _GB),
    )
}


def device_named(name: str) -> Device:
    """The device of that name.

    Raises:
        UserError: none of that name.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]


def memory_of(device: Device) -> int:
    """Bytes that a job can have there: the device's own, or for the CPU all that this machine has."""
    if device.memory_bytes:
        return device.memory_bytes
    import psutil

    return int(psutil.virtual_memory().total)
