// <examwire-status>: a badge that shows the state of an examinee's connection, for the page of an exam platform.
//
//   <script type="module" src="https://exam.example/static/examwire-badge.js"></script>
//   <examwire-status endpoints="https://exam.example/v1/endpoints" token="…"></examwire-status>
//
// Or, on a page that already has a client: `document.querySelector("examwire-status").client = client`.
//
// Text and the shape of the icon show the state; the colour only repeats it. No inline style, and nothing loaded from other
// sites, so it works with a strict Content-Security-Policy. The page may set --examwire-font, --examwire-ink,
// --examwire-surface, --examwire-line, --examwire-good, --examwire-busy, --examwire-bad.

import { ExamineeClient } from "./examwire.js";

/** @typedef {import("./examwire.js").Client} Client */
/** @typedef {import("./examwire.js").Status} Status */

/** A loss that ends sooner (seconds) is not shown, for example a move to another server. */
export const CALM_SECONDS = 1.5;
/**
 * After its welcome a server confirms the examinee or closes; while Redis does not answer it may send nothing. After so many
 * seconds the badge shows "connected".
 */
export const SETTLED_SECONDS = 2;

/** @typedef {"connecting" | "connected" | "behind" | "waiting" | "offline" | "ended" | "idle"} Look */

/** @type {Record<string, Record<string, string>>} */
const TEXTS = {
  en: {
    label: "Connection to the exam",
    idle: "Not connected",
    connecting: "Connecting…",
    connected: "Connected",
    behind: "Connected. The exam system is delayed.",
    again: "Connection lost. Reconnecting…",
    offline: "No network. This page reconnects when the network is back.",
    attempt: "Attempt {attempt} of {maxAttempts}",
    next: "Next attempt in {seconds} s",
    tryNow: "Try now",
    here: "Continue here",
    ATTEMPTS_USED_UP: "Not connected. Check your network, then try again.",
    ALWAYS_BUSY: "Not connected. The server is busy; try again in a moment.",
    BLOCKED: "Not connected. The exam servers have changed. Reload this page.",
    HTTP_STATUS: "Not connected. The server does not accept this page.",
    INVALID_TOKEN: "Your sign-in has expired. Sign in again.",
    TOKEN_NOT_YET_VALID: "Your sign-in is not valid yet. Try again in a moment, or tell the proctor.",
    REPLACED: "The exam is open in another window or on another device.",
    RECONNECT_LIMIT_EXCEEDED: "You were away for too long. Ask the proctor to let you in again, then try again.",
    REMOVED: "A proctor has ended your exam. Ask the proctor.",
    FORBIDDEN: "This sign-in is not for the exam. Sign in as an examinee.",
    CLOSED: "The connection has ended. Tell the proctor.",
  },
  ko: {
    label: "시험 연결 상태",
    idle: "연결되어 있지 않습니다",
    connecting: "연결하고 있습니다…",
    connected: "연결되었습니다",
    behind: "연결되었습니다. 접속 상태는 잠시 후 기록됩니다.",
    again: "연결이 끊어져 다시 연결하고 있습니다…",
    offline: "네트워크가 끊어졌습니다. 복구되면 바로 다시 연결합니다.",
    attempt: "{maxAttempts}회 중 {attempt}회째 시도",
    next: "{seconds}초 후 다시 시도합니다",
    tryNow: "지금 다시 시도",
    here: "여기에서 계속하기",
    ATTEMPTS_USED_UP: "연결하지 못했습니다. 네트워크를 확인한 후 다시 시도해 주십시오.",
    ALWAYS_BUSY: "서버가 혼잡하여 연결하지 못했습니다. 잠시 후 다시 시도해 주십시오.",
    BLOCKED: "시험 서버가 변경되었습니다. 페이지를 새로 고쳐 주십시오.",
    HTTP_STATUS: "서버에서 이 페이지의 연결을 허용하지 않습니다.",
    INVALID_TOKEN: "로그인 시간이 만료되었습니다. 다시 로그인해 주십시오.",
    TOKEN_NOT_YET_VALID: "아직 로그인 유효 시간이 되지 않았습니다. 잠시 후 다시 시도하거나 감독관에게 알려 주십시오.",
    REPLACED: "다른 창이나 기기에서 시험이 열려 있습니다.",
    RECONNECT_LIMIT_EXCEEDED: "연결이 오래 끊겨 입장이 제한되었습니다. 감독관에게 재입장을 요청한 후 다시 시도해 주십시오.",
    REMOVED: "감독관이 시험을 종료하였습니다. 감독관에게 문의해 주십시오.",
    FORBIDDEN: "응시자용 로그인이 아닙니다. 응시자로 로그인해 주십시오.",
    CLOSED: "연결이 종료되었습니다. 감독관에게 알려 주십시오.",
  },
};

/**
 * Map a status to the icon, the text, the countdown beside it (not read out), and the label of the button.
 * @param {Status} status
 * @param {{lang: string, now: number, wasConnected: boolean, current?: boolean}} about `now` in ms since the epoch;
 *   `current`: the server records what happens
 * @returns {{look: Look, text: string, aside: string, button: string}}
 */
