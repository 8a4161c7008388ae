/**
 * The proctor's wall: shows every examinee of a plan, updated live by the socket server.
 *
 * Each animation frame applies all changes since the last one (event `change` of the client) and updates the visible tiles.
 * Counts and summaries follow every `COUNT_EVERY_MS`, a new order every `ORDER_EVERY_MS`: nobody reads faster. The first
 * change after a pause shows at once.
 */

import { ProctorClient } from "../examwire.js";
import { languages, t, useTexts } from "../common/i18n.js";
import { texts as en } from "./locales/en.js";
import { texts as ko } from "./locales/ko.js";
import { forget, fromAddress, remember, claimsOf } from "../common/token.js";
import { Actions } from "./panel/actions.js";
import { Chime, Owed, SAY_EVERY_SECONDS, Summary } from "./incidents/alerts.js";
import { Controls } from "./toolbar/controls.js";
import { Door, otherRole } from "./session/sign-in.js";
import { element, setText } from "../common/elements.js";
import { keepIconsPainted } from "./tiles/icons.js";
import { IncidentList } from "./incidents/list.js";
import { Incidents, networkOf } from "./incidents/detection.js";
import { listenForKeys } from "./toolbar/keyboard.js";
import { Link, whyText } from "./session/connection-banner.js";
import { Pace } from "./throttle.js";
import { Panel } from "./panel/panel.js";
import { isNarrowed, milliseconds, People, reorders, stateOf, STATES } from "./examinees.js";
import { ReadmitMany } from "./readmit/readmit.js";
import { incidentName, nameOf } from "./texts.js";
import { Tiles } from "./tiles/tiles.js";
import { Web } from "./session/web-api.js";

/** @typedef {import("./incidents/detection.js").Incident} Incident */
/** @typedef {import("./examinees.js").State} State */

const COUNT_EVERY_MS = 250;
const ORDER_EVERY_MS = 1000;
/** The order stays while a person moves over the tiles (ms after the last move), but not longer than the second value. */
const HOLD_MS = 1500;
const HOLD_AT_MOST_MS = 10_000;
/** A `change` follows its frame within so many ms, also on a hidden page. */
const LOADED_AFTER_MS = 300;

useTexts({ en, ko });

class Wall {
  /** @param {string} token */
  constructor(token) {
    this._claims = claimsOf(token);
    this._web = new Web(token, this._claims?.plan ?? "");
    this.people = new People();
    this.incidents = new Incidents();
    this.actions = new Actions();
    this._summary = new Summary();
    this._owed = new Owed();
    this._chime = new Chime();
    this._loaded = false;
    this._asked = false;
    this._titled = "";
    this._sayAt = 0;
    this.client = new ProctorClient({ endpointsUrl: "/v1/endpoints", token });
    this.controls = new Controls();
    this.tiles = new Tiles(element("tiles"), () => this.now());
    this.several = this._several();
    this.list = new IncidentList(this.incidents, (ids) => this.several.candidates(ids));
    /** The shown examinees, in order. @type {import("./examinees.js").Person[]} */ this._shown = [];
    this._sums = new Pace(() => this._sum(), COUNT_EVERY_MS);
    const held = () => this.tiles.touched + HOLD_MS - performance.now();
    this._order = new Pace(() => this._putInOrder(), ORDER_EVERY_MS, held, HOLD_AT_MOST_MS);
    this.link = new Link(this.client, (sentence) => this._say(sentence), () => this._askToken());
    this.panel = new Panel({ actions: this.actions, web: this._web, online: () => this.client.connected });
    this.door = new Door((given) => this._enter(given));
    this._wire();
    listenForKeys(this);
    this._translated();
  }

  start() {
    keepIconsPainted();
    this.client.connect();
    this.link.show();
    setInterval(() => this._tick(), 1000);
    void this._web.findSkew();
  }

  /** Ms since the epoch by the servers' clock, to which all times of the plan refer. */
  now() {
    return this._web.now();
  }

  // -- messages -------------------------------------------------------------------------------------

