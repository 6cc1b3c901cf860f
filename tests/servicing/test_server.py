"""A server that is fed while it runs: it waits, goes on, keeps sessions and counters through a hotpatch, stands still for rehearsals."""

from __future__ import annotations

import pytest

from hotpatch.arch import Machine
from hotpatch.cases import find_case
from hotpatch.errors import InputError
from hotpatch.process import Process
from hotpatch.process.foreign import hook
from hotpatch.servicing.clients import Clients
from hotpatch.servicing.equivalence import compare
from hotpatch.servicing.releases import Catalogue
from hotpatch.servicing.server import Server
from hotpatch.servicing.values import Month

JANUARY, FEBRUARY, MARCH = Month(2026, 1), Month(2026, 2), Month(2026, 3)


@pytest.fixture
def server(catalogue: Catalogue, machine: Machine) -> Server:
    return Server(catalogue.update(machine, JANUARY), seed=3, workers=2)


def replies(server: Server, *requests: str) -> list[str]:
    return [exchange.reply for exchange in server.ask(requests)]


def test_a_program_waits_for_input_that_may_come(catalogue: Catalogue, machine: Machine) -> None:
    process = Process(catalogue.update(machine, JANUARY), more_input=True, args=("2",))
    assert not process.waits_for_input
    process.start()
    process.run()
    before = process.instructions
    assert process.waits_for_input
    assert not process.finished
    assert process.fault is None
    process.run()
    assert process.instructions == before
    process.feed(b"SUM 1 2\nSU")
    process.run()
    assert process.output.endswith("#1 OK 3\n")
    process.feed(b"M 3 4\n")
    process.run()
    assert process.output.endswith("#2 OK 7\n")
    process.end_input()
    result = process.run()
    assert (result.exit_code, result.finished) == (0, True)
    assert result.output.endswith("bye, 2 requests served\n")
    with pytest.raises(InputError, match="standard input has ended"):
        process.feed(b"x")


def test_without_more_input_nothing_has_changed(catalogue: Catalogue, machine: Machine) -> None:
    process = Process(catalogue.update(machine, JANUARY), stdin=b"SUM 1 2\n", args=("2",))
    process.start()
    assert process.run().exit_code == 0
    with pytest.raises(InputError):
        process.feed(b"x")


def test_fed_in_one_go_or_bit_by_bit_the_replies_are_the_same(catalogue: Catalogue, machine: Machine) -> None:
    requests = [*catalogue.releases.comparison]
    whole, bits = (Server(catalogue.update(machine, JANUARY), seed=seed, workers=2) for seed in (1, 2))
    assert whole.ask(requests) == [exchange for request in requests for exchange in bits.ask([request])]


def test_a_snapshot_takes_the_input_along(server: Server) -> None:
    before = server.process.snapshot()
    assert replies(server, "OPEN alice", "PING 1") == ["OK 1", "OK alice 1"]
    after = server.process.snapshot()
    server.process.restore(before)
    server.process.feed(b"PING 1\n")
    server.process.run()
    assert server.process.output.endswith("#1 ERR no such session\n")
    server.process.restore(after)
    assert replies(server, "PING 1") == ["OK alice 2"]


def test_sessions_and_counters_go_on_through_hotpatches(server: Server, catalogue: Catalogue, machine: Machine) -> None:
    clients = Clients(["alice", "bob"])
    clients.connect(server)
    served = []
    for month in (JANUARY, FEBRUARY, MARCH):
        if month != JANUARY:
            server.say(["HASH a long text that is hashed for a while", "PUT milk two bottles", "GET milk"])
            server.go_on(900)
            server.hotpatch(catalogue.hotpatch(machine, JANUARY, month))
            assert [exchange.reply for exchange in server.answers()][1:] == ["OK", "OK two bottles"]
        names = clients.others()
        assert clients.judge(names, server.ask(clients.requests(names))) == []
        served.append(int(replies(server, "STATS")[0].split()[2].rstrip(",")))
    assert clients.pings() == {"alice": 3, "bob": 3}
    assert served == [5, 11, 17]


