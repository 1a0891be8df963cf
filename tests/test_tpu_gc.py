"""``gc`` with the real client against a server that speaks the Cloud TPU API's gRPC."""

from concurrent import futures

import pytest

from sft.errors import UserError
from tpu import gc
from tpu.job import LABEL, LABEL_BY, LABEL_FROM, here

pytestmark = pytest.mark.cloud

PARENT = "projects/p/locations/z"
STATES = (
    *("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
    *("SUSPENDING", "SUSPENDED", "FAILED", "DELETING"),
)
PAGE = 3  # resources on one


def labels(job: str, by: str = "skypilot", where: str = "") -> dict[str, str]:
    return {LABEL: job, LABEL_BY: by, LABEL_FROM: where or here()}


class Server:
    """The four methods that ``gc`` may call, in memory; what is deleted is remembered."""

    def __init__(self):
        self.requests, self.nodes = {}, {}
        self.deleted: list[tuple[str, bool]] = []
        self.vanishing: set[str] = set()  # listed, and gone when it is to be deleted
        self.pages = 0
        self.refusing = False

    def add(self, name, state, label=None, node="READY", job_of=None):
        """A request with its node; ``node`` is its state, or ``None`` = there is none."""
        from google.cloud import tpu_v2 as api

        label = labels(name) if label is None else label
        spec = {"parent": PARENT, "node_id": name, "node": {"labels": label}}
        request = api.QueuedResource(
            name=f"{PARENT}/queuedResources/{name}-q",
            tpu={"node_spec": [spec]},
            state={"state": state},
        )
        self.requests[request.name] = request
        if node:
            self.add_node(name, node, label, request.name)

    def add_node(self, name, state, label, request=""):
        from google.cloud import tpu_v2 as api

        full = f"{PARENT}/nodes/{name}"
        self.nodes[full] = api.Node(name=full, state=state, labels=label, queued_resource=request)

    def _page(self, rows, request):
        self.pages += 1
        start = int(request.page_token or 0)
        more = str(start + PAGE) if start + PAGE < len(rows) else ""
        return list(rows)[start : start + PAGE], more

    def list_queued_resources(self, request, context):
        import grpc
        from google.cloud import tpu_v2 as api

        if self.refusing:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "tpu.queuedResources.list denied")
        assert request.parent == PARENT
        rows, more = self._page(self.requests.values(), request)
        return api.ListQueuedResourcesResponse(queued_resources=rows, next_page_token=more)

    def list_nodes(self, request, context):
        from google.cloud import tpu_v2 as api

        rows, more = self._page(self.nodes.values(), request)
        return api.ListNodesResponse(nodes=rows, next_page_token=more)

    def delete(self, request, context):
        import grpc
        from google.longrunning import operations_pb2

        if request.name in self.vanishing:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such resource")
        self.deleted.append((request.name, getattr(request, "force", False)))
        return operations_pb2.Operation(name=f"{PARENT}/operations/1")


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def client(server):
    grpc = pytest.importorskip("grpc")
    from google.cloud import tpu_v2 as api
    from google.cloud.tpu_v2.services.tpu.transports import TpuGrpcTransport

    def method(call, read, written):
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=read.deserialize, response_serializer=written
        )

    def raw(message):
        return message.SerializeToString()

    handlers = {
        "ListQueuedResources": method(
            server.list_queued_resources,
            api.ListQueuedResourcesRequest,
            api.ListQueuedResourcesResponse.serialize,
        ),
        "ListNodes": method(
            server.list_nodes, api.ListNodesRequest, api.ListNodesResponse.serialize
        ),
        "DeleteQueuedResource": method(server.delete, api.DeleteQueuedResourceRequest, raw),
        "DeleteNode": method(server.delete, api.DeleteNodeRequest, raw),
    }
    running = grpc.server(futures.ThreadPoolExecutor(2))
    running.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("google.cloud.tpu.v2.Tpu", handlers),)
    )
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield api.TpuClient(transport=TpuGrpcTransport(channel=channel))
    running.stop(None)


def collect(client, running: set[str] | None = frozenset(), go: bool = True):
    return gc.collect(client, "p", ["z"], go, lambda: (running, "" if running is not None else "?"))


