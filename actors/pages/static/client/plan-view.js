// A plan as a proctor sees it. Pure: no DOM, no timers, no WebSocket, no imports. The same as `protocol/client/plan_view.py`: a
// test gives the same frames to both and compares the views.

/**
 * A message of the wire.
 * @typedef {{type: string, data: Record<string, any>}} Message
 */

/**
 * An open request for help of an examinee; `takenBy`: the proctor who is on it. `confirmedPlanNotices` beside it: the
 * messages to several that the examinee has confirmed.
 * @typedef {{requestId: string, text?: string, since: string, takenBy?: string, takenByName?: string}} Help
 */

/**
 * What a frame did to the view. DOUBLED: a repetition of the latest applied event. LATE: older than the latest applied
 * event. COVERED: not newer than a snapshot, harmless. OTHER: not about the plan.
 * @typedef {"APPLIED" | "DOUBLED" | "LATE" | "COVERED" | "OTHER"} Verdict
 */

/**
 * A picture that was sent; its address is `/captures/{examineeId}/{captureId}.jpg`. `when`: before the stage, in it, or after
 * its deadline. `challenge`: what it had to show.
 * @typedef {{captureId: string, time: string, deviceId?: string, when: "before" | "in" | "after", challenge?: string,
 *   verdict?: "accepted" | "rejected", reason?: string, by?: string, byName?: string}} Capture
 */

/**
 * One examinee as the proctor sees them. Versions are 0 until a frame named them; times are RFC 3339.
 *
 * `since`: when the status began. `recoveredAfter`: seconds of the outage that has just ended. `browserInfo` comes with
 * connection events only, not with a snapshot. `captures`: the newest pictures, oldest first. `review`: of the one that counts.
 * `challenge`: what the next picture must show. `notices`: how many messages were sent; `unconfirmed`: the actionIds of those
 * that the examinee has not confirmed. `flags`: in what their newest connection that differs from the one before it differs
 * (address, browser, device). `status` and `mobileSync` UNKNOWN, or anything else: only a newer release knows. `unstable`: away too often of late. `finishedBy`: who said that the exam is over for them (`plan`: the plan has ended).
 */
export class Seen {
  /** @param {string} examineeId */
  constructor(examineeId) {
    this.examineeId = examineeId;
    /** @type {string | null} */ this.name = null;
    /** @type {Record<string, string>} */ this.labels = {};
    /** @type {"CONNECTED" | "DISCONNECTED" | "MIGRATING" | "FINISHED" | "NEVER" | "UNKNOWN"} */ this.status = "NEVER";
    /** @type {string | null} */ this.since = null;
    /** @type {string | null} */ this.lastActiveTime = null;
    /** @type {string | null} */ this.socketId = null;
    /** @type {string | null} */ this.serverId = null;
    /** @type {string | null} */ this.reason = null;
    /** @type {string | null} */ this.finishedBy = null;
    /** @type {string | null} */ this.finishedByName = null;
    this.attempt = 0;
    /** @type {number | null} */ this.maxAttempts = null;
    /** @type {string | null} */ this.nextAttemptAt = null;
    this.exhausted = false;
    this.removed = false;
    /** @type {string[]} */ this.flags = [];
    this.unstable = false;
    this.recoveries = 0;
    /** @type {number | null} */ this.recoveredAfter = null;
    /** @type {string | null} */ this.ipAddress = null;
    /** @type {string | null} */ this.browserInfo = null;
    this.version = 0;
    /** @type {"NONE" | "WAITING" | "COMPLETED" | "FAILED" | "TIMED_OUT" | "UNKNOWN"} */ this.mobileSync = "NONE";
    /** @type {string | null} */ this.mobileSyncReason = null;
    /** @type {string | null} */ this.mobileSyncAt = null;
    /** @type {string | null} */ this.deadline = null;
    /** @type {string | null} */ this.deviceId = null;
    /** @type {string | null} */ this.imageUrl = null;
    /** @type {Capture[]} */ this.captures = [];
    /** @type {{verdict: "accepted" | "rejected", reason?: string, by?: string} | null} */ this.review = null;
    /** @type {string | null} */ this.challenge = null;
    this.mobileSyncVersion = 0;
    this.notices = 0;
    /** @type {string[]} */ this.unconfirmed = [];
    /** @type {string[]} */ this.confirmedPlanNotices = [];
    /** @type {Help | null} */ this.help = null;
    this.noticesVersion = 0;
    this.versionFromEvent = false;
    this.mobileSyncFromEvent = false;
    this.noticesFromEvent = false;
  }

