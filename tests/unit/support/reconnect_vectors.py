"""What the Python rules of a client say, as vectors that examwire.js must repeat
(`tests/unit/pages/client/parity.test.js`).

Random walks: through the rules of coming back (losses, refusals, migrations, welcomes, with their draws), and through a
plan's snapshots and events in any order, with repetitions. Moments of exams, before, in and after them. The same seed
makes the same vectors.
"""

from __future__ import annotations

import dataclasses
import json
import random
import types
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic.alias_generators import to_camel

from protocol.client import reconnect
from protocol.client.exam_clock import ExamPhase, exam_at
from protocol.client.plan_view import PlanView
from protocol.client.reconnect import (
    ConnectionFailure,
    GiveUp,
    Lost,
    ReconnectState,
    Refused,
    Unreachable,
    Wait,
    after_migrate,
    after_welcome,
    connect_url,
    next_step,
)
from protocol.close_codes import CLOSE_RULES, CloseCode, may_reconnect
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.frames import Accepted, ExamineeRow, PlanSnapshot, ReconnectPolicy, ViewStatus
from protocol.messages.plan_facts import PlanNotice, PlanPolicy, PlanStatusCode
from protocol.messages.proctor_events import EVENTS, PlanStateEvent
from protocol.times import format_time

Json = dict[str, Any]

WALKS, STEPS = 150, 40
VIEWS, MESSAGES, LOOK_EVERY = 100, 60, 5
MOMENTS = 300
EXAMINEES = ("E001", "E002", "E003")
VERSIONS = 40
_URLS = (
    *("ws://a:8001", "ws://a:8001/", "wss://b", "ws://c:8001/v1/connect", "ws://[::1]:9/v1/connect"),
    *("wss://exam.example/sockets/v1/connect", "ws://d:1//", "ws://e:1/exam/"),
)
_FROM_CLIENT_RULES = ("STABLE_SECONDS", "SILENT_INTERVALS", "MAX_POSTPONED", "MIGRATE_SPREAD_SECONDS")


def vectors(seed: int) -> Json:
    """Everything that the JavaScript side is compared with, JSON-ready."""
    rng = random.Random(seed)
    codes = [None, *range(990, 1020), *range(2990, 3005), *range(3990, 4020), *range(4490, 4520), 4999, 5000]
    return {
        "constants": {name: getattr(reconnect, name) for name in _FROM_CLIENT_RULES},
        "closeRules": {str(int(code)): _close_rule(code) for code in CLOSE_RULES},
        "mayReconnect": [[code, may_reconnect(code)] for code in codes],
        "connectUrl": [[url, connect_url(url)] for url in _URLS],
        "walks": [_walk(rng) for _ in range(WALKS)],
        "views": [_view(rng) for _ in range(VIEWS)],
        "moments": [_moment(rng) for _ in range(MOMENTS)],
    }


def _close_rule(code: int) -> Json:
    rule = CLOSE_RULES[code]
    return {"name": rule.name, "reconnect": rule.reconnect}


# -- coming back -------------------------------------------------------------------------------------------


def _walk(rng: random.Random) -> Json:
    first = rng.choice(_URLS)
    state = ReconnectState(connect_url(first))
    steps: list[Json] = []
    # Most walks stay with one kind of trouble for long enough to see it end.
    kinds = rng.choice([("any",), ("any",), ("later",), ("migrate",), ("down",), ("any", "welcome")])
    for number in range(rng.choice((STEPS, 3 * STEPS)) if kinds != ("any",) else STEPS):
        kind = rng.choice(kinds) if number else "welcome"
        if kind == "welcome" or (kind == "any" and rng.random() < 0.15):
            url, endpoints, policy = connect_url(rng.choice(_URLS)), _endpoints(rng), _policy(rng)
            state = after_welcome(url, endpoints, policy)
            steps.append({"do": "welcomed", "url": url, "endpoints": endpoints, "policy": _policy_json(policy)})
        elif kind in ("any", "migrate") and rng.random() < 0.1:
            endpoints = _endpoints(rng)
            state = after_migrate(state, endpoints)
            steps.append({"do": "sentAway", "endpoints": endpoints})
        else:
            happened, draw = _happened(rng, kind), rng.uniform(-1, 1)
            state, step = next_step(state, happened, draw)
            steps.append({"do": "after", "happened": _happened_json(happened), "draw": draw, "step": _step_json(step)})
        steps[-1]["state"] = _state_json(state)
    return {"first": first, "steps": steps}


