"""The examples run, each by its own command line, on fewer rounds."""

import pytest

from experiments.examples import new_method, stop_at_target, tokens


@pytest.mark.slow
def test_networks_of_two_kinds_learn_from_tokens(capsys):
    tokens.main(["--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["fedmrl", "fml"]
    assert all("Transformer" in line and "Bag" in line for line in lines)


@pytest.mark.slow
def test_a_method_of_ones_own_is_compared(tmp_path, capsys):
    picture = tmp_path / "new" / "curves.png"
    new_method.main(["--rounds", "2", "--out", str(picture)])
    printed = capsys.readouterr().out
    assert "| in_turn | own |" in printed and "| standalone | local |" in printed
    assert picture.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("target", ["0.2", "1.1"])
def test_a_loop_stops_at_its_target_or_its_end(target, tmp_path, capsys):
    stop_at_target.main(
        ["--target", target, "--rounds", "2", "--out", str(tmp_path / "out")]
    )
    printed = capsys.readouterr().out
    words = "0.2 reached after 1 rounds" if target == "0.2" else "not reached after 2"
    assert words in printed
    assert "same answer: True" in printed
    assert (tmp_path / "out" / "curve.png").stat().st_size > 1000
