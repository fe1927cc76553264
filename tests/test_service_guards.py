"""Settings, keys, rates and the protocol's guards: what hostile input and hostile clients do to them, against a real server where it matters."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import random
import resource
import socket
import struct
import threading
import time
from collections import Counter

import pytest
import uvicorn
from conftest import size
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from studperf.schema import InputError
from studperf.service import protocol as guards
from studperf.service.keys import Keys, digest_of, new_key
from studperf.service.protocol import make_protocol
from studperf.service.rates import SHARED, Rates, client_of
from studperf.service.settings import Settings, addresses_us, check_closed, read_settings

# --- settings ---------------------------------------------------------------------------------------------------------------

VARIABLES = sorted({name for entry in Settings.__dataclass_fields__.values() for name in entry.metadata["variables"]})


@given(st.dictionaries(st.sampled_from(VARIABLES), st.one_of(st.text(max_size=30), st.integers().map(str), st.floats().map(str))))
def test_any_environment_gives_settings_or_an_error_that_names_each_variable(environ):
    try:
        settings = read_settings(environ)
    except InputError as error:
        assert error.problems and {problem.column for problem in error.problems} <= environ.keys()
    else:
        assert 0 <= settings.port <= 65535 and 0.1 <= settings.seconds <= 3600 and settings.rate >= 0
        assert all(len(digest) == 64 for digest in settings.api_keys)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=12, max_size=80))
def test_no_secret_stands_in_a_refusal_or_in_the_representation(secret):
    for environ in ({"STUDPERF_API_KEYS": secret}, {"STUDPERF_DATABASE": secret}):
        try:
            shown = repr(read_settings(environ))
        except InputError as error:
            shown = str(error) + repr([problem.to_dict() for problem in error.problems])
        assert secret not in shown
    assert secret not in repr(read_settings({"STUDPERF_DATABASE": f"postgresql://ada:{secret}@db/log"}))
    assert secret not in repr(read_settings({"STUDPERF_DATABASE": f"postgresql://db/log?password={secret}"}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "localhost.example.org", "127.1", "::ffff:10.0.0.1"])
def test_another_address_is_closed_unless_somebody_decided_otherwise(host):
    with pytest.raises(InputError) as refused:
        check_closed(read_settings({"HOST": host}))
    assert all(way in str(refused.value) for way in ("STUDPERF_API_KEYS", "--new-key", "--open"))
    for environ in ({"STUDPERF_API_KEYS": "ab" * 32}, {"STUDPERF_OPEN": "1"}):
        check_closed(read_settings({"HOST": host} | environ))
    check_closed(read_settings({"HOST": host}, new_key=True))
    with pytest.raises(InputError):
        check_closed(read_settings({"HOST": host, "STUDPERF_OPEN": "no", "STUDPERF_API_KEYS": " , "}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_needs_no_key(host):
    settings = read_settings({"HOST": host})
    check_closed(settings)
    assert settings.rate == 0 and settings.host in settings.hosts
    assert addresses_us(b"localhost:80", settings.hosts) and not addresses_us(b"rebound.example:80", settings.hosts)


def test_what_was_given_wins_and_misspelt_names_are_said(caplog):
    environ = {"PORT": "1", "STUDPERF_PORT": "2", "STUDPERF_MAXROWS": "5", "STUDPERF_HOST ": "x", "STUDPERF_MODEL": "m", "OTHER": "y"}
    with caplog.at_level(logging.WARNING):
        assert (read_settings(environ, port=3).port, read_settings(environ).port) == (3, 2)
    said = {record.getMessage().split("did you mean ")[1] for record in caplog.records}
    assert said == {"STUDPERF_MAX_ROWS?", "STUDPERF_HOST?"}


@given(st.binary(max_size=40))
@example(b"localhost\n")
@example(b"[::1")
def test_only_a_host_of_ours_addresses_us(header):
    hosts = Settings().hosts
    if addresses_us(header, hosts):
        name = header.lower().rsplit(b":", 1)[0] if not header.lower().startswith(b"[") else header.lower().partition(b"]")[0][1:]
        assert name.removesuffix(b".").decode() in hosts
    assert addresses_us(header, ())


# --- keys -------------------------------------------------------------------------------------------------------------------

KEY, DIGEST = new_key()
KEYS = Keys([new_key()[1], DIGEST, new_key()[1]])


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"Bearer " + b), st.binary(max_size=200).map(lambda b: b"Basic " + b))
)
@example(b"Bearer " + b"\xff" * 10_000)
@example(b"Basic " + base64.b64encode(b"\xff" * 10_000))
@example(b"Basic " + base64.b64encode(b"no colon"))
def test_no_header_raises_and_none_but_ours_comes_in(header):
    assert KEYS.client(header) is None


@given(st.sampled_from([b"Bearer ", b"bearer ", b"BEARER  "]), st.text(max_size=20))
def test_our_key_comes_in_by_both_ways(scheme, user):
    assert KEYS.client(scheme + KEY.encode()) == DIGEST[:8]
    pair = f"{user.replace(':', '')}:{KEY}".encode("utf-8", "replace")
    assert KEYS.client(b"Basic " + base64.b64encode(pair)) == DIGEST[:8]


@given(st.integers(0, len(KEY) - 1), st.integers(33, 126))
def test_a_key_that_differs_in_one_character_stays_out(place, code):
    other = KEY[:place] + chr(code) + KEY[place + 1 :]
    assert (KEYS.client(b"Bearer " + other.encode()) == DIGEST[:8]) == (other == KEY)


def test_new_keys_do_not_repeat_and_do_not_contain_their_digest():
    made = [new_key() for _ in range(200)]
    assert len({key for key, _ in made}) == 200 and all(digest_of(key) == digest and digest not in key for key, digest in made)


# --- rates ------------------------------------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abcdef"), st.floats(0.1, 5)), max_size=120)


@given(STEPS, st.floats(0.1, 50), st.floats(1, 20), st.integers(1, 4))
def test_no_window_holds_more_than_the_burst_and_the_rate(steps, per_second, burst, clients):
    rates, now, served = Rates(per_second, burst=burst, clients=clients), 1000.0, []
    for gap, client, cost in steps:
        now += gap
        if rates.wait(client, now, cost) == 0.0:
            served.append((now, client, min(cost, burst)))
    assert len(rates) <= clients
    for client in "abcdef":
        own = [(at, cost) for at, who, cost in served if who == client]
        for first, (start, _) in enumerate(own):
            total = 0.0
            for at, cost in own[first:]:
                total += cost
                assert total <= burst + per_second * (at - start) + 1e-5


@given(st.floats(0.1, 1000), st.floats(1, 100), st.floats(0.1, 200), st.floats(0, 1e6))
def test_who_waits_as_long_as_was_said_gets_through(per_second, burst, cost, now):
    rates = Rates(per_second, burst=burst)
    while (pause := rates.wait("a", now, cost)) == 0.0:
        pass
    assert pause <= burst / per_second + 1e-6
    assert rates.wait("a", now + pause * 0.9 - 1e-6, cost) > 0 and rates.wait("a", now + pause + 1e-9 * max(1.0, now), cost) == 0.0


def test_cycling_through_addresses_neither_renews_a_bucket_nor_starves_who_is_known():
    rates, rng, now = Rates(1, burst=10, clients=2000), random.Random(0), 0.0
    attacker = neighbour = asked = 0
    for i in range(size(100_000, 1_000_000)):
        now += 1e-4
        rates.wait(f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}", now)
        attacker += rates.wait("attacker", now) == 0.0
        if i % 10_000 == 0:  # once a second, as he may
            asked += 1
            neighbour += rates.wait("neighbour", now) == 0.0
    print(f"in {now:.0f} s of a flood: attacker {attacker} (allowed {10 + now:.0f}), neighbour {neighbour} of {asked}, {len(rates)} remembered")
    assert attacker <= 10 + now + 1 and neighbour == asked and len(rates) <= 2000
    assert len(rates._buckets.shared) == SHARED


@given(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)))
def test_anything_is_some_client(address):
    assert client_of(client_of(address)) == client_of(address)


# --- the protocol: a real server --------------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
BIG = 30_000_000


class Service:
    """A guarded server in a thread, its application, and what it saw."""

    def __init__(self, loop: str, **limits):
        self.refused, self.seen = Counter(), []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address = self.listener.getsockname()
        self.http = make_protocol(refuse=self.refuse, **limits)
        config = uvicorn.Config(
            self.app,
            interface="asgi3",
            http=self.http,
            loop=loop,
            lifespan="off",
            log_config=None,
            access_log=False,
            backlog=2048,
            timeout_keep_alive=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)
        self.thread.start()

    def refuse(self, status: int) -> bytes:
        self.refused[status] += 1
        return guards.plain_problem(status)

    async def app(self, scope, receive, send):
        body, path = b"", scope["path"]
        self.seen.append(scope)
        if path == "/slow":
            await asyncio.sleep(0.3)
        while path in ("/read", "/close-read"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        answer = b"x" * BIG if path == "/big" else b"%d %s" % (len(body), scope["query_string"])
        status = 413 if path.startswith("/refuse") else 200
        headers = [(b"content-length", b"%d" % len(answer))] + [(b"connection", b"close")] * path.endswith("-close")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    @property
    def state(self):
        return self.server.server_state

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(params=["uvloop", "asyncio"])
def serve(request):
    running = []

    def start(**limits) -> Service:
        running.append(Service(request.param, **({"seconds": 0.4} | limits)))
        return running[-1]

    yield start
    for service in running:
        service.stop()


def connect(service: Service) -> socket.socket:
    return socket.create_connection(service.address, timeout=10)


def rest_of(client: socket.socket) -> bytes:
    """Everything until the server closes; a reset is a failure of the test."""
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def answer_of(client: socket.socket) -> bytes:
    """One answer of the small application, on a connection that stays open."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n0 "):
        part = client.recv(1000)
        assert part, answer
        answer += part
    return answer