def _endpoints(rng: random.Random) -> list[str]:
    return [rng.choice(_URLS) for _ in range(rng.randint(0, 4))]


def _policy(rng: random.Random) -> ReconnectPolicy:
    steps = [rng.choice((0.5, 1.0, 2.0, rng.uniform(0.01, 90))) for _ in range(rng.choice((0, 1, 2, 5, 5)))]
    return ReconnectPolicy(
        max_attempts=rng.randint(1, 8),
        backoff_seconds=steps,
        jitter=rng.choice((0.0, 0.3, rng.random())),
        shut_out=rng.choice((None, None, False)),
    )


def _happened(rng: random.Random, kind: str) -> ConnectionFailure:
    later = Refused(rng.choice((429, 503)), rng.choice((None, 0.0, 1.0, rng.uniform(0, 30))))
    lasted = rng.choice((0.0, 0.5, reconnect.STABLE_SECONDS, rng.uniform(0, 1e4)))
    match kind:
        case "later":
            return rng.choice((later, later, Lost(int(CloseCode.TRY_AGAIN_LATER), lasted)))
        case "migrate":
            return Lost(int(CloseCode.MIGRATE), lasted)
        case "down":
            return Unreachable()
    code = rng.choice((None, 1005, 4300, *(int(code) for code in CLOSE_RULES), rng.randint(1000, 4999)))
    refused = Refused(rng.choice((301, 400, 403, 404, 426, 500, 502)))
    return rng.choice((Lost(code, lasted), Lost(None, lasted), Unreachable(), later, refused))


def _happened_json(happened: ConnectionFailure) -> Json:
    match happened:
        case Lost(code, lasted):
            return {"kind": "lost", "code": code, "lasted": lasted}
        case Refused(status, retry_after):
            return {"kind": "refused", "status": status, "retryAfter": retry_after}
        case Unreachable():
            return {"kind": "unreachable"}


def _step_json(step: Wait | GiveUp) -> Json:
    kind = "wait" if isinstance(step, Wait) else "giveUp"
    return {"kind": kind, **{to_camel(name): value for name, value in dataclasses.asdict(step).items()}}


def _policy_json(policy: ReconnectPolicy) -> Json:
    return policy.model_dump(mode="json", by_alias=True)


def _state_json(state: ReconnectState) -> Json:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    fields |= {"policy": _policy_json(state.policy), "ring": state.ring}
    return {to_camel(name): value for name, value in fields.items()}


# -- the plan ----------------------------------------------------------------------------------------------

