"""What `plan` says of a run, against the run and against sums done by hand."""

import os
import re
import subprocess
import sys
import types
from decimal import Decimal

import numpy as np
import pytest

from fedjax_mrl import discovery, stores, tree
from fedjax_mrl.cli.main import main
from fedjax_mrl.federation import Federation
from fedjax_mrl.models import mlp
from fedjax_mrl.planning import host_memory, timing
from fedjax_mrl.planning import memory as footprint
from fedjax_mrl.planning import plan as planning
from fedjax_mrl.planning.planner import Planner
from fedjax_mrl.simulation.group_program import GroupProgram
from tests.helpers import ROOT, flags

# Two perceptrons of 8 and 4 hidden units on the digits, 3,072 pixels.
SIZES = {"eight": 8, "four": 4}
OPTIONS = {
    "models": tuple(SIZES),
    "shared_model": "four",
    "feature_dim": 8,
    "shared_dim": 4,
    "num_clients": 5,
    "participation": 0.6,
    "batch_size": 32,
    "rounds": 2,
    "checkpoint_every": 1,
    "devices": 1,
}
FLAGS = flags(OPTIONS)


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    def of(name, hidden):
        def build(input_shape, num_classes, *, feature_dim, lowering):
            made = mlp.mlp(
                input_shape, num_classes, feature_dim=feature_dim, hidden=hidden
            )
            return made._replace(name=name)

        return build

    found = discovery.find("fedjax_mrl.models")
    found.update({name: of(name, hidden) for name, hidden in SIZES.items()})
    yield
    discovery.find.cache_clear()


@pytest.fixture(scope="module")
def federation():
    return Federation(**OPTIONS)


@pytest.fixture(scope="module")
def plan(federation):
    return planning.make(federation, limit=10**12, calibrate=False)


def parameters(hidden, width):
    return (3072 + 1) * hidden + (hidden + 1) * width + (width + 1) * 10


def test_parameters_are_those_of_the_networks(plan):
    assert [(g.name, g.clients) for g in plan.groups] == [("eight", 3), ("four", 2)]
    # The private state is the large network and the projection, 8 + 4 to 8.
    for group in plan.groups:
        projection = group.private - parameters(SIZES[group.name], 8)
        assert 0 < projection <= (8 + 4 + 1) * 8
        assert group.shared == parameters(4, 4)
        assert group.client_bytes == 4 * (group.private + group.shared)


@pytest.mark.slow
def test_traffic_and_arithmetic_are_those_of_a_round(federation, plan):
    _, played = federation.play(federation.init())
    played = played.fetch()
    assert plan.down == int(played.bytes_down) * played.cohort.size
    assert plan.up == int(played.bytes_up.sum())
    assert not plan.at_most
    assert plan.flops == pytest.approx(3 * federation.flops().mean())


def test_a_method_that_compresses_gets_a_limit():
    found = planning.make(
        Federation(**OPTIONS | {"algorithm": "fedkd", "shared_dim": None}),
        calibrate=False,
    )
    assert found.at_most and found.up > 0


def test_working_memory_is_the_compilers(federation, plan):
    # A program that trains holds at least gradients and momentum of both networks.
    for group in plan.groups:
        assert group.working_bytes > 4 * (group.private + group.shared)
    large = planning.make(
        Federation(**OPTIONS | {"batch_size": 512, "partition": "iid"}),
        limit=10**12,
        calibrate=False,
    )
    images = 4 * 3072 * (288 - 32)  # a client of an iid split has 280 to 288
    grown = large.memory.device["working memory"] - plan.memory.device["working memory"]
    assert images / 2 < grown < 12 * images


