"""Half precision is for processors that are built for it."""

import pytest
import torch

from selfinv.learning.precision import autocast, half_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512", "half"),
    [(True, True, True), (False, True, True), (False, False, False)],
    ids=["matrix units", "AVX-512 BF16", "neither"],
)
def test_a_processor_with_instructions_for_it_takes_it(monkeypatch, amx, avx512, half):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert half_precision(CPU) is half
    x = torch.rand(8, 8)
    with autocast(CPU, "auto"):
        assert (x @ x).dtype == (torch.bfloat16 if half else torch.float32)
    with autocast(CPU, "single"):
        assert (x @ x).dtype == torch.float32


def test_a_torch_that_cannot_tell_is_taken_at_its_word(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert half_precision(CPU) is False