  get connected() {
    return this.status === "CONNECTED";
  }
}

/**
 * Every examinee of a plan by id (`examinees`), and counts of the frames.
 *
 *   const view = new PlanView();
 *   if (view.apply(message) === "APPLIED") redraw(view.takeChanges().changed);
 *   view.examinees.get("E1").status;
 *
 * Connection events, mobile sync events and notices of an examinee have one sequence of versions each. A frame that is not
 * newer changes nothing, so frames in any order, also repeated, end in the same view. `complete`: a whole snapshot was
 * applied. `events`: applied events by type. `current`: the view is up to date; else it shows the state at `currentUntil`,
 * and the server waits for `waitingFor`. `plan`: the newest `plan_state` (its data), or `null`; `planNotices`: the data of
 * messages to everybody or to several, by actionId.
 */
export class PlanView {
  constructor() {
    /** @type {Map<string, Seen>} */ this.examinees = new Map();
    /** @type {Record<string, any> | null} */ this.plan = null;
    /** @type {Map<string, Record<string, any>>} */ this.planNotices = new Map();
    this.complete = false;
    this.current = true;
    /** @type {string | null} */ this.currentUntil = null;
    /** @type {string | null} */ this.waitingFor = null;
    this.snapshots = 0;
    this.resyncs = 0;
    this.doubled = 0;
    this.late = 0;
    this.covered = 0;
    /** @type {Record<string, number>} */ this.events = {};
    /** @type {Set<string>} */ this._changed = new Set();
    /** @type {Set<string>} */ this._gone = new Set();
    this._planChanged = false;
    /** @type {Set<string> | null} */ this._sinceFirstPart = null;
  }

  /**
   * Apply a frame.
   * @param {Message} message
   * @returns {Verdict}
   */
  apply(message) {
    if (message.type === "plan_snapshot") return this._snapshot(message.data);
    if (message.type === "view_status") return this._status(message.data);
    const change = CHANGES.get(message.type) ?? PLAN_CHANGES.get(message.type);
    if (change === undefined) return "OTHER";
    const verdict = change(this, message);
    if (verdict === "APPLIED") {
      this.events[message.type] = (this.events[message.type] ?? 0) + 1;
      if (PLAN_CHANGES.has(message.type)) this._planChanged = true;
      else this._changed.add(message.data.examineeId);
    } else if (verdict === "DOUBLED") this.doubled += 1;
    else if (verdict === "LATE") this.late += 1;
    else this.covered += 1;
    return verdict;
  }

  /**
   * Return and forget which examinees have changed since the last call, which have left the plan, and whether the plan
   * itself (`plan`, `planNotices`) has changed.
   * @returns {{changed: Set<string>, gone: Set<string>, plan: boolean}}
   */
  takeChanges() {
    const taken = { changed: this._changed, gone: this._gone, plan: this._planChanged };
    this._planChanged = false;
    this._changed = new Set();
    this._gone = new Set();
    return taken;
  }

  /** @param {string} examineeId */
  _examinee(examineeId) {
    let seen = this.examinees.get(examineeId);
    if (seen === undefined) {
      seen = new Seen(examineeId);
      this.examinees.set(examineeId, seen);
      this._changed.add(examineeId);
      this._gone.delete(examineeId);
    }
    this._sinceFirstPart?.add(examineeId);
    return seen;
  }

