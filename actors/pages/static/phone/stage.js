/**
 * Asks the server for the mobile step of the phone's examinee. A phone has no socket, so it asks regularly whether there is
 * more time, and whether the examinee was removed or let in again.
 */

import { askedOf, timesOf } from "../mobile/code.js";

/** Seconds between two requests. Not less, for all phones of a hall ask one server. */
export const CALM_SECONDS = 15;
/** Seconds between two requests while the examinee waits for the proctor: the time is up, or they were removed. */
export const URGENT_SECONDS = 8;
/** Each wait is spread by this share. */
export const SPREAD = 0.25;
/** The least seconds between two requests, also for `soon()`. */
export const LEAST_SECONDS = 2;
const ANSWER_SECONDS = 10;
/** The result of a request whose token has expired. */
export const EXPIRED = "EXPIRED";

/**
 * `status` as of the mobile sync (NONE: not entered). `deadline`: ms since the epoch, by the server's clock, which is
 * `offset` ms ahead of ours; `null`: none. `over`: the exam is over for the examinee. `challenge`, `rejected`: as in `Pass`.
 * @typedef {{status: string, removed: boolean, over: boolean, deadline: number | null, offset: number, challenge: string | null,
 *   rejected: import("../mobile/code.js").Rejected | null}} Stage
 */

/**
 * Ask the server once. `null`: no answer, so the previous one still counts; `EXPIRED`: the token is no longer accepted.
 * @param {{token: string, planId: string, examineeId: string}} pass
 * @param {typeof fetch} [get] for tests
 * @returns {Promise<Stage | typeof EXPIRED | null>}
 */
export async function stageOf({ token, planId, examineeId }, get = fetch) {
  const place = `/v1/plans/${encodeURIComponent(planId)}/examinees/${encodeURIComponent(examineeId)}/mobile-stage`;
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const signal = AbortSignal.timeout?.(ANSWER_SECONDS * 1000);
    const response = await get(place, { headers, cache: "no-store", signal });
    if (response.status === 401) return EXPIRED;
    if (!response.ok) return null;
    const body = await response.json();
    const { status, removed, deadline, secondsLeft } = body;
    if (typeof status !== "string" || typeof removed !== "boolean") return null;
    return { status, removed, over: body.over === true, ...timesOf(deadline, secondsLeft, Date.now()), ...askedOf(body) };
  } catch {
    return null; // no network, or the answer of a proxy
  }
}

/**
 * @typedef {object} Environment given by the page, or by a test
 * @property {() => Promise<Stage | typeof EXPIRED | null>} ask
 * @property {(stage: Stage) => void} receive handles an answer
 * @property {() => void} expired the token has expired; nothing is asked until `wanted` is set again
 * @property {() => boolean} urgent whether the examinee waits for the proctor
 * @property {() => number} now ms since the epoch
 * @property {() => number} random in [0, 1)
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** Asks regularly while it is `wanted`. */
export class StageWatch {
  /** @param {Environment} environment */
  constructor(environment) {
    this._environment = environment;
    this._wanted = false;
    this._timer = null;
    this._askedAt = -Infinity;
    this._asking = false;
  }

  /** Begin or end to ask. @param {boolean} wanted */
  wanted(wanted) {
    if (wanted === this._wanted) return;
    this._wanted = wanted;
    if (wanted) this._later();
    else this._environment.clearTimeout(this._timer);
  }

  /** Ask as soon as allowed: the latest answer may be outdated. */
  soon() {
    const since = (this._environment.now() - this._askedAt) / 1000;
    if (this._wanted && !this._asking) this._in(Math.max(0, LEAST_SECONDS - Math.abs(since)));
  }

  /** Ask after the usual wait. */
  _later() {
    const seconds = this._environment.urgent() ? URGENT_SECONDS : CALM_SECONDS;
    this._in(seconds * (1 + SPREAD * (2 * this._environment.random() - 1)));
  }

  /** Ask after so many seconds. @param {number} seconds */
  _in(seconds) {
    this._environment.clearTimeout(this._timer);
    this._timer = this._environment.setTimeout(() => void this._ask(), seconds * 1000);
  }

  async _ask() {
    this._asking = true;
    this._askedAt = this._environment.now();
    const stage = await this._environment.ask();
    this._asking = false;
    if (!this._wanted) return;
    if (stage === EXPIRED) {
      this._wanted = false;
      this._environment.expired();
      return;
    }
    if (stage !== null) this._environment.receive(stage);
    this._later();
  }
}
