/**
 * The panel of one examinee: what is known, what happened, the picture, and what a proctor can do.
 *
 * @typedef {import("./wall-people.js").Person} Person
 * @typedef {import("./wall-actions.js").Actions} Actions
 */

import { clock, dateTime, duration, hasText, language, t, time } from "./i18n.js";
import { element, setText } from "./wall-link.js";
import { milliseconds, STATES } from "./wall-people.js";
import { describe, nameOf, reasonText } from "./wall-text.js";
import { entryText, Timeline } from "./wall-timeline.js";

const TIMELINE_ENTRIES = 200;
/** What was told live is there at once; the log is read again this long after, for the outages and the exact words. */
const READ_AGAIN_MS = 1500;
const EXTENSIONS = [30, 60, 120, 300, 600];
const NO_OUTAGES = Object.freeze({ outages: 0, stillDisconnected: false, compensateSeconds: 0 });

/** A problem of the web server (RFC 9457), or what the browser says. */
class Failed extends Error {}

/** Fires `close`, and `act` (detail: `{kind, examineeId, text?, seconds?}`). */
export class Panel extends EventTarget {
  /**
   * @param {{actions: Actions, now: () => number, online: () => boolean, fetch: (path: string) => Promise<Response>}} given
   *   `fetch`: of the plan (`/examinees/…`), with the proctor's token
   */
  constructor({ actions, now, online, fetch }) {
    super();
    this._root = element("panel");
    this._actions = actions;
    this._now = now;
    this._online = online;
    this._fetch = fetch;
    /** @type {Person | null} */ this.person = null;
    this._timeline = new Timeline();
    /** @type {Record<string, any> | null} */ this._outages = null;
    /** @type {"loading" | "there" | string} */ this._read = "loading";
    this._picture = "";
    this._turn = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
    element("panel-close").addEventListener("click", () => this.close());
    this._root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.close();
      }
    });
    this._wire();
  }

  get open() {
    return this.person !== null;
  }

  /** @param {Person} person */
  show(person) {
    const other = this.person?.id !== person.id;
    this.person = person;
    this._root.hidden = false;
    document.documentElement.dataset.panel = "open";
    if (other) {
      this._timeline = new Timeline();
      this._outages = null;
      this._read = "loading";
      this._turn += 1;
      this._forgetPicture();
      /** @type {HTMLTextAreaElement} */ (element("notify-text")).value = "";
      this._root.scrollTop = 0;
      this._readSoon(0);
    }
    this.refresh();
    this._drawTimeline();
    this._drawOutages();
    element("panel-name").focus({ preventScroll: true });
  }

  close() {
    if (this.person === null) return;
    this.person = null;
    this._turn += 1;
    clearTimeout(this._timer);
    this._forgetPicture();
    this._root.hidden = true;
    delete document.documentElement.dataset.panel;
    this.dispatchEvent(new Event("close"));
  }

  /** A message about anybody. @param {{type: string, data: Record<string, any>}} message */
  told(message) {
    if (message.data.examineeId !== this.person?.id) return;
    if (this._timeline.told(message)) {
      this._drawTimeline();
      this._readSoon(READ_AGAIN_MS);
    }
  }

  /** The page is up to date again: there may be more in the log. */
  readAgain() {
    if (this.open) this._readSoon(0);
  }

  /** The examinee has changed, or the language. */
  refresh() {
    const { person } = this;
    if (person === null) return;
    setText(element("panel-name"), nameOf(person));
    const chip = element("panel-state");
    chip.dataset.tone = STATES[person.state].tone;
    chip.querySelector("path")?.setAttribute("d", STATES[person.state].path);
    setText(chip.querySelector("span"), t(`state.${person.state}`));
    this._drawFacts(person);
    const { seen } = person;
    const readmit = seen.exhausted || seen.removed;
    offer("readmit", readmit, "act.readmit.not");
    offer("extend", ["WAITING", "FAILED", "TIMED_OUT"].includes(seen.mobileSync), "act.extend.not");
    offer("remove", !seen.removed, "act.remove.means");
    this.drawActions();
    this._drawPicture(person);
    this.tick();
  }

  /** Time has passed. */
  tick() {
    if (this.person === null) return;
    const said = describe(this.person, this._now());
    setText(element("panel-more"), [said.clock, said.more].filter(Boolean).join(" · "));
    if (this._outages?.stillDisconnected) this._drawOutages();
  }

  /** The language has changed. */
  translate() {
    drawExtensions();
    this.refresh();
    this._drawTimeline();
    this._drawOutages();
  }

  // -- what can be done ------------------------------------------------------------------------------

  _wire() {
    drawExtensions();
    const text = /** @type {HTMLTextAreaElement} */ (element("notify-text"));
    const seconds = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
    const dialog = /** @type {HTMLDialogElement} */ (element("remove-dialog"));
    const reason = /** @type {HTMLInputElement} */ (element("remove-reason"));
    element("notify-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const said = text.value.trim();
      if (!said) return;
      this._act({ kind: "notify", text: said });
      text.value = "";
    });
    text.addEventListener("keydown", (event) => {
      // Ctrl+Enter sends, Enter alone makes a new line: a message that goes out half written cannot be taken back.
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) text.form?.requestSubmit();
    });
    element("readmit").addEventListener("click", (event) => isOffered(event) && this._act({ kind: "readmit" }));
    element("extend").addEventListener("click", (event) => {
      if (isOffered(event)) this._act({ kind: "extend_mobile_sync", seconds: Number(seconds.value) });
    });
    element("remove").addEventListener("click", (event) => {
      if (!isOffered(event) || this.person === null) return;
      dialog.dataset.id = this.person.id;
      dialog.returnValue = "no";
      reason.value = "";
      setText(element("remove-question"), t("act.remove.question", { who: nameOf(this.person) }));
      dialog.showModal();
    });
    reason.addEventListener("keydown", (event) => {
      // A form's Enter presses its first button, which is Cancel: whoever typed a reason would believe that it was done.
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      if (!event.repeat) /** @type {HTMLElement} */ (dialog.querySelector('[value="yes"]')).focus();
    });
    dialog.addEventListener("close", () => {
      // The panel may show somebody else by now: the one who was asked about is meant.
      const examineeId = dialog.dataset.id;
      if (dialog.returnValue === "yes" && examineeId) {
        this._act({ kind: "remove", text: reason.value.trim(), examineeId });
      }
    });
  }

  /** @param {{kind: string, examineeId?: string, text?: string, seconds?: number}} what */
  _act(what) {
    const examineeId = what.examineeId ?? this.person?.id;
    if (examineeId) this.dispatchEvent(new CustomEvent("act", { detail: { ...what, examineeId } }));
  }

  /** What was asked for from here, and what became of it. */
  drawActions() {
    if (this.person === null) return;
    const list = element("actions");
    const lines = this._actions.of(this.person.id).slice(0, 8).map((action) => {
      const what = t(`did.${action.kind}`, { text: action.text, duration: duration(action.seconds) });
      const own = `did.${action.outcome}.${action.kind}`;
      const state = action.outcome === "pending" && !this._online() ? "did.waiting" : `did.${action.outcome}`;
      const became = t(hasText(own) ? own : state, { why: action.why });
      return { outcome: action.outcome, what, became, by: t("did.by", { time: time(action.at), by: action.by }) };
    });
    list.hidden = lines.length === 0;
    while (list.children.length > lines.length) list.lastElementChild?.remove();
    lines.forEach((line, at) => {
      const item = list.children[at] ?? list.appendChild(parts("li", "strong", "span", "small"));
      item.setAttribute("data-outcome", line.outcome);
      setText(item.children[0], line.what);
      setText(item.children[1], line.became);
      setText(item.children[2], line.by);
    });
  }

  // -- what is known ---------------------------------------------------------------------------------

  /** @param {Person} person */
  _drawFacts({ seen, since }) {
    const at = (/** @type {string | null} */ when) => (when && milliseconds(when) !== null ? dateTime(when) : "");
    /** @type {[string, string][]} */
    const facts = [
      ["fact.since", since === null ? "" : dateTime(since)],
      ["fact.reason", reasonText(seen.reason)],
      ["fact.attempt", seen.attempt > 0 ? t("fact.attempts", { attempt: seen.attempt, most: seen.maxAttempts ?? "?" }) : ""],
      ["fact.next", at(seen.nextAttemptAt)],
      ["fact.server", seen.serverId ?? ""],
      ["fact.address", seen.ipAddress ?? ""],
      ["fact.browser", seen.browserInfo ?? ""],
      ["fact.recoveries", seen.recoveries > 0 ? t("fact.times", { n: seen.recoveries }) : ""],
      ["fact.phone", [t(`phone.${seen.mobileSync}`), reasonText(seen.mobileSyncReason)].filter(Boolean).join(": ")],
      ["fact.deadline", seen.mobileSync === "WAITING" ? at(seen.deadline) : ""],
    ];
    const list = element("panel-facts");
    const told = facts.filter(([, value]) => value);
    while (list.children.length > told.length) list.lastElementChild?.remove();
    told.forEach(([key, value], row) => {
      const line = list.children[row] ?? list.appendChild(parts("div", "dt", "dd"));
      setText(line.children[0], t(key));
      setText(line.children[1], value);
    });
  }

  _drawOutages() {
    const outages = this._outages;
    if (outages === null) {
      setText(element("outages"), this._read === "loading" ? t("timeline.loading") : "–");
      return;
    }
    const said = [];
    if (outages.outages === 0) said.push(t("outages.none"));
    else {
      const words = { n: outages.outages, total: duration(outages.outageSeconds), longest: duration(outages.longestSeconds) };
      said.push(t("outages.sum", words));
    }
    if (outages.stillDisconnected && this.person?.since) {
      said.push(t("outages.now", { now: clock((this._now() - this.person.since) / 1000) }));
    }
    if (outages.compensateSeconds > 0) said.push(t("outages.compensate", { compensate: duration(outages.compensateSeconds) }));
    if (outages.complete === false) said.push(t("outages.cut"));
    setText(element("outages"), said.join(" "));
  }

  _drawTimeline() {
    const note = element("timeline-note");
    const { entries } = this._timeline;
    note.hidden = this._read === "there" && entries.length > 0;
    if (this._read === "loading") setText(note, t("timeline.loading"));
    else if (this._read === "there") setText(note, t("timeline.none"));
    else setText(note, t("timeline.failed", { why: this._read }));
    const list = element("timeline");
    while (list.children.length > entries.length) list.lastElementChild?.remove();
    entries.forEach((entry, at) => {
      const item = list.children[at] ?? list.appendChild(parts("li", "time", "span", "small"));
      item.setAttribute("data-what", entry.what);
      const when = /** @type {HTMLTimeElement} */ (item.children[0]);
      if (when.dateTime !== entry.time) {
        when.dateTime = entry.time;
        when.title = entry.time;
      }
      setText(when, entry.time ? time(entry.time) : "");
      setText(item.children[1], entryText(entry));
      // Of a confirmation it is the proctor whose message it was: nothing that "by" may be said of.
      const by = entry.what === "NOTICE_CONFIRMED" ? null : entry.by;
      setText(item.children[2], by ? t("timeline.by", { by }) : "");
    });
    list.lang = language();
  }

  /** @param {number} delay ms */
  _readSoon(delay) {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => void this._readLog(), delay);
  }

  async _readLog() {
    const { person } = this;
    const turn = this._turn;
    if (person === null) return;
    try {
      const response = await this._fetch(`/examinees/${person.id}/timeline?limit=${TIMELINE_ENTRIES}`);
      const body = await bodyOf(response);
      if (!response.ok && response.status !== 404) throw new Failed(body.detail ?? String(response.status));
      if (turn !== this._turn) return;
      // 404: the log holds nothing about somebody who never came.
      this._timeline.read(body.entries ?? []);
      this._outages = body.outages ?? NO_OUTAGES;
      this._read = "there";
    } catch (error) {
      if (turn !== this._turn) return;
      this._read = error instanceof Failed ? error.message : String(/** @type {Error} */ (error).message);
    }
    this._drawTimeline();
    this._drawOutages();
  }

  // -- the picture -----------------------------------------------------------------------------------

  /** @param {Person} person */
  _drawPicture(person) {
    const { seen } = person;
    const section = element("picture-section");
    section.hidden = seen.imageUrl === null && seen.mobileSync !== "COMPLETED";
    if (section.hidden) {
      this._forgetPicture();
      return;
    }
    const image = /** @type {HTMLImageElement} */ (element("picture"));
    image.alt = t("picture.alt", { who: nameOf(person) });
    const wanted = `${person.id} ${seen.mobileSyncVersion}`;
    if (!image.hidden) setText(element("picture-text"), pictureText(person));
    if (this._picture !== wanted) {
      this._picture = wanted;
      void this._loadPicture(person, wanted);
    }
  }

  /** @param {Person} person @param {string} wanted */
  async _loadPicture(person, wanted) {
    const image = /** @type {HTMLImageElement} */ (element("picture"));
    setText(element("picture-text"), t("picture.loading"));
    try {
      const response = await this._fetch(`/captures/${person.id}/sync_cap.jpg`);
      if (!response.ok) throw new Failed((await bodyOf(response)).detail ?? String(response.status));
      const url = URL.createObjectURL(await response.blob());
      if (this._picture !== wanted) {
        URL.revokeObjectURL(url);
        return;
      }
      URL.revokeObjectURL(image.src);
      image.src = url;
      await image.decode();
      image.hidden = false;
      setText(element("picture-text"), pictureText(person));
    } catch (error) {
      if (this._picture !== wanted) return;
      image.hidden = true;
      setText(element("picture-text"), t("picture.failed", { why: String(/** @type {Error} */ (error).message) }));
    }
  }

  _forgetPicture() {
    const image = /** @type {HTMLImageElement} */ (element("picture"));
    this._picture = "";
    if (image.src) URL.revokeObjectURL(image.src);
    image.removeAttribute("src");
    image.hidden = true;
  }
}

