/**
 * The proctor's wall: shows every examinee of a plan, updated live by the socket server.
 *
 * Each animation frame applies all changes since the last one (event `change` of the client) and updates the visible tiles.
 * Counts and summaries follow every `COUNT_EVERY_MS`, a new order every `ORDER_EVERY_MS`: nobody reads faster. The first
 * change after a pause shows at once.
 */

import { languages, t, useTexts } from "../common/i18n.js";
import { texts as en } from "./locales/en.js";
import { texts as ko } from "./locales/ko.js";
import { allFromAddress, claimsOf, forget, remember } from "../common/token.js";
import { Announcer } from "./incidents/announcer.js";
import { Chime } from "./incidents/chime.js";
import { Controls } from "./toolbar/controls.js";
import { SignIn, otherRole } from "./session/sign-in.js";
import { element, setText } from "../common/elements.js";
import { keepIconsPainted } from "./tiles/icons.js";
import { Attention } from "./incidents/attention.js";
import { IncidentList } from "./incidents/list.js";
import { listenForKeys } from "./toolbar/keyboard.js";
import { Listing } from "./toolbar/listing/listing.js";
import { ConnectionBanner } from "./session/connection-banner.js";
import { whyText } from "./session/plan-connection.js";
import { PlanHeader } from "./session/plan-header.js";
import { PlanTabs } from "./session/plan-tabs.js";
import { WatchedPlan } from "./session/watched-plan.js";
import { Gallery } from "./gallery/gallery.js";
import { Throttle } from "./tiles/throttle.js";
import { Panel } from "./panel/panel.js";
import { isNarrowed, reorders } from "./examinees.js";
import { SeveralActions } from "./several/several.js";
import { incidentName, labelName, nameOf } from "./texts.js";
import { Talk } from "./talk/talk.js";
import { Tiles } from "./tiles/tiles.js";

const COUNT_EVERY_MS = 250;
const ORDER_EVERY_MS = 1000;
/** The order does not change until so long after the pointer or the keys last moved over the tiles (ms), … */
const HOLD_MS = 1500;
/** … but at most for so long (ms). */
const HOLD_AT_MOST_MS = 10_000;
useTexts({ en, ko });

/** The parts of the page, and what follows for each of them from a message, a click or a key. */
class Wall {
  /** @param {string[]} tokens one for each plan */
  constructor(tokens) {
    this.plans = tokens.map((token) => new WatchedPlan(token));
    /** The plan that is shown. */ this.plan = this.plans[0];
    this.announcer = new Announcer(this.plans, () => this.plan);
    this._chime = new Chime();
    this._resultsWanted = false;
    /** Whether the tiles were narrowed by a search or filter. */ this._narrowed = false;
    this._shownTitle = "";
    this.controls = new Controls(this._chime);
    this.tiles = new Tiles(element("tiles"), () => this.plan.now());
    this.several = new SeveralActions({
      plan: () => this.plan,
      name: (id) => nameOf(this.plan.people.all.get(id) ?? { id, name: null }),
      leave: () => this.tiles.focus() || element("search").focus(),
    });
    this.list = new IncidentList(this.plan, (ids) => this.several.candidates("readmit", ids));
    /** The shown examinees, in order. @type {import("./examinees.js").Person[]} */ this._shown = [];
    this._counts = new Throttle(() => this._drawCounts(), COUNT_EVERY_MS);
    const hold = () => this.tiles.touched + HOLD_MS - performance.now();
    this._order = new Throttle(() => this._putInOrder(), ORDER_EVERY_MS, hold, HOLD_AT_MOST_MS);
    this.banner = new ConnectionBanner(() => this.plan.connection, () => this._askToken(this.plan));
    this.panel = new Panel(this._panelParts());
    const leave = () => void (this.tiles.focus() || element("search").focus());
    this.attention = new Attention({
      plans: this.plans,
      plan: () => this.plan,
      choose: (plan) => this._choose(plan),
      view: () => this._view(),
      list: this.list,
      controls: this.controls,
      tiles: this.tiles,
      leave,
    });
    this.talk = new Talk({ plan: () => this.plan, panel: this.panel, tiles: this.tiles, leave });
    this.gallery = new Gallery(this.plan, () => this.controls.shortcuts);
    new Listing({ plan: () => this.plan, shown: () => this._shown, view: () => this._view(), incident: () => this.list.only });
    this.tabs = new PlanTabs(this.plans);
    this.header = new PlanHeader();
    this.signIn = new SignIn((given) => this._useTokens(given));
    for (const plan of this.plans) this._follow(plan);
    this._wire();
    listenForKeys(this);
    this._translated();
  }

