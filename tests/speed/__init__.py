"""Measure what an event costs, and compare two revisions.

A figure is the CPU time in µs that all threads of a role's processes use for one event (`psutil`), so other programs on
the machine disturb it little. Wall-clock figures (losses/s, latency) mean something only on a quiet machine.

From the root of a worktree::

    .venv/bin/python -m tests.speed state-manager                      # the state manager alone, fed with facts: 20 s
    .venv/bin/python -m tests.speed socket-server                      # one socket server alone: 15 s
    .venv/bin/python -m tests.speed state-manager --before main        # main and this tree, interleaved: medians, ratio
    .venv/bin/python -m tests.speed socket-server --before HEAD~3 --after HEAD --pairs 5
    .venv/bin/python -m tests.speed state-manager --before /work/wt/other   # a directory instead of a revision
    .venv/bin/python -m tests.speed state-manager --batch 1            # facts that come one at a time
    .venv/bin/python -m tests.speed socket-server --proctors 10        # what further proctors cost
    .venv/bin/python -m tests.speed hall-outage --before main          # everything, 4,000 examinees: 40 s a run
    .venv/bin/python -m tests.speed hall-outage --before node          # the same job on Socket.IO, the same driver
    .venv/bin/python -m tests.speed one-by-one --before node           # latency of single losses
    .venv/bin/python -m tests.speed state-manager --managers 4 --plans 50
    .venv/bin/python -m tests.speed -h                                 # all options

Uncommitted changes of this tree count: without `--after`, the code under test is the tree as it lies there. The driver
is always this tree's; only the roles (queue server, state manager, socket servers) run from the trees under test, with
the packages of this `.venv`.

The parts:

- `state-manager`: engines, queue server, state manager. `connect` and `loss` are of examinees whom the manager has not
  met, `reconnect` and `loss again` of those whom it has. Each loss is followed by a `reconnect_attempt`, a fact of its
  own, which is measured apart: `attempt after loss`. The manager's first checkpoint, 5 s after its start, falls into
  one of these: compare medians of several pairs.
- `socket-server`: engines, queue server, socket server; the driver stands in for the state manager. `connect`: from the
  handshake to the published CONNECTED. `state`: a `session_state` passed on. `event`: an event passed on to the
  proctors. `loss`: from the end of the socket to the published DISCONNECTED. `idle`: KiB of RSS a connection; `idle
  second`: CPU of a connection that does nothing but answer pings, each second.
- `hall-outage`, `one-by-one`: the scenarios of `examwire load`, with the examinees on the first of two socket servers
  and the proctors on the second.

`node` is Socket.IO 4.8 on Node with the Redis streams adapter (`tests/speed/socketio/`), which npm installs into a
temporary directory. It verifies the same tokens and tells the proctors the same, but stores nothing: what is on its way
when a process dies is lost. Its Redis writes no file.

A profile of a role: `PROFILE=state-manager python -m tests.speed state-manager` writes `speed-state-manager-PID.prof`
into the current directory (`python -m pstats`). Profiled figures are too high: use them for their proportions only.
"""
