/**
 * The languages of the pages: English and Korean, chosen by the browser, switchable, remembered.
 *
 * A locale file (`<page>/texts.<lang>.js`, `proctor/locales/<lang>.js`) exports `texts`: key to text. `{name}` in a text is
 * a parameter; a text that depends on a number is an object of plural forms (`{one: "…", other: "…"}`, as `Intl.PluralRules` names them),
 * chosen by the parameter `n`. In HTML, `data-i18n="key"` sets an element's text and
 * `data-i18n-attr="aria-label:key; placeholder:key"` its attributes; both change with the language.
 *
 * No DOM is touched at import, so that modules which use `t` can be tested in node.
 *
 * @typedef {string | Partial<Record<Intl.LDMLPluralRule, string>>} Text
 * @typedef {Record<string, Text>} Texts
 * @typedef {Record<string, string | number>} Params
 */

export { clockText as clock } from "../client/exam-clock.js";

/** The languages there are, the fallback first, each by its own name. @type {Record<string, string>} */
export const LANGUAGES = { en: "English", ko: "한국어" };

const REMEMBERED = "examwire.lang";

/** Fires `change` after the language has changed. */
export const languages = new EventTarget();

/** @type {Record<string, Texts>} */
const catalogue = {};
let current = "en";

/**
 * Choose the first available language of a list of preferences, by its main subtag ("ko-KR" is "ko").
 * @param {readonly (string | null | undefined)[]} wanted
 */
export function chosen(wanted) {
  for (const tag of wanted) {
    const main = String(tag ?? "").toLowerCase().split("-")[0];
    if (Object.hasOwn(LANGUAGES, main)) return main;
  }
  return "en";
}

/** Return the language in use. */
export function language() {
  return current;
}

/**
 * Register a page's texts and choose the language: `?lang=`, else the one chosen here before, else the browser's. Sets
 * `lang` of the document and fills in the elements with `data-i18n`.
 * @param {Record<string, Texts>} texts language to texts
 */
export function useTexts(texts) {
  for (const [lang, added] of Object.entries(texts)) catalogue[lang] = { ...catalogue[lang], ...added };
  if (typeof document === "undefined") return;
  const fromUrl = new URLSearchParams(location.search).get("lang");
  apply(chosen([fromUrl, remembered(), ...navigator.languages]));
}

/**
 * Switch to a language and remember it. Other tabs keep theirs.
 * @param {string} lang one of `LANGUAGES`
 */
export function switchTo(lang) {
  try {
    localStorage.setItem(REMEMBERED, lang);
  } catch {
    // Storage is blocked: the choice lasts until the page is closed.
  }
  apply(chosen([lang]));
}

/** @param {string} lang */
function apply(lang) {
  current = lang;
  if (typeof document !== "undefined") {
    document.documentElement.lang = lang;
    translate(document);
  }
  languages.dispatchEvent(new Event("change"));
}

function remembered() {
  try {
    return localStorage.getItem(REMEMBERED);
  } catch {
    return null;
  }
}

/**
 * Return the text of a key in the language in use, else in English, else the key itself (a test makes sure that no text is
 * missing). `params.n` chooses the plural form and is written with the language's digits and separators.
 * @param {string} key
 * @param {Params} [params]
 */
export function t(key, params = {}) {
  const text = catalogue[current]?.[key] ?? catalogue.en?.[key];
  if (text === undefined) return key;
  const form = typeof text === "string" ? text : (text[plural(Number(params.n ?? 0))] ?? text.other ?? key);
  return form.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = params[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? number(value) : value;
  });
}

/** Whether there is a text of this key. @param {string} key */
export function hasText(key) {
  return catalogue[current]?.[key] !== undefined || catalogue.en?.[key] !== undefined;
}

/** @type {Map<string, Intl.NumberFormat | Intl.DateTimeFormat | Intl.PluralRules>} */
const formats = new Map();

/**
 * Create each format once per kind and language: creating one is slow, and a frame needs many.
 * @template {Intl.NumberFormat | Intl.DateTimeFormat | Intl.PluralRules} F
 * @param {string} kind
 * @param {(lang: string) => F} make
 * @returns {F}
 */
function format(kind, make) {
  const name = `${current} ${kind}`;
  const existing = formats.get(name);
  if (existing !== undefined) return /** @type {F} */ (existing);
  const created = make(regional());
  formats.set(name, created);
  return created;
}