  /** @param {Record<string, any>} data @returns {Verdict} */
  _snapshot(data) {
    const part = data.part ?? 1;
    if (part === 1) this._sinceFirstPart = new Set();
    for (const notice of data.planNotices ?? []) {
      if (applyPlanNotice(this, { type: "plan_notice", data: notice }) === "APPLIED") this._planChanged = true;
    }
    for (const row of data.examinees) {
      if (takeRow(this._examinee(row.examineeId), row)) this._changed.add(row.examineeId);
    }
    if (part === (data.parts ?? 1)) {
      // Events between the parts are newer than the snapshot, so the examinees that they name stay, too.
      if (this._sinceFirstPart !== null) {
        for (const examineeId of [...this.examinees.keys()]) {
          if (!this._sinceFirstPart.has(examineeId)) this._forget(examineeId);
        }
        this.complete = true;
      }
      this.snapshots += 1;
      if (data.resync) this.resyncs += 1;
    }
    return "APPLIED";
  }

  /** @param {Record<string, any>} data @returns {Verdict} */
  _status({ current, since, waitingFor }) {
    this.current = current;
    this.currentUntil = current ? null : since;
    this.waitingFor = waitingFor ?? null;
    return "APPLIED";
  }

  /** @param {string} examineeId */
  _forget(examineeId) {
    this.examinees.delete(examineeId);
    this._changed.delete(examineeId);
    this._gone.add(examineeId);
  }
}

/** @param {number} version @param {number} seen @param {boolean} fromEvent @returns {Verdict} */
function notNewer(version, seen, fromEvent) {
  if (!fromEvent) return "COVERED";
  return version === seen ? "DOUBLED" : "LATE";
}

const DATED = new Set(["examinee_connected", "examinee_disconnected", "examinee_migrating", "examinee_finished"]);

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyConnection(view, { type, data }) {
  const seen = view._examinee(data.examineeId);
  if (data.version <= seen.version) {
    const verdict = notNewer(data.version, seen.version, seen.versionFromEvent);
    seen.versionFromEvent ||= data.version === seen.version; // a repetition counts as doubled from now on
    return verdict;
  }
  seen.version = data.version;
  seen.versionFromEvent = true;
  const before = seen.status;
  seen.name = data.name ?? null;
  seen.labels = data.labels ?? {};
  seen.removed = type === "examinee_removed";
  seen.flags = [...(data.flags ?? [])];
  seen.unstable = data.unstable ?? false;
  seen.status = statusAfter(type, data);
  seen.finishedBy = seen.finishedByName = null;
  if (seen.status === "NEVER") seen.since = null;
  else if (DATED.has(type) || before !== seen.status || seen.since === null) seen.since = data.timestamp ?? null;
  if (!data.restated) seen.nextAttemptAt = data.nextAttemptAt ?? null;
  switch (type) {
    case "examinee_connected":
      setPlace(seen, data);
      seen.ipAddress = data.clientInfo?.ipAddress ?? seen.ipAddress;
      seen.browserInfo = data.clientInfo?.browserInfo ?? seen.browserInfo;
      seen.recoveredAfter = data.recovered ? (data.outageSeconds ?? null) : null;
      if (data.recovered && !data.restated) seen.recoveries += 1;
      seen.reason = null;
      seen.exhausted = false;
      setAttempt(seen, 0, null);
      break;
    case "examinee_disconnected":
      seen.socketId = data.socketId ?? seen.socketId;
      seen.serverId = data.serverId ?? seen.serverId;
      seen.reason = data.reason ?? null;
      seen.exhausted = data.reason === "RECONNECT_LIMIT_EXCEEDED"; // repeated while shut out
      if (!data.restated) setAttempt(seen, data.attempt ?? 0, data.maxAttempts); // else the attempts continue
      break;
    case "examinee_migrating":
      setPlace(seen, data);
      seen.reason = "SERVER_DRAINING";
      seen.exhausted = false;
      setAttempt(seen, 0, null);
      break;
    case "examinee_reconnecting":
      seen.exhausted = false;
      setAttempt(seen, data.attempt, data.maxAttempts);
      break;
    case "examinee_reconnect_exhausted":
      seen.exhausted = true;
      seen.reason = "RECONNECT_LIMIT_EXCEEDED";
      break;
    case "examinee_readmitted":
    case "examinee_removed":
      seen.exhausted = false;
      seen.reason = seen.status === "NEVER" ? null : type === "examinee_removed" ? "REMOVED" : "READMITTED";
      setAttempt(seen, 0, null);
      break;
    case "examinee_enrolled":
      takeConnection(seen, data.connection, data.reconnect, data.removed);
      break;
    case "examinee_finished":
      setPlace(seen, {});
      seen.reason = data.reason;
      seen.finishedBy = data.by;
      seen.finishedByName = data.byName ?? null;
      seen.exhausted = false;
      setAttempt(seen, 0, null);
      break;
    case "examinee_unstable":
      takeConnection(seen, data.connection, data.reconnect, false);
      break;
    case "examinee_resumed":
      takeConnection(seen, data.connection, { count: seen.recoveries }, false);
      break;
  }
  return "APPLIED";
}

