/**
 * Shows the steps of the phone's page: code, camera, review, upload, end, and the bar above them. It only draws; `phone.js`
 * decides.
 */

import { hasText, t, time } from "../common/i18n.js";
import { Countdown, byId } from "../common/parts.js";
import { pictureReason } from "../common/picture-reasons.js";
import { spaced } from "../mobile/code.js";

/** From so many seconds the countdown is highlighted. */
export const SOON_SECONDS = 30;

/** @typedef {"code" | "redeem" | "camera" | "review" | "upload" | "done" | "over"} Step */

/** @type {readonly Step[]} */
const STEPS = ["code", "redeem", "camera", "review", "upload", "done", "over"];

/** Show one step and hide the others. @param {Step} step */
export function showStep(step) {
  document.body.dataset.step = step;
  for (const name of STEPS) byId(`step-${name}`).hidden = name !== step;
}

/** Move the focus into a step that has just begun. @param {Step} step */
export function enterStep(step) {
  scrollTo(0, 0);
  byId(step === "code" ? "code" : `${step}-title`).focus();
}

/** Show the time left in the bar. @param {number | null} left seconds, negative when it is up; `null`: unknown */
export function showLeft(left) {
  byId("left").hidden = left === null;
  if (left === null) return;
  const over = left <= 0;
  byId("left-label").textContent = t(over ? "left.over" : "left");
  byId("left-time").textContent = over ? "" : Countdown.text(left);
  const tone = over ? "bad" : left <= SOON_SECONDS ? "warn" : null;
  if (tone === null) delete byId("left").dataset.tone;
  else byId("left").dataset.tone = tone;
}

/**
 * Show what is asked of the picture: what it must show, and why another one is needed.
 * @param {string | null} challenge
 * @param {string | null} reason of the proctor who has rejected the last one; empty: none was given
 */
export function showAsked(challenge, reason) {
  byId("challenge").hidden = challenge === null;
  byId("challenge-value").textContent = challenge ?? "";
  byId("rejected").hidden = reason === null;
  byId("rejected-reason").textContent = pictureReason(reason);
}

/**
 * Show the step that asks for the code, with the error of the previous one.
 * @param {import("../mobile/code.js").NoPass | null} failure
 * @param {string} code the one that was tried
 */
export function showCode(failure, code) {
  const text = failure === null ? "" : t(`code.${failure.kind}`, { detail: failure.detail ?? "" });
  const input = /** @type {HTMLInputElement} */ (byId("code"));
  if (failure !== null && input.value === "") input.value = spaced(code);
  showCodeError(text);
}

/** @param {string} text empty: nothing is wrong */
export function showCodeError(text) {
  byId("code-error").textContent = text;
  byId("code").setAttribute("aria-invalid", String(text !== ""));
}

/** Show the step that redeems a code. @param {import("../mobile/code.js").NoPass | null} failure */
export function showRedeem(failure) {
  byId("redeem-title").textContent = t(failure === null ? "redeem.title" : "redeem.failed");
  byId("redeem-busy").hidden = failure !== null;
  byId("redeem-again").hidden = failure === null;
  byId("redeem-other").hidden = failure === null;
  if (failure?.kind !== "BUSY") byId("redeem-text").textContent = t(failure === null ? "redeem.text" : `redeem.${failure.kind}`);
}

/** Show when another code may be tried. @param {number | null} seconds `null`: at once */
export function showWait(seconds) {
  byId("redeem-again").setAttribute("aria-disabled", String(seconds !== null && seconds > 0)); // its description says why
  if (seconds !== null) byId("redeem-text").textContent = t("redeem.BUSY", { n: Math.max(0, Math.ceil(seconds)) });
}

/**
 * Show the camera's step: the viewfinder, or why there is none and what to do; for a removed examinee only that.
 * @param {{finder: import("./viewfinder.js").Finder, late: boolean, expired: boolean, removed: boolean,
 *   again: boolean}} state `again`: a picture has arrived already
 */
