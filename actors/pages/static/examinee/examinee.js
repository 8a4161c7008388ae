/**
 * The examinee's page: the exam's clock, the state of the connection in plain words, messages of proctors, the mobile step.
 *
 * `examinee/connection-texts.js` and `examinee/exam-texts.js` say what is shown in which state; `examwire.js` keeps the
 * connection.
 */

import { ExamineeClient } from "../examwire.js";
import { viewOf, isPatient, GRACE_MS } from "./connection-texts.js";
import { Exam } from "./exam.js";
import { viewInExam } from "./exam-texts.js";
import { Help } from "./help.js";
import { Messages } from "./messages.js";
import { MobileStep } from "./mobile-step.js";
import { languagePicker, languages, t, useTexts } from "../common/i18n.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";
import { forget, fromAddress, remember, claimsOf } from "../common/token.js";
import { announce, byId } from "../common/parts.js";

const PAGE = "examinee";
/** A server refuses an examinee right after its welcome; while Redis does not answer it may send nothing for long. */
const SETTLED_MS = 2000;
/** Seconds between two requests of a page that is shut out, ± a quarter: a whole hall may be shut out. */
const SHUT_OUT_SECONDS = 8;
/** Seconds between two requests of a page that reached no socket server. They grow, for each answer leads to one more attempt. */
const DEAD_SECONDS = [8, 8, 15, 30, 60];

/** @type {ExamineeClient | null} */
let client = null;
/** @type {Messages | null} */
let messages = null;
let token = "";
let plan = "";
let examinee = "";
let settled = false;
/** Whether the server has confirmed the examinee on this connection. */
let recorded = false;
let shutOut = false;
let asked = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let settling;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let patience;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let asking;
/** @type {ReturnType<typeof setInterval> | undefined} */ let counting;
let shownKey = "";
/** @type {string} */ let saidKey = "";

useTexts({ en, ko });
languagePicker(/** @type {HTMLSelectElement} */ (byId("language")));
languages.addEventListener("change", () => show(true));
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(/** @type {HTMLInputElement} */ (byId("token")).value.trim());
});
byId("try-now").addEventListener("click", (event) => {
  if (client?.status.state === "gaveUp" && client.status.remedy === "RELOAD") location.reload();
  else client?.tryNow(event);
});
addEventListener("hashchange", () => {
  const given = fromAddress(PAGE);
  if (given !== null && given !== token) useToken(given);
});
const given = fromAddress(PAGE);
if (given === null) show(true);
else useToken(given);

/** Connect with a token, or say what is wrong with it. @param {string} newToken */
function useToken(newToken) {
  const claims = claimsOf(newToken);
  const wrong = claims === null ? "token.none" : claims.role !== "examinee" ? "token.role" : "";
  byId("token-error").textContent = wrong && t(wrong, { role: claims?.role ?? "" });
  byId("token").setAttribute("aria-invalid", String(wrong !== ""));
  if (claims === null || wrong) {
    show(true);
    byId("token").focus();
    return;
  }
  const another = claims.plan !== plan || claims.subject !== examinee;
  token = newToken;
  remember(PAGE, token);
  /** @type {HTMLInputElement} */ (byId("token")).value = "";
  if (client !== null && !another) {
    client.setToken(token);
    return;
  }
  if (client !== null) {
    location.reload(); // another examinee: nothing of the previous one may stay on the page
    return;
  }
  ({ plan, subject: examinee } = claims);
  begin();
}

function begin() {
  client = new ExamineeClient({ endpointsUrl: new URL("/v1/endpoints", location.href).href, token });
  messages = new Messages(client);
  new Exam(client);
  new Help(client);
  new MobileStep(client, () => ({ plan, examinee, token }));
  client.addEventListener("status", () => changed());
  client.addEventListener("state", () => settle(true));
  client.addEventListener("viewStatus", () => show());
  client.addEventListener("tokenNeeded", () => show());
  client.addEventListener("token", () => renewed());
  client.addEventListener("unread", () => showTitle());
  for (const type of ["plan", "phase", "finished", "resumed"]) client.addEventListener(type, () => show());
  client.connect();
  show(true);
}

/** Handle a new status of the client. */
function changed() {
  const status = client?.status;
  clearTimeout(settling);
  // "Offline" does not close the connection: it may go on when the network is back.
  if (status?.state !== "connected" && status?.state !== "offline") settled = recorded = false;
  else if (status.state === "connected" && !settled) settling = setTimeout(() => settle(false), SETTLED_MS);
  show();
}

/** Count the examinee as in. @param {boolean} confirmed by the server; else it has not refused for a while */
function settle(confirmed) {
  clearTimeout(settling);
  settled = true;
  recorded ||= confirmed;
  shutOut = false;
  asked = 0;
  show();
}

