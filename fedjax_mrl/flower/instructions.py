"""The README of a Flower app: the commands of a deployment, on one machine or many."""

from fedjax_mrl.config import RunConfig

_TEXT = """# {name}

{title} with {clients} clients, by fedjax_mrl over Flower. docs/deployment.md of
fedjax_mrl explains every step. Install on every machine, in one version,
in the folder of the project fedjax_mrl:

```sh
python -m pip install ".[flower]"
```

Say in every shell that Flower tells nobody of its use, and where its files are:

```sh
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_HOME=$HOME/.flwr
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.05   # seconds; Flower's default is 1
```

## Keys

One certificate for the server, one key for each node. `--host` names the server as
nodes reach it, with commas if by several names; a private key goes to its own machine
and nowhere else, `ca.pem` to all.

```sh
fedjax-mrl flower keys keys --host localhost,127.0.0.1 --clients {clients}
```

## Server

```sh
flower-superlink --ssl-ca-certfile keys/ca.pem --ssl-certfile keys/server.pem \\
    --ssl-keyfile keys/server.key --enable-supernode-auth \\
    --disable-runtime-dependency-installation --database {name}.db
```

Tell Flower's commands where it is, in `$FLWR_HOME/config.toml`:

```toml
[superlink]
default = "{name}"

[superlink.{name}]
address = "127.0.0.1:8000"
root-certificates = "{here}/keys/ca.pem"
```

Register the nodes. One that is registered as client-3 can only be client 3:

```sh
{register}
```

## Nodes

On the machine of client 0, and likewise of the others; on one machine each needs a
`--port` of its own. The worker holds the data, the compiled programs and the private
state; it lasts, and Flower's process asks it by the socket.

```sh
fedjax-mrl flower worker {name} --client 0 --state state-0 --socket state-0/run/socket &
flower-supernode --superlink 127.0.0.1:8000 --root-certificates keys/ca.pem \\
    --auth-supernode-private-key keys/client-0.key --port 9094 \\
    --node-config 'socket="{here}/state-0/run/socket"'
```

## Run

```sh
flwr run {name} --stream
```

The server's state, `rounds.csv`, `digests.csv` and `wire.csv` lie in its
`server-folder` ({name}-server, where the SuperLink was started). If the server dies,
start it again and say `flwr run` again: it goes on after the last round that was saved.
A node that dies goes on as well, from the files in its `--state`.

All of it on this machine, to see it work: `fedjax-mrl flower try {name} --out there`.
"""


def readme(name: str, config: RunConfig) -> str:
    """The text of an app's README.md."""
    clients = range(config.num_clients)
    register = "\n".join(
        f"flwr supernode register keys/client-{k}.pub --name client-{k}"
        for k in clients
    )
    return _TEXT.format(
        name=name,
        title=config.title,
        clients=config.num_clients,
        register=register,
        here="/path/to",
    )