def deleted(server) -> set[str]:
    return {name.rpartition("/")[2] for name, _ in server.deleted}


def test_all_nine_states_of_jobs_that_are_under_way(server, client, capsys):
    for state in STATES:
        server.add(state.lower(), state)
    found = collect(client, {state.lower() for state in STATES})
    assert {each.state for each in found} == set(STATES)
    assert deleted(server) == {"suspended-q", "failed-q"}
    assert all(force for _, force in server.deleted)
    assert server.pages > 4  # nine of each, three on a page
    assert capsys.readouterr().out.count("its job is under way") == 5


def test_all_nine_states_of_jobs_that_are_over(server, client):
    for state in STATES:
        server.add(state.lower(), state)
    collect(client, {"another"})
    gone = {f"{state.lower()}-q" for state in STATES} - {"suspending-q", "deleting-q"}
    assert deleted(server) == gone


def test_nothing_alive_is_unowned_while_sky_cannot_be_asked(server, client, capsys):
    for state in STATES:
        server.add(state.lower(), state)
    collect(client, None)
    assert deleted(server) == {"suspended-q", "failed-q"}
    assert "not known (?): nothing alive is called unowned" in capsys.readouterr().out


def test_a_request_whose_node_is_gone_is_a_leak_even_of_a_job_under_way(server, client):
    server.add("leaked", "ACTIVE", node=None)
    server.add("preempted", "ACTIVE", node="PREEMPTED")
    server.add("fine", "ACTIVE")
    collect(client, {"leaked", "preempted", "fine"})
    assert deleted(server) == {"leaked-q", "preempted-q"}


def test_what_has_not_our_label_is_never_touched(server, client):
    for state in STATES:
        server.add(f"foreign-{state.lower()}", state, label={"owner": "somebody"}, node=None)
    server.add_node("foreign", "PREEMPTED", {"owner": "somebody"})
    server.add_node("bare", "READY", {})
    assert collect(client) == []
    assert server.deleted == []


def test_what_others_or_other_tools_started_is_left_alive(server, client):
    server.add("colleague", "ACTIVE", labels("colleague", where="ada-laptop"))
    server.add("by-hand", "ACTIVE", labels("by-hand", by="gcloud"))
    server.add("by-hand-dead", "SUSPENDED", labels("by-hand-dead", by="gcloud"))
    collect(client)
    assert deleted(server) == {"by-hand-dead-q"}


def test_nodes_without_a_request(server, client):
    for state in ("READY", "PREEMPTED", "TERMINATED", "DELETING"):
        server.add_node(state.lower(), state, labels(state.lower()))
    server.add_node("running", "READY", labels("running"))
    server.add_node("new", "CREATING", labels("new"), request=f"{PARENT}/queuedResources/new-q")
    collect(client, {"running"})
    assert deleted(server) == {"ready", "preempted", "terminated"}


def test_without_go_nothing_is_deleted(server, client, capsys):
    server.add("dead", "FAILED")
    (found,) = collect(client, go=False)
    assert not found.is_left and server.deleted == []
    assert "1 to delete." in capsys.readouterr().out


def test_what_is_gone_already_is_success_and_the_rest_goes_on(server, client, capsys):
    for name in ("first", "second", "third"):
        server.add(name, "SUSPENDED", node=None)
    server.vanishing.add(f"{PARENT}/queuedResources/second-q")
    collect(client)
    assert deleted(server) == {"first-q", "third-q"}
    assert "second-q was gone already" in capsys.readouterr().out


def test_sky_is_asked_only_after_the_resources_were_listed(server, client):
    """A job submitted in between must not lose its slice."""
    server.add("mine", "ACTIVE")

    def ask():
        assert server.pages == 2
        return {"mine"}, ""

    gc.collect(client, "p", ["z"], True, ask)
    assert server.deleted == []


def test_what_the_api_refuses_is_said(server, client):
    server.refusing = True
    with pytest.raises(UserError, match=r"Cloud TPU API: .*403.*tpu.queuedResources.list denied"):
        collect(client)