/** Return the language with the browser's preferred region: en-GB and en-US write dates differently. */
function regional() {
  const preferred = typeof navigator === "undefined" ? [] : (navigator.languages ?? []);
  return preferred.find((tag) => chosen([tag]) === current && tag.toLowerCase().startsWith(current)) ?? current;
}

/** @param {number} n @returns {Intl.LDMLPluralRule} */
function plural(n) {
  return format("plural", (lang) => new Intl.PluralRules(lang)).select(n);
}

/**
 * Say who has decided something: the name that their token has, with the id; or the id alone.
 * @param {string} by @param {string | null} [name]
 */
export function person(by, name) {
  return name ? `${name} (${by})` : by;
}

/** Format a number. @param {number} value */
export function number(value) {
  return format("number", (lang) => new Intl.NumberFormat(lang, { maximumFractionDigits: 1 })).format(value);
}

/** Format a time of day with seconds, in 24 hours. @param {string | number | Date} when RFC 3339, or ms */
export function time(when) {
  const make = (/** @type {string} */ lang) =>
    new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  return format("time", make).format(new Date(when));
}

/** Format a time of day without seconds, in 24 hours. @param {string | number | Date} when RFC 3339, or ms */
export function shortTime(when) {
  const make = (/** @type {string} */ lang) =>
    new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return format("shortTime", make).format(new Date(when));
}

/** Format date and time of day. @param {string | number | Date} when RFC 3339, or ms */
export function dateTime(when) {
  const make = (/** @type {string} */ lang) =>
    new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
  return format("dateTime", make).format(new Date(when));
}

/** Format a date. @param {string | number | Date} when RFC 3339, or ms */
export function date(when) {
  return format("date", (lang) => new Intl.DateTimeFormat(lang, { dateStyle: "medium" })).format(new Date(when));
}

/**
 * Format a moment of today as the time of day, any other one with its date.
 * @param {string | number | Date} when RFC 3339, or ms
 * @param {number | null} now ms since the epoch, by the server; `null`: not known
 */
export function moment(when, now) {
  return isToday(when, now) ? time(when) : dateTime(when);
}

/** Format a moment that was agreed on: as `moment`, but today with seconds only if it has some. @param {string | number | Date} when @param {number | null} now */
export function appointment(when, now) {
  return isToday(when, now) && new Date(when).getSeconds() === 0 ? shortTime(when) : moment(when, now);
}

/** Whether a moment is of the day of `now`, where this page is. @param {string | number | Date} when @param {number | null} now ms */
export function isToday(when, now) {
  return now !== null && new Date(now).toDateString() === new Date(when).toDateString();
}

/**
 * Format a duration in words, for people and screen readers: "1 hr 2 min 3 sec", "1시간 2분 3초".
 * @param {number} seconds negative counts as 0
 */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  /** @type {[number, string][]} */
  const parts = [
    [Math.floor(whole / 3600), "hour"],
    [Math.floor(whole / 60) % 60, "minute"],
    [whole % 60, "second"],
  ];
  const shown = parts.filter(([n], at) => n > 0 || (at === 2 && whole === 0));
  return shown
    .map(([n, unit]) => format(unit, (lang) => new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "short" })).format(n))
    .join(" ");
}

/**
 * Fill in an element and all below it that have `data-i18n` or `data-i18n-attr`.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-i18n]")) {
    const key = element.getAttribute("data-i18n");
    if (key) element.textContent = t(key);
  }
  for (const element of root.querySelectorAll("[data-i18n-attr]")) {
    for (const pair of (element.getAttribute("data-i18n-attr") ?? "").split(";")) {
      const [attribute, key] = pair.split(":").map((part) => part.trim());
      if (attribute && key) element.setAttribute(attribute, t(key));
    }
  }
}

/**
 * Let a `<select>` switch the language. It names each language in that language.
 * @param {HTMLSelectElement} select
 */
export function languagePicker(select) {
  select.replaceChildren(
    ...Object.entries(LANGUAGES).map(([lang, name]) => {
      const option = new Option(name, lang);
      option.lang = lang;
      return option;
    }),
  );
  const show = () => {
    select.value = current;
  };
  show();
  languages.addEventListener("change", show);
  select.addEventListener("change", () => switchTo(select.value));
}
