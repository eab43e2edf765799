"""Clocks: ratios round by round, in turn, of samples that are long enough."""

import pytest

from bap_jax.timing import Sample, calls_for, in_turn, median, ratio


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    these, those = ([Sample(seconds, 2 * seconds) for seconds in row] for row in ([1.0, 4.0, 30.0], [1.0, 2.0, 60.0]))
    assert ratio(these, those) == ratio(these, those, "processor") == (1.0, 0.5, 2.0)
    assert (median(these), median(those, "processor")) == (4.0, 4.0)


def test_each_round_begins_with_another():
    order = []

    def timed(name):
        return lambda: order.append(name) or Sample(1.0, 1.0)

    samples = in_turn({name: timed(name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert [len(taken) for taken in samples.values()] == [4, 4, 4]


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1000), (0.03, 7), (0.2, 1), (9.0, 1)])
def test_a_sample_is_long_enough(seconds, calls):
    assert calls_for(seconds, at_least=0.2) == calls
