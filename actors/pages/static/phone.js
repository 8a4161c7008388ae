/**
 * The phone's page: code, camera, picture, sent. One step at a time; what each step shows is said here.
 *
 * Rules are elsewhere: `phone-queue.js` when a picture is sent again, `phone-camera.js` why there is no camera,
 * `phone-picture.js` what is sent of a picture, `phone-store.js` what a reload finds again. What the two long steps look
 * like is in `phone-steps.js`.
 */

import { languagePicker, languages, t, time, useTexts } from "./i18n.js";
import { texts as en } from "./locales/phone.en.js";
import { texts as ko } from "./locales/phone.ko.js";
import { fromAddress, remember } from "./page-token.js";
import { Camera, hindrance, troubleOf } from "./phone-camera.js";
import { codeOf, redeem, spaced } from "./phone-code.js";
import { thisDevice } from "./phone-device.js";
import { NotAPicture, jpegOf } from "./phone-picture.js";
import { begin } from "./phone-queue.js";
import { Sender } from "./phone-sender.js";
import { PhoneStore } from "./phone-store.js";
import { send, uploadUrl } from "./phone-upload.js";
import { showCamera, showUpload } from "./phone-steps.js";
import { Countdown, Thumbnail, byId, keepAwake, maxPictureBytes } from "./page-parts.js";

const SOON_SECONDS = 30;

/** @typedef {"code" | "redeem" | "camera" | "review" | "upload" | "done"} Step */

const store = new PhoneStore();
const camera = new Camera(/** @type {HTMLVideoElement} */ (byId("video")));
const taken = new Thumbnail([byId("taken"), byId("sent")]);
const awake = keepAwake();
const sender = new Sender((progress) => sendOnce(progress), {
  now: () => serverNow(),
  random: Math.random,
  setTimeout: (work, ms) => setTimeout(work, ms),
  clearTimeout: (timer) => clearTimeout(timer),
});

/** @type {Step} */
let step = "code";
/** @type {import("./phone-store.js").Kept | null} */
let kept = null;
/** The picture that was taken and is looked at. @type {Blob | null} */
let picture = null;
/** Why there is no camera, or why a picture was none. @type {string | null} */
let trouble = null;
/** The deadline has passed, as far as this phone knows; the server decides when a picture comes all the same. */
let late = false;
/** @type {import("./phone-code.js").NoPass | null} */
let failure = null;
/** The code that is being redeemed. */
let code = "";
let opening = false;
let maxBytes = 0;
/** @type {import("./phone-device.js").Device} */
let device;

useTexts({ en, ko });
languagePicker(/** @type {HTMLSelectElement} */ (byId("language")));
languages.addEventListener("change", () => show());
const countdown = new Countdown(() => tick());
void start();

async function start() {
  [maxBytes, device] = await Promise.all([maxPictureBytes(), thisDevice()]);
  kept = await store.read();
  if (kept !== null && isOver(kept)) await forget();
  listen();
  await open(codeOf(fromAddress("phone", "code") ?? ""));
}

/** What was kept for an exam long ago is nobody's business any more. @param {import("./phone-store.js").Kept} one */
function isOver(one) {
  return one.pass.deadline !== null && one.pass.deadline < Date.now() - 3_600_000;
}

/** Go on where this phone was, or with the code it was given. @param {string | null} given */
async function open(given) {
  const unsent = kept?.picture != null && kept.upload?.state !== "stored";
  if (kept !== null && (given === kept.code || (given === null && unsent))) {
    goOn();
  } else if (given !== null) {
    await useCode(given);
  } else {
    to("code");
  }
}

/** To the step that fits what is kept. */
function goOn() {
  if (kept?.picture != null && kept.upload !== null) {
    picture = new Blob([kept.picture], { type: "image/jpeg" });
    taken.show(picture);
    sender.start({ ...kept.upload, deadline: kept.pass.deadline });
    to("upload");
  } else if (kept?.upload?.state === "stored") {
    to("done");
  } else {
    void toCamera();
  }
}

// -- the code ---------------------------------------------------------------------------------------------

/** Redeem a code; with a pass, go on with a picture that waits for it or to the camera. @param {string} given */
async function useCode(given) {
  code = given;
  failure = null;
  to("redeem");
  const outcome = await redeem(given);
  if (code !== given || step !== "redeem") return; // another one was entered meanwhile
  if ("pass" in outcome) {
    await admit(given, outcome.pass);
    return;
  }
  failure = outcome.failure;
  if (["UNKNOWN", "EXPIRED", "REFUSED"].includes(failure.kind)) to("code");
  else show();
  countdown.until("retry", failure.kind === "BUSY" ? Date.now() + failure.retryAfter * 1000 : null);
}

/** @param {string} given @param {import("./phone-code.js").Pass} pass */
async function admit(given, pass) {
  remember("phone", given, "code");
  const same = kept !== null && kept.pass.planId === pass.planId && kept.pass.examineeId === pass.examineeId;
  if (same && kept?.picture != null && kept.upload !== null && kept.upload.state !== "stored") {
    kept = { ...kept, code: given, pass };
    await store.write(kept);
    goOn();
    sender.resume(pass.deadline);
    return;
  }
  sender.stop();
  kept = { code: given, pass, picture: null, upload: null };
  await store.write(kept);
  goOn();
}

