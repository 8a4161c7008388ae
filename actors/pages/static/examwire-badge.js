// <examwire-status>: a badge that shows the state of an examinee's connection, for the page of an exam platform.
//
//   <script type="module" src="https://exam.example/static/examwire-badge.js"></script>
//   <examwire-status endpoints="https://exam.example/v1/endpoints" token="…"></examwire-status>
//
// Or, on a page that already has a client: `document.querySelector("examwire-status").client = client`.
//
// Text and the shape of the icon show the state; the colour only repeats it. No inline style, and nothing loaded from other
// sites, so it works with a strict Content-Security-Policy. The exam's clock goes by the server's time. The page may set --examwire-font, --examwire-ink,
// --examwire-surface, --examwire-line, --examwire-good, --examwire-busy, --examwire-bad.

import { TEXTS, fill, languageOf } from "./examwire-badge-texts.js";
import { helpAppearance } from "./examwire-badge-help.js";
import { ExamineeClient, clockText, minutesToAnnounce } from "./examwire.js";

/** @typedef {import("./examwire.js").Client} Client */
/** @typedef {import("./examwire.js").ExamPhase} ExamPhase */
/** @typedef {import("./examwire.js").Finish} Finish */
/** @typedef {import("./examwire.js").Status} Status */

/** A loss that ends sooner (seconds) is not shown, for example a move to another server. */
export const CALM_SECONDS = 1.5;
/**
 * After its welcome a server confirms the examinee or closes; while Redis does not answer it may send nothing. After so many
 * seconds the badge shows "connected".
 */
export const SETTLED_SECONDS = 2;

/** @typedef {"connecting" | "connected" | "behind" | "waiting" | "offline" | "ended" | "over" | "idle"} Look */

export { languageOf } from "./examwire-badge-texts.js";

/** @type {Partial<Record<ExamPhase, string>>} */
const CLOCKS = { BEFORE: "startsIn", RUNNING: "left", GRACE: "grace" };

/**
 * What the badge knows besides the status. `now` in ms since the epoch; `current`: the server records what happens; `exam`:
 * where the exam stands; `endReason`: why it is over for the examinee.
 * @typedef {object} About
 * @property {string} lang
 * @property {number} now
 * @property {boolean} wasConnected
 * @property {boolean} [current]
 * @property {{phase: ExamPhase, seconds: number | null}} [exam]
 * @property {Finish["reason"] | null} [endReason]
 */

/**
 * Map a status to the icon, the text, the countdowns beside it (not read out), and the label of the button. After the end of
 * the exam the connection does not matter any more.
 * @param {Status} status
 * @param {About} about
 * @returns {{look: Look, text: string, aside: string, button: string}}
 */
export function appearance(status, about) {
  const { lang, exam = { phase: "UNKNOWN", seconds: null }, endReason = null } = about;
  if (endReason !== null) return { look: "over", text: fill(lang, endReason), aside: "", button: "" };
  const shown = connectionAppearance(status, about);
  if (shown.look === "ended") return shown;
  if (shown.look === "connected" && exam.phase === "BEFORE") shown.text = fill(lang, "notBegun");
  if (shown.look === "connected" && (exam.phase === "GRACE" || exam.phase === "OVER")) shown.text = fill(lang, "timeUp");
  const key = CLOCKS[exam.phase];
  const clock = key && exam.seconds !== null ? fill(lang, key, { time: clockText(Math.ceil(exam.seconds)) }) : "";
  return { ...shown, aside: [clock, shown.aside].filter(Boolean).join(" · ") };
}

/**
 * @param {Status} status
 * @param {About} about
 * @returns {{look: Look, text: string, aside: string, button: string}}
 */
function connectionAppearance(status, { lang, now, wasConnected, current = true }) {
  const texts = TEXTS[lang] ?? TEXTS.en;
  const plain = { aside: "", button: "" };
  switch (status.state) {
    case "connected": {
      const look = current ? "connected" : "behind";
      return { ...plain, look, text: texts[look] };
    }
    case "idle":
    case "offline":
      return { ...plain, look: status.state, text: texts[status.state] };
    case "connecting": {
      const text = wasConnected ? texts.again : texts.connecting;
      const { attempt, maxAttempts, migrating } = status;
      const aside = attempt > 0 && !migrating ? fill(lang, "attempt", { attempt, maxAttempts }) : "";
      return { ...plain, look: "connecting", text, aside };
    }
    case "waiting": {
      const seconds = Math.max(0, Math.ceil((status.at - now) / 1000));
      const text = wasConnected ? texts.again : texts.connecting;
      const counts = { attempt: status.attempt, maxAttempts: status.maxAttempts };
      const aside = `${fill(lang, "attempt", counts)} · ${fill(lang, "next", { seconds })}`;
      return { look: "waiting", text, aside, button: texts.tryNow };
    }
    case "gaveUp": {
      const text = texts[status.name] ?? texts[status.reason] ?? texts.CLOSED;
      const button = status.remedy !== "USER" ? "" : status.name === "REPLACED" ? texts.here : texts.tryNow;
      return { look: "ended", text, aside: "", button };
    }
  }
}

