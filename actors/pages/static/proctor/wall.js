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
import { ActionSender, newActionId } from "./panel/action-sender.js";
import { Actions } from "./panel/actions.js";
import { Chime, PendingAlerts, SAY_EVERY_SECONDS, Summary } from "./incidents/alerts.js";
import { Controls } from "./toolbar/controls.js";
import { SignIn, otherRole } from "./session/sign-in.js";
import { element, setText } from "../common/elements.js";
import { keepIconsPainted } from "./tiles/icons.js";
import { IncidentList } from "./incidents/list.js";
import { Incidents, networkOf } from "./incidents/detection.js";
import { listenForKeys } from "./toolbar/keyboard.js";
import { ConnectionBanner, whyText } from "./session/connection-banner.js";
import { Throttle } from "./throttle.js";
import { Panel } from "./panel/panel.js";
import { isNarrowed, milliseconds, People, reorders, stateOf, STATES } from "./examinees.js";
import { ReadmitMany } from "./readmit/readmit.js";
import { incidentName, nameOf } from "./texts.js";
import { Tiles } from "./tiles/tiles.js";
import { WebApi } from "./session/web-api.js";

/** @typedef {import("./incidents/detection.js").Incident} Incident */
/** @typedef {import("./examinees.js").State} State */

const COUNT_EVERY_MS = 250;
const ORDER_EVERY_MS = 1000;
/** The order does not change until so long after the pointer or the keys last moved over the tiles (ms), … */
const HOLD_MS = 1500;
/** … but at most for so long (ms). */
const HOLD_AT_MOST_MS = 10_000;
/** The client fires `change` at most so long (ms) after a frame, also on a hidden page. */
const LOADED_AFTER_MS = 300;

useTexts({ en, ko });

/** The parts of the page, and what follows for each of them from a message, a click or a key. */
class Wall {
  /** @param {string} token */
  constructor(token) {
    this._claims = claimsOf(token);
    this._web = new WebApi(token, this._claims?.plan ?? "");
    this.people = new People();
    this.incidents = new Incidents();
    this.actions = new Actions();
    this._summary = new Summary();
    this._pendingAlerts = new PendingAlerts();
    this._chime = new Chime();
    this._loaded = false;
    this._resultsWanted = false;
    this._shownTitle = "";
    this._nextAnnouncementAt = 0;
    this.client = new ProctorClient({ endpointsUrl: "/v1/endpoints", token });
    this.sender = new ActionSender({
      client: this.client,
      actions: this.actions,
      by: this._claims?.subject ?? "",
      now: () => this.now(),
      changed: () => this.panel.drawActions(),
    });
    this.controls = new Controls();
    this.tiles = new Tiles(element("tiles"), () => this.now());
    this.readmitMany = this._makeReadmitMany();
    this.list = new IncidentList(this.incidents, (ids) => this.readmitMany.candidates(ids));
    /** The shown examinees, in order. @type {import("./examinees.js").Person[]} */ this._shown = [];
    this._counts = new Throttle(() => this._drawCounts(), COUNT_EVERY_MS);
    const hold = () => this.tiles.touched + HOLD_MS - performance.now();
    this._order = new Throttle(() => this._putInOrder(), ORDER_EVERY_MS, hold, HOLD_AT_MOST_MS);
    this.banner = new ConnectionBanner(this.client, (sentence) => this._say(sentence), () => this._askToken());
    this.panel = new Panel({ actions: this.actions, web: this._web, online: () => this.client.connected });
    this.signIn = new SignIn((given) => this._useToken(given));
    this._wire();
    listenForKeys(this);
    this._translated();
  }

  start() {
    keepIconsPainted();
    this.client.connect();
    this.banner.show();
    setInterval(() => this._tick(), 1000);
    void this._web.findSkew();
  }

  /** Return ms since the epoch by the servers' clock, to which all times of the plan refer. */
  now() {
    return this._web.now();
  }

  // -- messages -------------------------------------------------------------------------------------

