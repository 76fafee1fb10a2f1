"""Search the likeliest names of a trie after each prompt: constrained beam search (GenExpan).

Exact: the answers are those of a plain search that runs the whole prompt and every beam anew at each
step. Whether finished names take places of beams is a setting. What is saved is work that cannot change
the answers:

- A prompt runs once. Its state is copied to its beams, which then read one token a step.
- All queries of a batch share each pass through the model.
- Probabilities over the allowed tokens need the output layer's rows of those tokens only.
- Where one token alone is allowed, its probability over the allowed tokens is 1: a beam that no
  other name shares any more needs neither the model nor a place in its cache. It still competes.
  While no beam of the batch has a choice the model waits; it reads those tokens in one pass later.
- Scores cannot rise above log-probability / penalty(longest name). What lies below the worst of the
  best ``beams`` finished names under that bound is left, and so is all that it crowds out. (Where finished
  names compete for places, they end the search themselves.)

A look-ahead, where one is given, is added to log-probabilities wherever partial and finished names are
compared. It never rises along a name and is at most 0, as these: all of the above holds of the sums.

Shape letters: Q queries, B beams of all queries, P extensions of all beams, R rows of the model's
state, L tokens not yet read, U tokens that any beam may read next, V tokens of the vocabulary, n
entities found.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from engine.generation.trie_batch import Places, TrieBatch
from engine.query import Ids, Scores

Normalise = Literal["allowed", "vocabulary"]
Logprobs = npt.NDArray[np.float64]

DEAD = np.finfo(np.float32).min
"""Scores below this (-inf, NaN) are of impossible names."""


@dataclass(frozen=True)
class BeamResult:
    """Entities generated for one query, best first, ties by id."""

    ids: Ids
    """int32 [n]; more than ``beams`` only where names share their tokens."""
    scores: Scores
    """float32 [n]: log-probability, with the look-ahead if there is one, over the length penalty."""
    logprobs: Scores
    """float32 [n]: natural log of the probability of the whole name after the prompt."""


class BeamSearch:
    """A search with fixed settings, over any prompts and tries.

    Args:
        model: gives the probabilities.
        beams: partial names kept a step, and names returned.
        max_tokens: longer names are not found; None for no limit.
        normalise: whether a token's probability is taken among the tokens that the trie allows there
            (as the authors' program does) or among the whole vocabulary.
        length_penalty: p >= 0 in score = log-probability / ((5 + length) / 6)^p, length in tokens.
        competing: finished names take places among the beams, by score, as in the program of GenExpan's
            authors (the paper says "beam search" alone). Else they stand aside, and all ``beams`` go on.
    """

    def __init__(
        self,
        model: LanguageModel,
        beams: int = 40,
        max_tokens: int | None = None,
        normalise: Normalise = "allowed",
        length_penalty: float = 0.6,
        competing: bool = False,
    ) -> None:
        self.model = model
        self.beams = beams
        self.max_tokens = max_tokens
        self.normalise = normalise
        self.length_penalty = length_penalty
        self.competing = competing
        self.forward_passes = 0
        """Passes through the model since the search was made, prompts included."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        tries: Sequence[Trie],
        lookahead: Sequence[Scores | None] = (),
    ) -> list[BeamResult]:
        """Search each prompt's trie.

        The state of ``beams`` rows a prompt is held at a time: cut large batches before.

        Args:
            prompts: tokens, at least one each, as :meth:`LanguageModel.encode` gives them.
            tries: one a prompt; the same object where prompts share one.
            lookahead: of each trie's nodes, :mod:`engine.generation.lookahead`; none: by the model alone.

        Raises:
            QueryError: a prompt and the longest name after it do not fit the model.
        """
        if not prompts:
            return []
        kind = _CompetingSearch if self.competing else _Search
        search = kind(self, prompts, TrieBatch(tries, lookahead))
        while len(search.beams):
            search.step()
        return search.found()


@dataclass(frozen=True)
class _Beams:
    """Partial names that may still be finished: by query, then best first. Arrays [B]."""

    query: Places
    node: Places
    left: Places
    """Tokens still to come in a leaf; -1 in a node that branches."""
    row: Places
    """Row of the model's state; meaningless where none is needed any more."""
    logprob: Logprobs
    unread: Places
    """Tokens that the model has yet to read, [B, L]; -1 where it never will."""

    def __len__(self) -> int:
        return len(self.query)

    def take(self, places: Places) -> _Beams:
        return _Beams(*(column[places] for column in vars(self).values()))