  _wire() {
    const { client, controls, tiles, list, panel } = this;
    client.addEventListener("change", (event) => this._change(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("message", (event) => this._message(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("welcome", (event) => this._welcome(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("fresh", () => this._fresh());
    client.addEventListener("viewStatus", () => this.several.goOn());
    client.addEventListener("status", () => panel.drawActions());
    client.addEventListener("tokenNeeded", () => this._askToken());
    client.addEventListener("token", () => panel.readAgain());
    this._web.expired = () => client.tokenRefused();
    element("timeline-token").addEventListener("click", () => this._askToken());
    controls.addEventListener("change", () => this._reorder());
    controls.addEventListener("sound", () => this._title());
    controls.addEventListener("gesture", () => void this._chime.allow());
    tiles.addEventListener("open", (event) => this._open(/** @type {CustomEvent} */ (event).detail));
    list.addEventListener("open", (event) => this._open(/** @type {CustomEvent} */ (event).detail));
    list.addEventListener("only", () => this._reorder());
    list.addEventListener("readmit", (event) => this.several.ask(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("close", () => this._closed());
    panel.addEventListener("act", (event) => void this._act(/** @type {CustomEvent} */ (event).detail));
    element("only-end").addEventListener("click", () => list.choose(null));
    languages.addEventListener("change", () => this._translated());
  }

  /** @param {Record<string, any>} welcome */
  _welcome(welcome) {
    this._web.plan = welcome.planId;
    this._title();
  }

  /** @param {{type: string, data: Record<string, any>, verdict?: string}} message */
  _message(message) {
    if (this.actions.told(message)) this.panel.drawActions();
    if (message.verdict === "APPLIED") this._lossOf(message);
    if (message.verdict === "APPLIED" || message.verdict === "OTHER") this.panel.told(message);
  }

  /**
   * Count each loss and comeback for the incidents, also if both came within a frame and were not visible.
   * @param {{type: string, data: Record<string, any>}} message
   */
  _lossOf({ type, data }) {
    const at = milliseconds(data.timestamp);
    if (at === null) return;
    if (type === "examinee_disconnected") this.incidents.lost(data.examineeId, at, data.reason ?? null);
    else if (type === "examinee_connected") this.incidents.turned(data.examineeId, "back", at);
  }

  _fresh() {
    this.several.goOn();
    if (!this.client.fresh) return;
    this.panel.readAgain();
    // The next `change` applies the snapshot; what the first one contains is not announced.
    setTimeout(() => {
      this._loaded = true;
      this._reorder();
      this._say(t("said.loaded", { n: this.people.all.size, alarms: this.people.alarms }));
    }, LOADED_AFTER_MS);
  }

  /** Apply changes, at most once a frame. @param {{changed: Set<string>, gone: Set<string>}} what */
  _change({ changed, gone }) {
    const now = this.now();
    for (const id of gone) {
      this.people.drop(id);
      this.incidents.drop(id, now);
      this._owed.changed(id, false, now);
    }
    const before = new Set(this.incidents.open);
    const how = this._how();
    let moved = gone.size > 0;
    for (const id of changed) moved = this._person(id, now, how) || moved;
    this._crowds(before);
    this.several.goOn();
    this.tiles.refresh(changed);
    if (this.panel.person !== null && changed.has(this.panel.person.id)) this.panel.refresh();
    this._sums.ask();
    if (moved) this._order.ask();
  }

  /**
   * @param {string} id @param {number} now @param {import("./examinees.js").How} how the wall is shown
   * @returns {boolean} whether that may change the order
   */
  _person(id, now, how) {
    const seen = this.client.view.examinees.get(id);
    if (!seen) return false;
    const { person, before } = this.people.put(seen);
    const { state } = person;
    if (before !== null && before.state !== state && this._loaded) {
      this._summary.changed(id, before.state, state);
      this._owed.changed(id, STATES[state].alarm, now);
    }
    if (seen.status !== "NEVER") this.incidents.place(id, seen.serverId, networkOf(seen.ipAddress));
    if (state === "lost" && person.since !== null) this.incidents.lost(id, person.since, seen.reason);
    else if (state === "exhausted" || state === "removed") this.incidents.turned(id, "out", now);
    else if (seen.status === "CONNECTED") this.incidents.turned(id, "back", person.since ?? now);
    return reorders(person, before, how);
  }

  /** @param {Set<Incident>} before those that were open */
  _crowds(before) {
    for (const incident of this.incidents.settle()) if (this._loaded) this._summary.began(incident);
    for (const incident of before) if (incident.ended !== null) this._summary.over(incident);
  }

  // -- drawing ---------------------------------------------------------------------------------------

  _how() {
    const { search, states, sort } = this.controls;
    return { search, states, sort, only: this.list.only?.members ?? null };
  }

  /** Draw counts and summaries. */
  _sum() {
    this.list.show(this.now());
    this.controls.count(this.people.counts, this.people.all.size);
    this.several.offer(isNarrowed(this._how()) ? this._shown.map((person) => person.id) : []);
    this._title();
  }

  _title() {
    const { plan } = this._web;
    const title = plan ? t("title", { plan }) : t("title.unknown");
    setText(element("plan"), title);
    const { alarms } = this.people;
    const whole = alarms > 0 && this.controls.sound ? t("title.alarms", { n: alarms, title }) : title;
    if (this._titled !== whole) document.title = this._titled = whole;
  }

  /** Apply a new search, filter or order at once, and announce the number of results. */
  _reorder() {
    this._asked = true;
    this._order.now();
    this._sums.now();
  }

  _putInOrder() {
    const how = this._how();
    const shown = (this._shown = this.people.shown(how));
    this.tiles.order(shown);
    const nobody = element("nobody");
    nobody.hidden = shown.length > 0;
    const known = this.people.all.size > 0 ? "nobody.found" : this._loaded ? "nobody.plan" : "nobody.waiting";
    setText(nobody, t(known));
    const incident = this.list.only;
    element("only").hidden = incident === null;
    if (incident !== null) setText(element("only-text"), t("incident.only", { what: incidentName(incident) }));
    if (this._asked && this._loaded && isNarrowed(how)) this._foundSoon(shown.length);
    this._asked = false;
  }

  /** Announce the number of results when the typing has stopped. @param {number} n */
  _foundSoon(n) {
    clearTimeout(this._foundTimer);
    this._foundTimer = setTimeout(() => this._say(t("said.found", { n })), 700);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */ _foundTimer = undefined;

  /** Each second. */
  _tick() {
    const now = this.now();
    this.tiles.tick();
    this.panel.tick();
    this.link.show();
    this._sums.ask();
    if (this._owed.due(now) && this.controls.sound) this._chime.play(now);
    if (Date.now() < this._sayAt) return;
    const sentence = this._summary.take();
    if (sentence) this._live(sentence);
  }

  /** Announce a sentence with the next summary. @param {string} sentence */
  _say(sentence) {
    this._summary.say(sentence);
  }

  /** @param {string} sentence */
  _live(sentence) {
    this._sayAt = Date.now() + SAY_EVERY_SECONDS * 1000;
    element("live").textContent = sentence;
  }

  _translated() {
    this.controls.translate();
    this.panel.translate();
    this.list.translate(this.now());
    this.several.show();
    this.link.show();
    this.tiles.tick();
    this._reorder();
  }

  // -- one examinee ----------------------------------------------------------------------------------

  /** @param {string} id */
  _open(id) {
    const person = this.people.all.get(id);
    if (person) this.panel.show(person);
    this._opened = id;
  }

  /** @type {string | null} */ _opened = null;

  /** Return the focus to the tile of the panel's examinee. */
  _closed() {
    if (!this.tiles.focus(this._opened)) this.tiles.focus();
    this._opened = null;
  }

  /** Readmit many examinees, one action each. */
  _several() {
    const { client } = this;
    return new ReadmitMany({
      ask: (examineeId, requestId) => this._act({ kind: "readmit", examineeId, requestId }),
      state: (id) => {
        const seen = client.view.examinees.get(id);
        return seen ? stateOf(seen) : null;
      },
      ready: () => client.fresh && client.viewStatus.current,
      newId: newActionId,
      name: (id) => nameOf(this.people.all.get(id) ?? { id, name: null }),
      say: (sentence) => this._say(sentence),
      leave: () => this.tiles.focus() || element("search").focus(),
    });
  }

  /**
   * @param {{kind: import("./panel/actions.js").Kind, examineeId: string, text?: string, seconds?: number,
   *   requestId?: string}} what
   * @returns {Promise<import("./readmit/batch.js").Answer>}
   */
  async _act({ kind, examineeId, text = "", seconds = 0, requestId = newActionId() }) {
    const by = this._claims?.subject ?? "";
    this.actions.begin({ id: requestId, kind, examineeId, by, at: this.now(), text, seconds });
    this.panel.drawActions();
    const { client } = this;
    const asked = {
      notify: () => client.notify(examineeId, text, { requestId }),
      readmit: () => client.readmit(examineeId, { requestId }),
      remove: () => client.remove(examineeId, { reason: text || undefined, requestId }),
      extend_mobile_sync: () => client.extend(examineeId, seconds, { requestId }),
    };
    try {
      await asked[kind]();
      this.actions.accepted(requestId);
      return { outcome: "accepted", why: "" };
    } catch (error) {
      const { code, detail } = /** @type {{code?: string, detail?: string}} */ (error);
      if (code === undefined) throw error;
      this.actions.failed(requestId, code, detail ?? code);
      // Only a server refuses; after a lost connection the outcome is unknown.
      const refused = code !== "TIMEOUT" && client.connected;
      return { outcome: refused ? "refused" : "unknown", why: detail ?? code };
    } finally {
      this.panel.drawActions();
    }
  }

  // -- tokens ----------------------------------------------------------------------------------------

  _askToken() {
    const { status, connected, tokenNeeded } = this.client;
    const refused = status.state === "gaveUp" ? t("door.refused", { why: whyText(status) }) : t("door.none");
    const why = connected && tokenNeeded ? t("door.expired") : refused;
    if (!connected) forget("proctor");
    this.door.open(why);
  }

  /** @param {string} token */
  _enter(token) {
    remember("proctor", token);
    // Another plan: reload, so that two plans are not mixed.
    if (claimsOf(token)?.plan !== this._web.plan || claimsOf(token)?.subject !== this._claims?.subject) {
      location.reload();
      return;
    }
    this._web.token = token;
    this.client.setToken(token);
  }
}

/** @returns {string} */
function newActionId() {
  return crypto.getRandomValues(new Uint8Array(12)).reduce((id, byte) => id + byte.toString(16).padStart(2, "0"), "");
}

// Another link was opened in this tab.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());

const token = fromAddress("proctor");
if (token === null || otherRole(token)) {
  const why = () => (token === null ? t("door.none") : otherRole(token));
  forget("proctor");
  new Controls();
  document.title = t("door");
  setText(element("plan"), t("door"));
  const door = new Door((given) => {
    remember("proctor", given);
    location.reload();
  });
  door.open(why());
  languages.addEventListener("change", () => door.open(why()));
  // Without a token there is no wall behind the form, so it cannot be closed.
  element("door").addEventListener("cancel", (event) => event.preventDefault());
} else {
  new Wall(token).start();
}
