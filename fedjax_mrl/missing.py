"""Words the answer where a package is missing that not everybody needs."""


def sentence(subject: str, package: str, install: str | None = None) -> str:
    """Says what is missing, and the command that installs it.

    Args:
        subject: what needs the package, as the beginning of a sentence.
        package: its name.
        install: what pip is given, where the name of the package is not enough; of an
            extra of this project as `.[NAME]`.

    Example:
        >>> sentence("A frame", "pandas")
        'A frame needs pandas, which is not installed. Install it with: python -m pip \
install pandas'
    """
    wanted = package if install is None else f'"{install}"'
    where = " (in the folder of this project)" if wanted.startswith('".[') else ""
    return (
        f"{subject} needs {package}, which is not installed. Install it with: python "
        f"-m pip install {wanted}{where}"
    )
