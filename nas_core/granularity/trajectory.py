"""The order of a search by MGAS (arXiv 2310.15074, by its code): stages of ever more cells, then the whole network down
to its targets, the largest first, in one descending run.

A phase begins with thresholds at 0, lets the weights alone learn, then everything, with a commit every few epochs,
until its budget is met. At its end filters are physically removed; in the last one, after every commit, each of which
is a candidate. Each further target begins as a phase does (ours: lambda and thresholds that went on growing from target
to target closed every gate). Cells behind a stage's last are not built before their stage begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nas_core.architecture import Architecture, CellType, Edge, Genotype, genotype_from_json, genotype_to_json
from nas_core.costs import sites
from nas_core.data import share_of
from nas_core.errors import InvalidSettingsError
from nas_core.events import Checkpoint, Event, Progress, Propose
from nas_core.granularity.control import LambdaControl
from nas_core.granularity.finishing import enough, meet
from nas_core.granularity.gates import CellGates
from nas_core.granularity.layout import Granular, as_derived, base_widths, ends, first_cells, full_types, tables_of
from nas_core.granularity.learner import Learner, Rates, misclassified
from nas_core.granularity.masked import Subnet
from nas_core.granularity.measure import Measure, all_filters, reachable
from nas_core.granularity.narrowing import inherited, rebuilt
from nas_core.granularity.regrowth import Survivors, regrown
from nas_core.granularity.retention import retention
from nas_core.granularity.slots import Levels, Slot, is_convolution, slot_of
from nas_core.granularity.spent import cost_of
from nas_core.granularity.widths import channels, widths
from nas_core.masks import Masks, masked
from nas_core.network import Network
from nas_core.recipe import ShortTraining
from nas_core.scoring import data_values
from nas_core.search import Problem, Search
from nas_core.training import seed_of
from nas_core.values import GOALS

SILENT = 0.005
"""Nats below those of a guess, within which a network says nothing."""


class Ratios(Protocol):
    """Shares that each commit of the foil keeps of what is alive."""

    @property
    def ops(self) -> float: ...
    @property
    def filters(self) -> float: ...
    @property
    def weights(self) -> float: ...


@dataclass(frozen=True)
class Plan:
    """What a trajectory goes by."""

    targets: tuple[float, ...]
    """Costs below which a network is wanted, descending."""
    shares: tuple[float, ...]
    """Of a stage's cost at its start, below which it ends."""
    initial: int
    """Epochs of a phase in which weights alone learn."""
    every: int
    """Epochs between commits."""
    control: tuple[float, float, int]
    """First step, factor and few ops of LambdaControl."""
    by_cost: float
    regrow: float
    reprune: bool
    levels: Levels
    rates: Rates
    batch: int
    cutout: int
    parts: tuple[float, float]
    """Shares of the training and of the validation part that are used."""
    ratios: Ratios | None
    exact: bool
    """Whether commits of the final phase take no more ops than their target asks for."""
    finish: bool
    """Whether ops go by their scores where epochs end above a target."""
    seed_training: ShortTraining


@dataclass(frozen=True)
class Candidate:
    """A network that stands for the present state."""

    genotype: Genotype
    """It names its masks."""
    masks: Masks | None
    """Weight masks; None where no weight is masked."""


