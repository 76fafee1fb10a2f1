"""Train the text encoder by entity prediction and by the contrast of mined lists (RetExpan, section 5.1.2).

An epoch is a pass of entity prediction over all sentences, then passes of the contrast over all lists, as in
appendix B; each step is of one of the two, each at a learning rate of its own, both on one schedule. The
paper does not say how many samples a pass of the contrast draws: here, unless told otherwise, as many as take
about as many steps as entity prediction, for a few lists beside many sentences teach little.

What the cache is worth: a sentence of the contrast has its query's seeds behind it (``seed_text``), which
changes the input of every layer, and anew with every list. A second cache would hold lists x sentences: 350
lists of 30 entities with 30 sentences of 60 tokens are 18.9 million states, 14.5 GB at 384 numbers of 16
bits, while a pass reads 12 sentences a list, with normal negatives 18. So those sentences run through all
layers when they are drawn, at most 18 x 350 = 6,300 a pass. Entity prediction, which sees every sentence,
reads the one cache but for a random fifth with the seeds of a random list behind (appendix B;
``prediction_seed_share``). On UltraWiki's 394,097 sentences, with a list for each of 236 classes, the layers
below the last run for at most 4,248 + 78,819 sentences an epoch, a fifth of what they would without a cache.
Without ``seed_text`` both passes read the cache alone.

Where this differs from the paper: it says "20% of queries" and not which seeds a sentence gets whose entity
is in no list; here any list's may stand behind any sentence. The frozen layers drop nothing, as in any of our
trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from engine.corpus.inputs.seed_text import SeedText, seed_room
from engine.errors import UserError
from engine.losses.contrastive import Projection
from engine.losses.entity_prediction import EntityPrediction
from engine.losses.gather import gathered
from engine.losses.settings import UltraFineSettings
from engine.losses.ultra_fine import Samples, ultra_fine_loss
from engine.models.families import position_limit
from engine.models.seed_tokens import with_seed_tokens
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates
from engine.training.contrast_batches import Drawn, ListBatches
from engine.training.contrast_lists import ContrastLists
from engine.training.order import Rows
from engine.training.settings import ContrastiveSettings
from engine.training.text import EncoderTraining
from engine.training.trainer import Worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tensor = torch.Tensor


class ContrastData:
    """What a contrastive training reads: cached states, and what sentences under a query are made of.

    Args:
        states: cached, of all sentences.
        tokens: token ids of every part of the model input, in the same order, where seeds stand behind
            sentences.
        lists: of all queries.
        names: of the vocabulary.
    """

    def __init__(
        self,
        states: CachedStates,
        tokens: Sequence[npt.NDArray[np.int32]],
        lists: Sequence[ContrastLists],
        names: Sequence[str],
    ) -> None:
        self.states, self.lists, self.names = states, lists, names
        self._tokens = tokens

    def ids(self, row: int) -> npt.NDArray[np.int32]:
        """Return the token ids of a sentence."""
        (part,) = self.states.parts_of(np.array([row])).tolist()
        return self._tokens[part][self.states.tokens_at(row)]


class ContrastModule(EntityPrediction):
    """The trained modules, with the head of the contrast, and the loss of either pass."""

    def __init__(self, ultra_fine: UltraFineSettings, worker: Worker, *prediction: Any) -> None:
        super().__init__(*prediction)
        self.projection = Projection(self.last.dim)
        self.ultra_fine, self.rank, self.world = ultra_fine, worker.rank, worker.world

    def forward(self, *batch: Any) -> Tensor:
        """Return the loss of a batch of entity prediction, or with labels of all workers' the contrast's."""
        if not isinstance(batch[-1], Samples):
            return super().forward(*batch)
        states_BLD, lengths_B, mask_B, owner_S, samples = batch
        narrow = self.compute != torch.float32
        own_BD = states_BLD.new_zeros(0, self.last.dim)  # where this worker has none of the batch
        if len(lengths_B):
            with torch.autocast(states_BLD.device.type, self.compute, enabled=narrow):
                own_BD = self.last(states_BLD, lengths_B, mask_B, self.dropout)
        states_SD = gathered(own_BD.float(), owner_S, self.rank, self.world)
        return ultra_fine_loss(self.projection(states_SD), samples, self.ultra_fine)


class ContrastTraining(EncoderTraining):
    """One worker's part of a training run.

    Args:
        encoder: the model; its last layer is trained in place, and it gets the two tokens.
        tokenizer: its own, with the two tokens or without; saved beside it with them.
        data: equal on all workers.
        n_entities: size of the vocabulary.
        settings: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from.
        head: weights that the entity head begins with; default: at random.

    Raises:
        UserError: there is nothing to contrast, the encoder has no positions for seeds, or there are more
            workers than samples of a batch.
    """

    settings: ContrastiveSettings
    module: ContrastModule

    def __init__(
        self,
        encoder: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        data: ContrastData,
        n_entities: int,
        settings: ContrastiveSettings,
        worker: Worker | None = None,
        checkpoint: Path | None = None,
        head: Mapping[str, Tensor] | None = None,
    ) -> None:
        worker = worker or Worker()
        encoder, self.tokenizer = with_seed_tokens(encoder, tokenizer)
        encoder.to(worker.device)
        self._contrast, self._ultra_fine = data, settings.ultra_fine
        states, sizes = data.states, settings.ultra_fine
        beside = -(-len(states.with_text) // settings.batch_size)
        self._lists = ListBatches(
            states.entity_id, states.with_text, data.lists, sizes, settings.seed, beside
        )
        self._texts = self._seed_texts(encoder) if sizes.seed_text else None
        if worker.world > (fewest := min(map(len, self._lists.epoch(0)))):
            raise UserError(
                f"a batch of the contrast has {fewest} sentences, too few for {worker.world} workers; take "
                "fewer workers, or a larger --lists-per-batch"
            )
        super().__init__(encoder, states, n_entities, settings, worker, checkpoint, head)
        self.module.projection.train()
        self.engine.optimizer.register_step_pre_hook(self._leave_the_other_head_alone)

    def made_module(self, *prediction: Any) -> ContrastModule:
        """Return what is trained, with the head of the contrast."""
        return ContrastModule(self._ultra_fine, self.worker, *prediction)

    def _seed_texts(self, encoder: TextEncoder) -> list[npt.NDArray[np.int32]]:
        """Return the ids that go behind each sentence of a list."""
        longest = int(self._contrast.states.lengths.max())
        room = seed_room(position_limit(encoder.model.config), longest, "the encoder")
        writer, names = SeedText(self.tokenizer, room), self._contrast.names
        texts = [
            writer.ids(*([names[entity] for entity in seeds] for seeds in (one.positive, one.negative)))
            for one in self._contrast.lists
        ]
        return [np.array(text, np.int32) for text in texts]

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch, of both passes."""
        return super().steps_per_epoch + len(self._lists)

    def batches(self, epoch: int) -> list[Rows]:
        """Return the batches of entity prediction, some rows under a list, then those of the contrast."""
        plain = super().batches(epoch)
        if self._texts is not None:
            plain = self._lists.under_lists(plain, self._ultra_fine.prediction_seed_share, epoch)
        return plain + self._lists.epoch(epoch)

    @property
    def contrasts(self) -> bool:
        """True if the next step is one of the contrast."""
        return self.step % self.steps_per_epoch >= super().steps_per_epoch

    @property
    def rate(self) -> float:
        """The learning rate of the next step: both passes follow one schedule, each up to its own peak."""
        rate, settings = super().rate, self.settings
        share = settings.ultra_fine.contrast_learning_rate / settings.learning_rate
        return rate * share if self.contrasts else rate

    def owners_of(self, batch: Rows) -> Rows:
        """Return the worker of each sample: who has its states, or any where they are computed of tokens."""
        n = self._lists.codes.n
        owners = super().owners_of(batch % n)
        if self._texts is not None:
            under = np.flatnonzero(batch >= n)
            owners[under] = np.arange(len(under)) % self.worker.world
        return owners

    def micro_batches(self, batch: Rows, number: int) -> Iterator[Rows]:
        """Yield this worker's rows at once: a batch of the contrast is compared as a whole."""
        assert number == 1
        self._batch = batch
        yield self.own_rows(batch)

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the loss of this step's pass."""
        if not self.contrasts:
            return self._prediction_loss(own, total)
        drawn = self._lists.codes.apart(own)
        samples = self._lists.samples(self._batch).to(self.worker.device)
        states, lengths, mask = (t.to(self.worker.device) for t in self._states_of(drawn))
        owner = torch.from_numpy(self.owners_of(self._batch))
        loss: Tensor = self.engine(states, lengths, mask, owner, samples)
        return loss if len(own) else loss + self.no_loss()

    def _prediction_loss(self, own: Rows, total: int) -> Tensor:
        """Return the loss of entity prediction, of sentences as they are and of those under a list."""
        plain = own[own < self._lists.codes.n]
        if len(plain) == len(own):
            return super().loss_of(own, total)
        drawn = self._lists.codes.apart(own[own >= self._lists.codes.n])
        parts = [self._states_of(drawn)]
        if len(plain):
            parts.append(self._contrast.states.gather(plain, self.compute)[:3])
        longest = max(states.shape[1] for states, *_ in parts)
        device = self.worker.device
        states = torch.cat([pad(one.to(device), (0, 0, 0, longest - one.shape[1])) for one, *_ in parts])
        lengths, mask = (torch.cat([part[n].to(device) for part in parts]) for n in (1, 2))
        entities = self._contrast.states.entities_of(np.concatenate([drawn.rows, plain]))
        loss: Tensor = self.engine(states, lengths, mask, entities.to(device)) * self.scale(total)
        return loss

    def _states_of(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
        """Return frozen states [B, L, D], lengths and mask places [B] of samples."""
        cached = self._contrast.states
        if self._texts is None:
            return cached.gather(drawn.rows, self.compute)[:3]
        pairs = zip(drawn.rows.tolist(), drawn.lists.tolist(), strict=True)
        ids = [np.concatenate([self._contrast.ids(row), self._texts[which]]) for row, which in pairs]
        padded_BL = pad_sequence([torch.from_numpy(one.astype(np.int64)) for one in ids], batch_first=True)
        device, narrow = self.worker.device, self.compute != torch.float32
        lengths_B = torch.tensor([len(one) for one in ids], device=device)
        with torch.no_grad(), torch.autocast(device.type, self.compute, enabled=narrow):
            states_BLD = self.encoder.lower_states(padded_BL.to(device), lengths_B)
        mask_B = torch.from_numpy(cached.mask_index[drawn.rows].astype(np.int64))
        return states_BLD.to(self.compute), lengths_B, mask_B

    def _leave_the_other_head_alone(self, *_: Any) -> None:
        """Let a pass neither decay the head of the other nor go on with its momentum."""
        other = self.module.head if self.contrasts else self.module.projection
        for parameter in other.parameters():
            parameter.grad = None

    def save_encoder(self, folder: Path) -> str:
        """Write the whole text encoder and its tokenizer, with the two tokens, and the head beside it.

        Returns:
            The file that is to arrive last.
        """
        self.tokenizer.save_pretrained(folder)
        return super().save_encoder(folder)
