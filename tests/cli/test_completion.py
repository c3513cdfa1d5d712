"""The script that completes command lines, as a shell runs it."""

import shutil
import subprocess
import sys

import pytest

from fedjax_mrl.cli import completion, main


@pytest.fixture(scope="module")
def script():
    return completion.script(main.parser(), "bash")


def complete(script, *words):
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"""{script}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMPREPLY=()
$(complete -p fedjax-mrl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("fedjax-mrl", "resu"), {"resume"}),
        (("fedjax-mrl", "run", "--learning-rate-"), {"--learning-rate-decay"}),
        (("fedjax-mrl", "run", "--algorithm", "fedmrl_f"), {"fedmrl_frozen_projector"}),
        (("fedjax-mrl", "compare", "--preset", "de"), {"demo"}),
        (("fedjax-mrl", "reproduce", "homogeneous-cifar100"), {"homogeneous-cifar100"}),
    ],
)
def test_bash_completes(script, words, offered):
    assert complete(script, *words) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_prints_a_script_and_still_reads_words(shell, capsys):
    assert main.main(["--print-completion", shell]) == 0
    assert "fedjax-mrl" in capsys.readouterr().out
    assert main.parse(["run", "--algorithm", "mine.py:own"]).algorithm == "mine.py:own"


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main.main(["--print-completion", "bash"]) == 2
    assert "python -m pip install shtab\n" in capsys.readouterr().err
    assert main.main(["--print-completion", "fish"]) == 2
    assert "Valid: bash, zsh, tcsh" in capsys.readouterr().err
