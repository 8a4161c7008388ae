/** The messages of proctors: a message is shown until it is confirmed, then it is listed as read. */

import { languages, person, t, time } from "../common/i18n.js";
import { announce, byId } from "../common/parts.js";

/** Draws the messages. Fires `unread` at the client when their number has changed. */
export class Messages {
  /** @param {import("../examwire.js").ExamineeClient} client */
  constructor(client) {
    this._client = client;
    /** @type {Map<string, HTMLElement>} */ this._shown = new Map();
    client.addEventListener("notice", (event) => {
      const { detail } = /** @type {CustomEvent<import("../examwire.js").Notice>} */ (event);
      this._add(detail);
      if (detail.confirmedAt === null) announce(`${t("messages.new")} ${detail.text}`);
    });
    languages.addEventListener("change", () => this._showAll());
    this._showAll();
  }

  /** The number of messages that are not confirmed. */
  get unread() {
    return [...this._client.notices.values()].filter((notice) => notice.confirmedAt === null).length;
  }

  /** Draw all messages again. */
  _showAll() {
    this._shown.clear();
    byId("messages-new").replaceChildren();
    byId("messages-read").replaceChildren();
    for (const notice of this._client.notices.values()) this._add(notice);
    this._count();
  }

  /** Add a message. @param {import("../examwire.js").Notice} notice */
  _add(notice) {
    const item = document.createElement("li");
    const text = document.createElement("p");
    const from = document.createElement("p");
    text.className = "text";
    text.id = `message-${notice.actionId}`;
    text.textContent = notice.text;
    from.className = "hint";
    item.append(text, from);
    this._shown.set(notice.actionId, item);
    if (notice.confirmedAt === null) this._asNew(notice, item, from);
    else this._asRead(notice, item, from);
    this._count();
  }

  /**
   * @param {import("../examwire.js").Notice} notice
   * @param {HTMLElement} item
   * @param {HTMLElement} from
   */
  _asNew(notice, item, from) {
    item.className = "note message";
    item.dataset.tone = "info";
    from.textContent = t("messages.from", { by: person(notice.by, notice.byName), time: time(notice.sentAt || Date.now()) });
    const button = document.createElement("button");
    button.className = "primary";
    button.textContent = t("messages.confirm");
    button.setAttribute("aria-describedby", `message-${notice.actionId}`);
    button.addEventListener("click", () => {
      this._client.confirmNotice(notice.actionId);
      button.remove();
      this._asRead(notice, item, from);
      this._count();
      // The focused button is gone: move the focus to the next one, or to the heading.
      const next = byId("messages-new").querySelector("button") ?? byId("messages-title");
      /** @type {HTMLElement} */ (next).focus();
    });
    item.append(button);
    byId("messages-new").append(item);
  }

  /**
   * @param {import("../examwire.js").Notice} notice
   * @param {HTMLElement} item
   * @param {HTMLElement} from
   */
  _asRead(notice, item, from) {
    item.className = "message";
    delete item.dataset.tone;
    const at = notice.confirmedAt ?? new Date().toISOString();
    const values = { by: person(notice.by, notice.byName), time: time(notice.sentAt || Date.now()), read: time(at) };
    from.textContent = t("messages.read", values);
    byId("messages-read").prepend(item);
  }

  /** Show how many messages were read. */
  _count() {
    const read = byId("messages-read").childElementCount;
    byId("messages").hidden = this._shown.size === 0;
    byId("messages-old").hidden = read === 0;
    byId("messages-old-label").textContent = t("messages.old", { n: read });
    this._client.dispatchEvent(new Event("unread"));
  }
}