/** @param {string} type @param {Record<string, any>} data @returns {Seen["status"]} */
function statusAfter(type, data) {
  if (type === "examinee_connected") return "CONNECTED";
  if (type === "examinee_migrating") return "MIGRATING";
  if (type === "examinee_finished") return "FINISHED";
  if (type === "examinee_readmitted" || type === "examinee_removed") return data.status ?? "DISCONNECTED";
  // An examinee who reconnects, or has used up the attempts, is disconnected, even if no loss event arrived.
  return "DISCONNECTED";
}

/**
 * @param {Seen} seen
 * @param {Record<string, any>} connection
 * @param {Record<string, any>} reconnect
 * @param {boolean | undefined} removed
 */
function takeConnection(seen, connection, reconnect, removed) {
  seen.status = connection.status ?? "NEVER";
  seen.since = connection.since ?? null;
  setPlace(seen, connection);
  seen.ipAddress = connection.ipAddress ?? seen.ipAddress;
  seen.reason = connection.reason ?? null;
  seen.finishedBy = connection.finishedBy ?? null;
  seen.finishedByName = connection.finishedByName ?? null;
  setAttempt(seen, reconnect.attempt ?? 0, reconnect.maxAttempts);
  seen.nextAttemptAt = reconnect.nextAttemptAt ?? null;
  seen.exhausted = reconnect.exhausted ?? false;
  seen.recoveries = reconnect.count ?? 0;
  seen.removed = removed ?? false;
  seen.flags = [...(connection.flags ?? [])];
  seen.unstable = reconnect.unstable ?? false;
}

/** @param {Seen} seen @param {Record<string, any>} data */
function setPlace(seen, data) {
  seen.socketId = data.socketId ?? null;
  seen.serverId = data.serverId ?? null;
}

