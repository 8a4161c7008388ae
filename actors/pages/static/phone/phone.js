/**
 * The phone's page: enter the code, take the picture, send it. This module decides which step is shown and what follows.
 *
 * The rules are in other modules: `mobile/upload-rules.js` when a picture is sent again, `phone/stage.js` when the server is
 * asked for the time that is left, `phone/viewfinder.js` camera and picture, `phone/picture-store.js` what survives a reload,
 * `phone/steps.js` what each step shows.
 */

import { languagePicker, languages, t, useTexts } from "../common/i18n.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";
import { fromAddress, remember } from "../common/token.js";
import { codeOf, redeem } from "../mobile/code.js";
import { pictureReason } from "../common/picture-reasons.js";
import { thisDevice } from "../mobile/device.js";
import { Finder } from "./viewfinder.js";
import { begin, isWelcome } from "../mobile/upload-rules.js";
import { Sender } from "../mobile/upload-driver.js";
import { StageWatch, stageOf } from "./stage.js";
import * as steps from "./steps.js";
import { PhoneStore } from "./picture-store.js";
import { send, uploadUrl } from "../mobile/upload-request.js";
import { Countdown, Thumbnail, announce, byId, keepAwake, maxPictureBytes } from "../common/parts.js";

/** Deadlines that differ by less (ms) are the same: clocks are corrected, and answers take time. */
const CLOCK_MS = 2000;

const store = new PhoneStore();
const finder = new Finder(/** @type {HTMLVideoElement} */ (byId("video")), maxPictureBytes());
const taken = new Thumbnail([byId("taken"), byId("sent")]);
const awake = keepAwake();
const clock = {
  now: () => serverNow(),
  random: Math.random,
  setTimeout: (/** @type {() => void} */ work, /** @type {number} */ ms) => setTimeout(work, ms),
  clearTimeout: (/** @type {number} */ timer) => clearTimeout(timer),
};
const sender = new Sender((progress) => sendOnce(progress), clock);
const watch = new StageWatch({
  ...clock,
  ask: async () => (kept === null ? null : stageOf(kept.pass)),
  receive: (stage) => void receiveStage(stage),
  expired: () => expire(),
  urgent: () => removed || (left() ?? 1) <= 0,
});

/** @type {import("./steps.js").Step} */
let step = "code";
/** @type {import("./picture-store.js").Kept | null} */
let kept = null;
/** The picture that was taken and is reviewed. @type {Blob | null} */
let picture = null;
/** Whether a proctor has removed the examinee. */
let removed = false;
/** Whether the server no longer accepts this phone's token. */
let expired = false;
/** Whether a picture of this examinee has arrived, from this phone or another: then no countdown is shown. */
let arrived = false;
/** Whether the deadline has passed, as far as this phone knows; the server decides about a picture that arrives. */
let late = false;
let soon = false;
/** @type {import("../mobile/code.js").NoPass | null} */
let failure = null;
/** The code that is being redeemed. */
let code = "";
/** @type {import("../mobile/device.js").Device} */
let device;

useTexts({ en, ko });
languagePicker(/** @type {HTMLSelectElement} */ (byId("language")));
languages.addEventListener("change", () => show());
const countdown = new Countdown(() => tick());
void start();

async function start() {
  device = await thisDevice();
  kept = await store.read();
  if (kept !== null && isOver(kept)) await forget();
  listen();
  await open(codeOf(fromAddress("phone", "code") ?? ""));
}

/** Whether a stored picture belongs to an exam that is long over. @param {import("./picture-store.js").Kept} stored */
function isOver(stored) {
  return stored.pass.deadline !== null && stored.pass.deadline < Date.now() - 3_600_000;
}

/** Continue with what is stored, or with the code of the address. @param {string | null} given */
async function open(given) {
  const unsent = kept?.picture != null && kept.upload?.state !== "stored";
  if (kept !== null && (given === kept.code || (given === null && unsent))) {
    goOn();
    watch.soon(); // what is stored may be old
  } else if (given !== null) {
    await useCode(given);
  } else {
    to("code");
  }
}

