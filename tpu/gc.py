"""Finds TPUs and requests for them that nobody will use, and deletes them with ``--go``.

SkyPilot deletes nodes and leaves their queued resources, which eat quota; it gives up waiting
without cancelling, so that a late grant is billed to nobody's use. What is judged here is the
project's state, not a file of ours: only what carries our label is looked at, and only what is
certain is called dead.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sft.errors import UserError
from tpu import skypilot
from tpu.job import LABEL, LABEL_BY, LABEL_FROM, here

if TYPE_CHECKING:
    from google.cloud.tpu_v2 import Node, QueuedResource, TpuClient  # ty: ignore[import-not-found]

_DEAD = ("SUSPENDED", "FAILED")
_COMING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
_GOING = ("SUSPENDING", "DELETING")
_NODE_GONE = ("PREEMPTED", "TERMINATED")
_NODE_GOING = ("DELETING",)
Unfinished = Callable[[], tuple[set[str] | None, str]]


@dataclasses.dataclass(frozen=True)
class Found:
    """One resource with our label.

    Attributes:
      kind: ``queued resource`` or ``node``.
      name: in full, ``projects/…``.
      job: its label.
      reason: why it is deleted or left.
    """

    kind: str
    name: str
    job: str
    state: str
    is_left: bool
    reason: str


def client() -> "TpuClient":
    """The Cloud TPU API, with the person's credentials.

    Raises:
      UserError: the package is not installed, or there are no credentials.
    """
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.tpu_v2 import TpuClient  # ty: ignore[import-not-found]
    except ImportError:
        raise UserError(
            "gc needs google-cloud-tpu: SFT_ENVIRONMENT=.venv-cloud source scripts/env.sh submit."
        ) from None
    try:
        return TpuClient()
    except DefaultCredentialsError:
        raise UserError(
            "no Google Cloud credentials. Run: gcloud auth application-default login."
        ) from None


def collect(
    tpus: "TpuClient",
    project: str,
    zones: Iterable[str],
    go: bool,
    unfinished: Unfinished = skypilot.unfinished,
) -> list[Found]:
    """Lists what carries our label, says why, and with ``go`` deletes what nobody will use.

    Raises:
      UserError: the API refuses; what it says.
    """
    from google.api_core import exceptions

    found: list[Found] = []
    try:
        for zone in zones:
            found += look(tpus, f"projects/{project}/locations/{zone}", unfinished)
        for each in found:
            print(
                f"{'left   ' if each.is_left else 'delete '} {each.kind} {each.name} "
                f"({each.job}, {each.state}): {each.reason}"
            )
            if go and not each.is_left:
                _delete(tpus, each)
    except exceptions.GoogleAPICallError as error:
        raise UserError(f"Cloud TPU API: {error}") from None
    count = sum(not each.is_left for each in found)
    print(f"{len(found)} with the label {LABEL}; {count} {'deleted' if go else 'to delete'}.")
    if count and not go:
        print("Nothing was deleted: --go does it.")
    return found


def look(tpus: "TpuClient", parent: str, unfinished: Unfinished) -> list[Found]:
    """Judges what there is in one zone.

    The order matters. Nodes after requests: a request that becomes active in between is seen
    before its node is. Jobs last: what was seen had its job already, if it has one.
    """
    requests = [each for each in tpus.list_queued_resources(parent=parent) if _label(each)]
    nodes = list(tpus.list_nodes(parent=parent))
    ours = [node for node in nodes if LABEL in node.labels]
    if not requests and not ours:
        return []
    running, why = unfinished()
    if running is None:
        print(f"Which jobs are under way is not known ({why}): nothing alive is called unowned.")
    states = {_last(node.name): node.state.name for node in nodes}
    found = [_judge_request(each, states, running) for each in requests]
    of_request = {node_id for each in requests for node_id in _node_ids(each)}
    found += [
        _judge_node(node, running)
        for node in ours
        if not node.queued_resource and _last(node.name) not in of_request
    ]
    return found


def _judge_request(
    request: "QueuedResource", nodes: dict[str, str], running: set[str] | None
) -> Found:
    labels = request.tpu.node_spec[0].node.labels
    state = request.state.state.name
    there = [nodes[each] for each in _node_ids(request) if each in nodes]

    def judged(is_left: bool, reason: str) -> Found:
        return Found("queued resource", request.name, labels[LABEL], state, is_left, reason)

    if state in _DEAD:
        return judged(False, "dead, and counts against the quota")
    if state in _GOING:
        return judged(True, "ends by itself; look again")
    if state == "ACTIVE" and not there:
        return judged(False, "its node is gone, and it counts against the quota")
    if state == "ACTIVE" and all(each in _NODE_GONE for each in there):
        return judged(False, f"its node is {there[0].lower()}")
    if state in _COMING or state == "ACTIVE":
        return judged(*_ownership(labels, running))
    return judged(True, "its state is not known here")


def _judge_node(node: "Node", running: set[str] | None) -> Found:
    state = node.state.name

    def judged(is_left: bool, reason: str) -> Found:
        return Found("node", node.name, node.labels[LABEL], state, is_left, reason)

    if state in _NODE_GONE:
        return judged(False, "it will not come back")
    if state in _NODE_GOING:
        return judged(True, "ends by itself; look again")
    return judged(*_ownership(node.labels, running))


def _ownership(labels, running: set[str] | None) -> tuple[bool, str]:
    """Whether something alive is left, and why. In doubt it is."""
    if labels.get(LABEL_BY) != skypilot.BY:
        return True, "alive, and not of SkyPilot: whether it is wanted is not known"
    if labels.get(LABEL_FROM) != here():
        return True, f"alive, submitted from {labels.get(LABEL_FROM) or 'elsewhere'}"
    if running is None:
        return True, "alive; whether its job is under way is not known"
    if labels[LABEL] in running:
        return True, "its job is under way"
    return False, "alive and billed, or soon, but no job of SkyPilot is under way for it"


def _delete(tpus: "TpuClient", found: Found) -> None:
    """Asks for the deletion and does not wait for it; what is gone already is fine.

    Force, because otherwise a request with nodes left is refused.
    """
    from google.api_core import exceptions
    from google.cloud.tpu_v2 import DeleteQueuedResourceRequest  # ty: ignore[import-not-found]

    try:
        if found.kind == "node":
            tpus.delete_node(name=found.name)
        else:
            tpus.delete_queued_resource(
                request=DeleteQueuedResourceRequest(name=found.name, force=True)
            )
    except exceptions.NotFound:
        print(f"        {found.name} was gone already")


def _label(request: "QueuedResource") -> str:
    """Our label, if all nodes asked for carry it."""
    specs: Sequence = request.tpu.node_spec
    labels = {spec.node.labels.get(LABEL, "") for spec in specs}
    return labels.pop() if len(labels) == 1 else ""


def _node_ids(request: "QueuedResource") -> list[str]:
    """The nodes of a request: named, or with a common beginning and a number."""
    found = []
    for spec in request.tpu.node_spec:
        several = spec.multislice_params
        if several.node_count:
            found += [f"{several.node_id_prefix}-{n}" for n in range(several.node_count)]
        else:
            found.append(spec.node_id)
    return found


def _last(name: str) -> str:
    return name.rpartition("/")[2]