/** @param {Seen} seen @param {number} attempt @param {number | null | undefined} maxAttempts */
function setAttempt(seen, attempt, maxAttempts) {
  seen.attempt = attempt;
  seen.maxAttempts = maxAttempts ?? null;
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyMobileSync(view, { type, data }) {
  const seen = view._examinee(data.examineeId);
  const version = data.version ?? 0;
  if (version <= seen.mobileSyncVersion) {
    const verdict = notNewer(version, seen.mobileSyncVersion, seen.mobileSyncFromEvent);
    seen.mobileSyncFromEvent ||= version === seen.mobileSyncVersion;
    return verdict;
  }
  seen.mobileSyncVersion = version;
  seen.mobileSyncFromEvent = true;
  const completed = type === "mobile_sync_completed";
  seen.mobileSync = completed ? "COMPLETED" : data.status;
  seen.mobileSyncReason = completed ? null : (data.reason ?? null);
  seen.imageUrl = (completed ? data.imageUrl : data.captureInfo?.imageUrl) ?? null;
  seen.mobileSyncAt = data.timestamp ?? null;
  seen.deviceId = data.deviceId ?? null;
  seen.deadline = completed ? null : (data.deadline ?? null);
  setPictures(seen, data);
  return "APPLIED";
}

/** @param {Seen} seen @param {Record<string, any>} data of an event or a row */
function setPictures(seen, data) {
  seen.captures = [...(data.captures ?? [])];
  seen.review = data.review ?? null;
  seen.challenge = data.challenge ?? null;
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyNotices(view, { data }) {
  const seen = view._examinee(data.examineeId);
  const version = data.version ?? 0;
  if (version <= seen.noticesVersion) {
    const verdict = notNewer(version, seen.noticesVersion, seen.noticesFromEvent);
    seen.noticesFromEvent ||= version === seen.noticesVersion;
    return verdict;
  }
  seen.noticesVersion = version;
  seen.noticesFromEvent = true;
  seen.notices = data.sent ?? 0;
  seen.unconfirmed = [...(data.unconfirmed ?? [])];
  seen.confirmedPlanNotices = [...(data.confirmedPlanNotices ?? [])];
  seen.help = data.help ?? null;
  return "APPLIED";
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyPlanState(view, { data }) {
  const known = view.plan?.version ?? 0;
  // The same state may come after `welcome` and as an event: that is no fault.
  if (data.version <= known) return data.version === known ? "COVERED" : "LATE";
  view.plan = data;
  return "APPLIED";
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyPlanNotice(view, { data }) {
  // Each message has versions of its own, for it never changes, and no event lists all of them.
  const [version, known] = [data.version ?? 0, view.planNotices.get(data.actionId)?.version ?? 0];
  if (version <= known) return version === known ? "COVERED" : "LATE";
  view.planNotices.set(data.actionId, data);
  return "APPLIED";
}

/** @param {Seen} seen @param {Record<string, any>} row @returns {boolean} whether the row was newer */
function takeRow(seen, row) {
  const { connection, mobileSync, reconnect, notices } = row;
  let changed = false;
  if (row.version > seen.version) {
    seen.version = row.version;
    seen.versionFromEvent = false;
    seen.name = row.name ?? null;
    seen.labels = row.labels ?? {};
    seen.recoveredAfter = null;
    takeConnection(seen, connection, reconnect, row.removed);
    changed = true;
  }
  if (mobileSync.version > seen.mobileSyncVersion) {
    seen.mobileSync = mobileSync.status;
    seen.mobileSyncVersion = mobileSync.version;
    seen.mobileSyncReason = mobileSync.reason ?? null;
    seen.imageUrl = mobileSync.imageUrl ?? null;
    seen.mobileSyncAt = mobileSync.timestamp ?? null;
    seen.deviceId = mobileSync.deviceId ?? null;
    seen.deadline = mobileSync.status === "COMPLETED" ? null : (mobileSync.deadline ?? null);
    setPictures(seen, mobileSync);
    seen.mobileSyncFromEvent = false;
    changed = true;
  }
  if (notices?.version > seen.noticesVersion) {
    seen.notices = notices.sent ?? 0;
    seen.unconfirmed = [...(notices.unconfirmed ?? [])];
    seen.confirmedPlanNotices = [...(notices.confirmedPlanNotices ?? [])];
    seen.help = notices.help ?? null;
    seen.noticesVersion = notices.version;
    seen.noticesFromEvent = false;
    changed = true;
  }
  // Only snapshots have it, without a version: the latest snapshot counts.
  seen.lastActiveTime = row.lastActiveTime ?? seen.lastActiveTime;
  return changed;
}

/**
 * What each event about an examinee does to the view.
 * @type {ReadonlyMap<string, (view: PlanView, message: Message) => Verdict>}
 */
export const CHANGES = new Map([
  ["examinee_connected", applyConnection],
  ["examinee_disconnected", applyConnection],
  ["examinee_migrating", applyConnection],
  ["examinee_reconnecting", applyConnection],
  ["examinee_reconnect_exhausted", applyConnection],
  ["examinee_unstable", applyConnection],
  ["examinee_readmitted", applyConnection],
  ["examinee_removed", applyConnection],
  ["examinee_enrolled", applyConnection],
  ["examinee_finished", applyConnection],
  ["examinee_resumed", applyConnection],
  ["mobile_sync_status", applyMobileSync],
  ["mobile_sync_completed", applyMobileSync],
  ["notice", applyNotices],
  ["notice_confirmed", applyNotices],
  ["help_requested", applyNotices],
  ["help_taken", applyNotices],
  ["help_closed", applyNotices],
]);

/**
 * What each event about the plan as a whole does to the view.
 * @type {ReadonlyMap<string, (view: PlanView, message: Message) => Verdict>}
 */
export const PLAN_CHANGES = new Map([
  ["plan_state", applyPlanState],
  ["plan_notice", applyPlanNotice],
]);