@pytest.mark.parametrize("store", ["device", "host", "disk"])
def test_states_lie_where_the_store_has_them(store, tmp_path):
    options = OPTIONS | {"client_store": store, "rounds": 100, "num_clients": 20}
    options["participation"] = 0.1
    built = Federation(**options, client_folder=tmp_path)
    memory = planning.make(built, limit=10**12, calibrate=False).memory
    made = Federation(**options | {"client_store": "device"}).init()
    states = tree.num_bytes(made.clients)
    assert memory.device["client states"] == (states if store == "device" else 0)
    # Two places for each of two groups of ten; twice eight clients are tested. On the
    # disk they are being written, and all but a tenth of the next ones read.
    kept = {"device": 0, "host": states, "disk": 1.9 * states / 5}
    assert memory.host["client states"] == pytest.approx(kept[store])
    large = max(tree.num_bytes(pair) for pair in made.clients.values())
    gathered = 0 if store == "device" else 2 * 0.8 * large
    # Stacks on the devices come there whole on their way into a checkpoint.
    stacks = [tree.num_bytes(s) for pair in made.clients.values() for s in pair]
    collected = max(stacks) if store == "device" else 0
    on_device = max(gathered, states / 5, collected)
    assert memory.device["cohort's states"] == pytest.approx(on_device)
    assert memory.host["cohort's states"] == pytest.approx(gathered)
    saved = tree.num_bytes(made.server) + (0 if store == "disk" else states)
    assert memory.host["checkpoint"] == pytest.approx(saved)
    assert memory.peak == sum(memory.host.values()) + sum(memory.device.values())


def test_only_large_blocks_make_room_for_others(federation, monkeypatch):
    monkeypatch.setattr(planning.host_memory, "resident", lambda: 2**28)

    def memory(threshold, built=federation):
        monkeypatch.setattr(footprint, "_GIVEN_BACK", threshold)
        return planning.make(built, limit=10**12, calibrate=False).memory

    large, small = memory(1), memory(2**60)
    # Without a checkpoint before the last round nothing is being written meanwhile.
    assert memory(1, federation.with_settings(checkpoint_every=2)).peak < large.peak
    # The largest moment is training, while the last checkpoint is still being written;
    # what a server's step needs has been let go, if its blocks are large.
    assert large.moment == "training"
    saved = tree.num_bytes(federation.arrays(federation.init()))
    assert large.host["checkpoint"] == small.host["checkpoint"] == saved
    server = tree.num_bytes(federation.init().server)
    assert large.device["server"] == 2 * server
    assert small.device["server"] == 3 * server
    assert large.device["working memory"] == small.device["working memory"]
    assert large.peak + server <= small.peak


def test_of_an_accelerator_a_moment_alone_counts_and_the_host_does_not(
    federation, monkeypatch
):
    planner = Planner(federation)
    programs = planner.compile_all(federation.round_config)
    device = types.SimpleNamespace(platform="gpu")
    mesh = types.SimpleNamespace(size=2, devices=np.array([device, device]))
    fields = ("dataset", "config", "train")
    other = types.SimpleNamespace(
        mesh=mesh, **{name: getattr(federation, name) for name in fields}
    )
    elsewhere = types.SimpleNamespace(federation=other, server=planner.server)

    def memory(threshold):
        monkeypatch.setattr(footprint, "_GIVEN_BACK", threshold)
        config = federation.round_config
        return footprint.at_peak(elsewhere, config, programs, 2**28)

    found = memory(1)
    assert found == memory(2**60) and not found.shares_host and found.num_devices == 2
    assert found.peak == sum(found.device.values()) < 2**28 < sum(found.host.values())


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_the_flag_that_helps(tmp_path, monkeypatch):
    # The process is of one size, whatever is compiled or freed meanwhile.
    monkeypatch.setattr(planning.host_memory, "resident", lambda: 2**28)
    options = OPTIONS | {"num_clients": 50, "rounds": 100, "client_store": "host"}
    options |= {"participation": 0.04}
    make = lambda limit=None, **changed: planning.make(
        Federation(**options | changed, client_folder=tmp_path),
        limit=limit,
        calibrate=False,
    )
    memory = make(10**12).memory
    limit = memory.peak - memory.host["client states"] // 2
    with pytest.raises(planning.DoesNotFit, match="Give --client-store disk") as raised:
        make(limit)
    assert f"must fit into {limit / 2**30:.2f} GiB" in str(raised.value)
    assert make(limit, client_store="disk").memory.peak <= limit
    with pytest.raises(planning.DoesNotFit, match="Use a machine with more memory"):
        make(2**20)


