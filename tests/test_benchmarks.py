"""The benchmarks run, at a small size, so that they cannot rot; what they measure is printed, not asserted."""

from benchmarks import scalar


def test_scalar_agrees_with_the_convex_program():
    header, _, row = scalar.table([30], count=1).splitlines()
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert int(cells[" m "]) == 30
    assert float(cells[" proved gap "]) <= 1e-6
    assert float(cells[" error "]) <= 1e-6
    assert float(cells[" its error "]) <= 1e-6
