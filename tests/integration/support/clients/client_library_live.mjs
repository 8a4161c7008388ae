// examwire.js over real WebSockets, against the socket servers of a test (test_client_library.py). Each line of output
// is one thing that happened; the test stops a server when it reads "both are there".

import { ExamineeClient, ProctorClient } from "../../../../actors/pages/static/examwire.js";

const { urls, tokens } = JSON.parse(process.env.EXAMWIRE_LIVE);
const deadline = setTimeout(() => {
  console.error("not within 60 s");
  process.exit(1);
}, 60_000);

const say = (what) => console.log(JSON.stringify(what));

/** Until `seen()` is true, looking whenever the client says something. */
function until(client, type, seen) {
  return new Promise((done) => {
    const look = (event) => {
      if (!seen(event?.detail)) return;
      client.removeEventListener(type, look);
      done();
    };
    client.addEventListener(type, look);
    look();
  });
}

const proctor = new ProctorClient({ url: urls, token: tokens.proctor, storage: null });
const examinee = new ExamineeClient({ url: urls, token: tokens.examinee, storage: null });
const counts = { told: 0, doubled: 0 };
proctor.addEventListener("message", ({ detail }) => {
  if (detail.data.examineeId === "E001" && detail.verdict === "APPLIED") counts.told += 1;
  if (detail.verdict === "DOUBLED" || detail.verdict === "LATE") counts.doubled += 1;
});
const one = () => proctor.view.examinees.get("E001");

proctor.connect();
await until(proctor, "fresh", () => proctor.fresh);
examinee.connect();
await until(proctor, "change", () => one()?.connected);
await until(examinee, "state", () => examinee.state !== null);
say({ what: "both are there", server: examinee.welcome.serverId, beat: examinee.welcome.heartbeatSeconds });

// The server goes; both find the other one.
await Promise.all([until(proctor, "status", (status) => status?.state === "waiting"), until(examinee, "status", (status) => status?.state === "waiting")]);
await until(proctor, "change", () => proctor.fresh && one()?.connected && one().serverId === "SOCK002");
say({ what: "both are back", server: examinee.welcome.serverId, no: examinee.connectionNo, proctorOn: proctor.welcome.serverId });

examinee.enterMobileSync();
await until(proctor, "change", () => one().mobileSync === "WAITING");
await until(examinee, "mobileSync", () => examinee.mobileSync.status === "WAITING");
say({ what: "waiting for the phone", deadline: examinee.mobileSync.deadline, sameForProctor: one().deadline === examinee.mobileSync.deadline });

// A newer connection of the same examinee: the older one ends, and says why.
const newer = new ExamineeClient({ url: urls[1], token: tokens.examinee, storage: null });
newer.connect();
await until(examinee, "status", (status) => status?.state === "gaveUp");
say({ what: "replaced", status: examinee.status, insists: examinee.tryNow() });

const accepted = await proctor.readmit("E001");
say({ what: "accepted", accepted });
const refused = await proctor.readmit("nobody").catch((error) => ({ code: error.code, field: error.field }));
say({ what: "refused", refused });

// A token that is none.
const stranger = new ExamineeClient({ url: urls[1], token: "not a token", storage: null });
stranger.connect();
await until(stranger, "tokenNeeded", (detail) => detail?.code === 4502);
say({ what: "stranger", status: stranger.status });
stranger.setToken(tokens.other);
await until(stranger, "status", (status) => status?.state === "connected");
await until(proctor, "change", () => proctor.view.examinees.get("E002")?.connected);

say({ what: "end", counts });
for (const client of [stranger, newer, proctor]) client.close();
await until(proctor, "status", (status) => (status ?? proctor.status).state === "idle");
clearTimeout(deadline);
