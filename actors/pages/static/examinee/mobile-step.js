/**
 * The mobile step on the examinee's page: the start button, the QR code and the code to type, the time left, the picture.
 *
 * If the server cannot sign tokens for phones, there are no codes, and the picture is sent from this computer.
 */

import { hasText, languages, t, time } from "../common/i18n.js";
import { problemKey } from "../common/picture-problems.js";
import { pictureReason } from "../common/picture-reasons.js";
import { timesOf } from "../mobile/code.js";
import { thisDevice } from "../mobile/device.js";
import { Countdown, announce, byId, maxPictureBytes } from "../common/parts.js";
import { UnusablePicture, jpegOf } from "../mobile/picture.js";
import { begin, retryAfterSeconds } from "../mobile/upload-rules.js";
import { Sender } from "../mobile/upload-driver.js";
import { send, uploadUrl } from "../mobile/upload-request.js";

/** From so many seconds the countdown is highlighted and announced. */
const SOON_SECONDS = 30;
/** Seconds before the code is asked for again; the last one repeats. */
const CODE_RETRY_SECONDS = [2, 4, 8, 15];
/** Seconds before the picture is asked for again; after the last one the page gives up. */
const PICTURE_RETRY_SECONDS = [1, 3, 9];
/** After so many seconds without an answer the start button works again. */
const START_TIMEOUT_SECONDS = 8;
/** @type {Record<string, string>} */
const TONES = { WAITING: "info", COMPLETED: "good", FAILED: "bad", TIMED_OUT: "bad" };

/**
 * @typedef {{url: string, code: string, qrSvg: string, expiresAt: number}} PhoneCode
 * @typedef {"idle" | "asking" | "shown" | "failed" | "expired" | "none"} CodeState `expired`: the token is no longer
 *   accepted. `none`: this server gives no codes, so the picture is sent from this computer.
 */

/**
 * Return what an upload from this computer does, or why it was refused; empty: there is none.
 * @param {import("../mobile/upload-rules.js").Upload | null} upload
 */
function uploadText(upload) {
  if (upload === null) return "";
  const { state, cause, detail } = upload;
  if (state === "refused" && cause === "TOKEN") return t("upload.TOKEN");
  if (state === "refused" && cause === "TOO_LARGE") return anotherFor("IMAGE_TOO_LARGE");
  if (state === "refused" && cause === "NOT_A_PICTURE") return anotherFor("IMAGE_DAMAGED");
  if (cause !== null && state !== "sending") return t(`upload.${state}`, { detail: detail ?? "" });
  return state === "sending" || state === "ready" ? t("upload.sending") : "";
}

/** Say what is wrong with a picture, and ask for another one. @param {import("../mobile/picture.js").PictureProblem} problem */
function anotherFor(problem) {
  return `${t(problemKey(problem))} ${t("upload.another")}`;
}

/** Draws the mobile step, and asks the web server for the code and the picture. */
export class MobileStep {
  /**
   * @param {import("../examwire.js").ExamineeClient} client
   * @param {() => {plan: string, examinee: string, token: string}} identity of the examinee, with the latest token
   */
  constructor(client, identity) {
    this._client = client;
    this._identity = identity;
    /** How much the server's clock is ahead of this one, in ms. */ this._offset = 0;
    /** @type {CodeState} */ this._codeState = "idle";
    /** @type {PhoneCode | null} */ this._code = null;
    /** The deadline that the code is for. */ this._codeFor = "";
    this._codeTries = 0;
    this._codeTimer = 0;
    /** Whether the step was started here and is not confirmed by the server yet. */ this._starting = false;
    /** Whether the countdown is highlighted. */ this._soon = false;
    this._shownStatus = "";
    /** The version of the picture that is shown; -1: none. */ this._pictureOf = -1;
    /** The version of the picture that waits for a new token; -1: none. */ this._pictureMissing = -1;
    /** @type {string | null} */ this._qrUrl = null;
    /** @type {string | null} */ this._pictureUrl = null;
    /** @type {Blob | null} */ this._chosen = null;
    /** Why the chosen file cannot be sent. @type {import("../mobile/picture.js").PictureProblem | null} */ this._problem = null;
    this._countdown = new Countdown(() => this._tick());
    this._sender = this._makeSender();
    client.addEventListener("mobileSync", () => this._changed());
    client.addEventListener("token", () => this._renewed());
    client.addEventListener("tokenNeeded", () => this.show());
    byId("mobile-token").addEventListener("click", () => byId("token").focus());
    for (const type of ["status", "state", "plan"]) client.addEventListener(type, () => this._goOn());
    // The state at the opening of the page is not announced; each later change is.
    client.addEventListener("state", () => (this._shownStatus ||= this._stage.status));
    languages.addEventListener("change", () => this.show());
    byId("mobile-start").addEventListener("click", () => this._begin());
    byId("mobile-new-code").addEventListener("click", () => this._renewCode());
    byId("file").addEventListener("change", (event) => void this._choose(event));
    addEventListener("online", () => this._sender.hurry());
    this.show();
  }