  start() {
    keepIconsPainted();
    for (const plan of this.plans) plan.start();
    this.banner.show();
    setInterval(() => this._tick(), 1000);
  }

  /** What the panel needs of the shown plan. */
  _panelParts() {
    const { plan } = this;
    return { plan, actions: plan.actions, web: plan.web, online: () => plan.client.connected };
  }

  /** Listen to a plan; of one that is not shown, only its tab is drawn. @param {WatchedPlan} plan */
  _follow(plan) {
    const { client } = plan;
    /** @param {EventTarget} source @param {string} type @param {(detail: any) => void} work */
    const whenShown = (source, type, work) => source.addEventListener(type, (event) => {
      if (plan === this.plan) work(/** @type {CustomEvent} */ (event).detail);
    });
    plan.addEventListener("change", (event) => this._change(plan, /** @type {CustomEvent} */ (event).detail));
    plan.addEventListener("plan", () => this._counts.ask());
    this.talk.follow(plan);
    whenShown(plan, "plan", () => this.panel.refresh());
    plan.addEventListener("batch", () => (plan === this.plan ? this.several.show() : this.several.announce(plan)));
    whenShown(plan, "batch", () => this.several.listedDone && this._order.ask());
    whenShown(plan, "actions", () => {
      this.panel.drawActions();
      this.header.show(plan);
    });
    whenShown(plan, "loaded", () => {
      this.panel.readAgain();
      this._reorder();
    });
    whenShown(plan, "message", (message) => {
      if (message.verdict === "APPLIED" || message.verdict === "OTHER") this.panel.receive(message);
    });
    for (const type of ["status", "viewStatus", "fresh"]) whenShown(client, type, () => this.banner.show());
    whenShown(client, "viewStatus", () => this.several.show());
    whenShown(client, "status", () => this.panel.drawActions());
    whenShown(client, "token", () => this.panel.readAgain());
    client.addEventListener("tokenNeeded", () => this._askToken(plan));
  }

