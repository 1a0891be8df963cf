"""``sft eval judge`` against endpoints that fail, are busy, go down and talk nonsense."""

import json
import signal
import threading

import pytest
from judge_server import serving
from judged_run import command, honest, result, run

from sft.eval.judge import remote

__all__ = ["run"]  # a fixture


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_scores(run, capsys, backend):
    with serving(honest) as (server, url):
        assert command(run, url, backend=backend) == 0
    found = result(run)
    assert found["score"] == pytest.approx((2 * 1 + 6 * 5) / 8)
    assert found["distribution"] == {"1": 2, "2": 0, "3": 0, "4": 0, "5": 6}
    low, high = found["interval"]
    assert 1 <= low < found["score"] < high <= 5
    assert (found["count"], found["failures"], found["problems"]) == (8, 0, {})
    assert found["cost"] == {
        "replies": 8,
        "tokens_in": 800,
        "tokens_out": 80,
        "price": pytest.approx((800 * 2 + 80 * 30) / 1e6),
    }
    assert found["judge"]["model"] == "m" and len(found["judge"]["sha256"]) == 12
    out = capsys.readouterr().out
    assert "8 verdicts, 8 to ask for" in out and "at most 4,096 out" in out
    header = "authorization" if backend == "openai" else "x-goog-api-key"
    assert all("secret-key" in headers[header] for headers in server.headers)
    assert "secret-key" not in out + (run / "eval" / "judge.best.test.json").read_text()
    body = server.bodies[0]
    if backend == "openai":
        assert body["max_tokens"] == 512 and body["temperature"] == 0
    else:
        assert body["generationConfig"] == {"maxOutputTokens": 512, "temperature": 0.0}