// Shapes that differ without colour: a tick, a tick in a ring, a broken ring, a clock, a struck-out wave, a cross, a
// flag, a bar.
/** @type {Record<Look, string>} */
const SHAPES = {
  connected: "M4 10.5l4 4 8-9",
  behind: "M10 3a7 7 0 1 0 .01 0M6.5 10.5l2.5 2.5 4.5-5",
  connecting: "M10 3a7 7 0 1 1-6.6 4.7",
  waiting: "M10 3a7 7 0 1 0 .01 0M10 6v4.5l3 2",
  offline: "M3 8.5a10 10 0 0 1 14 0M6 12a6 6 0 0 1 8 0M10 15.5v.01M4 17L16 3",
  ended: "M5 5l10 10M15 5L5 15",
  over: "M4 3v14M4 4h11l-3 3.5 3 3.5H4",
  idle: "M5 10h10",
};

const STYLE = `
  :host { display: inline-block; max-inline-size: 100%; font: 1rem/1.4 var(--examwire-font, system-ui, sans-serif);
    color-scheme: light dark; --ink: #16202c; --surface: #fff; --line: #6b7a8f; --good: #1a6b3c; --busy: #8a4b00;
    --bad: #b3261e; }
  :host([hidden]) { display: none; }
  @media (prefers-color-scheme: dark) { :host { --ink: #e9eef5; --surface: #161e28; --line: #7d8ca2; --good: #74d69b;
    --busy: #ffc36b; --bad: #ff9c94; } }
  .badge { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem .5rem; padding: .375rem .75rem;
    color: var(--examwire-ink, var(--ink)); background: var(--examwire-surface, var(--surface));
    border: 1px solid var(--examwire-line, var(--line)); border-radius: .5rem; }
  .words { display: flex; align-items: center; gap: .5rem; min-inline-size: 0; overflow-wrap: anywhere;
    word-break: keep-all; }
  svg { inline-size: 1.25em; block-size: 1.25em; flex: none; fill: none; stroke: var(--examwire-busy, var(--busy));
    stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
  [data-look="ended"] svg, [data-look="offline"] svg { stroke: var(--examwire-bad, var(--bad)); }
  [data-phase="BEFORE"] svg { stroke: var(--examwire-busy, var(--busy)); }
  [data-look="connected"] svg, [data-look="over"] svg { stroke: var(--examwire-good, var(--good)); }
  .unseen { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  .aside { font-size: .875em; font-variant-numeric: tabular-nums; }
  button { font: inherit; color: inherit; background: transparent; border: 1px solid currentColor;
    border-radius: .375rem; padding: .125rem .75rem; min-block-size: 2rem; cursor: pointer; }
  button:focus-visible { outline: 3px solid; outline-offset: 2px; }
  [hidden] { display: none; }
  @media (prefers-reduced-motion: no-preference) {
    [data-look="connecting"] svg { animation: turn 1.2s linear infinite; }
    @keyframes turn { to { transform: rotate(1turn); } }
  }
  @media (forced-colors: active) { svg { stroke: CanvasText !important; } }
`;

// Node has no HTMLElement: there only `appearance` is tested.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (/** @type {unknown} */ (class {}));

/**
 * Attributes: `token`, `endpoints` (an address of `GET /v1/endpoints`, or ws: addresses of socket servers, separated by
 * spaces), `lang` (`en`, `ko`). With `token` and `endpoints` it creates an `ExamineeClient` and connects; it closes
 * that client when the element leaves the page. `help`: it has a button to ask the proctors for help. `client`: the client
 * that it shows; set it to show your own.
 *
 * Event `tokenNeeded` (it bubbles): a server did not accept the token; set the attribute to a new one.
 */