  /** The state of the mobile sync, as the client knows it. */
  get _stage() {
    return this._client.mobileSync;
  }

  /** Whether a picture can be sent now. */
  get _open() {
    return this._stage.status === "WAITING" || this._stage.status === "FAILED";
  }

  /** Whether a proctor has asked for another picture, which has not come yet. */
  get _isRejected() {
    return this._stage.review?.verdict === "rejected" && this._stage.status !== "COMPLETED";
  }

  /** Start the step. */
  _begin() {
    this._starting = true;
    this._client.enterMobileSync();
    this._startTimer = setTimeout(() => {
      this._starting = false;
      this.show();
    }, START_TIMEOUT_SECONDS * 1000);
    this.show();
  }

  /** Start a step that was asked for without a connection, once there is one. */
  _goOn() {
    if (this._client.connected && this._starting && !this._open) this._client.enterMobileSync();
    this.show();
  }

  /** Repeat with a new token what was refused for the old one. */
  _renewed() {
    if (this._codeState === "expired") void this._askForCode();
    if (this._pictureMissing >= 0) void this._fetchPicture(this._pictureMissing);
    const { upload } = this._sender;
    if (upload?.state === "refused" && upload.cause === "TOKEN") this._sender.resume(upload.deadline);
    this.show();
  }

  /** Handle a new state of the mobile sync. */
  _changed() {
    const { status, deadline } = this._stage;
    this._starting = false;
    clearTimeout(this._startTimer);
    if (this._open) {
      // A code ends with the deadline that it was made for, so a new deadline needs a new code.
      if (this._codeFor !== String(deadline)) {
        this._codeFor = String(deadline);
        this._dropCode();
        void this._askForCode();
      }
    } else {
      this._codeFor = "";
      this._dropCode();
      this._codeState = this._codeState === "none" ? "none" : "idle";
    }
    if (status === "COMPLETED" && this._pictureOf !== this._stage.version) void this._fetchPicture(this._stage.version);
    const statusChanged = this._shownStatus !== "" && this._shownStatus !== status;
    this.show();
    this._shownStatus = status;
    if (statusChanged && status !== "NONE") {
      const note = this._isRejected ? byId("mobile-note").textContent : byId("mobile-text").textContent;
      announce(`${byId("mobile-chip").textContent}. ${note}`);
    }
  }

  // -- the code ---------------------------------------------------------------------------------------------

