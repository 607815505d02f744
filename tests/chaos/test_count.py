"""The counting of a storm can find what it is for: each case is a small history, written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chaos.count import Evidence, Held, Played, Tally, count
from chaos.schedule import Catalog, Leg, Row, Schedule, Settings, Words, draw, slots

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = Settings(
    share_identical=True,
    matrix=False,
    max_in_flight=100,
    request_timeout=3,
    execution_timeout=4,
    generation="executions",
    webhook=False,
    download=False,
    limit=1000,
    window=1,
    speed=20,
)
CATALOG = Catalog(rows=(Row(key="R1", title="Dress 1", image=1), Row(key="R2", title="Dress 2", image=2)), tone="soft")
INPUTS = dict(slots(CATALOG, SETTINGS))
#: Legs begin at 100, 200, ...; a leg is over long before the next begins.
LEG = 100.0


def played(*commands: str, cut: int | None = None, **changes: Any) -> tuple[Played, ...]:
    """Legs of these commands; the one at `cut` met kill -9."""
    return tuple(
        Played(
            leg=Leg(catalog=CATALOG, command=tuple(command.split()), **changes),
            began=LEG * number,
            ended=LEG * number + 10,
            code=-9 if number - 1 == cut else 0,
            killed=number - 1 == cut,
        )
        for number, command in enumerate(commands, start=1)
    )


def request(kind: str, at: float, **told: Any) -> Any:
    plain = {"status": 200, "fault": None, "execution_id": None, "accepted": None, "answered": True, "inputs": None}
    return {"at": at, "kind": kind, "request_id": f"{kind} at {at}", **plain, **told}


def post(
    key: str, at: float, execution: str | None = None, *, status: int | None = 202, fault: str | None = None
) -> Any:
    """A start as the sandbox logs it: what a fault does to an accepted one leaves its client in the dark."""
    return request(
        "start",
        at,
        status=status,
        fault=fault,
        execution_id=execution,
        accepted=execution,
        answered=status is not None and not (execution and fault),
        inputs=json.loads(INPUTS[key]),
    )


def app(at: float) -> Any:
    return request("app", at)


def poll(execution: str, at: float) -> Any:
    return request("read", at, execution_id=execution)


def accepted(key: str, at: float, execution: str, *, ending: str = "completed") -> Any:
    return {
        "execution_id": execution,
        "inputs": json.loads(INPUTS[key]),
        "created_at": at,
        "seconds": 1.0,
        "ending": ending,
        "failed_output": None,
    }


def line(key: str, status: str, execution: str = "") -> dict[str, str]:
    return {"lamina_key": key, "lamina_variant": "", "lamina_status": status, "lamina_execution_id": execution}


#: Two rows, bought and completed in one run: nothing is wrong with it.
PLAIN = Evidence(
    schedule=Schedule(seed=0, settings=SETTINGS, faults=(), legs=(Leg(catalog=CATALOG),)),
    played=played("run"),
    executions=[accepted("R1", 101, "e1"), accepted("R2", 101, "e2")],
    requests=[app(100.5), post("R1", 101, "e1"), post("R2", 101, "e2"), poll("e1", 103), poll("e2", 103)],
    late=[],
    delivered=[],
    manifest=[line("R1", "completed", "e1"), line("R2", "completed", "e2")],
    held=(),
    known=frozenset({"e1", "e2"}),
)


def with_second(
    legs: tuple[Played, ...],
    answers: Sequence[Any],
    more: Sequence[Any] = (),
    *,
    ending: str = "completed",
    known: str = "e1 e2 e3",
    delivered: Sequence[Any] = (),
) -> Tally:
    """R1 sent once more at 201, as e3, after what `answers` says of the first time; e3 is what the manifest shows."""
    executions = (
        [accepted("R1", 101, "e1", ending=ending)] if any(answer["accepted"] == "e1" for answer in answers) else []
    )
    return count(
        replace(
            PLAIN,
            played=legs,
            executions=[*executions, accepted("R2", 101, "e2"), accepted("R1", 201, "e3")],
            requests=[app(100.5), *answers, post("R2", 101, "e2"), *more, app(200.5), post("R1", 201, "e3")],
            manifest=[line("R1", "completed", "e3"), line("R2", "completed", "e2")],
            known=frozenset(known.split()),
            delivered=delivered,
        )
    )


def test_a_plain_run_is_counted_and_blamed_for_nothing() -> None:
    tally = count(PLAIN)
    assert tally.problems == []
    assert (tally.runs, tally.jobs, tally.starts, tally.accepted) == (1, 2, 2, 2)
    assert (tally.held, tally.most_held) == (0, 0)


def test_a_second_purchase_is_a_duplicate() -> None:
    tally = with_second(played("run", "run"), [post("R1", 101, "e1")])
    assert (tally.duplicates, tally.unproved) == (1, 1)


def test_what_failed_and_was_told_to_have_may_be_retried_when_asked_for() -> None:
    legs = played("run", "run --retry-failed")
    first = [post("R1", 101, "e1")]
    assert with_second(legs, first, [poll("e1", 103)], ending="failed").problems == []
    assert with_second(legs, first, ending="failed").duplicates == 1, "nobody was told that it failed"
    assert with_second(legs, first, [poll("e1", 103)]).duplicates == 1, "it had not failed"
    assert with_second(played("run", "run"), first, [poll("e1", 103)], ending="failed").duplicates == 1, "not asked for"
    assert with_second(legs, first, [poll("e1", 200.9)], ending="failed").duplicates == 1, "told while it ran already"


def test_a_failure_may_be_told_by_a_callback_too() -> None:
    legs = played("run", "run --retry-failed")
    called = [{"execution_id": "e1", "at": 103, "status": 200}]
    assert with_second(legs, [post("R1", 101, "e1")], ending="failed", delivered=called).problems == []


@pytest.mark.parametrize("status", [None, 500, 502, 408])
def test_what_was_not_proved_refused_may_not_be_sent_again_even_if_nothing_was_accepted(status: int | None) -> None:
    tally = with_second(played("run", "run"), [post("R1", 101, status=status)])
    assert (tally.duplicates, tally.unproved) == (0, 1)


@pytest.mark.parametrize("status", [429, 401, 302])
def test_what_was_refused_may_be_sent_again(status: int) -> None:
    assert with_second(played("run", "run"), [post("R1", 101, status=status)]).problems == []


def test_the_word_to_send_again_counts_only_where_an_answer_was_lost() -> None:
    legs = played("run", "run --set run.on_unknown=resubmit")
    lost = with_second(legs, [post("R1", 101, "e1", status=500)], known="e2 e3")
    assert lost.problems == []
    assert (lost.consented, lost.let_go) == (1, 1)
    assert with_second(legs, [post("R1", 101, "e1")]).duplicates == 1


def test_what_was_looked_up_is_sent_again_only_if_it_was_not_accepted() -> None:
    legs = (played("run")[0], *played("run", "run", settle=Words.LOOKED_UP)[1:])
    assert with_second(legs, [post("R1", 101, status=500)]).problems == []
    assert with_second(legs, [post("R1", 101, "e1", status=500)]).duplicates == 1


def test_what_was_given_up_is_not_sent_again_by_retry_failed_either() -> None:
    given_up = (played("run")[0], *played("run", "run", settle=Words.GIVE_UP)[1:])
    retried = (played("run")[0], *played("run", "run --retry-failed", settle=Words.GIVE_UP)[1:])
    first = [post("R1", 101, "e1", status=500)]
    assert with_second(given_up, first, known="e2 e3").duplicates == 1
    assert with_second(retried, first, known="e2 e3").duplicates == 1


def test_an_execution_that_nobody_knows_is_lost() -> None:
    tally = count(replace(PLAIN, manifest=[line("R1", "failed"), line("R2", "completed", "e2")]))
    assert tally.lost == 1


def test_an_execution_of_a_row_that_is_gone_is_looked_for_in_the_ledger() -> None:
    legs = (*played("run"), replace(played("run", "run")[1], leg=Leg(catalog=replace(CATALOG, rows=CATALOG.rows[:1]))))
    gone = replace(PLAIN, played=legs, manifest=PLAIN.manifest[:1])
    assert count(gone).problems == []
    assert count(replace(gone, known=frozenset({"e1"}))).lost == 1


def held_one(legs: tuple[Played, ...], answer: Any, *more: Any) -> Evidence:
    """R1 is held after this answer of the service."""
    executions = [accepted("R1", 101, "e1")] if answer["execution_id"] else []
    return replace(
        PLAIN,
        played=(*legs[:-1], replace(legs[-1], code=6)),
        executions=[*executions, accepted("R2", 101, "e2")],
        requests=[app(100.5), answer, post("R2", 101, "e2"), poll("e2", 103), *more],
        manifest=[line("R1", "held"), line("R2", "completed", "e2")],
        held=(Held(name="R1", sent=101.0),),
        known=frozenset({"e2"}),
    )


@pytest.mark.parametrize(
    ("answer", "is_accepted"),
    [
        (post("R1", 101, "e1", status=500, fault="500_accepted"), True),
        (post("R1", 101, status=500, fault="500"), False),
        (post("R1", 101, status=502, fault="502"), False),
        (post("R1", 101, status=None, fault="drop_before"), False),
        (post("R1", 101, "e1", status=None, fault="drop_after_accept"), True),
        (post("R1", 101, "e1", fault="broken_json"), True),
        (post("R1", 101, "e1", fault="truncated"), True),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
def test_a_held_job_whose_answer_was_lost_is_as_it_should_be(answer: Any, *, is_accepted: bool) -> None:
    tally = count(held_one(played("run"), answer))
    assert tally.problems == []
    assert (tally.held_accepted, tally.held_not_accepted) == (int(is_accepted), int(not is_accepted))
    assert tally.most_held == tally.held_unheard == 1


def test_a_held_job_whose_answer_was_not_lost_needs_a_kill() -> None:
    answer = post("R1", 101, "e1")
    assert "too many held" in count(held_one(played("run"), answer)).problems[0]
    killed = count(held_one(played("run", "run", cut=0), answer))
    assert killed.problems == []
    assert (killed.held_cut_off, killed.on_the_way) == (1, 1), "R2 was polled, so its answer had been heard"


def test_a_service_that_is_killed_cuts_off_as_well() -> None:
    evidence = held_one(played("run"), post("R1", 101, "e1"))
    stopped = replace(evidence, played=(replace(evidence.played[0], service_stops=1),))
    assert count(stopped).problems == []


def test_what_a_fault_took_is_lost_whoever_is_killed_then() -> None:
    tally = count(held_one(played("run", "run", cut=0), post("R1", 109, "e1", fault="broken_json")))
    assert (tally.answers_lost, tally.cut_off) == (1, 0)


def test_what_was_sent_before_is_not_on_the_way_unless_somebody_had_it_sent_again() -> None:
    """R1 is held in the third leg, of which the service saw nothing."""

    def third(second: str) -> Tally:
        evidence = held_one(played("run", second, "run", cut=2), post("R1", 101, status=500))
        return count(replace(evidence, requests=[*evidence.requests, app(300.5)], held=(Held(name="R1", sent=301.0),)))

    assert "too many held" in third("run").problems[0]
    assert third("run --set run.on_unknown=resubmit").problems == []


def test_a_kill_does_not_excuse_what_was_heard() -> None:
    evidence = held_one(played("run", "run", cut=0), post("R1", 101, "e1"), poll("e1", 102))
    assert any("was heard" in problem for problem in count(evidence).problems)


def test_a_leg_that_never_saw_the_app_had_nothing_open() -> None:
    evidence = held_one(played("run", "run", cut=0), post("R1", 101, "e1"))
    tally = count(replace(evidence, requests=[line for line in evidence.requests if line["kind"] != "app"]))
    assert tally.on_the_way == 0
    assert "too many held" in tally.problems[0]


def test_no_more_are_on_the_way_than_posts_may_be_open() -> None:
    """One at a time, and the service saw that one cut off: the other held job has no reason."""
    one_at_a_time = replace(PLAIN.schedule, settings=replace(SETTINGS, max_in_flight=1))
    cut_off = {**post("R1", 109, "e1"), "answered": False}
    evidence = replace(
        held_one(played("run", "run", cut=0), cut_off),
        schedule=one_at_a_time,
        requests=[app(100.5), cut_off, post("R2", 101, "e2")],
        manifest=[line("R1", "held"), line("R2", "held")],
        held=(Held(name="R1", sent=109.0), Held(name="R2", sent=101.0)),
    )
    tally = count(evidence)
    assert (tally.cut_off, tally.on_the_way) == (1, 0)
    assert "too many held: 1 jobs" in tally.problems[0]
    assert count(replace(evidence, schedule=PLAIN.schedule)).problems == []


def test_a_late_answer_is_lost_unless_the_service_saw_somebody_take_it() -> None:
    slow = {**post("R1", 101, "e1", fault="slow"), "answered": None}
    evidence = held_one(played("run"), slow)
    tally = count(evidence)
    assert (tally.problems, tally.answers_lost) == ([], 1)
    left = [{"request_id": slow["request_id"], "answered": False}]
    assert count(replace(evidence, late=left)).answers_lost == 1
    taken = [{"request_id": slow["request_id"], "answered": True}]
    assert count(replace(evidence, late=taken)).answers_lost == 0
    assert "too many held" in count(replace(evidence, late=taken)).problems[0]


def test_an_answer_that_nobody_takes_was_lost_before_the_kill_or_cut_off_by_it() -> None:
    """The client waits three seconds, and was killed at 110."""
    legs = played("run", "run", cut=0)
    before, by_it = ({**post("R1", at, "e1"), "answered": False} for at in (101, 109))
    assert count(held_one(legs, before)).answers_lost == 1
    assert count(held_one(legs, by_it)).cut_off == 1


def test_what_the_service_killed_in_the_middle_did_not_log_is_accepted_all_the_same() -> None:
    evidence = held_one(played("run"), post("R1", 101, "e1"))
    evidence = replace(
        evidence,
        played=(replace(evidence.played[0], service_stops=1),),
        requests=[line for line in evidence.requests if line["accepted"] != "e1"],
    )
    tally = count(evidence)
    assert tally.problems == []
    assert (tally.accepted, tally.held_accepted) == (2, 1)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ([line("R1", "completed", "e1")], "1 lines"),
        ([line("R2", "completed", "e2"), line("R1", "completed", "e1")], "order"),
        ([line("R1", "completed", "e2"), line("R2", "completed", "e2")], "other inputs"),
        ([line("R1", "completed", "e9"), line("R2", "completed", "e2")], "does not know"),
        ([line("R1", "failed", "e1"), line("R2", "completed", "e2")], "it is completed"),
        ([line("R1", "running", "e1"), line("R2", "completed", "e2")], "still running"),
        ([line("R1", "held"), line("R2", "completed", "e2")], "does not name it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_manifest_is_held_against_the_service(manifest: list[dict[str, str]], said: str) -> None:
    assert any(said in problem for problem in count(replace(PLAIN, manifest=manifest)).problems)


def test_a_lost_output_is_a_part() -> None:
    executions = [{**PLAIN.executions[0], "failed_output": 1}, PLAIN.executions[1]]
    assert any("it is partial" in problem for problem in count(replace(PLAIN, executions=executions)).problems)


def test_the_exit_code_tells_of_held_rows() -> None:
    [leg] = PLAIN.played
    assert "exit code 6" in count(replace(PLAIN, played=(replace(leg, code=6),))).problems[0]


def test_a_held_job_is_one_that_some_catalog_had() -> None:
    evidence = held_one(played("run"), post("R1", 101, status=500))
    unknown = replace(evidence, held=(*evidence.held, Held(name="R9", sent=101.0)))
    assert any("no catalog" in problem for problem in count(unknown).problems)


def test_what_nobody_asked_for_and_what_collect_bought_are_told() -> None:
    stranger = {**post("R1", 102), "inputs": {"Front": "x"}, "status": 429}
    assert "nobody asked" in count(replace(PLAIN, requests=[*PLAIN.requests, stranger])).problems[0]
    assert "`collect` submitted" in count(replace(PLAIN, played=played("collect"))).problems[0]


def test_a_seed_is_a_schedule() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
