// examwire.js: the client of `examwire.v1` for browsers. No build step, nothing loaded from elsewhere; these modules are
// what pages of other origins may load.
//
//   import { ExamineeClient } from "https://exam.example/static/examwire.js";
//   const client = new ExamineeClient({ endpointsUrl: "https://exam.example/v1/endpoints", token });
//   client.addEventListener("status", (event) => show(event.detail));
//   client.connect();
//
// Pure, without imports: `examwire-rules.js` (close codes, how a client comes back) and `examwire-plan.js` (a plan as a
// proctor sees it). The shell around them: `examwire-line.js` (one connection), `examwire-servers.js` (where to connect),
// `examwire-browser.js` (timers, hints, storage), `examwire-keeper.js` (coming back), `examwire-client.js` (its face) and
// `examwire-roles.js` (examinee and proctor).

export {
  CLOSE_RULES,
  CONNECT_PATH,
  CROWD_SHARE,
  DEFAULT_POLICY,
  MAX_POSTPONED,
  MIGRATE_SPREAD_SECONDS,
  SILENT_INTERVALS,
  STABLE_SECONDS,
  SUBPROTOCOL,
  after,
  beginning,
  connectUrl,
  ladderSeconds,
  mayReconnect,
  ring,
  roomFor,
  sentAway,
  spread,
  welcomed,
  without,
} from "./examwire-rules.js";
export { PlanView, Seen } from "./examwire-plan.js";
export { decode } from "./examwire-frames.js";
export { ASK_SECONDS } from "./examwire-servers.js";
export { OPEN_SECONDS, PROBE_SECONDS } from "./examwire-line.js";
export { LONG_HIDDEN_SECONDS } from "./examwire-keeper.js";
export { Client } from "./examwire-client.js";
export { ExamineeClient, ProctorClient, REQUEST_SECONDS, RequestFailed } from "./examwire-roles.js";

/** @typedef {import("./examwire-rules.js").Comeback} Comeback */
/** @typedef {import("./examwire-rules.js").CloseRule} CloseRule */
/** @typedef {import("./examwire-rules.js").GiveUp} GiveUp */
/** @typedef {import("./examwire-rules.js").Happened} Happened */
/** @typedef {import("./examwire-rules.js").Policy} Policy */
/** @typedef {import("./examwire-rules.js").Remedy} Remedy */
/** @typedef {import("./examwire-rules.js").Status} Status */
/** @typedef {import("./examwire-rules.js").Wait} Wait */
/** @typedef {import("./examwire-plan.js").Message} Message */
/** @typedef {import("./examwire-plan.js").Verdict} Verdict */
/** @typedef {import("./examwire-client.js").ClientOptions} ClientOptions */
/** @typedef {import("./examwire-client.js").ViewStatus} ViewStatus */
/** @typedef {import("./examwire-roles.js").Notice} Notice */