export function showCamera({ finder, late, expired, removed, again }) {
  const { camera, opening, trouble } = finder;
  const live = camera.open && !opening;
  const issue = expired ? "trouble.expired" : removed ? null : late ? "trouble.late" : finder.issue;
  byId("camera-title").textContent = t(removed ? "removed" : "camera.title");
  byId("camera-code").hidden = !expired;
  byId("finder").hidden = removed || (trouble !== null && !live && !opening);
  byId("camera-opening").hidden = !opening;
  byId("video").classList.toggle("mirrored", camera.facesUser);
  byId("trouble").hidden = issue === null;
  byId("trouble-title").textContent = issue === null ? "" : t(issue);
  const advice = [live ? `${issue}.live` : "", `${issue}.do`].find((key) => hasText(key));
  byId("trouble-text").textContent = advice === undefined ? "" : t(advice);
  byId("camera-hint").hidden = issue !== null;
  byId("camera-hint").toggleAttribute("data-advice", !removed && !again); // hidden on tiny screens
  byId("camera-hint").textContent = t(removed ? "removed.text" : again ? "camera.again" : "camera.hint");
  byId("shutter").hidden = removed || again || !live;
  byId("turn").hidden = removed || again || !live || !camera.several;
  const hopeless = trouble === null || trouble === "INSECURE" || trouble === "UNSUPPORTED";
  byId("reopen").hidden = removed || again || live || opening || hopeless;
  // Only browsers of phones have the property; others would open the same window as the other button.
  const own = !live && !opening && "capture" in byId("own-camera");
  byId("taker").hidden = removed || again || !own;
  const only = !live && !opening && !own;
  byId("picker").hidden = removed || again;
  byId("picker").classList.toggle("primary", only);
  byId("picker").classList.toggle("large", only);
  byId("picker-label").textContent = t(only ? "camera.fileOnly" : "camera.file");
}

/** Show the step that reviews the picture. @param {boolean} removed */
export function showReview(removed) {
  byId("review-title").textContent = t(removed ? "removed" : "review.title");
  byId("review-hint").textContent = t(removed ? "removed.text" : "review.hint");
  byId("use").hidden = byId("retake").hidden = removed;
}

/**
 * Show the upload's step: the progress, why it waits, and what a person can do.
 * @param {import("../mobile/upload-rules.js").Upload} upload
 * @param {number} share of the picture that was sent, in [0, 1]
 * @param {boolean} lasting whether the picture outlives a page that is closed
 */
export function showUpload(upload, share, lasting) {
  const { state, cause, detail } = upload;
  const first = state === "ready" && cause === null;
  const going = state === "sending" || first;
  const removed = state === "refused" && cause === "REMOVED";
  const title = going ? "upload.sending" : state === "ready" ? "upload.waiting" : removed ? "upload.removed" : `upload.${state}`;
  const text = going ? "upload.sending.text" : state === "late" ? "upload.late.text" : `upload.${cause}`;
  byId("upload-title").textContent = t(title);
  byId("upload-text").textContent = t(text, { detail: detail ?? "" });
  byId("upload-progress").hidden = !going;
  const percent = Math.round(share * 100);
  /** @type {HTMLProgressElement} */ (byId("progress")).value = percent;
  byId("progress-text").textContent = percent < 100 ? t("upload.percent", { n: percent }) : t("upload.checking");
  byId("next-try").hidden = state !== "ready" || first;
  byId("keep-open").hidden = lasting || (state === "refused" && !removed);
  byId("try-now").hidden = going || (state === "refused" && cause !== "REFUSED");
  byId("try-now").textContent = t(state === "ready" ? "upload.tryNow" : "upload.again");
  const stored = cause === "ALREADY_STORED";
  byId("upload-retake").hidden = state !== "refused" || cause === "TOKEN" || removed || stored;
  byId("upload-code").hidden = going || state === "ready" || removed || stored || cause === "REJECTED";
  byId("upload-code").classList.toggle("primary", cause === "TOKEN" && state === "refused");
}

/** Show when the next try begins. @param {number | null} seconds */
export function showNext(seconds) {
  if (seconds === null) return;
  byId("next-try").textContent = seconds > 0 ? t("upload.next", { n: Math.ceil(seconds) }) : t("upload.now");
}

/** Show the last step: the picture has arrived. @param {string | undefined} when RFC 3339 */
export function showDone(when) {
  byId("done-when").textContent = when ? t("done.when", { time: time(when) }) : "";
}