export function appearance(status, { lang, now, wasConnected, current = true }) {
  const texts = TEXTS[lang] ?? TEXTS.en;
  /** @param {string} key @param {Record<string, number>} values */
  const fill = (key, values) => texts[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
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
      const aside = attempt > 0 && !migrating ? fill("attempt", { attempt, maxAttempts }) : "";
      return { ...plain, look: "connecting", text, aside };
    }
    case "waiting": {
      const seconds = Math.max(0, Math.ceil((status.at - now) / 1000));
      const text = wasConnected ? texts.again : texts.connecting;
      const counts = { attempt: status.attempt, maxAttempts: status.maxAttempts };
      const aside = `${fill("attempt", counts)} · ${fill("next", { seconds })}`;
      return { look: "waiting", text, aside, button: texts.tryNow };
    }
    case "gaveUp": {
      const text = texts[status.name] ?? texts[status.reason] ?? texts.CLOSED;
      const button = status.remedy !== "USER" ? "" : status.name === "REPLACED" ? texts.here : texts.tryNow;
      return { look: "ended", text, aside: "", button };
    }
  }
}

/**
 * The language of the badge: its own `lang`, that of the page around it, or the browser's.
 * @param {readonly (string | null | undefined)[]} wanted
 */
export function languageOf(wanted) {
  for (const tag of wanted) {
    const main = String(tag ?? "").toLowerCase().split("-")[0];
    if (Object.hasOwn(TEXTS, main)) return main;
  }
  return "en";
}

// Shapes that differ without colour: a tick, a tick in a ring, a broken ring, a clock, a struck-out wave, a cross, a bar.
/** @type {Record<Look, string>} */
const SHAPES = {
  connected: "M4 10.5l4 4 8-9",
  behind: "M10 3a7 7 0 1 0 .01 0M6.5 10.5l2.5 2.5 4.5-5",
  connecting: "M10 3a7 7 0 1 1-6.6 4.7",
  waiting: "M10 3a7 7 0 1 0 .01 0M10 6v4.5l3 2",
  offline: "M3 8.5a10 10 0 0 1 14 0M6 12a6 6 0 0 1 8 0M10 15.5v.01M4 17L16 3",
  ended: "M5 5l10 10M15 5L5 15",
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
  [data-look="connected"] svg { stroke: var(--examwire-good, var(--good)); }
  [data-look="ended"] svg, [data-look="offline"] svg { stroke: var(--examwire-bad, var(--bad)); }
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
 * that client when the element leaves the page. `client`: the client that it shows; set it to show your own.
 *
 * Event `tokenNeeded` (it bubbles): a server did not accept the token; set the attribute to a new one.
 */
export class ExamwireStatus extends Base {
  static observedAttributes = ["token", "endpoints", "lang"];

  /** @type {Client | null} */ #client = null;
  #own = false;
  #wasConnected = false;
  /** Whether the server has confirmed the examinee on the open connection. */ #settled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #calm;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #settling;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #count;
  /** @type {Record<"badge" | "text" | "aside", HTMLElement> & {path: SVGPathElement, button: HTMLButtonElement} | null} */
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
    clearTimeout(this.#calm);
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

  #listen() {
    this.#client?.addEventListener("status", this.#changed);
    this.#client?.addEventListener("state", this.#settle);
    this.#client?.addEventListener("viewStatus", this.#changed);
    this.#client?.addEventListener("tokenNeeded", this.#needToken);
  }

  #ignore() {
    this.#client?.removeEventListener("status", this.#changed);
    this.#client?.removeEventListener("state", this.#settle);
    this.#client?.removeEventListener("viewStatus", this.#changed);
    this.#client?.removeEventListener("tokenNeeded", this.#needToken);
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
    const badge = element("div", { class: "badge", part: "badge", role: "group" }, words, aside, button);
    root.append(badge);
    this.#parts = { badge, text, aside, path, button };
  }

  #changed = () => {
    const state = this.#client?.status.state;
    clearTimeout(this.#calm);
    clearTimeout(this.#settling);
    // "Offline" does not close the connection: it may go on when the network is back.
    if (state !== "connected" && state !== "offline") this.#settled = false;
    else if (state === "connected" && !this.#settled) this.#settling = setTimeout(this.#settle, SETTLED_SECONDS * 1000);
    const under = state === "connected" && !this.#settled;
    const brief = this.#wasConnected && (state === "waiting" || state === "connecting" || under);
    if (brief && ["connected", "behind"].includes(this.#parts?.badge.dataset.look ?? "")) {
      this.#calm = setTimeout(() => this.#show(), CALM_SECONDS * 1000);
    } else this.#show();
  };

  #needToken = (/** @type {Event} */ event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    this.dispatchEvent(new CustomEvent("tokenNeeded", { detail, bubbles: true }));
  };

  /** Count the examinee as in: the server has confirmed it, or has not refused in time. */
  #settle = () => {
    clearTimeout(this.#calm);
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
    const about = { lang, now, wasConnected: this.#wasConnected, current };
    const { look, text, aside, button } = appearance(status, about);
    parts.badge.lang = lang;
    parts.badge.dataset.look = look;
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
    if (look === "waiting") this.#count ??= setInterval(() => this.#show(), 1000);
    else {
      clearInterval(this.#count);
      this.#count = undefined;
    }
  }
}

if (globalThis.customElements && !customElements.get("examwire-status")) {
  customElements.define("examwire-status", ExamwireStatus);
}