  /** Listen to the client and to the parts of the page. */
  _wire() {
    const { client, controls, tiles, list, panel } = this;
    client.addEventListener("change", (event) => this._change(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("message", (event) => this._message(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("welcome", (event) => this._welcome(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("fresh", () => this._upToDate());
    client.addEventListener("viewStatus", () => this.readmitMany.goOn());
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
    list.addEventListener("readmit", (event) => this.readmitMany.ask(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("close", () => this._closed());
    panel.addEventListener("act", (event) => void this.sender.send(/** @type {CustomEvent} */ (event).detail));
    element("only-end").addEventListener("click", () => list.choose(null));
    languages.addEventListener("change", () => this._translated());
  }

  /** @param {Record<string, any>} welcome */
  _welcome(welcome) {
    this._web.plan = welcome.planId;
    this._title();
  }

  /** Hand a message to the parts that need it. @param {{type: string, data: Record<string, any>, verdict?: string}} message */
  _message(message) {
    if (this.actions.receive(message)) this.panel.drawActions();
    if (message.verdict === "APPLIED") this._countLoss(message);
    if (message.verdict === "APPLIED" || message.verdict === "OTHER") this.panel.receive(message);
  }

  /**
   * Count each loss and each return for the incidents, also if both came within one frame and were never shown.
   * @param {{type: string, data: Record<string, any>}} message
   */
  _countLoss({ type, data }) {
    const at = milliseconds(data.timestamp);
    if (at === null) return;
    if (type === "examinee_disconnected") this.incidents.lost(data.examineeId, at, data.reason ?? null);
    else if (type === "examinee_connected") this.incidents.update(data.examineeId, "back", at);
  }

  /** Continue after a snapshot: the client is up to date. */
  _upToDate() {
    this.readmitMany.goOn();
    if (!this.client.fresh) return;
    this.panel.readAgain();
    // The next `change` applies the snapshot; what the first one contains is not announced.
    setTimeout(() => {
      this._loaded = true;
      this._reorder();
      this._say(t("said.loaded", { n: this.people.all.size, alarms: this.people.alarms }));
    }, LOADED_AFTER_MS);
  }

  /** Apply changes, at most once a frame. @param {{changed: Set<string>, gone: Set<string>}} ids */
  _change({ changed, gone }) {
    const now = this.now();
    for (const id of gone) {
      this.people.drop(id);
      this.incidents.drop(id, now);
      this._pendingAlerts.changed(id, false, now);
    }
    const open = new Set(this.incidents.open);
    const view = this._view();
    let reordered = gone.size > 0;
    for (const id of changed) reordered = this._updatePerson(id, now, view) || reordered;
    this._detectIncidents(open);
    this.readmitMany.goOn();
    this.tiles.refresh(changed);
    if (this.panel.person !== null && changed.has(this.panel.person.id)) this.panel.refresh();
    this._counts.ask();
    if (reordered) this._order.ask();
  }

  /**
   * @param {string} id @param {number} now @param {import("./examinees.js").View} view what the wall is shown
   * @returns {boolean} whether that may change the order
   */
  _updatePerson(id, now, view) {
    const seen = this.client.view.examinees.get(id);
    if (!seen) return false;
    const { person, before } = this.people.put(seen);
    const { state } = person;
    if (before !== null && before.state !== state && this._loaded) {
      this._summary.changed(id, before.state, state);
      this._pendingAlerts.changed(id, STATES[state].alarm, now);
    }
    if (seen.status !== "NEVER") this.incidents.place(id, seen.serverId, networkOf(seen.ipAddress));
    if (state === "lost" && person.since !== null) this.incidents.lost(id, person.since, seen.reason);
    else if (state === "exhausted" || state === "removed") this.incidents.update(id, "out", now);
    else if (seen.status === "CONNECTED") this.incidents.update(id, "back", person.since ?? now);
    return reorders(person, before, view);
  }

  /** Announce new incidents, and those that are over. @param {Set<Incident>} open those that were open before */
  _detectIncidents(open) {
    for (const incident of this.incidents.detect()) if (this._loaded) this._summary.began(incident);
    for (const incident of open) if (incident.ended !== null) this._summary.over(incident);
  }

  // -- drawing ---------------------------------------------------------------------------------------

  _view() {
    const { search, states, sort } = this.controls;
    return { search, states, sort, only: this.list.only?.members ?? null };
  }

  /** Draw counts and summaries. */
  _drawCounts() {
    this.list.show(this.now());
    this.controls.count(this.people.counts, this.people.all.size);
    this.readmitMany.offer(isNarrowed(this._view()) ? this._shown.map((person) => person.id) : []);
    this._title();
  }

  /** Show the plan, and the number of alarms in the tab's title. */
  _title() {
    const { plan } = this._web;
    const title = plan ? t("title", { plan }) : t("title.unknown");
    setText(element("plan"), title);
    const { alarms } = this.people;
    const tabTitle = alarms > 0 && this.controls.sound ? t("title.alarms", { n: alarms, title }) : title;
    if (this._shownTitle !== tabTitle) document.title = this._shownTitle = tabTitle;
  }

  /** Apply a new search, filter or order at once, and announce the number of results. */
  _reorder() {
    this._resultsWanted = true;
    this._order.now();
    this._counts.now();
  }

  /** Show the examinees that search and filters leave, in their order. */
  _putInOrder() {
    const view = this._view();
    const shown = (this._shown = this.people.shown(view));
    this.tiles.order(shown);
    const empty = element("nobody");
    empty.hidden = shown.length > 0;
    const reason = this.people.all.size > 0 ? "nobody.found" : this._loaded ? "nobody.plan" : "nobody.waiting";
    setText(empty, t(reason));
    const incident = this.list.only;
    element("only").hidden = incident === null;
    if (incident !== null) setText(element("only-text"), t("incident.only", { what: incidentName(incident) }));
    if (this._resultsWanted && this._loaded && isNarrowed(view)) this._announceResultsSoon(shown.length);
    this._resultsWanted = false;
  }

  /** Announce the number of results when the typing has stopped. @param {number} n */
  _announceResultsSoon(n) {
    clearTimeout(this._resultsTimer);
    this._resultsTimer = setTimeout(() => this._say(t("said.found", { n })), 700);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */ _resultsTimer = undefined;

  /** Draw what changes with the time; called each second. */
  _tick() {
    const now = this.now();
    this.tiles.tick();
    this.panel.tick();
    this.banner.show();
    this._counts.ask();
    if (this._pendingAlerts.due(now) && this.controls.sound) this._chime.play(now);
    if (Date.now() < this._nextAnnouncementAt) return;
    const summary = this._summary.take();
    if (summary) this._speak(summary);
  }

  /** Announce a sentence with the next summary. @param {string} sentence */
  _say(sentence) {
    this._summary.say(sentence);
  }

  /** Announce a summary now. @param {string} summary */
  _speak(summary) {
    this._nextAnnouncementAt = Date.now() + SAY_EVERY_SECONDS * 1000;
    element("live").textContent = summary;
  }

  /** Draw everything in the language that was chosen. */
  _translated() {
    this.controls.translate();
    this.panel.translate();
    this.list.translate(this.now());
    this.readmitMany.show();
    this.banner.show();
    this.tiles.tick();
    this._reorder();
  }

  // -- one examinee ----------------------------------------------------------------------------------

  /** Open the panel of an examinee. @param {string} id */
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
  _makeReadmitMany() {
    const { client } = this;
    return new ReadmitMany({
      ask: (examineeId, requestId) => this.sender.send({ kind: "readmit", examineeId, requestId }),
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

  // -- tokens ----------------------------------------------------------------------------------------

  /** Open the sign-in form, and say why a token is needed. */
  _askToken() {
    const { status, connected, tokenNeeded } = this.client;
    const refused = status.state === "gaveUp" ? t("door.refused", { why: whyText(status) }) : t("door.none");
    const why = connected && tokenNeeded ? t("door.expired") : refused;
    if (!connected) forget("proctor");
    this.signIn.open(why);
  }

  /** Go on with a new token. @param {string} token */
  _useToken(token) {
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

// Another link was opened in this tab.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());

const token = fromAddress("proctor");
if (token === null || otherRole(token)) {
  const why = () => (token === null ? t("door.none") : otherRole(token));
  forget("proctor");
  new Controls();
  document.title = t("door");
  setText(element("plan"), t("door"));
  const signIn = new SignIn((given) => {
    remember("proctor", given);
    location.reload();
  });
  signIn.open(why());
  languages.addEventListener("change", () => signIn.open(why()));
  // Without a token there is no wall behind the form, so it cannot be closed.
  element("door").addEventListener("cancel", (event) => event.preventDefault());
} else {
  new Wall(token).start();
}
