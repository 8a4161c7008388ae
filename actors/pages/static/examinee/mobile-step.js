/**
 * The mobile step on the examinee's page: begin, QR code and code to type, the time that is left, the picture.
 *
 * Where no codes can be had (the server cannot sign tokens for phones), the picture is sent from this computer.
 */

import { languages, t, time } from "../common/i18n.js";
import { timesOf } from "../mobile/code.js";
import { thisDevice } from "../mobile/device.js";
import { Countdown, announce, byId, maxPictureBytes } from "../common/parts.js";
import { NotAPicture, jpegOf } from "../mobile/picture.js";
import { begin, retryAfterSeconds } from "../mobile/upload-rules.js";
import { Sender } from "../mobile/upload-driver.js";
import { send, uploadUrl } from "../mobile/upload-request.js";

const SOON_SECONDS = 30;
const CODE_RETRY_SECONDS = [2, 4, 8, 15];
const PICTURE_RETRY_SECONDS = [1, 3, 9];
const PATIENCE_SECONDS = 8;
/** @type {Record<string, string>} */
const TONES = { WAITING: "info", COMPLETED: "good", FAILED: "bad", TIMED_OUT: "bad" };

/**
 * @typedef {{url: string, code: string, qrSvg: string, expiresAt: number}} PhoneCode
 * @typedef {"idle" | "asking" | "shown" | "failed" | "expired" | "none"} Codes expired: not without a new token; none:
 *   there are no codes here, upload from here
 */

export class MobileStep {
  /**
   * @param {import("../examwire.js").ExamineeClient} client
   * @param {() => {plan: string, examinee: string, token: string}} who
   */
  constructor(client, who) {
    this._client = client;
    this._who = who;
    this._offset = 0;
    /** @type {Codes} */ this._codes = "idle";
    /** @type {PhoneCode | null} */ this._code = null;
    this._codeFor = "";
    this._codeTries = 0;
    this._codeTimer = 0;
    /** Begun here, and not confirmed by the server yet. */ this._begun = false;
    this._soon = false;
    this._shownStatus = "";
    this._pictureOf = -1;
    /** The version of the picture that is shown as soon as there is a new token; -1: none. */ this._pictureMissing = -1;
    /** @type {string | null} */ this._qrUrl = null;
    /** @type {string | null} */ this._pictureUrl = null;
    /** @type {Blob | null} */ this._chosen = null;
    this._uploadError = "";
    this._countdown = new Countdown(() => this._tick());
    this._sender = this._makeSender();
    client.addEventListener("mobileSync", () => this._changed());
    client.addEventListener("token", () => this._renewed());
    client.addEventListener("tokenNeeded", () => this.show());
    byId("mobile-token").addEventListener("click", () => byId("token").focus());
    for (const type of ["status", "state"]) client.addEventListener(type, () => this._goOn());
    // What a page finds when it is opened is no news; from then on every change is said aloud.
    client.addEventListener("state", () => (this._shownStatus ||= this._stage.status));
    languages.addEventListener("change", () => this.show());
    byId("mobile-start").addEventListener("click", () => this._begin());
    byId("file").addEventListener("change", (event) => void this._choose(event));
    addEventListener("online", () => this._sender.hurry());
    this.show();
  }

  get _stage() {
    return this._client.mobileSync;
  }

  get _open() {
    return this._stage.status === "WAITING" || this._stage.status === "FAILED";
  }

  _begin() {
    this._begun = true;
    this._client.enterMobileSync();
    this._patience = setTimeout(() => {
      this._begun = false; // nothing came of it: the button works again
      this.show();
    }, PATIENCE_SECONDS * 1000);
    this.show();
  }

  /** A connection is back: what was begun without one is begun now. */
  _goOn() {
    if (this._client.connected && this._begun && !this._open) this._client.enterMobileSync();
    this.show();
  }

  /** There is another token: what was not given for the old one is asked for again. */
  _renewed() {
    if (this._codes === "expired") void this._askForCode();
    if (this._pictureMissing >= 0) void this._fetchPicture(this._pictureMissing);
    const { upload } = this._sender;
    if (upload?.state === "refused" && upload.cause === "TOKEN") this._sender.resume(upload.deadline);
    this.show();
  }

