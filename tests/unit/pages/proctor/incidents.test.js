import assert from "node:assert/strict";
import { test } from "node:test";

import { Incidents, LEAST_LOSSES, networkOf, WINDOW_SECONDS } from "../../../../actors/pages/static/proctor/incidents/detection.js";

const START = Date.parse("2026-11-22T09:15:02Z");

/**
 * A plan of `halls`: each with its size, its network, and its servers in turn.
 * @param {{size: number, network: string, servers: string[], labels?: Record<string, string>}[]} halls
 */
function plan(...halls) {
  const incidents = new Incidents();
  /** @type {string[][]} */
  const people = halls.map((hall, number) =>
    Array.from({ length: hall.size }, (_, k) => {
      const id = `H${number}-${k}`;
      incidents.place(id, { server: hall.servers[k % hall.servers.length], network: hall.network, ...hall.labels });
      return id;
    }),
  );
  return { incidents, people };
}

/** @param {Incidents} incidents @param {string[]} ids */
function lose(incidents, ids, { at = START, every = 0, reason = "SOCKET_CLOSED" } = {}) {
  ids.forEach((id, k) => incidents.lost(id, at + k * every, reason));
}

const TWO_HALLS = [
  { size: 200, network: "10.1.1.0/24", servers: ["SOCK001", "SOCK002"] },
  { size: 200, network: "10.1.2.0/24", servers: ["SOCK001", "SOCK002"] },
];

test("a hall that loses its network is one incident, named by the network, whatever servers it was on", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  lose(incidents, people[0].slice(0, 190), { every: 20 });
  const [incident, ...more] = incidents.detect();
  assert.equal(more.length, 0);
  assert.deepEqual([incident.cause, incident.name, incident.size], ["network", "10.1.1.0/24", 190]);
  assert.equal(incident.began, START);
});

test("a server that dies is one incident, named by the server, whatever networks its clients were in", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  const onFirst = people.flatMap((hall) => hall.filter((_, k) => k % 2 === 0));
  lose(incidents, onFirst, { reason: "SERVER_LOST" });
  const [incident] = incidents.detect();
  assert.deepEqual([incident.cause, incident.name, incident.size], ["server", "SOCK001", 200]);
});

test("a room that is lost is named by the room, also when it is a network of its own", () => {
  const rooms = ["1", "2", "3"].map((room, k) => (
    { size: 30, network: `10.1.${k}.0/24`, servers: ["SOCK001"], labels: { "label room": room, "label seat": null } }));
  const { incidents, people } = plan(...rooms, { size: 200, network: "10.9.9.0/24", servers: ["SOCK001"] });
  lose(incidents, people[2].slice(0, 24));
  const [incident, ...more] = incidents.detect();
  assert.equal(more.length, 0);
  assert.deepEqual([incident.cause, incident.name, incident.size], ["label room", "3", 24]);
  incidents.drop(people[2][0], START + 1_000);
  assert.deepEqual([incident.size, incident.notBack], [23, 23], "whoever is out of scope is in no incident");
  people[2].slice(1, 24).forEach((id) => incidents.update(id, "ended", START + 2_000));
  assert.deepEqual([incident.notBack, incident.over, incident.ended], [0, 23, START + 2_000]);
});

test("two halls in the same seconds are two incidents", () => {
  const { incidents, people } = plan(...TWO_HALLS, { size: 600, network: "10.9.9.0/24", servers: ["SOCK001"] });
  lose(incidents, [...people[0], ...people[1]], { every: 10 });
  const found = incidents.detect();
  assert.deepEqual(found.map((one) => [one.cause, one.name, one.size]).sort(), [
    ["network", "10.1.1.0/24", 200],
    ["network", "10.1.2.0/24", 200],
  ]);
});

test("everybody at once has only the moment in common", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  lose(incidents, people.flat());
  const [incident, ...more] = incidents.detect();
  assert.equal(more.length, 0);
  assert.deepEqual([incident.cause, incident.size], ["moment", 400]);
});

test("when all are on one server in one network, neither is said to be the cause, unless its loss was reported", () => {
  for (const [reason, cause] of [["SOCKET_CLOSED", "moment"], ["SERVER_RESTARTED", "server"]]) {
    const { incidents, people } = plan({ size: 100, network: "127.0.0.0/24", servers: ["SOCK001"] });
    lose(incidents, people[0].slice(0, 60), { reason });
    assert.deepEqual(incidents.detect().map((one) => one.cause), [cause]);
  }
});