/** @param {Person} person */
function pictureText({ seen }) {
  return t("picture.from", { device: seen.deviceId ?? "?", time: seen.mobileSyncAt ? dateTime(seen.mobileSyncAt) : "?" });
}

/** An element with empty parts. @param {string} outer @param {...string} inner */
function parts(outer, ...inner) {
  const made = document.createElement(outer);
  made.append(...inner.map((one) => document.createElement(one)));
  return made;
}

/**
 * What cannot be done now stays where it is, can be reached, and says why.
 * @param {string} id @param {boolean} possible @param {string} why
 */
function offer(id, possible, why) {
  const button = element(id);
  button.setAttribute("aria-disabled", String(!possible));
  button.title = possible ? "" : t(why);
}

/** What the web server answered; a proxy's own words are none of it. @param {Response} response */
async function bodyOf(response) {
  const json = /[/+]json\b/.test(response.headers.get("Content-Type") ?? "");
  return json ? response.json() : {};
}

/** @param {Event} event */
function isOffered(event) {
  return event.currentTarget instanceof Element && event.currentTarget.getAttribute("aria-disabled") !== "true";
}

function drawExtensions() {
  const select = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
  const chosen = select.value || "60";
  select.replaceChildren(...EXTENSIONS.map((seconds) => new Option(`+ ${duration(seconds)}`, String(seconds))));
  select.value = chosen;
}
