"""What holds a prediction up, in a sentence, with what to change."""

from __future__ import annotations

from collections.abc import Sequence

from thresher.plan.predict import Job, Prediction
from thresher.plan.profile import Profile
from thresher.plan.words import duration, size


def advice(found: Sequence[Prediction], job: Job, profile: Profile) -> str:
    """One or two sentences on the largest number of nodes, and on where another bottleneck began.

    Args:
        found: predictions by ascending number of nodes, at least one.
        job: what they are of.
        profile: measured.
    """
    last = found[-1]
    text = f"On {_nodes(last.nodes)} {_what(last)}: {_change(last, job, profile)}"
    same = next(
        place
        for place in range(len(found))
        if all(p.bottleneck == last.bottleneck for p in found[place:])
    )
    if same > 0:
        text += (
            f" Up to {_nodes(found[same - 1].nodes)} it is {_NAMES[found[same - 1].bottleneck]}."
        )
    unfit = [p for p in found if p.fits is False]
    if unfit:
        worst = max(unfit, key=lambda p: p.memory)
        text += (
            f" {size(worst.memory)} per process on {_nodes(worst.nodes)} do not fit into"
            f" {size(job.memory or 0)}: fewer images per process, or more nodes."
        )
    if last.batch > job.images:
        text += (
            f" A step on {_nodes(last.nodes)} takes {last.batch:,} images, more than the"
            f" {job.images:,} there are: fewer images per process, or fewer nodes."
        )
    return text


_NAMES = {
    "step": "the networks' own work",
    "decode": "decoding",
    "storage": "reading from storage",
    "exchange": "the exchange of gradients",
    "stragglers": "waiting for the slowest process",
}
_HOLDS_UP = {
    "step": "the networks' own work takes most of a step",
    "decode": "decoding holds the step up",
    "storage": "reading from storage holds the step up",
    "exchange": "the exchange is what a step waits for most",
    "stragglers": "the slowest process is what a step waits for most",
}


def _what(last: Prediction) -> str:
    pieces = {
        "step": last.compute,
        "decode": last.decode,
        "storage": last.storage,
        "exchange": last.exposed,
        "stragglers": last.straggling,
    }
    took = f"{duration(pieces[last.bottleneck])} of {duration(last.step)}"
    return f"{_HOLDS_UP[last.bottleneck]} ({took})"


def _nodes(nodes: int) -> str:
    return f"{nodes:,} node{'s' * (nodes > 1)}"


def _change(last: Prediction, job: Job, profile: Profile) -> str:
    if last.bottleneck == "step":
        if last.efficiency < 0.9:
            return (
                f"more nodes still help, at {last.efficiency:.0%} efficiency; more images per"
                " process would raise it."
            )
        return "more nodes, or faster ones, help."
    if last.bottleneck == "decode":
        more = "--cached true" if not job.cached else "smaller images (thresher pack)"
        cores = " more --decode-cores," if profile.decodes_beside else ""
        return f"try{cores} {more}, or packed images."
    if last.bottleneck == "storage":
        return "pack the images smaller (thresher pack), or keep them with --cached true."
    if last.bottleneck == "exchange":
        return _quicker_exchange(last, job, profile)
    return "steadier processes help; more images per process do not."


def _quicker_exchange(last: Prediction, job: Job, profile: Profile) -> str:
    ways = ["more images per process"]
    if profile.networks == 2 and job.placement != "apart":
        ways.append("--placement apart")
    # Messages follow one another: where they take most of the time, bytes and wires matter little.
    waits_for_messages = last.latency > last.exchange / 2
    if waits_for_messages and not profile.decodes_beside:
        ways.append("fewer processes of more cores each")
    ways.append("a link of less latency" if waits_for_messages else "a faster link")
    return f"{', '.join(ways[:-1])} or {ways[-1]} help; more nodes do not."