_TIMES = [f"2026-11-22T09:{minute:02}:00.000Z" for minute in range(60)]
_POOL: dict[str, Callable[[random.Random], Any]] = {
    "plan_id": lambda rng: "P001",
    "request_type": lambda rng: "readmit",
    "examinee_id": lambda rng: rng.choice(EXAMINEES),
    "socket_id": lambda rng: f"SOCK00{rng.randint(1, 2)}-{rng.randint(0, 999):03}",
    "server_id": lambda rng: f"SOCK00{rng.randint(1, 2)}",
    "device_id": lambda rng: f"M00{rng.randint(1, 3)}",
    "action_id": lambda rng: f"action-{rng.randint(1, 9)}",
    "request_id": lambda rng: f"action-{rng.randint(1, 9)}",
    "reason": lambda rng: rng.choice(("SOCKET_CLOSED", "PING_TIMEOUT", "SERVER_LOST", "RECONNECT_LIMIT_EXCEEDED")),
    "recovered_from": lambda rng: rng.choice(("SOCKET_CLOSED", "PING_TIMEOUT")),
    "by": lambda rng: rng.choice(("anna", "김감독")),
    **dict.fromkeys(
        ("by_name", "closed_by_name", "finished_by_name", "taken_by_name"),
        lambda rng: rng.choice(("박감독", "Ann Lee")),
    ),
    "name": lambda rng: rng.choice(("이수험", "Jo")),
    "text": lambda rng: rng.choice(("Please come closer.", "자리에 앉아 주십시오.")),
    "code": lambda rng: "4504",
    "challenge": lambda rng: rng.choice(("482193", "039117")),
    "capture_id": lambda rng: f"{rng.getrandbits(256):064x}",
    "image_url": lambda rng: f"/captures/E{rng.randint(1, 3):03}/sync_cap.jpg",
    "ip_address": lambda rng: f"10.0.0.{rng.randint(1, 9)}",
    "browser_info": lambda rng: "Chrome",
    "user_agent": lambda rng: "Mozilla/5.0",
    "labels": lambda rng: rng.choice(("A", "나")),
    "model": lambda rng: "Galaxy",
    "os_version": lambda rng: "15",
    "outage_seconds": lambda rng: round(rng.uniform(0, 90), 3),
    "attempt": lambda rng: rng.randint(1, 5),
    "max_attempts": lambda rng: rng.randint(1, 5),
    "count": lambda rng: rng.randint(0, 5),
    "sent": lambda rng: rng.randint(0, 30),
    "unconfirmed": lambda rng: f"action-{rng.randint(1, 9)}",
    "confirmed_plan_notices": lambda rng: f"action-{rng.randint(1, 9)}",
    "help_id": lambda rng: f"action-{rng.randint(1, 9)}",
    "taken_by": lambda rng: rng.choice(("anna", "김감독")),
    "doing": lambda rng: rng.choice(("looking", "writing", "nothing")),
    "close_code": lambda rng: rng.randint(1000, 4999),
    "share": lambda rng: rng.random(),
    "away_share": lambda rng: rng.random(),
    "window_seconds": lambda rng: rng.randint(60, 3600),
    "finished_by": lambda rng: rng.choice(("anna", "plan")),
    "closed_by": lambda rng: rng.choice(("anna", "schedule")),
    "examinees": lambda rng: rng.choice(EXAMINEES),
    "backoff_seconds": lambda rng: rng.uniform(0.1, 60),
    "jitter": lambda rng: rng.random(),
    "mobile_sync_seconds": lambda rng: rng.randint(10, 3600),
    "grace_seconds": lambda rng: rng.randint(0, 600),
    "unstable_share": lambda rng: rng.uniform(0.01, 1),
    "unstable_window_seconds": lambda rng: rng.randint(60, 3600),
    "canned_texts": lambda rng: rng.choice(("Please wait.", "잠시 기다려 주십시오.")),
    "version": lambda rng: rng.randint(1, VERSIONS),
}
_TIME_FIELDS = {
    *("timestamp", "since", "deadline", "next_attempt_at", "last_active_time", "sent_at", "confirmed_at", "removed_at"),
    *("starts_at", "ends_at", "closed_at", "server_time", "time", "received_at"),
}
_NEVER_EMPTY = {"examinees", "backoff_seconds"}


