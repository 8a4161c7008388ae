/**
 * Sends the actions of this page to the server, and notes their outcomes in `Actions`.
 *
 * @typedef {import("./actions.js").Actions} Actions
 * @typedef {import("./actions.js").Kind} Kind
 * @typedef {{kind: Kind, examineeId: string, text?: string, seconds?: number, requestId?: string}} Order `text`: of a
 *   message, or the reason of a removal. `seconds`: of an extension. `requestId`: of an action that is repeated.
 */

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
   * @returns {Promise<import("../readmit/batch.js").Answer>}
   */
  async send({ kind, examineeId, text = "", seconds = 0, requestId = newActionId() }) {
    const client = this._client;
    this._actions.begin({ id: requestId, kind, examineeId, by: this._by, at: this._now(), text, seconds });
    this._changed();
    const requests = {
      notify: () => client.notify(examineeId, text, { requestId }),
      readmit: () => client.readmit(examineeId, { requestId }),
      remove: () => client.remove(examineeId, { reason: text || undefined, requestId }),
      extend_mobile_sync: () => client.extend(examineeId, seconds, { requestId }),
    };
    try {
      await requests[kind]();
      this._actions.accepted(requestId);
      return { outcome: "accepted", why: "" };
    } catch (error) {
      const { code, detail } = /** @type {{code?: string, detail?: string}} */ (error);
      if (code === undefined) throw error;
      this._actions.failed(requestId, code, detail ?? code);
      // Only a server refuses; after a lost connection the outcome is unknown.
      const refused = code !== "TIMEOUT" && client.connected;
      return { outcome: refused ? "refused" : "unknown", why: detail ?? code };
    } finally {
      this._changed();
    }
  }
}

/** Return a new random id of an action. @returns {string} */
export function newActionId() {
  return crypto.getRandomValues(new Uint8Array(12)).reduce((id, byte) => id + byte.toString(16).padStart(2, "0"), "");
}