  /** Ask the web server for a code, and again later if there is none. */
  async _askForCode() {
    const deadline = this._codeFor;
    if (this._codeState !== "none") this._codeState = "asking";
    const { plan, examinee, token } = this._identity();
    const url = `/v1/plans/${encodeURIComponent(plan)}/examinees/${encodeURIComponent(examinee)}/phone-code`;
    let response = null;
    let body = null;
    try {
      response = await fetch(url, { method: "POST", headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
      body = await response.json();
    } catch {
      response = null; // no answer, or the answer of a proxy: asked again below
    }
    if (deadline !== this._codeFor) return;
    if (response?.status === 201) {
      this._takeCode(body);
    } else if (response?.status === 501) {
      this._codeState = "none";
    } else if (response?.status === 401) {
      this._codeState = "expired";
      this._refused(token);
    } else {
      this._codeState = "failed";
      const step = CODE_RETRY_SECONDS[Math.min(this._codeTries, CODE_RETRY_SECONDS.length - 1)];
      const retryAfter = retryAfterSeconds(response?.headers.get("Retry-After") ?? null, Date.now()) ?? 0;
      this._codeTries += 1;
      this._askAgainIn(Math.max(step * (0.8 + 0.4 * Math.random()), retryAfter));
    }
    this.show();
  }

  /** Show another code: the first one belongs to the device that has redeemed it. */
  _renewCode() {
    this._dropCode();
    this.show();
    void this._askForCode();
  }

  /** Handle a refused token: ask for another, or repeat with the one that has come meanwhile. @param {string} token */
  _refused(token) {
    if (token === this._identity().token) this._client.tokenRefused();
    else this._renewed();
  }

  /** Show a code. @param {any} body the server's answer */
  _takeCode({ code, url, qrSvg, expiresAt, secondsLeft }) {
    const { deadline, offset } = timesOf(expiresAt, secondsLeft, Date.now());
    if (typeof secondsLeft === "number") this._offset = Math.abs(offset) < 2000 ? 0 : offset;
    this._codeState = "shown";
    this._codeTries = 0;
    this._code = { code, url, qrSvg, expiresAt: deadline ?? Number.POSITIVE_INFINITY };
    this._qrUrl = URL.createObjectURL(new Blob([qrSvg], { type: "image/svg+xml" }));
    const image = /** @type {HTMLImageElement} */ (byId("qr-image"));
    image.src = this._qrUrl;
    // A code may end before the stage: ask for the next one in time.
    const validSeconds = (this._code.expiresAt - this._now()) / 1000;
    if (Number.isFinite(validSeconds)) this._askAgainIn(validSeconds - 5);
  }

  /** Ask for a code later, if the stage is still the same and open. @param {number} seconds */
  _askAgainIn(seconds) {
    clearTimeout(this._codeTimer);
    const deadline = this._codeFor;
    this._codeTimer = setTimeout(
      () => {
        const left = (Date.parse(deadline) - this._now()) / 1000;
        if (deadline === this._codeFor && this._open && !(left < 6)) void this._askForCode();
      },
      Math.max(seconds, 1) * 1000,
    );
  }

  /** Forget the code. */
  _dropCode() {
    clearTimeout(this._codeTimer);
    this._code = null;
    this._codeTries = 0;
    if (this._qrUrl !== null) URL.revokeObjectURL(this._qrUrl);
    this._qrUrl = null;
    byId("qr-image").removeAttribute("src");
  }

  /** Ms since the epoch, by the server's clock. */
  _now() {
    return Date.now() + this._offset;
  }

  // -- the picture ------------------------------------------------------------------------------------------

  /** Load the stored picture, and show it. @param {number} version of the mobile sync */
  async _fetchPicture(version, tries = 0) {
    const { plan, examinee, token } = this._identity();
    const url = `/v1/plans/${encodeURIComponent(plan)}/captures/${encodeURIComponent(examinee)}/sync_cap.jpg`;
    try {
      const response = await fetch(url, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
      this._pictureMissing = response.status === 401 ? version : -1;
      if (response.status === 401) return this._refused(token);
      if (!response.ok) throw new Error(`${response.status}`);
      const blob = await response.blob();
      if (version !== this._stage.version) return;
      if (this._pictureUrl !== null) URL.revokeObjectURL(this._pictureUrl);
      this._pictureUrl = URL.createObjectURL(blob);
      this._pictureOf = version;
      /** @type {HTMLImageElement} */ (byId("picture")).src = this._pictureUrl;
      this.show();
    } catch (error) {
      // The server has the picture; only showing it fails.
      console.info("examwire: the picture cannot be shown yet:", String(error));
      const seconds = PICTURE_RETRY_SECONDS[tries];
      if (seconds !== undefined) setTimeout(() => void this._fetchPicture(version, tries + 1), seconds * 1000);
    }
  }

  // -- sending the picture from this computer ---------------------------------------------------------------------------------

  _makeSender() {
    const sendOnce = (/** @type {(share: number) => void} */ progress) => {
      const { plan, examinee, token } = this._identity();
      if (this._chosen === null || this._device === undefined) throw new Error("there is nothing to send");
      const url = uploadUrl({ planId: plan, examineeId: examinee }, this._device);
      return send({ url, token, picture: this._chosen, progress });
    };
    const sender = new Sender(sendOnce, {
      now: () => this._now(),
      random: Math.random,
      setTimeout: (work, ms) => setTimeout(work, ms),
      clearTimeout: (timer) => clearTimeout(timer),
    });
    sender.addEventListener("change", () => this._showUpload());
    return sender;
  }

  /** Send the chosen file. @param {Event} event */
  async _choose(event) {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const [file] = input.files ?? [];
    if (!file) return;
    this._problem = null;
    try {
      const [maxBytes, device] = await Promise.all([maxPictureBytes(), thisDevice()]);
      this._device = device;
      this._chosen = (await jpegOf(file, maxBytes)).blob;
      this._sender.start(begin(this._now(), Date.parse(this._stage.deadline) || null));
    } catch (error) {
      if (!(error instanceof UnusablePicture)) throw error;
      this._problem = error.problem;
    } finally {
      input.value = ""; // so that the same file can be chosen again
      this._showUpload();
    }
  }

  /** Show the progress of the upload, or why it waits. */
  _showUpload() {
    const { upload, share } = this._sender;
    const expired = upload?.state === "refused" && upload.cause === "TOKEN";
    if (expired) this._client.tokenRefused();
    const sending = upload?.state === "sending" || upload?.state === "ready";
    const progress = /** @type {HTMLProgressElement} */ (byId("upload-progress"));
    progress.hidden = !sending;
    progress.value = Math.round(share * 100);
    const text = this._problem === null ? uploadText(upload) : anotherFor(this._problem);
    if (byId("upload-text").textContent !== text) {
      byId("upload-text").textContent = text;
      if (text) announce(text);
    }
  }

  // -- what is shown ----------------------------------------------------------------------------------------

  /** Draw the step. */
  show() {
    const stage = this._stage;
    const { status, reason } = stage;
    const known = this._client.state !== null;
    const { status: connection } = this._client;
    // A removed examinee takes no picture, nor one whose exam is over; both still see one that has arrived.
    const ended = this._client.endReason !== null || (connection.state === "gaveUp" && connection.name === "REMOVED");
    byId("mobile").hidden = (ended && status !== "COMPLETED") || (status === "NONE" && (!known || connection.state === "gaveUp"));
    const chip = byId("mobile-chip");
    const word = hasText(`mobile.${status}.text`) ? status : "UNKNOWN"; // of a newer server
    chip.textContent = status === "NONE" ? "" : t(`mobile.${word}`);
    chip.dataset.tone = TONES[status] ?? "quiet";
    const accepted = status === "COMPLETED" && stage.review?.verdict === "accepted";
    byId("mobile-text").textContent = t(accepted ? "mobile.accepted" : `mobile.${word}.text`);
    byId("mobile-challenge").hidden = !this._open || !stage.challenge;
    byId("mobile-challenge-value").textContent = stage.challenge ?? "";
    this._showNote(status, reason);
    const start = /** @type {HTMLButtonElement} */ (byId("mobile-start"));
    // Without a connection that may come back there is nothing to start.
    start.hidden = !(status === "NONE" || status === "TIMED_OUT") || connection.state === "gaveUp";
    start.textContent = t(this._starting ? "mobile.starting" : status === "NONE" ? "mobile.start" : "mobile.startAgain");
    start.setAttribute("aria-disabled", String(this._starting));
    byId("mobile-join").hidden = !this._open || this._codeState === "none" || this._codeState === "expired";
    byId("mobile-upload").hidden = !this._open || this._codeState !== "none";
    this._showCode();
    const done = status === "COMPLETED";
    byId("mobile-picture").hidden = !done;
    byId("picture").hidden = !done || this._pictureUrl === null;
    byId("picture-when").textContent = done
      ? t("mobile.when", { time: time(stage.timestamp ?? Date.now()) })
      : "";
    this._countdown.until("deadline", this._open && stage.deadline ? Date.parse(stage.deadline) : null);
    this._tick();
  }

  /** Say what is wrong, and offer to enter a new token. @param {string} status @param {string | undefined} reason */
  _showNote(status, reason) {
    let text = "";
    if (status === "FAILED") text = t(hasText(`mobile.failed.${reason}`) ? `mobile.failed.${reason}` : "mobile.failed");
    else if (this._isRejected) text = t("mobile.rejected", { why: pictureReason(this._stage.review.reason) }).trim();
    else if (this._open && this._codeState === "expired") text = t("mobile.expired");
    else if (this._open && this._codeState === "failed") text = t("mobile.noCode");
    else if (this._starting && !this._client.connected) text = t("mobile.later");
    byId("mobile-note").hidden = text === "";
    byId("mobile-note").textContent = text;
    const { state } = this._client.status;
    byId("mobile-token").hidden = !this._client.tokenNeeded || (state !== "connected" && state !== "gaveUp");
  }

  /** Show the QR code, the address and the code to type. */
  _showCode() {
    const code = this._code;
    byId("qr").hidden = code === null;
    byId("mobile-new-code").hidden = code === null;
    if (code === null) {
      byId("phone-address").textContent = "";
      byId("phone-code").textContent = this._open ? t("mobile.codeComes") : "";
      return;
    }
    const address = code.url.replace(/#.*$/, "");
    byId("phone-address").textContent = address;
    byId("phone-code").textContent = code.code;
    byId("qr-image").setAttribute("alt", t("mobile.qr", { address, code: code.code }));
  }

  /** Update the countdown. */
  _tick() {
    const left = this._countdown.left("deadline", this._now());
    byId("left").hidden = left === null;
    if (left === null) return;
    byId("left-label").textContent = t(left <= 0 ? "mobile.over" : "mobile.left");
    byId("left-time").textContent = left <= 0 ? "" : Countdown.text(left);
    const soon = left <= SOON_SECONDS;
    if (soon) byId("left").dataset.tone = "warn";
    else delete byId("left").dataset.tone;
    if (soon && !this._soon && left > 0) announce(t("mobile.soon"));
    this._soon = soon;
  }
}