def test_after_a_restart_the_sessions_are_gone(server: Server, catalogue: Catalogue, machine: Machine) -> None:
    clients = Clients(["alice", "bob"])
    clients.connect(server)
    assert server.stop() == 0
    again = Server(catalogue.update(machine, FEBRUARY), seed=4, workers=2)
    assert clients.judge(["alice", "bob"], again.ask(clients.requests(["alice", "bob"]))) == ["alice", "bob"]
    clients.connect(again)
    assert clients.judge(["alice"], again.ask(clients.requests(["alice"]))) == []


def test_a_session_whose_counter_is_wrong_counts_as_dropped(server: Server) -> None:
    clients = Clients(["alice"])
    clients.connect(server)
    server.ask(["PING 1"])
    assert clients.judge(["alice"], server.ask(clients.requests(["alice"]))) == ["alice"]


def test_a_rehearsal_leaves_no_trace(server: Server) -> None:
    server.ask(["PUT milk two bottles"])
    before = (server.process.output, server.process.instructions, list(server.history))
    assert [exchange.reply for exchange in server.rehearse(["PUT milk none", "GET milk"])] == ["OK", "OK none"]
    assert (server.process.output, server.process.instructions, server.history) == before
    assert replies(server, "GET milk") == ["OK two bottles"]


@pytest.mark.parametrize("month", [FEBRUARY, MARCH], ids=str)
def test_hotpatched_and_updated_servers_answer_the_same(server: Server, catalogue: Catalogue, machine: Machine, month: Month) -> None:
    server.ask(["OPEN alice", "PUT milk two bottles", "HASH x", "nonsense"])
    server.hotpatch(catalogue.hotpatch(machine, JANUARY, month))
    server.ask(["PING 1", "KEEP this"])
    found = compare("it", month, server, catalogue.update(machine, month), catalogue.releases, seed=9)
    assert found.same
    assert found.requests > found.hostile > 20
    assert replies(server, "RECALL") == ["OK this"]


@pytest.mark.parametrize("month", [FEBRUARY, MARCH], ids=str)
def test_so_they_do_to_everything_that_the_case_of_the_same_server_is_asked(
    server: Server, catalogue: Catalogue, machine: Machine, month: Month
) -> None:
    requests = [line for program in find_case("overflow-check").manifest.program for line in program.stdin.splitlines() if line]
    assert len(requests) > 60
    server.hotpatch(catalogue.hotpatch(machine, JANUARY, month))
    updated = Server(catalogue.update(machine, month), seed=9, workers=2)
    assert server.ask(requests) == updated.ask(requests)


@pytest.mark.parametrize("other", [JANUARY, MARCH], ids=str)
def test_a_comparison_with_another_update_finds_the_difference(
    server: Server, catalogue: Catalogue, machine: Machine, other: Month
) -> None:
    server.hotpatch(catalogue.hotpatch(machine, JANUARY, FEBRUARY))
    found = compare("it", FEBRUARY, server, catalogue.update(machine, other), catalogue.releases, seed=9)
    assert not found.same
    request, mine, its = found.difference
    assert mine != its
    assert request.startswith("NAME" if other == JANUARY else "PART")


def test_an_unpatched_server_is_found_out(server: Server, catalogue: Catalogue, machine: Machine) -> None:
    assert not compare("it", FEBRUARY, server, catalogue.update(machine, FEBRUARY), catalogue.releases, seed=9).same


def test_another_products_hook_lets_calls_through(server: Server) -> None:
    server.ask(["PUT milk two bottles"])
    entry = server.process.address_of("part")
    before = server.process.guest.read(entry, 4)
    hook(server.process, "part")
    assert server.process.guest.read(entry, 4) != before
    assert replies(server, "PART milk 4 7") == ["OK bottles"]


def test_uninstalling_gives_the_old_code_back(server: Server, catalogue: Catalogue, machine: Machine) -> None:
    attack = catalogue.release(FEBRUARY).attack
    assert replies(server, *attack)[0] == "OK"
    for month in (FEBRUARY, MARCH):
        server.hotpatch(catalogue.hotpatch(machine, JANUARY, month))
    assert replies(server, *attack)[0] == "ERR too long"
    assert server.uninstall() == 2
    assert replies(server, *attack)[0] == "OK"