test("fewer than the least, and few of a large plan that have nothing in common, stay single", () => {
  const { incidents, people } = plan(...Array.from({ length: 40 }, (_, k) => (
    { size: 50, network: `10.2.${k}.0/24`, servers: ["SOCK001", "SOCK002"] })));
  lose(incidents, people[0].slice(0, LEAST_LOSSES - 1));
  lose(incidents, people.slice(1, 31).map((hall) => hall[0]));
  assert.deepEqual(incidents.detect(), []);
  assert.equal(incidents.of(people[0][0]), null);
});

test("a small room in a large plan counts, for most of it is gone", () => {
  const { incidents, people } = plan({ size: 2000, network: "10.1.0.0/24", servers: ["SOCK001", "SOCK002"] },
    { size: 12, network: "10.7.7.0/24", servers: ["SOCK001", "SOCK002"] });
  lose(incidents, people[1].slice(0, 9));
  assert.deepEqual(incidents.detect().map((one) => [one.name, one.size]), [["10.7.7.0/24", 9]]);
});

test("losses that trickle in over a longer time are no incident", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  lose(incidents, people[0].slice(0, 40), { every: WINDOW_SECONDS * 1000 });
  assert.deepEqual(incidents.detect(), []);
});

test("later losses of the same kind join, others stay outside", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  lose(incidents, people[0].slice(0, 50));
  const [incident] = incidents.detect();
  lose(incidents, [people[0][60]], { at: START + 9_000 });
  lose(incidents, [people[0][61]], { at: START + 18_000 });
  lose(incidents, [people[1][0]], { at: START + 1_000 });
  lose(incidents, [people[0][62]], { at: START + 60_000 });
  assert.deepEqual(incidents.detect(), []);
  assert.equal(incident.size, 52);
  assert.equal(incidents.of(people[0][61]), incident);
  assert.equal(incidents.of(people[1][0]), null);
  assert.equal(incidents.of(people[0][62]), null);
});

test("a server's end is an incident of its own, also while others trickle out for another reason", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  const everybody = people.flat();
  const here = everybody.filter((_, k) => k % 7 === 0);
  lose(incidents, here, { every: 100 });
  const [trickle] = incidents.detect();
  assert.equal(trickle.cause, "moment");
  const there = everybody.filter((_, k) => k % 7 !== 0 && k % 2 === 0);
  lose(incidents, there, { at: START + 8000, reason: "SERVER_LOST" });
  const [end, ...more] = incidents.detect();
  assert.equal(more.length, 0);
  assert.deepEqual([end.cause, end.name, end.size], ["server", "SOCK001", there.length]);
  assert.equal(trickle.size, here.length);
  const later = everybody.filter((_, k) => k % 7 !== 0 && k % 2 === 1).slice(0, 3);
  lose(incidents, later, { at: START + 9000 });
  assert.equal(trickle.size, here.length + 3, "what does not say that a server ended still belongs to the trickle");
});

test("the ends of two servers with few examinees each are told in one line, also when they come apart", () => {
  const { incidents, people } = plan({ size: 12, network: "10.1.1.0/24", servers: ["SOCK001", "SOCK002"] });
  lose(incidents, people[0].slice(0, 6), { reason: "SERVER_LOST" });
  const [both] = incidents.detect();
  lose(incidents, people[0].slice(6, 8), { at: START + 1000, reason: "SERVER_LOST" });
  assert.deepEqual(incidents.detect(), []);
  assert.deepEqual([both.cause, both.size], ["moment", 8]);
});

test("it counts who is back and who will not be, and ends with the last of them", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  const lost = people[0].slice(0, 20);
  lose(incidents, lost);
  const [incident] = incidents.detect();
  lost.slice(0, 15).forEach((id) => incidents.update(id, "back", START + 5_000));
  assert.deepEqual([incident.back, incident.notBack, incident.ended], [15, 5, null]);
  lost.slice(15, 19).forEach((id) => incidents.update(id, "out", START + 60_000));
  assert.deepEqual([incident.back, incident.out, incident.notBack], [15, 4, 1]);
  incidents.update(lost[19], "back", START + 61_000);
  assert.deepEqual([incident.back, incident.out, incident.ended], [16, 4, START + 61_000]);
  assert.equal(incidents.of(lost[16]), null);
  assert.deepEqual(incidents.open, []);
});

test("who comes back and is lost again belongs to it once, and a later loss is a new matter", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  lose(incidents, people[0].slice(0, 20));
  const [incident] = incidents.detect();
  const id = people[0][0];
  incidents.update(id, "back", START + 2_000);
  incidents.lost(id, START + 3_000, "SOCKET_CLOSED");
  assert.deepEqual([incident.size, incident.notBack], [20, 20]);
  incidents.update(id, "back", START + 4_000);
  incidents.lost(id, START + 300_000, "SOCKET_CLOSED");
  assert.deepEqual([incident.notBack, incidents.of(id)], [19, null]);
});