export class ExamwireStatus extends Base {
  static observedAttributes = ["token", "endpoints", "lang", "help"];

  /** @type {Client | null} */ #client = null;
  #own = false;
  #wasConnected = false;
  /** Whether the server has confirmed the examinee on the open connection. */ #settled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #calm;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #settling;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #count;
  /** Seconds left when it was shown last. @type {number | null} */ #left = null;
  /** @type {Record<"badge" | "text" | "aside" | "spoken" | "help", HTMLElement> & {path: SVGPathElement, button: HTMLButtonElement, helpButton: HTMLButtonElement} | null} */
  #parts = null;

  /** The client that is shown. @returns {Client | null} */
  get client() {
    return this.#client;
  }

  set client(client) {
    if (client === this.#client) return;
    this.#leave();
    this.#client = client;
    this.#wasConnected = this.#settled = client?.connected ?? false;
    this.#listen();
    this.#show();
  }

  connectedCallback() {
    this.#build();
    this.#connectOwn();
    this.#listen(); // again, when the element was moved
    this.#changed();
  }

  disconnectedCallback() {
    if (this.isConnected) return; // only moved within the page
    if (this.#own) this.#leave();
    else this.#ignore();
    this.#endCalm();
    clearTimeout(this.#settling);
    clearInterval(this.#count);
    this.#count = undefined;
  }

  /** @param {string} name @param {string | null} _before @param {string | null} value */
  attributeChangedCallback(name, _before, value) {
    if (!this.isConnected || this.#parts === null) return;
    if (name === "token" && this.#own && value) this.#client?.setToken(value);
    else if (name === "endpoints" && this.#own) this.#leave();
    if (name !== "lang") this.#connectOwn();
    this.#show();
  }

  #connectOwn() {
    const token = this.getAttribute("token");
    const endpoints = this.getAttribute("endpoints")?.trim();
    if (this.#client !== null || !token || !endpoints) return;
    const where = /^wss?:/i.test(endpoints) ? { url: endpoints.split(/\s+/) } : { endpointsUrl: endpoints };
    const client = new ExamineeClient({ ...where, token });
    this.client = client;
    this.#own = true;
    client.connect();
  }

  /** What the badge listens to. @returns {[string, (event: Event) => void][]} */
  get #listeners() {
    return [
      ["status", this.#changed],
      ["state", this.#settle],
      ["viewStatus", this.#changed],
      ["plan", this.#changed],
      ["tokenNeeded", this.#needToken],
      ["help", this.#showHelp],
    ];
  }

  #listen() {
    for (const [type, listener] of this.#listeners) this.#client?.addEventListener(type, listener);
  }

  #ignore() {
    for (const [type, listener] of this.#listeners) this.#client?.removeEventListener(type, listener);
  }

  #leave() {
    this.#ignore();
    if (this.#own) this.#client?.close();
    this.#client = null;
    this.#own = false;
  }

  #build() {
    if (this.#parts !== null) return;
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    /** @param {string} tag @param {Record<string, string>} attributes @param {Element[]} children */
    const element = (tag, attributes, ...children) => {
      const created = document.createElement(tag);
      for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
      created.append(...children);
      return created;
    };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 20 20");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.append(path);
    const text = element("span", { part: "text" });
    const words = element("span", { class: "words", role: "status", "aria-live": "polite" }, svg, text);
    // Not announced, for it changes each second; a screen reader can still reach it.
    const aside = element("span", { class: "aside", part: "aside" });
    const button = /** @type {HTMLButtonElement} */ (element("button", { type: "button", part: "button" }));
    button.addEventListener("click", (event) => this.#client?.tryNow(event));
    const help = element("span", { part: "help", "aria-live": "polite" });
    const helpButton = /** @type {HTMLButtonElement} */ (element("button", { type: "button", part: "help-button" }));
    helpButton.addEventListener("click", () => this.#askForHelp());
    const spoken = element("span", { class: "unseen", "aria-live": "polite" });
    const badge = element("div", { class: "badge", part: "badge", role: "group" }, words, aside, button, help, helpButton, spoken);
    root.append(badge);
    this.#parts = { badge, text, aside, path, button, help, helpButton, spoken };
  }

  #changed = () => {
    const state = this.#client?.status.state;
    this.#endCalm();
    clearTimeout(this.#settling);
    // "Offline" does not close the connection: it may go on when the network is back.
    if (state !== "connected" && state !== "offline") this.#settled = false;
    else if (state === "connected" && !this.#settled) this.#settling = setTimeout(this.#settle, SETTLED_SECONDS * 1000);
    const under = state === "connected" && !this.#settled;
    const brief = this.#wasConnected && (state === "waiting" || state === "connecting" || under);
    if (brief && ["connected", "behind"].includes(this.#parts?.badge.dataset.look ?? "")) {
      this.#calm = setTimeout(() => {
        this.#endCalm();
        this.#show();
      }, CALM_SECONDS * 1000);
    } else this.#show();
  };

  /** Ask for help, or take the request back. */
  #askForHelp() {
    const client = /** @type {ExamineeClient} */ (this.#client);
    if (client.help === null && client.askingForHelp === null) client.askForHelp();
    else client.cancelHelp();
  }

  #showHelp = () => {
    const { help, helpButton } = this.#parts ?? {};
    if (!help || !helpButton) return;
    const client = this.#client;
    const offered = this.hasAttribute("help") && client instanceof ExamineeClient;
    const { text, button } = offered ? helpAppearance(client, this.#parts?.badge.lang ?? "en") : { text: "", button: "" };
    if (help.textContent !== text) help.textContent = text;
    help.hidden = !text;
    if (helpButton.textContent !== button) helpButton.textContent = button;
    helpButton.hidden = !button;
  };

  #endCalm() {
    clearTimeout(this.#calm);
    this.#calm = undefined;
  }

  /** Count on, unless a loss is not shown yet. */
  #tick() {
    if (this.#calm === undefined) this.#show();
  }

  #needToken = (/** @type {Event} */ event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    this.dispatchEvent(new CustomEvent("tokenNeeded", { detail, bubbles: true }));
  };

  /** Count the examinee as in: the server has confirmed it, or has not refused in time. */
  #settle = () => {
    this.#endCalm();
    clearTimeout(this.#settling);
    if (this.#client?.status.state !== "connected") return;
    this.#settled = this.#wasConnected = true;
    this.#show();
  };

  /** @returns {Status} */
  #status() {
    const status = this.#client?.status ?? { state: /** @type {const} */ ("idle") };
    if (status.state !== "connected" || this.#settled) return status;
    return { state: "connecting", attempt: 0, maxAttempts: 0, migrating: false };
  }

  #show() {
    const parts = this.#parts;
    if (parts === null) return;
    const status = this.#status();
    const around = this.parentElement?.closest("[lang]")?.getAttribute("lang");
    const lang = languageOf([this.getAttribute("lang"), around, ...navigator.languages]);
    const now = this.#client?.now() ?? Date.now();
    const current = this.#client?.viewStatus.current ?? true;
    const client = this.#client;
    const exam = client?.exam ?? { phase: /** @type {const} */ ("UNKNOWN"), seconds: null };
    const endReason = client !== null && "endReason" in client ? /** @type {ExamineeClient} */ (client).endReason : null;
    const about = { lang, now, wasConnected: this.#wasConnected, current, exam, endReason };
    const { look, text, aside, button } = appearance(status, about);
    parts.badge.lang = lang;
    parts.badge.dataset.look = look;
    parts.badge.dataset.phase = exam.phase;
    const left = exam.phase === "RUNNING" && endReason === null ? exam.seconds : null;
    const minutes = minutesToAnnounce(this.#left, left);
    this.#left = left;
    if (minutes !== null) parts.spoken.textContent = fill(lang, "soon", { n: minutes });
    parts.badge.setAttribute("aria-label", TEXTS[lang].label);
    parts.path.setAttribute("d", SHAPES[look]);
    if (parts.text.textContent !== text) parts.text.textContent = text; // setting the same text would announce it again
    parts.aside.textContent = aside;
    parts.aside.hidden = !aside;
    // When the focused button disappears, keep the focus in the badge.
    const focused = this.shadowRoot?.activeElement === parts.button;
    if (parts.button.textContent !== button) parts.button.textContent = button;
    parts.button.hidden = !button;
    if (focused && !button) {
      parts.badge.tabIndex = -1;
      parts.badge.focus();
    }
    this.#showHelp();
    const counts = look === "waiting" || (exam.seconds !== null && endReason === null);
    if (counts && this.isConnected) this.#count ??= setInterval(() => this.#tick(), 1000);
    else {
      clearInterval(this.#count);
      this.#count = undefined;
    }
  }
}

if (globalThis.customElements && !customElements.get("examwire-status")) {
  customElements.define("examwire-status", ExamwireStatus);
}