def _view(rng: random.Random) -> Json:
    made: list[Message] = []
    for _ in range(MESSAGES):
        if rng.random() < 0.12:
            made += _snapshot(rng)
        else:
            model = rng.choice(_TOLD)
            made.append(model.model_validate(_fields(rng, model)))
    repeated = [rng.choice(made) for _ in range(MESSAGES // 3)]
    for event in repeated:
        made.insert(rng.randrange(len(made)), event)
    view = PlanView()
    messages, verdicts, looks = [], [], {}
    for number, message in enumerate(made):
        messages.append(json.loads(encode(message)))
        verdicts.append(view.apply(message).value)
        if number % LOOK_EVERY == 0 or number == len(made) - 1:
            looks[str(number)] = _look(view)
    return {"messages": messages, "verdicts": verdicts, "looks": looks}


_TOLD: tuple[type[Message], ...] = (*EVENTS, ViewStatus, Accepted)


def _snapshot(rng: random.Random) -> list[Message]:
    """The parts of a snapshot; sometimes it breaks off, as a connection does."""
    parts = rng.randint(1, 3)
    announced = parts if rng.random() < 0.8 else rng.randint(0, parts - 1)
    ids = list(EXAMINEES)
    rng.shuffle(ids)
    ids = ids[: rng.randint(0, len(ids))]
    frames: list[Message] = []
    for part in range(announced):
        rows = [_row(rng, examinee_id) for examinee_id in ids[part::parts]]
        resync = rng.choice((None, True))
        notices = [PlanNotice.model_validate(_fields(rng, PlanNotice))] if rng.random() < 0.3 else None
        frames.append(
            PlanSnapshot(
                plan_id="P001",
                examinees=rows,
                part=part + 1,
                parts=parts,
                resync=resync,
                plan_notices=notices,
            )
        )
    return frames


def _row(rng: random.Random, examinee_id: str) -> ExamineeRow:
    return ExamineeRow.model_validate({**_fields(rng, ExamineeRow), "examineeId": examinee_id})


def _fields(rng: random.Random, model: type[pydantic.BaseModel]) -> Json:
    """Values for the fields of a model, by the fields' names; what may be left out sometimes is."""
    values: Json = {}
    for name, field in model.model_fields.items():
        if name == "traceparent" or (not field.is_required() and rng.random() < 0.3):
            continue
        values[to_camel(name)] = _value(rng, name, field.annotation, model)
    return values


def _value(rng: random.Random, name: str, annotation: Any, model: type[pydantic.BaseModel]) -> Any:
    inner = _without_none(annotation)
    if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
        return _fields(rng, inner)
    if get_origin(inner) in (list, tuple):
        least = 1 if name in _NEVER_EMPTY else 0
        return [_value(rng, name, get_args(inner)[0], model) for _ in range(rng.randint(least, 2))]
    if get_origin(inner) is dict:
        return {examinee_id: _value(rng, name, get_args(inner)[1], model) for examinee_id in EXAMINEES[:2]}
    if isinstance(inner, type) and issubclass(inner, StrEnum):
        return rng.choice(list(inner)).value
    if (allowed := get_args(inner)) and not isinstance(inner, types.UnionType):  # a Literal
        return rng.choice([getattr(choice, "value", choice) for choice in allowed])
    if inner is bool:
        return rng.random() < 0.5
    if name in _TIME_FIELDS:
        return rng.choice(_TIMES)
    if name not in _POOL:
        raise AssertionError(f"{model.__name__}.{name} is new: say in _POOL what its values are")
    return _POOL[name](rng)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _without_none(inner)
    return annotation


def _look(view: PlanView) -> Json:
    """All of a view, in the spelling of the wire."""
    return {
        "complete": view.complete,
        "current": view.current,
        "currentUntil": view.current_until,
        "waitingFor": view.waiting_for,
        "snapshots": view.snapshots,
        "resyncs": view.resyncs,
        "doubled": view.doubled,
        "late": view.late,
        "covered": view.covered,
        "events": dict(view.events),
        "plan": _data(view.plan) if view.plan is not None else None,
        "planNotices": [[action_id, _data(notice)] for action_id, notice in view.plan_notices.items()],
        "examinees": {
            row.examinee_id: {to_camel(name): _plain(value) for name, value in dataclasses.asdict(row).items()}
            for row in view.examinees.values()
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


# -- the clock of an exam ------------------------------------------------------------------------------------


def _moment(rng: random.Random) -> Json:
    now = 1.8e9 + rng.randint(0, 40) / 2
    grace = rng.choice((None, 0, 5))
    for_proctor = rng.random() < 0.3
    plan = PlanStateEvent(
        plan_id="P001",
        status=rng.choice(list(PlanStatusCode)),
        starts_at=rng.choice((None, format_time(1.8e9 + rng.randint(0, 10)))),
        ends_at=rng.choice((None, format_time(1.8e9 + rng.randint(10, 20)))),
        grace_seconds=None if for_proctor else grace,
        policy=PlanPolicy(grace_seconds=grace) if for_proctor else None,
        version=1,
    )
    known = rng.random() < 0.95
    phase, seconds = exam_at(plan if known else None, now)
    assert known or phase is ExamPhase.UNKNOWN
    return {"plan": _data(plan) if known else None, "now": now * 1000, "at": {"phase": phase.value, "seconds": seconds}}


def _data(message: Message) -> Any:
    return json.loads(encode(message))["data"]
