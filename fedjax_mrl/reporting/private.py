"""What a report says of methods with differential privacy."""

from fedjax_mrl.reporting.content import Note
from fedjax_mrl.reporting.grouping import Setting
from fedjax_mrl.runs import private_runs


def notes(setting: Setting) -> list[Note]:
    """A paragraph on each private method; none where there is no such method."""
    found, unknown = [], []
    for method in (method for method in setting.methods if method.private):
        known = [run.privacy for run in method.runs if run.privacy is not None]
        name = ", ".join([method.algorithm, *method.options])
        found += [(name, spent) for spent in known]
        if len(known) < len(method.runs):
            unknown.append(
                f"{method.name}: {len(method.runs) - len(known)} of its runs are not "
                "finished, and their epsilon is not in this report."
            )
    return [Note(text) for text in [*private_runs.sentences(found), *unknown]]
