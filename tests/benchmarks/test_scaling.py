"""The tables of the scaling benchmark, and that a stage in two processes gives figures."""

import pytest

from benchmarks.scaling import Config, exponents, measured, table


def figures(weights, seconds, mb, processes=1):
    return {"size": 4, "weights": weights, "stage": "ppo", "processes": processes, "threads": 2,
            "seconds": seconds, "tokens_per_second": 100 / seconds, "mb": mb, "all_reduce": 0.5}


def test_powers_are_fitted_to_the_logarithms():
    # ten times the weights: 100 times the seconds, ten times the memory
    rows = exponents([figures(10**6, 0.1, 16), figures(10**7, 10, 160)]).splitlines()
    assert rows[2] == "| ppo | 1 | 2.00 | 1.00 |"


def test_a_row_of_the_table():
    # 16 MB for a million weights are 16 bytes each; twice as fast as one process
    rows = table([figures(10**6, 1.0, 16), figures(10**6, 0.5, 16, processes=2)]).splitlines()
    assert rows[3] == "| 1.0 | ppo | 2 x 2 | 200 | 2.00 | 16 | 16.0 | 500 |"


@pytest.mark.parametrize("stage", ["reward", "ppo"])
def test_two_processes_measure_a_stage(monkeypatch, stage):
    found = measured(Config(steps=1, threads=1, precision="fp32"), 4, 2, stage)
    assert found["weights"] == 4_060_416 and found["processes"] == 2
    # 16384 * 192 + 128 * 192 + 2 * (12 * 192^2 + 13 * 192) + 2 * 192
    assert all(found[name] > 0 for name in ("seconds", "tokens_per_second", "mb", "all_reduce"))