def say(service: Service, *pieces: bytes, pause: float = 0.0) -> bytes:
    with connect(service) as client:
        for piece in pieces:
            client.sendall(piece)
            if pause:
                time.sleep(pause)
        return rest_of(client)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def is_problem(answer: bytes, status: int) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head and b"connection: close" in head, answer[:300]
    return statuses(answer) == [status] and body == guards.plain_problem(status)


def still_serves(service: Service) -> None:
    """A normal request is answered, and nothing stays behind from what came before."""
    with connect(service) as client:
        client.sendall(GET)
        assert answer_of(client).startswith(b"HTTP/1.1 200 OK")
    deadline = time.monotonic() + 5
    while service.state.connections or service.http.lingering or service.state.tasks:
        assert time.monotonic() < deadline, (service.state.connections, service.http.lingering, service.state.tasks)
        time.sleep(0.02)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_head_that_comes_byte_by_byte_is_given_up(serve):
    service, began = serve(), time.monotonic()
    with connect(service) as client:
        with contextlib.suppress(OSError):
            for byte in GET * 100:
                client.sendall(bytes([byte]))
                time.sleep(0.03)
                if time.monotonic() - began > 0.7:
                    break
        assert is_problem(rest_of(client), 408)
    assert 0.3 < time.monotonic() - began < 5
    still_serves(service)


