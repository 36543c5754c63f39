"""TND-NAS: any number of objectives, none of which needs a gradient, on one supernet that shrinks by stages.

B. Lyu, S. Wen et al., "TND-NAS: Towards Non-differentiable Objectives in Progressive Differentiable NAS Framework",
arXiv 2111.03892; details from the first author's code. Weights learn on the relaxed supernet; alpha learns by policy
gradient on architectures drawn from it, each scored on one validation batch and priced as a black box; after each
stage every edge drops its least likely ops, and the supernet grows deeper. The published method is the presets'
settings: one preference, ranked by the supernet, without elites, redraws and samples among the candidates. Several
preferences share the supernet, so that one job gives a front (ours): each has its own alpha, and an op leaves the
supernet when none keeps it. What stands on the front is scored once more, on the same images for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from nas_core.algorithms import algorithms
from nas_core.errors import InvalidSettingsError
from nas_core.events import Checkpoint
from nas_core.merit import Signal
from nas_core.progressive import Run
from nas_core.search import Problem, Relaxable, Search
from nas_core.settings import settings


@algorithms.register("tnd-nas")
@settings
class TndNas:
    """TND-NAS: policy gradient on one shrinking supernet; any cost joins as a black box."""

    preferences: Annotated[int, Ge(1), Le(64)] = 8
    """Trade-offs searched side by side on the one supernet (published: 1; the presets have all that is)."""
    stages: Annotated[int, Ge(1), Le(8)] = 3
    """Each has an equal share of ``budget.epochs``."""
    depths: tuple[Annotated[int, Ge(1), Le(100)], ...] = ()
    """Cells of the supernet in each stage (published: 5, 11, 17); empty: as the space says, in all of them."""
    normal_left: tuple[Annotated[int, Ge(1)], ...] = ()
    """Ops that an edge of the normal cell has left after each stage, 1 after the last; empty: equal steps (5: 3, 2, 1;
    8: 5, 3, 1)."""
    reduce_left: tuple[Annotated[int, Ge(1)], ...] = ()
    """The same of the reduction cell."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.6
    """Share of a stage's epochs in which the weights alone learn."""
    batch: Annotated[int, Ge(2), Le(65_536)] = 64
    """Images of a training batch, and of a validation batch on which one policy step's samples are scored."""
    lr: Annotated[float, Gt(0), Le(10)] = 0.04
    """Initial learning rate of the weights, cosine to 0."""
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 3e-4
    augment: bool = True
    """Whether the data set's own augmentation (crops, flips) is used."""
    shrink: Annotated[int, Ge(1), Le(64)] = 1
    """Images are made this many times smaller on either side, by averaging."""
    weights: Literal["relaxed", "paths"] = "paths"
    """What a weight step trains: one network drawn from what is left, or the softmax mixture of all of it (published),
    which costs what all of it costs and ranks single networks worse."""
    draws: Annotated[int, Ge(1), Le(100)] = 1
    """Networks drawn for a weight step on paths, of which the one with the most multiply-adds is trained."""
    path_explore: Annotated[float, Ge(0), Le(1)] | None = None
    """As ``explore``, of the networks that weight steps on paths draw; default: 1, which trains all that is left alike,
    whatever the policy thinks of it, so that the supernet goes on to rank what the policy has turned from."""
    carry: bool = False
    """Whether weights go on into the next stage, of the same depth; published: each starts anew."""
    average: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay, a step, of the moving average of the weights that networks are scored with; 0: the last weights."""
    alpha_lr: Annotated[float, Gt(0), Le(10)] = 6e-3
    """Learning rate of alpha (Adam, betas 0.5 and 0.999)."""
    alpha_weight_decay: Annotated[float, Ge(0), Lt(1)] = 1e-3
    samples: Annotated[int, Ge(2), Le(1000)] = 10
    """Networks drawn for a policy step."""
    redraws: Annotated[int, Ge(0), Le(1000)] = 10
    """How often a sample is drawn anew where the search has drawn that network before; published: 0. Repeats teach
    alpha nothing new about cells, and take the place of cells that nobody has seen."""
    elites: Annotated[int, Ge(0), Le(1000)] = 5
    """Of the foremost networks seen, how many for each preference raise their own likelihood after every policy step
    (priority queue training, arXiv 1801.03526); each by the preference that thinks most of it. Published: 0."""
    interval: Annotated[int, Ge(1), Le(10_000)] = 1
    """Weight steps for each policy step; preferences take policy steps in turn."""
    share_samples: bool = True
    """Whether every preference learns from each step's samples, whichever drew them: a sample that its own policy would
    draw less often counts as much less (importance weights, at most 1)."""
    explore: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that an edge's op is drawn uniformly instead of from the policy; the gradient takes such samples for
    the policy's own."""
    skip_dropout: tuple[Annotated[float, Ge(0), Lt(1)], ...] = (0.3, 0.6, 0.8)
    """Initial dropout behind skip connections in each stage; stages beyond the last have the last. Empty: none."""
    reward: Literal["sum", "product"] = "sum"
    """How several costs enter: the mean of their power ratios, or the product."""
    exponents: Mapping[str, tuple[Annotated[float, Ge(-20), Le(0)], ...]] = field(default_factory=dict)
    """By objective key, the exponent of its power ratio in each stage (published for params: -0.45, -0.2, -0.25).
    Several preferences take it 0 to 2 times. Empty: spread by how much accuracy and costs vary."""
    references: Mapping[str, tuple[Annotated[float, Gt(0)], ...]] = field(default_factory=dict)
    """By objective key and in its unit, where the ratio is 1, in each stage; left out: the median of random samples."""
    bound_exponent: Annotated[float, Le(0)] = -4.0
    """Of the ratio to a bound that is broken."""
    score: Literal["error", "expected_error"] = "error"
    """What stands for a network's error: the share of images it gets wrong (published), or the mean probability that it
    gives to wrong classes."""
    score_images: Annotated[int, Ge(2)] | None = None
    """Validation images that candidates are scored on in the end, the same ones for all; default: all of them."""
    rescored: Annotated[int, Ge(0), Le(100_000)] = 100
    """Best samples that are scored so, besides what the preferences derive; ``budget.evaluations`` limits both."""
    ranked_by: Mapping[Signal, Annotated[float, Gt(0)]] = field(
        default_factory=lambda: {"supernet": 0.5, "progressivity": 1.0, "synflow": 1.0}
    )
    """What decides how good a network is, with weights: its accuracy on the supernet (published: that alone), and
    scores of the untrained network; several agree by the weighted sum of the logarithms of their ranks."""
    untrained_shrink: Annotated[int, Ge(1), Le(64)] = 1
    """As ``shrink``, of the noise images that untrained networks are shown."""
    untrained_draws: Annotated[int, Ge(1), Le(100)] = 1
    """Initial weights of an untrained network over which its scores are means: of one draw alone they are noisy."""
    final_draws: Annotated[int, Ge(0), Le(100)] = 0
    """Of networks that are scored in the end, untrained scores are taken anew over as many draws; 0: the scores of the
    search stand, by which they were chosen, lucky ones before others."""
    policy_steps: Annotated[int, Ge(1), Le(100_000)] = 40
    """Of each preference, when a job goes on from another's supernet: the weights stay, alpha starts anew."""
    max_skips: Annotated[int, Ge(0)] | None = None
    """Most skip connections of a derived normal cell (P-DARTS, arXiv 1904.12760: 2): the weakest give way; default: any
    number (TND-NAS)."""
    needs: ClassVar[type] = Relaxable
    hands_on: ClassVar[bool] = True
    redone: ClassVar[frozenset[str]] = frozenset(
        {
            "preferences",
            "alpha_lr",
            "alpha_weight_decay",
            "samples",
            "redraws",
            "elites",
            "explore",
            "share_samples",
            "reward",
            "exponents",
            "references",
            "bound_exponent",
            "score_images",
            "rescored",
            "ranked_by",
            "untrained_shrink",
            "untrained_draws",
            "final_draws",
            "policy_steps",
            "max_skips",
        }
    )

    def __post_init__(self) -> None:
        for name in ("depths", "normal_left", "reduce_left"):
            given = getattr(self, name)
            if given and len(given) != self.stages:
                raise InvalidSettingsError(f"{name}: wants one number for each of {self.stages} stages; got {given}")
        for name in ("normal_left", "reduce_left"):
            given = getattr(self, name)
            if given and (given[-1] != 1 or list(given) != sorted(given, reverse=True)):
                raise InvalidSettingsError(f"{name}: never grows, and is 1 after the last stage; got {list(given)}")
        if "supernet" not in self.ranked_by:
            raise InvalidSettingsError(f"ranked_by: 'supernet' must be among them; got {', '.join(self.ranked_by)}")
        if self.carry and len(set(self.depths)) > 1:
            raise InvalidSettingsError(
                f"carry: weights of one depth do not fit another; give equal depths, or none; got {self.depths}"
            )
        if self.weights == "relaxed" and (self.draws > 1 or self.path_explore):
            raise InvalidSettingsError(
                f"draws, path_explore: of networks that weight steps draw, and 'weights: relaxed' draws none; give "
                f"'weights: paths', or neither; got {self.draws} and {self.path_explore}"
            )
        for name in ("exponents", "references"):
            for key, given in getattr(self, name).items():
                if len(given) not in (1, self.stages):
                    raise InvalidSettingsError(
                        f"{name}.{key}: wants one number, or one for each of {self.stages} stages; got {list(given)}"
                    )

    def search(self, problem: Problem[Relaxable], resume: Mapping[str, Any] | None = None) -> Search:
        run = Run(self, problem)
        if problem.inherited is not None:
            run.inherit(problem.inherited)
        if resume:
            run.resume(resume)
        if problem.inherited is not None:
            yield from run.retarget()
        while run.stage < self.stages:
            while run.epochs_done < run.stages.length(run.stage) and not run.time_is_up():
                yield from run.epoch()
                yield Checkpoint(run.state())
            yield from run.close_stage()
            yield Checkpoint(run.state())
        run.step_back()
        if not run.finished:
            yield from run.finish()
            yield Checkpoint(run.state())