  _changed() {
    const { status, deadline } = this._stage;
    this._begun = false;
    clearTimeout(this._patience);
    if (this._open) {
      // One code for a stage; more time or a new stage needs another one, for a code ends with the deadline it knew.
      if (this._codeFor !== String(deadline)) {
        this._codeFor = String(deadline);
        this._dropCode();
        void this._askForCode();
      }
    } else {
      this._codeFor = "";
      this._dropCode();
      this._codes = this._codes === "none" ? "none" : "idle";
    }
    if (status === "COMPLETED" && this._pictureOf !== this._stage.version) void this._fetchPicture(this._stage.version);
    const moved = this._shownStatus !== "" && this._shownStatus !== status;
    this.show();
    this._shownStatus = status;
    if (moved && status !== "NONE") announce(`${byId("mobile-chip").textContent}. ${byId("mobile-text").textContent}`);
  }

  // -- the code ---------------------------------------------------------------------------------------------

  async _askForCode() {
    const wanted = this._codeFor;
    if (this._codes !== "none") this._codes = "asking";
    const { plan, examinee, token } = this._who();
    const place = `/v1/plans/${encodeURIComponent(plan)}/examinees/${encodeURIComponent(examinee)}/phone-code`;
    let response = null;
    let body = null;
    try {
      response = await fetch(place, { method: "POST", headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
      body = await response.json();
    } catch {
      response = null; // no answer, or one from something in between: asked again below
    }
    if (wanted !== this._codeFor) return;
    if (response?.status === 201) {
      this._takeCode(body);
    } else if (response?.status === 501) {
      this._codes = "none";
    } else if (response?.status === 401) {
      this._codes = "expired";
      this._refused(token);
    } else {
      this._codes = "failed";
      const step = CODE_RETRY_SECONDS[Math.min(this._codeTries, CODE_RETRY_SECONDS.length - 1)];
      const asked = retryAfterSeconds(response?.headers.get("Retry-After") ?? null, Date.now()) ?? 0;
      this._codeTries += 1;
      this._askAgainIn(Math.max(step * (0.8 + 0.4 * Math.random()), asked));
    }
    this.show();
  }

  /** The web server does not accept this token, unless there is another one by now. @param {string} token */
  _refused(token) {
    if (token === this._who().token) this._client.tokenRefused();
    else this._renewed();
  }

  /** @param {any} body */
  _takeCode({ code, url, qrSvg, expiresAt, secondsLeft }) {
    const { deadline, offset } = timesOf(expiresAt, secondsLeft, Date.now());
    if (typeof secondsLeft === "number") this._offset = Math.abs(offset) < 2000 ? 0 : offset;
    this._codes = "shown";
    this._codeTries = 0;
    this._code = { code, url, qrSvg, expiresAt: deadline ?? Number.POSITIVE_INFINITY };
    this._qrUrl = URL.createObjectURL(new Blob([qrSvg], { type: "image/svg+xml" }));
    const image = /** @type {HTMLImageElement} */ (byId("qr-image"));
    image.src = this._qrUrl;
    // A long stage outlives its code: another one in time.
    const lasts = (this._code.expiresAt - this._now()) / 1000;
    if (Number.isFinite(lasts)) this._askAgainIn(lasts - 5);
  }

  /** @param {number} seconds */
  _askAgainIn(seconds) {
    clearTimeout(this._codeTimer);
    const wanted = this._codeFor;
    this._codeTimer = setTimeout(
      () => {
        const left = (Date.parse(wanted) - this._now()) / 1000;
        if (wanted === this._codeFor && this._open && !(left < 6)) void this._askForCode();
      },
      Math.max(seconds, 1) * 1000,
    );
  }

  _dropCode() {
    clearTimeout(this._codeTimer);
    this._code = null;
    this._codeTries = 0;
    if (this._qrUrl !== null) URL.revokeObjectURL(this._qrUrl);
    this._qrUrl = null;
    byId("qr-image").removeAttribute("src");
  }

  /** By the server's clock. */
  _now() {
    return Date.now() + this._offset;
  }

  // -- the picture ------------------------------------------------------------------------------------------

  /** @param {number} version */
  async _fetchPicture(version, tries = 0) {
    const { plan, examinee, token } = this._who();
    const place = `/v1/plans/${encodeURIComponent(plan)}/captures/${encodeURIComponent(examinee)}/sync_cap.jpg`;
    try {
      const response = await fetch(place, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
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
      // It is there, the server has said so; only looking at it does not work now.
      console.info("examwire: the picture cannot be shown yet:", String(error));
      const seconds = PICTURE_RETRY_SECONDS[tries];
      if (seconds !== undefined) setTimeout(() => void this._fetchPicture(version, tries + 1), seconds * 1000);
    }
  }

  // -- sending it from here ---------------------------------------------------------------------------------

  _makeSender() {
    const begun = (/** @type {(share: number) => void} */ progress) => {
      const { plan, examinee, token } = this._who();
      if (this._chosen === null || this._device === undefined) throw new Error("there is nothing to send");
      const url = uploadUrl({ planId: plan, examineeId: examinee }, this._device);
      return send({ url, token, picture: this._chosen, progress });
    };
    const sender = new Sender(begun, {
      now: () => this._now(),
      random: Math.random,
      setTimeout: (work, ms) => setTimeout(work, ms),
      clearTimeout: (timer) => clearTimeout(timer),
    });
    sender.addEventListener("change", () => this._showUpload());
    return sender;
  }

  /** @param {Event} event */
  async _choose(event) {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const [file] = input.files ?? [];
    if (!file) return;
    this._uploadError = "";
    try {
      const [maxBytes, device] = await Promise.all([maxPictureBytes(), thisDevice()]);
      this._device = device;
      this._chosen = (await jpegOf(file, maxBytes)).blob;
      this._sender.start(begin(this._now(), Date.parse(this._stage.deadline) || null));
    } catch (error) {
      if (!(error instanceof NotAPicture)) throw error;
      this._uploadError = "upload.unreadable";
    } finally {
      input.value = ""; // so that the same file can be chosen again
      this._showUpload();
    }
  }

  _showUpload() {
    const { upload, share } = this._sender;
    const expired = upload?.state === "refused" && upload.cause === "TOKEN";
    if (expired) this._client.tokenRefused();
    const going = upload?.state === "sending" || upload?.state === "ready";
    const progress = /** @type {HTMLProgressElement} */ (byId("upload-progress"));
    progress.hidden = !going;
    progress.value = Math.round(share * 100);
    const key = this._uploadError || (upload === null ? "" : expired ? "upload.TOKEN" : upload.cause && upload.state !== "sending" ? `upload.${upload.state}` : going ? "upload.sending" : "");
    const text = key && t(key, { detail: upload?.detail ?? "" });
    if (byId("upload-text").textContent !== text) {
      byId("upload-text").textContent = text;
      if (text) announce(text);
    }
  }

  // -- what is shown ----------------------------------------------------------------------------------------

  show() {
    const stage = this._stage;
    const { status, reason } = stage;
    const known = this._client.state !== null;
    const { status: where } = this._client;
    // Of whoever was removed no picture is taken; one that is there stays to be seen.
    const removed = where.state === "gaveUp" && where.name === "REMOVED" && status !== "COMPLETED";
    byId("mobile").hidden = removed || (status === "NONE" && (!known || where.state === "gaveUp"));
    const chip = byId("mobile-chip");
    chip.textContent = status === "NONE" ? "" : t(`mobile.${status}`);
    chip.dataset.tone = TONES[status] ?? "quiet";
    byId("mobile-text").textContent = t(`mobile.${status}.text`);
    this._showNote(status, reason);
    const start = /** @type {HTMLButtonElement} */ (byId("mobile-start"));
    // Whoever is shut out or replaced has nothing to begin here.
    start.hidden = !(status === "NONE" || status === "TIMED_OUT") || where.state === "gaveUp";
    start.textContent = t(this._begun ? "mobile.starting" : status === "NONE" ? "mobile.start" : "mobile.startAgain");
    start.setAttribute("aria-disabled", String(this._begun));
    byId("mobile-join").hidden = !this._open || this._codes === "none" || this._codes === "expired";
    byId("mobile-upload").hidden = !this._open || this._codes !== "none";
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

  /** @param {string} status @param {string | undefined} reason */
  _showNote(status, reason) {
    let text = "";
    if (status === "FAILED") text = t(reason === "IMAGE_STORE_FAILED" ? "mobile.failed.store" : "mobile.failed.upload");
    else if (this._open && this._codes === "expired") text = t("mobile.expired");
    else if (this._open && this._codes === "failed") text = t("mobile.noCode");
    else if (this._begun && !this._client.connected) text = t("mobile.later");
    byId("mobile-note").hidden = text === "";
    byId("mobile-note").textContent = text;
    const { state } = this._client.status;
    byId("mobile-token").hidden = !this._client.tokenNeeded || (state !== "connected" && state !== "gaveUp");
  }

  _showCode() {
    const code = this._code;
    byId("qr").hidden = code === null;
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
