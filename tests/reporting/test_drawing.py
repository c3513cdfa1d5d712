"""Methods are told apart in figures, however many there are."""

from fedjax_mrl.reporting import drawing


def test_forty_methods_have_lines_of_their_own_without_markers():
    lines = {(drawing.colour(place), drawing.dashes(place)) for place in range(40)}
    assert len(lines) == 40
    assert {drawing.dashes(place) for place in range(10)} == {"-"}
