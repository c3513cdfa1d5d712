"""The installed package: its data files, and the types that it hands on."""

import configparser
import fnmatch

from tests.helpers import ROOT


def test_every_file_beside_the_modules_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["fedjax_mrl"].split()
    package = ROOT / "fedjax_mrl"
    data = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert "py.typed" in data and any(name.startswith("presets/") for name in data)
    for name in data:
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns), name