@pytest.mark.parametrize("begun", [b"", b"hal"])
def test_a_body_that_stops_is_given_up_but_one_that_goes_on_is_not(serve, begun):
    service, head = serve(), b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n"
    with connect(service) as client:
        client.sendall(head + begun)
        assert is_problem(rest_of(client), 408)
    with connect(service) as client:
        client.sendall(head)
        for byte in b"hello, world":
            time.sleep(0.1)
            client.sendall(bytes([byte]))
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    still_serves(service)


def test_who_says_nothing_or_nothing_but_line_ends_is_let_go(serve):
    service = serve()
    for pieces in ((), (b"\r\n",), (b"\r\n",) * 10):
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            assert say(service, *pieces, pause=0.05) == b""
        assert time.monotonic() - began < 2
    with connect(service) as client:  # idle after an answer, and kept alive by line ends: uvicorn would forget to close it
        client.sendall(GET)
        answer_of(client)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 3:
                time.sleep(0.1)
                client.sendall(b"\r\n")
        assert time.monotonic() - began < 2
    still_serves(service)


def test_who_vanishes_leaves_nothing_behind(serve):
    service = serve()
    for sent in (b"", b"GET / HT", GET, GET * 50, CHUNKED + b"5\r\nab", b"GET /big HTTP/1.1\r\n\r\n", b"GET /slow HTTP/1.1\r\n\r\n", GET + b"GET"):
        for vanish in (reset, socket.socket.close):
            client = connect(service)
            client.sendall(sent)
            time.sleep(0.02)
            vanish(client)
    still_serves(service)