@pytest.mark.slow
def test_a_smaller_batch_is_advised_where_it_is_the_batch(monkeypatch):
    options = OPTIONS | {"batch_size": 256, "partition": "iid"}
    built = Federation(**options)
    monkeypatch.setattr(planning.host_memory, "resident", lambda: 2**28)
    memory = planning.make(built, limit=10**12, calibrate=False).memory
    limit = memory.peak - memory.device["working memory"] // 3
    with pytest.raises(planning.DoesNotFit, match="Give --batch-size") as raised:
        planning.make(built, limit=limit, calibrate=False)
    words = str(raised.value).split("Give ")[1].split()
    assert words[0] == "--batch-size"
    batch = int(words[1].rstrip(":"))
    fitting = Federation(**options | {"batch_size": batch})
    planning.make(fitting, limit=limit, calibrate=False)
    with pytest.raises(planning.DoesNotFit):
        larger = Federation(**options | {"batch_size": min(2 * batch, 255)})
        planning.make(larger, limit=limit, calibrate=False)


def test_calibration_times_every_group_and_nothing_else_does(federation, plan):
    assert plan.seconds is None
    found = planning.make(federation, limit=10**12)
    visits = {group.name: group.seconds for group in found.groups}
    assert all(0 < seconds < 60 for seconds in visits.values())
    mean = (3 * visits["eight"] + 2 * visits["four"]) / 5
    assert found.seconds == pytest.approx(3 * mean)


def test_steps_are_what_is_timed(federation, monkeypatch):
    """With a clock that counts local steps, a step lasts one tick."""
    asked = []
    train = GroupProgram.train

    def counted(program, pairs, inputs, members):
        asked.append(int(np.max(members.train.steps)))
        return train(program, pairs, inputs, members)

    monkeypatch.setattr(GroupProgram, "train", counted)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(sum(asked)))
    planner = Planner(federation)
    compiled = planner.compile(federation.groups[0], federation.round_config)
    given = federation, compiled.program, compiled.pair, planner.broadcast
    assert timing.measure(*given) == (0, 1, 1)
    assert set(asked) == {0, 2, 6}
    asked.clear()
    assert timing.measure(*given, bound=0.5) == (0, 1, 1)
    assert asked == [0, 2]  # too slow to be timed with care


def test_trials_that_fit_leave_half_of_the_memory(federation, plan, monkeypatch):
    states = sum(g.clients * g.client_bytes for g in plan.groups)
    for free, number in ((0, 1), (11 * states, 1), (12 * states, 2), (None, 1)):
        monkeypatch.setattr(planning, "available", lambda _, free=free: free)
        assert planning.trials_that_fit(federation) == number


# --- the command ----------------------------------------------------------------------