class Trajectory:
    """The sub-net of the present phase, its learner, and where in the phase it is."""

    def __init__(self, plan: Plan, problem: Problem[Granular], measure: Measure) -> None:
        """Raises InvalidSettingsError for targets that no network meets, or that every one does."""
        self.plan, self.problem, self.measure = plan, problem, measure
        self.skeleton, self.target = problem.skeleton, problem.targets[0]
        self.tables = tables_of(problem.space)
        self.full = full_types(problem.space, self.skeleton)
        self.base = base_widths(self.full, self.skeleton)
        self.ends = ends(len(self.skeleton.cells), len(plan.shares))
        self.limit = max(1, problem.budget.evaluations - len(problem.seeds))
        """Most networks that are proposed."""
        self._check(plan.targets)
        if self.target.channels != self.skeleton.channels:
            problem.warn(
                f"mgas finds the widths of cells itself, for {self.skeleton.channels} channels; at a target of "
                f"{self.target.channels} the stem alone is another"
            )
        self.augmentation = replace(problem.splits.augmentation, cutout=plan.cutout)
        splits, (train, validation) = problem.splits, plan.parts
        self.train = share_of(splits.train, train, seed_of(problem.seed, "train share"))
        self.validation = share_of(splits.validation, validation, seed_of(problem.seed, "validation share"))
        self.chance = torch.Generator().manual_seed(seed_of(problem.seed, "order"))
        self.done = 0
        """Epochs of all phases."""
        self.served = 0
        """Targets that are met, or given up."""
        self.derived: dict[str, Genotype] = {}
        self.finished = False
        end = self.ends[0]
        self.learner = Learner(
            Subnet(
                self.full,
                first_cells(self.skeleton, end),
                self.tables,
                plan.levels,
                seed_of(problem.seed, "supernet"),
                problem.device,
                self._stage(0),
            ),
            plan.rates,
            problem.pieces,
        )
        self._enter(0)

    def _check(self, targets: tuple[float, ...]) -> None:
        filters, space = self.plan.levels.filters, self.problem.space
        floor, ceiling = reachable(self.measure, space, self.skeleton, self.target, filters)
        for target in targets:
            if not floor < target <= ceiling:
                raise InvalidSettingsError(
                    f"targets: {target:.12g} cannot be reached by pruning: the smallest network costs {floor:.12g}, "
                    f"the full one {ceiling:.12g}"
                )
        if len(targets) > self.limit:
            raise InvalidSettingsError(
                f"targets: {len(targets)} networks are wanted, but budget.evaluations leaves {self.limit}"
            )
        derived = as_derived(self.full, self.skeleton)
        ops = [(site, edge) for site in sites(derived, self.target) for edge in derived[site.type].edges]
        every = [self.measure.op(site, derived[site.type], edge, all_filters(site, edge)) for site, edge in ops]
        self.mean_cost = float(np.mean(every)) or 1.0
        """Of an op of the full network."""

    # --- where it is --------------------------------------------------------------------------------------------

    @property
    def net(self) -> Subnet:
        return self.learner.net

    @property
    def final(self) -> bool:
        """Whether this is the phase of the whole network down to its targets."""
        return self.phase == len(self.ends)

    @property
    def name(self) -> str:
        return "final" if self.final else f"stage {self.phase + 1}"

    def _stage(self, phase: int) -> int | None:
        """Which head a phase has: the network's own from the last stage on."""
        return phase if phase < len(self.ends) - 1 else None

    @property
    def end(self) -> int:
        """The last position of the present cells."""
        return len(self.net.sites) - 1

    @property
    def newest(self) -> int:
        """The first position that this phase added; in the final phase 0: all cells count."""
        return 0 if self.final or self.phase == 0 else self.ends[self.phase - 1] + 1

    @property
    def settles(self) -> bool:
        """Whether the phase ends with an epoch without commit and then regrowth."""
        return not self.final and self.phase > 0 and self.plan.regrow > 0

    def cost(self) -> float:
        """Of the present cells by their committed masks, in the measure's unit."""
        return cost_of(self.measure, self.net, first_cells(self.target, self.end), self.final, (self.end,))

    def _enter(self, phase: int) -> None:
        self.phase, self.pruned, self.settling = phase, 0, False
        left = self.problem.budget.epochs - self.done
        if self.final:
            self._begin(self.plan.targets[0], _share(left, len(self.plan.targets)))
            return
        budget = self.plan.shares[phase] * self.cost()
        if phase == len(self.ends) - 1:  # all cells are there: the largest target is left to the final phase
            around = self.measure.around(self.target, sites(self.net.types, self.target)[-1])
            budget = max(budget, self.plan.targets[0] - around)
        self._begin(budget, left // (len(self.ends) + 1 - phase))

    def _begin(self, budget: float, cap: int) -> None:
        """With a new budget, to be met in ``cap`` epochs: thresholds and lambda start anew, the weights alone first."""
        self.budget, self.cap, self.silent = budget, cap, False
        self.epochs = 0
        """Since this budget was set."""
        self.initial = min(self.plan.initial, cap // 3)
        start, factor, few = self.plan.control
        self.control = LambdaControl(start, factor, few)
        self.learner.thresholds_anew()
        self._price()

    def _price(self) -> None:
        """Costs of ops for the regulariser: by mean cost of an op of the full network."""
        self.costs: list[Tensor] = []
        if not self.plan.by_cost:
            return
        for site, gates in zip(sites(self.net.types, first_cells(self.target, self.end)), self.net.gates, strict=True):
            table = np.zeros(gates.table.shape, dtype=np.float32)
            cell = self.net.types[site.type]
            for edge in cell.edges:
                cost = self.measure.op(site, replace(cell, pool_norm=True), edge, all_filters(site, edge))
                table[gates.table.place(slot_of(edge))] = cost / self.mean_cost
            self.costs.append(torch.from_numpy(table).to(gates.alpha.device))

    # --- the search ---------------------------------------------------------------------------------------------

    def search(self, resume: Mapping[str, Any] | None = None) -> Search:
        if resume:
            self.resume(resume)
        while not self.cap and not self.finished:
            self._leave()
        while not self.finished:
            if self.done and self.problem.time_is_up():
                break
            metrics = self._epoch()
            phase = self.name
            yield from self._after(metrics)
            yield Progress(phase, self.done, self.problem.budget.epochs, metrics)
            yield Checkpoint(self.state())
        if self.served < len(self.plan.targets) or not self.derived:
            yield from self._close()
        seeds = tuple(seed for seed in self.problem.seeds if seed.key() not in self.derived)
        if seeds:
            yield Propose(seeds, train=self.plan.seed_training)

    def _epoch(self) -> dict[str, float]:
        plan, problem, learner = self.plan, self.problem, self.learner
        learner.start(self.epochs >= self.initial, plan.ratios is None)
        per_epoch = max(1, self.train.size // plan.batch)
        batches = self.train.batches(plan.batch, self.chance, self.augmentation, problem.device)
        for index, (images, labels) in enumerate(batches, start=self.done * per_epoch + 1):
            learner.step(images, labels, self.control.value, self.newest, self.costs, plan.by_cost)
            problem.between_steps()
            problem.glance(index, problem.budget.epochs * per_epoch, learner.loss_so_far)
        self.done, self.epochs = self.done + 1, self.epochs + 1
        return {"loss": learner.mean_loss(), "lambda": self.control.value}

    def _after(self, metrics: dict[str, float]) -> Iterator[Event]:
        """What an epoch leads to: a commit, a candidate, the next phase."""
        metrics |= self._left()
        loops = self.epochs - self.initial - 1
        due = loops >= self.plan.every and loops % self.plan.every == 0
        last = self.epochs >= self.cap - (1 if self.settles else 0)
        if self.settling:
            self._regrow_and_leave()
        elif loops >= 0 and (due or last):
            metrics["removed"] = float(self._commit(metrics["loss"], last))
            self._listen(metrics["loss"], metrics["lambda"])
            metrics |= self._left()
            cost = metrics["cost"] = self.cost()
            metrics["budget"] = self.budget
            if self.final:
                yield from self._propose(cost < self.budget)
                self._descend(cost, last)
            elif cost < self.budget or last:
                self._end(cost)
        elif self.final and self.epochs == max(1, self.initial) and self.cost() < self.budget:
            if not self.served:
                self._overshot()
            yield from self._propose()
            self._descend(self.cost(), last)
        while not self.finished and not self.settling and self.epochs >= self.cap:
            self._pass()

    def _left(self) -> dict[str, float]:
        return {"ops": float(self.net.ops), **retention(self.net, self.base)}

    def _commit(self, loss: float, last: bool = False) -> int:
        """Makes masks final; how many ops went. ``last``: there are no more epochs for this budget."""
        plan, first = self.plan, 0 if self.plan.reprune else self.newest
        if plan.ratios is not None:
            removed = self.net.commit_shares(plan.ratios.ops, plan.ratios.filters, plan.ratios.weights, first)
        else:
            below = self.net.below(first)
            self.net.commit_fine(first)
            if self.final and plan.exact:
                below = enough(self.net, below, self.cost, self.budget)
            self.net.remove(below)
            removed = len(below)
            share = 0.5 if self.final else 1.0
            self.control.removed(removed, loss, share * self.learner.mean_term())
        if self.final and last and plan.finish and self.cost() >= self.budget:
            removed += self._finish()
        self.pruned += removed
        self.learner.rest_gone()
        if self.final:
            self._narrow(self.phase, self.end, f"commit {self.done}", carry=True)
        self._price()
        return removed

    def _listen(self, loss: float, strength: float) -> None:
        """Tells, once a phase, that the network has fallen silent: where every gate is closed nothing learns."""
        if self.silent or not strength or loss < math.log(self.skeleton.classes) - SILENT:
            return
        self.silent = True
        self.problem.warn(
            f"mgas: in epoch {self.done} ({self.name}) the network says the same of all images (loss {loss:.3f} nats): "
            "thresholds rose above all scores. Which ops go from here on is chance. Thresholds rise with the sum of "
            f"lambda (now {strength:.3g}) over the steps of a phase: take a smaller lambda_start or lambda_factor"
        )

    def _finish(self, why: str = "epochs ran out") -> int:
        """Meets the budget at once, if what is left can; how many ops went."""
        sizes = sites(self.net.types, self.target)
        ops, did = meet(self.net, self.measure, sizes, self.cost, self.budget)
        if did:
            self.problem.warn(
                f"mgas: {why} before the network was below {self.budget:.6g}; {', '.join(did)} at once. With more "
                "epochs (budget.epochs) it would have been trained down to there"
            )
        return ops

    def _overshot(self) -> None:
        """Tells of targets that the stages left behind."""
        cost = self.cost()
        missed = ", ".join(f"{target:.6g}" for target in self.plan.targets if cost < target)
        self.problem.warn(
            f"mgas: the stages pruned the network to {cost:.6g}, below {missed}: it serves these as it is. Larger rho "
            "leave more to the final phase"
        )

    def _end(self, cost: float) -> None:
        """Of a stage, after the commit that met its budget or was its last."""
        if cost >= self.budget:
            self._give_up(f"its cells cost {cost:.6g}, not below {self.budget:.6g}")
        if self.settles and self.epochs < self.cap:
            self.settling = True
        else:
            self._regrow_and_leave()

    def _regrow_and_leave(self) -> None:
        self._leave(regrow=self.settles)

    def _descend(self, cost: float, last: bool) -> None:
        """To the next target, where this one is met or given up."""
        targets = self.plan.targets
        before = self.served
        while self.served < len(targets) and cost < targets[self.served]:
            self.served += 1
        if self.served == before and last:
            self._give_up(f"the network costs {cost:.6g}, not below {self.budget:.6g}")
            self.served += 1
        if self.served == len(targets):
            self.finished = True
        elif self.served > before:
            left = self.problem.budget.epochs - self.done
            self._begin(targets[self.served], _share(left, len(targets) - self.served))

    def _pass(self) -> None:
        """On to the next phase or target when there are no epochs left for this one."""
        if not self.final:
            self._leave()
        elif self.served + 1 < len(self.plan.targets) and self.done < self.problem.budget.epochs:
            self._descend(float("inf"), last=True)
        else:
            self.finished = True

    def _give_up(self, why: str) -> None:
        more = "More epochs (budget.epochs), a larger lambda_start or a larger few_ops prune more"
        if not self.net.weakest():
            more = (
                "Every node is down to its last op, and not to the cheapest: ops went too fast for that. A smaller "
                "lambda_start, a smaller few_ops or more epochs (budget.epochs) let them compete for longer"
            )
        self.problem.warn(
            f"mgas: {self.name} ends after {self.epochs} epochs without meeting its budget: {why}; what it has is "
            f"kept. {more}"
        )

    def _leave(self, regrow: bool = False) -> None:
        """Regrows, physically removes filters, and builds what the next phase adds."""
        if self.final:
            self.finished = True
            return
        if not self.cap:
            self.problem.warn(
                f"mgas: {self.name} has no epochs: budget.epochs of {self.problem.budget.epochs} are few for "
                f"{len(self.ends)} stages and {len(self.plan.targets)} targets; its cells have learnt nothing there"
            )
        back = self._regrown() if regrow else {}
        phase = self.phase + 1
        end = self.ends[min(phase, len(self.ends) - 1)]
        self._narrow(phase, end, f"phase {phase}", carry=False, back=back)
        self._enter(phase)

    def _regrown(self) -> dict[str, list[Slot]]:
        """Slots that come back, by cell type."""
        ops = list(dict.fromkeys(op for gates in self.net.gates for op in gates.table.ops))

        def spread(gates: CellGates, values: Any) -> Any:
            """(edges, ops of a cell) to columns that are the same for all cells."""
            wide = np.zeros((len(gates.table.edges), len(ops)), dtype=np.asarray(values).dtype)
            wide[:, [ops.index(op) for op in gates.table.ops]] = values
            return wide

        survivors = [
            Survivors(
                spread(gates, gates.alive),
                spread(gates, self.learner.momentum(gates.alpha).cpu().numpy().astype(np.float64)),
                spread(gates, gates.alpha.detach().sigmoid().cpu().numpy().astype(np.float64)),
                spread(gates, np.ones(gates.table.shape, dtype=bool)),
            )
            for gates in self.net.gates
        ]
        rng = np.random.default_rng(seed_of(self.problem.seed, "regrowth", self.phase))
        found: dict[str, list[Slot]] = {}
        for cell, row, column in regrown(survivors, int(self.plan.regrow * self.pruned), rng):
            target, source = self.net.gates[cell].table.edges[row]
            found.setdefault(self.net.skeleton.cells[cell], []).append((target, source, ops[column]))
        return found

    def _narrow(
        self, phase: int, end: int, seed: str, carry: bool, back: Mapping[str, list[Slot]] | None = None
    ) -> None:
        """Physically, to the cells up to ``end``, with ops that come ``back``; the last cell keeps its width."""
        old = self.net
        types: dict[str, CellType] = {**self.full, **widths(old, self.base, (self.end,))}
        for name, slots in (back or {}).items():
            types[name] = replace(types[name], edges=(*types[name].edges, *(Edge(*slot) for slot in slots)))
        new = rebuilt(
            old,
            types,
            first_cells(self.skeleton, end),
            channels(old, types),
            seed_of(self.problem.seed, "supernet", seed),
            self._stage(phase),
        )
        rates, pieces = self.plan.rates, self.problem.pieces
        self.learner = self.learner.over(new) if carry else Learner(new.net, rates, pieces)

    def _close(self) -> Iterator[Event]:
        """Without another epoch: the network as it is, and what ``finish`` makes of it for targets to come."""
        self._hurry()
        yield from self._propose(not self.derived)
        why = "epochs ran out" if self.done >= self.problem.budget.epochs else "time was up"
        for target in self.plan.targets[self.served :]:
            self.budget = target
            if self.cost() >= target and self.plan.finish:
                self._finish(why)
                self._narrow(self.phase, self.end, f"target {target}", carry=True)
            if self.cost() < target:
                yield from self._propose()
            else:
                self.problem.warn(
                    f"mgas: {why} before the network was below {target:.6g}; it costs {self.cost():.6g}"
                    + ("" if self.plan.finish else ", and finish is off")
                )
            self.served += 1

    def _hurry(self) -> None:
        """To the whole network without another epoch."""
        if not self.final:
            self.problem.warn(f"mgas: the search ends in {self.name}; cells behind it have not learnt anything")
        while not self.final:
            self._leave()

    # --- candidates ---------------------------------------------------------------------------------------------

    def candidate(self) -> Candidate:
        """What the present state would be as a network. Of the whole network, after filters were removed."""
        types = as_derived(widths(self.net, self.base, (self.end,)), self.skeleton)
        genotype = Genotype("darts", types)
        masks = {}
        for position in range(len(self.net.sites)):
            before = {slot_of(edge): place for place, edge in enumerate(self.net.cell(position).edges)}
            for place, edge in enumerate(types[self.skeleton.cells[position]].edges):
                if is_convolution(edge.op) and self.plan.levels.weights:
                    for name in self.net.kernels(position, before[slot_of(edge)]):
                        inside = name.split(".", 4)[4]
                        masks[f"cells.{position}.ops.{place}.{inside}"] = self.net.kept[name]
        return Candidate(*masked(genotype, masks))

    def inherited(self, genotype: Genotype) -> dict[str, Tensor]:
        """Weights for ``Network(architecture)`` of the candidate, to go on from."""
        return inherited(self.net, Network(Architecture(genotype, self.skeleton)))

    def _propose(self, needed: bool = True) -> Iterator[Event]:
        """The present network, if it is new. One that meets a target always has room, others what these leave."""
        candidate = self.candidate()
        genotype = candidate.genotype
        waiting = 0 if needed else len(self.plan.targets) - self.served
        if genotype.key() in self.derived or len(self.derived) + waiting >= self.limit:
            return
        problem = self.problem
        error = misclassified(self.net, self.validation, problem.device, problem.pieces)
        problem.between_steps()
        detail: dict[str, Any] = {"epochs": self.done, "split": "validation", "n": self.validation.size}
        cost, targets = self.cost(), self.plan.targets
        if len(targets) > 1 and cost < targets[0]:
            detail[GOALS] = [sum(cost < target for target in targets)]
        values = data_values(problem, error, detail, self.plan.batch)
        yield Propose((genotype,), (values,), masks=(candidate.masks,), weights=(self.inherited(genotype),))
        self.derived[genotype.key()] = genotype

    # --- safe points --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "types": genotype_to_json(Genotype("darts", self.net.types)),
            "control": asdict(self.control),
            "chance": self.chance.get_state(),
            "derived": [genotype_to_json(genotype) for genotype in self.derived.values()],
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    _PLAIN = (
        "phase",
        "epochs",
        "done",
        "cap",
        "initial",
        "budget",
        "pruned",
        "settling",
        "silent",
        "served",
        "finished",
    )

    def resume(self, state: Mapping[str, Any]) -> None:
        for name in self._PLAIN:
            setattr(self, name, state[name])
        types = genotype_from_json(state["types"]).types
        end = self.ends[min(self.phase, len(self.ends) - 1)]
        net = Subnet(
            types,
            first_cells(self.skeleton, end),
            self.tables,
            self.plan.levels,
            0,
            self.problem.device,
            self._stage(self.phase),
        )
        self.learner = Learner(net, self.plan.rates, self.problem.pieces)
        self.learner.resume(state["learner"])
        self.control = LambdaControl(**state["control"])
        self.chance.set_state(state["chance"])
        self.derived = {genotype.key(): genotype for genotype in map(genotype_from_json, state["derived"])}
        self._price()


def _share(left: int, parts: int) -> int:
    """Epochs of the next of several parts: one at least where any are left."""
    return min(left, max(1, left // parts))