/** Shortly before the deadline: a proctor may have given more time since the code was redeemed. */
async function refresh() {
  const before = kept;
  if (before === null) return;
  const outcome = await redeem(before.code);
  if (!("pass" in outcome) || kept === null || kept.code !== before.code) return; // the deadline that is known stands
  kept = { ...kept, pass: outcome.pass };
  await store.write(kept);
  if (sender.upload !== null && sender.upload.state !== "stored") sender.extend(outcome.pass.deadline);
  show();
}

async function forget() {
  sender.stop();
  kept = null;
  await store.forget();
}

// -- the camera -------------------------------------------------------------------------------------------

async function toCamera() {
  taken.show(null);
  picture = null;
  trouble = null;
  late = false;
  to("camera");
  await openCamera();
}

/** @param {() => Promise<unknown>} [how] */
async function openCamera(how = () => camera.start()) {
  trouble = hindrance(window);
  if (trouble === null) {
    opening = true;
    show();
    try {
      await how();
    } catch (error) {
      console.info("examwire: no camera:", String(error));
      trouble = troubleOf(error);
    }
    opening = false;
    if (step !== "camera") camera.stop();
  }
  show();
  if (trouble !== null) announce(`${t(`trouble.${trouble}`)}. ${t(`trouble.${trouble}.do`)}`);
}

/** @param {Blob | HTMLVideoElement} source */
async function take(source) {
  try {
    const made = await jpegOf(source, maxBytes);
    picture = made.blob;
  } catch (error) {
    if (!(error instanceof NotAPicture)) throw error;
    console.info("examwire: not a picture:", error.message);
    trouble = source instanceof Blob ? "notAPicture" : "notReady";
    show();
    announce(t(`camera.${trouble}`));
    return;
  }
  camera.stop();
  taken.show(picture);
  to("review");
}

// -- sending ----------------------------------------------------------------------------------------------

async function use() {
  if (picture === null || kept === null) return;
  kept = { ...kept, picture: await picture.arrayBuffer(), upload: begin(serverNow(), kept.pass.deadline) };
  await store.write(kept);
  sender.start(/** @type {import("./phone-queue.js").Upload} */ (kept.upload));
  to("upload");
}

/** @param {(share: number) => void} progress */
function sendOnce(progress) {
  if (kept === null || picture === null) throw new Error("there is nothing to send");
  return send({ url: uploadUrl(kept.pass, device), token: kept.pass.token, picture, progress });
}

async function sent() {
  const { upload } = sender;
  if (kept === null || upload === null || step === "code" || step === "redeem") return;
  if (kept.upload !== upload) {
    const said = sayingOf(kept.upload) !== sayingOf(upload);
    kept = { ...kept, upload, picture: upload.state === "stored" ? null : kept.picture };
    void awake.wanted(upload.state === "ready" || upload.state === "sending");
    await store.write(kept);
    if (upload.state === "stored") {
      to("done");
      return;
    }
    if (said) announce(`${byId("upload-title").textContent} ${byId("upload-text").textContent}`);
  }
  show();
}

/** What of an upload is worth saying aloud. @param {import("./phone-queue.js").Upload | null} upload */
function sayingOf(upload) {
  return upload === null || upload.state === "sending" ? "" : `${upload.state} ${upload.cause}`;
}

function serverNow() {
  return Date.now() + (kept?.pass.offset ?? 0);
}

// -- what is shown ----------------------------------------------------------------------------------------

/** @param {Step} next */
function to(next) {
  const moved = next !== step || document.body.dataset.step === "start";
  if (step === "camera" && next !== "camera") camera.stop();
  step = next;
  show();
  if (!moved) return;
  scrollTo(0, 0);
  if (step === "code") byId("code").focus();
  else byId(`${step}-title`).focus();
}

function show() {
  document.body.dataset.step = step;
  for (const one of ["code", "redeem", "camera", "review", "upload", "done"]) byId(`step-${one}`).hidden = one !== step;
  byId("bar").hidden = kept === null || step === "code" || step === "redeem";
  byId("who").textContent = t("who", { examinee: kept?.pass.examineeId ?? "" });
  if (step === "code") showCode();
  else if (step === "redeem") showRedeem();
  else if (step === "camera") showCamera({ camera, opening, trouble, late });
  else if (step === "upload" && sender.upload !== null) showUpload(sender.upload, sender.share, store.lasting);
  else if (step === "done") {
    const at = /** @type {any} */ (kept?.upload?.record)?.timestamp;
    byId("done-when").textContent = at ? t("done.when", { time: time(at) }) : "";
  }
  const deadline = step === "done" ? null : (kept?.pass.deadline ?? null);
  byId("left").hidden = deadline === null;
  countdown.until("deadline", deadline);
  countdown.until("next", step === "upload" && sender.upload?.state === "ready" ? sender.upload.nextAt : null);
  tick();
}

