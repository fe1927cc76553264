"""The prediction log, in SQLite and in a real PostgreSQL: nothing lost, nothing doubled, nothing torn, nothing without end."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPO, clean_environment, size

from studperf.schema import InputError
from studperf.service import database, log
from studperf.service.database import forget, open_database, read_predictions, store
from studperf.service.log import PredictionLog

FEATURES = json.dumps({"club": 'chess \\ "quoted"\t\n', "essay": 71, "note": "é — 学生"}, ensure_ascii=False)

BASE = int(time.time()) - 10_000  # unix seconds; young enough to be kept


def entry(moment: float | None = None, number: int = 0) -> tuple:
    """A prediction as the service logs it; its number is in its prediction."""
    moment = time.time() if moment is None else moment
    identity = f"{int(moment):08x}{secrets.token_hex(12)}"
    return identity, moment, "v1-0123456789ab", "full", 0.9, FEATURES.encode(), float(number), number - 5.0, number + 5.0, number % 7 == 0


# ---------------------------------------------------------------- a PostgreSQL of our own


def programs() -> Path | None:
    """The folder of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@dataclass
class Cluster:
    """A PostgreSQL server on a Unix socket in its own folder."""

    folder: Path
    bin: Path

    def run(self, program: str, *args: str) -> None:
        drop = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        done = subprocess.run([*drop, str(self.bin / program), *args], cwd="/", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def control(self, verb: str, *args: str) -> None:
        options = f"-c listen_addresses='' -c fsync=off -c shared_buffers=32MB -k {self.folder}"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, *args, verb)

    def url(self, name: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{name}?host={self.folder}"

    def sql(self, statement: str, name: str = "postgres") -> list:
        import psycopg

        with psycopg.connect(host=str(self.folder), dbname=name, user="postgres", autocommit=True) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL; where it is not installed the tests are left out, but not in CI."""
    found = programs()
    if found is None:
        assert not os.environ.get("CI"), "PostgreSQL is not installed (Debian: postgresql)"
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short, for the socket; and open to the user postgres
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    made = Cluster(folder, found)
    try:
        made.run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C.UTF-8")
        made.control("start")
        yield made
        made.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    running = request.getfixturevalue("cluster")
    name = f"log_{secrets.token_hex(4)}"
    running.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    return running.url(name)


def stored(url: str) -> list:
    """All rows, with the count that the tables keep beside them."""
    engine = open_database(url)
    try:
        rows = list(read_predictions(engine))
        with engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT value FROM prediction_log WHERE name = 'rows'").scalar_one()
        assert kept == len(rows)
        return rows
    finally:
        engine.dispose()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


# ---------------------------------------------------------------- rows


def test_what_is_added_is_what_is_read(url):
    entries = [entry(BASE + i / 7, i) for i in range(3000)]
    with PredictionLog(url) as kept:
        for one in entries[:100]:
            kept.add(one)
        kept.add_many(entries[100:])
    assert (kept.written, kept.dropped, kept.failures, kept.waiting) == (3000, 0, 0, 0)
    expected = sorted((*e[:5], FEATURES, *e[6:], None, None) for e in entries)
    assert [tuple(row) for row in stored(url)] == expected
    assert all(type(row.abstain) is bool and type(row.features) is str for row in stored(url))


def test_reading_a_span_of_time(url):
    moments = [BASE + i / 10 for i in range(100)]
    engine = open_database(url)
    store(engine, [entry(moment) for moment in moments])
    for since, before in ((moments[13], moments[57]), (moments[0], moments[1]), (moments[99], 1e12), (0, moments[5]), (2e9, 3e9)):
        found = sorted(row.time for row in read_predictions(engine, since=since, until=before, at_once=7))
        assert found == [moment for moment in moments if since <= moment < before]
    engine.dispose()


WRONG = {
    "too short": entry()[:9],
    "too long": (*entry(), 1),
    "no number": (*entry()[:6], "high", 1.0, 2.0, False),
    "nothing": (*entry()[:6], None, 1.0, 2.0, False),
    "an object": (*entry()[:5], object(), 1.0, 1.0, 2.0, False),
    "half a character": (*entry()[:5], "\ud800", 1.0, 1.0, 2.0, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_row_that_no_table_can_hold_stops_nobody(kind, url):
    if kind == "no number" and url.startswith("sqlite"):
        pytest.skip("SQLite holds any value in any column")
    good = [entry(number=i) for i in range(40)]
    with PredictionLog(url) as kept:
        kept.add_many([*good[:11], WRONG[kind], *good[11:]])
        assert kept.flush()
        assert (kept.written, kept.dropped, kept.failures, kept.waiting) == (40, 1, 0, 0)
    assert sorted(row.id for row in stored(url)) == sorted(e[0] for e in good)


def test_sent_twice_is_stored_once(url):
    engine, entries = open_database(url), [entry(number=i) for i in range(200)]
    assert store(engine, entries[:150]) == store(engine, entries[100:]) == store(engine, entries) == store(engine, []) == 0
    engine.dispose()
    assert len(stored(url)) == 200


# ---------------------------------------------------------------- outcomes


def test_outcomes_all_or_nothing_and_the_latest_counts(url):
    entries = [entry(number=i) for i in range(1200)]
    with PredictionLog(url, every=30) as kept:  # so that only asking makes it write
        kept.add_many(entries)
        wrong = ["0" * 32, "x", "", "\x00" * 32, "'; DROP TABLE outcomes; --", entries[0][0].upper() + "x", "f" * 31 + "\ud800"]
        assert kept.record_outcomes([(e[0], 1.0) for e in entries] + [(id, 2.0) for id in wrong]) == wrong
        assert kept.waiting == 0 and not any(row.outcome for row in kept.read_predictions())
        assert kept.record_outcomes([]) == []
        assert kept.record_outcomes([(e[0], e[6]) for e in entries]) == []
        assert kept.record_outcomes([(entries[7][0], 70.0), (entries[7][0], 71.0)]) == []
        rows = list(kept.read_predictions())
    assert len(rows) == 1200 and {row.prediction: row.outcome for row in rows} == {float(i): 71.0 if i == 7 else float(i) for i in range(1200)}
    assert all(abs(row.outcome_time - time.time()) < 60 for row in rows)


def test_outcomes_from_many_threads_while_predictions_are_written(url):
    entries, problems = [entry(number=i) for i in range(400)], []
    with PredictionLog(url, every=0.01) as kept:

        def tell(part: int) -> None:
            try:
                for e in entries[part::8]:
                    kept.add(e)
                    for value in (1.0, e[6]):
                        assert kept.record_outcomes([(e[0], value)]) == []
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=tell, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    rows = stored(url)
    assert len(rows) == 400 and all(row.outcome == row.prediction for row in rows)


# ---------------------------------------------------------------- outages


def test_postgresql_restarted_while_writing(cluster):
    name = f"log_{secrets.token_hex(4)}"
    cluster.sql(f"CREATE DATABASE {name}")
    added, stop = [], threading.Event()
    with PredictionLog(cluster.url(name), every=0.02, capacity=10**6) as kept:

        def feed() -> None:
            while not stop.is_set():
                batch = [entry(number=i) for i in range(40)]
                kept.add_many(batch)
                added.extend(batch)
                time.sleep(0.002)

        thread = threading.Thread(target=feed)
        thread.start()
        draw = random.Random(0)
        for _ in range(size(3, 25)):
            time.sleep(draw.uniform(0.05, 0.4))
            cluster.control("restart", "-m", "immediate")
        stop.set()
        thread.join()
        until(kept.flush)
        assert (kept.written, kept.dropped, kept.waiting) == (len(added), 0, 0) and kept.failures > 0
        assert kept.record_outcomes([(added[0][0], 50.0), (added[-1][0], 50.0)]) == []
    rows = stored(cluster.url(name))
    assert [row.id for row in rows] == sorted(e[0] for e in added)
    print(f"{len(added):,} entries through {size(3, 25)} restarts, {kept.failures} failed attempts, none lost, none doubled")


def test_postgresql_down_fills_the_queue_and_counts_the_rest(cluster, caplog):
    name = f"log_{secrets.token_hex(4)}"
    cluster.sql(f"CREATE DATABASE {name}")
    with PredictionLog(cluster.url(name), every=0.02, capacity=100) as kept:
        first = entry()
        kept.add(first)
        assert kept.flush()
        cluster.control("stop", "-m", "immediate")
        try:
            slowest = 0.0
            for number in range(1000):
                start = time.perf_counter()
                kept.add(entry(number=number))
                slowest = max(slowest, time.perf_counter() - start)
            assert not kept.flush(patience=0.3)
            assert kept.waiting + kept.dropped == 1000 and 100 <= kept.waiting <= 200 and kept.failures > 0
            assert slowest < 0.5  # seconds, on a busy machine: it waits for no connection
            with pytest.raises(ConnectionError, match="does not answer"):
                database.record_outcomes(kept.ready(), [(first[0], 1.0)])
        finally:
            cluster.control("start")
        assert kept.flush(patience=20)
    assert kept.written + kept.dropped == 1001 and kept.waiting == 0 and len(stored(cluster.url(name))) == kept.written
    lines = [record.getMessage() for record in caplog.records if record.name == log.__name__]
    assert len(lines) == 2 and "cannot be written (OperationalError)" in lines[0] and "again" in lines[1]


@pytest.mark.parametrize("broken", ["ALTER TABLE predictions RENAME TO elsewhere", "ALTER TABLE prediction_log RENAME TO elsewhere"])
def test_a_table_that_is_missing_is_an_outage_and_not_a_wrong_row(broken, url):
    engine = open_database(url)
    with PredictionLog(url, every=0.02) as kept:
        with engine.begin() as connection:
            connection.exec_driver_sql(broken)
        kept.add_many([entry(number=i) for i in range(10)])
        until(lambda: kept.failures > 0)
        assert (kept.written, kept.dropped, kept.waiting) == (0, 0, 10)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE elsewhere RENAME TO {broken.split()[2]}")
        assert kept.flush()
    engine.dispose()
    assert len(stored(url)) == 10


def test_closing_while_the_database_fails_ends_in_time_and_counts(url, caplog):
    engine = open_database(url)
    kept = PredictionLog(url, every=0.02)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE predictions RENAME TO elsewhere")
    engine.dispose()
    kept.add_many([entry() for _ in range(10)])
    start = time.monotonic()
    kept.close(patience=0.5)
    assert time.monotonic() - start < 5 and (kept.written, kept.dropped, kept.waiting) == (0, 10, 0)
    assert "10 entries are lost" in caplog.text and FEATURES not in caplog.text
    kept.add(entry())
    kept.add_many([entry(), entry()])
    assert kept.dropped == 13 and not kept.flush()
    kept.close()


def test_three_processes_write_to_one_database(url):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from test_prediction_log import entry; from studperf.service.log import PredictionLog\n"
        "with PredictionLog(sys.argv[1], every=0.01) as kept:\n"
        "    for i in range(300):\n"
        "        kept.add_many([entry(number=i) for _ in range(10)]); time.sleep(0.001)\n"
        "assert (kept.written, kept.dropped) == (3000, 0)"
    )
    command = [sys.executable, "-c", code, url, str(Path(__file__).parent)]
    # the database is empty: they also race to make the tables
    running = [subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert len(stored(url)) == 9000


# ---------------------------------------------------------------- bounds


def test_the_log_stays_bounded_while_it_is_written(url, monkeypatch):
    monkeypatch.setattr(log, "AT_ONCE", 500)
    with PredictionLog(url, every=0.005, keep_rows=2000) as kept:
        for turn in range(60):
            kept.add_many([entry(BASE + turn) for _ in range(200)])
            assert kept.flush()
        sizes = []
        for turn in range(60, 90):
            kept.add_many([entry(BASE + turn) for _ in range(200)])
            assert kept.flush()
            sizes.append(sum(1 for _ in kept.read_predictions()))
    assert kept.written == 18_000 and kept.dropped == 0
    assert max(sizes) <= 2000 * 1.05 + 500 + 200, sizes
    rows = stored(url)
    assert min(row.time for row in rows) >= BASE + 75  # the oldest have left


def test_old_predictions_leave_with_their_outcomes(url):
    now = time.time()
    old, young = [entry(now - 100 * 86_400 + i) for i in range(300)], [entry(now - 80 * 86_400 + i) for i in range(100)]
    engine = open_database(url)
    store(engine, old + young)
    assert database.record_outcomes(engine, [(e[0], 1.0) for e in old + young]) == []
    with PredictionLog(url, every=0.01):
        until(lambda: sum(1 for _ in read_predictions(engine)) == 100)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM outcomes").scalar_one() == 100
    engine.dispose()
    assert sorted(row.id for row in stored(url)) == sorted(e[0] for e in young)


def test_two_that_forget_at_once_remove_no_more_than_they_should(url):
    engines = [open_database(url) for _ in range(2)]
    store(engines[0], [entry(BASE + i) for i in range(4000)])
    problems = []

    def work(engine: object) -> None:
        try:
            while forget(engine, before=0, keep_rows=1000, at_most=100):
                pass
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert problems == [] and [row.time for row in stored(url)] == [BASE + i for i in range(3000, 4000)]


def test_the_sqlite_file_stays_small(tmp_path):
    engine, sizes, rows = open_database(f"sqlite:///{tmp_path}/log.db"), [], size(3000, 20_000)
    for turn in range(12):
        store(engine, [entry(BASE + turn) for _ in range(rows)])
        while forget(engine, before=0, keep_rows=rows) >= 5000:
            pass
        sizes.append((tmp_path / "log.db").stat().st_size + (tmp_path / "log.db-wal").stat().st_size)
    engine.dispose()
    print(f"{rows:,} rows kept of {12 * rows:,}: {[kb // 1024 for kb in sizes]} KB with the write-ahead file")
    assert max(sizes) < rows * 1000 + 20_000_000 and (tmp_path / "log.db").stat().st_size < 2.5 * rows * 450


def test_at_full_speed_every_row_arrives_and_costs_little(tmp_path):
    rows = [entry(BASE + i / 20_000, i) for i in range(size(60_000, 500_000))]
    with PredictionLog(f"sqlite:///{tmp_path}/log.db", capacity=10**6) as kept:
        start = time.process_time()
        for i in range(0, len(rows), 2000):
            for row in rows[i : i + 2000]:
                kept.add(row)
        kept.flush(patience=60)
        cost = (time.process_time() - start) / len(rows)
    print(f"{1e6 * cost:.2f} microseconds of CPU a row, adding included; {(tmp_path / 'log.db').stat().st_size / len(rows):.0f} bytes a row")
    assert kept.written == len(rows) and kept.dropped == 0 and cost < 2e-5


# ---------------------------------------------------------------- killed


def keep_adding(url: str, turn: int, every: float, told: object) -> None:
    """Add numbered predictions and tell how far it has come, until killed."""
    kept, number = PredictionLog(url, every=every, keep_days=1e6), 0  # the first digits of its identifiers are no time
    told.send((0, time.time()))
    while True:
        for _ in range(20):
            kept.add((f"{turn:08x}{number:024x}", time.time(), "v1", "full", 0.9, FEATURES, float(number), 0.0, 1.0, False))
            number += 1
        told.send((number, time.time()))
        time.sleep(0.002)


@pytest.fixture(scope="module")
def nursery():
    """Where processes are forked from: it has imported what they need."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPO), str(Path(__file__).parent)])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "test_prediction_log", "sqlalchemy", "sqlalchemy.dialects.sqlite"])
    yield context
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def test_kill_9_tears_nothing_and_costs_the_last_moment_only(nursery, tmp_path):
    path, draw, every, margin, lost, total = tmp_path / "log.db", random.Random(0), 0.1, 1.0, [], 0
    for turn in range(1, 1 + size(5, 50)):
        ours, theirs = nursery.Pipe(duplex=False)
        process = nursery.Process(target=keep_adding, args=(f"sqlite:///{path}", turn, every, theirs), daemon=True)
        process.start()
        theirs.close()
        assert ours.poll(60)
        told, end = [], time.monotonic() + draw.uniform(0.1, 1.5)
        while time.monotonic() < end:
            if ours.poll(0.01):
                told.append(ours.recv())
        process.kill()
        killed = time.time()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(EOFError):
            while True:
                told.append(ours.recv())
        with sqlite3.connect(path) as direct:
            assert direct.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = direct.execute("SELECT prediction, time, features FROM predictions WHERE id BETWEEN ? AND ? ORDER BY id",
                                  (f"{turn:08x}", f"{turn + 1:08x}")).fetchall()  # fmt: skip
        assert [row[0] for row in rows] == list(range(len(rows))) and all(row[2] == FEATURES for row in rows), "a hole, or half a row"
        due = max((number for number, moment in told if moment <= killed - every - margin), default=0)
        assert len(rows) >= due, f"{due - len(rows)} entries are older than promised and gone"
        lost.append(killed - rows[-1][1] if rows else killed - told[0][1])
        total += len(rows)
    assert len(stored(f"sqlite:///{path}")) == total
    lost.sort()
    print(f"{len(lost)} kills, {total:,} rows whole; age of the newest at the kill: median {lost[len(lost) // 2]:.2f} s, at most {lost[-1]:.2f} s")


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "wrong",
    [
        "", "log.db", "off", "postgresql", "mysql://me:hunter2@db/log", "postgresql+asyncpg://me:hunter2@db/log", "oracle://me:hunter2@db",
        "postgresql://me:hunter2@db:port/log", "sqlite://", "sqlite:///:memory:", "sqlite:///file:log.db?uri=true", "sqlite+aiosqlite:///log.db",
        "postgresql://me:hunter2@127.0.0.1:1/log", "postgresql://127.0.0.1:1/log?user=me&password=hunter2", "postgresql://me:hunter2@/log?host=/nowhere",
        "postgresql://me:hunter2@db.invalid/log", "postgresql://me:hunter2@127.0.0.1:1/log?nonsense=1", None, 5,
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused_at_the_start_without_its_password(wrong, capfd, caplog):
    with pytest.raises(InputError, match="the prediction log cannot be opened") as refused:
        PredictionLog(wrong)
    told = str(refused.value) + caplog.text + "".join(capfd.readouterr())
    assert "expected" in told and "hunter2" not in told and "Traceback" not in told
    assert not [thread for thread in threading.enumerate() if thread.name == "prediction log"]


def test_a_wrong_password_is_not_repeated(cluster):
    shielded = Cluster(cluster.folder, cluster.bin)
    cluster.sql("CREATE ROLE closed LOGIN PASSWORD 'other' CONNECTION LIMIT 0")
    with pytest.raises(InputError, match=r"closed:\*\*\*@") as refused:
        open_database(shielded.url("postgres", "closed:hunter2"))
    assert "hunter2" not in str(refused.value) and "too many connections" in str(refused.value)


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"studperf\[postgres\]"):
        open_database("postgresql://me:hunter2@db/log")


def test_a_later_version_and_foreign_tables_are_left_alone(url):
    engine = open_database(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prediction_log SET value = 2 WHERE name = 'version'")
    with pytest.raises(InputError, match="its tables are of version 2; expected version 1 or earlier"):
        PredictionLog(url)
    with engine.begin() as connection:
        for table in ("prediction_log", "outcomes", "predictions"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("CREATE TABLE predictions (of_somebody TEXT)")
    with pytest.raises(InputError, match="cannot be opened"):
        PredictionLog(url)
    engine.dispose()


def test_the_file_is_ours_alone_and_an_existing_one_keeps_its_mode(tmp_path):
    old = os.umask(0)
    try:
        PredictionLog(f"sqlite:///{tmp_path}/a/b/log.db").close()
        kept = PredictionLog("sqlite:///relative.db")
        kept.add(entry())
        assert kept.flush()
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("relative.db*")} == {0o600}
        kept.close()
    finally:
        os.umask(old)
    made = tmp_path / "a" / "b" / "log.db"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    made.chmod(0o640)
    PredictionLog(f"sqlite:///{made}").close()
    assert stat.S_IMODE(made.stat().st_mode) == 0o640


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder with a log in it, seen by a user who may only read it."""
    folder = Path(tempfile.mkdtemp())
    open_database(f"sqlite:///{folder}/log.db").dispose()
    (folder / "log.db").chmod(0o444)
    folder.chmod(0o555)
    if us := os.geteuid():
        yield folder
    else:
        os.seteuid(65534)
        yield folder
        os.seteuid(us)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("path", ["log.db", "other.db", "new/log.db"])
def test_what_may_not_be_written_is_refused(path, nobody):
    with pytest.raises(InputError, match=r"(readonly|unable to open|Permission denied).*; expected a database .* may write to"):
        open_database(f"sqlite:///{nobody}/{path}")


def test_nothing_of_a_student_reaches_the_services_log(url, caplog):
    caplog.set_level(logging.DEBUG)
    with PredictionLog(url, every=0.02) as kept:
        kept.add_many([(*entry()[:5], "a secret", "another secret", 1.0, 2.0, False), ("a secret", 1), entry()])
        assert kept.flush()
    assert "secret" not in caplog.text