test("attempts of the same loss change nothing", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  for (let attempt = 0; attempt < 4; attempt += 1) lose(incidents, people[0].slice(0, 20));
  const [incident] = incidents.detect();
  lose(incidents, people[0].slice(0, 20));
  assert.deepEqual([incidents.detect(), incident.size, incident.notBack], [[], 20, 20]);
});

test("those who were back at once still count as lost together", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  people[0].slice(0, 60).forEach((id, k) => {
    incidents.lost(id, START + k * 100, "SOCKET_CLOSED");
    if (k % 2) incidents.update(id, "back", START + k * 100 + 50);
    incidents.detect();
  });
  assert.equal(incidents.all.length, 1);
  assert.deepEqual([incidents.all[0].size, incidents.all[0].back], [60, 30]);
});

test("a crowd that was back before it was looked at is told all the same, also after a later loss", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  const lost = people[0].slice(0, 40);
  lose(incidents, lost);
  lost.slice(0, 25).forEach((id) => incidents.update(id, "back", START + 2_000));
  incidents.lost(people[1][0], START + 30_000, "SOCKET_CLOSED");
  const [incident] = incidents.detect();
  assert.deepEqual([incident.size, incident.back, incident.notBack], [40, 25, 15]);
});

test("a snapshot in any order, with the times of the losses, gives the same incident", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  people[0].map((id, k) => /** @type {const} */ ([id, START + k * 30])).reverse()
    .forEach(([id, at]) => incidents.lost(id, at, "PING_TIMEOUT"));
  incidents.lost(people[1][0], START - 600_000, "SOCKET_CLOSED");
  const [incident] = incidents.detect();
  assert.deepEqual([incident.name, incident.size, incident.began], ["10.1.1.0/24", 200, START]);
});

test("who leaves the plan is not waited for", () => {
  const { incidents, people } = plan(...TWO_HALLS);
  const lost = people[0].slice(0, 20);
  lose(incidents, lost);
  const [incident] = incidents.detect();
  lost.forEach((id) => incidents.drop(id, START + 1_000));
  assert.deepEqual([incident.notBack, incident.out, incident.ended], [0, 0, START + 1_000]);
});

/**
 * The processor's time that `work` takes, in ms, at its best of some runs: other processes make it longer, never shorter.
 * @param {() => Incidents} prepare what is to be settled, made anew for each run
 * @param {(found: import("../../../../actors/pages/static/proctor/incidents/detection.js").Incident[]) => void} check
 */
function settling(prepare, check) {
  const times = Array.from({ length: 5 }, () => {
    const incidents = prepare();
    const began = process.cpuUsage();
    const found = incidents.detect();
    const { user, system } = process.cpuUsage(began);
    check(found);
    return (user + system) / 1000;
  });
  return Math.min(...times);
}

test("a batch of 2,000 losses is settled within a frame or two", () => {
  const took = settling(
    () => {
      const { incidents, people } = plan(...Array.from({ length: 10 }, (_, k) => (
        { size: 200, network: `10.3.${k}.0/24`, servers: ["SOCK001", "SOCK002"] })));
      lose(incidents, people.flat(), { every: 1 });
      return incidents;
    },
    (found) => assert.equal(found.length, 1),
  );
  assert.ok(took < 100, `${took} ms`);
});

test("2,000 single losses that are no crowd cost no more", () => {
  const took = settling(
    () => {
      const { incidents, people } = plan({ size: 2000, network: "10.3.0.0/24", servers: ["SOCK001", "SOCK002"] });
      lose(incidents, people.flat(), { every: 300 }); // 33 in 10 s: below 3 % of 2,000
      return incidents;
    },
    (found) => assert.deepEqual(found, []),
  );
  assert.ok(took < 250, `${took} ms`);
});

test("networks: /24 of IPv4, also mapped; /64 of IPv6, however it is written", () => {
  assert.equal(networkOf("192.168.7.33"), "192.168.7.0/24");
  assert.equal(networkOf("::ffff:192.168.7.33"), "192.168.7.0/24");
  assert.equal(networkOf("2001:db8:0:12::9"), "2001:db8:0:12::/64");
  assert.equal(networkOf("2001:0db8:0000:0012:a:b:c:d"), "2001:db8:0:12::/64");
  assert.equal(networkOf("fe80::1%eth0"), "fe80:0:0:0::/64");
  assert.equal(networkOf("::1"), "0:0:0:0::/64");
  for (const none of ["", null, undefined, "somewhere", "1:2:3"]) assert.equal(networkOf(none), null);
});