/** Show the step that fits what is stored. */
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

/** Redeem a code; with a pass, continue with a picture that waits for it, or with the camera. @param {string} given */
async function useCode(given) {
  code = given;
  failure = null;
  countdown.until("retry", null);
  to("redeem");
  const outcome = await redeem(given, device.deviceId);
  if (code !== given || step !== "redeem") return; // another code was entered meanwhile
  if ("pass" in outcome) {
    await admit(given, outcome.pass);
    return;
  }
  failure = outcome.failure;
  if (failure.kind === "BUSY") countdown.until("retry", Date.now() + failure.retryAfter * 1000);
  if (["UNKNOWN", "EXPIRED", "OTHER_DEVICE", "USED_UP", "REMOVED", "REFUSED"].includes(failure.kind)) to("code");
  else show();
  if (step === "redeem") announce(`${byId("redeem-title").textContent}. ${byId("redeem-text").textContent}`);
}

/** Continue with the pass of a code. @param {string} given @param {import("../mobile/code.js").Pass} pass */
async function admit(given, pass) {
  remember("phone", given, "code");
  removed = arrived = expired = false;
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

/** Forget the examinee and the picture. */
async function forget() {
  sender.stop();
  kept = null;
  await store.forget();
}

/** Ask for another code. */
function enterCode() {
  failure = null;
  /** @type {HTMLInputElement} */ (byId("code")).value = "";
  to("code");
}

// -- the stage --------------------------------------------------------------------------------------------

/** Take over the server's view of the stage. @param {import("./stage.js").Stage} stage */
async function receiveStage({ status, removed: isRemoved, over, deadline, offset, challenge, rejected }) {
  if (kept === null) return;
  const isNew = rejected !== null && rejected.captureId !== kept.pass.rejected?.captureId;
  const pass = { ...kept.pass, challenge, rejected };
  if (isNew || challenge !== kept.pass.challenge) {
    kept = { ...kept, pass };
    await store.write(kept);
  }
  const wasRemoved = removed;
  removed = isRemoved;
  arrived = status === "COMPLETED";
  const moved = deadline !== null && deadline !== pass.deadline;
  if (moved || (deadline !== null && Math.abs(offset - pass.offset) > CLOCK_MS)) {
    kept = { ...kept, pass: { ...pass, deadline, offset } };
    if (moved) sender.extend(deadline);
    await store.write(kept);
  }
  const { upload } = sender;
  if (step === "upload" && upload !== null && isWelcome(upload, { status, removed, deadline }, serverNow())) {
    sender.resume(deadline);
  }
  if (wasRemoved !== removed) await removedChanged();
  if (isNew && status !== "COMPLETED") await askedAgain();
  await setOver(over);
  show();
}

/** Show that the exam is over, or go on when it is not any more. A picture on its way is sent all the same. @param {boolean} over */
async function setOver(over) {
  if (over && ["camera", "review", "done"].includes(step)) {
    to("over");
    announce(`${t("over")}. ${t("over.text")}`);
  } else if (!over && step === "over") await toCamera();
}

/** Take another picture instead of the one that a proctor has rejected. */
async function askedAgain() {
  if (kept === null) return;
  const { captureId, reason } = /** @type {import("../mobile/code.js").Rejected} */ (kept.pass.rejected);
  announce(`${t("rejected")}. ${pictureReason(reason)}`);
  const ours = /** @type {any} */ (kept.upload?.record)?.captureId;
  if (step !== "done" || (ours !== undefined && ours !== captureId)) return;
  kept = { ...kept, picture: null, upload: null };
  await store.write(kept);
  await toCamera();
}

/** Ask for a new code: the token has expired. Until then nothing is asked and nothing is sent. */
function expire() {
  if (expired) return;
  expired = true;
  sender.expire();
  show();
  if (step === "camera") announce(`${t("trouble.expired")}. ${t("trouble.expired.do")}`);
}

/** Close the camera of a removed examinee, and open it again after a readmission. */
async function removedChanged() {
  if (step === "camera" && !removed) await finder.begin();
  else finder.end();
  if (removed && (step === "camera" || step === "review")) announce(`${t("removed")}. ${t("removed.text")}`);
}

// -- the picture ------------------------------------------------------------------------------------------

/** Go to the camera, without a picture. */
async function toCamera() {
  taken.show(null);
  picture = null;
  to("camera");
  if (!removed) await finder.begin();
}

/** Take the picture. @param {Blob} [file] a chosen file instead of the camera */
async function take(file) {
  const jpeg = await finder.picture(file);
  if (jpeg === null || step !== "camera") return;
  picture = jpeg;
  taken.show(picture);
  to("review");
}

// -- sending ----------------------------------------------------------------------------------------------

/** Store the picture, and begin to send it. */
async function use() {
  if (picture === null || kept === null) return;
  kept = { ...kept, picture: await picture.arrayBuffer(), upload: begin(serverNow(), kept.pass.deadline) };
  await store.write(kept);
  sender.start(/** @type {import("../mobile/upload-rules.js").Upload} */ (kept.upload));
  to("upload");
}

/** Send the picture once. @param {(share: number) => void} progress */
function sendOnce(progress) {
  if (kept === null || picture === null) throw new Error("there is nothing to send");
  return send({ url: uploadUrl(kept.pass, device), token: kept.pass.token, picture, progress });
}

/** Handle a change of the upload. */
async function uploadChanged() {
  const { upload } = sender;
  if (kept === null || upload === null || step === "code" || step === "redeem") return;
  if (kept.upload !== upload) {
    const isNews = announcedPart(kept.upload) !== announcedPart(upload);
    kept = { ...kept, upload, picture: upload.state === "stored" ? null : kept.picture };
    void awake.wanted(upload.state === "ready" || upload.state === "sending");
    await store.write(kept);
    if (upload.state === "stored") {
      to("done");
      return;
    }
    if (upload.state === "refused" && upload.cause === "TOKEN") {
      expired = true;
      watch.wanted(false);
    }
    if (upload.state === "refused" && upload.cause === "REMOVED" && !removed) {
      removed = true;
      watch.soon(); // ask more often from now on whether the examinee was let in again
    }
    show();
    if (isNews) announce(`${byId("upload-title").textContent}. ${byId("upload-text").textContent}`);
  } else show();
}

/** Return the part of an upload whose changes are announced. @param {import("../mobile/upload-rules.js").Upload | null} upload */
function announcedPart(upload) {
  return upload === null || upload.state === "sending" ? "" : `${upload.state} ${upload.cause}`;
}

function tryNow() {
  // Too late as far as this phone knows: the server says whether there is more time.
  if (sender.upload?.state === "late" || sender.upload?.state === "refused") sender.resume(null);
  else sender.hurry();
}

function serverNow() {
  return Date.now() + (kept?.pass.offset ?? 0);
}

/** Return the seconds until the deadline; `null`: none is known, or it no longer counts. */
function left() {
  const counts = step !== "done" && step !== "over" && !arrived;
  const deadline = counts ? (kept?.pass.deadline ?? null) : null;
  return deadline === null ? null : (deadline - serverNow()) / 1000;
}

// -- drawing ----------------------------------------------------------------------------------------

/** Go to a step. @param {import("./steps.js").Step} next */
function to(next) {
  const moved = next !== step || document.body.dataset.step === "start";
  if (step === "camera" && next !== "camera") finder.end();
  step = next;
  show();
  watch.wanted(kept !== null && !expired && ["camera", "review", "upload", "done", "over"].includes(step));
  if (moved) steps.enterStep(step);
}

function show() {
  steps.showStep(step);
  byId("bar").hidden = kept === null || step === "code" || step === "redeem";
  const asked = kept !== null && !removed && !arrived && ["camera", "review", "upload"].includes(step) ? kept.pass : null;
  steps.showAsked(asked?.challenge ?? null, asked?.rejected?.reason ?? null);
  byId("who").textContent = t("who", { examinee: kept?.pass.examineeId ?? "" });
  if (step === "code") steps.showCode(failure, code);
  else if (step === "redeem") steps.showRedeem(failure);
  else if (step === "camera") steps.showCamera({ finder, late, expired, removed, again: arrived });
  else if (step === "review") steps.showReview(removed);
  else if (step === "upload" && sender.upload !== null) steps.showUpload(sender.upload, sender.share, store.lasting);
  else if (step === "done") steps.showDone(/** @type {any} */ (kept?.upload?.record)?.timestamp);
  const counts = left();
  countdown.until("deadline", counts === null ? null : serverNow() + counts * 1000);
  countdown.until("next", step === "upload" && sender.upload?.state === "ready" ? sender.upload.nextAt : null);
  tick();
}

/** Update all countdowns. */
function tick() {
  const counts = left();
  steps.showLeft(counts);
  const near = counts !== null && counts > 0 && counts <= steps.SOON_SECONDS;
  if (near && !soon) {
    announce(t("left.soon"));
    watch.soon(); // there may be more time
  }
  soon = near;
  const over = counts !== null && counts <= 0;
  if (over !== late) outOfTime(over);
  steps.showNext(countdown.left("next", serverNow()));
  steps.showWait(failure?.kind === "BUSY" ? countdown.left("retry", Date.now()) : null);
}

/** Handle a deadline that has passed, or was extended. @param {boolean} over */
function outOfTime(over) {
  late = over;
  if (over) watch.soon();
  if (step !== "camera") return;
  if (over) announce(`${t("trouble.late")}. ${t("trouble.late.do")}`);
  show();
}

// -- events -------------------------------------------------------------------------

function listen() {
  sender.addEventListener("change", () => void uploadChanged());
  finder.addEventListener("change", () => show());
  on("code-form", "submit", (event) => {
    event.preventDefault();
    const typed = codeOf(/** @type {HTMLInputElement} */ (byId("code")).value);
    if (typed !== null) {
      void useCode(typed);
      return;
    }
    steps.showCodeError(t("code.incomplete"));
    byId("code").focus();
  });
  on("redeem-again", "click", () => byId("redeem-again").getAttribute("aria-disabled") !== "true" && void useCode(code));
  for (const id of ["redeem-other", "camera-code", "upload-code"]) on(id, "click", () => enterCode());
  on("shutter", "click", () => void take());
  on("turn", "click", () => void finder.turn());
  on("reopen", "click", () => void finder.open());
  for (const id of ["file", "own-camera"]) {
    on(id, "change", (event) => {
      const input = /** @type {HTMLInputElement} */ (event.target);
      const [file] = input.files ?? [];
      if (file) void take(file).finally(() => (input.value = "")); // so that the same file can be chosen again
    });
  }
  on("use", "click", () => void use());
  for (const id of ["retake", "upload-retake"]) on(id, "click", () => void toCamera());
  on("try-now", "click", () => tryNow());
  addEventListener("online", () => {
    sender.hurry();
    watch.soon();
    if (step === "redeem" && failure?.kind === "NETWORK") void useCode(code);
  });
  addEventListener("hashchange", () => {
    const given = codeOf(fromAddress("phone", "code") ?? "");
    if (given !== null && given !== kept?.code) void useCode(given); // the tab was opened with another QR code
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") return;
    watch.soon();
    sender.hurry();
  });
  addEventListener("beforeunload", (event) => {
    if (step === "upload" && !store.lasting && sender.upload?.state !== "stored") event.preventDefault();
  });
}

/** @param {string} id @param {string} type @param {(event: Event) => void} work */
function on(id, type, work) {
  byId(id).addEventListener(type, work);
}