  /** Listen to the parts of the page. */
  _wire() {
    const { controls, tiles, list, panel } = this;
    element("timeline-token").addEventListener("click", () => this._askToken(this.plan));
    element("add-plan").addEventListener("click", () => this.signIn.open(t("door.add")));
    controls.addEventListener("change", () => {
      this.several.forgetListed();
      this._reorder();
    });
    controls.addEventListener("sound", () => this._title());
    tiles.addEventListener("open", (event) => this._open(/** @type {CustomEvent} */ (event).detail));
    list.addEventListener("open", (event) => this._open(/** @type {CustomEvent} */ (event).detail));
    list.addEventListener("only", () => this._reorder());
    list.addEventListener("readmit", (event) => void this.several.ask("readmit", /** @type {CustomEvent} */ (event).detail));
    list.addEventListener("message", (event) => this.talk.messages.ask(/** @type {CustomEvent} */ (event).detail));
    this.talk.addEventListener("open", (event) => this._open(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("close", () => this._closed());
    panel.addEventListener("pictures", (event) => this.gallery.open(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("act", (event) => void this.plan.sender.send(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("seen", (event) => this.plan.putFlagsAside(/** @type {CustomEvent} */ (event).detail));
    panel.addEventListener("ask", (event) => void this._ask(/** @type {CustomEvent} */ (event).detail));
    element("extend-all").addEventListener("click", () => void this._ask({ kind: "extend_exam", examineeId: null, who: null }));
    this.tabs.addEventListener("choose", (event) => this._choose(/** @type {CustomEvent} */ (event).detail));
    element("only-end").addEventListener("click", () => list.choose(null));
    languages.addEventListener("change", () => this._translated());
  }

  /** Show another plan. @param {WatchedPlan} plan */
  _choose(plan) {
    if (plan === this.plan) return;
    this.panel.close();
    this.plan = plan;
    this.panel.use(this._panelParts());
    this.controls.more.clear(); // another plan has other rooms
    this.list.use(plan);
    this.gallery.use(plan);
    this.banner.show();
    this.several.show();
    this._reorder();
    this.tiles.tick();
    this.announcer.say(t("said.shown", { plan: plan.name }));
  }

  /** Ask whether an action is meant, and send it. @param {{kind: "finish" | "extend_exam", examineeId: string | null, who: string | null}} what */
  async _ask({ kind, examineeId, who }) {
    const { plan } = this;
    const answer = await this.several.askOne(kind, who);
    if (answer !== null) void plan.sender.send({ kind, examineeId, seconds: answer.seconds });
  }

  /** @param {WatchedPlan} plan @param {{changed: Set<string>, gone: Set<string>, updates: import("./session/watched-plan.js").Update[]}} what */
  _change(plan, { changed, gone, updates }) {
    this._counts.ask();
    if (plan !== this.plan) return;
    const view = this._view();
    const reordered = gone.size > 0 || updates.some(({ person, before }) => reorders(person, before, view));
    this.tiles.refresh(changed);
    const { person } = this.panel;
    if (person !== null && gone.has(person.id)) this.panel.close();
    else if (person !== null && changed.has(person.id)) this.panel.refresh();
    if (reordered) this._order.ask();
  }

  // -- drawing ---------------------------------------------------------------------------------------

  _view() {
    const { search, states, sort, more } = this.controls;
    return { search, labelName, states, sort, marks: more.marks, labels: more.labels, only: this.list.only?.members ?? null };
  }

  /** The view with those who are behind the lines of incidents; the overview has a dot for everybody. */
  _wholeView() {
    return { ...this._view(), together: this.list.together(this.plan.now()), whole: this.controls.size === "dots" };
  }

  /** Draw counts and summaries. */
  _drawCounts() {
    this.gallery.draw();
    const { people, times } = this.plan;
    const now = this.plan.now();
    const view = this._wholeView();
    this.list.show(now);
    this.controls.count(people, times.phase(now));
    this.attention.draw(view);
    const listed = isNarrowed(view) ? this._shown.map((person) => person.id) : null;
    this.several.offer(listed ?? []);
    this.talk.show(listed);
    this.tabs.show(this.plan);
    this.header.show(this.plan);
    this._title();
  }

  /** Show the plan, and the number of alarms of all plans in the tab's title. */
  _title() {
    const { plan } = this;
    const title = plan.id ? plan.title : t("title.unknown");
    setText(element("plan"), title);
    const { alarms } = this.attention;
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
    const view = this._wholeView();
    const { people, loaded } = this.plan;
    const shown = (this._shown = people.shown(view));
    if (shown.length === 0 && people.all.size > 0 && this.several.listedDone) {
      this._letGo();
      return;
    }
    this.tiles.order(shown, view.sort === "id");
    const empty = element("nobody");
    empty.hidden = shown.length > 0;
    const reason = people.all.size > 0 ? "nobody.found" : loaded ? "nobody.plan" : "nobody.waiting";
    setText(empty, t(reason));
    const incident = this.list.only;
    element("only").hidden = incident === null;
    if (incident !== null) setText(element("only-text"), t("incident.only", { what: incidentName(incident) }));
    const narrowed = isNarrowed(view);
    if (this._resultsWanted && loaded && (narrowed || this._narrowed)) this.announcer.resultsSoon(() => this._shown.length);
    this._resultsWanted = false;
    this._narrowed = narrowed;
  }

  /** Show everybody: an action was for all whom a search or filter has shown, and nobody is left there. */
  _letGo() {
    this.several.forgetListed();
    if (this.list.only !== null) this.list.choose(null);
    this.controls.clear();
    this.announcer.say(t("attention.emptied"));
  }

  /** Draw what changes with the time; called each second. */
  _tick() {
    for (const plan of this.plans) {
      plan.tick();
      plan.connection.announce();
    }
    this.tiles.tick();
    this.panel.tick();
    this.talk.tick();
    this.banner.show();
    this._counts.ask();
    this.announcer.tick();
    this._chime.tick(this.plans, this.controls.sound);
  }

  /** Draw everything in the language that was chosen. */
  _translated() {
    this.gallery.draw();
    this.controls.translate();
    this.panel.translate();
    this.list.translate(this.plan.now());
    this.several.show();
    this.talk.translate();
    this.banner.show();
    this.tiles.tick();
    this._reorder();
  }

  // -- one examinee ----------------------------------------------------------------------------------

  /** Open the panel of an examinee. @param {string} id */
  _open(id) {
    const person = this.plan.people.all.get(id);
    if (person) this.panel.show(person);
    this.talk.panelChanged();
    this._opened = id;
  }

  /** @type {string | null} */ _opened = null;

  /** Return the focus to the tile of the panel's examinee, or to another one: what is in view stays in view. */
  _closed() {
    this.tiles.focusInView(this._opened);
    this._opened = null;
  }

  // -- tokens ----------------------------------------------------------------------------------------

  /** Open the sign-in form, and say why a token is needed. @param {WatchedPlan} plan */
  _askToken(plan) {
    const { status, connected, tokenNeeded } = plan.client;
    const refused = status.state === "gaveUp" ? t("door.refused", { why: whyText(status) }) : t("door.none");
    const why = connected && tokenNeeded ? t("door.expired") : refused;
    if (!connected && this.plans.length === 1) forget("proctor");
    this.signIn.open(this.announcer.named(plan, why));
  }

  /** Go on with new tokens. @param {string[]} given */
  _useTokens(given) {
    const planOf = (/** @type {string} */ token) => this.plans.find(({ id, claims }) => (
      claimsOf(token)?.plan === id && claimsOf(token)?.subject === claims?.subject));
    const refused = (/** @type {WatchedPlan} */ { client }) => client.status.state === "gaveUp" && client.status.remedy === "TOKEN";
    const ids = new Set(given.map((token) => claimsOf(token)?.plan));
    const kept = this.plans.filter((plan) => !ids.has(plan.id) && !refused(plan)).map(({ token }) => token);
    remember("proctor", [...kept, ...given].join(" "));
    // Another plan: reload, so that nothing of two plans is mixed.
    if (!given.every(planOf)) {
      location.reload();
      return;
    }
    for (const token of given) planOf(token)?.setToken(token);
  }
}

// Another link was opened in this tab.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());

const tokens = allFromAddress("proctor");
const wrong = tokens.map(otherRole).find(Boolean);
if (tokens.length === 0 || wrong) {
  const why = () => (tokens.length === 0 ? t("door.none") : (tokens.map(otherRole).find(Boolean) ?? ""));
  forget("proctor");
  new Controls(new Chime());
  document.title = t("door");
  setText(element("plan"), t("door"));
  const signIn = new SignIn((given) => {
    remember("proctor", given.join(" "));
    location.reload();
  });
  signIn.open(why());
  languages.addEventListener("change", () => signIn.open(why()));
  // Without a token there is no wall behind the form, so it cannot be closed.
  element("door").addEventListener("cancel", (event) => event.preventDefault());
} else {
  new Wall(tokens).start();
}
