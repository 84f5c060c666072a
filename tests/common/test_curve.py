"""Curves in plain characters."""
from spanbert_jax.common.curve import draw_curve


def test_a_falling_line_falls_from_the_left_to_the_right():
    assert draw_curve([(10 * step, 10.0 - step) for step in range(1, 9)], "step") == [
        "9.00 |*",
        "     | *",
        "     |  *",
        "     |   *",
        "     |    *",
        "     |     *",
        "     |      *",
        "2.00 |       *",
        "     +--------",
        "      step 10 80"]


def test_many_points_are_averaged_and_values_that_are_not_finite_are_left_out():
    points = [(step, float(step % 2)) for step in range(1, 1201)] + [(1201, float("nan"))]
    lines = draw_curve(points, "step")
    assert lines[0] == "0.50 |" + 60 * "*" and lines[-2] == "     +" + 60 * "-"  # 20 points a column, of mean 0.5
    assert lines[-1] == "      step 1" + "1,200".rjust(54)
    assert draw_curve([(1, 2.0)], "step")[0] == "2.00 |*"