/** Show the state. @param {boolean} [atOnce] also a loss that may be over in a moment */
function show(atOnce = false) {
  const status = client?.status ?? { state: /** @type {const} */ ("idle") };
  const connection = viewOf(status, settled, shutOut, recorded, client?.viewStatus.current, client?.tokenNeeded);
  const view = viewInExam(connection, client?.exam.phase ?? "UNKNOWN", client?.endReason ?? null);
  const wait = !atOnce && isPatient(shownKey, view);
  if (!wait) {
    clearTimeout(patience);
    patience = undefined;
    render(view);
  } else patience ??= setTimeout(() => show(true), GRACE_MS);
  ask(view.asks);
}

/** Use a new token: ask at once for what the old one did not give. */
function renewed() {
  ask(null);
  asked = 0;
  show(true);
  if (asking !== undefined) void admission();
}

/** @param {import("./connection-texts.js").View} view */
function render(view) {
  shownKey = view.key;
  byId("connection").dataset.tone = view.tone;
  byId("connection-icon").dataset.shown = view.icon;
  const name = client?.name ?? null;
  byId("who").textContent = examinee && t(name === null ? "who" : "who.named", { plan, examinee, name: name ?? "" });
  const status = client?.status;
  const code = status?.state === "gaveUp" ? `${status.name}${status.detail ? `: ${status.detail}` : ""}` : "";
  byId("connection-title").textContent = t(`${view.key}.title`);
  byId("connection-text").textContent = t(`${view.key}.text`, { code });
  const button = byId("try-now");
  const had = document.activeElement === button;
  button.hidden = view.button === null;
  if (view.button !== null) button.textContent = t(`button.${view.button}`);
  if (had && button.hidden) focusHeading();
  byId("token-form").hidden = !view.asksToken;
  if (view.asksToken && client !== null && !client.connected) forget(PAGE);
  clearInterval(counting);
  if (view.next !== null) counting = setInterval(() => showNext(view), 500);
  showNext(view);
  showTitle();
  if (saidKey !== view.key) {
    const first = saidKey === "";
    saidKey = view.key;
    if (!first) announce(`${byId("connection-title").textContent}. ${byId("connection-text").textContent}`);
  }
}

/** Keep the keyboard focus in the section when the focused button disappears. */
function focusHeading() {
  const heading = byId("connection-title");
  heading.tabIndex = -1;
  heading.focus();
}

/** @param {import("./connection-texts.js").View} view */
function showNext(view) {
  const status = client?.status;
  let text = "";
  if (view.next !== null && (status?.state === "waiting" || status?.state === "connecting")) {
    const { attempt, maxAttempts } = status;
    const left = status.state === "waiting" ? Math.ceil((status.at - Date.now()) / 1000) : 0;
    text = left > 0 ? t("next.in", { n: left, attempt, max: maxAttempts }) : t("next.now", { attempt, max: maxAttempts });
  }
  byId("connection-next").textContent = text;
}

/** Show the state in the tab's title, too: the page may be in the background. */
function showTitle() {
  const unread = messages?.unread ?? 0;
  const state = ["connected", "waiting", "unrecorded", "behind", "moving"].includes(shownKey) ? "" : `${t(`${shownKey}.title`)} – `;
  document.title = `${unread > 0 ? `(${unread}) ` : ""}${state}${t("title")}`;
}

/** Ask the web server regularly whether to reconnect, and do so when it says yes. @param {"shut" | "dead" | null} why */
function ask(why) {
  if (why === null) {
    clearTimeout(asking);
    asking = undefined;
    return;
  }
  const seconds = why === "shut" ? SHUT_OUT_SECONDS : DEAD_SECONDS[Math.min(asked, DEAD_SECONDS.length - 1)];
  asking ??= setTimeout(() => void admission(), seconds * (0.75 + Math.random() / 2) * 1000);
}

async function admission() {
  clearTimeout(asking);
  const place = `/v1/plans/${encodeURIComponent(plan)}/examinees/${encodeURIComponent(examinee)}/admission`;
  const used = token;
  /** @type {boolean | null} */
  let admitted = null;
  try {
    const response = await fetch(place, { headers: { Authorization: `Bearer ${used}` }, cache: "no-store" });
    if (response.ok) ({ admitted } = await response.json());
    else if (response.status === 401 && used === token) client?.tokenRefused();
  } catch {
    admitted = null; // no network: ask again later
  }
  if (asking === undefined || used !== token) return; // the page has stopped asking, or has a new token
  asking = undefined;
  asked += 1;
  if (admitted === true) client?.comeBack();
  else shutOut = admitted === false || shutOut;
  show();
}
