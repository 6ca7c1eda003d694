"""Who goes next, and where to: the policy of the queue. Pure: plain data in, plain data out, no clock, no I/O.

A request goes to a server that has its model loaded and answers it at once, if possible to the one that has answered
the beginning of its conversation. If all of them are busy and as many requests wait for the model as are answered, it
is loaded at one more server, as long as nothing has to go for it. If none has it, it is loaded where it fits beside
what is in use, as far as that is known.

A request that would make Ollama throw out a model that others want waits until they are served, but no longer than
`patience` seconds: then nothing goes there that would keep it waiting, and it goes as soon as the other model is free.
So that it goes in time, others are held back earlier by as much as their answers take.

Of those that may go, the next slot goes to the client with the fewest requests running, and of several to the one that
was served least recently. A client that has just come counts as served then, so that newcomers overtake nobody for
ever. Requests of one client for one model go in the order in which they came; without patience, all of one client do.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.streams.places import Demand, Place, Places, Rules, Server
from gateway.streams.turns import Request, Turns


class Admission(NamedTuple):
    """A request that gets a slot, and at which server; its name is empty where there is nothing to choose from."""

    request: Request
    server: str


def choose(
    waiting: Sequence[Request],
    running: Sequence[Request],
    rules: Rules,
    servers: Sequence[Server],
    now: float,
    seen: Mapping[str, int],
) -> list[Admission]:
    """Which of `waiting` get a slot now, in their order.

    `seen` tells how many requests for a model were seen to run at once at a server. Without servers, nothing is known
    of what they have loaded, and only the slots count.
    """
    free = rules.max_active - len(running)
    if free <= 0 or not waiting:
        return []
    if not servers:
        if len(waiting) == 1:  # need not be compared with thousands that run
            model = waiting[0].model
            used = [each.model for each in running].count(model)
            return [Admission(waiting[0], "")] if used < rules.slots(model, seen) else []
        servers = [Server("", frozenset(each.model for each in (*waiting, *running)))]
    demand = Demand(waiting, running)
    alone = len(servers) == 1
    at = [Place(each, demand, running, rules, now, seen, alone=alone) for each in servers]
    places = Places(at, demand.waiting.copy())
    turns = Turns(waiting, running, models=rules.patience > 0)
    admitted: list[Admission] = []
    while len(admitted) < free and (request := turns.next(places.admit)):
        admitted.append(Admission(request, places.taken))
    return admitted


def project(
    waiting: Sequence[Request], running: Sequence[Request], rules: Rules, servers: Sequence[Server], now: float
) -> list[Request]:
    """All of `waiting` in the order in which they would go if no other came and the oldest always ended first.

    With one server, requests for what is loaded go before the others, and each swap serves all that want the model.
    """
    turns = Turns(waiting, running, models=False)
    ending = deque(each.caller for each in running)
    order: list[Request] = []
    for _ in waiting:
        if ending and len(ending) >= len(running):
            turns.end(ending.popleft())
        request = turns.next(_always)
        assert request
        order.append(request)
        ending.append(request.caller)
    return _by_model(order, running, rules, servers[0], now) if len(servers) == 1 else order


def _by_model(
    order: Sequence[Request], running: Sequence[Request], rules: Rules, server: Server, now: float
) -> list[Request]:
    loaded = {*server.loaded, *(server.model(each) for each in running)}
    overdue = [each for each in order if now - max(each.since, server.since) >= rules.patience]
    if overdue and server.fits(loaded | {server.model(overdue[0])}) is False:
        loaded = {server.model(overdue[0])}
    turns: dict[str, int] = {}  # how many swaps come before a model
    later = [*dict.fromkeys(map(server.model, order))]
    swaps = 0
    while later:
        for model in later:
            if model in loaded or server.fits(loaded | {model}) is not False:
                loaded.add(model)
                turns[model] = swaps
        later = [model for model in later if model not in turns]
        loaded = {*later[:1]}
        swaps += 1
    return sorted(order, key=lambda each: turns[server.model(each)])


def _always(_: Request) -> bool:
    return True