@pytest.mark.parametrize("piece", [100_000, 5000, 700])
@pytest.mark.parametrize("what", ["field", "fields", "url", "unfinished"])
def test_a_head_of_100_kb_is_refused_however_it_comes(serve, what, piece):
    service = serve(seconds=5)
    head = {
        "field": b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        "fields": b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 1200 + b"\r\n",
        "url": b"GET /?" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
        "unfinished": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 17_000,
    }[what]
    head = head if what != "fields" else b"GET / HTTP/1.1\r\n" + (b"x: " + b"y" * 1200 + b"\r\n") * 80 + b"\r\n"
    assert is_problem(say(service, *[head[i : i + piece] for i in range(0, len(head), piece)]), 431)
    still_serves(service)


def test_the_limit_of_a_head_is_exact_and_does_not_count_the_body(serve):
    service, start = serve(seconds=5), b"POST /read HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 200000\r\nx: "
    for length, status in ((15_000, 200), (16_200, 200), (16_500, 431), (30_000, 431)):
        whole = start + b"y" * (length - len(start)) + b"\r\n\r\n" + b"b" * 200_000
        for cut in (0, 10, length - 10, length + 2, length + 4, length + 1000):
            answer = say(service, whole[:cut], whole[cut:], pause=0.01)
            assert statuses(answer) == [status], (length, cut, answer[:100])
    for count, status in ((95, 200), (101, 431)):
        assert statuses(say(service, b"GET / HTTP/1.1\r\nconnection: close\r\n" + b"x: y\r\n" * (count - 1) + b"\r\n")) == [status]
    still_serves(service)


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"get / http/1.1\r\n\r\n",
    b"hello?\n\n",
]
GARBAGE += [b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\nx : y\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n", b"CONNECT x HTTP/1.1\r\n\r\n"]
GARBAGE += [b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"]
GARBAGE += [b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", b"GET / HTTP/1.1\r\nx: \x00\r\n\r\n", b"\r\n" * 9000]
GARBAGE += [b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 8190 + b"?" * 20_000]


def test_what_is_not_http_is_told_so(serve):
    service, rng = serve(), random.Random(1)
    for garbage in GARBAGE:
        answer = say(service, garbage)
        assert is_problem(answer, 431 if garbage == b"\r\n" * 9000 else 400), (garbage[:60], answer)
    for _ in range(size(50, 2000)):
        answer = say(service, rng.randbytes(rng.randrange(1, 3000)))
        assert answer == b"" or statuses(answer)[-1] in (400, 408, 431), answer
    still_serves(service)


@pytest.mark.parametrize("body", [b"zz\r\nab\r\n", b"-5\r\n", b"5\r\nabcdefgh\r\n", b"fffffffffffffffffff\r\n", b"5\nabcde\n0\n\n", b"5 x\r\n"])
def test_a_chunked_body_with_bad_sizes_is_refused(serve, body):
    service = serve()
    assert is_problem(say(service, CHUNKED + body), 400)
    assert is_problem(say(service, CHUNKED, body, pause=0.05), 400)
    still_serves(service)


def test_chunks_may_be_small_but_their_extensions_and_trailing_fields_are_bounded(serve):
    service = serve()
    small = b"1\r\nb\r\n" * 30_000 + b"0\r\nx-late: 1\r\nauthorization: late\r\n\r\n"
    with connect(service) as client:
        client.sendall(CHUNKED + small + GET.replace(b"host: x", b"connection: close"))
        answer = rest_of(client)
    assert statuses(answer) == [200, 200] and b"30000 " in answer
    assert [name for name, _ in service.seen[0]["headers"]] == [b"host", b"transfer-encoding"]
    for endless in (b"1;" + b"x" * 100_000, b"1\r\nb\r\n0\r\n" + b"x: y\r\n" * 20_000, b"1\r\nb\r\n0\r\nx: " + b"y" * 100_000):
        assert is_problem(say(service, CHUNKED + endless), 431)
    still_serves(service)


def test_pipelined_requests_are_answered_in_order_and_faults_keep_their_turn(serve):
    service = serve()
    asked = [b"GET /%s?%d HTTP/1.1\r\nhost: x\r\n\r\n" % (b"slow" if i == 0 else b"", i) for i in range(20)]
    for tail, status in ((b"nonsense\r\n\r\n", 400), (CHUNKED + b"zz\r\n", 400), (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431)):
        for pieces in ([b"".join(asked) + tail], [b"".join(asked), tail], [b"".join(asked) + tail[:5], tail[5:]]):
            answer = say(service, *pieces, pause=0.02)
            assert statuses(answer) == [200] * 20 + [status], answer[-300:]
            order = [int(part.split(b"0 ")[-1]) for part in answer.split(b"HTTP/1.1 ")[1:-1]]
            assert order == list(range(20))
    still_serves(service)


def test_a_next_head_that_does_not_come_does_not_take_the_answer_away(serve):
    service = serve(seconds=0.1)
    answer = say(service, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET / HT")
    assert statuses(answer)[0] == 200 and statuses(answer)[1:] in ([], [408])
    still_serves(service)


@pytest.mark.parametrize("path", [b"/refuse", b"/refuse-close"])
@pytest.mark.parametrize("length", [b"content-length: 8000000", b"transfer-encoding: chunked", b"expect: 100-continue\r\ncontent-length: 8000000"])
def test_an_answer_before_the_body_is_not_lost(serve, path, length):
    service = serve()
    body = b"x" * 8_000_000 if b"length" in length else b"7a1200\r\n" + b"x" * 8_000_000 + b"\r\n"
    assert statuses(say(service, b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n", body)) == [413]
    assert statuses(say(service, b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n", b"5\r\nab")) == [413]
    still_serves(service)


def test_upgrades_are_answered_as_ordinary_requests(serve):
    service = serve()
    upgrade = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\nsec-websocket-version: 13\r\n\r\n"
    for head in (upgrade, upgrade.replace(b"websocket\r", b"h2c\r")):
        with connect(service) as client:
            for request in (head, GET):
                client.sendall(request)
                assert answer_of(client).startswith(b"HTTP/1.1 200 OK")
    still_serves(service)


def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(serve, monkeypatch):
    service = serve()
    for path in (b"/big", b"/big-close"):
        with connect(service) as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            deadline = time.monotonic() + 5
            time.sleep(0.1)
            while service.state.connections or service.state.tasks:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    with connect(service) as client:
        client.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        got, began = 0, time.monotonic()
        while part := client.recv(100_000):
            got += len(part)
            if time.monotonic() - began < 2.5:  # longer than any of the deadlines
                time.sleep(0.02)
        assert got > BIG
    still_serves(service)


def test_too_many_connections_are_told_at_once_and_room_is_found_again(serve):
    count = size(400, 2000)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3 * count
    service = serve(seconds=20, connections=count // 2)
    clients = [connect(service) for _ in range(count)]  # the backlog is a queue: the first half comes in
    began = time.monotonic()
    for client in clients:
        client.sendall(GET)
    answers = [answer_of(client) if i < count // 2 else rest_of(client) for i, client in enumerate(clients)]
    took = time.monotonic() - began
    codes = Counter(statuses(answer)[0] for answer in answers)
    refused = [answer for answer in answers if statuses(answer) == [503]]
    print(f"{count} connections at once: {dict(codes)} in {took:.2f} s")
    assert codes == {200: count // 2, 503: count - count // 2} and took < 5
    assert all(is_problem(answer, 503) and b"retry-after: 1\r\n" in answer for answer in refused)
    for client in clients:
        client.close()
    still_serves(service)


def test_lingering_connections_are_bounded_too(serve):
    service, clients = serve(connections=10), []
    for _ in range(60):
        client = connect(service)
        client.sendall(b"nonsense\r\n\r\n")
        clients.append(client)
    time.sleep(0.2)
    assert len(service.http.lingering) <= 10 and len(service.state.connections) <= 10
    for client in clients:
        client.close()
    still_serves(service)


def test_a_stopping_server_finishes_what_it_began(serve):
    service = serve()
    with connect(service) as client, connect(service) as idle, connect(service) as begun:
        begun.sendall(b"GET / HT")
        client.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.1)
        service.server.should_exit = True
        answer = rest_of(client)
        assert statuses(answer) == [200] and b"connection: close" in answer
        assert rest_of(idle) == b"" and rest_of(begun) == b""


def test_a_storm_of_hostile_clients_does_not_disturb_an_honest_one(serve):
    service, stop, rng = serve(connections=300), threading.Event(), random.Random(5)
    hostile = [b"", b"GET / HT", CHUNKED + b"zz\r\n", b"x" * 50_000, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500, CHUNKED + b"5\r\nab", GET * 30]

    def attack():
        clients = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                client = connect(service)
                client.settimeout(0.2)
                clients.append(client)
                client.sendall(rng.choice(hostile))
            time.sleep(0.002)
            while len(clients) > 80:
                rng.choice([reset, socket.socket.close])(clients.pop(rng.randrange(len(clients))))
        for client in clients:
            client.close()

    attackers = [threading.Thread(target=attack) for _ in range(2)]
    for thread in attackers:
        thread.start()
    waits = []
    for _ in range(size(60, 1500)):
        began = time.monotonic()
        assert statuses(say(service, GET.replace(b"host: x", b"connection: close"))) == [200]
        waits.append(time.monotonic() - began)
        time.sleep(0.01)
    stop.set()
    for thread in attackers:
        thread.join()
    waits.sort()
    print(
        f"honest requests in a storm: median {waits[len(waits) // 2] * 1e3:.1f} ms, worst {waits[-1] * 1e3:.0f} ms; refused {dict(service.refused)}"
    )
    assert waits[len(waits) // 2] < 0.5
    still_serves(service)


# --- the protocol: beside uvicorn's own -------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self):
        super().__init__()
        self.written, self.closed = bytearray(), False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    abort = close

    def is_closing(self):
        return self.closed

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.closed = True

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def echo(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    answer = b"%s %s %d %d" % (scope["method"].encode(), scope["path"].encode(), len(scope["headers"]), len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


def spoken(http: type, pieces: list[bytes], loop: asyncio.AbstractEventLoop) -> bytes:
    """What a protocol answers to pieces that arrive one after another."""
    config = uvicorn.Config(echo, http=http, ws="none", lifespan="off", log_config=None)
    protocol, wire = http(config, ServerState(), {}, _loop=loop), Wire()
    protocol.connection_made(wire)

    async def talk():
        for piece in pieces:
            if not wire.closed:
                protocol.data_received(piece)
            await asyncio.sleep(0)
        while protocol.tasks and not (protocol.cycle and protocol.cycle.more_body):
            await asyncio.sleep(0)

    loop.run_until_complete(talk())
    protocol._unset_keepalive_if_required()
    protocol.connection_lost(None)
    loop.run_until_complete(asyncio.sleep(0))
    return bytes(wire.written)


REQUESTS = st.lists(
    st.one_of(
        st.just(GET),
        st.binary(max_size=300).map(lambda b: b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(b) + b),
        st.lists(st.binary(min_size=1, max_size=90), max_size=4).map(
            lambda chunks: CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
        ),
        st.just(b"GET /last HTTP/1.0\r\n\r\n"),
        st.just(b"HEAD /h?q=%C3%A9 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    ),
    min_size=1,
    max_size=5,
)


@given(REQUESTS, st.lists(st.integers(1, 200), max_size=30), st.sampled_from([64, 300, 16_384]))
def test_honest_requests_are_answered_as_by_uvicorn_in_whatever_pieces_they_come(requests, cuts, header_bytes):
    stream, pieces = b"".join(requests), []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    pieces = [piece for piece in [*pieces, stream] if piece]
    loop = asyncio.new_event_loop()
    try:
        guarded = make_protocol(seconds=10, header_bytes=max(header_bytes, 64))
        assert spoken(guarded, pieces, loop) == spoken(HttpToolsProtocol, pieces, loop)
    finally:
        loop.close()


@given(st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([GET, CHUNKED, *GARBAGE[:14], b"5\r\nabcde\r\n", b"0\r\n\r\n"])), max_size=6))
def test_no_bytes_whatsoever_raise(pieces):
    loop = asyncio.new_event_loop()
    raised = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    try:
        answer = spoken(make_protocol(seconds=10, header_bytes=500), [piece for piece in pieces if piece], loop)
    finally:
        loop.close()
    assert not raised and all(status in (200, 400, 431) for status in statuses(answer))


def test_an_ordinary_request_pays_less_than_a_microsecond():
    """CPU of reading and answering one POST on a connection that is kept, beside uvicorn's own class, in turns."""
    post = (
        b"POST /p HTTP/1.1\r\nhost: localhost\r\nuser-agent: wrk\r\naccept: */*\r\ncontent-type: application/json\r\ncontent-length: 150\r\n\r\n"
        + b"x" * 150
    )
    guarded, loop, times = make_protocol(seconds=10), asyncio.new_event_loop(), {}

    def one(http: type, count: int) -> float:
        config = uvicorn.Config(echo, http=http, ws="none", lifespan="off", log_config=None)
        protocol, wire = http(config, ServerState(), {}, _loop=loop), Wire()
        protocol.connection_made(wire)

        async def talk() -> float:
            began = time.process_time()
            for _ in range(count):
                protocol.data_received(post)
                while not protocol.cycle.response_complete:
                    await asyncio.sleep(0)
            return time.process_time() - began

        used = loop.run_until_complete(talk())
        protocol._unset_keepalive_if_required()
        protocol.connection_lost(None)
        return used / count * 1e6

    for _ in range(size(15, 40)):
        for http in (HttpToolsProtocol, guarded):
            times.setdefault(http, []).append(one(http, 2000))
    loop.close()
    plain, own = min(times[HttpToolsProtocol]), min(times[guarded])
    print(f"microseconds of CPU per request: uvicorn {plain:.2f}, guarded {own:.2f}, difference {own - plain:.2f}")
    assert own - plain < 3  # a busy machine; quiet: below 1


def test_nothing_heavy_is_imported():
    import subprocess
    import sys

    heavy = "pandas sklearn mlflow shap fastapi sqlalchemy pyarrow".split()
    code = "import sys, studperf.service.settings, studperf.service.keys, studperf.service.rates, studperf.service.protocol; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        cwd=guards.__file__.rsplit("/studperf/", 1)[0],
    )
    assert not set(heavy) & set(done.stdout.split())