class _Finished(NamedTuple):
    """Finished names. Arrays [B]."""

    query: Places
    leaf: Places
    score: Scores
    logprob: Logprobs

    def take(self, places: Places) -> _Finished:
        return _Finished(self.query[places], self.leaf[places], self.score[places], self.logprob[places])


class _Search:
    """A search of one batch."""

    def __init__(self, settings: BeamSearch, prompts: Sequence[Sequence[int]], tries: TrieBatch) -> None:
        self.settings, self.model, self.tries = settings, settings.model, tries
        self.limit_Q = tries.depth_Q
        if settings.max_tokens is not None:
            self.limit_Q = np.minimum(self.limit_Q, settings.max_tokens)
        for prompt, limit in zip(prompts, self.limit_Q, strict=True):
            self.model.check_length(len(prompt) + int(limit))
        lengths = np.arange(self.limit_Q.max() + 1)
        self.penalty = ((5 + lengths) / 6) ** settings.length_penalty
        self.finished: list[_Finished] = []
        self.best_scores: list[Scores] = [np.zeros(0, np.float32) for _ in prompts]
        self.threshold_Q = np.full(len(prompts), DEAD)
        self.length = 0
        self.state = self.model.prefill(prompts)
        settings.forward_passes += 1
        some = np.flatnonzero(self.limit_Q > 0)
        zeros = np.zeros_like(some)
        self.beams = _Beams(some, zeros, zeros - 1, some, np.zeros(len(some)), np.zeros((len(some), 0), int))

    def step(self) -> None:
        """Extend every beam by one token."""
        self.length += 1
        beams = self._kept(*self._extensions())
        self._finish(beams.take(np.flatnonzero(beams.left == 0)), self.length)
        alive = (beams.left != 0) & (self.length < self.limit_Q[beams.query])
        alive &= self._is_alive(beams.query, self._steered(beams))
        if self.settings.normalise == "allowed":
            alive &= ~self._finish_unbranching(beams, alive)
        self.beams = beams.take(np.flatnonzero(alive))

    def found(self) -> list[BeamResult]:
        """Return the answers, one a query."""
        answers = []
        for query, threshold in enumerate(self.threshold_Q):
            names = []
            for done in self.finished:
                for place in np.flatnonzero((done.query == query) & (done.score >= threshold)):
                    ids = self.tries.entities_at(query, int(done.leaf[place]))
                    names.append((-done.score[place], ids[0], done.logprob[place], ids))
            names = sorted(names, key=lambda name: name[:2])[: self.settings.beams]
            sizes = [len(ids) for *_, ids in names]
            ids = np.concatenate([np.zeros(0, np.int32), *(ids for *_, ids in names)])
            scores = np.repeat(np.array([-name[0] for name in names], np.float32), sizes)
            logprobs = np.repeat(np.array([name[2] for name in names], np.float32), sizes)
            order = np.lexsort((ids, -scores))
            answers.append(BeamResult(ids[order], scores[order], logprobs[order]))
        return answers

    def _extensions(self) -> tuple[Places, Places, Places]:
        """Return all (parent, child, token), int64 [P], by parent, then by token.

        In a leaf the child is the leaf itself. Its token is looked up only if the model will read it.
        """
        query_B, node_B, left_B = self.beams.query, self.beams.node, self.beams.left
        branching, forced = np.flatnonzero(left_B < 0), np.flatnonzero(left_B > 0)
        parent_P, child_P, token_P = self.tries.children(query_B[branching], node_B[branching])
        parent_P = branching[parent_P]
        if not len(forced):
            return parent_P, child_P, token_P
        forced_tokens = np.full(len(forced), -1)
        if self.settings.normalise == "vocabulary":
            forced_tokens = self.tries.next_tokens(query_B[forced], node_B[forced], left_B[forced])
        parent_P = np.concatenate([parent_P, forced])
        order = np.argsort(parent_P, kind="stable")
        child_P = np.concatenate([child_P, node_B[forced]])[order]
        return parent_P[order], child_P, np.concatenate([token_P, forced_tokens])[order]

    def _kept(self, parent_P: Places, child_P: Places, token_P: Places) -> _Beams:
        """Return the best extensions of each query."""
        token_logprob_P = self._token_logprobs(parent_P, token_P)
        beams = self.beams
        logprob_P = beams.logprob[parent_P] + token_logprob_P
        query_P = beams.query[parent_P]
        steered_P = self.tries.steered(logprob_P, query_P, child_P)
        alive_P = np.flatnonzero(self._is_alive(query_P, steered_P))
        bounds = np.searchsorted(query_P[alive_P], np.arange(len(self.threshold_Q) + 1))
        room_Q = self._room(steered_P[alive_P], bounds)
        kept = alive_P[_best(steered_P[alive_P], bounds, room_Q)]
        parent, node, query = parent_P[kept], child_P[kept], query_P[kept]
        left = beams.left[parent] - 1
        entered = np.flatnonzero(left < -1)
        left[entered] = self.tries.tokens_left(query[entered], node[entered])
        unread = np.concatenate([beams.unread[parent], token_P[kept, None]], 1)
        return _Beams(query, node, left, beams.row[parent], logprob_P[kept], unread)

    def _room(self, logprob_P: Logprobs, bounds: Places) -> Sequence[int]:
        """Return how many extensions each query may keep, given their log-probabilities as :func:`_best`."""
        return [self.settings.beams] * (len(bounds) - 1)

    def _token_logprobs(self, parent_P: Places, token_P: Places) -> Logprobs:
        """Return the log-probability of each extension's last token, float64 [P]."""
        if self.settings.normalise == "vocabulary":
            logits_RV = self.model.logits(self._hidden())
            row_P = torch.from_numpy(self.beams.row[parent_P]).to(logits_RV.device)
            chosen_P = logits_RV[row_P, torch.from_numpy(token_P).to(logits_RV.device)]
            token_logprob_P = (chosen_P - logits_RV.logsumexp(-1)[row_P]).cpu().numpy().astype(np.float64)
        else:
            token_logprob_P = np.zeros(len(parent_P))
            choices_B = np.bincount(parent_P, minlength=len(self.beams))
            # A token alone has log-probability 0 and needs no logits.
            open_P = np.flatnonzero(choices_B[parent_P] > 1)
            if len(open_P):
                token_logprob_P[open_P] = self._sibling_logprobs(parent_P[open_P], token_P[open_P])
        # Rounding must not lift a probability above 1: the bound on scores relies on it.
        return np.minimum(token_logprob_P, 0)

    def _sibling_logprobs(self, parent_P: Places, token_P: Places) -> Logprobs:
        """Return log-probabilities among the tokens of the same parent, float64 [P]; parents ascend."""
        starts = np.flatnonzero(np.diff(parent_P, prepend=-1))
        sizes = np.diff(starts, append=len(parent_P))
        # Marking the tokens that occur is cheaper than sorting them (np.unique).
        column_V = np.zeros(token_P.max() + 1, np.int64)
        column_V[token_P] = 1
        union_U = np.flatnonzero(column_V)
        column_V[union_U] = np.arange(len(union_U))
        column_P = column_V[token_P]
        hidden_RD = self._hidden()
        rows = torch.from_numpy(self.beams.row[parent_P[starts]]).to(self.model.device)
        logits_BU = self.model.logits(hidden_RD[rows], torch.from_numpy(union_U)).cpu().numpy()
        logit_P = logits_BU[np.repeat(np.arange(len(starts)), sizes), column_P].astype(np.float64)
        with np.errstate(invalid="ignore"):  # all -inf: NaN, which is dropped as impossible
            logit_P -= np.repeat(np.maximum.reduceat(logit_P, starts), sizes)
            return logit_P - np.repeat(np.log(np.add.reduceat(np.exp(logit_P), starts)), sizes)

    def _hidden(self) -> torch.Tensor:
        """Return the state's last hidden states [R, D], the beams' tokens read."""
        beams = self.beams
        if beams.unread.shape[1]:
            asked = np.arange(len(beams))
            if self.settings.normalise == "allowed":
                asked = np.flatnonzero(beams.left < 0)
            rows, tokens_BL = torch.from_numpy(beams.row[asked]), torch.from_numpy(beams.unread[asked])
            self.state = self.model.advance(self.state, rows, tokens_BL)
            self.settings.forward_passes += 1
            row = np.zeros_like(beams.row)
            row[asked] = np.arange(len(asked))
            self.beams = replace(beams, row=row, unread=beams.unread[:, :0])
        return self.state.hidden_BD

    def _is_alive(self, query_P: Places, logprob_P: Logprobs) -> npt.NDArray[np.bool_]:
        """Return which extensions may still enter their query's best names, bool [P].

        The bound rises with the log-probability alone: what is left here would only have pushed out
        extensions below the bound themselves. So the answer is the same. Ties are kept.
        """
        bound_P = (logprob_P / self.penalty[self.limit_Q[query_P]]).astype(np.float32)
        return bound_P >= self.threshold_Q[query_P]

    def _steered(self, beams: _Beams) -> Logprobs:
        return self.tries.steered(beams.logprob, beams.query, beams.node)

    def _finish(self, beams: _Beams, length_B: Places | int) -> None:
        """Record finished names, and raise the threshold of queries that have ``beams`` of them."""
        if not len(beams):
            return
        score_B = (self._steered(beams) / self.penalty[length_B]).astype(np.float32)
        done = _Finished(beams.query, beams.node, score_B, beams.logprob)
        self.finished.append(done)
        for query in np.unique(done.query):
            scores = np.sort(np.append(self.best_scores[query], done.score[done.query == query]))
            self.best_scores[query] = scores = scores[-self.settings.beams :]
            if len(scores) == self.settings.beams:
                self.threshold_Q[query] = scores[0]

    def _finish_unbranching(self, beams: _Beams, alive: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Finish the queries all of whose beams are in leaves: their order cannot change any more.

        Returns: which beams belong to them, bool [B].
        """
        branching = np.bincount(beams.query[alive & (beams.left < 0)], minlength=len(self.threshold_Q))
        finished_B = alive & (branching[beams.query] == 0)
        total = self.length + beams.left
        fits = np.flatnonzero(finished_B & (total <= self.limit_Q[beams.query]))
        self._finish(beams.take(fits), total[fits])
        return finished_B


class _CompetingSearch(_Search):
    """A search in which finished names and unfinished ones compete for the places of a query's beams.

    The rule of the program of GenExpan's authors: at each step the extensions of unfinished beams and the
    finished beams are ordered by score, the extensions at their length so far, and the best ``beams`` stay.
    A finished name that is crowded out is lost, and so no score can be bounded while the search goes on.
    Ties go to the finished.
    """

    def __init__(self, settings: BeamSearch, prompts: Sequence[Sequence[int]], tries: TrieBatch) -> None:
        super().__init__(settings, prompts, tries)
        self.held: list[_Finished] = [_nothing_finished() for _ in prompts]
        """Finished names of each query that have a place, best first."""

    def found(self) -> list[BeamResult]:
        """Return the answers, one a query."""
        self.finished = self.held
        return super().found()

    def _room(self, logprob_P: Logprobs, bounds: Places) -> Sequence[int]:
        room = []
        for query, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
            held, beams = self.held[query], self.settings.beams
            rivals = np.sort((logprob_P[start:end] / self.penalty[self.length]).astype(np.float32))[::-1]
            # The i-th held name stays if it and the better of both kinds fill no more than the beams.
            better = len(rivals) - np.searchsorted(rivals[::-1], held.score, side="right")
            kept = int((np.arange(1, len(held.score) + 1) + better <= beams).sum())
            self.held[query] = held.take(np.arange(kept))
            room.append(beams - kept)
        return room

    def _finish(self, beams: _Beams, length_B: Places | int) -> None:
        score_B = (self._steered(beams) / self.penalty[length_B]).astype(np.float32)
        for query in np.unique(beams.query):
            own = beams.query == query
            held = self.held[query]
            both = _Finished(
                np.concatenate([held.query, beams.query[own]]),
                np.concatenate([held.leaf, beams.node[own]]),
                np.concatenate([held.score, score_B[own]]),
                np.concatenate([held.logprob, beams.logprob[own]]),
            )
            self.held[query] = both.take(np.argsort(-both.score, kind="stable"))


def _nothing_finished() -> _Finished:
    none = np.zeros(0, np.int64)
    return _Finished(none, none, np.zeros(0, np.float32), np.zeros(0))


def _best(logprob_P: Logprobs, bounds: Places, room_Q: Sequence[int]) -> Places:
    """Return the places of the largest of each run, best first, ties by place.

    Args:
        logprob_P: runs of numbers, one a query.
        bounds: run i lies at bounds[i]:bounds[i + 1].
        room_Q: at most so many of each run.
    """
    places = [np.zeros(0, np.int64)]
    for start, end, k in zip(bounds[:-1].tolist(), bounds[1:].tolist(), room_Q, strict=True):
        if k == 0:
            continue
        run = logprob_P[start:end]
        near = np.arange(len(run))
        if len(run) > k:
            near = np.flatnonzero(run >= np.partition(run, -k)[-k])
        places.append(start + near[np.argsort(-run[near], kind="stable")[:k]])
    return np.concatenate(places)
