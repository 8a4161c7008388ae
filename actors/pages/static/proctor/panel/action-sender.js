/**
 * Sends the actions of this page to the server, and notes their outcomes in `Actions`.
 *
 * @typedef {import("./actions.js").Actions} Actions
 * @typedef {import("./actions.js").Kind} Kind
 * @typedef {{kind: Kind, examineeId: string | null, text?: string, seconds?: number, requestId?: string}} Order `text`: of a
 *   message, or the reason of a removal. `seconds`: of an extension. `requestId`: of an action that is repeated.
 *   `examineeId`: `null` for everybody.
 */

import { t } from "../../common/i18n.js";

/** Sends actions, and calls `changed` when an outcome has changed. */
export class ActionSender {
  /**
   * @param {{client: import("../../examwire.js").ProctorClient, actions: Actions, by: string, now: () => number,
   *   changed: () => void}} context `by`: the proctor. `now`: ms since the epoch, by the servers' clock.
   */
  constructor({ client, actions, by, now, changed }) {
    this._client = client;
    this._actions = actions;
    this._by = by;
    this._now = now;
    this._changed = changed;
  }

  /**
   * Send an action, and wait for its answer.
   * @param {Order} order
   * @returns {Promise<import("../several/batch.js").Answer>}
   */
  async send({ kind, examineeId, text = "", seconds = 0, requestId = newActionId() }) {
    const client = this._client;
    this._actions.begin({ id: requestId, kind, examineeId, by: this._by, at: this._now(), text, seconds });
    this._changed();
    const one = examineeId ?? "";
    const requests = {
      notify: () => client.notify(one, text, { requestId }),
      readmit: () => client.readmit(one, { requestId }),
      remove: () => client.remove(one, { reason: text || undefined, requestId }),
      extend_mobile_sync: () => client.extend(one, seconds, { requestId }),
      finish: () => client.finish(one, { requestId }),
      resume: () => client.resume(one, { requestId }),
      extend_exam: () => client.extendExam(examineeId, seconds, { requestId }),
    };
    try {
      await requests[kind]();
      this._actions.accepted(requestId);
      return { outcome: "accepted", why: "" };
    } catch (error) {
      const { code, detail } = /** @type {{code?: string, detail?: string}} */ (error);
      if (code === undefined) throw error;
      const why = refusalText(kind, code, detail ?? code, client.plan?.status === "CLOSED");
      this._actions.failed(requestId, code, why);
      // Only a server refuses; after a lost connection the outcome is unknown.
      const refused = code !== "TIMEOUT" && client.connected;
      return { outcome: refused ? "refused" : "unknown", why };
    } finally {
      this._changed();
    }
  }
}

/**
 * Return the text of a refusal in the language in use; of an unknown one, the server's own.
 * @param {Kind} kind @param {string} code @param {string} detail @param {boolean} closed whether the plan is closed
 */
export function refusalText(kind, code, detail, closed) {
  if (code === "NOT_FOUND") return t("refusal.NOT_FOUND");
  if (code !== "CONFLICT" || (kind !== "resume" && kind !== "extend_exam")) return detail;
  if (closed) return t("refusal.closed");
  return kind === "extend_exam" ? t("refusal.noEnd") : detail;
}

/** Return a new random id of an action. @returns {string} */
export function newActionId() {
  return crypto.getRandomValues(new Uint8Array(12)).reduce((id, byte) => id + byte.toString(16).padStart(2, "0"), "");
}
