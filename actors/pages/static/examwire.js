// examwire.js: the client of `examwire.v1` for browsers. No build step, nothing loaded from other sites. Pages
// of other origins may load these modules.
//
//   import { ExamineeClient } from "https://exam.example/static/examwire.js";
//   const client = new ExamineeClient({ endpointsUrl: "https://exam.example/v1/endpoints", token });
//   client.addEventListener("status", (event) => show(event.detail));
//   client.connect();
//
// Pure modules, without DOM, timers or sockets: `client/reconnect-rules.js` (close codes, when and where to reconnect),
// `client/plan-view.js` (a plan as a proctor sees it), `client/frames.js` (checks frames). The modules around them:
// `client/connection.js` (one connection), `client/connect-attempt.js` (one attempt to connect), `client/next-server.js`
// (which server is next), `client/server-list.js` (the known servers), `client/browser.js` (timers, browser events, storage),
// `client/exam-clock.js` (the exam's clock, by the server's time), `client/connection-keeper.js` (reconnects),
// `client/client.js` (the public class), `client/examinee-client.js` and `client/proctor-client.js` (the two roles).

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
} from "./client/reconnect-rules.js";
export { PlanView, Seen } from "./client/plan-view.js";
export { decode } from "./client/frames.js";
export { ServerClock, clockText, examAt, minutesToAnnounce } from "./client/exam-clock.js";
export { ASK_SECONDS } from "./client/server-list.js";
export { OPEN_SECONDS, PROBE_SECONDS } from "./client/connection.js";
export { LONG_HIDDEN_SECONDS } from "./client/connection-keeper.js";
export { Client, RequestFailed } from "./client/client.js";
export { ExamineeClient, HAND_IN_AGAIN_SECONDS, HELP_AGAIN_SECONDS } from "./client/examinee-client.js";
export { ACTIVITY_SECONDS, FORGET_ACTIVITY_SECONDS, ProctorClient, REQUEST_SECONDS } from "./client/proctor-client.js";

/** @typedef {import("./client/reconnect-rules.js").Comeback} Comeback */
/** @typedef {import("./client/reconnect-rules.js").CloseRule} CloseRule */
/** @typedef {import("./client/reconnect-rules.js").GiveUp} GiveUp */
/** @typedef {import("./client/reconnect-rules.js").Happened} Happened */
/** @typedef {import("./client/reconnect-rules.js").Policy} Policy */
/** @typedef {import("./client/reconnect-rules.js").Remedy} Remedy */
/** @typedef {import("./client/reconnect-rules.js").Status} Status */
/** @typedef {import("./client/reconnect-rules.js").Wait} Wait */
/** @typedef {import("./client/exam-clock.js").ExamPhase} ExamPhase */
/** @typedef {import("./client/exam-clock.js").PlanState} PlanState */
/** @typedef {import("./client/plan-view.js").Message} Message */
/** @typedef {import("./client/plan-view.js").Help} Help */
/** @typedef {import("./client/plan-view.js").Verdict} Verdict */
/** @typedef {import("./client/client.js").ClientOptions} ClientOptions */
/** @typedef {import("./client/client.js").ViewStatus} ViewStatus */
/** @typedef {import("./client/examinee-client.js").Finish} Finish */
/** @typedef {import("./client/examinee-client.js").Notice} Notice */
