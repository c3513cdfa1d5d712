"""FedMRL as a loop over clients in PyTorch, the two ways it is compared with.

`Plain` is written as well as we can: oneDNN convolutions, every extractor once a step,
images prepared as one tensor, fused optimizer, whichever memory format is faster here.
`Authors` does what the authors' script does: every extractor twice a step, a CPU
pipeline that augments one image after another, momentum and clipping by tensor.

Needs the extra `benchmark` (torch, torchvision).
"""

import functools
import importlib
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks import bench

WIDTHS = ((32, 2000), (16, 2000), (32, 1000), (32, 800), (32, 500))  # CNN-1 to CNN-5
FEATURES = 500
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Extractor(nn.Module):
    """The papers' convolutional network up to its representation."""

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 5)
        self.conv2 = nn.Conv2d(16, channels, 5)
        self.fc1 = nn.Linear(25 * channels, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return functional.relu(self.fc2(x))


class Client:
    """One client's three networks, each clipped and updated by itself."""

    def __init__(self, number: int, shared_dim: int, *, fused: bool) -> None:
        channels, hidden = WIDTHS[number % len(WIDTHS)]
        self.large = Extractor(channels, hidden, FEATURES)
        self.head = nn.Linear(FEATURES, 10)
        self.projector = nn.Linear(shared_dim + FEATURES, FEATURES)
        self.small = Extractor(32, 500, shared_dim)
        self.small_head = nn.Linear(shared_dim, 10)
        self.shared_dim = shared_dim
        self.networks = [
            [*self.large.parameters(), *self.head.parameters()],
            [*self.small.parameters(), *self.small_head.parameters()],
            [*self.projector.parameters()],
        ]
        self.fused = fused
        self.begin()

    def begin(self) -> None:
        """A visit: momentum starts at zero."""
        self.optimizers = [
            torch.optim.SGD(
                network, lr=0.01, momentum=0.9, weight_decay=1e-3, fused=self.fused
            )
            for network in self.networks
        ]

    def step(self, x: torch.Tensor, y: torch.Tensor, *, twice: bool) -> None:
        """One local step on prepared images [B, 3, 32, 32]."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        small, large = self.small(x), self.large(x)
        if twice:  # the authors call each whole network and its extractor
            self.small_head(small), self.head(large)
            small, large = self.small(x), self.large(x)
        fused = self.projector(torch.cat([small, large], 1))
        coarse = self.small_head(fused[:, : self.shared_dim])
        loss = functional.cross_entropy(coarse, y)
        loss = loss + functional.cross_entropy(self.head(fused), y)
        loss.backward()
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            nn.utils.clip_grad_norm_(network, 50.0, foreach=not twice)
            optimizer.step()

    @torch.no_grad()
    def correct(self, x: torch.Tensor, y: torch.Tensor) -> int:
        """Right answers of the mix-large head."""
        fused = self.projector(torch.cat([self.small(x), self.large(x)], 1))
        return int((self.head(fused).argmax(1) == y).sum())


class Loop:
    """A federation played as a loop over its clients.

    Args:
        x: training images [n, 32, 32, 3], uint8.
        y: their labels [n].
        x_test: test images [m, 32, 32, 3], uint8.
        y_test: their labels [m].
        train: for each client, the positions it trains on.
        test: for each client, the positions it is tested on.
        batch_size: B.
        shared_dim: d1.
        authors: as their script does it.
    """

    def __init__(
        self,
        x,
        y,
        x_test,
        y_test,
        train,
        test,
        *,
        batch_size=64,
        shared_dim=500,
        authors=False,
    ) -> None:
        torch.manual_seed(0)
        self.authors, self.batch_size = authors, batch_size
        self.raw, self.raw_test = x, x_test
        self.train, self.test = [
            [torch.from_numpy(part).long() for part in parts] for parts in (train, test)
        ]
        self.y, self.y_test = (
            torch.from_numpy(np.asarray(labels, np.int64)) for labels in (y, y_test)
        )
        self.prepared, self.prepared_test = prepared(x), prepared(x_test)
        self.clients = [
            Client(number, shared_dim, fused=not authors)
            for number in range(len(train))
        ]
        self.shared = [leaf.detach().clone() for leaf in self.clients[0].networks[1]]

    def use(self, memory_format: torch.memory_format) -> None:
        """Chooses how images and kernels lie in memory."""
        self.prepared = self.prepared.contiguous(memory_format=memory_format)
        self.prepared_test = self.prepared_test.contiguous(memory_format=memory_format)
        for client in self.clients:
            client.small.to(memory_format=memory_format)
            client.large.to(memory_format=memory_format)

    def steps(self, number: int = 1, clients: Sequence[int] | None = None) -> None:
        """Some local steps of clients, on images that are prepared already.

        Args:
            number: of each client.
            clients: which; None is all.
        """
        for which in range(len(self.clients)) if clients is None else clients:
            client, own = self.clients[which], self.train[which]
            client.begin()
            for step in range(number):
                at = (step * self.batch_size) % max(1, len(own) - self.batch_size + 1)
                some = own[at : at + self.batch_size]
                client.step(self.prepared[some], self.y[some], twice=self.authors)

    def round(
        self, *, epochs: int = 1, cohort: int | None = None, test: bool = True
    ) -> float:
        """Local epochs, test, aggregation.

        Args:
            epochs: of each participant.
            cohort: how many participate, drawn at random; None is all.
            test: whether the participants are tested, each on its own test part.

        Returns:
            The mean accuracy, NaN without test.
        """
        drawn = torch.randperm(len(self.clients))[:cohort].tolist()
        found = []
        for number in drawn:
            client, own = self.clients[number], self.train[number]
            self._download(client)
            client.begin()
            for _ in range(epochs):
                order = own[torch.randperm(len(own))]
                for some in order.split(self.batch_size):
                    prepare = self._one_by_one if self.authors else self._augment
                    client.step(prepare(some), self.y[some], twice=self.authors)
            if test:
                held = self.test[number]
                right = sum(
                    client.correct(self._tested(some), self.y_test[some])
                    for some in held.split(self.batch_size)
                )
                found.append(right / max(1, len(held)))
        self._aggregate(drawn)
        return float(np.mean(found)) if found else float("nan")

    @torch.no_grad()
    def _download(self, client: Client) -> None:
        for leaf, mean in zip(client.networks[1], self.shared, strict=True):
            leaf.copy_(mean)

    @torch.no_grad()
    def _aggregate(self, drawn: list[int]) -> None:
        """The participants' mean of the shared network, by their images."""
        total = sum(len(self.train[number]) for number in drawn)
        weights = [len(self.train[number]) / total for number in drawn]
        sent = [self.clients[number].networks[1] for number in drawn]
        self.shared = [
            sum(leaf * weight for leaf, weight in zip(leaves, weights, strict=True))
            for leaves in zip(*sent, strict=True)
        ]

    def _tested(self, some: torch.Tensor) -> torch.Tensor:
        if not self.authors:
            return self.prepared_test[some]
        v2, _ = _transforms()
        normalise = _normalise(v2)
        return torch.stack([normalise(self.raw_test[i]) for i in some.tolist()])

    def _one_by_one(self, some: torch.Tensor) -> torch.Tensor:
        v2, _ = _transforms()
        normalise = _normalise(v2)
        change = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomErasing(0.5, (0.04, 0.20), (0.5, 2.0)),
                v2.RandomCrop(32, padding=4),
            ]
        )
        return torch.stack([change(normalise(self.raw[i])) for i in some.tolist()])

    def _augment(self, some: torch.Tensor) -> torch.Tensor:
        """Flip, erasing and crop of a minibatch as one gather."""
        batch = len(some)
        u = torch.rand(8, batch, 1)
        rows = torch.arange(32)[None] + torch.floor(u[0] * 9).long() - 4
        columns = torch.arange(32)[None] + torch.floor(u[1] * 9).long() - 4
        area, aspect = 1024 * (0.04 + 0.16 * u[2]), torch.exp2(2 * u[3] - 1)
        erased = (u[4] < 0.5).long()
        tall = (torch.sqrt(area * aspect).round().long()).clamp(max=31) * erased
        wide = (torch.sqrt(area / aspect).round().long()).clamp(max=31) * erased
        top, left = (u[5] * (33 - tall)).long(), (u[6] * (33 - wide)).long()
        row_in, column_in = (rows >= 0) & (rows < 32), (columns >= 0) & (columns < 32)
        row_out = (rows >= top) & (rows < top + tall)
        column_out = (columns >= left) & (columns < left + wide)
        keep = row_in[:, :, None] & column_in[:, None]
        keep &= ~(row_out[:, :, None] & column_out[:, None])
        columns = torch.where(u[7] < 0.5, 31 - columns, columns).clamp(0, 31)
        rows = rows.clamp(0, 31)
        picked = self.prepared[
            some[:, None, None], :, rows[:, :, None], columns[:, None]
        ]  # [B, 32, 32, 3]: advanced indices come first
        images = (picked * keep[..., None]).permute(0, 3, 1, 2)
        format_ = (
            torch.channels_last
            if self.prepared.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        return images.contiguous(memory_format=format_)


def of_clients(
    dataset: str, data_dir: str | None, split: dict[str, int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The training images of every client, prepared, and their labels.

    Args:
        dataset: a name, see `fedjax_mrl.datasets`.
        data_dir: where it lies.
        split: see `bench.positions`.
    """
    images = bench.load(dataset, data_dir)
    train, _ = bench.positions(images, **split)
    x, y = prepared(images.x_train), torch.from_numpy(np.int64(images.y_train))
    parts = (torch.from_numpy(np.asarray(part)).long() for part in train)
    return [(x[part], y[part]) for part in parts]


def prepared(x: np.ndarray) -> torch.Tensor:
    """Images [n, H, W, 3], uint8, as normalised [n, 3, H, W]."""
    pixels = torch.from_numpy(x).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((pixels / 255 - mean) / std).contiguous()


@functools.cache
def _transforms():
    """torchvision's transforms, also if its compiled part is for another torch.

    Importing it then fails for want of two operators, which no transform used here
    needs; their names are enough.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
    else:
        library = None
    # The names are there as long as the library is.
    return importlib.import_module("torchvision.transforms.v2"), library


def _normalise(v2):
    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