def test_verdicts_are_written_row_by_row(run):
    with serving(honest) as (_, url):
        assert command(run, url) == 0
    text = (run / "eval" / "judge.best.test.verdicts.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["score"] for line in lines] == [1, 1, 5, 5, 5, 5, 5, 5]
    assert [line["source"] for line in lines] == [f"t.jsonl:{i}" for i in range(1, 9)]
    assert lines[0]["reason"] == "r" and lines[0]["lengths"] == [1]


def busy(status, headers=None, body=None):
    return status, headers or {}, body or json.dumps({"error": {"message": "later", "code": 1}})


@pytest.mark.parametrize("backend", ["openai", "gemini"])
@pytest.mark.parametrize(
    "trouble",
    [
        busy(429),
        busy(429, {"retry-after": "0.01"}),
        busy(500),
        busy(503),
        busy(502, {"content-type": "text/html"}, "<html>Bad gateway</html>"),
        (200, {}, '{"choices": [{"message"'),
        (200, {}, '{"choices": []}'),
    ],
    ids=["429", "retry-after", "500", "503", "html", "cut", "empty"],
)
def test_trouble_that_passes(run, backend, trouble):
    tried = set()

    def answer(prompt):
        if prompt in tried:
            return honest(prompt)
        tried.add(prompt)
        return trouble

    with serving(answer) as (server, url):
        assert command(run, url, backend=backend) == 0
    assert result(run)["score"] == 4.0
    assert len(server.prompts) == 8 and len(server.requests) == 16
    assert len(set(server.requests)) == 8


def test_the_wait_that_is_asked_for_is_kept(run, monkeypatch):
    waits, wait = [], threading.Event.wait
    monkeypatch.setattr(
        remote.threading.Event, "wait", lambda self, s=None: waits.append(s) or wait(self, 0)
    )
    tried = []

    def answer(prompt):
        tried.append(prompt)
        return busy(429, {"retry-after": "7"}) if len(tried) == 1 else honest(prompt)

    with serving(answer) as (_, url):
        assert command(run, url, "--config.judge.concurrency=1") == 0
    assert 7.0 in waits


def test_geminis_own_way_to_ask_for_a_wait():
    from sft.eval.judge import endpoints

    details = {"error": {"details": [{"@type": "x"}, {"retryDelay": "17.5s"}]}}
    assert remote.retry_after(endpoints._retry_info(details)) == 17.5
    assert endpoints._retry_info({"error": {}}) == endpoints._retry_info(None) == ""


def test_too_long_a_wait_ends_the_run(run, capsys):
    with serving(lambda _: busy(429, {"retry-after": "3600"})) as (_, url):
        assert command(run, url) == 2
    error = capsys.readouterr().err
    assert "asks to wait 3600 s" in error and "0 of 8 replies are kept" in error


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_down_midway_nothing_is_asked_twice(run, capsys, backend):
    """Counts requests: the prompts answered before are not sent again."""

    def down_after_three(prompt):
        return honest(prompt) if len(server.prompts) < 3 else busy(503)

    with serving(down_after_three) as (server, url):
        words = ("--config.judge.attempts=3", "--config.judge.concurrency=2")
        assert command(run, url, *words, backend=backend) == 2
        error = capsys.readouterr().err
        assert "no reply in 3 attempts (HTTP 503: later)" in error
        assert "3 of 8 replies are kept in" in error and "the same command goes on" in error
        assert not (run / "eval" / "judge.best.test.json").exists()
        cache = run / "eval" / "judge.cache.jsonl"
        cache.write_text(cache.read_text() + '{"key": "torn')  # and killed while it was writing
        first = list(server.prompts)
        server.answer = honest
        server.requests.clear()
        assert command(run, url, *words, backend=backend) == 0
    assert len(server.requests) == 5 and not set(server.requests) & set(first)
    assert len(server.prompts) == len(set(server.prompts)) == 8
    assert result(run)["score"] == 4.0
    assert result(run)["cost"]["replies"] == 8
    assert "8 verdicts, 5 to ask for" in capsys.readouterr().out


def test_no_endpoint_at_all(run, capsys):
    with serving(honest) as (_, url):
        pass
    assert command(run, url, "--config.judge.attempts=2") == 2
    error = capsys.readouterr().err
    assert url in error and "no reply in 2 attempts" in error and "0 of 8" in error


def test_again_with_nothing_to_ask(run):
    with serving(honest) as (server, url):
        assert command(run, url) == 0
        made = (run / "eval" / "judge.best.test.json").read_bytes()
        assert command(run, url) == 0
    assert len(server.requests) == 8
    assert (run / "eval" / "judge.best.test.json").read_bytes() == made


def test_interrupted_replies_under_way_are_kept(run, capsys, monkeypatch):
    """Ctrl-C at the fourth request, whose reply comes only after the command has seen it."""
    stops, patiently = [], remote.Endpoint._patiently
    monkeypatch.setattr(
        remote.Endpoint, "_patiently", lambda *args: stops.append(args[2]) or patiently(*args)
    )
    main = threading.main_thread().ident

    def answer(prompt):
        if len(server.requests) == 4:
            signal.pthread_kill(main, signal.SIGINT)
            assert stops[0].wait(60)
        return honest(prompt)

    with serving(answer) as (server, url):
        assert command(run, url, "--config.judge.concurrency=2") == 42
        kept = len(server.prompts)
        assert f"interrupted: {kept} of 8 replies are kept" in capsys.readouterr().err
        assert 4 <= kept <= 5
        server.answer = honest
        assert command(run, url) == 0
    assert len(server.requests) == len(set(server.requests)) == 8


@pytest.mark.parametrize(
    "status, fragments",
    [
        (401, ["HTTP 401", "Check the key in $MY_KEY"]),
        (403, ["HTTP 403", "Check the key in $MY_KEY"]),
        (404, ["HTTP 404", "config.judge.model and config.judge.url"]),
        (400, ["refuses every prompt", "HTTP 400"]),
    ],
)
def test_what_is_not_tried_again(run, capsys, status, fragments):
    with serving(lambda _: busy(status)) as (server, url):
        assert command(run, url, "--config.judge.concurrency=1") == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error
    assert "secret-key" not in error
    assert len(server.requests) == (remote.HOPELESS if status == 400 else 1)


def test_one_prompt_that_is_refused_is_counted(run, capsys):
    def answer(prompt):
        return busy(400) if "letter c" in prompt else honest(prompt)

    with serving(answer) as (_, url):
        assert command(run, url) == 0
    found = result(run)
    assert found["failures"] == 1 and found["score"] == pytest.approx((2 + 25) / 7)
    assert found["problems"] == {"refused: HTTP 400: later": 1}
    assert "1 without a verdict" in capsys.readouterr().out


def test_unusable_verdicts_are_counted(run, capsys):
    def answer(prompt):
        if "letter h" in prompt:
            return "five"
        if "letter g" in prompt and "It cannot be used" not in prompt:
            return '{"reason": "r", "score": 7}'
        return honest(prompt)

    with serving(answer) as (server, url):
        assert command(run, url) == 0
    found = result(run)
    assert found["failures"] == 1 and found["problems"] == {"there is no JSON object in it": 1}
    assert found["score"] == pytest.approx((2 + 25) / 7)
    assert found["asked_again"] == 3 and len(server.requests) == 8 + 3
    assert found["cost"]["replies"] == 11


@pytest.mark.parametrize("judge", ["honest", "first", "tie"])
def test_pairwise(run, judge):
    fixed = {"first": "A", "tie": "tie"}.get(judge)
    answer = honest if fixed is None else lambda _: json.dumps({"reason": "", "winner": fixed})
    with serving(answer) as (server, url):
        assert command(run, url, "--config.judge.mode=pairwise") == 0
    found = result(run, "best_vs_base")
    # Where both arms give the same answer, both orders are the same prompt, which is asked once.
    assert len(server.requests) == len(set(server.requests)) == 4 * 2 + 4
    numbers = [found[name] for name in ("wins", "ties", "losses", "consistency", "position_bias")]
    want = {"honest": [4, 4, 0, 1.0, 0.0], "first": [0, 8, 0, 0.0, 1.0], "tie": [0, 8, 0, 1.0, 0.0]}
    assert numbers == want[judge]
    assert found["win_rate"] == (4 + 4 / 2) / 8 if judge == "honest" else 0.5


def test_delays_grow_up_to_the_limit():
    for attempt, full in enumerate((1, 2, 4, 8, 10, 10)):
        delays = [remote.delay(attempt, 10.0) for _ in range(200)]
        assert full / 2 <= min(delays) < max(delays) <= full


def test_retry_after_may_be_a_date():
    assert remote.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert remote.retry_after("Wed, 21 Oct 2065 07:28:00 GMT") > 8e8
    assert remote.retry_after("") is remote.retry_after("soon") is None