function showCode() {
  const text = failure === null ? "" : t(`code.${failure.kind}`, { detail: failure.detail ?? "" });
  byId("code-error").textContent = text;
  const input = /** @type {HTMLInputElement} */ (byId("code"));
  input.setAttribute("aria-invalid", String(text !== ""));
  if (failure !== null && input.value === "") input.value = spaced(code);
}

function showRedeem() {
  byId("redeem-title").textContent = t(failure === null ? "redeem.title" : "redeem.failed");
  byId("redeem-busy").hidden = failure !== null;
  byId("redeem-again").hidden = failure === null;
  byId("redeem-other").hidden = failure === null;
  if (failure?.kind !== "BUSY") byId("redeem-text").textContent = t(failure === null ? "redeem.text" : `redeem.${failure.kind}`);
  if (failure !== null) announce(byId("redeem-title").textContent ?? "");
}

let soon = false;

/** Everything that counts seconds. */
function tick() {
  const left = countdown.left("deadline", serverNow());
  if (left !== null) {
    const over = left <= 0;
    byId("left-label").textContent = t(over ? "left.over" : "left");
    byId("left-time").textContent = over ? "" : Countdown.text(left);
    const tone = over ? "bad" : left <= SOON_SECONDS ? "warn" : null;
    if (tone === null) delete byId("left").dataset.tone;
    else byId("left").dataset.tone = tone;
    if (left <= SOON_SECONDS && !over && !soon) {
      announce(t("left.soon"));
      void refresh();
    }
    soon = left <= SOON_SECONDS;
    if (over !== late && step === "camera") outOfTime(over);
  }
  const next = countdown.left("next", serverNow());
  if (next !== null) byId("next-try").textContent = next >= 1 ? t("upload.next", { n: Math.ceil(next) }) : t("upload.now");
  const retry = countdown.left("retry", Date.now());
  if (retry !== null && failure?.kind === "BUSY") {
    byId("redeem-text").textContent = t("redeem.BUSY", { n: Math.max(0, Math.ceil(retry)) });
    /** @type {HTMLButtonElement} */ (byId("redeem-again")).disabled = retry > 0;
  } else /** @type {HTMLButtonElement} */ (byId("redeem-again")).disabled = false;
}

/** @param {boolean} over */
function outOfTime(over) {
  late = over;
  if (over) announce(`${t("trouble.late")}. ${t("trouble.late.do")}`);
  show();
}

/** For screen readers; said once, and the same words again only after others. @param {string} text */
function announce(text) {
  const said = byId("said");
  if (said.textContent !== text) said.textContent = text;
}

// -- what people and the phone do -------------------------------------------------------------------------

function listen() {
  sender.addEventListener("change", () => void sent());
  camera.addEventListener("ended", () => {
    if (step === "camera" && document.visibilityState === "visible") void openCamera();
  });
  on("code-form", "submit", (event) => {
    event.preventDefault();
    const typed = codeOf(/** @type {HTMLInputElement} */ (byId("code")).value);
    if (typed !== null) {
      void useCode(typed);
      return;
    }
    byId("code-error").textContent = t("code.incomplete");
    byId("code").setAttribute("aria-invalid", "true");
    byId("code").focus();
  });
  on("redeem-again", "click", () => void useCode(code));
  for (const id of ["redeem-other", "upload-code"]) on(id, "click", () => enterCode());
  on("shutter", "click", () => void take(camera.video));
  on("turn", "click", () => void openCamera(() => camera.turn()));
  on("reopen", "click", () => void openCamera());
  on("file", "change", (event) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const [file] = input.files ?? [];
    if (file) void take(file).finally(() => (input.value = "")); // so that the same file can be chosen again
  });
  on("use", "click", () => void use());
  on("retake", "click", () => void toCamera());
  on("try-now", "click", () => tryNow());
  on("upload-retake", "click", () => void toCamera());
  on("done-other", "click", () => void toCamera());
  addEventListener("online", () => {
    sender.hurry();
    if (step === "redeem" && failure?.kind === "NETWORK") void useCode(code);
  });
  addEventListener("hashchange", () => {
    const given = codeOf(fromAddress("phone", "code") ?? "");
    if (given !== null && given !== kept?.code) void useCode(given); // another QR code was opened in this tab
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") camera.stop(); // another app may want it, the phone's own camera first
    else if (step === "camera" && trouble === null && !camera.open) void openCamera();
    else sender.hurry();
  });
  addEventListener("beforeunload", (event) => {
    if (step === "upload" && !store.lasting && sender.upload?.state !== "stored") event.preventDefault();
  });
}

function enterCode() {
  failure = null;
  /** @type {HTMLInputElement} */ (byId("code")).value = "";
  to("code");
}

function tryNow() {
  // Too late by what this phone knows: whether there is more time now is for the server to say.
  if (sender.upload?.state === "late" || sender.upload?.state === "refused") sender.resume(null);
  else sender.hurry();
}

/** @param {string} id @param {string} type @param {(event: Event) => void} work */
function on(id, type, work) {
  byId(id).addEventListener(type, work);
}