def test_the_command_prints_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *FLAGS, "--no-calibration"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and not list(tmp_path.iterdir())
    size = 4 * parameters(4, 4)
    assert f"bytes down    {3 * size:,} a round" in out
    assert "not calibrated" in out and "eight" in out and "working memory" in out
    assert main(["plan", *FLAGS, "--no-calibration", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("one", [True, False])
def test_the_table_of_memory_adds_up(capsys, monkeypatch, one):
    """Of CPUs, which share the host's memory, and as of accelerators."""
    make = planning.make

    def made(*args, **options):
        found = make(*args, **options)
        held = {"images": 10**8, "working memory": 0}
        memory = found.memory._replace(shares_host=one, num_devices=2)
        memory = memory if one else memory._replace(device=held)
        return found._replace(memory=memory)

    monkeypatch.setattr(planning, "make", made)
    assert main(["plan", *FLAGS, "--no-calibration"]) == 0
    out = capsys.readouterr().out
    table = out.split("memory at the peak")[1].split("participants")[0].splitlines()
    heading = "all 2 devices   in all" if one else "each of 2 devices"
    assert table[2].rstrip().endswith(heading)
    cells = [re.split(r"  +", row.strip()) for row in table[4:] if row.strip()]
    rows = {name: [0 if c == "-" else Decimal(c) for c in row] for name, *row in cells}
    sums = rows.pop("sum")
    assert len(rows) > 2 and [sum(c) for c in zip(*rows.values(), strict=True)] == sums
    if one:
        assert all(host + device == both for host, device, both in rows.values())
    else:
        assert "working memory" not in rows and sums[1] == 100
        (later,) = re.findall(r"^\(not at the peak: (.*)\)$", out, re.MULTILINE)
        assert later.endswith("working memory")
    (told,) = re.findall(r"^memory .* GiB \((\d+) MB\) of ", out, re.MULTILINE)
    assert abs(int(told) - sums[-1]) < 2


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--memory-gib", "0.01"], "must fit into 0.01 GiB"),
        (["--memory-gib", "much"], "--memory-gib must be a number above 0; got 'much'"),
        (["--memory-gib", "-1"], "--memory-gib must be a number above 0; got '-1'"),
        (["--distributed", "x:1"], "leave --distributed out"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, words, answer):
    assert main(["plan", *FLAGS, "--no-calibration", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and answer in err and err.count("\n") == 1


@pytest.mark.slow
def test_the_peak_of_a_run_is_what_was_predicted(tmp_path):
    """The process itself, most of a small run, is measured; so it is told apart."""
    # Of this program alone: `ru_maxrss` begins with the peak of the process that
    # started it.
    code = (
        "import sys; from fedjax_mrl.cli.main import main; main(sys.argv[1:]); "
        "lines = open('/proc/self/status').read().splitlines(); "
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
    )
    flags = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "60"]
    flags += ["--rounds", "1", "--partition", "iid", "--algorithm", "fedavg"]
    flags += ["--client-store", "host"]
    environment = dict(os.environ)
    del environment["JAX_COMPILATION_CACHE_DIR"]  # what is read needs less memory

    def output(*words):
        return subprocess.run(
            [sys.executable, "-c", code, *words, *flags],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout

    (line,) = [
        line
        for line in output("plan", "--no-calibration").splitlines()
        if line.startswith("memory   ")
    ]
    predicted = float(line.split()[1]) * 2**30
    # Whether a checkpoint is written beside the largest moment is a matter of threads,
    # so one run may stay below the peak.
    runs = [output("run", "--out", str(tmp_path / n), "--quiet") for n in "abc"]
    measured = max(int(ran.split()[-1]) * 1024 for ran in runs)
    assert 0.85 < predicted / measured < 1.15, (predicted / 2**20, measured / 2**20)


def test_every_kind_of_store_can_be_planned_for():
    assert set(stores.KINDS) == {"auto", "device", "host", "disk"}


# --- memory of the host -------------------------------------------------------------


def system(root, groups, files):
    """A root folder that says how much memory there is."""
    texts = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 1000 kB\n"}
    texts["proc/self/cgroup"] = groups
    for path, text in (texts | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return host_memory.free(str(root))


def test_what_is_free_is_the_least_of_the_system_and_its_control_groups(tmp_path):
    second = {
        "sys/fs/cgroup/a/memory.max": "500000\n",
        "sys/fs/cgroup/a/memory.current": "300000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 7\ninactive_file 20000\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "300000\n",
        "sys/fs/cgroup/a/b/memory.stat": "inactive_file 0\n",
    }
    assert system(tmp_path / "2", "0::/a/b\n", second) == 220000
    # Of a container, which does not see the folders that its group lies in.
    first = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "400000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "100000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
    }
    groups = "2:cpu:/x\n1:hugetlb,memory:/docker/x\n"
    assert system(tmp_path / "1", groups, first) == 300000
    huge = {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63)}
    assert system(tmp_path / "1", groups, first | huge) == 1024000
    assert system(tmp_path / "3", "", {}) == 1024000
    assert host_memory.free(str(tmp_path / "nothing")) is None


def test_this_process_is_asked_about_too():
    assert host_memory.resident() > 2**24
    free = host_memory.free()
    assert free is None or free > 0
